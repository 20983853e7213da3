"""The watch over a program that runs: looked at about once a second, it says which limit was exceeded.

Two kinds of evidence: what the kernel's control groups count, where a task has one, or else what its
processes hold; and what lies in its folders. For a Docker container the engine limits memory and processors,
and only the folders are watched.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from clary.agent.cgroups import Cgroup, find_places, group_name
from clary.agent.limits import TaskLimits, Violation, size_text
from clary.agent.process_tree import ProcessTree
from clary.agent.runtimes import sandbox
from clary.agent.runtimes.program import Program
from clary.agent.surroundings import AgentSettings
from clary.agent.volume import VolumeWatch
from clary.resources.task_folder import TaskFolder

_numbers = itertools.count()


class Watch(Protocol):
    """What `clary.agent.execute.execute` asks while a program runs."""

    def look(self) -> Violation | None:
        """What is exceeded now. Takes a few milliseconds; called about once a second."""

    def last_look(self, *, succeeded: bool) -> Violation | None:
        """What was exceeded, now that the program has ended."""

    def remark(self, said: str) -> str:
        """What the last words of a program that failed mean in terms of limits, or ""."""


class FolderWatch:
    """Watches what a task writes, and the machine's disk."""

    def __init__(self, volume: VolumeWatch) -> None:
        self._volume = volume

    def look(self) -> Violation | None:
        return self._volume.look()

    def last_look(self, *, succeeded: bool) -> Violation | None:
        return self._volume.last_look()

    def remark(self, said: str) -> str:
        return self._volume.remark(said)


class ProgramWatch:
    """Watches a program's memory, its processes, and what it writes. ``root`` is its first process."""

    def __init__(self, limits: TaskLimits, volume: VolumeWatch, cgroup: Cgroup | None, root: int) -> None:
        self._limits = limits
        self._volume = volume
        self._cgroup = cgroup
        self._tree = ProcessTree(root)
        self._entered = False

    def look(self) -> Violation | None:
        return self._counted() or self._seen() or self._volume.look()

    def last_look(self, *, succeeded: bool) -> Violation | None:
        return (None if succeeded else self._counted()) or self._volume.last_look()

    def remark(self, said: str) -> str:
        return self._volume.remark(said)

    def _counted(self) -> Violation | None:
        """What the kernel counted in the task's control group."""
        if self._cgroup is None:
            return None
        if self._cgroup.memory_kills():
            peak = self._cgroup.memory_peak_bytes()
            return Violation(out_of_memory_reason(self._limits, peak, exact=False))
        if self._cgroup.refused_processes():
            self._cgroup.refuse_processes()  # or it would go on while it is being killed
            return Violation(_too_many_processes(self._limits))
        return None

    def _seen(self) -> Violation | None:
        """What the program's processes show, where no control group holds them."""
        if self._cgroup is not None and not self._entered:
            self._entered = self._cgroup.members() > 0
        if self._entered and self._cgroup is not None and "pids" in self._cgroup.controllers:
            return None
        processes = self._tree.processes()
        if len(processes) > self._limits.processes:
            return Violation(_too_many_processes(self._limits))
        if self._entered:
            return None
        used = self._tree.memory_above(self._limits.memory_bytes, processes)
        return Violation(out_of_memory_reason(self._limits, used, exact=True)) if used else None


class Confinement:
    """Holds what confines one program: its control group and its processors. A context manager."""

    def __init__(self, limits: TaskLimits, settings: AgentSettings) -> None:
        self.limits = limits
        self._locks: list[int] = []
        folder = Path(settings.sockets).parent / "processors"
        self._processors = _take_processors(limits.cpu_count, folder, self._locks)
        self.cgroup: Cgroup | None = None
        places = find_places() if settings.cgroups else None
        if places:
            try:
                self.cgroup = Cgroup.create(
                    places,
                    group_name(next(_numbers)),
                    memory_bytes=limits.memory_bytes,
                    cpu_count=max(1.0, limits.cpu_count),
                    processes=limits.processes,
                )
            except OSError as error:
                print(f"no control group for the task, so it is watched: {error}", flush=True)

    def __enter__(self) -> Confinement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back; the program must have ended."""
        if self.cgroup:
            self.cgroup.remove()
            self.cgroup = None
        while self._locks:
            os.close(self._locks.pop())

    def confined(self, program: Program) -> Program:
        """``program`` with the limits that its own process puts on itself before it runs."""
        limits, cgroup = self.limits, self.cgroup
        counted = cgroup is not None and "pids" in cgroup.controllers
        return replace(
            program,
            cgroup=cgroup.name if cgroup else "",
            processors=tuple(self._processors),
            largest_file_bytes=limits.volume_bytes,
            most_processes=0 if counted else limits.processes,
            shared_memory_bytes=limits.memory_bytes // 2,  # as the kernel has it
        )

    def watch(self, volume: VolumeWatch, root: int) -> ProgramWatch:
        """The watch over the program, whose first process is ``root``."""
        return ProgramWatch(self.limits, volume, self.cgroup, root)


def volume_watch(limits: TaskLimits, folder: TaskFolder, ml_seen: str) -> VolumeWatch:
    """The watch over what a task writes: its ``/opt/ml`` but for the input, and its own ``/tmp``."""
    folders = {folder.ml: ml_seen}
    for seen, own in sandbox.scratch_folders(folder.ml).items():
        folders[own] = seen
    return VolumeWatch(limits, folders, skipped=frozenset({folder.ml / "input"}))


def _take_processors(cpu_count: float, folder: Path, locks: list[int]) -> Sequence[int]:
    """Which processors the task is to run on, ``()`` for all; those that other tasks have come last.

    Each is held by a lock on a file in ``folder``, which ends with this process; the locks go to ``locks``.
    """
    there = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    wanted = max(1, int(-(-cpu_count // 1)))
    if wanted >= len(there):
        return ()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken: list[int] = []
    for processor in there:
        if len(taken) == wanted:
            break
        lock = os.open(folder / str(processor), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            locks.append(lock)
            taken.append(processor)
    others = [processor for processor in there if processor not in taken]
    return sorted([*taken, *random.SystemRandom().sample(others, wanted - len(taken))])


def out_of_memory_reason(limits: TaskLimits, used: int, *, exact: bool) -> str:
    """Why a task was killed that held ``used`` bytes; ``exact`` says that these were counted."""
    remedy = (
        "Choose an instance type with more memory, or have the algorithm hold less at a time (smaller "
        "batches, fewer workers)."
    )
    if exact or used >= limits.memory_bytes * 0.97:
        figure = f"used {size_text(used)}" if exact else f"needs more than {size_text(limits.memory_bytes)}"
        return f"ClientError: OutOfMemoryError: the algorithm {figure}; {limits.memory_holder}. {remedy}"
    return (
        "ClientError: OutOfMemoryError: the machine ran out of memory while the algorithm used "
        f"{size_text(used)}; {limits.memory_holder}. {remedy}"
    )


def _too_many_processes(limits: TaskLimits) -> str:
    return (
        f"ClientError: ProcessLimitExceeded: the algorithm has more than {limits.processes} processes and "
        "threads. Start fewer of them, or raise the setting 'task_processes'."
    )
