"""Metric data: what is kept, how it is read back, what is refused."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from clary.faults import Fault, Invalid
from clary.protocol.models import ServiceModels
from clary.testing.telemetry_world import TelemetryWorld, run_telemetry

MODELS = ServiceModels()
START = 1_700_000_000 - 1_700_000_000 % 3600  # of an hour, before the clock's now
Run = Callable[[Callable[[TelemetryWorld], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda facts: run_telemetry(tmp_path, MODELS, facts)


async def put(world: TelemetryWorld, *data: dict[str, Any], namespace: str = "N") -> None:
    named = [{"MetricName": "m", **datum} for datum in data]
    await world.call("cloudwatch", "PutMetricData", Namespace=namespace, MetricData=named)


async def statistics(world: TelemetryWorld, **members: Any) -> list[dict[str, Any]]:
    """Datapoints, with epoch seconds for their times."""
    given = {"Namespace": "N", "MetricName": "m", "StartTime": START, "EndTime": START + 3600, "Period": 60}
    given |= members
    if "ExtendedStatistics" not in given:
        given.setdefault("Statistics", ["Sum"])
    reply = await world.call("cloudwatch", "GetMetricStatistics", **given)
    assert reply["Label"] == given["MetricName"]
    return [{**point, "Timestamp": seconds(point["Timestamp"])} for point in reply["Datapoints"]]


async def data(
    world: TelemetryWorld, *queries: dict[str, Any], **members: Any
) -> tuple[dict[str, tuple[list[float], list[float], str]], str | None]:
    """Times, values and status by the queries' ids; and the token."""
    given = {"StartTime": START, "EndTime": START + 3600, "ScanBy": "TimestampAscending", **members}
    reply = await world.call("cloudwatch", "GetMetricData", MetricDataQueries=list(queries), **given)
    results = {
        result["Id"]: ([seconds(at) for at in result["Timestamps"]], result["Values"], result["StatusCode"])
        for result in reply["MetricDataResults"]
    }
    return results, reply.get("NextToken")


def query(id: str = "q", stat: str = "Sum", name: str = "m", **more: Any) -> dict[str, Any]:
    return {
        "Id": id,
        "MetricStat": {"Metric": {"Namespace": "N", "MetricName": name}, "Period": 60, "Stat": stat, **more},
    }


def seconds(time: datetime) -> float:
    return time.timestamp()


ALL = ["SampleCount", "Sum", "Average", "Minimum", "Maximum"]


