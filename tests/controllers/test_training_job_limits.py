"""The limits of time of a job, interruptions, and what its attempts share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clary.compute.scripted import Script, Step, succeeding_training
from clary.controllers.training_jobs import (
    MAX_PENDING_WORDS,
    SPOT_WORDS,
    Decision,
    Observation,
    TrainingJobController,
    decide,
)
from clary.controllers.work_loop import WorkLoop
from clary.faults import Conflict
from clary.resources.task import StopCause, TaskPhase, TaskSpec, TaskStatus, TaskTransition, TrainingWork
from clary.testing.control_plane import ControlPlane
from clary.testing.training_requests import training_request

SLOW = succeeding_training(running_seconds=1e6)


def task(phase: TaskPhase, cause: StopCause | None = None) -> TaskStatus:
    return TaskStatus("t", "o", phase, (TaskTransition(phase, 1.0, ""),), stop_cause=cause)


RUNNING, SUCCEEDED, PENDING = task(TaskPhase.RUNNING), task(TaskPhase.SUCCEEDED), task(TaskPhase.PENDING)
TAKEN = task(TaskPhase.STOPPED, StopCause.INTERRUPTED)


@pytest.mark.parametrize(
    ("seen", "decision"),
    [
        (
            Observation({"a": RUNNING, "b": RUNNING}, interrupt=True),
            Decision(stop=["a", "b"], stop_cause=StopCause.INTERRUPTED),
        ),
        (Observation({"a": TAKEN, "b": RUNNING}), Decision(stop=["b"], stop_cause=StopCause.INTERRUPTED)),
        (Observation({"a": TAKEN, "b": SUCCEEDED}), Decision(again="reclaimed")),
        # It was done before its machines were gone.
        (Observation({"a": SUCCEEDED}, interrupt=True), Decision(ending="Completed")),
        # Machines are taken away however often; only Clary's own interruptions are limited.
        (Observation({"a": TAKEN}, interruptions=1000), Decision(again="reclaimed")),
        (Observation({"a": TAKEN}, stop_requested=True), Decision(ending="Stopped")),
        (Observation({"a": TAKEN}, overdue=StopCause.MAX_WAIT), Decision(ending="MaxWaitTimeExceeded")),
        (
            Observation({"a": RUNNING}, overdue=StopCause.MAX_WAIT),
            Decision(stop=["a"], stop_cause=StopCause.MAX_WAIT),
        ),
        (
            Observation({"a": task(TaskPhase.STOPPED, StopCause.MAX_WAIT)}, overdue=StopCause.MAX_WAIT),
            Decision(ending="MaxWaitTimeExceeded"),
        ),
        (Observation({"a": None}, overdue=StopCause.MAX_WAIT), Decision(ending="MaxWaitTimeExceeded")),
        (
            Observation({"a": PENDING}, overdue=StopCause.MAX_PENDING),
            Decision(stop=["a"], stop_cause=StopCause.MAX_PENDING),
        ),
        (
            Observation({"a": task(TaskPhase.STOPPED, StopCause.MAX_PENDING)}),
            Decision(ending="Stopped", message=MAX_PENDING_WORDS),
        ),
        # The caller's Stop comes first.
        (Observation({"a": RUNNING}, stop_requested=True, overdue=StopCause.MAX_WAIT), Decision(stop=["a"])),
    ],
)
def test_decisions(seen: Observation, decision: Decision) -> None:
    assert decide(seen) == decision


def spot(name: str = "job", **limits: int) -> dict[str, Any]:
    given = {"MaxRuntimeInSeconds": 100, "MaxWaitTimeInSeconds": 1000} | limits
    return training_request(name, EnableManagedSpotTraining=True, StoppingCondition=given)


async def describe(plane: ControlPlane, name: str = "job") -> dict[str, Any]:
    return await plane.call("DescribeTrainingJob", TrainingJobName=name)


async def interrupt(plane: ControlPlane, name: str = "job") -> None:
    await plane.call("InterruptTrainingJob", service_name="clary", TrainingJobName=name)


def test_each_attempt_has_what_is_left_of_the_time_to_train() -> None:
    async def facts() -> None:
        left: list[float] = []

        def script(spec: TaskSpec) -> Script:
            assert isinstance(spec.work, TrainingWork)
            left.append(spec.work.max_runtime_seconds)
            return SLOW

        plane = ControlPlane(script)
        await plane.call("CreateTrainingJob", **spot())
        await plane.settle(30)
        await interrupt(plane)
        await plane.settle(20)
        await interrupt(plane)
        await plane.settle(20)
        assert left[0] == 100
        assert 65 <= left[1] <= 72 and left[1] - 25 <= left[2] <= left[1] - 15
        shown = await describe(plane)
        words = [
            m["StatusMessage"] for m in shown["SecondaryStatusTransitions"] if m["Status"] == "Interrupted"
        ]
        assert words == [SPOT_WORDS, SPOT_WORDS]

    asyncio.run(facts())


def test_a_job_that_waits_too_long_for_its_spot_machines_ends() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda _: Script((Step(TaskPhase.PREPARING, 1e6),)))
        await plane.call("CreateTrainingJob", **spot(MaxWaitTimeInSeconds=120))
        await plane.settle(115)
        assert (await describe(plane))["TrainingJobStatus"] == "InProgress"
        await plane.settle(15)
        shown = await describe(plane)
        assert (shown["TrainingJobStatus"], shown["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
        last = shown["SecondaryStatusTransitions"][-1]
        assert last["StatusMessage"] == "Training job runtime exceeded MaxWaitTimeInSeconds provided"
        assert await plane.driver.tasks() == []

    asyncio.run(facts())


def test_a_job_that_is_pending_too_long_ends_and_says_so() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda _: Script((Step(TaskPhase.PREPARING, 1e6),)))
        limits = {"MaxRuntimeInSeconds": 100, "MaxPendingTimeInSeconds": 1800}
        await plane.call("CreateTrainingJob", **training_request(StoppingCondition=limits))
        await plane.settle(1790)
        assert (await describe(plane))["TrainingJobStatus"] == "InProgress"
        await plane.settle(20)
        shown = await describe(plane)
        assert shown["TrainingJobStatus"] == "Stopped"
        assert shown["SecondaryStatusTransitions"][-1]["StatusMessage"] == MAX_PENDING_WORDS

    asyncio.run(facts())


def test_a_job_that_began_in_time_is_not_pending() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda _: SLOW)
        limits = {"MaxRuntimeInSeconds": 86400, "MaxPendingTimeInSeconds": 1800}
        await plane.call("CreateTrainingJob", **training_request(StoppingCondition=limits))
        await plane.settle(2000)
        assert (await describe(plane))["SecondaryStatus"] == "Training"

    asyncio.run(facts())


def test_an_ended_job_cannot_be_interrupted() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(30)
        with pytest.raises(Conflict, match="there is nothing to interrupt"):
            await interrupt(plane)

    asyncio.run(facts())


def test_chance_takes_spot_machines_away_at_the_rate_that_was_set_and_no_others() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda _: SLOW)
        controller = TrainingJobController(
            store=plane.store,
            driver=plane.driver,
            metrics=plane.metrics,
            clock=plane.clock,
            secret=plane.backends.secret,
            endpoint_url="http://127.0.0.1:1",
            spot_interruptions_per_hour=60.0,
        )
        plane.loop = WorkLoop(plane.store, [controller], plane.clock, seed=1)
        await plane.call(
            "CreateTrainingJob", **spot("spot", MaxRuntimeInSeconds=86400, MaxWaitTimeInSeconds=86400)
        )
        await plane.call("CreateTrainingJob", **training_request("plain"))
        await plane.settle(1800)
        moves = [m["Status"] for m in (await describe(plane, "spot"))["SecondaryStatusTransitions"]]
        assert 12 <= moves.count("Interrupted") <= 55  # 30 are expected
        plain = [m["Status"] for m in (await describe(plane, "plain"))["SecondaryStatusTransitions"]]
        assert "Interrupted" not in plain

    asyncio.run(facts())
