"""Instances are counted by type and use; one too many is refused in AWS's words, whoever asks at once."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from clary.faults import InUse, LimitExceeded
from clary.services.sagemaker.quotas import MOST_QUOTAS, parse_quotas
from clary.testing.api_world import ApiWorld
from clary.testing.control_plane import ControlPlane
from clary.testing.hosting_world import HostingWorld
from clary.testing.training_requests import training_request

LARGE = "ml.m5.large for training job usage"


def plane_with(quotas: str) -> ControlPlane:
    plane = ControlPlane()
    plane.backends = dataclasses.replace(plane.backends, quotas=parse_quotas(quotas))
    return plane


def job(name: str, count: int = 1, kind: str = "ml.m5.large", **members: Any) -> dict[str, Any]:
    resources = {"InstanceType": kind, "InstanceCount": count, "VolumeSizeInGB": 1}
    return training_request(name, ResourceConfig=resources, **members)


def test_a_job_over_the_quota_is_refused_in_words_of_aws() -> None:
    async def facts() -> None:
        plane = plane_with(f"{LARGE}=3")
        await plane.call("CreateTrainingJob", **job("two", 2))
        with pytest.raises(LimitExceeded) as refused:
            await plane.call("CreateTrainingJob", **job("more", 2))
        assert refused.value.message.startswith(
            "The account-level service limit 'ml.m5.large for training job usage' is 3 Instances, with "
            "current utilization of 2 Instances and a request delta of 2 Instances. Please use AWS Service "
            "Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact "
            "AWS support to request an increase for this quota."
        )
        await plane.call("CreateTrainingJob", **job("one", 1))
        listed = await plane.call("ListTrainingJobs")
        assert {each["TrainingJobName"] for each in listed["TrainingJobSummaries"]} == {"two", "one"}

    asyncio.run(facts())


def test_a_real_client_sees_the_error_of_its_model(tmp_path: Path) -> None:
    world = ApiWorld(tmp_path)
    world.backends = dataclasses.replace(world.backends, quotas=parse_quotas(f"{LARGE}=0"))
    sagemaker = world.client("sagemaker")
    with pytest.raises(sagemaker.exceptions.ResourceLimitExceeded) as refused:
        sagemaker.create_training_job(**job("job"))
    assert "'ml.m5.large for training job usage' is 0 Instances" in refused.value.response["Error"]["Message"]


def test_other_types_spot_accounts_and_regions_have_quotas_of_their_own() -> None:
    async def facts() -> None:
        plane = plane_with(f"{LARGE}=1, ml.m5.large for spot training job usage=0")
        await plane.call("CreateTrainingJob", **job("first"))
        await plane.call("CreateTrainingJob", **job("xlarge", 50, "ml.m5.xlarge"))
        await plane.call("CreateTrainingJob", **job("elsewhere"), region="eu-west-1")
        await plane.call("CreateTrainingJob", **job("another"), account="111122223333")
        with pytest.raises(LimitExceeded, match=r"ml\.m5\.large for spot training job usage' is 0 Instances"):
            await plane.call(
                "CreateTrainingJob",
                **job(
                    "spot",
                    EnableManagedSpotTraining=True,
                    StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
                ),
            )

    asyncio.run(facts())


def test_every_group_of_a_mixed_cluster_counts() -> None:
    async def facts() -> None:
        plane = plane_with(f"{LARGE}=2")
        groups = [
            {"InstanceGroupName": "a", "InstanceType": "ml.m5.large", "InstanceCount": 2},
            {"InstanceGroupName": "b", "InstanceType": "ml.m5.xlarge", "InstanceCount": 7},
            {"InstanceGroupName": "c", "InstanceType": "ml.m5.large", "InstanceCount": 1},
        ]
        resources = {"InstanceGroups": groups, "VolumeSizeInGB": 1}
        with pytest.raises(LimitExceeded, match="a request delta of 3 Instances"):
            await plane.call("CreateTrainingJob", **training_request("mixed", ResourceConfig=resources))

    asyncio.run(facts())


def test_a_job_that_ended_gives_its_instances_back() -> None:
    async def facts() -> None:
        plane = plane_with(f"{LARGE}=1")
        await plane.call("CreateTrainingJob", **job("first"))
        await plane.call("StopTrainingJob", TrainingJobName="first")
        with pytest.raises(LimitExceeded):
            await plane.call("CreateTrainingJob", **job("second"))
        await plane.settle()
        await plane.call("CreateTrainingJob", **job("second"))

    asyncio.run(facts())


def test_of_many_requests_at_once_no_more_pass_than_there_is_room() -> None:
    async def facts() -> None:
        plane = plane_with(f"{LARGE}=5")
        outcomes = await asyncio.gather(
            *(plane.call("CreateTrainingJob", **job(f"job-{number}")) for number in range(20)),
            return_exceptions=True,
        )
        assert sum(isinstance(each, dict) for each in outcomes) == 5
        assert sum(isinstance(each, LimitExceeded) for each in outcomes) == 15

    asyncio.run(facts())


def test_a_name_that_is_taken_is_refused_as_such_also_when_nothing_is_left() -> None:
    async def facts() -> None:
        plane = plane_with(f"{LARGE}=1")
        await plane.call("CreateTrainingJob", **job("first"))
        with pytest.raises(InUse):
            await plane.call("CreateTrainingJob", **job("first"))

    asyncio.run(facts())


def test_more_than_a_page_of_jobs_is_counted() -> None:
    async def facts() -> None:
        plane = plane_with(f"{LARGE}=230")
        for number in range(230):
            await plane.call("CreateTrainingJob", **job(f"job-{number}"))
        with pytest.raises(LimitExceeded, match="current utilization of 230 Instances"):
            await plane.call("CreateTrainingJob", **job("one-more"))

    asyncio.run(facts())


def test_endpoints_have_quotas_and_need_room_only_for_what_is_added() -> None:
    async def facts() -> None:
        plane = HostingWorld()
        plane.backends = dataclasses.replace(
            plane.backends, quotas=parse_quotas("ml.m5.large for endpoint usage=3")
        )
        await plane.create_model()
        await plane.create_config("small", {"InitialInstanceCount": 2})
        await plane.create_config("big", {"InitialInstanceCount": 4})
        await plane.call("CreateEndpoint", EndpointName="one", EndpointConfigName="small")
        with pytest.raises(LimitExceeded, match=r"ml\.m5\.large for endpoint usage' is 3 Instances"):
            await plane.call("CreateEndpoint", EndpointName="two", EndpointConfigName="small")
        await plane.settle()
        with pytest.raises(LimitExceeded, match="a request delta of 2 Instances"):
            await plane.call("UpdateEndpoint", EndpointName="one", EndpointConfigName="big")

        def capacity(count: int) -> dict[str, Any]:
            wish = {"VariantName": "AllTraffic", "DesiredInstanceCount": count}
            return {"EndpointName": "one", "DesiredWeightsAndCapacities": [wish]}

        with pytest.raises(LimitExceeded, match="a request delta of 2 Instances"):
            await plane.call("UpdateEndpointWeightsAndCapacities", **capacity(4))
        await plane.call("UpdateEndpointWeightsAndCapacities", **capacity(3))
        await plane.settle()
        await plane.call("UpdateEndpointWeightsAndCapacities", **capacity(1))

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ml.m5.large=3", "'ml.m5.large', which is no quota: write 'ml.m5.xlarge for training job usage=4'"),
        ("m5.large for training job usage=3", "which is no quota"),
        (f"{LARGE}=-1", "the limit '-1'; it must be a whole number"),
        (f"{LARGE}", "the limit ''; it must be a whole number"),
        (f"{LARGE}=1,{LARGE}=2", "twice"),
        (
            ", ".join(f"ml.m5.{n}xlarge for endpoint usage=1" for n in range(MOST_QUOTAS + 1)),
            "more than 1000",
        ),
    ],
)
def test_quotas_that_cannot_be_read_are_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="The setting 'quotas' ") as refused:
        parse_quotas(text)
    assert complaint in str(refused.value)


def test_quotas_are_read() -> None:
    assert parse_quotas("") == {}
    assert parse_quotas(f" {LARGE} = 0,\n ml.g5.48xlarge for endpoint usage=2,") == {
        LARGE: 0,
        "ml.g5.48xlarge for endpoint usage": 2,
    }
