"""Moves training jobs: starts an agent for each host, follows them, and says what became of them.

The statuses of a job's tasks are asked of the driver at every look; nothing of them is remembered but what
callers were shown. The final status is written before the tasks are forgotten, so that no end is ever lost.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clary.clock import Clock
from clary.compute.driver import Driver
from clary.compute.instance_types import instance_type
from clary.controllers.controller import Outcome
from clary.resources import warm_pool
from clary.resources.arn import sagemaker_arn
from clary.resources.resource import Document, JsonValue, Key, Resource
from clary.resources.task import Connection, StopCause, TaskPhase, TaskSpec, TaskStatus, TrainingWork
from clary.resources.task_token import TaskIdentity, issue_task_token
from clary.resources.training_job import (
    KIND,
    LIFECYCLE,
    LOG_GROUP,
    METRIC_DIMENSION,
    METRIC_NAMESPACE,
    add_transition,
    advance,
    failure_reason,
    hosts,
    request_of,
    task_id,
    tasks_of,
    times,
    worked_seconds,
)
from clary.store.store import Store
from clary.telemetry.metric_store import MetricStore

LOOK_AGAIN_SECONDS = 2.0  # tasks tell when they move; this is for what was not heard
MAX_INTERRUPTIONS = 20  # how often a job is begun again because Clary or the machine went down
GRACE_SECONDS = 120.0  # SageMaker's, between SIGTERM and SIGKILL
INTERNAL = "InternalServerError: "  # begins the reasons that are not the caller's doing

MAX_PENDING_WORDS = "Training job stopped: it was pending for longer than MaxPendingTimeInSeconds"
SPOT_WORDS = "Training job interrupted: its machines were taken away, as spot machines are"

Ending = Literal["Completed", "Failed", "Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded"]
# What a task's stop cause makes of its job, where it is not the caller's Stop.
_ENDINGS: Mapping[StopCause, Ending] = {
    StopCause.MAX_RUNTIME: "MaxRuntimeExceeded",
    StopCause.MAX_WAIT: "MaxWaitTimeExceeded",
}


@dataclass(frozen=True)
class Observation:
    """What was found. ``tasks`` are those of the present attempt by host; ``None``: the driver has none.

    ``started`` says that every task of the attempt was started once. ``interruptions`` and ``retries`` are
    those so far; ``max_retries`` is what the caller's RetryStrategy allows. ``overdue`` is the limit of the
    job's own that has passed, ``interrupt`` that its machines are to be taken away.
    """

    tasks: Mapping[str, TaskStatus | None]
    started: bool = False
    stop_requested: bool = False
    overdue: StopCause | None = None
    interrupt: bool = False
    interruptions: int = 0
    retries: int = 0
    max_retries: int = 0


@dataclass(frozen=True)
class Decision:
    """What to do, and what has become of the job. ``start`` and ``stop`` name hosts."""

    start: Sequence[str] = ()
    stop: Sequence[str] = ()
    stop_cause: StopCause = StopCause.REQUESTED
    again: Literal["", "interrupted", "reclaimed", "retry"] = ""
    ending: Ending | None = None
    reason: str = ""
    message: str = ""


def decide(seen: Observation) -> Decision:
    """Every branch of a job's way. Pure."""
    tasks = {host: task for host, task in seen.tasks.items() if task is not None}
    missing = [host for host in seen.tasks if host not in tasks]
    over = [task for task in tasks.values() if task.phase.final]
    running = [host for host, task in tasks.items() if not task.phase.final]

    broken = [task for task in over if _broke(task)]
    if broken:
        if running:
            return Decision(stop=running, stop_cause=StopCause.SUPERSEDED)
        return _after_break(seen, broken)
    interrupted = [task for task in over if _interrupted(task)]
    if interrupted or (missing and seen.started):
        reclaimed = any(task.stop_cause is StopCause.INTERRUPTED for task in interrupted)
        if running:
            return Decision(
                stop=running, stop_cause=StopCause.INTERRUPTED if reclaimed else StopCause.SHUTDOWN
            )
        return _after_interruption(seen, reclaimed)
    if seen.stop_requested or seen.overdue:
        cause = StopCause.REQUESTED if seen.stop_requested else seen.overdue or StopCause.REQUESTED
        if running:
            return Decision(stop=running, stop_cause=cause)
        return _never_begun(cause) if missing else Decision(ending=_natural_ending(over))
    if missing:
        return Decision(start=missing)
    if running and seen.interrupt:
        return Decision(stop=running, stop_cause=StopCause.INTERRUPTED)
    if running:
        stopped = next((task for task in over if task.phase is TaskPhase.STOPPED), None)
        if stopped is None:
            return Decision()
        return Decision(stop=running, stop_cause=stopped.stop_cause or StopCause.SUPERSEDED)
    pending = any(task.stop_cause is StopCause.MAX_PENDING for task in over)
    return _never_begun(StopCause.MAX_PENDING) if pending else Decision(ending=_natural_ending(over))


