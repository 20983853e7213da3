"""The controller of endpoints: model servers up, the gateway told, old servers drained and gone.

Each instance of a production variant is one serving task. A task that died is followed by another *life* of
the same replica, so ids never come back. What the driver runs for an endpoint is the truth: whatever is
there and not wanted is drained, stopped and forgotten, whoever started it and however that one ended.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from clary.clock import Clock
from clary.compute.driver import Driver
from clary.compute.instance_types import instance_type
from clary.controllers.controller import Outcome
from clary.controllers.training_jobs import owner_text
from clary.resources.endpoint import (
    KIND,
    LIFECYCLE,
    LONGEST_FAILURE_REASON,
    Deployment,
    Variant,
    Wish,
    Wishes,
    log_group,
    read_deployment,
    read_wishes,
    wishes_document,
)
from clary.resources.resource import Key, Resource
from clary.resources.route import EndpointRoute, ReplicaRoute, VariantRoute
from clary.resources.task import Connection, ServingWork, StopCause, TaskPhase, TaskSpec, TaskStatus
from clary.resources.task_token import TaskIdentity, issue_task_token

LOOK_SOON_SECONDS = 2.0  # while something moves; the driver usually says so sooner
LOOK_AGAIN_SECONDS = 10.0
DRAIN_LOOK_SECONDS = 0.2
DRAIN_SECONDS = 65.0  # an invocation may take 60
GRACE_SECONDS = 30.0  # as AWS gives containers
MOST_LOSSES_OF_A_DEPLOYMENT = 3  # of one replica's agents, before the deployment counts as failed
HEALTHY_SECONDS = 600.0  # a replica that served so long starts counting its deaths anew
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0

_TASK_ID = re.compile(r"(serving-.+-\d+-[0-9a-f]{10}-\d+)-(\d+)\Z")
_TELLS_BY_ITSELF = ("ClientError:", "InternalServerError:", "Failed to download")


class Router(Protocol):
    """The gateway, as this controller sees it."""

    async def publish(self, route: EndpointRoute) -> None:
        """Let the endpoint's invocations go this way from now on; returns when they do."""

    async def withdraw(self, account: str, region: str, name: str) -> None:
        """Take no more invocations for the endpoint. Unknown ones are ignored."""

    async def busy(self) -> frozenset[str]:
        """The addresses of replicas that are answering invocations now."""


@dataclass(frozen=True)
class Life:
    """Which life a replica is in, how often it died in a row, and when the next may begin."""

    number: int = 1
    deaths: int = 0
    not_before: float = 0.0


@dataclass(frozen=True)
class Observation:
    """All that `decide` knows. ``tasks`` are those that the driver runs for the endpoint, by id."""

    now: float
    uid: str
    deleting: bool
    wanted: Deployment
    desired: Wishes
    serving: Deployment | None
    applied: Wishes | None
    tried: int
    failure: str
    lives: Mapping[str, Life]
    tasks: Mapping[str, TaskStatus]
    busy: frozenset[str]
    retiring: Mapping[str, float]


@dataclass(frozen=True)
class Start:
    """A task to be started."""

    task_id: str
    variant: Variant


@dataclass
class Decision:
    """What to do, in the order of the fields, and the status to write."""

    start: list[Start] = field(default_factory=list)
    route: tuple[VariantRoute, ...] | None = None
    stop: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    phase: str = "Creating"
    serving: Deployment | None = None
    applied: Wishes | None = None
    tried: int = 0
    failure: str = ""
    lives: dict[str, Life] = field(default_factory=dict)
    retiring: dict[str, float] = field(default_factory=dict)
    current: dict[str, int] = field(default_factory=dict)
    due_at: float | None = None
    gone: bool = False


@dataclass(frozen=True)
class _Replica:
    """One instance of a variant as it stands: ``task`` is that of its present life."""

    variant: Variant
    index: int
    place: str
    life: Life
    task: TaskStatus | None
    may_start: bool
    failure: str = ""  # of the life that has just ended, if that was its own doing
    lost: bool = False  # it ended without a word

    @property
    def task_id(self) -> str:
        return f"{self.place}-{self.life.number}"

    @property
    def healthy(self) -> bool:
        return self.task is not None and self.task.phase is TaskPhase.RUNNING and bool(self.task.address)


