"""Metric data: put, listed, and read as statistics over periods."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.telemetry.metric_store import Point, Series

MAX_DATAPOINTS = 1440  # GetMetricStatistics
MAX_QUERY_DATAPOINTS = 100_800  # GetMetricData
LIST_PAGE = 500


@operation("cloudwatch")
async def put_metric_data(context: RequestContext, request: Members) -> ReplyMembers:
    namespace = request["Namespace"]
    if namespace.startswith("AWS/"):
        raise Invalid("The value AWS/ for parameter Namespace is invalid.", code="InvalidParameterValue")
    now = context.backends.clock.now()
    points: list[tuple[Series, Point]] = []
    for number, datum in enumerate(request.get("MetricData", []), 1):
        place = f"MetricData.member.{number}"
        series = Series(
            context.account,
            context.region,
            namespace,
            datum["MetricName"],
            _dimensions(datum.get("Dimensions")),
        )
        at, unit = datum.get("Timestamp", now), datum.get("Unit", "None")
        if "StatisticValues" in datum:
            values = datum["StatisticValues"]
            sizes = [values["Sum"], values["SampleCount"], values["Minimum"], values["Maximum"]]
            _finite(sizes, place)
            points.append((series, Point(at, sizes[0], sizes[1], sizes[2], sizes[3], unit)))
        elif "Values" in datum:
            counts = datum.get("Counts") or [1.0] * len(datum["Values"])
            if len(counts) != len(datum["Values"]):
                raise Invalid(
                    f"The parameters {place}.Values and {place}.Counts must be of the same size.",
                    code="InvalidParameterCombination",
                )
            _finite([*datum["Values"], *counts], place)
            points += [
                (series, Point(at, value * count, count, value, value, unit))
                for value, count in zip(datum["Values"], counts, strict=True)
            ]
        elif "Value" in datum:
            _finite([datum["Value"]], place)
            points.append((series, Point(at, datum["Value"], unit=unit)))
        else:
            raise Invalid(
                f"At least one of the parameters {place}.Value, {place}.Values and {place}.StatisticValues "
                "must be specified.",
                code="MissingParameter",
            )
    await context.backends.metrics.put(points)
    return {}


@operation("cloudwatch")
async def list_metrics(context: RequestContext, request: Members) -> ReplyMembers:
    wanted = {item["Name"]: item.get("Value") for item in request.get("Dimensions", [])}
    found = await context.backends.metrics.series(
        context.account,
        context.region,
        namespace=request.get("Namespace"),
        name=request.get("MetricName"),
        dimensions=wanted,
    )
    start = _read_token(request.get("NextToken"))
    page = found[start : start + LIST_PAGE]
    return {
        "Metrics": [
            {
                "Namespace": series.namespace,
                "MetricName": series.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in series.dimensions.items()],
            }
            for series in page
        ],
        "NextToken": _token(start + LIST_PAGE) if start + LIST_PAGE < len(found) else None,
    }


@operation("cloudwatch")
async def get_metric_statistics(context: RequestContext, request: Members) -> ReplyMembers:
    period, start, end = request["Period"], request["StartTime"], request["EndTime"]
    names, percentiles = request.get("Statistics", []), request.get("ExtendedStatistics", [])
    if not names and not percentiles:
        raise Invalid(
            "Must specify either Statistics or ExtendedStatistics", code="InvalidParameterCombination"
        )
    _check_range(start, end, period)
    if (end - start) / period > MAX_DATAPOINTS:
        raise Invalid(
            f"You have requested up to {math.ceil((end - start) / period)} datapoints, which exceeds the "
            f"limit of {MAX_DATAPOINTS}. You may reduce the datapoints requested by increasing Period, or "
            "decreasing the time range.",
            code="InvalidParameterCombination",
        )
    series = Series(
        context.account,
        context.region,
        request["Namespace"],
        request["MetricName"],
        _dimensions(request.get("Dimensions")),
    )
    points = await context.backends.metrics.points(series, start=start, end=end)
    datapoints = []
    for at, group in _by_period(points, start, period, request.get("Unit")):
        datapoint: dict[str, Any] = {"Timestamp": at, "Unit": group[0].unit}
        for name in names:
            datapoint[name] = statistic(name, group)
        if percentiles:
            datapoint["ExtendedStatistics"] = {name: statistic(name, group) for name in percentiles}
        datapoints.append(datapoint)
    return {"Label": request["MetricName"], "Datapoints": datapoints}


@operation("cloudwatch")
async def get_metric_data(context: RequestContext, request: Members) -> ReplyMembers:
    start, end = request["StartTime"], request["EndTime"]
    descending = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
    results = []
    for query in request["MetricDataQueries"]:
        if "MetricStat" not in query:
            raise Invalid(
                f"The query {query['Id']} is an expression, which Clary does not offer yet: ask for its "
                "metrics with MetricStat and compute from them.",
                code="ValidationError",
            )
        if query.get("ReturnData") is False:
            continue
        stat = query["MetricStat"]
        _check_range(start, end, stat["Period"])
        metric = stat["Metric"]
        series = Series(
            context.account,
            context.region,
            metric.get("Namespace", ""),
            metric.get("MetricName", ""),
            _dimensions(metric.get("Dimensions")),
        )
        points = await context.backends.metrics.points(series, start=start, end=end)
        groups = _by_period(points, start, stat["Period"], stat.get("Unit"))[:MAX_QUERY_DATAPOINTS]
        if descending:
            groups.reverse()
        results.append(
            {
                "Id": query["Id"],
                "Label": query.get("Label", series.name),
                "Timestamps": [at for at, _ in groups],
                "Values": [statistic(stat["Stat"], group) for _, group in groups],
                "StatusCode": "Complete",
            }
        )
    return {"MetricDataResults": results, "Messages": []}


def statistic(name: str, points: Sequence[Point]) -> float:
    """One statistic over ``points``. Raises `Invalid` for a name that is none (``p99.9`` is a percentile)."""
    count = sum(point.count for point in points)
    total = sum(point.total for point in points)
    if name == "SampleCount":
        return count
    if name == "Sum":
        return total
    if name == "Average":
        return total / count if count else 0.0
    if name == "Minimum":
        return min(_low(point) for point in points)
    if name == "Maximum":
        return max(_high(point) for point in points)
    if name[:1] == "p":
        try:
            share = float(name[1:]) / 100
        except ValueError:
            share = -1.0
        if 0 <= share <= 1:
            return _percentile(points, share)
    raise Invalid(f"The value {name} for parameter Statistic is invalid.", code="InvalidParameterValue")


def _percentile(points: Sequence[Point], share: float) -> float:
    """The smallest value that ``share`` of the samples do not exceed."""
    samples = sorted((_high(point), point.count) for point in points)
    wanted = share * sum(count for _, count in samples)
    seen = 0.0
    for value, count in samples:
        seen += count
        if seen >= wanted:
            return value
    return samples[-1][0]


def _low(point: Point) -> float:
    return point.total / point.count if point.minimum is None else point.minimum


def _high(point: Point) -> float:
    return point.total / point.count if point.maximum is None else point.maximum


def _by_period(
    points: Sequence[Point], start: float, period: int, unit: str | None
) -> list[tuple[float, list[Point]]]:
    """Points grouped by the period they fall into, counted from ``start`` rounded down to whole periods."""
    origin = start // period * period
    groups: dict[float, list[Point]] = {}
    for point in points:
        if unit is None or point.unit == unit:
            at = origin + (point.at - origin) // period * period
            groups.setdefault(at, []).append(point)
    return sorted(groups.items())


def _dimensions(items: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    return {item["Name"]: item["Value"] for item in items or []}


def _check_range(start: float, end: float, period: int) -> None:
    if start >= end:
        raise Invalid(
            "The parameter StartTime must be less than the parameter EndTime.",
            code="InvalidParameterCombination",
        )
    if period not in (1, 5, 10, 20, 30) and (period < 1 or period % 60):
        raise Invalid(
            f"The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60, not {period}.",
            code="InvalidParameterValue",
        )


def _finite(values: Sequence[float], place: str) -> None:
    for value in values:
        if not math.isfinite(value):
            raise Invalid(
                f"The value {value} for parameter {place} is invalid.", code="InvalidParameterValue"
            )


def _token(position: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([position]).encode()).decode()


def _read_token(token: str | None) -> int:
    if token is None:
        return 0
    try:
        (position,) = json.loads(base64.urlsafe_b64decode(token))
        return int(position)
    except (ValueError, TypeError):
        raise Invalid("The token is not valid.", code="InvalidNextToken") from None
