"""How a server speaks with its gateway: JSON messages over a unix socket, each answered by one.

``DATA/gateway/`` holds ``lock`` (locked by the live gateway, whatever way it ends), ``gateway.json`` (where
it listens) and its log. The sockets lie there too, or, if the path is too long for a socket's name, in a
folder of our own below the system's temporary one.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import stat
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_MESSAGE_BYTES = 64 * 1024**2
LONGEST_SOCKET_PATH_BYTES = 100  # the kernel takes 107
_LENGTH = struct.Struct("!I")


class ControlBroken(Exception):
    """The other side is gone, or does not speak as it should."""


@dataclass(frozen=True)
class GatewayPlaces:
    """Where the gateway of a data folder keeps its files and sockets."""

    folder: Path
    sockets: Path

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def document(self) -> Path:
        return self.folder / "gateway.json"

    @property
    def log(self) -> Path:
        return self.folder / "gateway.log"

    @property
    def control(self) -> Path:
        return self.sockets / "control.sock"

    @property
    def invocations(self) -> Path:
        """Where the server passes on the invocations that it receives itself."""
        return self.sockets / "invocations.sock"

    def make(self) -> None:
        """Make the folders, for our user only. Raises ``PermissionError`` if somebody else has."""
        for folder in (self.folder, self.sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise PermissionError(f"{folder} is not a folder that only this user can enter; remove it.")


def gateway_places(data: Path) -> GatewayPlaces:
    """The places for ``data``, an absolute path."""
    folder = data / "gateway"
    if len(os.fsencode(folder / "invocations.sock")) <= LONGEST_SOCKET_PATH_BYTES:
        return GatewayPlaces(folder, folder)
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return GatewayPlaces(folder, Path(tempfile.gettempdir(), f"clary-gateway-{os.getuid()}-{digest}"))


def gateway_lives(places: GatewayPlaces) -> bool:
    """Whether a gateway holds the lock."""
    try:
        descriptor = os.open(places.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


async def read_message(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next message. Raises `ControlBroken`."""
    try:
        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if size > MAX_MESSAGE_BYTES:
            raise ControlBroken(f"a message of {size} bytes is too large")
        document = json.loads(await reader.readexactly(size))
    except (OSError, EOFError, ValueError) as error:
        raise ControlBroken(str(error) or "the other side is gone") from error
    if not isinstance(document, dict):
        raise ControlBroken("a message must be an object")
    return document


async def write_message(writer: asyncio.StreamWriter, document: Mapping[str, Any]) -> None:
    """Send ``document``. Raises `ControlBroken`."""
    body = json.dumps(document, separators=(",", ":")).encode()
    try:
        writer.write(_LENGTH.pack(len(body)) + body)
        await writer.drain()
    except OSError as error:
        raise ControlBroken(str(error)) from error