def decide(seen: Observation) -> Decision:
    """What to do for one endpoint. Pure."""
    made = Decision(
        serving=seen.serving, applied=seen.applied, tried=seen.tried, failure=seen.failure, due_at=None
    )
    if seen.deleting:
        made.phase = "Deleting"
        _clear_away(seen, made, wanted=())
        made.gone = not seen.tasks
        return made
    fresh = _advance_deployment(seen, made) if seen.wanted.number != seen.tried else []
    kept = _advance_serving(seen, made)
    replicas = [*fresh, *(each for each in kept if each.place not in {other.place for other in fresh})]
    made.lives = _lives_of_others(seen, made) | {each.place: each.life for each in replicas}
    for each in replicas:
        if each.task is None and each.may_start:
            made.start.append(Start(each.task_id, each.variant))
    shown = kept if made.serving else fresh
    made.current = {}
    for each in shown:
        made.current[each.variant.name] = made.current.get(each.variant.name, 0) + each.healthy
    if made.serving and made.applied:
        made.route = _route(made.serving, kept, _weights(seen, made))
    _settle(seen, made, replicas)
    _clear_away(seen, made, wanted={each.task_id for each in replicas})
    return made


def _advance_deployment(seen: Observation, made: Decision) -> list[_Replica]:
    """Bring the wanted deployment up; it serves when all of it is healthy, or has failed for good."""
    failure = seen.wanted.refusal and f"The endpoint configuration cannot be deployed: {seen.wanted.refusal}"
    replicas: list[_Replica] = []
    if not failure:
        replicas = _replicas(seen, seen.wanted, seen.desired)
        failed = next((each for each in replicas if _fails_deployment(each)), None)
        failure = explain(failed.variant.name, failed.failure) if failed else ""
    made.failure = ""
    if failure:
        # What served goes on serving; that the wish was heard shows in the numbers.
        made.tried, made.failure = seen.wanted.number, failure
        if made.applied:
            made.applied = Wishes(seen.desired.number, made.applied.variants)
        return []
    if all(each.healthy for each in replicas):
        made.serving, made.applied, made.tried = seen.wanted, seen.desired, seen.wanted.number
    return replicas


def _fails_deployment(replica: _Replica) -> bool:
    if not replica.failure:
        return False
    return not replica.lost or replica.life.deaths >= MOST_LOSSES_OF_A_DEPLOYMENT


def _advance_serving(seen: Observation, made: Decision) -> list[_Replica]:
    """Keep what serves alive, and give it the size that is wished for."""
    if made.serving is None or made.applied is None:
        return []
    applied, desired = made.applied, seen.desired
    # A deployment that failed is what was wanted last, and yet wishes are for the one that serves.
    if made.tried == seen.wanted.number and desired.number != applied.number:
        replicas = _replicas(seen, made.serving, desired)
        failed = next(
            (
                each
                for each in replicas
                if each.failure and each.index >= _count(applied, each.variant) and _fails_deployment(each)
            ),
            None,
        )
        made.failure = ""
        if failed is None:
            if all(each.healthy for each in replicas if each.index >= _count(applied, each.variant)):
                made.applied = desired
            return replicas
        made.failure = "The endpoint could not be scaled. " + explain(failed.variant.name, failed.failure)
        made.applied = Wishes(desired.number, applied.variants)
    return _replicas(seen, made.serving, made.applied)


def _replicas(seen: Observation, deployment: Deployment, wishes: Wishes) -> list[_Replica]:
    return [
        _replica(seen, deployment, variant, index)
        for variant in deployment.variants
        for index in range(_count(wishes, variant))
    ]


def _replica(seen: Observation, deployment: Deployment, variant: Variant, index: int) -> _Replica:
    place = f"serving-{seen.uid}-{deployment.number}-{variant.digest}-{index}"
    life = seen.lives.get(place, Life())
    newest = max((_life_number(task_id, place) for task_id in seen.tasks), default=0)
    if newest > life.number:  # it was begun, and the server killed before that was written down
        life = replace(life, number=newest)
    task = seen.tasks.get(f"{place}-{life.number}")
    if task is None:
        return _Replica(variant, index, place, life, None, seen.now >= life.not_before)
    over = task.phase.final or task.stop_cause is StopCause.SUPERSEDED
    if not over:
        return _Replica(variant, index, place, life, task, False)
    if task.stop_cause in (StopCause.SUPERSEDED, StopCause.SHUTDOWN):  # not the replica's own doing
        return _Replica(variant, index, place, Life(life.number + 1), None, True)
    deaths = 1 if _served_seconds(task) >= HEALTHY_SECONDS else life.deaths + 1
    next_life = Life(life.number + 1, deaths, seen.now + _pause(deaths))
    return _Replica(
        variant,
        index,
        place,
        next_life,
        None,
        seen.now >= next_life.not_before,
        failure=task.reason or "the model server ended",
        lost=task.phase is not TaskPhase.FAILED,
    )


