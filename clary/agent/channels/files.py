"""File and FastFile mode: objects become files below the channel's folder.

An object that lies on this machine is linked: that takes no time and no disk. A link is the stored object
itself, so it is only made where the program sees its input read-only; elsewhere it gets a copy, which the
file system makes by sharing blocks if it can. Everything else is downloaded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clary.agent.channels.objects import Found
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.s3_transfer import Download, disk_trouble

_STEP_BYTES = 64 * 1024 * 1024
_BLOCK_BYTES = 1 << 20
_CANNOT_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


@dataclass(frozen=True)
class Planned:
    """An object and the file it becomes."""

    found: Found
    target: Path

    @property
    def download(self) -> Download:
        return Download(self.found.location, self.found.size_bytes, self.found.etag, self.target)


def plan(found: Sequence[Found], folder: Path) -> list[Planned]:
    """Make the folders of a channel; the names were checked."""
    planned = []
    made = {folder}
    for item in found:
        target = folder / item.name
        if target.parent not in made:
            with disk_trouble(target.parent):
                target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        planned.append(Planned(item, target))
    return planned


def link(planned: Sequence[Planned]) -> tuple[list[Planned], list[Planned]]:
    """Link what can be linked: what was, and what is left."""
    linked: list[Planned] = []
    left: list[Planned] = []
    for each in planned:
        (linked if link_one(each.found, each.target) else left).append(each)
    return linked, left


def link_one(found: Found, target: Path) -> bool:
    """Whether ``target`` is now a name of the stored object."""
    if not found.path:
        return False
    try:
        os.link(found.path, target, follow_symlinks=False)
    except OSError:
        return False  # another file system, too many links, or replaced meanwhile
    if target.stat().st_size == found.size_bytes:
        return True
    target.unlink()
    return False


def copy(
    planned: Sequence[Planned], done: Callable[[int], None], abandoned: Callable[[], bool]
) -> tuple[list[Planned], list[Planned]]:
    """Copy what lies on this machine: what was, and what is left. ``done`` is told of bytes as they come.

    Raises `TaskFailed` for a disk that is full, and `TaskStopped`.
    """
    copied: list[Planned] = []
    left: list[Planned] = []
    for each in planned:
        (copied if _copy_one(each, done, abandoned) else left).append(each)
    return copied, left


def _copy_one(planned: Planned, done: Callable[[int], None], abandoned: Callable[[], bool]) -> bool:
    found = planned.found
    if not found.path:
        return False
    try:
        source = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False  # replaced meanwhile, or on another machine
    try:
        if os.fstat(source).st_size != found.size_bytes:
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with disk_trouble(planned.target):
            target = os.open(planned.target, flags, 0o644)
        try:
            left = found.size_bytes
            while left > 0:
                if abandoned():
                    raise TaskStopped
                with disk_trouble(planned.target):
                    size = _copy_some(source, target, left)
                if size == 0:
                    raise TaskFailed(f"InternalServerError: {found.location.uri}: its file is too short.")
                left -= size
                done(size)
        finally:
            os.close(target)
    finally:
        os.close(source)
    return True


def _copy_some(source: int, target: int, left: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, min(left, _STEP_BYTES))
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
    block = os.read(source, min(left, _BLOCK_BYTES))
    written = 0
    while written < len(block):
        written += os.write(target, block[written:])
    return written
