"""What a training job costs: billable seconds, and the price of the same run on AWS.

Never in an AWS shape: there a price would be taken for a bill. AWS bills each instance by the second for the
time from the download of the data to the end of the upload, and for what it is kept in a warm pool; waiting
and what lies between an interruption and the next attempt are free. The price is the on-demand one of that
time: what spot machines cost changes by the hour, and no table could tell it. The saving by spot is what
AWS's description says of a job, the share of its time that is not billed.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from clary.faults import Invalid
from clary.pricing.price_book import BrokenPrices
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.resource import Resource
from clary.resources.training_job import hosts, shown_status, worked_seconds
from clary.services.clary.fit import find_training_job
from clary.services.operation import RequestContext, operation

CURRENCY = "USD"


@operation("clary")
async def describe_training_job_cost(context: RequestContext, request: Members) -> ReplyMembers:
    """Of a job that runs, what it cost so far. An instance type whose price nobody told has none."""
    job = await find_training_job(context, request["TrainingJobName"])
    billable, training = seconds_of(job, context.backends.clock.now())
    retained = retained_seconds(job)
    spot = bool(job.spec.get("EnableManagedSpotTraining"))
    instances, unpriced = [], []
    for (group, name), count in _groups(job).items():
        entry: dict[str, Any] = {
            "InstanceGroupName": group,
            "InstanceType": name,
            "InstanceCount": count,
            "BillableInstanceSeconds": (billable + retained) * count,
        }
        try:
            price = await asyncio.to_thread(context.backends.prices.price, job.key.region, name)
        except BrokenPrices as error:
            raise Invalid(f"Prices are not known: {error}") from error
        if price is None:
            unpriced.append(name)
        else:
            entry |= {
                "PricePerHour": price.dollars_per_hour,
                "PriceDate": price.date.isoformat(),
                "PriceSource": price.source,
                "Price": price.dollars_per_hour * count * (billable + retained) / 3600,
            }
        instances.append(entry)
    return {
        "TrainingJobName": job.key.name,
        "TrainingJobStatus": shown_status(job),
        "CreationTime": job.created_at,
        "Region": job.key.region,
        "TrainingTimeInSeconds": training,
        "BillableTimeInSeconds": billable,
        "WarmPoolBillableTimeInSeconds": retained or None,
        "ManagedSpotTraining": spot,
        "SpotSavingPercent": 100 * (1 - billable / training) if spot and training else None,
        "Instances": instances,
        "Currency": CURRENCY,
        "Price": math.fsum(each["Price"] for each in instances) if not unpriced else None,
        "UnpricedInstanceTypes": sorted(set(unpriced)),
    }


def seconds_of(job: Resource, now: float) -> tuple[int, int]:
    """Billable and training seconds of a job, of one that has not ended up to ``now``."""
    status: Any = job.status
    if "BillableTimeInSeconds" in status:
        return int(status["BillableTimeInSeconds"]), int(status["TrainingTimeInSeconds"])
    began = status.get("TrainingStartTime")
    if began is None or "TrainingEndTime" in status:
        return 0, 0  # nothing was downloaded, nothing is billed
    moves = status["SecondaryStatusTransitions"]
    return math.ceil(worked_seconds(moves, now)), math.ceil(max(0.0, now - float(began)))


def retained_seconds(job: Resource) -> int:
    """How long the job's machines were kept for the next one: AWS bills that as it bills training."""
    pool: Any = job.status.get("WarmPoolStatus") or {}
    return int(pool.get("ResourceRetainedBillableTimeInSeconds") or 0)


def _groups(job: Resource) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for _, name, group in hosts(job.spec):
        found[group, name] = found.get((group, name), 0) + 1
    return found
