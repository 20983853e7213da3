"""The whole control plane under a plan of what callers and the world do, with a server that dies on the way.

A simulation runs real operations, controllers and work loop over a scripted driver and a clock that is
turned. Its server dies at chosen or random points between its effects and is started again, as often as its
`CrashPoints` say; agents and gateway live on. What must hold is checked all the time and at the end:

- each job ends, in the status that its tasks' own ends call for, and shows their results;
- what callers were shown of a job only ever grows, by legal moves;
- no task runs twice, beside another attempt, or is forgotten before its end is written; none is left over;
- nothing that was acknowledged is lost;
- an endpoint that serves keeps a route until it is deleted, a routed replica is never stopped, and in the
  end the route has all healthy replicas, and no others run.
"""

from __future__ import annotations

import itertools
import logging
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clary.clock import ManualClock
from clary.compute.scripted import Script, Step, healthy_serving, succeeding_training
from clary.faults import Fault, InUse
from clary.resources import endpoint, training_job
from clary.resources.resource import Key, Resource
from clary.resources.task import ServingWork, StopCause, TaskPhase, TaskSpec, TaskStatus
from clary.store.memory import MemoryStore
from clary.store.store import Query, Store
from clary.telemetry.metric_store import Point, Series
from clary.testing.control_plane import ACCOUNT, REGION, ControlPlane
from clary.testing.crashing import CrashingRouter, CrashingStore, CrashPoints, Killed

LONGEST_SECONDS = 20_000.0  # of simulated time, by when everything must have come to rest
REST_SECONDS = 25.0  # for which nothing may move any more
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service"
CONTAINER = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/own:1"
FAILURE = "AlgorithmError: ValueError: too few rows (train.py:12), exit code: 1"
INTERNAL_FAILURE = "InternalServerError: the disk is full"

Verb = Literal[
    "create_job", "stop_job", "delete_job", "time_out",
    "create_endpoint", "update_endpoint", "resize_endpoint", "delete_endpoint",
    "lose", "interrupt", "reclaim", "shut_down",
]  # fmt: skip


@dataclass(frozen=True)
class Action:
    """What happens ``at`` seconds from the beginning.

    ``script`` names what a job's tasks or an endpoint's model do (`SCRIPTS`, `MODELS`); ``count`` is that of
    hosts or instances; ``keep_alive`` the seconds of a job's warm pool. ``lose`` kills an agent of ``name``,
    ``interrupt`` is a machine that goes down under one, ``reclaim`` a caller's InterruptTrainingJob,
    ``time_out`` its agents' own end of a job, and ``shut_down`` an orderly end of the server, which ends all
    tasks.
    """

    at: float
    verb: Verb
    name: str = ""
    script: str = "succeeds"
    count: int = 1
    retries: int = 0
    keep_alive: int = 0


def _failing(reason: str, running_seconds: float) -> Script:
    return Script(
        (
            Step(TaskPhase.PREPARING, 0.1),
            Step(TaskPhase.RUNNING, 1.0),
            Step(TaskPhase.FAILED, running_seconds, reason=reason, exit_code=1),
        )
    )


SCRIPTS: Mapping[str, Script] = {
    "succeeds": succeeding_training(),
    "is quick": succeeding_training(preparing_seconds=0.1, running_seconds=0.1, uploading_seconds=0.1),
    "is slow": succeeding_training(running_seconds=120.0, uploading_seconds=20.0),
    "uploads long": succeeding_training(uploading_seconds=20.0),
    "fails": _failing(FAILURE, 6.0),
    "fails at once": Script((Step(TaskPhase.FAILED, 0.1, reason=FAILURE, exit_code=1),)),
    "fails internally": _failing(INTERNAL_FAILURE, 3.0),
}
MODELS: Mapping[str, Callable[[str], Script]] = {
    "serves": lambda address: healthy_serving(address=address),
    "serves-late": lambda address: healthy_serving(startup_seconds=8.0, address=address),
    "is-broken": lambda address: Script((Step(TaskPhase.FAILED, 3.0, reason="no model here"),)),
}

