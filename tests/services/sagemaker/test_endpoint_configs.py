"""Endpoint configurations are kept as they were given."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clary.faults import InUse, Invalid, NotFound
from clary.testing.hosting_world import ACCOUNT, HostingWorld

ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint-config/"


def test_every_member_of_a_configuration_is_kept() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_model()
        given: dict[str, Any] = {
            "EndpointConfigName": "Config-1",
            "ProductionVariants": [
                {
                    "VariantName": "AllTraffic",
                    "ModelName": "model",
                    "InstanceType": "ml.c5.xlarge",
                    "InitialInstanceCount": 2,
                    "InitialVariantWeight": 0.5,
                    "ContainerStartupHealthCheckTimeoutInSeconds": 100,
                    "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
                }
            ],
            "DataCaptureConfig": {
                "EnableCapture": False,
                "InitialSamplingPercentage": 10,
                "DestinationS3Uri": "s3://bucket/capture",
                "CaptureOptions": [{"CaptureMode": "Input"}],
            },
            "KmsKeyId": "key",
        }
        created = await world.call("CreateEndpointConfig", **given)
        assert created == {"EndpointConfigArn": ARN + "config-1"}
        shown = await world.call("DescribeEndpointConfig", EndpointConfigName="Config-1")
        del shown["CreationTime"]
        assert shown == {**given, "EndpointConfigArn": ARN + "config-1", "EnableNetworkIsolation": False}

    asyncio.run(facts())


def test_an_unknown_model_is_refused_by_its_arn() -> None:
    async def facts() -> None:
        world = HostingWorld()
        with pytest.raises(NotFound) as refused:
            await world.create_config("config", {"ModelName": "Missing"})
        assert refused.value.code == "ValidationException"
        arn = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/missing"
        assert refused.value.message == f'Could not find model "{arn}".'

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ([{}, {}], "'AllTraffic' is given 2 times"),
        (
            [{"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 2}}],
            "exactly one of InstanceType",
        ),
        ([{"InitialVariantWeight": 0.0}], "greater than 0"),
        ([{"InstanceType": "ml.unheard.of"}], "enum value set"),
    ],
)
def test_what_cannot_be_is_refused_at_once(variants: list[dict[str, Any]], words: str) -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_model()
        with pytest.raises(Invalid) as refused:
            await world.create_config("config", *variants)
        assert words in refused.value.message

    asyncio.run(facts())


def test_names_are_taken_listed_and_freed() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_model()
        await world.create_config("one")
        with pytest.raises(InUse) as taken:
            await world.create_config("one")
        expected = f'Cannot create already existing endpoint configuration "{ARN}one".'
        assert (taken.value.message, taken.value.code) == (expected, "ValidationException")
        await world.clock.advance(1)
        await world.create_config("two")
        listed = await world.call("ListEndpointConfigs", SortBy="CreationTime")
        assert [each["EndpointConfigName"] for each in listed["EndpointConfigs"]] == ["two", "one"]
        await world.call("DeleteEndpointConfig", EndpointConfigName="one")
        with pytest.raises(NotFound) as gone:
            await world.call("DescribeEndpointConfig", EndpointConfigName="one")
        assert gone.value.message == f'Could not find endpoint configuration "{ARN}one".'

    asyncio.run(facts())
