"""A driver that acts out a script, for tests and for the simulation of the whole system.

Its tasks are a world of their own: what a task does is a pure function of its script, of when it was started
and stopped, and of the clock. So the world goes on while a server under test is "dead", exactly as agents
outlive a killed server, and nothing has to be driven by hand but the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from clary.clock import Clock
from clary.compute.driver import Capacity
from clary.resources.resource import JsonValue
from clary.resources.task import (
    ServingWork,
    StopCause,
    TaskPhase,
    TaskSpec,
    TaskStatus,
    TaskTransition,
)


@dataclass(frozen=True)
class Step:
    """A task enters ``phase`` ``after_seconds`` after the step before it (or after its start)."""

    phase: TaskPhase
    after_seconds: float = 0.0
    message: str = ""
    reason: str = ""
    exit_code: int | None = None
    address: str | None = None
    results: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Script:
    """What a task does if left alone, and how long it takes to end when told to stop."""

    steps: tuple[Step, ...]
    stopping_seconds: float = 1.0
    stopped_results: Mapping[str, JsonValue] = field(default_factory=dict)


def succeeding_training(
    *, preparing_seconds: float = 1.0, running_seconds: float = 10.0, uploading_seconds: float = 1.0
) -> Script:
    """A training task that ends well; its model is said to be at ``s3://scripted/model.tar.gz``."""
    results: dict[str, JsonValue] = {"model_artifacts": "s3://scripted/model.tar.gz"}
    return Script(
        (
            Step(TaskPhase.PREPARING, 0.1, "Downloading input data"),
            Step(TaskPhase.RUNNING, preparing_seconds, "Training in progress"),
            Step(TaskPhase.UPLOADING, running_seconds, "Uploading generated training model", exit_code=0),
            Step(TaskPhase.SUCCEEDED, uploading_seconds, exit_code=0, results=results),
        ),
        stopped_results=results,
    )


def failing_training(reason: str = "AlgorithmError: scripted failure, exit code: 1") -> Script:
    """A training task whose algorithm fails."""
    return Script(
        (
            Step(TaskPhase.PREPARING, 0.1, "Downloading input data"),
            Step(TaskPhase.RUNNING, 1.0, "Training in progress"),
            Step(TaskPhase.UPLOADING, 5.0, exit_code=1, reason=reason),
            Step(TaskPhase.FAILED, 1.0, exit_code=1, reason=reason),
        )
    )


def healthy_serving(*, startup_seconds: float = 2.0, address: str = "tcp:127.0.0.1:9") -> Script:
    """A model server that comes up and stays."""
    return Script(
        (Step(TaskPhase.PREPARING, 0.1), Step(TaskPhase.RUNNING, startup_seconds, address=address)),
    )


def failing_serving(reason: str = "The model server did not answer /ping.") -> Script:
    """A model server that never becomes healthy."""
    return Script((Step(TaskPhase.PREPARING, 0.1), Step(TaskPhase.FAILED, 5.0, reason=reason)))


def usual_script(spec: TaskSpec) -> Script:
    """Everything goes well."""
    return healthy_serving() if isinstance(spec.work, ServingWork) else succeeding_training()


@dataclass
class _Task:
    spec: TaskSpec
    script: Script
    started_at: float
    stopped_at: float | None = None
    stop_cause: StopCause | None = None
    lost_at: float | None = None
    begun_at: float | None = None  # when the last of its cluster was ordered
    lost_reason: str = ""


