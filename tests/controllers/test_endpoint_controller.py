"""Endpoints come up, change, mend themselves and go, whatever dies in between."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from clary.compute.scripted import failing_serving, healthy_serving
from clary.faults import NotFound
from clary.testing.hosting_world import HostingWorld


def test_an_endpoint_is_in_service_when_all_its_instances_are_healthy() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_model()
        await world.create_config("config", {"InitialInstanceCount": 3})
        await world.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        await world.settle(1.0)
        assert (await world.describe())["EndpointStatus"] == "Creating"
        assert world.router.routes == {}
        await world.settle()
        assert (await world.describe())["EndpointStatus"] == "InService"
        running = await world.running()
        assert world.router.addresses("endpoint") == {f"unix:/{task_id}" for task_id in running}
        assert len(running) == 3

    asyncio.run(facts())


def test_a_broken_model_fails_its_endpoint_with_the_cause() -> None:
    async def facts() -> None:
        world = HostingWorld()
        world.scripts["AllTraffic"] = failing_serving(
            "ValueError: no model here (/opt/ml/code/inference.py:7)"
        )
        await world.create_endpoint({"InitialInstanceCount": 2})
        shown = await world.describe()
        assert shown["EndpointStatus"] == "Failed"
        assert shown["FailureReason"] == (
            "The primary container for production variant AllTraffic did not pass the ping health check. "
            "Please check CloudWatch logs for this endpoint. The cause was: ValueError: no model here "
            "(/opt/ml/code/inference.py:7)"
        )
        assert await world.driver.tasks() == []
        assert world.router.routes == {}

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/k"}}}, "asynchronous inference"),
        (
            {
                "DataCaptureConfig": {
                    "EnableCapture": True,
                    "InitialSamplingPercentage": 1,
                    "DestinationS3Uri": "s3://b/k",
                    "CaptureOptions": [{"CaptureMode": "Input"}],
                }
            },
            "data capture",
        ),
    ],
)
def test_what_is_not_offered_is_said_and_nothing_is_started(members: dict[str, Any], words: str) -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_model()
        await world.create_config("config", **members)
        await world.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        await world.settle()
        shown = await world.describe()
        assert shown["EndpointStatus"] == "Failed"
        assert words in shown["FailureReason"]
        assert not world.driver.starts

    asyncio.run(facts())


def test_a_replica_that_dies_is_replaced_and_the_others_serve_on() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint({"InitialInstanceCount": 2})
        dying, living = await world.running()
        world.driver.lose(dying)
        await world.settle(0.5)
        assert world.router.addresses("endpoint") == {f"unix:/{living}"}
        assert (await world.describe())["EndpointStatus"] == "InService"
        await world.settle()
        running = await world.running()
        assert len(running) == 2 and living in running and dying not in running
        assert world.router.addresses("endpoint") == {f"unix:/{task_id}" for task_id in running}
        assert {task.id for task in await world.driver.tasks()} == set(running)

    asyncio.run(facts())


def test_a_replica_that_keeps_dying_is_started_ever_more_rarely() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        world.scripts["AllTraffic"] = failing_serving()
        world.driver.lose((await world.running())[0])
        await world.settle(120)
        few = sum(world.driver.starts.values())
        assert 4 <= few <= 9
        await world.settle(1200)
        assert sum(world.driver.starts.values()) - few <= 6
        del world.scripts["AllTraffic"]
        await world.settle(400)
        assert len(world.router.addresses("endpoint")) == 1

    asyncio.run(facts())


def test_an_update_switches_when_the_new_servers_are_healthy_and_then_drains_the_old() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        (old,) = await world.running()
        await world.create_model("better")
        world.scripts["better"] = healthy_serving(startup_seconds=30.0, address="unix:/better")
        await world.create_config("next", {"ModelName": "better", "InitialInstanceCount": 2})
        await world.call("UpdateEndpoint", EndpointName="endpoint", EndpointConfigName="next")
        await world.settle(20)
        shown = await world.describe()
        assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("Updating", "config")
        assert shown["PendingDeploymentSummary"]["EndpointConfigName"] == "next"
        assert world.router.addresses("endpoint") == {f"unix:/{old}"}
        world.router.busy_addresses = {f"unix:/{old}"}
        await world.settle(20)
        shown = await world.describe()
        assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "next")
        assert world.router.addresses("endpoint") == {"unix:/better"}
        assert old in await world.running()  # it still answers
        world.router.busy_addresses.clear()
        await world.settle()
        assert old not in await world.running()
        assert len(await world.driver.tasks()) == 2
        assert 0 not in world.router.replica_counts  # there was never nobody to answer

    asyncio.run(facts())


def test_an_old_server_that_never_falls_idle_is_stopped_after_a_limit() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        (old,) = await world.running()
        world.router.busy_addresses = {f"unix:/{old}"}
        await world.call("UpdateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        await world.settle(100)
        assert len(await world.running()) == 1 and old not in await world.running()

    asyncio.run(facts())


def test_a_failed_update_leaves_the_old_deployment_serving() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint({"InitialVariantWeight": 2.0})
        before = await world.running()
        await world.create_model("broken")
        world.scripts["broken"] = failing_serving("ImportError: no such module")
        await world.create_config("next", {"ModelName": "broken"})
        await world.call("UpdateEndpoint", EndpointName="endpoint", EndpointConfigName="next")
        await world.settle()
        shown = await world.describe()
        assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "config")
        assert "ImportError: no such module" in shown["FailureReason"]
        assert await world.running() == before
        assert world.router.addresses("endpoint") == {f"unix:/{before[0]}"}
        # And it can be updated again.
        await world.call("UpdateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        await world.settle()
        shown = await world.describe()
        assert shown["EndpointStatus"] == "InService" and "FailureReason" not in shown

    asyncio.run(facts())


def test_weights_and_counts_change_in_place() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint({"VariantName": "a"}, {"VariantName": "b", "InitialInstanceCount": 2})
        before = set(await world.running())
        await world.call(
            "UpdateEndpointWeightsAndCapacities",
            EndpointName="endpoint",
            DesiredWeightsAndCapacities=[
                {"VariantName": "a", "DesiredWeight": 9.0, "DesiredInstanceCount": 3},
                {"VariantName": "b", "DesiredInstanceCount": 1},
            ],
        )
        shown = await world.describe()
        assert shown["EndpointStatus"] == "Updating"
        assert [v["DesiredInstanceCount"] for v in shown["ProductionVariants"]] == [3, 1]
        assert [v["CurrentInstanceCount"] for v in shown["ProductionVariants"]] == [1, 2]
        await world.settle()
        shown = await world.describe()
        assert shown["EndpointStatus"] == "InService"
        assert [v["CurrentInstanceCount"] for v in shown["ProductionVariants"]] == [3, 1]
        assert [v["CurrentWeight"] for v in shown["ProductionVariants"]] == [9.0, 1.0]
        running = set(await world.running())
        assert len(running) == 4 and len(running & before) == 2
        assert [variant.weight for variant in world.router.routes["endpoint"].variants] == [9.0, 1.0]
        # Down and up again: the replica that was stopped gets a new life.
        for count in (1, 3):
            await world.call(
                "UpdateEndpointWeightsAndCapacities",
                EndpointName="endpoint",
                DesiredWeightsAndCapacities=[{"VariantName": "a", "DesiredInstanceCount": count}],
            )
            await world.settle(1.5 if count == 1 else 20)
        assert len(world.router.addresses("endpoint")) == 4

    asyncio.run(facts())


def test_an_instance_that_cannot_be_added_ends_the_change() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        before = await world.running()
        world.scripts["AllTraffic"] = failing_serving("out of memory")
        await world.call(
            "UpdateEndpointWeightsAndCapacities",
            EndpointName="endpoint",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}],
        )
        await world.settle()
        shown = await world.describe()
        assert shown["EndpointStatus"] == "InService"
        assert "out of memory" in shown["FailureReason"]
        assert shown["ProductionVariants"][0]["DesiredInstanceCount"] == 1
        assert await world.running() == before

    asyncio.run(facts())


def test_an_update_may_keep_the_weights_and_counts_in_force() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        await world.call(
            "UpdateEndpointWeightsAndCapacities",
            EndpointName="endpoint",
            DesiredWeightsAndCapacities=[
                {"VariantName": "AllTraffic", "DesiredWeight": 4.0, "DesiredInstanceCount": 2}
            ],
        )
        await world.settle()
        await world.call(
            "UpdateEndpoint",
            EndpointName="endpoint",
            EndpointConfigName="config",
            RetainAllVariantProperties=True,
            ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
        )
        await world.settle()
        (variant,) = (await world.describe())["ProductionVariants"]
        assert (variant["CurrentWeight"], variant["CurrentInstanceCount"]) == (1.0, 2)

    asyncio.run(facts())


def test_deleting_frees_everything_at_any_time() -> None:
    async def facts() -> None:
        for seconds in (0.0, 0.5, 3.0, 20.0):
            world = HostingWorld()
            await world.create_model()
            await world.create_config("config", {"InitialInstanceCount": 2})
            await world.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
            await world.settle(seconds)
            await world.call("DeleteEndpoint", EndpointName="endpoint")
            await world.settle()
            with pytest.raises(NotFound):
                await world.describe()
            assert await world.driver.tasks() == []
            assert world.router.routes == {}

    asyncio.run(facts())


def test_model_and_configuration_may_vanish_under_an_endpoint() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        await world.call("DeleteModel", ModelName="model")
        await world.call("DeleteEndpointConfig", EndpointConfigName="config")
        world.driver.lose((await world.running())[0])
        await world.settle()
        assert len(world.router.addresses("endpoint")) == 1

    asyncio.run(facts())


def test_servers_that_went_down_with_clary_come_up_again() -> None:
    async def facts() -> None:
        world = HostingWorld()
        await world.create_endpoint()
        await world.driver.close(stop_tasks=True)
        world.router.routes.clear()
        world.restart()
        await world.settle()
        assert (await world.describe())["EndpointStatus"] == "InService"
        assert len(world.router.addresses("endpoint")) == 1

    asyncio.run(facts())


class _Killed(BaseException):
    """The server died here."""


@pytest.mark.parametrize("seed", range(40))
def test_the_server_may_die_at_any_effect(seed: int) -> None:
    """Create, update, scale and delete with crashes in between: the same end, and no task run twice."""

    async def facts() -> None:
        chance = random.Random(seed)
        world = HostingWorld()

        def maybe_die(effect: str, task_id: str) -> None:
            if chance.random() < 0.15:
                raise _Killed

        async def live(seconds: float) -> None:
            until = world.clock.now() + seconds
            while world.clock.now() < until:
                try:
                    await world.settle(0.5)
                except _Killed:
                    world.restart()
                    await world.store.forget_leases()

        world.driver.on_effect = maybe_die
        await world.create_model()
        await world.create_config("config", {"InitialInstanceCount": 2})
        await world.create_config("next", {"InitialInstanceCount": 1})
        await world.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        await live(30)
        assert len(world.router.addresses("endpoint")) == 2
        await world.call("UpdateEndpoint", EndpointName="endpoint", EndpointConfigName="next")
        await live(30)
        await world.call(
            "UpdateEndpointWeightsAndCapacities",
            EndpointName="endpoint",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}],
        )
        await live(30)
        shown = await world.describe()
        assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "next")
        running = await world.running()
        assert world.router.addresses("endpoint") == {f"unix:/{task_id}" for task_id in running}
        assert len(running) == len(await world.driver.tasks()) == 3
        await world.call("DeleteEndpoint", EndpointName="endpoint")
        await live(30)
        with pytest.raises(NotFound):
            await world.describe()
        assert await world.driver.tasks() == []
        assert set(world.driver.starts.values()) == {1}

    asyncio.run(facts())