def test_values_statistic_sets_and_counted_values_add_up(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await put(world, {"Value": 7.0, "Timestamp": START + 1, "Unit": "Count"})
        await put(
            world, {"Values": [1.0, 2.0], "Counts": [3.0, 2.0], "Timestamp": START + 2, "Unit": "Count"}
        )
        await put(world, {"Values": [4.0, 6.0], "Timestamp": START + 3, "Unit": "Count"})
        sets = {"SampleCount": 4.0, "Sum": 2.0, "Minimum": -5.0, "Maximum": 9.0}
        await put(world, {"StatisticValues": sets, "Timestamp": START + 59.9, "Unit": "Count"})
        (point,) = await statistics(world, Statistics=ALL)
        assert point == {
            "Timestamp": START,
            "Unit": "Count",
            "SampleCount": 1 + 5 + 2 + 4,
            "Sum": 7 + 7 + 10 + 2,
            "Average": 26 / 12,
            "Minimum": -5.0,
            "Maximum": 9.0,
        }

    run(facts)


def test_datapoints_are_of_whole_periods_from_the_rounded_start(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        for at in (0, 59, 60, 299, 300, 3599, 3600):
            await put(world, {"Value": 1.0, "Timestamp": START + at})

        async def sums(**members: Any) -> list[tuple[float, float]]:
            points = await statistics(world, **members)
            return [(point["Timestamp"] - START, point["Sum"]) for point in points]

        assert await sums(Period=300) == [(0, 4.0), (300, 1.0), (3300, 1.0)]
        assert await sums(Period=3600) == [(0, 6.0)]
        # 90 s is rounded down to a minute, and periods go on from there.
        assert await sums(Period=300, StartTime=START + 90) == [(60, 3.0), (3360, 1.0)]
        assert await sums(StartTime=START + 59.5, EndTime=START + 60) == [(0, 2.0)]
        assert await sums(Period=30, EndTime=START + 60) == [(0, 1.0), (30, 1.0)]

    run(facts)


def test_each_unit_has_datapoints_of_its_own(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await put(
            world, {"Value": 1.0, "Timestamp": START, "Unit": "Seconds"}, {"Value": 2.0, "Timestamp": START}
        )
        points = await statistics(world)
        assert {(point["Unit"], point["Sum"]) for point in points} == {("Seconds", 1.0), ("None", 2.0)}
        assert [point["Sum"] for point in await statistics(world, Unit="Seconds")] == [1.0]
        assert await statistics(world, Unit="Bytes") == []

    run(facts)


def test_dimensions_are_part_of_the_metric(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        one, two = {"Name": "A", "Value": "1"}, {"Name": "B", "Value": "2"}
        await put(world, {"Value": 1.0, "Timestamp": START, "Dimensions": [one, two]})
        await put(world, {"Value": 2.0, "Timestamp": START, "Dimensions": [one]})
        assert [point["Sum"] for point in await statistics(world, Dimensions=[two, one])] == [1.0]
        assert [point["Sum"] for point in await statistics(world, Dimensions=[one])] == [2.0]
        assert await statistics(world) == []
        assert await statistics(world, Namespace="Other", Dimensions=[one]) == []

    run(facts)


def test_percentiles_weigh_counts_and_need_samples(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await put(world, {"Values": [1.0, 2.0, 3.0, 4.0], "Counts": [1.0, 1.0, 1.0, 1.0], "Timestamp": START})
        await put(world, {"Values": [10.0, 20.0], "Counts": [99.0, 1.0], "Timestamp": START + 60})
        whole = {"SampleCount": 5.0, "Sum": 9.0, "Minimum": 1.0, "Maximum": 3.0}
        await put(world, {"StatisticValues": whole, "Timestamp": START + 120})
        wanted = ["p0", "p50", "p99", "p99.5", "p100"]
        few, many = await statistics(world, ExtendedStatistics=wanted)
        assert few["ExtendedStatistics"] == {
            "p0": 1.0,
            "p50": 2.5,
            "p99": pytest.approx(3.97),
            "p99.5": pytest.approx(3.985),
            "p100": 4.0,
        }
        assert many["ExtendedStatistics"] == {
            "p0": 10.0,
            "p50": 10.0,
            "p99": pytest.approx(10.1),
            "p99.5": pytest.approx(15.05),
            "p100": 20.0,
        }
        assert (many["Timestamp"], set(many)) == (START + 60, {"Timestamp", "Unit", "ExtendedStatistics"})
        results, _ = await data(world, query(stat="p50"))
        assert results["q"] == ([START, START + 60], [2.5, 10.0], "Complete")

    run(facts)


@pytest.mark.parametrize(
    ("datum", "words"),
    [
        ({"Value": math.nan}, r"The value nan for parameter MetricData\.member\.2\.Value is invalid"),
        ({"Value": math.inf}, "inf"),
        ({"Values": [1.0, -math.inf]}, "-inf"),
        ({"Value": 2.0**361}, "is invalid"),
        ({"Values": [1.0], "Counts": [math.nan]}, r"member\.2\.Counts"),
        ({"Values": [1.0], "Counts": [0.0]}, "above 0"),
        ({"Values": [1.0], "Counts": [1.0, 2.0]}, "must be of the same size"),
        ({"Values": []}, "1 to 150"),
        ({"Values": [1.0] * 151}, "1 to 150"),
        ({"Value": 1.0, "Values": [1.0]}, "mutually exclusive"),
        ({}, "At least one of the parameters"),
        (
            {"StatisticValues": {"SampleCount": 0.0, "Sum": 0.0, "Minimum": 0.0, "Maximum": 0.0}},
            "SampleCount",
        ),
        ({"StatisticValues": {"SampleCount": 1.0, "Sum": 0.0, "Minimum": 2.0, "Maximum": 1.0}}, "Minimum"),
        ({"Value": 1.0, "Timestamp": 1_700_000_000 - 15 * 86_400}, "within the past two weeks"),
        ({"Value": 1.0, "Timestamp": 1_700_000_000 + 3 * 3600}, "two hours in the future"),
        ({"Value": 1.0, "Dimensions": [{"Name": "A", "Value": "1"}] * 2}, "more than once"),
        ({"Value": 1.0, "Dimensions": [{"Name": str(n), "Value": "1"} for n in range(31)]}, "30"),
        ({"Value": 1.0, "Unit": "Parsecs"}, "enum"),
        ({"Value": 1.0, "MetricName": ""}, "length"),
    ],
)
def test_data_that_are_wrong_are_refused_with_all_beside_them(
    run: Run, datum: dict[str, Any], words: str
) -> None:
    async def facts(world: TelemetryWorld) -> None:
        with pytest.raises(Fault, match=words):
            await put(world, {"Value": 1.0}, datum)
        assert (await world.call("cloudwatch", "ListMetrics"))["Metrics"] == []

    run(facts)


def test_requests_to_put_that_are_wrong_are_refused(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        with pytest.raises(Invalid, match="AWS/"):
            await put(world, {"Value": 1.0}, namespace="AWS/SageMaker")
        with pytest.raises(Invalid, match="size greater than 1000"):
            await put(world, *[{"Value": 1.0}] * 1001)
        with pytest.raises(Invalid, match="MetricData is required"):
            await put(world)

    run(facts)


def test_metrics_are_listed_by_what_they_are_in_pages(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        for number in range(3):
            await put(
                world,
                *(
                    {
                        "Value": 1.0,
                        "MetricName": f"m{n:04}",
                        "Dimensions": [{"Name": "D", "Value": str(n % 2)}],
                    }
                    for n in range(number * 400, number * 400 + 400)
                ),
            )
        await put(world, {"Value": 1.0, "MetricName": "x"}, namespace="/aws/x")

        async def names(**members: Any) -> list[str]:
            found: list[str] = []
            token: dict[str, str] = {}
            while True:
                reply = await world.call("cloudwatch", "ListMetrics", **members, **token)
                assert len(reply["Metrics"]) <= 500
                found += [metric["MetricName"] for metric in reply["Metrics"]]
                if "NextToken" not in reply:
                    return found
                token = {"NextToken": reply["NextToken"]}

        everything = [f"m{n:04}" for n in range(1200)]
        assert await names(Namespace="N") == everything
        assert await names() == ["x", *everything]
        assert await names(Dimensions=[{"Name": "D"}]) == everything
        assert await names(Dimensions=[{"Name": "D", "Value": "1"}]) == everything[1::2]
        assert await names(MetricName="m0007") == ["m0007"]
        await world.clock.advance(4 * 3600)
        await put(world, {"Value": 1.0, "MetricName": "fresh"})
        assert await names(RecentlyActive="PT3H") == ["fresh"]
        reply = await world.call("cloudwatch", "ListMetrics", MetricName="fresh")
        assert reply["Metrics"] == [{"Namespace": "N", "MetricName": "fresh", "Dimensions": []}]
        token = (await world.call("cloudwatch", "ListMetrics"))["NextToken"]
        for wrong in ({"NextToken": "x"}, {"NextToken": token, "Namespace": "N"}):
            with pytest.raises(Invalid, match="token is invalid"):
                await names(**wrong)

    run(facts)


def test_several_queries_are_answered_at_once(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        for at in (30, 90, 100):
            await put(world, {"Value": float(at), "Timestamp": START + at})
        hidden = {**query("hidden"), "ReturnData": False}
        labelled = {**query("b", "Maximum"), "Label": "highest"}
        results, token = await data(world, query("a"), hidden, labelled, query("none", name="other"))
        assert results == {
            "a": ([START, START + 60], [30.0, 190.0], "Complete"),
            "b": ([START, START + 60], [30.0, 100.0], "Complete"),
            "none": ([], [], "Complete"),
        }
        assert token is None
        results, _ = await data(world, query("a"), ScanBy="TimestampDescending")
        assert results["a"][0] == [START + 60, START]
        results, _ = await data(world, query("a", Period=300), StartTime=START + 70)
        assert results["a"][:2] == ([START], [220.0])  # periods begin at whole multiples

    run(facts)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_of_data_hold_each_datapoint_once(run: Run, size: int) -> None:
    async def facts(world: TelemetryWorld) -> None:
        for name, count in (("m", 4), ("other", 3)):
            for n in range(count):
                await put(world, {"MetricName": name, "Value": float(n), "Timestamp": START + 60 * n})
        queries = [query("a"), query("b", name="other")]
        values: dict[str, list[float]] = {"a": [], "b": []}
        token: dict[str, str] = {}
        while True:
            results, following = await data(world, *queries, MaxDatapoints=size, **token)
            assert sum(len(result[1]) for result in results.values()) <= size
            for id, result in results.items():
                values[id] += result[1]
            if following is None:
                assert all(result[2] == "Complete" for result in results.values())
                break
            assert "PartialData" in [result[2] for result in results.values()]
            token = {"NextToken": following}
        assert values == {"a": [0.0, 1.0, 2.0, 3.0], "b": [0.0, 1.0, 2.0]}

    run(facts)


def test_reads_that_are_wrong_are_refused(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        for members, words in (
            ({"EndTime": START}, "must not equal"),
            ({"EndTime": START - 1}, "must be less than"),
            ({"Period": 7}, "multiple of 60, not 7"),
            ({"Period": 1}, r"You have requested up to 3600 datapoints, which exceeds the limit of 1440\."),
            ({"Statistics": ["Sum"], "ExtendedStatistics": ["p50"]}, "not both"),
            ({"ExtendedStatistics": ["p101"]}, "p101"),
            ({"ExtendedStatistics": ["tm90"]}, "tm90"),
            ({"Statistics": ["Median"]}, "enum"),
        ):
            with pytest.raises(Fault, match=words):
                await statistics(world, **members)
        with pytest.raises(Invalid, match="Statistics or ExtendedStatistics"):
            await world.call(
                "cloudwatch",
                "GetMetricStatistics",
                Namespace="N",
                MetricName="m",
                StartTime=START,
                EndTime=START + 60,
                Period=60,
            )
        expression = {"Id": "sum", "Expression": "a + b"}
        for queries, words in (
            ([expression, query("a")], "The query sum is an Expression, which Clary does not offer"),
            ([{"Id": "empty"}], "either MetricStat or Expression"),
            ([query("a"), query("a")], "unique: a"),
            ([query(stat="Mode")], "The value Mode"),
            ([query(Period=61)], "not 61"),
            ([], "1 to 500"),
            ([query(f"q{n}") for n in range(501)], "1 to 500"),
        ):
            with pytest.raises(Invalid, match=words):
                await data(world, *queries)
        with pytest.raises(Invalid, match="token is invalid"):
            await data(world, query(), NextToken="x")

    run(facts)


def test_accounts_do_not_see_each_other(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await put(world, {"Value": 1.0, "Timestamp": START})
        other = {"account": "210987654321"}
        assert (await world.call("cloudwatch", "ListMetrics", **other))["Metrics"] == []
        results, _ = await data(world, query(), **other)
        assert results["q"][1] == []

    run(facts)
