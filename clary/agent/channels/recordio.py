"""RecordIO framing: magic number, length, payload, zero bytes up to a multiple of four."""

from __future__ import annotations

import struct

MAGIC = 0xCED7230A
LARGEST_RECORD_BYTES = (1 << 29) - 1  # the upper three bits of the length are flags, always 0 here
_HEADER = struct.Struct("<II")


def record_header(size_bytes: int) -> bytes:
    """What stands before a payload. Raises ``ValueError`` for one that no record can hold."""
    if size_bytes > LARGEST_RECORD_BYTES:
        raise ValueError(f"a RecordIO record holds {LARGEST_RECORD_BYTES} bytes at most, not {size_bytes}")
    return _HEADER.pack(MAGIC, size_bytes)


def record_padding(size_bytes: int) -> bytes:
    """What stands behind a payload."""
    return bytes(-size_bytes % 4)
