"""Control groups: the kernel's own limits of memory, processors and processes, where Clary may set them.

That is as root, or in a subtree that was delegated to our user. Nothing that others made is changed: a group
of a task's own is made below one that is there already, its processes enter it before they run, and it is
removed when they are gone. Version 1 has a tree for each controller, version 2 one for all.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "cpu", "pids")
NAME_PREFIX = "clary-"
_PERIOD_MICROSECONDS = 100_000
_UNLIMITED_BYTES = 1 << 60  # version 1 writes a figure near 2**63
_REMOVAL_SECONDS = 2.0
_ROOT = Path("/")


@dataclass(frozen=True)
class CgroupPlaces:
    """Where groups of our own can be made: a folder for each controller that can be had."""

    version: int
    parents: Mapping[str, Path]

    @property
    def folders(self) -> list[Path]:
        """The folders without repetition."""
        return list(dict.fromkeys(self.parents.values()))


def find_places(root: Path = _ROOT) -> CgroupPlaces | None:
    """Where this process may make groups; ``None`` if it may not limit memory. ``root`` holds ``proc``."""
    mounts = _mounts(root)
    own = _own_groups(root)
    first = {
        controller: place
        for controller in CONTROLLERS
        if (place := _inside(mounts, own, controller)) is not None and _usable(place)
    }
    if "memory" in first:
        return CgroupPlaces(1, first)
    place = _inside(mounts, own, "")
    top = mounts[""][1] if "" in mounts else None
    while place is not None and top is not None:
        handed_on = set(_read(place / "cgroup.subtree_control").split())
        if "memory" in handed_on and _usable(place):
            return CgroupPlaces(2, {name: place for name in CONTROLLERS if name in handed_on})
        if place == top:
            return None
        place = place.parent
    return None


def surrounding_memory_bytes(root: Path = _ROOT) -> int:
    """The memory that the groups around this process leave it, as in a container; 0 if they leave it all."""
    mounts, own = _mounts(root), _own_groups(root)
    place = _inside(mounts, own, "memory")
    if place is not None:
        limit = _figure(_read(place / "memory.stat"), "hierarchical_memory_limit")
        return limit if limit < _UNLIMITED_BYTES else 0
    place = _inside(mounts, own, "")
    found: list[int] = []
    while place is not None:
        text = _read(place / "memory.max").strip()
        if text.isdigit():
            found.append(int(text))
        place = None if place == mounts[""][1] else place.parent
    return min(found, default=0)


class Cgroup:
    """A group of one task. Made by `create`; `remove` when its processes are gone."""

    def __init__(self, name: str, version: int, folders: Mapping[str, Path]) -> None:
        self.name = name
        self._version = version
        self._folders = dict(folders)

    @classmethod
    def create(
        cls, places: CgroupPlaces, name: str, *, memory_bytes: int, cpu_count: float, processes: int
    ) -> Cgroup:
        """Make a group with limits. Raises ``OSError``, nothing being left, if that cannot be had."""
        _sweep(places)
        made = cls(name, places.version, {each: parent / name for each, parent in places.parents.items()})
        quota = max(1000, int(cpu_count * _PERIOD_MICROSECONDS))
        try:
            for folder in dict.fromkeys(made._folders.values()):
                folder.mkdir(exist_ok=True)
            if places.version == 1:
                made._write("memory", "memory.limit_in_bytes", memory_bytes)
                made._write("memory", "memory.memsw.limit_in_bytes", memory_bytes, optional=True)
                made._write("cpu", "cpu.cfs_period_us", _PERIOD_MICROSECONDS)
                made._write("cpu", "cpu.cfs_quota_us", quota)
            else:
                made._write("memory", "memory.max", memory_bytes)
                made._write("memory", "memory.swap.max", 0, optional=True)
                made._write("memory", "memory.oom.group", 1, optional=True)
                made._write("cpu", "cpu.max", f"{quota} {_PERIOD_MICROSECONDS}")
            made._write("pids", "pids.max", processes)
        except OSError:
            made.remove()
            raise
        return made

    @property
    def controllers(self) -> frozenset[str]:
        """What it limits."""
        return frozenset(self._folders)

    def parents(self) -> list[Path]:
        """The folders that it is a folder of, without repetition."""
        return list(dict.fromkeys(folder.parent for folder in self._folders.values()))

    def members(self) -> int:
        """How many processes are in it."""
        return len(_read(self._folders["memory"] / "cgroup.procs").split())

    def memory_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        return _figure(_read(self._folders["memory"] / name), "oom_kill")

    def memory_peak_bytes(self) -> int:
        """The most memory it has held, 0 if that is not known."""
        name = "memory.max_usage_in_bytes" if self._version == 1 else "memory.peak"
        text = _read(self._folders["memory"] / name).strip()
        return int(text) if text.isdigit() else 0

    def refused_processes(self) -> int:
        """How often a process or thread was refused for the limit of them."""
        if "pids" not in self._folders:
            return 0
        return _figure(_read(self._folders["pids"] / "pids.events"), "max")

    def refuse_processes(self) -> None:
        """Let nobody in it start another process or thread."""
        with contextlib.suppress(OSError):
            self._write("pids", "pids.max", 0)

    def remove(self) -> None:
        """Remove it. Waits a moment for its last processes; one that stays is swept up later."""
        deadline = time.monotonic() + _REMOVAL_SECONDS
        for folder in dict.fromkeys(self._folders.values()):
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() >= deadline:
                        break
                    time.sleep(0.005)
                else:
                    break

    def _write(self, controller: str, name: str, value: int | str, *, optional: bool = False) -> None:
        if controller not in self._folders:
            return
        path = self._folders[controller] / name
        if optional and not path.exists():
            return
        path.write_text(str(value), encoding="ascii")


def group_name(number: int = 0) -> str:
    """A name for a group of this process; it tells whether its maker lives."""
    return f"{NAME_PREFIX}{_process_namespace()}-{os.getpid()}-{number}"


def _sweep(places: CgroupPlaces) -> None:
    """Remove empty groups whose makers are gone: their machine or their container was killed as a whole."""
    ours = f"{NAME_PREFIX}{_process_namespace()}-"
    for parent in places.folders:
        with contextlib.suppress(OSError):
            for group in parent.glob(f"{ours}*"):
                maker = group.name.removeprefix(ours).partition("-")[0]
                if maker.isdigit() and not Path("/proc", maker).exists():
                    with contextlib.suppress(OSError):
                        group.rmdir()


def _process_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return "0"


def _mounts(root: Path) -> dict[str, tuple[str, Path]]:
    """Controller -> its tree's root and where that is mounted; "" for the tree of version 2."""
    found: dict[str, tuple[str, Path]] = {}
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if len(fields) < 5:
            continue
        place = (fields[3], root / fields[4].lstrip("/"))
        if kind == "cgroup2":
            found.setdefault("", place)
        elif kind == "cgroup" and len(rest) > 1:
            for controller in rest[1].split(","):
                if controller in CONTROLLERS:
                    found.setdefault(controller, place)
    return found


def _own_groups(root: Path) -> dict[str, str]:
    """Controller -> the group that this process is in; "" for version 2."""
    found: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = group
    return found


def _inside(mounts: Mapping[str, tuple[str, Path]], own: Mapping[str, str], controller: str) -> Path | None:
    """The folder of our group in the controller's tree, if that can be seen from here."""
    if controller not in mounts or controller not in own:
        return None
    tree, place = mounts[controller]
    relative = os.path.relpath(own[controller], tree)
    return None if relative.startswith("..") else place / relative


def _usable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _figure(text: str, name: str) -> int:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
