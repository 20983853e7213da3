"""Files that hold bytes: written once, whole and on the disk before anyone hears of them, never changed.

Their names are random, so no key can lead anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clary.faults import Unavailable
from clary.objects.filesystem.to_the_end import to_the_end
from clary.objects.keys import as_base64, new_checksum

PIECE_BYTES = 1024 * 1024
_SMALL_BYTES = 64 * 1024  # hashing less than this is quicker than handing it to a thread
_SUFFIX = ".new"


@dataclass(frozen=True)
class Blob:
    """A finished file and what was found while it was written. ``md5`` is hexadecimal."""

    name: str
    size_bytes: int
    md5: str
    checksums: Mapping[str, str]


class BlobFolder:
    """The files below ``root``, in 256 sub-folders."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True, mode=0o700)
        for number in range(256):
            (root / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)

    def path(self, name: str) -> Path:
        return self._root / name[:2] / name

    async def write(self, body: AsyncIterator[bytes], algorithms: Iterable[str]) -> Blob:
        """Write ``body``. What it raises is raised, and leaves nothing behind; so does a full disk."""
        name = secrets.token_hex(16)
        temporary = self.path(name).with_name(name + _SUFFIX)
        md5 = hashlib.md5(usedforsecurity=False)
        sums = {algorithm: new_checksum(algorithm) for algorithm in algorithms}
        size = 0
        try:
            file = _create(temporary)
            try:
                buffered = bytearray()
                async for piece in body:
                    size += len(piece)
                    buffered += piece
                    if len(buffered) >= PIECE_BYTES:
                        data, buffered = bytes(buffered), bytearray()
                        await to_the_end(asyncio.to_thread(_take, file, data, md5, sums))
                rest = bytes(buffered)
                if len(rest) > _SMALL_BYTES:
                    await to_the_end(asyncio.to_thread(_take, file, rest, md5, sums))
                else:
                    _take(file, rest, md5, sums)
                await to_the_end(asyncio.to_thread(_finish, file, temporary, self.path(name)))
            finally:
                file.close()
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            self.remove(name)
            if isinstance(error, OSError):
                raise _disk_fault(error) from error
            raise
        return Blob(
            name,
            size,
            md5.hexdigest(),
            {algorithm: as_base64(each.digest()) for algorithm, each in sums.items()},
        )

    async def join(self, names: Iterable[str], algorithms: Iterable[str]) -> Blob:
        """One blob of several, in order."""

        async def pieces() -> AsyncIterator[bytes]:
            for name in names:
                async for piece in self.read(name, 0, None):
                    yield piece

        return await self.write(pieces(), algorithms)

    def open(self, name: str) -> BinaryIO:
        """The file, which stays readable after it was removed."""
        return self.path(name).open("rb")

    async def read(self, name: str, first: int, last: int | None) -> AsyncIterator[bytes]:
        """The bytes ``first`` to ``last`` (inclusive, ``None`` for the end)."""
        file = self.open(name)
        async for piece in read_file(file, first, last):
            yield piece

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def sweep(self, known: set[str]) -> int:
        """Remove files that no one knows, left by a crash; how many that were. Before anything is written."""
        count = 0
        for folder in self._root.iterdir():
            for file in folder.iterdir() if folder.is_dir() else ():
                if file.name not in known:
                    with contextlib.suppress(FileNotFoundError):
                        file.unlink()
                        count += 1
        return count


async def read_file(file: BinaryIO, first: int, last: int | None) -> AsyncIterator[bytes]:
    """The bytes of an open file, which is closed at the end."""
    try:
        left = None if last is None else last - first + 1
        if first:
            file.seek(first)
        while left is None or left > 0:
            size = PIECE_BYTES if left is None else min(PIECE_BYTES, left)
            piece = file.read(size) if size <= _SMALL_BYTES else await asyncio.to_thread(file.read, size)
            if not piece:
                return
            if left is not None:
                left -= len(piece)
            yield piece
    finally:
        file.close()


def _create(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def _take(file: BinaryIO, data: bytes, md5: object, sums: Mapping[str, object]) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    for each in (md5, *sums.values()):
        each.update(data)  # type: ignore[attr-defined]


def _finish(file: BinaryIO, temporary: Path, path: Path) -> None:
    """On the disk under its name, or not at all."""
    os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _disk_fault(error: OSError) -> Unavailable:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = (
        "The disk that holds the objects is full."
        if full
        else f"The object could not be written: {error.strerror}."
    )
    return Unavailable(text, code="ServiceUnavailable", status=503)
