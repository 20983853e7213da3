"""Metric data: put, listed, and read as statistics over periods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.cloudwatch.statistics import (
    by_period,
    check_range,
    check_statistic,
    percentile_of,
    rounded_start,
    statistic,
)
from clary.services.operation import RequestContext, operation
from clary.services.page_token import page_token, read_page_token
from clary.telemetry.metric_store import Point, Series

MAX_DATA = 1000  # of PutMetricData, as are the next five
MAX_VALUES = 150
MAX_DIMENSIONS = 30
MAX_AGE_SECONDS = 14 * 86_400.0
MAX_AHEAD_SECONDS = 2 * 3600.0
MAX_MAGNITUDE = 2.0**360
MAX_DATAPOINTS = 1440  # of GetMetricStatistics
MAX_QUERIES = 500  # of GetMetricData, as is the next
MAX_QUERY_DATAPOINTS = 100_800
LIST_PAGE = 500
ACTIVE_SECONDS = 3 * 3600.0  # RecentlyActive's only value is PT3H


@operation("cloudwatch")
async def put_metric_data(context: RequestContext, request: Members) -> ReplyMembers:
    """All data are kept, or, if one of them is wrong, none."""
    namespace = request["Namespace"]
    if namespace.startswith("AWS/"):
        raise Invalid(
            f"The value {namespace} for parameter Namespace is invalid: names that begin with AWS/ are "
            "reserved.",
            code="InvalidParameterValue",
        )
    data = [
        (f"MetricData.member.{number}", datum)
        for number, datum in enumerate(request.get("MetricData", []), 1)
    ]
    for number, entity in enumerate(request.get("EntityMetricData", []), 1):
        data += [
            (f"EntityMetricData.member.{number}.MetricData.member.{inner}", datum)
            for inner, datum in enumerate(entity.get("MetricData", []), 1)
        ]
    if not data:
        raise Invalid("The parameter MetricData is required.", code="MissingParameter")
    if len(data) > MAX_DATA:
        raise Invalid(
            f"The collection MetricData must not have a size greater than {MAX_DATA}.",
            code="InvalidParameterValue",
        )
    now = context.backends.clock.now()
    points: list[tuple[Series, Point]] = []
    for place, datum in data:
        dimensions = _dimensions(datum.get("Dimensions"), place)
        series = Series(context.account, context.region, namespace, datum["MetricName"], dimensions)
        at = datum.get("Timestamp", now)
        if not now - MAX_AGE_SECONDS <= at <= now + MAX_AHEAD_SECONDS:
            when = "within the past two weeks" if at < now else "no more than two hours in the future"
            raise Invalid(
                f"The parameter {place}.Timestamp must specify a time {when}.", code="InvalidParameterValue"
            )
        points += [(series, point) for point in _points(datum, at, place)]
    await context.backends.metrics.put(points)
    return {}


@operation("cloudwatch")
async def list_metrics(context: RequestContext, request: Members) -> ReplyMembers:
    wanted = {item["Name"]: item.get("Value") for item in request.get("Dimensions", [])}
    namespace, name = request.get("Namespace"), request.get("MetricName")
    active = request.get("RecentlyActive")
    question = ["metrics", namespace, name, sorted(wanted.items(), key=str), active]
    start = 0
    if "NextToken" in request:
        place = read_page_token(request["NextToken"], question, int)
        if place is None:
            raise Invalid("The token is invalid. Start again without it.", code="InvalidParameterValue")
        start = int(place[0])
    found = await context.backends.metrics.series(
        context.account,
        context.region,
        namespace=namespace,
        name=name,
        dimensions=wanted,
        active_since=context.backends.clock.now() - ACTIVE_SECONDS if active else None,
    )
    end = start + LIST_PAGE
    return {
        "Metrics": [
            {
                "Namespace": series.namespace,
                "MetricName": series.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in series.dimensions.items()],
            }
            for series in found[start:end]
        ],
        "NextToken": page_token([end], question) if end < len(found) else None,
    }


@operation("cloudwatch")
async def get_metric_statistics(context: RequestContext, request: Members) -> ReplyMembers:
    """A datapoint for each period that has data, and for each unit they came in."""
    period, end, wanted = request["Period"], request["EndTime"], request.get("Unit")
    names, percentiles = request.get("Statistics", []), request.get("ExtendedStatistics", [])
    if bool(names) == bool(percentiles):
        raise Invalid(
            "Must specify either Statistics or ExtendedStatistics, and not both.",
            code="InvalidParameterCombination",
        )
    for name in percentiles:
        if percentile_of(name) is None:
            raise Invalid(
                f"The value {name} for parameter ExtendedStatistics is invalid: Clary offers percentiles "
                "from p0 to p100.",
                code="InvalidParameterValue",
            )
    check_range(request["StartTime"], end, period)
    start = rounded_start(request["StartTime"], period, context.backends.clock.now())
    asked = math.ceil((end - start) / period)
    if asked > MAX_DATAPOINTS:
        raise Invalid(
            f"You have requested up to {asked} datapoints, which exceeds the limit of {MAX_DATAPOINTS}. "
            "You may reduce the datapoints requested by increasing Period, or decreasing the time range.",
            code="InvalidParameterCombination",
        )
    series = _series(context, request)
    points = await context.backends.metrics.points(series, start=start, end=end)
    datapoints = []
    for unit in dict.fromkeys(point.unit for point in points if wanted in (None, point.unit)):
        for at, group in by_period([point for point in points if point.unit == unit], start, period):
            datapoint: dict[str, Any] = {"Timestamp": at, "Unit": unit}
            datapoint.update((name, statistic(name, group)) for name in names)
            told = {name: statistic(name, group) for name in percentiles}
            if percentiles:
                datapoint["ExtendedStatistics"] = {
                    name: value for name, value in told.items() if value is not None
                }
            if names or datapoint["ExtendedStatistics"]:
                datapoints.append(datapoint)
    return {"Label": series.name, "Datapoints": datapoints}


@operation("cloudwatch")
async def get_metric_data(context: RequestContext, request: Members) -> ReplyMembers:
    """Pages count the datapoints of all queries together, in the queries' order."""
    queries, start, end = request["MetricDataQueries"], request["StartTime"], request["EndTime"]
    descending = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
    _check_queries(queries, start, end)
    question = ["data", queries, start, end, descending]
    skip = 0
    if "NextToken" in request:
        place = read_page_token(request["NextToken"], question, int)
        if place is None:
            raise Invalid("The token is invalid. Start again without it.", code="InvalidNextToken")
        skip = int(place[0])
    room = min(request.get("MaxDatapoints", MAX_QUERY_DATAPOINTS), MAX_QUERY_DATAPOINTS)
    until = skip + room
    results: list[dict[str, Any]] = []
    passed = 0  # datapoints of the queries before
    for query in queries:
        if query.get("ReturnData") is False:
            continue
        times, values = await _answer(context, query["MetricStat"], start, end, descending)
        first, last = max(skip - passed, 0), max(until - passed, 0)
        passed += len(times)
        results.append(
            {
                "Id": query["Id"],
                "Label": query.get("Label", query["MetricStat"]["Metric"].get("MetricName")),
                "Timestamps": times[first:last],
                "Values": values[first:last],
                "StatusCode": "PartialData" if last < len(times) else "Complete",
            }
        )
    token = page_token([until], question) if until < passed else None
    return {"MetricDataResults": results, "Messages": [], "NextToken": token}


