"""What callers are told of endpoints, and what they may ask of them."""

from __future__ import annotations

import asyncio

import pytest

from clary.compute.scripted import failing_serving
from clary.faults import Conflict, InUse, Invalid, NotFound
from clary.testing.hosting_world import ACCOUNT, IMAGE, HostingWorld

ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/endpoint"


def test_an_endpoint_shows_what_it_runs() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint({"InitialInstanceCount": 2, "InitialVariantWeight": 3.0})
        shown = await world.describe()
        started = shown["ProductionVariants"][0]["DeployedImages"][0].pop("ResolutionTime")
        assert started.timestamp() <= world.clock.now()
        assert shown["ProductionVariants"] == [
            {
                "VariantName": "AllTraffic",
                "DeployedImages": [{"SpecifiedImage": IMAGE, "ResolvedImage": IMAGE}],
                "CurrentWeight": 3.0,
                "DesiredWeight": 3.0,
                "CurrentInstanceCount": 2,
                "DesiredInstanceCount": 2,
            }
        ]
        assert (shown["EndpointStatus"], shown["EndpointArn"]) == ("InService", ARN)
        assert shown["EndpointConfigName"] == "config"
        absent = {"DataCaptureConfig", "FailureReason", "AsyncInferenceConfig", "PendingDeploymentSummary"}
        assert not absent & set(shown)

    asyncio.run(facts())


def test_unknown_names_are_refused_in_words_of_aws() -> None:
    async def facts() -> None:
        world = HostingWorld()
        for operation in ("DescribeEndpoint", "DeleteEndpoint"):
            with pytest.raises(NotFound) as unknown:
                await world.call(operation, EndpointName="endpoint")
            assert unknown.value.message == f'Could not find endpoint "{ARN}".'
            assert unknown.value.code == "ValidationException"
        with pytest.raises(NotFound) as missing:
            await world.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="none")
        assert 'Could not find endpoint configuration "arn:' in missing.value.message
        await world.create_endpoint()
        with pytest.raises(InUse) as taken:
            await world.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        assert taken.value.message == f'Cannot create already existing endpoint "{ARN}".'

    asyncio.run(facts())


def test_an_endpoint_in_progress_cannot_be_updated() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_model()
        await world.create_config("config")
        await world.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        for _ in range(2):
            with pytest.raises(Conflict) as busy:
                await world.call("UpdateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
            assert busy.value.message == f'Cannot update in-progress endpoint "{ARN}".'
            assert busy.value.code == "ValidationException"
            await world.settle()
            await world.call("UpdateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
            assert (await world.describe())["EndpointStatus"] == "Updating"

    asyncio.run(facts())


def test_a_failed_endpoint_can_only_be_deleted() -> None:
    async def facts() -> None:
        world = HostingWorld()
        world.scripts["AllTraffic"] = failing_serving()
        await world.create_endpoint()
        assert (await world.describe())["EndpointStatus"] == "Failed"
        with pytest.raises(Conflict) as refused:
            await world.call("UpdateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        assert "in status Failed" in refused.value.message
        await world.call("DeleteEndpoint", EndpointName="endpoint")
        assert (await world.describe())["EndpointStatus"] == "Deleting"
        await world.settle()
        with pytest.raises(NotFound):
            await world.describe()

    asyncio.run(facts())


def test_weights_of_unknown_variants_are_refused_by_name() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint({"VariantName": "model1-traffic"})
        with pytest.raises(Invalid) as refused:
            await world.call(
                "UpdateEndpointWeightsAndCapacities",
                EndpointName="endpoint",
                DesiredWeightsAndCapacities=[{"VariantName": "model1", "DesiredWeight": 1.0}],
            )
        assert refused.value.message == (
            'The variant name(s) "model1" is/are not present within endpoint configuration "config".'
        )
        with pytest.raises(Invalid, match="at least 1, not 0"):
            await world.call(
                "UpdateEndpointWeightsAndCapacities",
                EndpointName="endpoint",
                DesiredWeightsAndCapacities=[{"VariantName": "model1-traffic", "DesiredInstanceCount": 0}],
            )

    asyncio.run(facts())


def test_endpoints_are_listed_by_status() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        listed = await world.call("ListEndpoints", StatusEquals="InService")
        assert [each["EndpointName"] for each in listed["Endpoints"]] == ["endpoint"]
        assert (await world.call("ListEndpoints", StatusEquals="Failed"))["Endpoints"] == []
        assert await world.call("ListMonitoringSchedules", EndpointName="endpoint") == {
            "MonitoringScheduleSummaries": []
        }

    asyncio.run(facts())