class ScriptedDriver:
    """See the module.

    ``script_of`` gives the script of a task when it is started. ``on_effect`` is called as
    ``("before start", task id)``, ``("after start", task id)`` and so on for stop and remove: what it raises
    comes out of the driver's method, which is how a simulation kills the server between any two effects.
    """

    def __init__(
        self,
        clock: Clock,
        script_of: Callable[[TaskSpec], Script] = usual_script,
        *,
        on_effect: Callable[[str, str], None] | None = None,
        capacity: Capacity | None = None,
    ) -> None:
        self._clock = clock
        self.script_of = script_of
        self.on_effect = on_effect
        self.starts: Counter[str] = Counter()  # how often each id was really run
        self._capacity = capacity or Capacity(64.0, 256 * 1024**3, 0, 1024**4)
        self._world: dict[str, _Task] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._heralds: set[asyncio.Task[None]] = set()

    async def start(self, spec: TaskSpec) -> TaskStatus:
        self._effect("before start", spec.id)
        if spec.id not in self._world:
            self.starts[spec.id] += 1
            self._world[spec.id] = _Task(spec, self.script_of(spec), self._clock.now())
            self._begin(spec)
        self._effect("after start", spec.id)
        return self._status(self._world[spec.id])

    async def inspect(self, task_id: str) -> TaskStatus | None:
        task = self._world.get(task_id)
        return self._status(task) if task else None

    async def stop(self, task_id: str, cause: StopCause) -> None:
        self._effect("before stop", task_id)
        task = self._world.get(task_id)
        if task and task.stopped_at is None and not self._status(task).phase.final:
            task.stopped_at, task.stop_cause = self._clock.now(), cause
            self._announce(task)
        self._effect("after stop", task_id)

    async def remove(self, task_id: str) -> None:
        self._effect("before remove", task_id)
        self._world.pop(task_id, None)
        self._effect("after remove", task_id)

    async def tasks(self) -> Sequence[TaskStatus]:
        return [self._status(task) for task in self._world.values()]

    async def capacity(self) -> Capacity:
        return self._capacity

    def on_change(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    async def close(self, *, stop_tasks: bool) -> None:
        heralds = list(self._heralds)
        for herald in heralds:
            herald.cancel()
        await asyncio.gather(*heralds, return_exceptions=True)
        self._callbacks.clear()
        if stop_tasks:
            for task in self._world.values():
                if not self._status(task).phase.final:
                    task.stop_cause = task.stop_cause or StopCause.SHUTDOWN
                    task.lost_at, task.lost_reason = self._clock.now(), "Clary was shut down."

    # What a test does to the world.

    def lose(self, task_id: str, reason: str = "The agent was killed.") -> None:
        """The task's agent dies without a word. An ended task stays as it is."""
        task = self._world[task_id]
        if not self._status(task).phase.final:
            task.lost_at, task.lost_reason = self._clock.now(), reason
            self._announce(task)

    def spec(self, task_id: str) -> TaskSpec:
        """What the task was started with. Raises ``KeyError``."""
        return self._world[task_id].spec

    def forget_callbacks(self) -> None:
        """The server died: nobody listens any more, the world goes on."""
        self._callbacks.clear()

    # The script.

    def _begin(self, spec: TaskSpec) -> None:
        """Let a task go, or its whole cluster once that has been ordered."""
        members = [self._world.get(task_id) for task_id in spec.gang or (spec.id,)]
        for member in members if None not in members else ():
            if member and member.begun_at is None:
                member.begun_at = self._clock.now()
                self._announce(member)

    def _effect(self, name: str, task_id: str) -> None:
        if self.on_effect:
            self.on_effect(name, task_id)

    def _moments(self, task: _Task) -> list[tuple[float, Step]]:
        """All steps with their times, future ones too, as far as is known now."""
        moments = [(task.begun_at or task.started_at, Step(TaskPhase.PENDING))]
        for step in task.script.steps if task.begun_at is not None else ():
            moments.append((moments[-1][0] + step.after_seconds, step))
        for limit in (task.stopped_at, task.lost_at):
            if limit is not None:
                moments = [moment for moment in moments if moment[0] <= limit] or moments[:1]
        if task.lost_at is not None:
            moments.append((task.lost_at, Step(TaskPhase.LOST, reason=task.lost_reason)))
        elif task.stopped_at is not None and not moments[-1][1].phase.final:
            if moments[-1][1].phase is TaskPhase.RUNNING:
                moments.append((task.stopped_at, Step(TaskPhase.UPLOADING)))
            ended = Step(TaskPhase.STOPPED, results=task.script.stopped_results)
            moments.append((task.stopped_at + task.script.stopping_seconds, ended))
        return moments

    def _status(self, task: _Task) -> TaskStatus:
        now = self._clock.now()
        moments = self._moments(task)
        past = [moment for moment in moments if moment[0] <= now] or moments[:1]
        step = past[-1][1]
        return TaskStatus(
            id=task.spec.id,
            owner=task.spec.owner,
            phase=step.phase,
            transitions=tuple(TaskTransition(s.phase, at, s.message) for at, s in past),
            exit_code=step.exit_code,
            reason=step.reason,
            stop_cause=task.stop_cause,
            address=step.address,
            results=dict(step.results),
        )

    def _announce(self, task: _Task) -> None:
        herald = asyncio.get_running_loop().create_task(self._follow(task))
        self._heralds.add(herald)
        herald.add_done_callback(self._heralds.discard)

    async def _follow(self, task: _Task) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._poke(task)
            for at, _ in self._moments(task):
                if at > self._clock.now():
                    await self._clock.sleep(at - self._clock.now())
                    if self._world.get(task.spec.id) is not task:
                        return
                    self._poke(task)

    def _poke(self, task: _Task) -> None:
        for callback in list(self._callbacks):
            callback(task.spec.owner)