async def _answer(
    context: RequestContext, stat: Mapping[str, Any], start: float, end: float, descending: bool
) -> tuple[list[float], list[float]]:
    """Times and values of one metric, a period each."""
    period, unit = stat["Period"], stat.get("Unit")
    origin = rounded_start(start, period, context.backends.clock.now()) // period * period
    found = await context.backends.metrics.points(_series(context, stat["Metric"]), start=origin, end=end)
    points = [point for point in found if unit in (None, point.unit)]
    told = [(at, statistic(stat["Stat"], group)) for at, group in by_period(points, origin, period)]
    pairs = [(at, value) for at, value in told if value is not None]
    if descending:
        pairs.reverse()
    return [at for at, _ in pairs], [value for _, value in pairs]


def _check_queries(queries: Sequence[Mapping[str, Any]], start: float, end: float) -> None:
    """Raises `Invalid` for what GetMetricData does not take, and, by name, for what Clary does not offer."""
    if not 1 <= len(queries) <= MAX_QUERIES:
        raise Invalid(
            f"The collection MetricDataQueries must have 1 to {MAX_QUERIES} members, not {len(queries)}.",
            code="ValidationError",
        )
    ids = [query["Id"] for query in queries]
    twice = next((each for each in ids if ids.count(each) > 1), None)
    if twice is not None:
        raise Invalid(f"The values for parameter id in MetricDataQueries must be unique: {twice}.")
    for query in queries:
        if ("MetricStat" in query) == ("Expression" in query):
            raise Invalid(
                f"The query {query['Id']} must have either MetricStat or Expression.", code="ValidationError"
            )
        if "Expression" in query:
            raise Invalid(
                f"The query {query['Id']} is an Expression, which Clary does not offer yet: ask for its "
                "metrics with MetricStat and compute from them.",
                code="ValidationError",
            )
        check_range(start, end, query["MetricStat"]["Period"])
        check_statistic(query["MetricStat"]["Stat"])


