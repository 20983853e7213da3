"""Validating an algorithm runs its training jobs for real, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from clary.clock import ManualClock
from clary.compute.scripted import Script, failing_training, succeeding_training
from clary.controllers.algorithms import JobSeen, decide
from clary.faults import Conflict, NotFound
from clary.resources.algorithm import LIFECYCLE
from clary.resources.resource import Resource
from clary.resources.task import StopCause, TaskSpec, TrainingWork
from clary.store.memory import MemoryStore
from clary.testing.algorithm_requests import ROLE, algorithm_request, validation_specification
from clary.testing.control_plane import ACCOUNT, REGION, TICK_SECONDS, ControlPlane
from clary.testing.crashing import CrashingStore, CrashPoints, Killed
from clary.testing.training_requests import OWN_IMAGE, training_request

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:algorithm/algorithm"


def validated(**members: Any) -> dict[str, Any]:
    return algorithm_request(ValidationSpecification=validation_specification(**members))


async def describe(plane: ControlPlane) -> dict[str, Any]:
    return await plane.call("DescribeAlgorithm", AlgorithmName="algorithm")


async def status(plane: ControlPlane) -> tuple[str, list[dict[str, Any]]]:
    shown = await describe(plane)
    return shown["AlgorithmStatus"], shown["AlgorithmStatusDetails"]["ValidationStatuses"]


async def jobs(plane: ControlPlane) -> list[dict[str, Any]]:
    """Descriptions of all training jobs."""
    listed = await plane.call("ListTrainingJobs")
    names = [each["TrainingJobName"] for each in listed["TrainingJobSummaries"]]
    return [await plane.call("DescribeTrainingJob", TrainingJobName=name) for name in names]


def test_an_algorithm_is_complete_when_its_validation_job_is() -> None:
    async def facts() -> None:
        orders: list[TaskSpec] = []

        def script(spec: TaskSpec) -> Script:
            orders.append(spec)
            return succeeding_training()

        plane = ControlPlane(script)
        await plane.call("CreateAlgorithm", **validated())
        assert await status(plane) == ("Pending", [{"Name": "profile", "Status": "NotStarted"}])
        with pytest.raises(Conflict, match="is in status Pending"):
            await plane.call(
                "CreateTrainingJob",
                **training_request(
                    AlgorithmSpecification={"AlgorithmName": "algorithm", "TrainingInputMode": "File"}
                ),
            )
        await plane.settle(3)
        assert await status(plane) == ("InProgress", [{"Name": "profile", "Status": "InProgress"}])
        await plane.settle(20)
        assert await status(plane) == ("Completed", [{"Name": "profile", "Status": "Completed"}])
        [job] = await jobs(plane)
        assert job["TrainingJobStatus"] == "Completed"
        assert job["TrainingJobName"].startswith("algorithm-profile-")
        assert job["AlgorithmSpecification"]["AlgorithmName"] == ARN
        assert job["RoleArn"] == ROLE
        assert job["HyperParameters"] == {"rate": "0.5", "depth": "3", "booster": "tree"}
        assert job["OutputDataConfig"]["S3OutputPath"] == "s3://bucket/validation"
        assert len(orders) == 1
        work = orders[0].work
        assert isinstance(work, TrainingWork)
        assert work.request["TrainingJobName"] == job["TrainingJobName"]
        specification: Any = work.request["AlgorithmSpecification"]
        assert specification["TrainingImage"] == OWN_IMAGE
        specification = {"AlgorithmName": "algorithm", "TrainingInputMode": "File"}
        request = training_request(AlgorithmSpecification=specification, HyperParameters={"rate": "1"})
        await plane.call("CreateTrainingJob", **request)

    asyncio.run(facts())


def test_a_failed_validation_says_which_job_failed_and_why() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda spec: failing_training("AlgorithmError: no such column, exit code: 1"))
        await plane.call("CreateAlgorithm", **validated())
        await plane.settle(20)
        [job] = await jobs(plane)
        name = job["TrainingJobName"]
        reason = f"Training job {name} failed: AlgorithmError: no such column, exit code: 1"
        failed = {"Name": "profile", "Status": "Failed", "FailureReason": reason}
        assert await status(plane) == ("Failed", [failed])
        with pytest.raises(Conflict, match="is in status Failed"):
            specification = {"AlgorithmName": ARN, "TrainingInputMode": "File"}
            await plane.call("CreateTrainingJob", **training_request(AlgorithmSpecification=specification))
        await plane.call("DeleteAlgorithm", AlgorithmName="algorithm")
        with pytest.raises(NotFound):
            await describe(plane)
        assert [each["TrainingJobName"] for each in await jobs(plane)] == [name]

    asyncio.run(facts())


def test_a_validation_job_that_is_stopped_fails_the_algorithm() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateAlgorithm", **validated())
        await plane.settle(3)
        [job] = await jobs(plane)
        await plane.call("StopTrainingJob", TrainingJobName=job["TrainingJobName"])
        await plane.settle(20)
        phase, [item] = await status(plane)
        assert (phase, item["Status"]) == ("Failed", "Failed")
        assert f"{job['TrainingJobName']} was stopped" in item["FailureReason"]

    asyncio.run(facts())


def test_a_validation_job_that_takes_too_long_fails_the_algorithm() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda spec: succeeding_training(running_seconds=500))
        await plane.call("CreateAlgorithm", **validated())
        await plane.settle(5)
        for task in await plane.running():
            await plane.driver.stop(task, StopCause.MAX_RUNTIME)
        await plane.settle(20)
        phase, [item] = await status(plane)
        assert phase == "Failed"
        assert "ran into MaxRuntimeInSeconds" in item["FailureReason"]

    asyncio.run(facts())


def test_deleting_an_algorithm_stops_its_validation() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda spec: succeeding_training(running_seconds=5000))
        await plane.call("CreateAlgorithm", **validated())
        await plane.settle(5)
        assert len(await plane.running()) == 1
        await plane.call("DeleteAlgorithm", AlgorithmName="algorithm")
        assert (await status(plane))[0] == "Deleting"
        listed = await plane.call("ListAlgorithms")
        assert [each["AlgorithmStatus"] for each in listed["AlgorithmSummaryList"]] == ["Deleting"]
        with pytest.raises(Conflict) as again:
            await plane.call("DeleteAlgorithm", AlgorithmName="algorithm")
        assert again.value.code == "ConflictException"
        await plane.settle(20)
        assert await plane.call("ListAlgorithms") == {"AlgorithmSummaryList": []}
        [job] = await jobs(plane)
        assert job["TrainingJobStatus"] == "Stopped"
        assert await plane.driver.tasks() == []
        await plane.call("CreateAlgorithm", **validated())  # the name is free, and validation begins anew
        await plane.settle(5)
        assert len(await plane.running()) == 1

    asyncio.run(facts())


def test_an_algorithm_deleted_before_its_validation_began_starts_none() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateAlgorithm", **validated())
        await plane.call("DeleteAlgorithm", AlgorithmName="algorithm")
        await plane.settle(5)
        assert await plane.call("ListAlgorithms") == {"AlgorithmSummaryList": []}
        assert await jobs(plane) == []

    asyncio.run(facts())


def test_a_validation_keeps_its_training_plan_and_leaves_no_warm_pool() -> None:
    plan = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-plan/mine"
    resources = {
        "InstanceType": "ml.m5.large",
        "InstanceCount": 1,
        "VolumeSizeInGB": 1,
        "TrainingPlanArn": plan,
    }

    async def facts() -> None:
        plane = ControlPlane()
        await plane.call(
            "CreateAlgorithm", **validated(ResourceConfig={**resources, "KeepAlivePeriodInSeconds": 600})
        )
        await plane.settle(20)
        assert (await status(plane))[0] == "Completed"
        listed = await plane.call("ListTrainingJobs", TrainingPlanArnEquals=plan)
        assert len(listed["TrainingJobSummaries"]) == 1
        [job] = await jobs(plane)
        assert job["ResourceConfig"] == resources

    asyncio.run(facts())


def test_long_names_give_job_names_that_clients_accept() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        name, profile = "a" * 40 + "-" + "b" * 22, "p" * 20 + "-" + "q" * 42
        request = algorithm_request(name, ValidationSpecification=validation_specification(profile))
        await plane.call("CreateAlgorithm", **request)
        await plane.settle(20)
        [job] = await jobs(plane)
        assert len(job["TrainingJobName"]) <= 63
        assert "--" not in job["TrainingJobName"]

    asyncio.run(facts())


class DyingServer:
    """A control plane whose server dies at ``points`` while it works, and is started again at once."""

    def __init__(self, points: CrashPoints) -> None:
        self.points = points
        self.statuses: list[Resource] = []  # every one that was written, in order
        clock = ManualClock()
        store = CrashingStore(MemoryStore(clock), points, meanwhile=_nothing, on_status=self.statuses.append)
        self.plane = ControlPlane(clock=clock, store=store)
        self.plane.driver.on_effect = lambda name, task_id: points.point(f"{name} {task_id}")

    async def run(self, *, delete_after_seconds: float | None = None) -> None:
        """Create the algorithm, perhaps delete it, and let all come to rest."""
        self.points.armed = False
        await self.plane.call("CreateAlgorithm", **validated())
        deleted = delete_after_seconds is None
        until = self.plane.clock.now() + 60.0
        while self.plane.clock.now() < until:
            self.points.armed = True
            try:
                await self.plane.look()
            except Killed:
                self.points.armed = False
                self.plane.restart()
                await self.plane.store.forget_leases()
                continue
            self.points.armed = False
            await self.plane.clock.advance(TICK_SECONDS)
            if not deleted and self.plane.clock.now() >= until - 60.0 + (delete_after_seconds or 0.0):
                await self.plane.call("DeleteAlgorithm", AlgorithmName="algorithm")
                deleted = True

    async def check(self, *, deleted: bool) -> None:
        """One job and one task at most were ever run, nothing is left over, and the statuses are right."""
        assert set(self.plane.driver.starts.values()) <= {1}
        assert len(self.plane.driver.starts) <= 1
        assert await self.plane.driver.tasks() == []
        phases = [each.phase for each in self.statuses if each.key.kind == "Algorithm"]
        for one, following in itertools.pairwise(phases):
            LIFECYCLE.move(one, following)
        found = await jobs(self.plane)
        assert len(found) <= 1
        if deleted:
            assert await self.plane.call("ListAlgorithms") == {"AlgorithmSummaryList": []}
            assert all(job["TrainingJobStatus"] in ("Stopped", "Completed") for job in found)
        else:
            assert await status(self.plane) == ("Completed", [{"Name": "profile", "Status": "Completed"}])
            assert [job["TrainingJobStatus"] for job in found] == ["Completed"]


async def _nothing() -> None:
    pass


async def points_passed(delete_after_seconds: float | None) -> int:
    server = DyingServer(CrashPoints())
    await server.run(delete_after_seconds=delete_after_seconds)
    await server.check(deleted=delete_after_seconds is not None)
    return len(server.points.passed)


@pytest.mark.parametrize("delete_after_seconds", [None, 0.0, 1.0, 5.0])
def test_a_server_that_dies_at_any_point_goes_on_where_it_was(delete_after_seconds: float | None) -> None:
    async def facts() -> None:
        count = await points_passed(delete_after_seconds)
        assert count > 3
        for number in range(count):
            server = DyingServer(CrashPoints([number]))
            await server.run(delete_after_seconds=delete_after_seconds)
            assert server.points.died == [number]
            await server.check(deleted=delete_after_seconds is not None)

    asyncio.run(facts())


@pytest.mark.parametrize("seed", range(20))
def test_a_server_that_keeps_dying_still_validates(seed: int) -> None:
    async def facts() -> None:
        server = DyingServer(CrashPoints(seed=seed, probability=0.3, most=12))
        await server.run(delete_after_seconds=float(seed) if seed % 2 else None)
        assert server.points.died
        await server.check(deleted=bool(seed % 2))

    asyncio.run(facts())


def test_deciding_covers_what_the_world_may_look_like() -> None:
    running, done = JobSeen("j", "InProgress"), JobSeen("j", "Completed")
    stranger = JobSeen("j", "InProgress", ours=False)
    assert decide({"p": None}, started=False, deleting=False).start == ["p"]
    assert decide({"p": None}, started=True, deleting=False).items["p"][0] == "Failed"
    assert decide({"p": running}, started=False, deleting=False).items == {"p": ("InProgress", "")}
    assert decide({"p": stranger}, started=True, deleting=False).items["p"][0] == "Failed"
    assert decide({"p": running, "q": done}, started=True, deleting=True).stop == ["p"]
    assert not decide({"p": running}, started=True, deleting=True).gone
    assert decide({"p": done, "q": None, "r": stranger}, started=True, deleting=True).gone