def _lives_of_others(seen: Observation, made: Decision) -> dict[str, Life]:
    """The next lives of replicas that are not wanted now, should they be wanted again."""
    numbers = {seen.wanted.number, made.serving.number if made.serving else 0}
    prefixes = tuple(f"serving-{seen.uid}-{number}-" for number in numbers)
    lives = {place: life for place, life in seen.lives.items() if place.startswith(prefixes)}
    for task_id in seen.tasks:
        found = _TASK_ID.match(task_id)
        if found and found.group(1).startswith(prefixes):
            place, number = found.group(1), int(found.group(2)) + 1
            if number > lives.get(place, Life()).number:
                lives[place] = Life(number)
    return lives


def _pause(deaths: int) -> float:
    """Seconds before the next life: none after the first death."""
    if deaths <= 1:
        return 0.0
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(deaths - 2, 20), LONGEST_PAUSE_SECONDS)


def _served_seconds(task: TaskStatus) -> float:
    began = next((move.at for move in task.transitions if move.phase is TaskPhase.RUNNING), None)
    return task.transitions[-1].at - began if began is not None else 0.0


def _life_number(task_id: str, place: str) -> int:
    found = _TASK_ID.match(task_id)
    return int(found.group(2)) if found and found.group(1) == place else 0


def _count(wishes: Wishes, variant: Variant) -> int:
    return wishes.variants.get(variant.name, variant.initial).instance_count


def _weights(seen: Observation, made: Decision) -> Mapping[str, Wish]:
    """Weights count at once, also while instances are still being added."""
    assert made.serving is not None and made.applied is not None
    scaling = made.tried == seen.wanted.number and made.applied.number != seen.desired.number
    return (seen.desired if scaling else made.applied).variants


def _route(
    deployment: Deployment, replicas: Sequence[_Replica], wishes: Mapping[str, Wish]
) -> tuple[VariantRoute, ...]:
    return tuple(
        VariantRoute(
            variant.name,
            wishes.get(variant.name, variant.initial).weight,
            tuple(
                ReplicaRoute(str(each.task.address), log_stream(each.variant.name, each.task_id))
                for each in replicas
                if each.variant.name == variant.name and each.healthy and each.task
            ),
        )
        for variant in deployment.variants
    )


def _settle(seen: Observation, made: Decision, replicas: Sequence[_Replica]) -> None:
    """The phase, and when to look again."""
    trying = made.tried != seen.wanted.number
    if made.serving is None:
        made.phase = "Creating" if trying else "Failed"
    else:
        assert made.applied is not None
        moving = trying or made.applied.number != seen.desired.number
        made.phase = "Updating" if moving else "InService"
    if made.phase == "Failed":
        return
    waiting = [each.life.not_before for each in replicas if each.task is None and not each.may_start]
    calm = made.phase == "InService" and all(each.healthy for each in replicas)
    usual = seen.now + (LOOK_AGAIN_SECONDS if calm else LOOK_SOON_SECONDS)
    made.due_at = min([usual, *waiting])


def _clear_away(seen: Observation, made: Decision, *, wanted: Iterable[str]) -> None:
    """Drain, stop and forget every task that is not wanted."""
    for task_id, task in seen.tasks.items():
        if task_id in wanted:
            continue
        # One look later than it was found unwanted: then the status says so, whatever happens now, and the
        # route leaves it out, so that nothing can be sent its way any more.
        since = seen.retiring.get(task_id)
        if since is None:
            made.retiring[task_id] = seen.now
            _look_at(made, seen.now)
            continue
        made.retiring[task_id] = since
        if task.phase.final:
            made.remove.append(task_id)
            _look_at(made, seen.now)
        elif task.stop_cause is not None:
            _look_at(made, seen.now + LOOK_SOON_SECONDS)
        elif task.address in seen.busy and seen.now - since < DRAIN_SECONDS:
            _look_at(made, seen.now + DRAIN_LOOK_SECONDS)
        else:
            made.stop.append(task_id)
            _look_at(made, seen.now + LOOK_SOON_SECONDS)


def _look_at(made: Decision, at: float) -> None:
    made.due_at = at if made.due_at is None else min(made.due_at, at)


def explain(variant: str, reason: str) -> str:
    """The FailureReason of an endpoint whose variant could not be brought up."""
    if reason.startswith(_TELLS_BY_ITSELF):
        text = f"The production variant {variant} could not be brought up. {reason}"
    else:
        text = (
            f"The primary container for production variant {variant} did not pass the ping health check. "
            f"Please check CloudWatch logs for this endpoint. The cause was: {reason}"
        )
    return text[:LONGEST_FAILURE_REASON]


