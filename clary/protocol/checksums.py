"""The checksums that clients send with S3 bodies, computed piece by piece."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Protocol

from awscrt import checksums as crt


class Checksum(Protocol):
    """A running checksum."""

    def update(self, piece: bytes, /) -> None:
        """Take in the next piece."""

    def digest(self) -> bytes:
        """The checksum of all pieces so far, big-endian."""


class _Crc:
    def __init__(self, function: Callable[[bytes, int], int], size_bytes: int) -> None:
        self._function = function
        self._size_bytes = size_bytes
        self._value = 0

    def update(self, piece: bytes, /) -> None:
        self._value = self._function(piece, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")


_MAKERS: dict[str, Callable[[], Checksum]] = {
    "crc32": lambda: _Crc(crt.crc32, 4),
    "crc32c": lambda: _Crc(crt.crc32c, 4),
    "crc64nvme": lambda: _Crc(crt.crc64nvme, 8),
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "md5": hashlib.md5,
}
ALGORITHMS = frozenset(_MAKERS)


def new_checksum(algorithm: str) -> Checksum:
    """A fresh checksum; ``algorithm`` is one of `ALGORITHMS`."""
    return _MAKERS[algorithm]()


def digest_size(algorithm: str) -> int:
    """How many bytes a checksum has."""
    return len(new_checksum(algorithm).digest())


def decode_digest(text: str, size_bytes: int) -> bytes | None:
    """The bytes of a base64 checksum; ``None`` unless it is exactly ``size_bytes`` of them."""
    try:
        digest = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == size_bytes else None