def _points(datum: Mapping[str, Any], at: float, place: str) -> Iterator[Point]:
    """The points of one datum: a value, values with their counts, or a statistic set. Raises `Invalid`."""
    unit = datum.get("Unit", "None")
    given = [name for name in ("Value", "Values", "StatisticValues") if name in datum]
    if not given:
        raise Invalid(
            f"At least one of the parameters {place}.Value, {place}.Values and {place}.StatisticValues "
            "must be specified.",
            code="MissingParameter",
        )
    if len(given) > 1:
        raise Invalid(
            f"The parameters {place}.{given[0]} and {place}.{given[1]} are mutually exclusive and you have "
            "specified both.",
            code="InvalidParameterCombination",
        )
    if "Value" in datum:
        yield Point(at, _number(datum["Value"], f"{place}.Value"), unit=unit)
    elif "Values" in datum:
        values = datum["Values"]
        counts = datum.get("Counts") or [1.0] * len(values)
        if len(counts) != len(values):
            raise Invalid(
                f"The parameters {place}.Values and {place}.Counts must be of the same size.",
                code="InvalidParameterCombination",
            )
        if not 1 <= len(values) <= MAX_VALUES:
            raise Invalid(
                f"The collection {place}.Values must have 1 to {MAX_VALUES} members, not {len(values)}.",
                code="InvalidParameterValue",
            )
        for value, count in zip(values, counts, strict=True):
            _number(value, f"{place}.Values")
            if _number(count, f"{place}.Counts") <= 0:
                raise Invalid(
                    f"The value {count} for parameter {place}.Counts is invalid: it must be above 0.",
                    code="InvalidParameterValue",
                )
            yield Point(at, value * count, count, value, value, unit)
    else:
        where = f"{place}.StatisticValues"
        count, total, low, high = (
            _number(datum["StatisticValues"][name], f"{where}.{name}")
            for name in ("SampleCount", "Sum", "Minimum", "Maximum")
        )
        if count <= 0 or low > high:
            raise Invalid(
                f"The parameter {where} is invalid: SampleCount must be above 0 and Minimum at most Maximum.",
                code="InvalidParameterCombination",
            )
        yield Point(at, total, count, low, high, unit)


def _number(value: float, place: str) -> float:
    if not abs(value) <= MAX_MAGNITUDE:  # nor is NaN
        raise Invalid(f"The value {value} for parameter {place} is invalid.", code="InvalidParameterValue")
    return value


def _series(context: RequestContext, metric: Mapping[str, Any]) -> Series:
    return Series(
        context.account,
        context.region,
        metric.get("Namespace", ""),
        metric.get("MetricName", ""),
        _dimensions(metric.get("Dimensions"), "Dimensions"),
    )


def _dimensions(items: Sequence[Mapping[str, str]] | None, place: str) -> dict[str, str]:
    """Dimensions by name. Raises `Invalid` for too many, or for one given twice."""
    dimensions = {item["Name"]: item["Value"] for item in items or []}
    if len(items or []) > MAX_DIMENSIONS:
        raise Invalid(
            f"The collection {place}.Dimensions must not have a size greater than {MAX_DIMENSIONS}.",
            code="InvalidParameterValue",
        )
    if len(dimensions) < len(items or []):
        raise Invalid(
            f"The parameter {place}.Dimensions has a name more than once.",
            code="InvalidParameterCombination",
        )
    return dimensions
