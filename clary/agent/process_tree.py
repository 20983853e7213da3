"""The processes below one process and the memory they hold, for machines that allow no control groups.

The kernel says cheaply what each process has resident; pages that several share count once for each. Only
where that sum is over the limit the exact figure is asked for, which takes the kernel longer.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MOST_PROCESSES = 20_000  # looked at; whoever has more is over every limit
_COST = 0.05  # the part of one processor that asking for exact figures may take


class ProcessTree:
    """Everything below the process ``root``, itself included."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._next_exact = 0.0

    def processes(self) -> list[int]:
        """Their ids, as far as they could be found."""
        found = [self._root]
        for process in found:  # grows while it is gone through
            if len(found) > _MOST_PROCESSES:
                break
            found.extend(_children(process))
        return found

    def memory_above(self, limit_bytes: int, processes: list[int]) -> int:
        """How much memory ``processes`` hold if that is more than ``limit_bytes``, else 0."""
        if sum(map(_resident_bytes, processes)) <= limit_bytes:
            return 0
        began = time.monotonic()
        if began < self._next_exact:
            return 0
        exact = sum(map(_own_bytes, processes))
        now = time.monotonic()
        self._next_exact = now + (now - began) / _COST
        return exact if exact > limit_bytes else 0


def _children(process: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):
                yield from map(int, (thread / "children").read_bytes().split())


def _resident_bytes(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _own_bytes(process: int) -> int:
    """Memory of a process that no file backs, its share of what it shares with others."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return _resident_bytes(process)
    figures = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(":")
        figures[name] = int(value.split()[0]) * 1024
    if "Pss_Anon" in figures:
        return figures["Pss_Anon"] + figures.get("Pss_Shmem", 0)
    return figures.get("Pss", 0)