def _broke(task: TaskStatus) -> bool:
    return task.phase is TaskPhase.FAILED or (task.phase is TaskPhase.LOST and not _interrupted(task))


def _interrupted(task: TaskStatus) -> bool:
    """Ended because Clary or the machine went down, or was taken away: not the job's doing."""
    causes = (StopCause.SHUTDOWN, StopCause.INTERRUPTED)
    return task.stop_cause in causes and task.phase in (TaskPhase.LOST, TaskPhase.STOPPED)


def _after_break(seen: Observation, broken: Sequence[TaskStatus]) -> Decision:
    """The host that broke first says why: what the others say follows from it."""
    if seen.stop_requested and all(task.phase is TaskPhase.LOST for task in broken):
        return Decision(ending="Stopped")  # it was to end, and has; what it had saved is gone
    first = min(broken, key=lambda task: task.transitions[-1].at if task.transitions else 0.0)
    reason = _cause(first)
    if reason.startswith(INTERNAL) and seen.retries < seen.max_retries and not seen.stop_requested:
        return Decision(again="retry")
    return Decision(ending="Failed", reason=reason)


def _cause(task: TaskStatus) -> str:
    if task.phase is TaskPhase.FAILED:
        return task.reason or "AlgorithmError: the algorithm failed and gave no reason."
    reason = task.reason or "the job's agent ended without a word."
    return reason if reason.startswith(INTERNAL) else INTERNAL + reason


def _after_interruption(seen: Observation, reclaimed: bool) -> Decision:
    if seen.stop_requested or seen.overdue:
        return _never_begun(StopCause.REQUESTED if seen.stop_requested else seen.overdue)
    if reclaimed:
        return Decision(again="reclaimed")
    if seen.interruptions >= MAX_INTERRUPTIONS:
        return Decision(
            ending="Failed",
            reason=f"{INTERNAL}the job was interrupted {seen.interruptions + 1} times, because Clary or its "
            "machine went down, and is not started again. Create it anew.",
        )
    return Decision(again="interrupted")


def _never_begun(cause: StopCause | None) -> Decision:
    """The end of a job whose present attempt has nothing to show."""
    if cause is StopCause.MAX_PENDING:
        return Decision(ending="Stopped", message=MAX_PENDING_WORDS)
    return Decision(ending=_ENDINGS.get(cause, "Stopped") if cause else "Stopped")


def _natural_ending(over: Sequence[TaskStatus]) -> Ending:
    stopped = [task.stop_cause for task in over if task.phase is TaskPhase.STOPPED]
    if not stopped:
        return "Completed"
    return next((ending for cause, ending in _ENDINGS.items() if cause in stopped), "Stopped")


