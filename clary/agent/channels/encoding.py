"""What happens to the bytes of an object on their way into a pipe: unpacking, wrapping."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from clary.agent.channels.recordio import LARGEST_RECORD_BYTES, record_header, record_padding
from clary.agent.channels.stream import Piece
from clary.agent.failure import TaskFailed
from clary.agent.s3_transfer import disk_trouble

_BLOCK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 4 * 1024 * 1024  # of an unpacked object whose size has to be known before it is sent
_GZIP = 31  # zlib's word for a gzip member


class Encoder:
    """Writes pieces through ``write``, unpacked and wrapped as the channel asks.

    An object that is unpacked and wrapped at once goes through a file in ``scratch``, since a record begins
    with its size.
    """

    def __init__(
        self, write: Callable[[bytes], None], scratch: Path, channel: str, *, compressed: bool, wrapped: bool
    ) -> None:
        self._write = write
        self._scratch = scratch
        self._channel = channel
        self._compressed = compressed
        self._wrapped = wrapped
        self._gunzip: Gunzip | None = None
        self._kept: tempfile.SpooledTemporaryFile[bytes] | None = None

    def take(self, piece: Piece) -> None:
        """The next piece. Raises `TaskFailed` for what is no gzip, or too large for a record."""
        origin = piece.stretch.origin
        if piece.first:
            self._begin(piece, origin)
        if self._gunzip:
            for block in self._gunzip.feed(piece.data):
                self._pass_on(block, origin)
        else:
            self._write(piece.data)
        if piece.last:
            self._end(piece, origin)

    def close(self) -> None:
        """Forget an object that will not be finished."""
        if self._kept:
            self._kept.close()
        self._kept = self._gunzip = None

    def _begin(self, piece: Piece, origin: str) -> None:
        self.close()
        if self._compressed:
            self._gunzip = Gunzip(f"{origin} (channel {self._channel!r})")
            if self._wrapped:
                self._kept = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by `close`
                    _IN_MEMORY_BYTES, dir=str(self._scratch)
                )
        elif self._wrapped:
            self._write(self._header(piece.size_bytes, origin))

    def _pass_on(self, block: bytes, origin: str) -> None:
        if self._kept is None:
            self._write(block)
            return
        if self._kept.tell() + len(block) > LARGEST_RECORD_BYTES:
            self._header(self._kept.tell() + len(block), origin)
        with disk_trouble(self._scratch):
            self._kept.write(block)

    def _end(self, piece: Piece, origin: str) -> None:
        if self._gunzip:
            self._gunzip.finish()
        size = piece.size_bytes
        if self._kept is not None:
            size = self._kept.tell()
            self._write(self._header(size, origin))
            self._kept.seek(0)
            while block := self._kept.read(_BLOCK_BYTES):
                self._write(block)
        if self._wrapped:
            self._write(record_padding(size))
        self.close()

    def _header(self, size: int, origin: str) -> bytes:
        try:
            return record_header(size)
        except ValueError as error:
            raise TaskFailed(
                f"ClientError: {origin} cannot be wrapped (channel {self._channel!r}): {error}. Split it, or "
                "leave RecordWrapperType out."
            ) from error


class Gunzip:
    """Unpacks one object, which may consist of several gzip members, in blocks of bounded size."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._unpacker = zlib.decompressobj(_GZIP)
        self._begun = False  # a member is being read

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bytes that ``data`` unpacks to. Raises `TaskFailed`."""
        while data:
            if self._unpacker.eof:
                data = data.lstrip(b"\0")  # padding between members
                if not data:
                    return
                self._unpacker = zlib.decompressobj(_GZIP)
            self._begun = True
            try:
                block = self._unpacker.decompress(data, _BLOCK_BYTES)
            except zlib.error as error:
                raise TaskFailed(
                    f"ClientError: {self._origin} is not gzip, as its CompressionType says: {error}. "
                    "Compress the object, or set CompressionType to None."
                ) from error
            if block:
                yield block
            data = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail

    def finish(self) -> None:
        """The object is over. Raises `TaskFailed` if its last member is not."""
        if self._begun and not self._unpacker.eof:
            raise TaskFailed(f"ClientError: {self._origin} is gzip that was cut off: upload it again.")
