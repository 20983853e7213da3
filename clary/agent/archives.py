"""Archives: packing what a job made, and unpacking what somebody sent without trusting any of it."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

LARGEST_EXTRACTED_BYTES = 64 * 1024**3
MOST_MEMBERS = 1_000_000
LARGEST_RATIO = 200  # of extracted to packed size, once it matters
_RATIO_MATTERS_BYTES = 256 * 1024 * 1024
_COPY_BYTES = 1 << 20
_MEMBER_TIME = 315_532_800  # 1980-01-01: the same content makes the same archive
_COMPRESSION_LEVEL = 6


class BadArchive(Exception):
    """The archive cannot or must not be unpacked; the message says which member and why."""


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def pack(folder: Path, sink: Sink, warn: Callable[[str], None]) -> None:
    """Write ``folder`` as a ``.tar.gz`` to ``sink``: names in order, no owners, the same bytes each time.

    Symbolic links to inside the folder stay links. Links that lead outside, devices, sockets and pipes are
    left out, and ``warn`` is told.
    """
    with (
        gzip.GzipFile(
            filename="", mode="wb", compresslevel=_COMPRESSION_LEVEL, fileobj=_Writer(sink), mtime=0
        ) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in _walk(folder):
            _add(archive, folder, path, warn)


def _add(archive: tarfile.TarFile, folder: Path, path: Path, warn: Callable[[str], None]) -> None:
    name = path.relative_to(folder).as_posix()
    found = path.lstat()
    member = tarfile.TarInfo(name)
    member.mtime = _MEMBER_TIME
    member.mode = 0o755 if found.st_mode & 0o111 else 0o644
    if stat.S_ISDIR(found.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
    elif stat.S_ISLNK(found.st_mode):
        target = str(path.readlink())
        inside = Path(os.path.normpath(path.parent / target))
        if Path(target).is_absolute() or not inside.is_relative_to(folder):
            warn(f"{name} is a link to {target}, outside the folder: it was left out.")
            return
        member.type, member.linkname = tarfile.SYMTYPE, target
        archive.addfile(member)
    elif stat.S_ISREG(found.st_mode):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            member.size = os.fstat(descriptor).st_size
            archive.addfile(member, file)
    else:
        warn(f"{name} is neither a file nor a folder: it was left out.")


def unpack(packed: IO[bytes], folder: Path, packed_bytes: int) -> None:
    """Unpack the tar archive ``packed`` (gzip, bzip2, xz or plain) into ``folder``, which must exist.

    Raises `BadArchive` for anything that would land outside of ``folder``, for devices, and for archives that
    grow beyond the limits; what was unpacked until then stays.
    """
    total = 0
    try:
        with tarfile.open(fileobj=packed, mode="r:*") as archive:
            for count, member in enumerate(archive):
                if count >= MOST_MEMBERS:
                    raise BadArchive(f"it has more than {MOST_MEMBERS} members")
                total += max(0, member.size)
                if total > LARGEST_EXTRACTED_BYTES or (
                    total > _RATIO_MATTERS_BYTES and total > LARGEST_RATIO * max(1, packed_bytes)
                ):
                    raise BadArchive(f"it unpacks to more than {total} bytes from {packed_bytes}")
                _extract(archive, member, folder)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, ValueError) as error:
        raise BadArchive(f"it is no readable tar archive: {error}") from error
    except OSError as error:
        raise BadArchive(f"it could not be unpacked: {error}") from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    parts = PurePosixPath(member.name).parts
    if not parts or parts == (".",):
        return
    if member.name.startswith("/") or ".." in parts or "\0" in member.name:
        raise BadArchive(f"its member {member.name!r} leads outside the folder")
    target = folder.joinpath(*parts)
    _check_inside(target.parent, folder, member.name)
    if member.isdir():
        if target.is_symlink():
            raise BadArchive(f"its member {member.name!r} goes through a link")
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.is_file():
        target.unlink()
    if member.issym():
        resolved = Path(os.path.normpath(target.parent / member.linkname))
        if PurePosixPath(member.linkname).is_absolute() or not resolved.is_relative_to(folder):
            raise BadArchive(
                f"its member {member.name!r} is a link to {member.linkname!r}, outside the folder"
            )
        target.symlink_to(member.linkname)
    elif member.islnk():
        source = folder.joinpath(*PurePosixPath(member.linkname).parts)
        if PurePosixPath(member.linkname).is_absolute() or ".." in PurePosixPath(member.linkname).parts:
            raise BadArchive(
                f"its member {member.name!r} is a link to {member.linkname!r}, outside the folder"
            )
        _check_inside(source, folder, member.name)
        if not source.is_file() or source.is_symlink():
            raise BadArchive(f"its member {member.name!r} is a link to {member.linkname!r}, which is no file")
        os.link(source, target)
    elif member.isfile():
        content = archive.extractfile(member)
        if content is None:
            raise BadArchive(f"its member {member.name!r} has no content")
        mode = 0o755 if member.mode & 0o111 else 0o644
        descriptor = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode
        )
        with os.fdopen(descriptor, "wb") as file:
            while block := content.read(_COPY_BYTES):
                file.write(block)
    else:
        raise BadArchive(f"its member {member.name!r} is a device or something else that is no file")


def _check_inside(path: Path, folder: Path, name: str) -> None:
    """Refuse a path that goes through a link, wherever the link leads."""
    for part in (path, *path.parents):
        if part == folder:
            return
        if part.is_symlink():
            raise BadArchive(f"its member {name!r} goes through a link")


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below ``folder`` in the order of names; links are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


class _Writer:
    """What `gzip` needs of a file."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        self._sink.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """There is nothing to hold back."""
