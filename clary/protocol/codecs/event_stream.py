"""``application/vnd.amazon.eventstream``: framed messages, each with headers, a payload and two checksums.

Layout of a message (all numbers big-endian): total length (4), headers length (4), CRC-32 of those eight
bytes (4), headers, payload, CRC-32 of everything before (4). A header is: name length (1), name, type (1; 7
is text), value length (2), value.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from botocore.model import Shape

from clary.faults import Fault
from clary.protocol.codecs.codec import unreadable
from clary.protocol.codecs.documents import Leaves, write

CONTENT_TYPE = "application/vnd.amazon.eventstream"
MAX_MESSAGE_BYTES = 24 * 1024**2
_TEXT = 7
_FRAME_BYTES = 16  # prelude, its checksum, the message's checksum


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One framed message."""
    packed = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + struct.pack("!BH", _TEXT, len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", _FRAME_BYTES + len(packed) + len(payload), len(packed))
    frame = prelude + struct.pack("!I", zlib.crc32(prelude)) + packed + payload
    return frame + struct.pack("!I", zlib.crc32(frame))


def messages(data: bytes) -> Iterator[tuple[dict[str, str], bytes]]:
    """The messages in ``data``. Raises `Invalid` for broken framing."""
    while data:
        if len(data) < _FRAME_BYTES:
            raise unreadable("The event stream ends within a message.")
        total, header_bytes, checksum = struct.unpack("!III", data[:12])
        if zlib.crc32(data[:8]) != checksum or not _FRAME_BYTES <= total <= min(len(data), MAX_MESSAGE_BYTES):
            raise unreadable("The event stream's framing is broken.")
        if zlib.crc32(data[: total - 4]) != struct.unpack("!I", data[total - 4 : total])[0]:
            raise unreadable("A message of the event stream fails its checksum.")
        try:
            headers = dict(_headers(data[12 : 12 + header_bytes]))
        except (IndexError, struct.error, UnicodeDecodeError):
            raise unreadable("A message of the event stream has broken headers.") from None
        yield headers, data[12 + header_bytes : total - 4]
        data = data[total:]


def _headers(data: bytes) -> Iterator[tuple[str, str]]:
    while data:
        end = 1 + data[0]
        name, kind = data[1:end].decode(), data[end]
        if kind != _TEXT:
            raise unreadable(f"The header {name} of the event stream is not text.")
        (length,) = struct.unpack("!H", data[end + 1 : end + 3])
        yield name, data[end + 3 : end + 3 + length].decode()
        data = data[end + 3 + length :]


async def encode(
    shape: Shape,
    events: AsyncIterator[tuple[str, Mapping[str, Any]]],
    leaves: Leaves,
    *,
    initial: bytes | None = None,
) -> AsyncIterator[bytes]:
    """The messages of ``events``, pairs of an event's name and its members.

    ``initial`` is sent first, as the message that carries the other members of the output. A `Fault` that
    ``events`` raises is sent as the exception message that ends the stream.
    """
    if initial is not None:
        headers = {
            ":message-type": "event",
            ":event-type": "initial-response",
            ":content-type": "application/json",
        }
        yield message(headers, initial)
    try:
        async for name, members in events:
            yield _event(shape.members[name], name, members, leaves)
    except Fault as fault:
        code = fault.code or "InternalStreamFailure"
        headers = {
            ":message-type": "exception",
            ":exception-type": code,
            ":content-type": "application/json",
        }
        yield message(headers, json.dumps({**fault.fields, "Message": fault.message}).encode())


def _event(shape: Shape, name: str, members: Mapping[str, Any], leaves: Leaves) -> bytes:
    headers = {":message-type": "event", ":event-type": name}
    payload: bytes = b""
    rest = {}
    explicit = False
    for member_name, member in shape.members.items():
        value = members.get(member_name)
        if member.serialization.get("eventheader"):
            if value is not None:
                headers[member_name] = str(value)
        elif member.serialization.get("eventpayload"):
            explicit = True
            if member.type_name == "blob":
                headers[":content-type"] = "application/octet-stream"
                payload = bytes(value or b"")
            elif member.type_name == "string":
                headers[":content-type"] = "text/plain"
                payload = str(value or "").encode()
            else:
                headers[":content-type"] = "application/json"
                payload = json.dumps(write(member, value or {}, leaves)).encode()
        elif value is not None:
            rest[member_name] = value
    if not explicit:
        headers[":content-type"] = "application/json"
        payload = json.dumps(write(shape, rest, leaves)).encode()
    return message(headers, payload)
