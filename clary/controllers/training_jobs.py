"""Moves training jobs: starts an agent for each host, follows them, and says what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clary.clock import Clock
from clary.compute.driver import Driver
from clary.compute.instance_types import instance_type
from clary.controllers.controller import Outcome
from clary.resources.arn import sagemaker_arn
from clary.resources.resource import Document, JsonValue, Key, Resource
from clary.resources.task import Connection, StopCause, TaskPhase, TaskSpec, TaskStatus, TrainingWork
from clary.resources.task_token import TaskIdentity, issue_task_token
from clary.resources.training_job import (
    KIND,
    LIFECYCLE,
    LOG_GROUP,
    LONGEST_FAILURE_REASON,
    METRIC_DIMENSION,
    METRIC_NAMESPACE,
    add_transition,
    hosts,
    model_artifacts,
    task_id,
    times,
    transitions,
)
from clary.telemetry.metric_store import MetricStore

LOOK_AGAIN_SECONDS = 2.0  # tasks tell when they move; this is for what was not heard
MAX_ATTEMPTS = 10  # after restarts of Clary or the machine
GRACE_SECONDS = 120.0  # SageMaker's, between SIGTERM and SIGKILL
_ORDER = (TaskPhase.PENDING, TaskPhase.PREPARING, TaskPhase.RUNNING, TaskPhase.UPLOADING)


@dataclass(frozen=True)
class Decision:
    """What to do and what to write. ``start`` and ``stop`` name hosts; ``forget`` names attempts."""

    ending: Literal["", "Completed", "Failed", "Stopped", "MaxRuntimeExceeded"] = ""
    restart: bool = False
    start: Sequence[str] = ()
    stop: Sequence[str] = ()
    stop_cause: StopCause = StopCause.REQUESTED
    reason: str = ""


@dataclass(frozen=True)
class Observation:
    """What was found: the tasks of the current attempt by host (``None``: not known to the driver)."""

    tasks: Mapping[str, TaskStatus | None]
    attempt: int
    stop_requested: bool
    max_attempts: int = field(default=MAX_ATTEMPTS)


def decide(seen: Observation) -> Decision:
    """Every branch of a job's way. Pure."""
    tasks = {host: task for host, task in seen.tasks.items() if task is not None}
    missing = [host for host in seen.tasks if host not in tasks]
    ended = {host: task for host, task in tasks.items() if task.phase.final}
    running = [host for host in tasks if host not in ended]

    failed = [task for task in ended.values() if _failed(task)]
    interrupted = any(_interrupted(task) for task in ended.values())
    if failed:
        if running:
            return Decision(stop=running, stop_cause=StopCause.SUPERSEDED)
        return Decision("Failed", reason=_first_cause(failed))
    if interrupted:
        if running:
            return Decision(stop=running, stop_cause=StopCause.SHUTDOWN)
        if seen.stop_requested:
            return Decision("Stopped")
        if seen.attempt >= seen.max_attempts:
            reason = (
                f"InternalServerError: the job was interrupted {seen.attempt} times and is not started again."
            )
            return Decision("Failed", reason=reason)
        return Decision(restart=True)
    if seen.stop_requested:
        if running:
            return Decision(stop=running)
        if not ended or any(task.phase is TaskPhase.STOPPED for task in ended.values()):
            return Decision("Stopped")
        return Decision("Completed" if not missing else "Stopped")
    if missing:
        return Decision(start=missing)
    if running:
        over_time = any(task.stop_cause is StopCause.MAX_RUNTIME for task in ended.values())
        return Decision(stop=running, stop_cause=StopCause.MAX_RUNTIME) if over_time else Decision()
    if any(task.stop_cause is StopCause.MAX_RUNTIME for task in ended.values()):
        return Decision("MaxRuntimeExceeded")
    if any(task.phase is TaskPhase.STOPPED for task in ended.values()):
        return Decision("Stopped")
    return Decision("Completed")


