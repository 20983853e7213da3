"""Finding a warm pool for a new training job, and listing jobs by the state of theirs."""

from __future__ import annotations

import dataclasses
from typing import Any

from clary.faults import Conflict, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources import warm_pool
from clary.resources.resource import Document, Key, Resource
from clary.resources.training_job import KIND, hosts, summarize, task_id
from clary.services.operation import RequestContext
from clary.services.sagemaker.listing import query_of
from clary.store.store import MAX_PAGE_SIZE, Query

_LABELS = {warm_pool.LABEL: "true"}


def labels_of(request: Members) -> dict[str, str]:
    """The label by which the pool that the job may leave behind is found."""
    return dict(_LABELS) if warm_pool.keep_alive_seconds(request) else {}


async def claim_warm_pool(context: RequestContext, key: Key, request: Members) -> dict[str, Any] | None:
    """Take a pool that waits for a job such as ``request``: what the new job's spec keeps of it.

    The newest pools are looked at, as many as fit on a page. A claim whose job is not created lapses.
    """
    query = Query(KIND, key.account, key.region, labels=_LABELS, descending=True, page_size=MAX_PAGE_SIZE)
    for job in (await context.backends.store.list(query)).resources:
        if not warm_pool.is_available(job.status) or not warm_pool.matches(job.spec, request):
            continue
        try:
            await context.backends.store.write_spec(
                job.key,
                _claim(job, key.name, context.backends.clock.now()),
                due_at=context.backends.clock.now(),
            )
        except (Conflict, NotFound):
            continue  # another job was quicker, or its time was up
        attempt = int(str(job.status["Attempt"]))
        return {
            "JobUid": job.uid,
            "TaskIds": [task_id(job.uid, attempt, host) for host, _, _ in hosts(job.spec)],
        }
    return None


def _claim(pool: Resource, name: str, now: float) -> Any:
    def change(job: Resource) -> Document:
        taken = job.spec.get("WarmPoolClaim")
        if job.uid != pool.uid or taken or job.spec.get("DeleteRequested"):
            raise Conflict(f"The warm pool of {job.key.name} is taken.")
        return {**job.spec, "WarmPoolClaim": {"JobName": name, "At": now}}

    return change


async def list_by_pool_status(context: RequestContext, request: Members) -> ReplyMembers:
    """ListTrainingJobs with ``WarmPoolStatusEquals``."""
    wanted = request["WarmPoolStatusEquals"]
    query = query_of(context, request, KIND, labels=_LABELS)
    found: list[Any] = []
    token = query.page_token
    size = query.page_size
    while True:
        page = await context.backends.store.list(
            dataclasses.replace(query, page_token=token, page_size=size - len(found))
        )
        for job in page.resources:
            pool: Any = job.status.get("WarmPoolStatus") or {}
            if pool.get("Status") == wanted:
                found.append(summarize(job))
        token = page.next_token
        if token is None or len(found) >= size:
            return {"TrainingJobSummaries": found, "NextToken": token}
