"""How many instances of a type an account may use at once, in AWS's names and words.

Nothing is limited unless the setting ``quotas`` says so. What is in use is counted from the store, and only
for the types that have a quota; counting and creating happen one after the other, so that of two requests
for the last instance one is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from clary.faults import LimitExceeded
from clary.resources import endpoint, training_job
from clary.resources.endpoint_config import production_variants, variant_instance_type
from clary.resources.resource import Document, Key, Resource
from clary.services.operation import RequestContext
from clary.store.store import MAX_PAGE_SIZE, Query

TRAINING, SPOT_TRAINING, ENDPOINT = "training job", "spot training job", "endpoint"
MOST_QUOTAS = 1000
_NAME = re.compile(rf"ml\.[a-z0-9-]+\.[a-z0-9-]+ for ({TRAINING}|{SPOT_TRAINING}|{ENDPOINT}) usage\Z")
_UNFINISHED = [phase for phase in training_job.LIFECYCLE.moves if not training_job.LIFECYCLE.final(phase)]
_EXAMPLE = "'ml.m5.xlarge for training job usage=4'"

# One lock for each event loop: a server has one.
_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def parse_quotas(text: str) -> dict[str, int]:
    """``ml.m5.xlarge for training job usage=4, ...`` as a mapping.

    Raises ``ValueError`` naming what is wrong.
    """
    found: dict[str, int] = {}
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        name, _, number = (half.strip() for half in entry.partition("="))
        if not _NAME.match(name):
            raise ValueError(
                f"The setting 'quotas' names {name!r}, which is no quota: write {_EXAMPLE}, the usage being "
                f"'{TRAINING}', '{SPOT_TRAINING}' or '{ENDPOINT}', separated by commas."
            )
        if not number.isdecimal():
            raise ValueError(
                f"The setting 'quotas' gives '{name}' the limit {number!r}; it must be a whole number of "
                "instances, 0 or more."
            )
        if name in found:
            raise ValueError(f"The setting 'quotas' names '{name}' twice.")
        found[name] = int(number)
    if len(found) > MOST_QUOTAS:
        raise ValueError(f"The setting 'quotas' names more than {MOST_QUOTAS} quotas.")
    return found


def training_usage(spec: Document) -> Counter[str]:
    """Quota -> instances that a training job takes while it is in progress."""
    usage = SPOT_TRAINING if spec.get("EnableManagedSpotTraining") else TRAINING
    return Counter(f"{kind} for {usage} usage" for _, kind, _ in training_job.hosts(spec))


def endpoint_usage(deployment: Any, desired: Any) -> Counter[str]:
    """Quota -> instances that an endpoint takes; both documents are those in its spec."""
    wishes = endpoint.read_wishes(desired).variants
    used: Counter[str] = Counter()
    for variant in production_variants(deployment["Config"]):
        wish = wishes.get(str(variant["VariantName"]))
        if wish and not variant.get("ServerlessConfig"):
            used[f"{variant_instance_type(variant)} for {ENDPOINT} usage"] += wish.instance_count
    return used


@contextlib.asynccontextmanager
async def within_training_quotas(context: RequestContext, key: Key, request: Document) -> AsyncIterator[None]:
    """Create the training job ``key`` inside: nobody else takes instances meanwhile. Raises `LimitExceeded`.

    A job of that name that is there already is for the creation itself to refuse.
    """
    asked = _limited(context, training_usage(request))
    if not asked:
        yield
        return
    async with _lock():
        if await context.backends.store.find(key) is None:
            used: Counter[str] = Counter()
            for phase in _UNFINISHED:
                used += await _count(context, training_job.KIND, phase, lambda job: training_usage(job.spec))
            _check(context, asked, used)
        yield


@contextlib.asynccontextmanager
async def within_endpoint_quotas(
    context: RequestContext, key: Key, asked: Callable[[Resource | None], Counter[str]]
) -> AsyncIterator[None]:
    """Create or change the endpoint ``key`` inside; ``asked`` says what it is to take then.

    Raises `LimitExceeded`.
    """
    if not any(name.endswith(f"{ENDPOINT} usage") for name in context.backends.quotas):
        yield
        return
    async with _lock():
        present = await context.backends.store.find(key)
        has = _usage_of(present) if present else Counter[str]()
        more = _limited(context, asked(present) - has)  # what it gives back is no matter
        if more:
            _check(context, more, await _count(context, endpoint.KIND, "", _usage_of))
        yield


def _usage_of(resource: Resource) -> Counter[str]:
    if resource.phase == "Failed":
        return Counter()
    return endpoint_usage(resource.spec["Deployment"], resource.spec["Desired"])


def _limited(context: RequestContext, asked: Counter[str]) -> Counter[str]:
    return Counter({name: count for name, count in asked.items() if name in context.backends.quotas})


async def _count(
    context: RequestContext, kind: str, phase: str, usage: Callable[[Resource], Counter[str]]
) -> Counter[str]:
    used: Counter[str] = Counter()
    token: str | None = None
    while True:
        page = await context.backends.store.list(
            Query(
                kind,
                context.account,
                context.region,
                phase=phase,
                page_size=MAX_PAGE_SIZE,
                page_token=token,
            )
        )
        for resource in page.resources:
            used += usage(resource)
        token = page.next_token
        if token is None:
            return used


def _check(context: RequestContext, asked: Mapping[str, int], used: Mapping[str, int]) -> None:
    for name, delta in asked.items():
        limit, present = context.backends.quotas[name], used.get(name, 0)
        if present + delta > limit:
            raise LimitExceeded(
                f"The account-level service limit '{name}' is {limit} Instances, with current utilization of "
                f"{present} Instances and a request delta of {delta} Instances. Please use AWS Service "
                "Quotas to request an increase for this quota. If AWS Service Quotas is not available, "
                "contact AWS support to request an increase for this quota. (In Clary: the setting 'quotas'.)"
            )


def _lock() -> asyncio.Lock:
    return _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
