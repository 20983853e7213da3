"""Tasks that wait for this machine's processors and memory: who is next, and what is said to those who wait.

Training tasks start strictly in the order in which they came, a cluster whole or not at all: letting small
ones pass would keep a large one waiting for ever. One that asks for more than the machine has gets the
machine for itself. Servers never wait, and nothing waits for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from clary.resources.task import ServingWork, TaskSpec, TrainingWork

_GIB = 1024**3
_NAMES_SAID = 3  # of the jobs that are waited for


@dataclass
class TaskQueue:
    """See the module. ``cpu_count`` and ``memory_bytes`` are all that tasks may use together."""

    cpu_count: float
    memory_bytes: int
    _waiting: dict[str, TaskSpec] = field(default_factory=dict)
    _admitted: set[str] = field(default_factory=set)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._waiting

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, spec: TaskSpec, *, admitted: bool) -> None:
        """Let ``spec`` wait behind the others; one that waits already keeps its place.

        ``admitted``: others of its cluster were let in before, and it follows at once.
        """
        self._waiting.setdefault(spec.id, spec)
        if admitted:
            self._admitted.add(spec.id)

    def remove(self, task_id: str) -> bool:
        """Forget a task; whether it waited."""
        self._admitted.discard(task_id)
        return self._waiting.pop(task_id, None) is not None

    def clear(self) -> None:
        self._waiting.clear()
        self._admitted.clear()

    def next(self, running: Sequence[TaskSpec]) -> list[TaskSpec]:
        """The tasks that start together now, taken out of the queue; none if nothing may start.

        ``running`` are the tasks that have what they need, and ended ones that keep their room.
        """
        present = {spec.id for spec in running}.union(self._waiting)
        for group in self._groups():
            first = group[0]
            if not isinstance(first.work, ServingWork) and first.id not in self._admitted:
                if not present.issuperset(first.gang):
                    continue  # the rest of the cluster is about to be ordered
                if not self._fits(group, running):
                    return self._next_without_waiting()
            return self._take(group)
        return []

    def explanations(self, running: Sequence[TaskSpec]) -> Iterator[tuple[TaskSpec, str]]:
        """Each waiting task with what it waits for, in words for its job's status message."""
        users = self._users(running)
        for ahead, group in enumerate(self._groups()):
            needed = self._room(group)
            words = (
                f"Waiting for {needed[0]:g} of this machine's {self.cpu_count:g} processors and "
                f"{_gib(needed[1])} of its {_gib(self.memory_bytes)} of memory"
            )
            if users:
                words += f", in use by {users}"
            if ahead:
                words += f"; {ahead} {'job is' if ahead == 1 else 'jobs are'} ahead"
            for spec in group:
                yield spec, words

    def _next_without_waiting(self) -> list[TaskSpec]:
        """A task that need not wait for those before it."""
        for spec in self._waiting.values():
            if isinstance(spec.work, ServingWork) or spec.id in self._admitted:
                return self._take([spec])
        return []

    def _take(self, group: list[TaskSpec]) -> list[TaskSpec]:
        for spec in group:
            self.remove(spec.id)
        return group

    def _groups(self) -> Iterator[list[TaskSpec]]:
        """Those that wait, tasks of one gang together, by the first of each."""
        seen: set[str] = set()
        for spec in list(self._waiting.values()):
            if spec.id in seen:
                continue
            members = [self._waiting[each] for each in spec.gang if each in self._waiting] or [spec]
            seen.update(member.id for member in members)
            yield members

    def _fits(self, group: Sequence[TaskSpec], running: Sequence[TaskSpec]) -> bool:
        lent = {spec.room_of for spec in group}
        training = [
            spec for spec in running if not isinstance(spec.work, ServingWork) and spec.id not in lent
        ]
        if not training:
            return True
        used_cpus = sum(self._cpus(spec) for spec in training)
        used_bytes = sum(self._memory(spec) for spec in training)
        cpus, memory = self._room(group)
        return used_cpus + cpus <= self.cpu_count and used_bytes + memory <= self.memory_bytes

    def _room(self, group: Iterable[TaskSpec]) -> tuple[float, int]:
        """What a group takes: never more than there is."""
        members = list(group)
        return (
            min(sum(self._cpus(spec) for spec in members), self.cpu_count),
            min(sum(self._memory(spec) for spec in members), self.memory_bytes),
        )

    def _cpus(self, spec: TaskSpec) -> float:
        return min(spec.cpu_count, self.cpu_count)

    def _memory(self, spec: TaskSpec) -> int:
        return min(spec.memory_bytes, self.memory_bytes)

    @staticmethod
    def _users(running: Sequence[TaskSpec]) -> str:
        names = list(
            dict.fromkeys(spec.work.job_name for spec in running if isinstance(spec.work, TrainingWork))
        )
        more = len(names) - _NAMES_SAID
        return ", ".join(names[:_NAMES_SAID]) + (f" and {more} more" if more > 0 else "")


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f}".removesuffix(".0") + " GiB"
