"""The contract of a driver: few verbs to run tasks somewhere, each of which may be said twice.

The driver is the truth about tasks: nobody keeps handles, everybody asks by id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from clary.resources.task import StopCause, TaskSpec, TaskStatus


@dataclass(frozen=True)
class Capacity:
    """What the machines behind a driver have in all."""

    cpu_count: float
    memory_bytes: int
    gpu_count: int
    disk_free_bytes: int


class Driver(Protocol):
    """Places tasks and reports on them."""

    async def start(self, spec: TaskSpec) -> TaskStatus:
        """Run ``spec``. If its id is known already, change nothing and return what is known.

        A task that was prepared but whose agent never came up (the caller died in between) is started now.
        The tasks of a gang wait as PENDING until all of them have been ordered and there is room for all.
        """

    async def inspect(self, task_id: str) -> TaskStatus | None:
        """What is known of the task; ``None`` if the driver has never heard of it or it was removed."""

    async def stop(self, task_id: str, cause: StopCause) -> None:
        """Ask the task to end: SIGTERM, grace, SIGKILL, then upload what it made. Returns at once.

        The first cause given is kept. Unknown and ended tasks are left alone.
        """

    async def remove(self, task_id: str) -> None:
        """Kill whatever still runs of the task and forget it with all its files. Unknown ids are ignored."""

    async def tasks(self) -> Sequence[TaskStatus]:
        """All tasks the driver knows."""

    async def capacity(self) -> Capacity:
        """What there is in all."""

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(owner)`` on the event loop soon after a task moved. Calls may be lost: poll too."""

    async def close(self, *, stop_tasks: bool) -> None:
        """Let go of the driver's own processes; with ``stop_tasks`` end every task first (`SHUTDOWN`)."""
