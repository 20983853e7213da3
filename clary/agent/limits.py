"""What a task may use of the machine it runs on, and the words for one that used more.

The figures are those of the instance type, clamped to what this machine and Clary's settings give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clary.agent.cgroups import surrounding_memory_bytes
from clary.agent.surroundings import AgentSettings
from clary.resources.task import TaskSpec, TrainingWork

GIB = 1024**3
_UNITS = (("TiB", 1024**4), ("GiB", GIB), ("MiB", 1024**2), ("KiB", 1024))


@dataclass(frozen=True)
class Violation:
    """A limit that was exceeded, in words fit for a FailureReason: the figure, the limit, the remedy."""

    reason: str


@dataclass(frozen=True)
class TaskLimits:
    """What one task may use. ``volume_bytes`` 0 means no other limit than the machine's disk.

    ``asked_*`` is what the instance type has; ``cpu_count`` and ``memory_bytes`` are what this machine gives.
    """

    instance_type: str
    asked_cpu_count: float
    asked_memory_bytes: int
    cpu_count: float
    memory_bytes: int
    volume_bytes: int
    processes: int  # threads count as well

    def remarks(self) -> list[str]:
        """What the log should say of the limits: nothing if the machine gives what was asked for."""
        if self.cpu_count >= self.asked_cpu_count and self.memory_bytes >= self.asked_memory_bytes:
            return []
        asked = f"{_count(self.asked_cpu_count)} and {size_text(self.asked_memory_bytes)}"
        given = f"{self.cpu_count:g} and {size_text(self.memory_bytes)}"
        return [f"{self.instance_type} has {asked}; this machine gives {given}."]

    @property
    def memory_holder(self) -> str:
        """Who sets the limit of memory: the instance type, or a machine that has less."""
        if self.memory_bytes >= self.asked_memory_bytes:
            return f"{self.instance_type} has {size_text(self.memory_bytes)}"
        return f"this machine gives {self.instance_type} {size_text(self.memory_bytes)}"


def task_limits(spec: TaskSpec, settings: AgentSettings) -> TaskLimits:
    """The limits of a task on the machine that ``settings`` describe."""
    volume = _volume_gigabytes(spec.work.request) if isinstance(spec.work, TrainingWork) else 0
    memory = (spec.memory_bytes, settings.memory_bytes, surrounding_memory_bytes())
    return TaskLimits(
        instance_type=spec.work.instance_type or "the instance",
        asked_cpu_count=spec.cpu_count,
        asked_memory_bytes=spec.memory_bytes,
        cpu_count=min(spec.cpu_count, float(settings.cpu_count)),
        memory_bytes=min(limit for limit in memory if limit),
        volume_bytes=volume * GIB,
        processes=settings.task_processes,
    )


def size_text(size_bytes: float) -> str:
    """``17.2 GiB``, ``512 MiB``: as people say it."""
    for unit, factor in _UNITS:
        if size_bytes >= factor:
            text = f"{size_bytes / factor:.1f}".removesuffix(".0")
            return f"{text} {unit}"
    return f"{int(size_bytes)} bytes"


def _count(cpu_count: float) -> str:
    return f"{cpu_count:g} processor{'' if cpu_count == 1 else 's'}"


def _volume_gigabytes(request: Mapping[str, Any]) -> int:
    resources = request.get("ResourceConfig")
    size = resources.get("VolumeSizeInGB") if isinstance(resources, dict) else None
    return int(size) if isinstance(size, int) and size > 0 else 0
