"""The server dies between any two of its effects, and nothing is lost, run twice or left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from clary.clock import ManualClock
from clary.store.sqlite import SqliteStore
from clary.testing.crashing import CrashPoints
from clary.testing.simulation import Action, Simulation, Verb, random_plan

# A plan, and the secondary status in which its job ends wherever the server dies.
SCENARIOS: dict[str, tuple[list[Action], str | None]] = {
    "a job that succeeds": ([Action(0, "create_job", "job")], "Completed"),
    "a job that fails": ([Action(0, "create_job", "job", script="fails")], "Failed"),
    "a job that is stopped": (
        [Action(0, "create_job", "job", script="is slow"), Action(5, "stop_job", "job")],
        "Stopped",
    ),
    "a job that is stopped before it starts": (
        [Action(0, "create_job", "job"), Action(0, "stop_job", "job")],
        "Stopped",
    ),
    "a job that is stopped while it uploads": (
        [Action(0, "create_job", "job", script="uploads long"), Action(15, "stop_job", "job")],
        "Stopped",
    ),
    "a job on two hosts, one of which goes down": (
        [Action(0, "create_job", "job", count=2), Action(5, "interrupt", "job")],
        "Completed",
    ),
    "a job that runs out of time": (
        [Action(0, "create_job", "job", script="is slow"), Action(30, "time_out", "job")],
        "MaxRuntimeExceeded",
    ),
    "a job whose agent is killed": (
        [Action(0, "create_job", "job", script="is slow"), Action(5, "lose", "job")],
        "Failed",
    ),
    "a job that is tried again after an internal error": (
        [Action(0, "create_job", "job", script="fails internally", retries=2)],
        "Failed",
    ),
    "a job on three hosts, one of which is killed": (
        [Action(0, "create_job", "job", script="is slow", count=3), Action(5, "lose", "job")],
        "Failed",
    ),
    "a job on two hosts that is stopped": (
        [Action(0, "create_job", "job", script="is slow", count=2), Action(5, "stop_job", "job")],
        "Stopped",
    ),
    "a job on two hosts whose machines are taken away": (
        [Action(0, "create_job", "job", count=2), Action(5, "reclaim", "job")],
        "Completed",
    ),
    "a job that is stopped while its machines are taken away": (
        [
            Action(0, "create_job", "job", script="is slow"),
            Action(5, "reclaim", "job"),
            Action(5, "stop_job", "job"),
        ],
        "Stopped",
    ),
    "a job that leaves a warm pool": (
        [Action(0, "create_job", "job", script="is quick", count=2, keep_alive=10)],
        "Completed",
    ),
    "a job that is deleted while its warm pool is kept": (
        [
            Action(0, "create_job", "job", script="is quick", keep_alive=100),
            Action(10, "delete_job", "job"),
        ],
        "Completed",
    ),
    "a job that a shutdown interrupts": (
        [Action(0, "create_job", "job", count=2), Action(5, "shut_down")],
        "Completed",
    ),
    "a job that is deleted when it has ended": (
        [Action(0, "create_job", "job", script="is quick"), Action(20, "delete_job", "job")],
        "Completed",
    ),
    "an endpoint that comes and goes": (
        [Action(0, "create_endpoint", "e", script="serves", count=2), Action(20, "delete_endpoint", "e")],
        None,
    ),
    "an endpoint that is updated and resized": (
        [
            Action(0, "create_endpoint", "e", script="serves"),
            Action(4, "update_endpoint", "e", script="serves-late"),
            Action(15, "resize_endpoint", "e", count=2),
            Action(25, "resize_endpoint", "e", count=1),
        ],
        None,
    ),
    "an endpoint that is updated to a broken model": (
        [
            Action(0, "create_endpoint", "e", script="serves"),
            Action(10, "update_endpoint", "e", script="is-broken"),
        ],
        None,
    ),
    "an endpoint that is resized after a failed update": (
        [
            Action(0, "create_endpoint", "e", script="serves"),
            Action(5, "update_endpoint", "e", script="is-broken"),
            Action(15, "resize_endpoint", "e", count=2),
        ],
        None,
    ),
    "an endpoint that shrinks and grows again": (
        [
            Action(0, "create_endpoint", "e", script="serves", count=2),
            Action(5, "resize_endpoint", "e", count=1),
            Action(15, "resize_endpoint", "e", count=2),
        ],
        None,
    ),
    "an endpoint whose replica dies": (
        [Action(0, "create_endpoint", "e", script="serves", count=2), Action(15, "lose", "e")],
        None,
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_wherever_the_server_dies_all_ends_as_if_it_had_not(name: str) -> None:
    plan, ending = SCENARIOS[name]

    async def count() -> int:
        points = CrashPoints()
        await _check(plan, points, ending)
        return len(points.passed)

    points = asyncio.run(count())
    assert points > 10
    for at in range(points):
        crashes = CrashPoints([at])
        asyncio.run(_check(plan, crashes, ending))
        assert crashes.died == [at]


@pytest.mark.parametrize("name", ["a job that is stopped", "a job that a shutdown interrupts"])
def test_a_server_that_dies_again_right_after_does_no_harm(name: str) -> None:
    plan, ending = SCENARIOS[name]
    for at in range(40):
        for again in (1, 2, 3, 5):
            asyncio.run(_check(plan, CrashPoints([at, at + again]), ending))


async def _check(plan: list[Action], points: CrashPoints, ending: str | None) -> None:
    simulation = Simulation(plan, points)
    await simulation.run()
    assert simulation.ended_as == ({"job": ending} if ending else {})


def test_wherever_the_server_dies_a_warm_pool_goes_to_one_job_or_ends() -> None:
    plan = [
        Action(0, "create_job", "one", script="is quick", keep_alive=100),
        Action(10, "create_job", "two", script="is quick", keep_alive=10),
        Action(11, "create_job", "three", script="is quick"),
    ]

    async def within(points: CrashPoints) -> None:
        simulation = Simulation(plan, points)
        await simulation.run()
        assert simulation.ended_as == dict.fromkeys(("one", "two", "three"), "Completed")

    points = CrashPoints()
    asyncio.run(within(points))
    for at in range(len(points.passed)):
        asyncio.run(within(CrashPoints([at])))


@pytest.mark.parametrize("verb", ["stop_job", "delete_job", "lose", "interrupt", "reclaim"])
def test_what_happens_while_a_controller_is_at_work_is_not_overlooked(verb: Verb) -> None:
    plan = [Action(0, "create_job", "job", script="is quick", count=2)]

    async def interposed(number: int) -> int:
        simulation = Simulation(plan, CrashPoints(), interposed=(number, Action(0, verb, "job")))
        await simulation.run()
        return simulation.statuses_written

    number = 0
    while asyncio.run(interposed(number)) > number:
        number += 1
    assert number > 2


@pytest.mark.parametrize("seed", range(40))
def test_many_jobs_and_endpoints_survive_a_server_that_keeps_dying(seed: int) -> None:
    asyncio.run(_random(seed, None))


@pytest.mark.parametrize("seed", range(1000, 1003))
def test_jobs_and_endpoints_kept_in_sqlite_survive_too(seed: int, tmp_path: Path) -> None:
    asyncio.run(_random(seed, tmp_path / "store.sqlite"))


async def _random(seed: int, path: Path | None) -> None:
    clock = ManualClock()
    store = SqliteStore(path, clock) if path else None
    points = CrashPoints(seed=seed, probability=0.03, most=60)
    plan = random_plan(seed, jobs=8, endpoints=3)
    await Simulation(plan, points, seed=seed, clock=clock, store=store).run()
    if store:
        await store.close()
