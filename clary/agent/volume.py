"""How much a task has written to disk, and whether that is more than its volume holds.

Folders are walked in slices of a few milliseconds, and the pause after a walk grows with what it cost and
with how far the limit is, so that a job with a million files is not slowed down by being measured. Between
two walks a writer is held by the limit for one file (``RLIMIT_FSIZE``) and by the machine's free space.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clary.agent.limits import TaskLimits, Violation, size_text

DISK_RESERVE_BYTES = 256 * 1024**2  # of the machine's disk, for whoever has to say that it is full
_WRITES_MUCH_BYTES = 64 * 1024**2  # a task that wrote less is not to blame for a full disk
_FASTEST_WRITER_BYTES = 1024**3  # in a second
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 15.0
_SLICE_SECONDS, _LONG_SLICE_SECONDS = 0.004, 0.03  # of the first look of a walk, and of the others
_LAST_LOOK_SECONDS = 10.0
_COST = 0.02  # the part of one processor that walking may take
_ENTRIES_IN_A_ROW = 64  # between looks at the clock


@dataclass
class Usage:
    """What lies in a task's folders: by their names as the algorithm sees them."""

    size_bytes: int = 0
    by_folder: Counter[str] = field(default_factory=Counter)

    @property
    def biggest(self) -> str:
        """The folder that holds most, with how much that is; "" if there is nothing."""
        for name, size in self.by_folder.most_common(1):
            return f"{name} ({size_text(size)})"
        return ""


class VolumeWatch:
    """Watches what lies below ``folders``: a real folder to its name as the algorithm sees it.

    ``limits.volume_bytes`` 0 watches the machine's disk alone. ``skipped`` are folders that do not count.
    """

    def __init__(
        self, limits: TaskLimits, folders: Mapping[Path, str], skipped: frozenset[Path] = frozenset()
    ) -> None:
        self._limit_bytes = limits.volume_bytes
        self._folders, self._skipped = dict(folders), skipped
        self._place = next(iter(folders))
        self._walk: Iterator[Usage] | None = None
        self._walk_cost = 0.0
        self._next_walk = 0.0
        self._last = Usage()

    def look(self) -> Violation | None:
        """What is wrong, as far as is known; takes some milliseconds at most."""
        free = self._free_bytes()
        if free is not None and free < DISK_RESERVE_BYTES:
            self._next_walk = min(self._next_walk, time.monotonic())
            usage = self._step() or self._last
            if usage.size_bytes >= _WRITES_MUCH_BYTES:
                return Violation(_disk_full(free, usage))
        elif self._limit_bytes:
            self._step()
        return self.last_look() if self._exceeded() else None  # for figures of everything

    def last_look(self) -> Violation | None:
        """What is wrong now that nothing writes any more."""
        if not self._limit_bytes:
            return None
        walk, until = self._measure(), time.monotonic() + _LAST_LOOK_SECONDS
        for usage in walk:
            if usage.size_bytes >= self._last.size_bytes:
                self._last = usage
            if time.monotonic() > until:
                return self._exceeded()
        self._last = usage
        return self._exceeded()

    def remark(self, said: str) -> str:
        """What a failure's last words ``said`` mean, if they are of a disk; or ""."""
        if "No space left on device" in said:
            free = self._free_bytes()
            left = f"{size_text(free)} are free" if free is not None else "its free space is unknown"
            return f"the disk of this machine is full ({left}): free some space or move Clary's data folder"
        if "File too large" in said and self._limit_bytes:
            return (
                f"a file cannot be larger than the volume of {size_text(self._limit_bytes)}: ask for a "
                "larger VolumeSizeInGB"
            )
        return ""

    def _exceeded(self) -> Violation | None:
        if not self._limit_bytes or self._last.size_bytes <= self._limit_bytes:
            return None
        gigabytes = self._limit_bytes // 1024**3
        return Violation(
            f"ClientError: DiskQuotaExceeded: the algorithm wrote {size_text(self._last.size_bytes)}; "
            f"VolumeSizeInGB is {gigabytes}. Most of it is in {self._last.biggest}. Ask for a larger "
            "VolumeSizeInGB, or write less."
        )

    def _step(self) -> Usage | None:
        """Go on with the walk that is under way, or begin one that is due; what a finished one found."""
        now = time.monotonic()
        slice_seconds = _LONG_SLICE_SECONDS
        if self._walk is None:
            if now < self._next_walk:
                return None
            self._walk, self._walk_cost, slice_seconds = self._measure(), 0.0, _SLICE_SECONDS
        finished, usage = True, self._last
        for found in self._walk:
            usage = found
            if time.monotonic() - now >= slice_seconds:
                finished = False
                break
        ended = time.monotonic()
        self._walk_cost += ended - now
        if usage.size_bytes > self._last.size_bytes or finished:
            self._last = usage
        if not finished:
            return None
        self._walk = None
        room = max(0, self._limit_bytes - usage.size_bytes)
        pause = min(max(room / _FASTEST_WRITER_BYTES, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._next_walk = ended + max(pause, self._walk_cost / _COST)
        return usage

    def _measure(self) -> Iterator[Usage]:
        """Walk everything, giving what was found so far every now and then, and all at the end."""
        usage = Usage()
        linked: set[tuple[int, int]] = set()
        for root, seen_as in self._folders.items():
            todo = [(root, seen_as)]
            while todo:
                folder, name = todo.pop()
                for index, (entry, size, node) in enumerate(_entries(folder)):
                    if index % _ENTRIES_IN_A_ROW == 0:
                        yield usage
                    top = f"{seen_as}/{entry.name}" if folder == root else name
                    if size is None:
                        path = Path(entry.path)
                        if path not in self._skipped:
                            todo.append((path, top))
                        continue
                    if node is not None:
                        if node in linked:
                            continue
                        linked.add(node)
                    usage.size_bytes += size
                    usage.by_folder[name if folder == root else top] += size
        yield usage

    def _free_bytes(self) -> int | None:
        try:
            found = os.statvfs(self._place)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], int | None, tuple[int, int] | None]]:
    """Entries with the bytes they take (``None``: a folder), and a file's identity if it has other names."""
    try:
        listing = os.scandir(folder)
    except OSError:
        return  # gone meanwhile, or closed to us
    with listing:
        while True:
            try:
                entry = next(listing)
            except (StopIteration, OSError):
                return
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield entry, None, None
                    continue
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            node = (found.st_dev, found.st_ino) if found.st_nlink > 1 else None
            yield entry, found.st_blocks * 512, node


def _disk_full(free: int, usage: Usage) -> str:
    return (
        f"ClientError: the disk of this machine is full: {size_text(free)} are free, and the algorithm wrote "
        f"{size_text(usage.size_bytes)}, most of it to {usage.biggest}. Free some space on the machine, or "
        "write less."
    )
