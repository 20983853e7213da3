"""Interruptions on purpose: what spot machines do to a job, when the user wants to see it."""

from __future__ import annotations

from typing import Any

from clary.faults import Conflict, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.resource import Key, Resource
from clary.resources.training_job import KIND, LIFECYCLE
from clary.services.operation import RequestContext, operation


@operation("clary")
async def interrupt_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    """Asks for the present attempt's end; the job begins a new one, spot or not."""
    key = Key(KIND, context.account, context.region, request["TrainingJobName"])
    now = context.backends.clock.now()

    def change(job: Resource) -> dict[str, Any]:
        if LIFECYCLE.final(job.phase) or job.spec.get("StopRequested"):
            raise Conflict(
                f"The training job '{key.name}' has ended or is ending: there is nothing to interrupt."
            )
        return {**job.spec, "InterruptRequested": job.status["Attempt"]}

    if await context.backends.store.find(key) is None:
        raise NotFound(f"There is no training job '{key.name}' in {context.region}.")
    await context.backends.store.write_spec(key, change, due_at=now)
    return {}
