"""Metrics of training jobs, as agents and scripts send them.

The API names a trial component; that of a training job is the job's name with a suffix. Points go where
CloudWatch's readers look for them: namespace ``/aws/sagemaker/TrainingJobs``, dimension ``TrainingJobName``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.telemetry.metric_store import Point, Series

NAMESPACE = "/aws/sagemaker/TrainingJobs"
DIMENSION = "TrainingJobName"
TRAINING_SUFFIX = "-aws-training-job"
MAX_AHEAD_SECONDS = 2 * 3600
MAX_AGE_SECONDS = 14 * 86_400
_PERIODS = {"OneMinute": 60, "FiveMinute": 300, "OneHour": 3600}


@operation("sagemaker-metrics")
async def batch_put_metrics(context: RequestContext, request: Members) -> ReplyMembers:
    """Each wrong metric is told by its place in the list; the others are kept."""
    job = request["TrialComponentName"].removesuffix(TRAINING_SUFFIX)
    now = context.backends.clock.now()
    points, errors = [], []
    for index, metric in enumerate(request["MetricData"]):
        at, value = metric["Timestamp"], metric["Value"]
        if not math.isfinite(value) or not now - MAX_AGE_SECONDS <= at <= now + MAX_AHEAD_SECONDS:
            errors.append({"Code": "VALIDATION_ERROR", "MetricIndex": index})
            continue
        series = Series(context.account, context.region, NAMESPACE, metric["MetricName"], {DIMENSION: job})
        points.append((series, Point(at, value, step=metric.get("Step"))))
    if points:
        await context.backends.metrics.put(points)
    return {"Errors": errors}


@operation("sagemaker-metrics")
async def batch_get_metrics(context: RequestContext, request: Members) -> ReplyMembers:
    return {"MetricQueryResults": [await _answer(context, query) for query in request["MetricQueries"]]}


async def _answer(context: RequestContext, query: dict[str, Any]) -> dict[str, Any]:
    job = query["ResourceArn"].rpartition("/")[2].removesuffix(TRAINING_SUFFIX)
    series = Series(context.account, context.region, NAMESPACE, query["MetricName"], {DIMENSION: job})
    points = await context.backends.metrics.points(
        series, start=query.get("Start", 0) or 0, end=query.get("End") or math.inf
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
    places = sorted(groups)
    return {
        "Status": "Complete",
        "XAxisValues": places,
        "MetricValues": [_statistic(query["MetricStat"], groups[place]) for place in places],
    }


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
