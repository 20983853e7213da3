"""Metrics of training jobs, as agents and scripts send them.

The API names a trial component, in lower case; that of a training job is the job's name with a suffix. Points
go where CloudWatch's readers look for them: namespace ``/aws/sagemaker/TrainingJobs``, dimension
``TrainingJobName``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import split_arn
from clary.resources.training_job import KIND, METRIC_DIMENSION, METRIC_NAMESPACE
from clary.services.operation import RequestContext, operation
from clary.store.store import Query
from clary.telemetry.metric_store import Point, Series

TRAINING_SUFFIX = "-aws-training-job"
MAX_AHEAD_SECONDS = 2 * 3600.0
MAX_AGE_SECONDS = 14 * 86_400.0
MAX_VALUES_OF_A_QUERY = 100_000
_PERIODS = {"OneMinute": 60, "FiveMinute": 300, "OneHour": 3600}


@operation("sagemaker-metrics")
async def batch_put_metrics(context: RequestContext, request: Members) -> ReplyMembers:
    """Each wrong metric is told by its place in the list; the others are kept."""
    job = await _job(context, request["TrialComponentName"])
    now = context.backends.clock.now()
    points, errors = [], []
    for index, metric in enumerate(request["MetricData"]):
        at, value = metric["Timestamp"], metric["Value"]
        if not math.isfinite(value) or not now - MAX_AGE_SECONDS <= at <= now + MAX_AHEAD_SECONDS:
            errors.append({"Code": "VALIDATION_ERROR", "MetricIndex": index})
            continue
        series = _series(context, job, metric["MetricName"])
        points.append((series, Point(at, value, step=metric.get("Step"))))
    if points:
        await context.backends.metrics.put(points)
    return {"Errors": errors}


@operation("sagemaker-metrics")
async def batch_get_metrics(context: RequestContext, request: Members) -> ReplyMembers:
    return {"MetricQueryResults": [await _answer(context, query) for query in request["MetricQueries"]]}


async def _answer(context: RequestContext, query: Mapping[str, Any]) -> dict[str, Any]:
    try:
        arn = split_arn(query["ResourceArn"])
    except Invalid as fault:
        return {"Status": "ValidationError", "Message": fault.message, "XAxisValues": [], "MetricValues": []}
    if (arn.account, arn.region) != (context.account, context.region):
        message = f"{query['ResourceArn']} belongs to another account or region."
        return {"Status": "ValidationError", "Message": message, "XAxisValues": [], "MetricValues": []}
    job = await _job(context, arn.resource.partition("/")[2])
    start, end = query.get("Start"), query.get("End")
    points = await context.backends.metrics.points(
        _series(context, job, query["MetricName"]),
        start=0 if start is None else float(start),
        end=math.inf if end is None else float(end),
    )
    by_step = query["XAxisType"] == "IterationNumber"
    groups: dict[int, list[Point]] = {}
    for number, point in enumerate(points):
        if by_step:
            place = point.step if point.step is not None else number
        else:
            period = _PERIODS.get(query["Period"], 1)
            place = int(point.at // period * period)
        groups.setdefault(place, []).append(point)
    places = sorted(groups)[:MAX_VALUES_OF_A_QUERY]
    return {
        "Status": "Complete" if len(places) == len(groups) else "Truncated",
        "XAxisValues": places,
        "MetricValues": [_statistic(query["MetricStat"], groups[place]) for place in places],
    }


async def _job(context: RequestContext, trial_component: str) -> str:
    """The name of the training job behind a trial component, in the job's own case."""
    name = trial_component.removesuffix(TRAINING_SUFFIX)
    query = Query(KIND, context.account, context.region, name_equals=name, descending=True, page_size=1)
    page = await context.backends.store.list(query)
    return page.resources[0].key.name if page.resources else name


def _series(context: RequestContext, job: str, metric: str) -> Series:
    return Series(context.account, context.region, METRIC_NAMESPACE, metric, {METRIC_DIMENSION: job})


def _statistic(name: str, points: Sequence[Point]) -> float:
    totals = [point.total for point in points]
    if name == "Last":
        return totals[-1]
    if name == "Count":
        return sum(point.count for point in points)
    if name == "StdDev":
        mean = sum(totals) / len(totals)
        return math.sqrt(sum((total - mean) ** 2 for total in totals) / len(totals))
    if name == "Avg":
        return sum(totals) / len(totals)
    return min(totals) if name == "Min" else max(totals)