_INTERRUPTIONS = (StopCause.SHUTDOWN, StopCause.INTERRUPTED)
_TRAINING_TASK = re.compile(r"training-([0-9a-f]+)-(\d+)-algo-\d+\Z")


@dataclass
class _Known:
    """What the simulation knows of one job, by uid."""

    name: str
    shown: list[Mapping[str, Any]] = field(default_factory=list)
    phase: str = ""
    attempt: int = 1


class Simulation:
    """Make it inside a running event loop, and `run` it once.

    ``seed`` chooses how fast time goes, what is not heard, who acts while a controller is at work, and how
    long a dead server stays dead; without it all goes evenly. ``interposed`` is what a caller does just
    before the status of that number is written, while the controller knows nothing of it. ``store`` is where
    resources are kept.
    """

    def __init__(
        self,
        plan: Sequence[Action],
        points: CrashPoints,
        *,
        seed: int | None = None,
        interposed: tuple[int, Action] | None = None,
        clock: ManualClock | None = None,
        store: Store | None = None,
    ) -> None:
        self._interposed = interposed
        self.statuses_written = 0
        self._plan = sorted(plan, key=lambda action: action.at)
        self._points = points
        self._seed = seed
        self._random = random.Random(seed)
        self._clock = clock or ManualClock()
        self._store: Store = store or MemoryStore(self._clock)
        crashing = CrashingStore(
            self._store, points, meanwhile=self._meanwhile, on_status=self._status_written
        )
        self._plane = ControlPlane(self._script, clock=self._clock, store=crashing)
        self._router = self._plane.router = CrashingRouter(points)
        self._plane.restart()
        self._driver = self._plane.driver
        self._driver.on_effect = self._effect
        self._began = self._clock.now()
        self._sequence = 0
        self._jobs: dict[str, _Known] = {}
        self._ends: dict[str, TaskStatus] = {}  # how tasks ended, by id
        self._addresses: dict[str, str] = {}  # of model servers, by task id
        self._acknowledged: set[str] = set()  # names of what was created
        self._deletable: set[str] = set()  # names of what somebody tried to delete
        self._losses: Counter[str] = Counter()
        self._complaints: list[str] = []
        self.ended_as: dict[str, str] = {}  # secondary status in which each job ended, by name

    async def run(self) -> None:
        """Go through the plan, and on until all is at rest. Raises ``AssertionError`` for what is wrong."""
        listener = _Listener(self._complaints)
        logger = logging.getLogger("clary.work_loop")
        propagates = logger.propagate
        logger.addHandler(listener)
        logger.propagate = False
        try:
            await self._run()
        except AssertionError as error:
            died = [f"{number} ({self._points.passed[number]})" for number in self._points.died]
            raise AssertionError(
                f"{error}\nSeed {self._seed}, {self._clock.now() - self._began:.2f} s from the beginning; "
                f"died at {', '.join(died) or 'no point'}.\nThe plan: {self._plan}"
            ) from error
        finally:
            logger.removeHandler(listener)
            logger.propagate = propagates
            await self._driver.close(stop_tasks=False)

    async def _run(self) -> None:
        self._points.armed = False
        for model in MODELS:
            container = {"Image": CONTAINER}
            await self._plane.call(
                "CreateModel", ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer=container
            )
        self._points.armed = True
        rests_since: float | None = None
        while rests_since is None or self._clock.now() - rests_since < REST_SECONDS:
            while self._due():
                await self._perform(self._plan.pop(0))
            await self._look()
            resting = not self._plan and await self._at_rest()
            rests_since = (rests_since or self._clock.now()) if resting else None
            late = self._clock.now() - self._began > LONGEST_SECONDS
            assert not late, f"it does not come to rest: {await self._unrest()}"
            await self._clock.advance(self._tick() if rests_since is None else REST_SECONDS / 5)
            await self._note_tasks()
        await self._check_end()

    # Time and death.

    def _due(self) -> bool:
        return bool(self._plan) and self._clock.now() - self._began >= self._plan[0].at

    def _tick(self) -> float:
        return 1.0 if self._seed is None else self._random.choice((0.05, 0.3, 0.7, 2.5))

    async def _look(self) -> None:
        if self._seed is not None and self._random.random() < 0.1:
            self._plane.moved.clear()  # news may be lost
        try:
            await self._plane.look()
        except Killed:
            await self._revive()
        await self._watch()

    async def _revive(self) -> None:
        """The server is dead; after a while there is a new one."""
        self._driver.forget_callbacks()
        await self._watch()
        if self._seed is not None and self._random.random() < 0.5:
            await self._clock.advance(self._random.choice((0.2, 1.0, 5.0, 200.0)))
            await self._note_tasks()
        while True:
            try:
                await self._plane.backends.store.forget_leases()
                break
            except Killed:
                continue
        self._plane.restart()

    def _effect(self, name: str, task_id: str) -> None:
        if not self._points.armed:
            return
        if name == "before remove":
            self._check_forgettable(task_id)
        if name == "before stop":
            self._check_unrouted(task_id)
        if name == "after start":
            self._check_alone(task_id)
        self._points.point(f"{name} {task_id}")

    async def _meanwhile(self) -> None:
        """Somebody acts while a controller is at work."""
        number, self.statuses_written = self.statuses_written, self.statuses_written + 1
        action: Action | None = None
        if self._interposed and self._interposed[0] == number:
            action = self._interposed[1]
        elif self._seed is not None and self._due() and self._random.random() < 0.5:
            action = None if self._plan[0].verb == "shut_down" else self._plan.pop(0)
        if action and self._points.armed:
            self._points.armed = False
            try:
                await self._watch()
                await self._perform(action)
            finally:
                self._points.armed = True

    # What callers and the world do.

    async def _perform(self, action: Action) -> None:
        verbs: dict[Verb, Callable[[Action], Awaitable[None]]] = {
            "create_job": self._create_job,
            "stop_job": self._stop_job,
            "delete_job": self._delete_job,
            "time_out": self._time_out,
            "create_endpoint": self._create_endpoint,
            "update_endpoint": self._update_endpoint,
            "resize_endpoint": self._resize_endpoint,
            "delete_endpoint": self._delete_endpoint,
            "lose": self._lose,
            "interrupt": self._interrupt,
            "reclaim": self._reclaim,
            "shut_down": self._shut_down,
        }
        await verbs[action.verb](action)
        await self._watch()

    async def _call(self, operation: str, **members: Any) -> bool:
        """A client's call, made again when the server died under it. Whether it was not refused."""
        died = False
        while True:
            try:
                await self._plane.call(operation, **members)
                return True
            except Killed:
                died = True
                await self._revive()
            except Fault as fault:
                # A call whose first try was done though never answered.
                return died and isinstance(fault, InUse) and operation.startswith("Create")

    async def _create_job(self, action: Action) -> None:
        created = await self._call(
            "CreateTrainingJob",
            TrainingJobName=action.name,
            RoleArn=ROLE,
            AlgorithmSpecification={"TrainingImage": CONTAINER, "TrainingInputMode": "File"},
            Environment={"SCRIPT": action.script},
            OutputDataConfig={"S3OutputPath": "s3://bucket/out"},
            ResourceConfig={
                "InstanceType": "ml.m5.large",
                "InstanceCount": action.count,
                "VolumeSizeInGB": 1,
                **({"KeepAlivePeriodInSeconds": action.keep_alive} if action.keep_alive else {}),
            },
            **({"RetryStrategy": {"MaximumRetryAttempts": action.retries}} if action.retries else {}),
        )
        assert created, f"{action.name} could not be created"
        self._acknowledged.add(action.name)

    async def _stop_job(self, action: Action) -> None:
        await self._call("StopTrainingJob", TrainingJobName=action.name)

    async def _delete_job(self, action: Action) -> None:
        self._deletable.add(action.name)
        await self._call("DeleteTrainingJob", TrainingJobName=action.name)

    async def _time_out(self, action: Action) -> None:
        for task in await self._tasks_of(action.name):
            await self._end(task, StopCause.MAX_RUNTIME)

    async def _interrupt(self, action: Action) -> None:
        for task in (await self._tasks_of(action.name))[-1:]:
            await self._end(task, StopCause.SHUTDOWN)

    async def _reclaim(self, action: Action) -> None:
        await self._call("InterruptTrainingJob", service_name="clary", TrainingJobName=action.name)

    async def _end(self, task: TaskStatus, cause: StopCause) -> None:
        """As the task's agent does, of itself: no effect of the server's."""
        armed, self._points.armed = self._points.armed, False
        await self._driver.stop(task.id, cause)
        self._points.armed = armed

    async def _create_endpoint(self, action: Action) -> None:
        config = await self._config(action)
        created = await self._call("CreateEndpoint", EndpointName=action.name, EndpointConfigName=config)
        assert created, f"{action.name} could not be created"
        self._acknowledged.add(action.name)

    async def _update_endpoint(self, action: Action) -> None:
        config = await self._config(action)
        await self._call("UpdateEndpoint", EndpointName=action.name, EndpointConfigName=config)

    async def _resize_endpoint(self, action: Action) -> None:
        await self._call(
            "UpdateEndpointWeightsAndCapacities",
            EndpointName=action.name,
            DesiredWeightsAndCapacities=[{"VariantName": "all", "DesiredInstanceCount": action.count}],
        )

    async def _delete_endpoint(self, action: Action) -> None:
        self._deletable.add(action.name)
        await self._call("DeleteEndpoint", EndpointName=action.name)

    async def _config(self, action: Action) -> str:
        name = f"{action.name}-{action.script}-{action.count}"
        await self._call(
            "CreateEndpointConfig",
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": "all",
                    "ModelName": action.script,
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": action.count,
                }
            ],
        )
        return name

    async def _lose(self, action: Action) -> None:
        tasks = await self._tasks_of(action.name)
        if tasks:
            self._driver.lose(self._random.choice(tasks).id, "the agent was killed by SIGKILL.")
            self._losses[action.name] += 1
            await self._note_tasks()

    async def _shut_down(self, action: Action) -> None:
        await self._driver.close(stop_tasks=True)
        self._router.routes.clear()
        await self._note_tasks()
        await self._revive()

    async def _tasks_of(self, name: str) -> list[TaskStatus]:
        """The tasks that are not over."""
        await self._note_tasks()
        return [
            task
            for task in await self._driver.tasks()
            if task.owner.rpartition("|")[2] == name and not task.phase.final
        ]

    def _script(self, spec: TaskSpec) -> Script:
        if isinstance(spec.work, ServingWork):
            address = self._addresses[spec.id] = f"unix:/{spec.id}"
            return MODELS[str(spec.work.model["ModelName"])](address)
        environment: Any = spec.work.request["Environment"]
        return SCRIPTS[environment["SCRIPT"]]

    # What must hold at any time.

    async def _note_tasks(self) -> None:
        """Keep how tasks ended, and act their metrics out."""
        for task in await self._driver.tasks():
            if task.phase.final and task.id not in self._ends:
                self._ends[task.id] = task
                key = _key(task.owner)
                if key.kind == training_job.KIND:
                    dimensions = {training_job.METRIC_DIMENSION: key.name}
                    series = Series(
                        key.account, key.region, training_job.METRIC_NAMESPACE, "ended", dimensions
                    )
                    await self._plane.metrics.put([(series, Point(self._clock.now(), len(self._ends)))])

    def _status_written(self, resource: Resource) -> None:
        if resource.key.kind == training_job.KIND:
            known = self._jobs.setdefault(resource.uid, _Known(resource.key.name))
            known.phase, known.attempt = resource.phase, int(str(resource.status["Attempt"]))

    async def _watch(self) -> None:
        """Look at all that was written since the last time."""
        assert not self._complaints, f"the work loop complained: {self._complaints}"
        while events := await self._store.events(after=self._sequence, limit=1000):
            for event in events:
                self._sequence = event.sequence
                if event.key.kind == training_job.KIND:
                    known = self._jobs.setdefault(event.uid, _Known(event.key.name))
                    self._check_growth(known, event.status)
                    if event.change == "status" and training_job.LIFECYCLE.final(event.phase):
                        assert event.previous_phase != event.phase or event.status.get("Freed")
                        if event.previous_phase != event.phase:
                            await self._check_ending(event.key, event.uid, event.status)
        for name in [route for route in self._router.routes if route in self._acknowledged]:
            await self._check_route(name)

    def _check_growth(self, known: _Known, status: Mapping[str, Any]) -> None:
        shown = status["SecondaryStatusTransitions"]
        before = known.shown
        assert len(shown) >= len(before) and shown, f"{known.name} shows less than before: {shown}"
        for old, new in zip(before, shown, strict=False):
            same = {"Status", "StartTime", *(("EndTime",) if "EndTime" in old else ())}
            assert {m: old[m] for m in same} == {m: new[m] for m in same}, f"{known.name}: {old} became {new}"
        for one, following in itertools.pairwise(shown):
            training_job.SECONDARY.move(one["Status"], following["Status"])
            assert one["StartTime"] <= one["EndTime"] <= following["StartTime"], f"{known.name}: {shown}"
        again = {"Starting", "Restarting"}
        began = max(number for number, each in enumerate(shown) if each["Status"] in again)
        attempt = Counter(each["Status"] for each in shown[began:])
        assert max(attempt.values()) == 1, f"{known.name} shows the same twice: {shown}"
        assert shown[-1]["Status"] == status["SecondaryStatus"]
        known.shown = shown

    def _check_forgettable(self, task_id: str) -> None:
        """A task is forgotten only after its end was written down."""
        found = _TRAINING_TASK.match(task_id)
        if found:
            known = self._jobs[found.group(1)]
            written = training_job.LIFECYCLE.final(known.phase) or known.attempt > int(found.group(2))
            assert written, f"{task_id} is forgotten while its job is {known.phase}"

    def _check_unrouted(self, task_id: str) -> None:
        """A model server is stopped only when nothing is sent to it any more."""
        address = self._addresses.get(task_id)
        routed = {
            replica.address
            for route in self._router.routes.values()
            for variant in route.variants
            for replica in variant.replicas
        }
        assert address is None or address not in routed, f"{task_id} is stopped while it is routed to"

    def _check_alone(self, task_id: str) -> None:
        """A task runs once, and only when those of the attempt before are over."""
        assert self._driver.starts[task_id] == 1, f"{task_id} was run {self._driver.starts[task_id]} times"
        found = _TRAINING_TASK.match(task_id)
        for other in list(self._driver.starts) if found else ():
            also = _TRAINING_TASK.match(other)
            if (
                found
                and also
                and also.group(1) == found.group(1)
                and int(also.group(2)) < int(found.group(2))
            ):
                assert other in self._ends, f"{task_id} runs beside {other}"

    async def _check_route(self, name: str) -> None:
        key = Key(endpoint.KIND, ACCOUNT, REGION, name)
        resource = await self._store.find(key)
        assert resource is not None, f"invocations go to {name}, which is gone"

    async def _check_ending(self, key: Key, uid: str, status: Mapping[str, Any]) -> None:
        """A job ended: as its tasks did?"""
        resource = await self._store.find(key)
        assert resource is not None and resource.uid == uid
        spec: Any = resource.spec
        attempt = status["Attempt"]
        ids = training_job.tasks_of(uid, [attempt], spec)
        ends = [self._ends.get(task_id) for task_id in ids]
        present = [end for end in ends if end is not None]
        said = (
            f"{key.name} ended as {status['SecondaryStatus']}, its tasks as {[e and e.phase for e in ends]}"
        )
        stop_requested = "StopRequested" in spec
        broken = [end for end in present if _broke(end)]
        started = {task_id for task_id in self._driver.starts if task_id.startswith(f"training-{uid}-")}
        assert started <= set(self._ends), f"{key.name} ended while {started - set(self._ends)} ran"
        phase = status["TrainingJobStatus"]
        if phase == "Completed":
            assert all(end and end.phase is TaskPhase.SUCCEEDED for end in ends), said
            assert status["ModelArtifacts"] == {"S3ModelArtifacts": "s3://scripted/model.tar.gz"}, said
        elif phase == "Failed":
            assert broken, said
            assert any(status["FailureReason"].endswith(end.reason) for end in broken), said
        elif status["SecondaryStatus"] == "MaxRuntimeExceeded":
            assert any(end.stop_cause is StopCause.MAX_RUNTIME for end in present) and not broken, said
        else:
            assert stop_requested and not any(end.phase is TaskPhase.FAILED for end in present), said
        assert ("FailureReason" in status) == (phase == "Failed"), said
        if present:
            assert [each["MetricName"] for each in status["FinalMetricDataList"]] == ["ended"], said
        again = status["Interruptions"] + status["SpotInterruptions"] + status["Retries"]
        assert attempt == again + 1, said
        assert status["Retries"] <= (spec.get("RetryStrategy") or {}).get("MaximumRetryAttempts", 0), said
        for earlier in range(1, attempt):
            olds = [self._ends.get(each) for each in training_job.tasks_of(uid, [earlier], spec)]
            assert any(end and (end.stop_cause in _INTERRUPTIONS or _broke(end)) for end in olds), (
                f"{key.name}: attempt {earlier} was given up without a cause: {olds}"
            )
        self.ended_as[key.name] = status["SecondaryStatus"]

    # What must hold in the end.

    async def _at_rest(self) -> bool:
        return not await self._unrest()

    async def _unrest(self) -> list[str]:
        """What still moves."""
        jobs = [
            job.key.name
            for job in await self._all(training_job.KIND)
            if not training_job.LIFECYCLE.final(job.phase)
            or job.due_at is not None
            or "DeleteRequested" in job.spec
        ]
        endpoints = [
            each.key.name
            for each in await self._all(endpoint.KIND)
            if endpoint.shown_status(each) not in ("InService", "Failed")
            or each.status.get("Retiring")
            or (each.phase == "InService" and len(self._router.addresses(each.key.name)) != _wanted(each))
        ]
        return jobs + endpoints

    async def _check_end(self) -> None:
        jobs, endpoints = await self._all(training_job.KIND), await self._all(endpoint.KIND)
        names = {resource.key.name for resource in (*jobs, *endpoints)}
        lost = self._acknowledged - names - self._deletable
        assert not lost, f"{lost} are lost"
        assert names <= self._acknowledged
        running = {task.id: task for task in await self._driver.tasks()}
        for each in endpoints:
            self._check_endpoint(each, running)
        assert not running, f"{sorted(running)} are left over"
        routed = set(self._router.routes) - {each.key.name for each in endpoints if each.phase == "InService"}
        assert not routed, f"invocations still go to {routed}"
        twice = {task_id: count for task_id, count in self._driver.starts.items() if count != 1}
        assert not twice, f"{twice} were run more than once"

    def _check_endpoint(self, resource: Resource, running: dict[str, TaskStatus]) -> None:
        name = resource.key.name
        serving: Any = resource.status.get("Serving")
        if serving is None:
            wanted = endpoint.read_deployment(resource.spec["Deployment"])
            model = wanted.variants[0].model.get("ModelName")
            assert model == "is-broken" or self._losses[name] > 2, f"{name} failed with a model that {model}"
            assert resource.phase == "Failed" and resource.status.get("FailureReason"), name
            return
        assert resource.phase == "InService", f"{name} serves and is {resource.phase}"
        addresses = self._router.addresses(name)
        assert len(addresses) == _wanted(resource), f"{name} has {len(addresses)} replicas"
        for task_id, task in list(running.items()):
            if task.address in addresses:
                assert task.phase is TaskPhase.RUNNING and task.stop_cause is None, f"{task_id} does not run"
                addresses.discard(str(task.address))
                del running[task_id]
        assert not addresses, f"{name} sends invocations to {addresses}, where nobody is"

    async def _all(self, kind: str) -> list[Resource]:
        found: list[Resource] = []
        token: str | None = None
        while True:
            page = await self._store.list(Query(kind, ACCOUNT, REGION, page_size=100, page_token=token))
            found.extend(page.resources)
            token = page.next_token
            if token is None:
                return found


