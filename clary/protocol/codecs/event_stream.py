"""``application/vnd.amazon.eventstream``: framed messages, each with headers, a payload and two checksums.

A message, all numbers big-endian: its length (4), the length of its headers (4), the CRC-32 of those eight
bytes (4), headers, payload, the CRC-32 of all that (4). A header: length of its name (1), name, type (1),
value; a text (type 7) or bytes (6) have their length (2) in front.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from botocore.model import OperationModel, Shape

from clary.faults import Fault, Internal
from clary.protocol.codecs.codec import Unreadable
from clary.protocol.codecs.timestamps import as_number
from clary.protocol.faults import WireFault, to_wire

CONTENT_TYPE = "application/vnd.amazon.eventstream"
MAX_HEADERS_BYTES = 128 * 1024
MAX_PAYLOAD_BYTES = 24 * 1024**2
MAX_HEADER_VALUE_BYTES = 32_767
_FRAME_BYTES = 16  # two lengths and two checksums

HeaderValue: TypeAlias = "str | bytes | bool | int"
log = logging.getLogger("clary.front_door")


@dataclass(frozen=True)
class Documents:
    """How a protocol writes the members of an event."""

    content_type: str
    write: Callable[[Shape, Mapping[str, Any]], bytes]


def message(headers: Mapping[str, HeaderValue], payload: bytes) -> bytes:
    """One framed message. Raises ``ValueError`` for one that is larger than clients read."""
    packed = b"".join(_header(name, value) for name, value in headers.items())
    if len(packed) > MAX_HEADERS_BYTES or len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"an event may have {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}")
    prelude = struct.pack("!II", _FRAME_BYTES + len(packed) + len(payload), len(packed))
    frame = prelude + struct.pack("!I", zlib.crc32(prelude)) + packed + payload
    return frame + struct.pack("!I", zlib.crc32(frame))


def _header(name: str, value: HeaderValue) -> bytes:
    packed_name = name.encode("ascii")
    if isinstance(value, bool):
        packed = struct.pack("!B", 0 if value else 1)
    elif isinstance(value, int):
        packed = struct.pack("!Bq", 5, value)
    else:
        data = value.encode("utf-8", "replace")[:MAX_HEADER_VALUE_BYTES] if isinstance(value, str) else value
        packed = struct.pack("!BH", 7 if isinstance(value, str) else 6, len(data)) + data
    return struct.pack("!B", len(packed_name)) + packed_name + packed


def messages(data: bytes) -> Iterator[tuple[dict[str, HeaderValue], bytes]]:
    """The messages in ``data``, as (headers, payload). Raises `Unreadable` for broken framing."""
    while data:
        if len(data) < _FRAME_BYTES:
            raise Unreadable("The event stream ends within a message")
        total, headers_length, checksum = struct.unpack("!III", data[:12])
        if zlib.crc32(data[:8]) != checksum:
            raise Unreadable("The head of an event's message fails its checksum")
        if not _FRAME_BYTES + headers_length <= total <= len(data):
            raise Unreadable("The event stream ends within a message")
        if zlib.crc32(data[: total - 4]) != struct.unpack("!I", data[total - 4 : total])[0]:
            raise Unreadable("An event's message fails its checksum")
        end = 12 + headers_length
        try:
            headers = dict(_headers(data[12:end]))
        except (IndexError, struct.error, UnicodeDecodeError):
            raise Unreadable("An event's message has broken headers") from None
        yield headers, data[end : total - 4]
        data = data[total:]


_FIXED = {2: "!b", 3: "!h", 4: "!i", 5: "!q", 8: "!q"}


def _headers(data: bytes) -> Iterator[tuple[str, HeaderValue]]:
    while data:
        end = 1 + data[0]
        name, kind = data[1:end].decode(), data[end]
        start = end + 1
        if kind in (0, 1):
            value: HeaderValue = kind == 0
        elif kind in _FIXED:
            size = struct.calcsize(_FIXED[kind])
            (value,) = struct.unpack(_FIXED[kind], data[start : start + size])
            start += size
        elif kind in (6, 7):
            (length,) = struct.unpack("!H", data[start : start + 2])
            start += 2
            raw = data[start : start + length]
            if len(raw) != length:
                raise Unreadable("An event's message has broken headers")
            value = raw if kind == 6 else raw.decode()
            start += length
        else:
            raise Unreadable(f"The header {name} of an event's message has the unknown type {kind}")
        yield name, value
        data = data[start:]


async def encode(
    operation: OperationModel,
    stream: Shape,
    events: AsyncIterator[tuple[str, Mapping[str, Any]]],
    documents: Documents,
    *,
    initial: bytes | None = None,
) -> AsyncIterator[bytes]:
    """The messages of ``events``, pairs of an event's name (a member of ``stream``) and its members.

    ``initial`` goes first, with the members of the output beside the stream, where a protocol has no other
    place for them. What ``events`` raises ends the stream with a message that says so: the status is out.
    """
    try:
        if initial is not None:
            yield message(_event_headers("initial-response", documents.content_type), initial)
        async for name, members in events:
            yield _event(stream.members[name], name, members, documents)
    except Fault as fault:
        yield _failure(stream, to_wire(fault, operation.service_model, operation), documents)
    except Exception:
        log.exception("the event stream of %s broke off", operation.name)
        broken = Internal("An internal error occurred while the reply was sent.")
        yield _failure(stream, to_wire(broken, operation.service_model, operation), documents)
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


def _event_headers(name: str, content_type: str | None) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {":message-type": "event", ":event-type": name}
    if content_type is not None:
        headers[":content-type"] = content_type
    return headers


def _event(shape: Shape, name: str, members: Mapping[str, Any], documents: Documents) -> bytes:
    headers = _event_headers(name, None)
    payload = None
    for member_name, member in shape.members.items():
        value = members.get(member_name)
        if member.serialization.get("eventheader"):
            if value is not None:
                is_time = member.type_name == "timestamp"
                headers[member_name] = round(as_number(value) * 1000) if is_time else value
        elif member.serialization.get("eventpayload"):
            payload = member, value
    if payload is None:
        if shape.members:
            headers[":content-type"] = documents.content_type
        body = documents.write(shape, members) if shape.members else b""
    else:
        headers[":content-type"], body = _payload(*payload, documents)
    return message(headers, body)


def _payload(shape: Shape, value: Any, documents: Documents) -> tuple[str, bytes]:
    if shape.type_name == "blob":
        return "application/octet-stream", bytes(value or b"")
    if shape.type_name == "string":
        return "text/plain", str(value or "").encode("utf-8", "replace")
    return documents.content_type, documents.write(shape, value or {})


def _failure(stream: Shape, fault: WireFault, documents: Documents) -> bytes:
    """The message that ends a stream: an exception if the stream models it, else an error."""
    shape = stream.members.get(fault.shape_name)
    if shape is None:
        return message(
            {":message-type": "error", ":error-code": fault.code, ":error-message": fault.message}, b""
        )
    members = dict(fault.fields)
    if fault.message_member:
        members[fault.message_member] = fault.message
    headers: dict[str, HeaderValue] = {
        ":message-type": "exception",
        ":exception-type": fault.shape_name,
        ":content-type": documents.content_type,
    }
    return message(headers, documents.write(shape, members))
