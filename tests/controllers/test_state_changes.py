"""Changes of state go onto the event bus once each, whatever happens to those who put them there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from clary.compute.scripted import failing_training, succeeding_training, usual_script
from clary.controllers.state_change_feed import StateChangeFeed
from clary.event_bus.event_store import BusEvent
from clary.event_bus.sqlite_events import SqliteEventStore
from clary.protocol.models import ServiceModels
from clary.store.memory import MemoryStore
from clary.testing.control_plane import ACCOUNT, REGION, ControlPlane
from clary.testing.training_requests import training_request

MODELS = ServiceModels()


def run(
    folder: Path, facts: Callable[[ControlPlane, SqliteEventStore], Awaitable[None]], **script: Any
) -> None:
    async def within() -> None:
        plane = ControlPlane(script.get("script", lambda spec: succeeding_training()))
        events = SqliteEventStore(folder / "events.sqlite", plane.clock)
        try:
            await facts(plane, events)
        finally:
            await events.close()

    asyncio.run(within())


def feed(plane: ControlPlane, events: SqliteEventStore) -> StateChangeFeed:
    return StateChangeFeed(plane.store, events, MODELS)


async def told(events: SqliteEventStore) -> list[BusEvent]:
    return list(await events.events(after=0, limit=1000))


def secondary(events: list[BusEvent]) -> list[tuple[str, str]]:
    details = [event.envelope["detail"] for event in events]
    return [(detail["TrainingJobStatus"], detail["SecondaryStatus"]) for detail in details]


COURSE = [
    ("InProgress", "Starting"),
    ("InProgress", "Downloading"),
    ("InProgress", "Training"),
    ("InProgress", "Uploading"),
    ("Completed", "Completed"),
]


def test_a_job_is_told_of_with_every_secondary_status(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        telling = feed(plane, events)
        await telling.catch_up()
        await plane.call(
            "CreateTrainingJob",
            **training_request(Tags=[{"Key": "team", "Value": "red"}], HyperParameters={"a": "1"}),
        )
        for _ in range(60):
            await plane.settle(0.5)
            await telling.catch_up()
        found = await told(events)
        assert secondary(found) == COURSE
        for place, event in enumerate(found):
            envelope = event.envelope
            assert (event.account, event.region, event.bus) == (ACCOUNT, REGION, "default")
            assert envelope["version"] == "0"
            assert envelope["detail-type"] == "SageMaker Training Job State Change"
            assert (envelope["source"], envelope["account"], envelope["region"]) == (
                "aws.sagemaker",
                ACCOUNT,
                REGION,
            )
            arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/job"
            assert envelope["resources"] == [arn]
            detail = envelope["detail"]
            assert (detail["TrainingJobName"], detail["TrainingJobArn"]) == ("job", arn)
            assert (detail["Tags"], detail["HyperParameters"]) == ({"team": "red"}, {"a": "1"})
            assert len(detail["SecondaryStatusTransitions"]) == place + 1
            assert ("TrainingEndTime" in detail) == ("ModelArtifacts" in detail) == (place == len(found) - 1)
            assert detail["CreationTime"] == 1_700_000_000_000
            assert not {"Attempt", "Started", "Freed"} & set(detail)
            json.dumps(envelope, allow_nan=False)
        assert len({event.envelope["id"] for event in found}) == len(found)

    run(tmp_path, facts)


def test_moves_that_came_at_once_are_told_one_by_one(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        telling = feed(plane, events)
        await telling.catch_up()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(30)
        await telling.catch_up()
        found = await told(events)
        assert secondary(found) == COURSE
        starts = [e.envelope["detail"]["SecondaryStatusTransitions"][-1]["StartTime"] for e in found]
        assert starts == sorted(starts)
        assert all(
            "EndTime" not in e.envelope["detail"]["SecondaryStatusTransitions"][-1] for e in found[:-1]
        )

    run(tmp_path, facts)


def test_a_failure_says_why(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        telling = feed(plane, events)
        await telling.catch_up()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(30)
        await telling.catch_up()
        *before, last = [event.envelope["detail"] for event in await told(events)]
        assert (last["TrainingJobStatus"], last["SecondaryStatus"]) == ("Failed", "Failed")
        assert (
            last["FailureReason"]
            == (await plane.call("DescribeTrainingJob", TrainingJobName="job"))["FailureReason"]
        )
        assert all("FailureReason" not in each for each in before)

    run(tmp_path, facts, script=lambda spec: failing_training())


def test_a_crash_at_any_point_neither_loses_nor_repeats_a_change(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        await feed(plane, events).catch_up()
        await plane.call("CreateTrainingJob", **training_request())
        for _ in range(60):
            await plane.settle(0.5)
            await feed(plane, events).catch_up()  # a new one each time: nothing is remembered
        assert secondary(await told(events)) == COURSE

    run(tmp_path, facts)


def test_a_job_deleted_before_its_end_was_told_is_told_of_all_the_same(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        telling = feed(plane, events)
        await telling.catch_up()
        await plane.call("CreateTrainingJob", **training_request(HyperParameters={"a": "1"}))
        await plane.settle(1)
        await telling.catch_up()
        await plane.settle(30)
        await plane.call("DeleteTrainingJob", TrainingJobName="job")
        await plane.call("CreateTrainingJob", **training_request(HyperParameters={"a": "2"}))
        await telling.catch_up()
        found = await told(events)
        assert secondary(found)[: len(COURSE)] == COURSE
        assert [e.envelope["detail"]["HyperParameters"]["a"] for e in found] == ["1"] * 5 + ["2"]

    run(tmp_path, facts)


def test_a_job_nobody_ever_saw_is_told_of_with_what_is_known(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        await feed(plane, events).catch_up()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(30)
        await plane.call("DeleteTrainingJob", TrainingJobName="job")
        await feed(plane, events).catch_up()
        found = await told(events)
        assert secondary(found) == COURSE
        assert found[-1].envelope["detail"]["TrainingJobName"] == "job"

    run(tmp_path, facts)


def test_what_happened_before_there_was_a_bus_is_history(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        await plane.call("CreateTrainingJob", **training_request("old"))
        await plane.settle(30)
        await plane.call("CreateTrainingJob", **training_request("running"))
        await plane.settle(1.0)
        telling = feed(plane, events)
        await telling.catch_up()
        assert await told(events) == []
        await plane.settle(30)
        await telling.catch_up()
        found = await told(events)
        assert {event.envelope["detail"]["TrainingJobName"] for event in found} == {"running"}
        assert secondary(found)[-1] == ("Completed", "Completed")

    run(tmp_path, facts)


def test_a_store_that_begins_anew_is_followed_from_its_beginning(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        telling = feed(plane, events)
        await telling.catch_up()
        await plane.call("CreateTrainingJob", **training_request("first"))
        await plane.settle(30)
        await telling.catch_up()
        other = ControlPlane(clock=plane.clock, store=MemoryStore(plane.clock))
        await other.call("CreateTrainingJob", **training_request("second"))
        await feed(other, events).catch_up()
        assert [e.envelope["detail"]["TrainingJobName"] for e in await told(events)][-1] == "second"

    run(tmp_path, facts)


def test_an_algorithm_is_told_of(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        telling = feed(plane, events)
        await telling.catch_up()
        await plane.call(
            "CreateAlgorithm",
            AlgorithmName="a",
            TrainingSpecification={
                "TrainingImage": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/own:1",
                "SupportedTrainingInstanceTypes": ["ml.m5.large"],
                "TrainingChannels": [
                    {
                        "Name": "train",
                        "SupportedContentTypes": ["text/csv"],
                        "SupportedInputModes": ["File"],
                    }
                ],
            },
        )
        await telling.catch_up()
        (found,) = [event.envelope for event in await told(events)]
        assert found["detail-type"] == "SageMaker Algorithm State Change"
        assert found["resources"] == [f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:algorithm/a"]
        assert (found["detail"]["AlgorithmName"], found["detail"]["AlgorithmStatus"]) == ("a", "Completed")

    run(tmp_path, facts)


def test_an_endpoint_is_told_of_in_capitals(tmp_path: Path) -> None:
    async def facts(plane: ControlPlane, events: SqliteEventStore) -> None:
        telling = feed(plane, events)
        await telling.catch_up()
        image = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"
        await plane.call(
            "CreateModel",
            ModelName="m",
            ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/service",
            PrimaryContainer={"Image": image, "ModelDataUrl": "s3://bucket/model.tar.gz"},
        )
        variant = {
            "VariantName": "v",
            "ModelName": "m",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        await plane.call("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant])
        await plane.call(
            "CreateEndpoint", EndpointName="e", EndpointConfigName="c", Tags=[{"Key": "k", "Value": "v"}]
        )
        await plane.settle(30)
        await telling.catch_up()
        await plane.call("DeleteEndpoint", EndpointName="e")
        await plane.settle(30)
        await telling.catch_up()
        found = [event.envelope for event in await told(events)]
        assert {each["detail-type"] for each in found} == {"SageMaker Endpoint State Change"}
        statuses = [each["detail"]["EndpointStatus"] for each in found]
        assert statuses == ["CREATING", "IN_SERVICE", "DELETING"]
        assert found[0]["resources"] == [f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/e"]
        assert all(each["detail"]["Tags"] == {"k": "v"} for each in found)

    run(tmp_path, facts, script=usual_script)
