"""Listings go through everything once, whatever happens between their pages."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from clary.faults import Invalid
from clary.testing.control_plane import ControlPlane
from clary.testing.hosting_world import HostingWorld
from clary.testing.training_requests import training_request


async def pages(plane: ControlPlane, operation: str, **members: Any) -> list[list[str]]:
    """The names on each page."""
    found: list[list[str]] = []
    token: dict[str, str] = {}
    while True:
        page = await plane.call(operation, **members, **token)
        summaries = next(value for value in page.values() if isinstance(value, list))
        found.append([next(v for k, v in each.items() if k.endswith("Name")) for each in summaries])
        if "NextToken" not in page:
            return found
        token = {"NextToken": page["NextToken"]}


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("order", ["Ascending", "Descending"])
@pytest.mark.parametrize("column", ["Name", "CreationTime", "Status"])
def test_pages_together_are_the_whole_in_order(column: str, order: str, size: int) -> None:
    async def facts() -> None:
        plane = ControlPlane()
        names = [f"job-{number:02}" for number in range(15)]
        for name in random.Random(1).sample(names, len(names)):
            await plane.call("CreateTrainingJob", **training_request(name))
            if name in names[::4]:  # several in the same moment, too
                await plane.settle(2.0)
        members = {"SortBy": column, "SortOrder": order}
        whole = (await pages(plane, "ListTrainingJobs", MaxResults=100, **members))[0]
        assert sorted(whole) == names
        found = await pages(plane, "ListTrainingJobs", MaxResults=size, **members)
        assert [name for page in found for name in page] == whole
        assert {len(page) for page in found[:-1]} <= {size}

    asyncio.run(facts())


def test_a_page_has_ten_entries_unless_said_otherwise() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        for number in range(12):
            await plane.call("CreateTrainingJob", **training_request(f"job-{number}"))
        assert [len(page) for page in await pages(plane, "ListTrainingJobs")] == [10, 2]

    asyncio.run(facts())


def test_what_is_created_and_deleted_between_pages_neither_hides_nor_repeats_others() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        for number in range(6):
            await plane.call("CreateTrainingJob", **training_request(f"job-{number}"))
        await plane.settle()
        first = await plane.call("ListTrainingJobs", SortBy="Name", MaxResults=3)
        await plane.call("DeleteTrainingJob", TrainingJobName="job-1")
        await plane.call("DeleteTrainingJob", TrainingJobName="job-2")
        await plane.call("CreateTrainingJob", **training_request("job-0a"))
        second = await plane.call(
            "ListTrainingJobs", SortBy="Name", MaxResults=3, NextToken=first["NextToken"]
        )
        names = [each["TrainingJobName"] for each in second["TrainingJobSummaries"]]
        assert names == ["job-3", "job-4", "job-5"]

    asyncio.run(facts())


def test_a_token_belongs_to_its_request() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        for number in range(3):
            await plane.call("CreateTrainingJob", **training_request(f"job-{number}"))
        token = (await plane.call("ListTrainingJobs", MaxResults=1))["NextToken"]
        await plane.call("ListTrainingJobs", MaxResults=2, NextToken=token)  # the size may change
        for members in ({"SortOrder": "Descending"}, {"NameContains": "job"}, {"StatusEquals": "Failed"}):
            with pytest.raises(Invalid, match="NextToken"):
                await plane.call("ListTrainingJobs", NextToken=token, **members)
        with pytest.raises(Invalid, match="NextToken"):
            await plane.call("ListTrainingJobs", region="eu-west-1", NextToken=token)

    asyncio.run(facts())


def test_page_sizes_out_of_range_are_refused() -> None:
    async def facts() -> None:
        for size in (0, 101):
            with pytest.raises(Invalid, match="maxResults"):
                await ControlPlane().call("ListTrainingJobs", MaxResults=size)

    asyncio.run(facts())


def test_accounts_and_regions_do_not_see_one_another() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request("here"))
        await plane.call("CreateTrainingJob", account="210987654321", **training_request("other-account"))
        await plane.call("CreateTrainingJob", region="eu-west-1", **training_request("other-region"))
        assert await pages(plane, "ListTrainingJobs") == [["here"]]

    asyncio.run(facts())


def test_models_and_endpoint_configurations_come_newest_first() -> None:
    async def facts() -> None:
        world = HostingWorld()
        for name in ("model", "b", "c"):
            await world.create_model(name)
            await world.create_config(name)
            await world.clock.advance(1.0)
        for operation in ("ListModels", "ListEndpointConfigs"):
            assert await pages(world, operation) == [["c", "b", "model"]]
            assert await pages(world, operation, SortBy="Name", SortOrder="Ascending") == [
                ["b", "c", "model"]
            ]

    asyncio.run(facts())