class TrainingJobController:
    """`clary.controllers.controller.Controller` for training jobs.

    ``store`` tells who took a warm pool over. ``endpoint_url`` is where tasks reach the server; ``secret``
    seals their tokens. Managed spot jobs lose their machines ``spot_interruptions_per_hour`` times an hour of
    training, at random.
    """

    kind = KIND

    def __init__(
        self,
        *,
        store: Store,
        driver: Driver,
        metrics: MetricStore,
        clock: Clock,
        secret: bytes,
        endpoint_url: str,
        spot_interruptions_per_hour: float = 0.0,
    ) -> None:
        self._store = store
        self._driver = driver
        self._metrics = metrics
        self._clock = clock
        self._secret = secret
        self._endpoint_url = endpoint_url
        self._spot_interruptions_per_hour = spot_interruptions_per_hour

    async def reconcile(self, resource: Resource) -> Outcome:
        """See `clary.controllers.controller.Controller`."""
        if LIFECYCLE.final(resource.phase):
            return await self._free(resource)
        attempt = _number(resource.status, "Attempt")
        tasks = {
            host: await self._driver.inspect(task_id(resource.uid, attempt, host))
            for host, _, _ in hosts(resource.spec)
        }
        decision = decide(self._observation(resource, attempt, tasks))
        await self._act(resource, attempt, tasks, decision)
        return await self._outcome(resource, attempt, tasks, decision)

    async def _act(
        self, resource: Resource, attempt: int, tasks: dict[str, TaskStatus | None], decision: Decision
    ) -> None:
        if decision.start:
            # The attempt before was written off when this one was written down.
            for old in tasks_of(resource.uid, range(max(1, attempt - 1), attempt), resource.spec):
                await self._driver.remove(old)
        for host in decision.start:
            tasks[host] = await self._driver.start(self._task(resource, attempt, host))
        for host in decision.stop:
            await self._driver.stop(task_id(resource.uid, attempt, host), decision.stop_cause)

    async def _outcome(
        self,
        resource: Resource,
        attempt: int,
        tasks: Mapping[str, TaskStatus | None],
        decision: Decision,
    ) -> Outcome:
        now = self._clock.now()
        published: Any = resource.status["SecondaryStatusTransitions"]
        requested: Any = resource.spec.get("StopRequested")
        # The first host stands for all: an attempt's hosts go through the same phases together.
        moves = advance(
            published, next(iter(tasks.values())), float(requested) if requested is not None else None
        )
        phase, due_at = resource.phase, now + LOOK_AGAIN_SECONDS
        status: dict[str, JsonValue] = dict(resource.status)
        if decision.again:
            due_at = now
            status["Attempt"] = attempt + 1
            if decision.again in ("interrupted", "reclaimed"):
                reclaimed = decision.again == "reclaimed"
                add_transition(moves, "Interrupted", _ended_at(tasks, now), SPOT_WORDS if reclaimed else "")
                add_transition(moves, "Restarting", now)
                counter = "SpotInterruptions" if reclaimed else "Interruptions"
                status[counter] = _number(status, counter) + 1
            else:
                add_transition(moves, "Starting", now, "Starting the training job again after an error")
                status["Retries"] = _number(status, "Retries") + 1
        elif decision.ending:
            due_at = now  # to free what the job held, only after this has been written
            add_transition(moves, decision.ending, _ended_at(tasks, now), decision.message)
            phase = "Stopped" if decision.ending in _ENDINGS.values() else decision.ending
            status |= await self._results(resource, tasks, decision)
            status["WarmPoolStatus"] = _pool_at_end(resource, tasks, decision)
        else:
            phase = "Stopping" if requested is not None else phase
            status["Started"] = attempt if all(tasks.values()) else status["Started"]
        status |= {
            "TrainingJobStatus": LIFECYCLE.move(resource.phase, phase),
            "SecondaryStatus": moves[-1]["Status"],
            "SecondaryStatusTransitions": [*moves],
            **times(moves),
        }
        return Outcome(status, phase, due_at=due_at)

    async def _results(
        self, resource: Resource, tasks: Mapping[str, TaskStatus | None], decision: Decision
    ) -> dict[str, JsonValue]:
        """What an ended job has to show."""
        results: dict[str, JsonValue] = {}
        if decision.reason:
            results["FailureReason"] = failure_reason(decision.reason)
        artifacts = (task.results.get("model_artifacts") for task in tasks.values() if task)
        artifact = next((each for each in artifacts if each), None)
        if artifact:
            results["ModelArtifacts"] = {"S3ModelArtifacts": artifact}
        metrics = await self._final_metrics(resource)
        if metrics:
            results["FinalMetricDataList"] = metrics
        return results

    async def _final_metrics(self, resource: Resource) -> list[JsonValue]:
        key = resource.key
        last = await self._metrics.last(
            key.account, key.region, METRIC_NAMESPACE, {METRIC_DIMENSION: key.name}
        )
        # Times come in whole seconds. What is older was left by a deleted job of the same name.
        since = math.floor(resource.created_at)
        return [
            {"MetricName": name, "Value": point.total / point.count, "Timestamp": point.at}
            for name, point in last.items()
            if point.at >= since
        ]

    async def _free(self, resource: Resource) -> Outcome:
        """Forget the tasks of a job whose end is written; then the job itself, if that is wished for.

        The last attempt's tasks stay as long as their room is kept for another job, or once they are its.
        """
        deleted = bool(resource.spec.get("DeleteRequested"))
        if resource.status.get("Freed"):
            return Outcome(resource.status, resource.phase, remove=deleted)
        attempt = _number(resource.status, "Attempt")
        for each in tasks_of(resource.uid, range(max(1, attempt - 1), attempt), resource.spec):
            await self._driver.remove(each)
        for each in _pool_tasks(resource.spec):
            await self._driver.remove(each)
        status = dict(resource.status)
        if warm_pool.is_available(status):
            kept, until, taken_by = await self._pool(resource)
            if until is not None and not deleted:
                return Outcome(status, resource.phase, due_at=until)
            status["WarmPoolStatus"] = warm_pool.ended(kept, taken_by)
            if taken_by:
                return Outcome({**status, "Freed": True}, resource.phase, remove=deleted)
        for each in tasks_of(resource.uid, range(attempt, attempt + 1), resource.spec):
            await self._driver.remove(each)
        return Outcome({**status, "Freed": True}, resource.phase, remove=deleted)

    async def _pool(self, resource: Resource) -> tuple[float, float | None, str]:
        """Of a pool that waits: how long it was kept, when to look again (if it is kept on), who has it."""
        now = self._clock.now()
        ended_at = float(str(resource.status["TrainingEndTime"]))
        claim: Any = resource.spec.get("WarmPoolClaim")
        if claim:
            key = dataclasses.replace(resource.key, name=claim["JobName"])
            successor = await self._store.find(key)
            pool: Any = (successor.spec.get("WarmPool") if successor else None) or {}
            if pool.get("JobUid") == resource.uid:
                return claim["At"] - ended_at, None, key.name
            lapses_at = claim["At"] + warm_pool.CLAIM_SECONDS
            return now - ended_at, None if now >= lapses_at else now + LOOK_AGAIN_SECONDS, ""
        until = ended_at + warm_pool.keep_alive_seconds(resource.spec)
        return min(now, until) - ended_at, None if now >= until else until, ""

    def _observation(
        self, resource: Resource, attempt: int, tasks: Mapping[str, TaskStatus | None]
    ) -> Observation:
        strategy: Any = resource.spec.get("RetryStrategy") or {}
        status = resource.status
        return Observation(
            tasks=tasks,
            started=_number(status, "Started") == attempt,
            stop_requested=resource.spec.get("StopRequested") is not None,
            overdue=_overdue(resource, tasks, self._clock.now()),
            interrupt=resource.spec.get("InterruptRequested") == attempt
            or self._reclaimed(resource, attempt, tasks),
            interruptions=_number(status, "Interruptions"),
            retries=_number(status, "Retries"),
            max_retries=int(strategy.get("MaximumRetryAttempts", 0)),
        )

    def _reclaimed(self, resource: Resource, attempt: int, tasks: Mapping[str, TaskStatus | None]) -> bool:
        """Whether chance takes a spot job's machines now: the same answer however often it is asked."""
        rate = self._spot_interruptions_per_hour
        began = [
            transition.at
            for task in tasks.values()
            for transition in (task.transitions if task else ())
            if transition.phase is TaskPhase.RUNNING
        ]
        if not rate or not began or not resource.spec.get("EnableManagedSpotTraining"):
            return False
        lasts = random.Random(f"{resource.uid}-{attempt}").expovariate(rate / 3600.0)
        return self._clock.now() >= min(began) + lasts

    def _task(self, resource: Resource, attempt: int, host: str) -> TaskSpec:
        key, spec = resource.key, resource.spec
        found = hosts(spec)
        _, type_name, group = next(each for each in found if each[0] == host)
        machine = instance_type(type_name)
        identity = TaskIdentity(task_id(resource.uid, attempt, host), key.account, str(spec["RoleArn"]))
        return TaskSpec(
            id=identity.task_id,
            owner=owner_text(key),
            work=TrainingWork(
                job_name=key.name,
                job_arn=sagemaker_arn(key),
                request=request_of(spec),
                host=host,
                hosts=tuple(name for name, _, _ in found),
                instance_type=type_name,
                instance_group=group,
                log_group=LOG_GROUP,
                log_stream=f"{key.name}/{host}-{int(resource.created_at)}",
                max_runtime_seconds=_runtime_left(resource, self._clock.now()),
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
            gang=tuple(task_id(resource.uid, attempt, name) for name, _, _ in found)
            if len(found) > 1
            else (),
            keeps_room=warm_pool.keep_alive_seconds(spec) > 0,
            room_of=dict(zip((name for name, _, _ in found), _pool_tasks(spec), strict=False)).get(host, ""),
        )


def owner_text(key: Key) -> str:
    """The key as the ``owner`` of a task."""
    return "|".join((key.kind, key.account, key.region, key.name))


def owner_key(owner: str) -> Key:
    """Inverse of `owner_text`. Raises ``ValueError``."""
    kind, account, region, name = owner.split("|")
    return Key(kind, account, region, name)


def _pool_tasks(spec: Document) -> list[str]:
    """The tasks of the ended job whose machines this one took over, in the order of the hosts."""
    pool: Any = spec.get("WarmPool") or {}
    return list(pool.get("TaskIds", ()))


def _pool_at_end(resource: Resource, tasks: Mapping[str, TaskStatus | None], decision: Decision) -> JsonValue:
    """The WarmPoolStatus of a job that ends: its machines are kept unless they may be what failed."""
    internal = decision.ending == "Failed" and decision.reason.startswith(INTERNAL)
    began = all(task is not None and task.phase is not TaskPhase.PENDING for task in tasks.values())
    if warm_pool.keep_alive_seconds(resource.spec) and began and not internal:
        return warm_pool.available()
    return warm_pool.ended(0.0) if resource.spec.get("WarmPool") else None


def _number(status: Document, name: str) -> int:
    number = status[name]
    assert isinstance(number, int)
    return number


def _overdue(resource: Resource, tasks: Mapping[str, TaskStatus | None], now: float) -> StopCause | None:
    """The limit of the job's own that has passed by ``now``. The agents mind MaxRuntimeInSeconds."""
    limits: Any = resource.spec.get("StoppingCondition") or {}
    age = now - resource.created_at
    if "MaxWaitTimeInSeconds" in limits and age >= limits["MaxWaitTimeInSeconds"]:
        return StopCause.MAX_WAIT
    pending = all(task is None or task.phase is TaskPhase.PENDING for task in tasks.values())
    if (
        pending
        and age >= limits.get("MaxPendingTimeInSeconds", math.inf)
        and _number(resource.status, "Attempt") == 1
    ):
        return StopCause.MAX_PENDING
    return None


def _runtime_left(resource: Resource, now: float) -> float:
    """Seconds that the job may still train, after its earlier attempts."""
    limits: Any = resource.spec["StoppingCondition"]
    published: Any = resource.status["SecondaryStatusTransitions"]
    return max(0.0, float(limits["MaxRuntimeInSeconds"]) - worked_seconds(published, now))


def _ended_at(tasks: Mapping[str, TaskStatus | None], now: float) -> float:
    ends = [
        task.transitions[-1].at for task in tasks.values() if task and task.phase.final and task.transitions
    ]
    return max(ends, default=now)
