"""Models are kept as they were given."""

from __future__ import annotations

import asyncio

import pytest

from clary.faults import Fault, InUse, Invalid, NotFound
from clary.testing.hosting_world import ACCOUNT, IMAGE, HostingWorld

ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service"


def test_every_member_of_a_model_is_kept() -> None:
    async def facts() -> None:
        world = HostingWorld()
        given = {
            "ModelName": "Model-1",
            "ExecutionRoleArn": ROLE,
            "PrimaryContainer": {
                "Image": IMAGE,
                "ContainerHostname": "host",
                "Mode": "MultiModel",
                "ModelDataUrl": "s3://bucket/models/",
                "Environment": {"A": "1"},
                "MultiModelConfig": {"ModelCacheSetting": "Disabled"},
                "ImageConfig": {"RepositoryAccessMode": "Vpc"},
            },
            "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
            "EnableNetworkIsolation": True,
        }
        created = await world.call("CreateModel", **given)
        assert created == {"ModelArn": ARN + "model-1"}
        shown = await world.call("DescribeModel", ModelName="Model-1")
        assert shown.pop("CreationTime").timestamp() == world.clock.now()
        assert shown == {**given, "ModelArn": ARN + "model-1"}

    asyncio.run(facts())


def test_network_isolation_is_always_shown_and_absent_members_never() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.call(
            "CreateModel", ModelName="m", ExecutionRoleArn=ROLE, Containers=[{"Image": IMAGE}] * 2
        )
        shown = await world.call("DescribeModel", ModelName="m")
        assert shown["EnableNetworkIsolation"] is False
        assert "PrimaryContainer" not in shown and "VpcConfig" not in shown

    asyncio.run(facts())


def test_unknown_and_taken_names_are_refused_in_words_of_aws() -> None:
    async def facts() -> None:
        world = HostingWorld()
        for operation in ("DescribeModel", "DeleteModel"):
            with pytest.raises(NotFound) as unknown:
                await world.call(operation, ModelName="none")
            assert unknown.value.code == "ValidationException"
            assert unknown.value.message == f'Could not find model "{ARN}none".'
        await world.create_model("taken")
        with pytest.raises(InUse) as taken:
            await world.create_model("taken")
        assert taken.value.code == "ValidationException"
        assert taken.value.message == f'Cannot create already existing model "{ARN}taken".'
        await world.call("DeleteModel", ModelName="taken")
        await world.create_model("taken")

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            {"PrimaryContainer": {"Image": IMAGE}, "Containers": [{"Image": IMAGE}]},
            "both PrimaryContainer and",
        ),
        ({"PrimaryContainer": {"ModelDataUrl": "s3://b/k"}}, "Image or ModelPackageName"),
        (
            {
                "Containers": [
                    {"Image": IMAGE, "ContainerHostname": "a"},
                    {"Image": IMAGE, "ContainerHostname": "a"},
                ]
            },
            "'a'",
        ),
        ({"ModelName": "under_score"}, "modelName"),
        ({"ExecutionRoleArn": "arn:aws:iam::123:role/me"}, "executionRoleArn"),
    ],
)
def test_what_cannot_be_is_refused_at_once(members: dict[str, object], words: str) -> None:
    async def facts() -> None:
        world = HostingWorld()
        with pytest.raises(Fault) as refused:
            await world.call("CreateModel", **{"ModelName": "m", "ExecutionRoleArn": ROLE, **members})
        assert isinstance(refused.value, Invalid)
        assert words in refused.value.message

    asyncio.run(facts())


def test_models_are_listed_newest_first_in_pages() -> None:
    async def facts() -> None:
        world = HostingWorld()
        for number in range(5):
            await world.create_model(f"model-{number}")
            await world.clock.advance(1)
        first = await world.call("ListModels", MaxResults=2)
        assert [model["ModelName"] for model in first["Models"]] == ["model-4", "model-3"]
        second = await world.call("ListModels", MaxResults=2, NextToken=first["NextToken"])
        assert [model["ModelName"] for model in second["Models"]] == ["model-2", "model-1"]
        found = await world.call("ListModels", NameContains="EL-1", SortBy="Name", SortOrder="Ascending")
        assert [model["ModelArn"] for model in found["Models"]] == [ARN + "model-1"]
        assert "NextToken" not in found

    asyncio.run(facts())
