"""What every driver must do, whatever it runs tasks on. Subclass, say how to make a world, and collect."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from clary.compute.driver import Driver
from clary.resources.task import StopCause, TaskPhase, TaskSpec, TaskStatus, TrainingWork

MOST_TICKS = 20_000
_ORDER = [TaskPhase.PENDING, TaskPhase.PREPARING, TaskPhase.RUNNING, TaskPhase.UPLOADING]


@dataclass(frozen=True)
class DriverWorld:
    """A driver and what it takes to test it.

    ``spec(kind, task_id)`` describes a task that ``succeeds``, ``fails`` (with "too few rows" in its reason),
    ``runs`` till it is stopped, having saved a model, or ``serves``. ``tick`` lets a little time pass.
    ``saved`` says whether a task that ``runs`` has saved its model by now.
    """

    driver: Driver
    spec: Callable[[str, str], TaskSpec]
    tick: Callable[[], Awaitable[None]]
    saved: Callable[[str], bool]

    async def until(self, task_id: str, wanted: Callable[[TaskStatus], bool]) -> TaskStatus:
        """The status once it is ``wanted``. Fails if the task ends otherwise, or not in a long time."""
        status: TaskStatus | None = None
        for _ in range(MOST_TICKS):
            status = await self.driver.inspect(task_id)
            assert status is not None, f"{task_id} is not known"
            if wanted(status):
                return status
            assert not status.phase.final, f"{task_id} ended as {status}"
            await self.tick()
        raise AssertionError(f"{task_id} stays at {status}")

    async def ended(self, task_id: str) -> TaskStatus:
        return await self.until(task_id, lambda status: status.phase.final)

    async def running(self, task_id: str) -> TaskStatus:
        return await self.until(task_id, lambda status: status.phase is TaskPhase.RUNNING)


class DriverConformance:
    """The facts. `world` gives a fresh driver."""

    def world(self) -> AbstractAsyncContextManager[DriverWorld]:
        raise NotImplementedError

    def run(self, facts: Callable[[DriverWorld], Awaitable[None]]) -> None:
        async def within() -> None:
            async with self.world() as world:
                await facts(world)

        asyncio.run(within())

    def test_a_task_goes_through_its_phases_and_ends_well(self) -> None:
        async def facts(world: DriverWorld) -> None:
            await world.driver.start(world.spec("succeeds", "job"))
            status = await world.ended("job")
            assert status.phase is TaskPhase.SUCCEEDED, status
            assert (status.exit_code, status.owner) == (0, world.spec("succeeds", "job").owner)
            assert str(status.results["model_artifacts"]).startswith("s3://")
            passed = [transition.phase for transition in status.transitions]
            assert [phase for phase in passed if phase in _ORDER[1:]] == _ORDER[1:]
            times = [transition.at for transition in status.transitions]
            assert times == sorted(times)

        self.run(facts)

    def test_a_failing_task_says_why(self) -> None:
        async def facts(world: DriverWorld) -> None:
            await world.driver.start(world.spec("fails", "job"))
            status = await world.ended("job")
            assert (status.phase, status.exit_code) == (TaskPhase.FAILED, 1)
            assert "too few rows" in status.reason

        self.run(facts)

    def test_starting_the_same_task_again_changes_nothing(self) -> None:
        async def facts(world: DriverWorld) -> None:
            await world.driver.start(world.spec("succeeds", "job"))
            ended = await world.ended("job")
            assert await world.driver.start(world.spec("succeeds", "job")) == ended
            await world.tick()
            assert await world.driver.inspect("job") == ended

        self.run(facts)

    def test_a_stopped_task_keeps_what_was_trained(self) -> None:
        async def facts(world: DriverWorld) -> None:
            await world.driver.start(world.spec("runs", "job"))
            await world.running("job")
            await world.until("job", lambda _: world.saved("job"))
            await world.driver.stop("job", StopCause.REQUESTED)
            await world.driver.stop("job", StopCause.SUPERSEDED)
            status = await world.ended("job")
            assert (status.phase, status.stop_cause) == (TaskPhase.STOPPED, StopCause.REQUESTED)
            assert str(status.results["model_artifacts"]).startswith("s3://")

        self.run(facts)

    def test_a_server_gets_an_address_and_lasts_until_it_is_stopped(self) -> None:
        async def facts(world: DriverWorld) -> None:
            await world.driver.start(world.spec("serves", "replica"))
            status = await world.running("replica")
            assert status.address and status.address.partition(":")[0] in ("unix", "tcp")
            await world.driver.stop("replica", StopCause.SUPERSEDED)
            status = await world.ended("replica")
            assert (status.phase, status.stop_cause) == (TaskPhase.STOPPED, StopCause.SUPERSEDED)
            assert status.address is None

        self.run(facts)

    def test_a_removed_task_is_forgotten_even_if_it_runs(self) -> None:
        async def facts(world: DriverWorld) -> None:
            await world.driver.start(world.spec("runs", "job"))
            await world.running("job")
            await world.driver.remove("job")
            assert await world.driver.inspect("job") is None
            assert await world.driver.tasks() == []
            await world.driver.start(world.spec("succeeds", "job"))
            assert (await world.ended("job")).phase is TaskPhase.SUCCEEDED

        self.run(facts)

    def test_unknown_tasks_are_left_alone(self) -> None:
        async def facts(world: DriverWorld) -> None:
            assert await world.driver.inspect("nobody") is None
            await world.driver.stop("nobody", StopCause.REQUESTED)
            await world.driver.remove("nobody")
            assert await world.driver.inspect("nobody") is None

        self.run(facts)

    def test_all_tasks_are_listed(self) -> None:
        async def facts(world: DriverWorld) -> None:
            for name in ("one", "two"):
                await world.driver.start(world.spec("succeeds", name))
            for name in ("one", "two"):
                await world.ended(name)
            assert sorted(status.id for status in await world.driver.tasks()) == ["one", "two"]

        self.run(facts)

    def test_owners_are_told_of_changes(self) -> None:
        async def facts(world: DriverWorld) -> None:
            told: list[str] = []
            world.driver.on_change(told.append)
            await world.driver.start(world.spec("succeeds", "job"))
            await world.ended("job")
            for _ in range(100):
                await world.tick()
            assert set(told) == {world.spec("succeeds", "job").owner}

        self.run(facts)

    def test_closing_ends_every_task_as_one_to_be_started_again(self) -> None:
        async def facts(world: DriverWorld) -> None:
            await world.driver.start(world.spec("runs", "job"))
            await world.running("job")
            await world.driver.close(stop_tasks=True)
            status = await world.driver.inspect("job")
            assert status is not None
            assert (status.phase, status.stop_cause) == (TaskPhase.LOST, StopCause.SHUTDOWN)

        self.run(facts)

    def test_a_cluster_waits_until_all_of_it_has_been_ordered(self) -> None:
        async def facts(world: DriverWorld) -> None:
            gang = ("one", "two", "three")
            specs = [_member(world.spec("runs", name), gang) for name in gang]
            for spec in specs[:2]:
                assert (await world.driver.start(spec)).phase is TaskPhase.PENDING
            for _ in range(20):
                await world.tick()
            for spec in specs[:2]:
                status = await world.driver.inspect(spec.id)
                assert status and status.phase is TaskPhase.PENDING
            await world.driver.start(specs[2])
            for name in gang:
                await world.running(name)
                await world.driver.remove(name)

        self.run(facts)

    def test_what_was_ordered_of_a_cluster_can_be_stopped_before_the_rest_is(self) -> None:
        async def facts(world: DriverWorld) -> None:
            await world.driver.start(dataclasses.replace(world.spec("succeeds", "one"), gang=("one", "two")))
            await world.driver.stop("one", StopCause.REQUESTED)
            status = await world.ended("one")
            assert (status.phase, status.stop_cause) == (TaskPhase.STOPPED, StopCause.REQUESTED)

        self.run(facts)

    def test_there_is_some_capacity(self) -> None:
        async def facts(world: DriverWorld) -> None:
            capacity = await world.driver.capacity()
            assert capacity.cpu_count > 0 and capacity.memory_bytes > 0 and capacity.disk_free_bytes > 0

        self.run(facts)


def _member(spec: TaskSpec, gang: tuple[str, ...]) -> TaskSpec:
    """``spec`` as that of one host of the cluster ``gang``."""
    assert isinstance(spec.work, TrainingWork)
    hosts = tuple(f"algo-{number}" for number, _ in enumerate(gang, start=1))
    work = dataclasses.replace(spec.work, host=hosts[gang.index(spec.id)], hosts=hosts)
    return dataclasses.replace(spec, work=work, gang=gang)
