"""Warm pools: an ended job's machines are kept for the next one like it, and for no longer than asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clary.compute.scripted import Script, failing_training, succeeding_training
from clary.faults import Conflict, Invalid
from clary.resources.task import TaskSpec
from clary.testing.control_plane import ControlPlane
from clary.testing.training_requests import training_request

KEPT = {
    "InstanceType": "ml.m5.large",
    "InstanceCount": 1,
    "VolumeSizeInGB": 1,
    "KeepAlivePeriodInSeconds": 600,
}


class World(ControlPlane):
    """A control plane that remembers what tasks were ordered."""

    def __init__(self, script: Callable[[], Script] = succeeding_training) -> None:
        self.orders: dict[str, TaskSpec] = {}

        def remember(spec: TaskSpec) -> Script:
            self.orders[spec.id] = spec
            return script()

        super().__init__(remember)

    async def create(self, name: str, **changes: Any) -> None:
        await self.call("CreateTrainingJob", **training_request(name, **{"ResourceConfig": KEPT} | changes))

    async def pool(self, name: str) -> Any:
        return (await self.call("DescribeTrainingJob", TrainingJobName=name)).get("WarmPoolStatus")

    def order(self, name: str) -> TaskSpec:
        return next(order for order in self.orders.values() if order.owner.endswith(f"|{name}"))


def run(
    facts: Callable[[World], Awaitable[None]], script: Callable[[], Script] = succeeding_training
) -> None:
    async def within() -> None:
        await facts(World(script))

    asyncio.run(within())


def test_a_pool_is_kept_for_the_time_that_was_asked_for_and_then_given_up() -> None:
    async def facts(world: World) -> None:
        await world.create("one")
        assert await world.pool("one") is None
        await world.settle(30)
        assert await world.pool("one") == {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 0}
        assert len(await world.driver.tasks()) == 1
        await world.settle(600)
        assert await world.pool("one") == {
            "Status": "Terminated",
            "ResourceRetainedBillableTimeInSeconds": 600,
        }
        assert await world.driver.tasks() == []

    run(facts)


def test_the_next_job_like_it_takes_the_pool_over_and_leaves_it_to_the_one_after() -> None:
    async def facts(world: World) -> None:
        await world.create("one")
        await world.settle(30)
        await world.create("two")
        await world.look()
        assert await world.pool("two") == {"Status": "InUse"}
        assert world.order("two").room_of == world.order("one").id
        assert world.order("two").keeps_room
        await world.settle(5)
        one = await world.pool("one")
        assert (one["Status"], one["ReusedByJob"]) == ("Reused", "two")
        assert 15 <= one["ResourceRetainedBillableTimeInSeconds"] <= 30
        await world.settle(30)
        assert (await world.pool("two"))["Status"] == "Available"
        assert [task.id for task in await world.driver.tasks()] == [world.order("two").id]
        await world.create("three", ResourceConfig=KEPT | {"KeepAlivePeriodInSeconds": 0})
        await world.settle(30)
        assert (await world.pool("two"))["ReusedByJob"] == "three"
        assert (await world.pool("three"))["Status"] == "Terminated"
        assert await world.driver.tasks() == []

    run(facts)


@pytest.mark.parametrize(
    "changes",
    [
        {"RoleArn": "arn:aws:iam::123456789012:role/another"},
        {"ResourceConfig": KEPT | {"InstanceType": "ml.m5.xlarge"}},
        {"ResourceConfig": KEPT | {"InstanceCount": 2}},
        {"ResourceConfig": KEPT | {"VolumeSizeInGB": 2}},
        {"EnableNetworkIsolation": True},
    ],
)
def test_a_job_that_differs_gets_machines_of_its_own(changes: dict[str, Any]) -> None:
    async def facts(world: World) -> None:
        await world.create("one")
        await world.settle(30)
        await world.create("two", **changes)
        await world.settle(5)
        assert (await world.pool("one"))["Status"] == "Available"
        assert world.order("two").room_of == ""

    run(facts)


def test_a_pool_goes_to_one_job_only() -> None:
    async def facts(world: World) -> None:
        await world.create("one")
        await world.settle(30)
        for name in ("two", "three"):
            await world.create(name)
        await world.settle(5)
        assert (await world.pool("one"))["ReusedByJob"] == "two"
        assert await world.pool("three") is None
        assert world.order("three").room_of == ""

    run(facts)


def test_an_algorithms_failure_leaves_a_pool_and_clarys_own_does_not() -> None:
    for reason, status in (("AlgorithmError: no", "Available"), ("InternalServerError: disk", None)):

        async def facts(world: World, status: str | None = status) -> None:
            await world.create("one")
            await world.settle(30)
            pool = await world.pool("one")
            assert (pool and pool["Status"]) == status

        run(facts, lambda reason=reason: failing_training(reason))


def test_the_time_can_be_changed_and_nothing_else_of_an_ended_job() -> None:
    async def facts(world: World) -> None:
        await world.create("one")
        await world.settle(30)
        with pytest.raises(Conflict):
            await world.call(
                "UpdateTrainingJob", TrainingJobName="one", ProfilerConfig={"DisableProfiler": True}
            )
        await world.call(
            "UpdateTrainingJob", TrainingJobName="one", ResourceConfig={"KeepAlivePeriodInSeconds": 0}
        )
        await world.settle(1)
        assert (await world.pool("one"))["Status"] == "Terminated"
        with pytest.raises(Conflict):
            await world.call(
                "UpdateTrainingJob", TrainingJobName="one", ResourceConfig={"KeepAlivePeriodInSeconds": 60}
            )

    run(facts)


def test_a_job_created_without_a_pool_cannot_be_given_one() -> None:
    async def facts(world: World) -> None:
        await world.create("one", ResourceConfig=KEPT | {"KeepAlivePeriodInSeconds": 0})
        with pytest.raises(Invalid, match="KeepAlivePeriodInSeconds can only be updated"):
            await world.call(
                "UpdateTrainingJob", TrainingJobName="one", ResourceConfig={"KeepAlivePeriodInSeconds": 60}
            )

    run(facts)


def test_deleting_a_job_gives_its_pool_up() -> None:
    async def facts(world: World) -> None:
        await world.create("one")
        await world.settle(30)
        await world.call("DeleteTrainingJob", TrainingJobName="one")
        await world.settle(1)
        assert await world.driver.tasks() == []
        assert (await world.call("ListTrainingJobs"))["TrainingJobSummaries"] == []

    run(facts)


def test_a_claim_whose_job_was_never_created_lapses() -> None:
    async def facts(world: World) -> None:
        await world.create("one")
        await world.settle(30)
        await world.create("two")
        from clary.resources.resource import Key

        await world.store.delete(Key("TrainingJob", "123456789012", "us-east-1", "two"))
        await world.settle(30)
        assert (await world.pool("one"))["Status"] == "Available"
        await world.settle(60)
        assert (await world.pool("one"))["Status"] == "Terminated"
        assert await world.driver.tasks() == []

    run(facts)


def test_jobs_are_listed_by_the_state_of_their_pools_page_by_page() -> None:
    async def facts(world: World) -> None:
        for number in range(5):
            await world.create(f"job-{number}")
        await world.create("plain", ResourceConfig=KEPT | {"KeepAlivePeriodInSeconds": 0})
        await world.settle(60)
        names: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = await world.call(
                "ListTrainingJobs", WarmPoolStatusEquals="Available", MaxResults=2, **token
            )
            names += [each["TrainingJobName"] for each in page["TrainingJobSummaries"]]
            assert len(page["TrainingJobSummaries"]) <= 2
            if "NextToken" not in page:
                break
            token = {"NextToken": page["NextToken"]}
        assert names == [f"job-{number}" for number in range(5)]
        none = await world.call("ListTrainingJobs", WarmPoolStatusEquals="Reused")
        assert none["TrainingJobSummaries"] == []

    run(facts)
