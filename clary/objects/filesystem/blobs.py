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
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from clary.faults import Unavailable
from clary.objects.filesystem.to_the_end import to_the_end
from clary.objects.keys import Hash, as_base64, new_checksum

PIECE_BYTES = 1024 * 1024
STEP_BYTES = 64 * 1024 * 1024  # joined at a time: a thread is not asked to do more than that uninterrupted
_SMALL_BYTES = 64 * 1024  # hashing less than this is quicker than handing it to a thread
_SUFFIX = ".new"
# The file system cannot copy by itself, or not between these files.
_CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


@dataclass(frozen=True)
class Blob:
    """A finished file and what was found while it was written.

    ``md5`` is hexadecimal, and empty for a file that was joined of others: nobody asks for it.
    """

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
        md5 = hashlib.md5(usedforsecurity=False)
        sums = {algorithm: new_checksum(algorithm) for algorithm in algorithms}
        size = 0

        async def fill(file: BinaryIO) -> None:
            nonlocal size
            buffered = bytearray()
            async for piece in body:
                size += len(piece)
                buffered += piece
                if len(buffered) >= PIECE_BYTES:
                    data, buffered = bytes(buffered), bytearray()
                    with _disk():
                        await to_the_end(asyncio.to_thread(_take, file, data, (md5, *sums.values())))
            rest = bytes(buffered)
            with _disk():
                if len(rest) > _SMALL_BYTES:
                    await to_the_end(asyncio.to_thread(_take, file, rest, (md5, *sums.values())))
                else:
                    _take(file, rest, (md5, *sums.values()))

        name = await self._make(fill)
        return Blob(name, size, md5.hexdigest(), _digests(sums))

    async def join(self, names: Sequence[str], algorithms: Iterable[str]) -> Blob:
        """One blob of several, in order.

        Where nothing has to be computed of the bytes the file system copies them, or shares them if it can.
        """
        sums = {algorithm: new_checksum(algorithm) for algorithm in algorithms}
        size = 0

        async def fill(file: BinaryIO) -> None:
            nonlocal size
            for name in names:
                with _disk(), self.open(name) as part:
                    left = os.fstat(part.fileno()).st_size
                    while left > 0:
                        copied = await to_the_end(
                            asyncio.to_thread(_append, file, part, tuple(sums.values()))
                        )
                        if copied == 0:
                            raise OSError(errno.EIO, f"the file {name} ends too early")
                        left -= copied
                        size += copied

        joined = await self._make(fill)
        return Blob(joined, size, "", _digests(sums))

    async def _make(self, fill: Callable[[BinaryIO], Awaitable[None]]) -> str:
        """The name of a new file with what ``fill`` writes, on the disk; nothing is left if that raises."""
        name = secrets.token_hex(16)
        temporary = self.path(name).with_name(name + _SUFFIX)
        try:
            with _disk():
                file = _create(temporary)
            try:
                await fill(file)
                with _disk():
                    await to_the_end(asyncio.to_thread(_finish, file, temporary, self.path(name)))
            finally:
                file.close()
        except BaseException:
            temporary.unlink(missing_ok=True)
            self.remove(name)
            raise
        return name

    async def link(self, name: str) -> str | None:
        """A second name for a blob, which outlives the first; ``None`` if the file system gives none."""
        second = secrets.token_hex(16)
        try:
            await to_the_end(asyncio.to_thread(_link, self.path(name), self.path(second)))
        except OSError:
            self.remove(second)
            return None
        except BaseException:
            self.remove(second)
            raise
        return second

    def open(self, name: str) -> FileIO:
        """The file, which stays readable after it was removed. Raises ``FileNotFoundError``."""
        return self.path(name).open("rb", buffering=0)

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    async def remove_all(self, names: Sequence[str]) -> None:
        """In a thread: to free a large file takes its time."""

        def remove() -> None:
            for name in names:
                self.remove(name)

        if names:
            await asyncio.to_thread(remove)

    def sweep(self, known: Iterator[str]) -> int:
        """Remove files that no one knows, left by a crash; how many that were. Before anything is written.

        ``known`` comes in the order of the names, and so do the files: neither is held in memory.
        """
        count = 0
        expected = next(known, None)
        for folder in sorted(self._root.iterdir()):
            for file in sorted(folder.iterdir()) if folder.is_dir() else ():
                while expected is not None and expected < file.name:
                    expected = next(known, None)
                if file.name != expected:
                    file.unlink(missing_ok=True)
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


def _take(file: BinaryIO, data: bytes, sums: Iterable[Hash]) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    for each in sums:
        each.update(data)


def _append(file: BinaryIO, part: BinaryIO, sums: Sequence[Hash]) -> int:
    """Put the next bytes of ``part`` behind what is in ``file``; how many that were, 0 at the end."""
    if not sums and sys.platform == "linux":
        try:
            return os.copy_file_range(part.fileno(), file.fileno(), STEP_BYTES)
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
    copied = 0
    while copied < STEP_BYTES and (piece := part.read(PIECE_BYTES)):
        _take(file, piece, sums)
        copied += len(piece)
    return copied


def _digests(sums: Mapping[str, Hash]) -> dict[str, str]:
    return {algorithm: as_base64(each.digest()) for algorithm, each in sums.items()}


def _finish(file: BinaryIO, temporary: Path, path: Path) -> None:
    """On the disk under its name, or not at all."""
    os.fchmod(
        file.fileno(), 0o444
    )  # nobody changes it, and jobs read links to it; the folders keep others out
    os.fsync(file.fileno())
    temporary.replace(path)
    _flush_folder(path)


def _link(path: Path, second: Path) -> None:
    second.hardlink_to(path)
    _flush_folder(second)


def _flush_folder(path: Path) -> None:
    """Put the name of ``path`` on the disk."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Turn the operating system's refusals into `Unavailable`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = (
            "The disk that holds the objects is full."
            if full
            else f"The object could not be written: {error.strerror}."
        )
        raise Unavailable(text, code="ServiceUnavailable", status=503) from error