class _Listener(logging.Handler):
    """Notes what the work loop logs as an error: a controller that raised is a bug."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._complaints = complaints
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._complaints.append(self.format(record))


def random_plan(seed: int, *, jobs: int, endpoints: int) -> list[Action]:
    """What callers and the world do in a while; the same for the same seed."""
    chance = random.Random(seed)
    plan: list[Action] = []
    for number in range(jobs):
        name, at = f"job-{number}", chance.uniform(0, 60)
        plan.append(
            Action(
                at,
                "create_job",
                name,
                script=chance.choice(sorted(SCRIPTS)),
                count=chance.choice((1, 1, 1, 2, 3)),
                retries=chance.choice((0, 0, 1, 2)),
                keep_alive=chance.choice((0, 0, 10, 100)),
            )
        )
        verbs: tuple[Verb, ...] = (
            "stop_job",
            "lose",
            "interrupt",
            "reclaim",
            "time_out",
            "delete_job",
        )
        for verb in verbs:
            for _ in range(chance.choice((0, 0, 0, 1, 2))):
                plan.append(Action(at + chance.uniform(0, 30), verb, name))
    for number in range(endpoints):
        name, at = f"endpoint-{number}", chance.uniform(0, 60)
        model = chance.choice(("serves", "serves", "serves-late", "is-broken"))
        plan.append(Action(at, "create_endpoint", name, script=model, count=chance.choice((1, 2, 3))))
        changes: tuple[Verb, ...] = ("update_endpoint", "resize_endpoint", "lose")
        for verb in changes:
            for _ in range(chance.choice((0, 1, 2))):
                plan.append(
                    Action(
                        at + chance.uniform(0, 120),
                        verb,
                        name,
                        script=chance.choice(sorted(MODELS)),
                        count=chance.choice((1, 2, 3)),
                    )
                )
        if chance.random() < 0.4:
            plan.append(Action(at + chance.uniform(0, 120), "delete_endpoint", name))
    for _ in range(chance.choice((0, 0, 1, 2))):
        plan.append(Action(chance.uniform(0, 100), "shut_down"))
    return plan


def _key(owner: str) -> Key:
    kind, account, region, name = owner.split("|")
    return Key(kind, account, region, name)


def _broke(end: TaskStatus) -> bool:
    lost = end.phase is TaskPhase.LOST and end.stop_cause not in _INTERRUPTIONS
    return end.phase is TaskPhase.FAILED or lost


def _wanted(resource: Resource) -> int:
    applied: Any = resource.status["Applied"]
    return sum(wish.instance_count for wish in endpoint.read_wishes(applied).variants.values())
