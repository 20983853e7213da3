"""Metrics of training jobs: put by agents, read as series, found in CloudWatch."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from clary.faults import Fault
from clary.protocol.models import ServiceModels
from clary.resources.resource import Key
from clary.testing.telemetry_world import ACCOUNT, REGION, TelemetryWorld, run_telemetry

MODELS = ServiceModels()
ARN = "arn:aws:sagemaker:us-east-1:123456789012:"
Run = Callable[[Callable[[TelemetryWorld], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda facts: run_telemetry(tmp_path, MODELS, facts)


async def put(world: TelemetryWorld, *data: dict[str, Any], component: str = "job-aws-training-job") -> Any:
    given = [{"MetricName": "loss", "Timestamp": world.clock.now(), **datum} for datum in data]
    reply = await world.call(
        "sagemaker-metrics", "BatchPutMetrics", TrialComponentName=component, MetricData=given
    )
    return reply["Errors"]


async def get(world: TelemetryWorld, **members: Any) -> dict[str, Any]:
    query = {
        "MetricName": "loss",
        "ResourceArn": f"{ARN}training-job/job",
        "MetricStat": "Last",
        "Period": "IterationNumber",
        "XAxisType": "IterationNumber",
        **members,
    }
    reply = await world.call("sagemaker-metrics", "BatchGetMetrics", MetricQueries=[query])
    (result,) = reply["MetricQueryResults"]
    return dict(result)


def test_metrics_go_where_cloudwatch_shows_those_of_the_job(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        assert await put(world, {"Value": 0.5, "Step": 3}) == []
        (metric,) = (await world.call("cloudwatch", "ListMetrics"))["Metrics"]
        assert metric == {
            "Namespace": "/aws/sagemaker/TrainingJobs",
            "MetricName": "loss",
            "Dimensions": [{"Name": "TrainingJobName", "Value": "job"}],
        }
        last = await world.metrics.last(
            ACCOUNT, REGION, "/aws/sagemaker/TrainingJobs", {"TrainingJobName": "job"}
        )
        assert (last["loss"].total, last["loss"].step) == (0.5, 3)

    run(facts)


def test_a_job_keeps_its_case_though_trial_components_have_none(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        key = Key("TrainingJob", ACCOUNT, REGION, "My-Job")
        await world.store.create(key, {}, {}, phase="InProgress", due_at=None)
        await put(world, {"Value": 1.0}, component="my-job-aws-training-job")
        (metric,) = (await world.call("cloudwatch", "ListMetrics"))["Metrics"]
        assert metric["Dimensions"] == [{"Name": "TrainingJobName", "Value": "My-Job"}]
        assert (await get(world, ResourceArn=f"{ARN}training-job/my-job"))["MetricValues"] == [1.0]

    run(facts)


def test_wrong_metrics_are_told_by_their_place_and_the_others_kept(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        now = world.clock.now()
        errors = await put(
            world,
            {"Value": math.nan, "Step": 1},
            {"Value": 1.0, "Step": 2},
            {"Value": -math.inf, "Step": 3},
            {"Value": 1.0, "Timestamp": now - 15 * 86_400, "Step": 4},
            {"Value": 1.0, "Timestamp": now + 3 * 3600, "Step": 5},
            {"Value": 2.0, "Step": 6},
        )
        assert errors == [{"Code": "VALIDATION_ERROR", "MetricIndex": index} for index in (0, 2, 3, 4)]
        assert (await get(world))["XAxisValues"] == [2, 6]
        for wrong in (
            [],
            [{"Value": 1.0}] * 11,
            [{"Value": 1.0, "Step": -1}],
            [{"Value": 1.0, "MetricName": ""}],
        ):
            with pytest.raises(Fault):
                await put(world, *wrong)

    run(facts)


@pytest.mark.parametrize(
    ("stat", "values"),
    [
        ("Last", [4.0, 5.0]),
        ("Min", [2.0, 5.0]),
        ("Max", [6.0, 5.0]),
        ("Avg", [4.0, 5.0]),
        ("Count", [3.0, 1.0]),
        ("StdDev", [math.sqrt(8 / 3), 0.0]),
    ],
)
def test_series_are_read_by_step_in_every_statistic(run: Run, stat: str, values: list[float]) -> None:
    async def facts(world: TelemetryWorld) -> None:
        for step, value in ((7, 2.0), (7, 6.0), (9, 5.0), (7, 4.0)):
            await put(world, {"Value": value, "Step": step})
        result = await get(world, MetricStat=stat)
        assert result == {"Status": "Complete", "XAxisValues": [7, 9], "MetricValues": pytest.approx(values)}

    run(facts)


def test_series_are_read_by_time(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        start = int(world.clock.now()) // 3600 * 3600
        for at in (0, 59, 60, 400):
            await put(world, {"Value": float(at), "Timestamp": start + at})

        async def read(**members: Any) -> list[tuple[int, float]]:
            result = await get(world, XAxisType="Timestamp", MetricStat="Count", **members)
            return [
                (at - start, value)
                for at, value in zip(result["XAxisValues"], result["MetricValues"], strict=True)
            ]

        assert await read(Period="OneMinute") == [(0, 2.0), (60, 1.0), (360, 1.0)]
        assert await read(Period="FiveMinute") == [(0, 3.0), (300, 1.0)]
        assert await read(Period="OneHour") == [(0, 4.0)]
        assert await read(Period="OneHour", Start=start + 60, End=start + 400) == [(0, 1.0)]

    run(facts)


def test_metrics_without_steps_are_counted(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        for value in (3.0, 2.0, 1.0):
            await put(world, {"Value": value})
        result = await get(world)
        assert (result["XAxisValues"], result["MetricValues"]) == ([0, 1, 2], [3.0, 2.0, 1.0])

    run(facts)


def test_what_is_not_there_or_foreign_is_answered_by_status(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        assert await get(world) == {"Status": "Complete", "XAxisValues": [], "MetricValues": []}
        foreign = await get(world, ResourceArn="arn:aws:sagemaker:us-east-1:210987654321:training-job/job")
        assert foreign["Status"] == "ValidationError"
        assert "another account" in foreign["Message"]
        component = await get(world, ResourceArn=f"{ARN}experiment-trial-component/job-aws-training-job")
        assert component["Status"] == "Complete"

    run(facts)
