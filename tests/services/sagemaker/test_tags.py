"""Tags of anything that has an ARN."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clary.faults import Invalid, LimitExceeded, NotFound
from clary.testing.control_plane import ACCOUNT, REGION, ControlPlane
from clary.testing.hosting_world import HostingWorld
from clary.testing.training_requests import training_request

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/job"


def tags(**values: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]


async def of(plane: ControlPlane, arn: str = ARN, **members: Any) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = (await plane.call("ListTags", ResourceArn=arn, **members))["Tags"]
    return listed


def test_tags_are_added_changed_and_removed() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request(Tags=tags(team="a", cost="1")))
        assert await of(plane) == tags(team="a", cost="1")
        reply = await plane.call("AddTags", ResourceArn=ARN, Tags=tags(cost="2", more=""))
        assert reply == {"Tags": tags(team="a", cost="2", more="")}
        await plane.call("DeleteTags", ResourceArn=ARN, TagKeys=["team", "unknown"])
        assert await of(plane) == tags(cost="2", more="")

    asyncio.run(facts())


def test_arns_find_names_whatever_their_case() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request("my-Job", Tags=tags(a="right")))
        for name in ("My-Job-2", "a-my-Job", "my-Jo"):
            await plane.call("CreateTrainingJob", **training_request(name))
        assert await of(plane, ARN.replace("/job", "/my-job")) == tags(a="right")

    asyncio.run(facts())


def test_models_configurations_and_endpoints_have_tags_too() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        for kind, name in (("model", "model"), ("endpoint-config", "config"), ("endpoint", "endpoint")):
            arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name}"
            await world.call("AddTags", ResourceArn=arn, Tags=tags(kind=kind))
            assert await of(world, arn) == tags(kind=kind)
        assert (await world.describe())["EndpointStatus"] == "InService"

    asyncio.run(facts())


def test_tagging_a_job_that_runs_leaves_it_alone() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(5.0)
        await plane.call("AddTags", ResourceArn=ARN, Tags=tags(a="1"))
        await plane.settle()
        shown = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        assert shown["TrainingJobStatus"] == "Completed"
        assert await of(plane) == tags(a="1")

    asyncio.run(facts())


def test_a_resource_has_at_most_fifty_tags() -> None:
    fifty = [{"Key": f"k{number}", "Value": "v"} for number in range(50)]

    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request(Tags=fifty))
        with pytest.raises(LimitExceeded, match="limit of 50"):
            await plane.call("AddTags", ResourceArn=ARN, Tags=tags(one="more"))
        await plane.call("AddTags", ResourceArn=ARN, Tags=tags(k0="new"))  # no more than there were
        listed = await of(plane)
        assert len(listed) == 50 and listed[0] == {"Key": "k0", "Value": "new"}
        await plane.call("DeleteTags", ResourceArn=ARN, TagKeys=["k0"])
        await plane.call("AddTags", ResourceArn=ARN, Tags=tags(one="more"))

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("arn", "fault", "words"),
    [
        (ARN + "-2", NotFound, "Could not find training job"),
        (ARN.replace("training-job", "no-such-kind"), Invalid, "Invalid ARN"),
        (ARN.replace(ACCOUNT, "210987654321"), Invalid, "belongs to another account or region"),
        (ARN.replace(REGION, "eu-west-1"), Invalid, "belongs to another account or region"),
        ("job", Invalid, "at 'resourceArn' failed to satisfy constraint"),
    ],
)
@pytest.mark.parametrize("operation", ["AddTags", "ListTags", "DeleteTags"])
def test_arns_of_nothing_are_refused(operation: str, arn: str, fault: type[Exception], words: str) -> None:
    members: dict[str, Any] = {"AddTags": {"Tags": tags(a="1")}, "DeleteTags": {"TagKeys": ["a"]}}

    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        with pytest.raises(fault, match=words):
            await plane.call(operation, ResourceArn=arn, **members.get(operation, {}))

    asyncio.run(facts())


def test_tags_that_will_not_do_change_nothing() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request(Tags=tags(a="1")))
        for wrong in (tags(b="1") * 2, [{"Key": "AWS:b", "Value": "1"}], [{"Key": "b", "Value": "v" * 257}]):
            with pytest.raises(Invalid):
                await plane.call("AddTags", ResourceArn=ARN, Tags=wrong)
        with pytest.raises(Invalid, match="NextToken"):
            await of(plane, NextToken="foreign")
        assert await of(plane) == tags(a="1")

    asyncio.run(facts())