def _interrupted(task: TaskStatus) -> bool:
    """Ended because Clary or the machine went down: not the job's doing."""
    return task.stop_cause is StopCause.SHUTDOWN and task.phase in (TaskPhase.LOST, TaskPhase.STOPPED)


def _failed(task: TaskStatus) -> bool:
    return task.phase is TaskPhase.FAILED or (task.phase is TaskPhase.LOST and not _interrupted(task))


def _first_cause(failed: Sequence[TaskStatus]) -> str:
    """The reason of the host that failed first: what the others say follows from it."""
    first = min(failed, key=lambda task: task.transitions[-1].at if task.transitions else 0.0)
    if first.phase is TaskPhase.LOST:
        return f"InternalServerError: the job's agent is gone: {first.reason}"
    return first.reason or "AlgorithmError: the algorithm failed and gave no reason."


class TrainingJobController:
    """`clary.controllers.controller.Controller` for training jobs."""

    kind = KIND

    def __init__(
        self,
        *,
        driver: Driver,
        metrics: MetricStore,
        clock: Clock,
        secret: bytes,
        endpoint_url: str,
    ) -> None:
        self._driver = driver
        self._metrics = metrics
        self._clock = clock
        self._secret = secret
        self._endpoint_url = endpoint_url

    async def reconcile(self, resource: Resource) -> Outcome:
        """See `clary.controllers.controller.Controller`."""
        if LIFECYCLE.final(resource.phase):
            await self._forget(resource, _attempt(resource.status))
            return Outcome({**resource.status, "Freed": True}, resource.phase)
        attempt = _attempt(resource.status)
        tasks = {
            host: await self._driver.inspect(task_id(resource.uid, attempt, host))
            for host, _, _ in hosts(resource.spec)
        }
        decision = decide(Observation(tasks, attempt, bool(resource.spec.get("StopRequested"))))
        for host in decision.start:
            tasks[host] = await self._driver.start(self._task(resource, attempt, host))
        for host in decision.stop:
            await self._driver.stop(task_id(resource.uid, attempt, host), decision.stop_cause)
        return await self._outcome(resource, attempt, tasks, decision)

    async def _outcome(
        self,
        resource: Resource,
        attempt: int,
        tasks: Mapping[str, TaskStatus | None],
        decision: Decision,
    ) -> Outcome:
        now = self._clock.now()
        first = next(iter(tasks.values()), None)
        base: Any = resource.status.get("TransitionsBeforeAttempt")
        if base is None:
            shown: Any = resource.status["SecondaryStatusTransitions"]
            base = shown[:1]
        moves = transitions(base, first)
        status: dict[str, JsonValue] = {**resource.status, "TransitionsBeforeAttempt": base}
        if decision.restart:
            add_transition(moves, "Restarting", now, "Restarting the training job: Clary was down")
            status |= {"Attempt": attempt + 1, "TransitionsBeforeAttempt": [*moves]}
            status |= {
                "SecondaryStatusTransitions": [*moves],
                "SecondaryStatus": "Restarting",
                **times(moves, None),
            }
            return Outcome(status, resource.phase, due_at=now)
        if not decision.ending:
            phase = resource.phase
            if resource.spec.get("StopRequested"):
                phase = LIFECYCLE.move(phase, "Stopping")
                if moves[-1]["Status"] != "Stopping":
                    requested: Any = resource.spec["StopRequested"]
                    add_transition(moves, "Stopping", float(requested), "Stopping the training job")
            status |= {
                "TrainingJobStatus": phase,
                "SecondaryStatus": moves[-1]["Status"],
                "SecondaryStatusTransitions": [*moves],
                **times(moves, None),
            }
            return Outcome(status, phase, due_at=now + LOOK_AGAIN_SECONDS)
        ended_at = _ended_at(tasks, now)
        phase = "Stopped" if decision.ending == "MaxRuntimeExceeded" else decision.ending
        add_transition(moves, decision.ending, ended_at, decision.reason[:LONGEST_FAILURE_REASON])
        status |= {
            "TrainingJobStatus": LIFECYCLE.move(resource.phase, phase),
            "SecondaryStatus": decision.ending,
            "SecondaryStatusTransitions": [*moves],
            **times(moves, ended_at),
        }
        if decision.reason:
            status["FailureReason"] = decision.reason[:LONGEST_FAILURE_REASON]
        artifacts = next((t.results.get("model_artifacts") for t in tasks.values() if t and t.results), None)
        if artifacts:
            status["ModelArtifacts"] = {"S3ModelArtifacts": artifacts}
        elif phase == "Completed":
            status["ModelArtifacts"] = {"S3ModelArtifacts": model_artifacts(resource.spec, resource.key.name)}
        metrics = await self._final_metrics(resource.key)
        if metrics:
            status["FinalMetricDataList"] = metrics
        # Look once more, to free what the job held: only after this has been written.
        return Outcome(status, phase, due_at=now)

    async def _final_metrics(self, key: Key) -> list[JsonValue]:
        last = await self._metrics.last(
            key.account, key.region, METRIC_NAMESPACE, {METRIC_DIMENSION: key.name}
        )
        return [
            {"MetricName": name, "Value": point.total, "Timestamp": point.at} for name, point in last.items()
        ]

    async def _forget(self, resource: Resource, attempts: int) -> None:
        for attempt in range(1, attempts + 1):
            for host, _, _ in hosts(resource.spec):
                await self._driver.remove(task_id(resource.uid, attempt, host))

    def _task(self, resource: Resource, attempt: int, host: str) -> TaskSpec:
        key, spec = resource.key, resource.spec
        found = hosts(spec)
        _, type_name, group = next(each for each in found if each[0] == host)
        machine = instance_type(type_name)
        identity = TaskIdentity(
            task_id(resource.uid, attempt, host), key.account, str(spec.get("RoleArn", ""))
        )
        return TaskSpec(
            id=identity.task_id,
            owner=owner_text(key),
            work=TrainingWork(
                job_name=key.name,
                job_arn=sagemaker_arn(key),
                request=_request(spec),
                host=host,
                hosts=tuple(name for name, _, _ in found),
                instance_type=type_name,
                instance_group=group,
                log_group=LOG_GROUP,
                log_stream=f"{key.name}/{host}-{int(resource.created_at)}",
            ),
            connection=Connection(
                endpoint_url=self._endpoint_url,
                region=key.region,
                credentials_url=f"{self._endpoint_url}/.clary/credentials/{identity.task_id}",
                credentials_token=issue_task_token(self._secret, identity),
            ),
            cpu_count=machine.cpu_count,
            memory_bytes=machine.memory_bytes,
            gpu_count=machine.gpu_count,
            grace_seconds=GRACE_SECONDS,
        )


def owner_text(key: Key) -> str:
    """The key as the ``owner`` of a task."""
    return "|".join((key.kind, key.account, key.region, key.name))


def owner_key(owner: str) -> Key:
    """Inverse of `owner_text`. Raises ``ValueError``."""
    kind, account, region, name = owner.split("|")
    return Key(kind, account, region, name)


def _attempt(status: Document) -> int:
    attempt = status.get("Attempt", 1)
    assert isinstance(attempt, int)
    return attempt


def _request(spec: Document) -> Document:
    """The caller's request alone: what services noted beside it begins with no member of AWS's."""
    return {name: value for name, value in spec.items() if name not in ("StopRequested", "Tags")}


def _ended_at(tasks: Mapping[str, TaskStatus | None], now: float) -> float:
    ends = [
        task.transitions[-1].at for task in tasks.values() if task and task.phase.final and task.transitions
    ]
    return max(ends, default=now)
