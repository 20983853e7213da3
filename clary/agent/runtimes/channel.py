"""Messages between local processes over a unix stream socket: a length, then JSON; with descriptors."""

from __future__ import annotations

import array
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

LARGEST_MESSAGE_BYTES = 4 * 1024 * 1024
_LENGTH = struct.Struct("!I")
_MOST_DESCRIPTORS = 8


class ChannelBroken(Exception):
    """The other side is gone, or sent something else."""


def send_message(
    channel: socket.socket, document: Mapping[str, Any], descriptors: Sequence[int] = ()
) -> None:
    """Send ``document``, and copies of ``descriptors``. Raises `ChannelBroken`."""
    body = json.dumps(document).encode()
    if len(body) > LARGEST_MESSAGE_BYTES:
        raise ChannelBroken(f"a message of {len(body)} bytes is over the limit of {LARGEST_MESSAGE_BYTES}")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        channel.sendmsg([_LENGTH.pack(len(body))], ancillary)
        channel.sendall(body)
    except OSError as error:
        raise ChannelBroken(str(error)) from error


def receive_message(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next message and the descriptors that came with it (not inherited by programs that are executed).

    Raises `ChannelBroken`, also at the end of the stream.
    """
    descriptors = array.array("i")
    try:
        space = socket.CMSG_SPACE(_MOST_DESCRIPTORS * descriptors.itemsize)
        header, ancillary, _, _ = channel.recvmsg(_LENGTH.size, space)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        header += _exactly(channel, _LENGTH.size - len(header)) if header else b""
        if not header:
            raise ChannelBroken("the other side closed the connection")
        (size,) = _LENGTH.unpack(header)
        if size > LARGEST_MESSAGE_BYTES:
            raise ChannelBroken(f"a message of {size} bytes is over the limit of {LARGEST_MESSAGE_BYTES}")
        document = json.loads(_exactly(channel, size))
    except (OSError, ValueError) as error:
        raise ChannelBroken(str(error)) from error
    if not isinstance(document, dict):
        raise ChannelBroken("a message that is no object")
    return document, list(descriptors)


def _exactly(channel: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(min(size - len(parts), 1 << 16))
        if not part:
            raise ChannelBroken("the other side closed the connection within a message")
        parts += part
    return bytes(parts)
