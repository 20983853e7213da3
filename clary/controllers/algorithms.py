"""Validates algorithms: runs the training job of each profile as a caller would, and says how it ended.

The jobs are ordinary ones in the store, which `clary.controllers.training_jobs` moves. Their names derive
from the algorithm's uid, so that one which was created before a crash is found again and never created twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clary.clock import Clock
from clary.controllers.controller import Outcome
from clary.faults import InUse, NotFound
from clary.resources import training_job
from clary.resources.algorithm import (
    KIND,
    LIFECYCLE,
    SETTLED,
    VALIDATION_LABEL,
    status_of,
    validation_job_name,
    validation_jobs,
)
from clary.resources.resource import Document, Key, Resource
from clary.store.store import Store

LOOK_AGAIN_SECONDS = 2.0  # how often a validating job is looked at


@dataclass(frozen=True)
class JobSeen:
    """What was found of a profile's training job. ``ours`` is false for a stranger with its name."""

    name: str
    phase: str
    secondary: str = ""
    reason: str = ""
    ours: bool = True

    @property
    def over(self) -> bool:
        return not self.ours or training_job.LIFECYCLE.final(self.phase)


@dataclass(frozen=True)
class Decision:
    """What to do, and what has become of the algorithm. ``start`` and ``stop`` name profiles.

    ``items`` are each profile's (status, failure reason); ``gone`` says that nothing is left to be freed of
    an algorithm that is to be deleted.
    """

    items: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    start: Sequence[str] = ()
    stop: Sequence[str] = ()
    gone: bool = False


def decide(jobs: Mapping[str, JobSeen | None], *, started: bool, deleting: bool) -> Decision:
    """Every branch of a validation's way. Pure. ``jobs`` by profile; ``None``: there is no such job."""
    if deleting:
        running = [profile for profile, job in jobs.items() if job and not job.over]
        return Decision(stop=running, gone=not running)
    items = {profile: _item(job, started) for profile, job in jobs.items()}
    start = [profile for profile, job in jobs.items() if job is None and not started]
    return Decision(items, start=start)


def _item(job: JobSeen | None, started: bool) -> tuple[str, str]:
    if job is None:
        lost = "ClientError: the validation's training job was deleted before its end was seen."
        return ("Failed", lost) if started else ("InProgress", "")
    if not job.ours:
        return "Failed", f"ClientError: a training job with the name of the validation's, {job.name}, exists."
    if not job.over:
        return "InProgress", ""
    if job.phase == "Completed":
        return "Completed", ""
    if job.reason:
        return "Failed", training_job.failure_reason(f"Training job {job.name} failed: {job.reason}")
    how = "ran into MaxRuntimeInSeconds" if job.secondary == "MaxRuntimeExceeded" else "was stopped"
    return "Failed", f"ClientError: training job {job.name} {how} before it had completed."


class AlgorithmController:
    """`clary.controllers.controller.Controller` for algorithms."""

    kind = KIND

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def reconcile(self, resource: Resource) -> Outcome:
        """See `clary.controllers.controller.Controller`."""
        deleting = bool(resource.spec.get("DeleteRequested"))
        if resource.phase in SETTLED and not deleting:
            return Outcome(resource.status, resource.phase)
        found = {profile: await self._find(resource, profile) for profile in validation_jobs(resource.spec)}
        decision = decide(found, started=bool(resource.status.get("Started")), deleting=deleting)
        for profile in decision.start:
            await self._start(resource, profile)
        for profile in decision.stop:
            await self._stop(resource, profile)
        return self._outcome(resource, decision, deleting)

    def _outcome(self, resource: Resource, decision: Decision, deleting: bool) -> Outcome:
        again = self._clock.now() + LOOK_AGAIN_SECONDS
        if deleting:
            phase = LIFECYCLE.move(resource.phase, "Deleting")
            status = {**resource.status, "AlgorithmStatus": phase}
            return Outcome(status, phase, due_at=again, remove=decision.gone)
        statuses = [status for status, _ in decision.items.values()]
        phase = LIFECYCLE.move(resource.phase, "InProgress")
        if "InProgress" not in statuses:
            phase = LIFECYCLE.move(phase, "Failed" if "Failed" in statuses else "Completed")
        settled = phase in SETTLED
        status = status_of(phase, decision.items, started=True)
        return Outcome(status, phase, due_at=None if settled else again)

    async def _find(self, resource: Resource, profile: str) -> JobSeen | None:
        key = _job_key(resource, profile)
        job = await self._store.find(key)
        if job is None:
            return None
        return JobSeen(
            key.name,
            job.phase,
            secondary=str(job.status.get("SecondaryStatus", "")),
            reason=str(job.status.get("FailureReason", "")),
            ours=job.labels.get(VALIDATION_LABEL) == resource.uid,
        )

    async def _start(self, resource: Resource, profile: str) -> None:
        key, now = _job_key(resource, profile), self._clock.now()
        job = validation_jobs(resource.spec)[profile]
        spec: Document = {**job, "TrainingJobName": key.name, "Tags": []}
        plan = job["ResourceConfig"].get("TrainingPlanArn")
        labels = {training_job.TRAINING_PLAN_LABEL: plan} if plan else {}
        with contextlib.suppress(InUse):  # whose it is shows at the next look
            await self._store.create(
                key,
                spec,
                training_job.initial_status(now),
                phase="InProgress",
                due_at=now,
                labels={**labels, VALIDATION_LABEL: resource.uid},
            )

    async def _stop(self, resource: Resource, profile: str) -> None:
        """Ask for the job's end, as StopTrainingJob does."""
        now = self._clock.now()

        def change(job: Resource) -> dict[str, Any]:
            if training_job.LIFECYCLE.final(job.phase):
                return dict(job.spec)
            return {"StopRequested": now, **job.spec}

        with contextlib.suppress(NotFound):  # it ended and was deleted meanwhile
            await self._store.write_spec(_job_key(resource, profile), change, due_at=now)


def _job_key(resource: Resource, profile: str) -> Key:
    key = resource.key
    return Key(training_job.KIND, key.account, key.region, validation_job_name(resource, profile))