def log_stream(variant: str, task_id: str) -> str:
    """The log stream of a replica: the variant's name, and a name for the instance."""
    return f"{variant}/i-{hashlib.sha256(task_id.encode()).hexdigest()[:17]}"


class EndpointController:
    """See the module. ``endpoint_url`` is where tasks reach the server; ``secret`` seals their tokens."""

    kind = KIND

    def __init__(
        self, driver: Driver, router: Router, clock: Clock, *, endpoint_url: str, secret: bytes
    ) -> None:
        self._driver = driver
        self._router = router
        self._clock = clock
        self._endpoint_url = endpoint_url
        self._secret = secret

    async def reconcile(self, resource: Resource) -> Outcome:
        seen = await self._observe(resource)
        made = decide(seen)
        await self._act(resource, made)
        return self._outcome(resource, seen, made)

    async def _observe(self, resource: Resource) -> Observation:
        spec, status = resource.spec, resource.status
        owner = owner_text(resource.key)
        serving, applied = status.get("Serving"), status.get("Applied")
        lives: Any = status.get("Lives") or {}
        retiring: Any = status.get("Retiring") or {}
        return Observation(
            now=self._clock.now(),
            uid=resource.uid,
            deleting=bool(spec.get("DeleteRequested")),
            wanted=read_deployment(spec["Deployment"]),
            desired=read_wishes(spec["Desired"]),
            serving=read_deployment(serving) if serving else None,
            applied=read_wishes(applied) if applied else None,
            tried=int(str(status.get("Tried", 0))),
            failure=str(status.get("FailureReason") or ""),
            lives={place: Life(*life) for place, life in lives.items()},
            tasks={task.id: task for task in await self._driver.tasks() if task.owner == owner},
            busy=await self._router.busy() if retiring else frozenset(),
            retiring=retiring,
        )

    async def _act(self, resource: Resource, made: Decision) -> None:
        key = resource.key
        for start in made.start:
            await self._driver.start(self._task(key, start))
        if made.route is None:
            await self._router.withdraw(key.account, key.region, key.name)
        else:
            await self._router.publish(EndpointRoute(key.account, key.region, key.name, made.route))
        for task_id in made.stop:
            await self._driver.stop(task_id, StopCause.SUPERSEDED)
        for task_id in made.remove:
            await self._driver.remove(task_id)

    def _outcome(self, resource: Resource, seen: Observation, made: Decision) -> Outcome:
        status: dict[str, Any] = {
            "EndpointStatus": LIFECYCLE.move(resource.phase, made.phase),
            "Tried": made.tried,
            "Current": made.current,
            "Lives": {
                place: [life.number, life.deaths, life.not_before] for place, life in made.lives.items()
            },
            "Retiring": made.retiring,
            "Started": seen.wanted.number,
            "StartedAt": seen.now,
        }
        if resource.status.get("Started") == seen.wanted.number:
            status["StartedAt"] = resource.status["StartedAt"]
        if made.failure:
            status["FailureReason"] = made.failure
        if made.serving is not None and made.applied is not None:
            was = resource.status.get("Serving")
            switched = seen.serving is None or made.serving.number != seen.serving.number
            status["Serving"] = resource.spec["Deployment"] if switched else was
            status["Applied"] = wishes_document(made.applied)
        return Outcome(status, made.phase, due_at=made.due_at, remove=made.gone)

    def _task(self, key: Key, start: Start) -> TaskSpec:
        variant = start.variant
        machine = instance_type(variant.instance_type)
        identity = TaskIdentity(start.task_id, key.account, variant.role_arn)
        return TaskSpec(
            id=start.task_id,
            owner=owner_text(key),
            work=ServingWork(
                endpoint_name=key.name,
                variant_name=variant.name,
                model=variant.model,
                instance_type=variant.instance_type,
                log_group=log_group(key.name),
                log_stream=log_stream(variant.name, start.task_id),
                startup_timeout_seconds=variant.startup_timeout_seconds,
                download_timeout_seconds=variant.download_timeout_seconds,
            ),
            connection=Connection(
                endpoint_url=self._endpoint_url,
                region=key.region,
                credentials_url=f"{self._endpoint_url}/.clary/credentials/{start.task_id}",
                credentials_token=issue_task_token(self._secret, identity),
            ),
            cpu_count=machine.cpu_count,
            memory_bytes=machine.memory_bytes,
            gpu_count=machine.gpu_count,
            grace_seconds=GRACE_SECONDS,
        )
