"""Training jobs go their way, and end as their tasks did."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from clary.compute.scripted import Script, Step, failing_training, succeeding_training
from clary.controllers.training_jobs import MAX_INTERRUPTIONS, Decision, Observation, decide
from clary.resources.resource import Key
from clary.resources.task import StopCause, TaskPhase, TaskSpec, TaskStatus, TaskTransition, TrainingWork
from clary.resources.task_token import read_task_token
from clary.telemetry.metric_store import Point, Series
from clary.testing.control_plane import ACCOUNT, ENDPOINT_URL, REGION, ControlPlane
from clary.testing.training_requests import training_request

METRICS = "/aws/sagemaker/TrainingJobs"


def words(shown: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["Status"], each["StatusMessage"]) for each in shown["SecondaryStatusTransitions"]]


def statuses(shown: dict[str, Any]) -> list[str]:
    return [each["Status"] for each in shown["SecondaryStatusTransitions"]]


def resources(count: int) -> dict[str, Any]:
    return {"InstanceType": "ml.m5.large", "InstanceCount": count, "VolumeSizeInGB": 1}


async def describe(plane: ControlPlane, name: str = "job") -> dict[str, Any]:
    return await plane.call("DescribeTrainingJob", TrainingJobName=name)


def seconds(plane: ControlPlane, moment: Any) -> float:
    """From the job's beginning."""
    return round(float(moment.timestamp()) - 1_700_000_000.0, 3)


def test_a_job_goes_through_the_statuses_that_clients_print() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda spec: succeeding_training(preparing_seconds=2.0, running_seconds=9.5))
        await plane.call("CreateTrainingJob", **training_request())
        seen = [await describe(plane)]
        for _ in range(30):
            await plane.settle(0.5)
            seen.append(await describe(plane))
        shown = seen[-1]
        assert words(shown) == [
            ("Starting", "Starting the training job"),
            ("Downloading", "Downloading input data"),
            ("Training", "Training image download completed. Training in progress."),
            ("Uploading", "Uploading generated training model"),
            ("Completed", "Training job completed"),
        ]
        assert shown["TrainingJobStatus"] == shown["SecondaryStatus"] == "Completed"
        assert shown["ModelArtifacts"] == {"S3ModelArtifacts": "s3://scripted/model.tar.gz"}
        assert seconds(plane, shown["TrainingStartTime"]) == 0.1
        assert seconds(plane, shown["TrainingEndTime"]) == 12.6
        assert shown["TrainingTimeInSeconds"] == shown["BillableTimeInSeconds"] == 13
        for before, after in itertools.pairwise(seen):
            assert before["SecondaryStatus"] == statuses(before)[-1]
            assert statuses(after)[: len(statuses(before))] == statuses(before)
        assert {each["TrainingJobStatus"] for each in seen} == {"InProgress", "Completed"}
        assert await plane.driver.tasks() == []

    asyncio.run(facts())


def test_each_host_gets_a_task_that_can_reach_the_server_as_the_jobs_role() -> None:
    async def facts() -> None:
        orders: list[TaskSpec] = []

        def script(spec: TaskSpec) -> Script:
            orders.append(spec)
            return succeeding_training()

        plane = ControlPlane(script)
        groups = [
            {"InstanceGroupName": "cpu", "InstanceType": "ml.m5.xlarge", "InstanceCount": 2},
            {"InstanceGroupName": "gpu", "InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
        ]
        request = training_request(
            "Job-1",
            ResourceConfig={"InstanceGroups": groups, "VolumeSizeInGB": 1},
            Environment={"A": "1"},
            Tags=[{"Key": "k", "Value": "v"}],
        )
        await plane.call("CreateTrainingJob", **request)
        await plane.settle(1.0)
        uid = orders[0].id.split("-")[1]
        assert [order.id for order in orders] == [f"training-{uid}-1-algo-{n}" for n in (1, 2, 3)]
        assert {order.owner for order in orders} == {f"TrainingJob|{ACCOUNT}|{REGION}|Job-1"}
        assert [(order.cpu_count, order.gpu_count) for order in orders] == [(4, 0), (4, 0), (4, 1)]
        work = orders[2].work
        assert isinstance(work, TrainingWork)
        assert (work.host, work.hosts) == ("algo-3", ("algo-1", "algo-2", "algo-3"))
        assert (work.instance_type, work.instance_group) == ("ml.g5.xlarge", "gpu")
        assert work.job_arn == f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/job-1"
        assert work.log_stream == "Job-1/algo-3-1700000000"
        del request["Tags"]
        assert work.request == {**request, "StoppingCondition": {"MaxRuntimeInSeconds": 3600}}
        connection = orders[2].connection
        assert connection.endpoint_url == ENDPOINT_URL
        assert connection.credentials_url == f"{ENDPOINT_URL}/.clary/credentials/{orders[2].id}"
        identity = read_task_token(plane.backends.secret, connection.credentials_token)
        assert (identity.task_id, identity.account) == (orders[2].id, ACCOUNT)
        assert identity.role_arn == request["RoleArn"]
        assert orders[2].grace_seconds == 120

    asyncio.run(facts())


def test_a_failed_jobs_reason_is_that_of_its_algorithm_and_fits() -> None:
    async def facts() -> None:
        reason = "AlgorithmError: " + "x" * 2000
        plane = ControlPlane(lambda spec: failing_training(reason))
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle()
        shown = await describe(plane)
        assert shown["TrainingJobStatus"] == "Failed"
        assert words(shown)[-1] == ("Failed", "Training job failed")
        assert len(shown["FailureReason"]) == 1024 and reason.startswith(shown["FailureReason"][:-1])
        assert "ModelArtifacts" not in shown

    asyncio.run(facts())


def test_the_last_value_of_each_metric_is_shown_and_none_of_a_namesake_that_was_deleted() -> None:
    async def facts() -> None:
        plane = ControlPlane()

        async def put(name: str, value: float) -> None:
            series = Series(ACCOUNT, REGION, METRICS, name, {"TrainingJobName": "job"})
            await plane.metrics.put([(series, Point(float(int(plane.clock.now())), value))])

        await plane.call("CreateTrainingJob", **training_request())
        await put("validation:auc", 0.5)
        await put("old", 1.0)
        await plane.settle()
        await plane.call("DeleteTrainingJob", TrainingJobName="job")
        await plane.call("CreateTrainingJob", **training_request())
        await put("validation:auc", 0.7)
        await put("validation:auc", 0.9)
        assert "FinalMetricDataList" not in await describe(plane)
        await plane.settle()
        metrics = (await describe(plane))["FinalMetricDataList"]
        assert [(each["MetricName"], round(each["Value"], 6)) for each in metrics] == [
            ("validation:auc", 0.9)
        ]

    asyncio.run(facts())


def test_stopping_a_job_uploads_what_was_trained() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(5.0)
        await plane.call("StopTrainingJob", TrainingJobName="job")
        at_once = await describe(plane)
        assert at_once["TrainingJobStatus"] == at_once["SecondaryStatus"] == "Stopping"
        assert statuses(at_once) == ["Starting", "Downloading", "Training", "Stopping"]
        await plane.settle(5.0)
        shown = await describe(plane)
        assert words(shown)[3:] == [
            ("Stopping", "Stopping the training job"),
            ("Uploading", "Uploading generated training model"),
            ("Stopped", "Training job stopped"),
        ]
        assert shown["ModelArtifacts"] == {"S3ModelArtifacts": "s3://scripted/model.tar.gz"}
        assert shown["TrainingJobStatus"] == "Stopped" and "FailureReason" not in shown
        assert await plane.driver.tasks() == []

    asyncio.run(facts())


def test_a_job_that_is_stopped_before_it_starts_never_runs() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.call("StopTrainingJob", TrainingJobName="job")
        await plane.settle(5.0)
        shown = await describe(plane)
        assert statuses(shown) == ["Starting", "Stopping", "Stopped"]
        assert not plane.driver.starts
        assert "TrainingStartTime" not in shown and "BillableTimeInSeconds" not in shown

    asyncio.run(facts())


def test_a_job_that_ran_too_long_is_stopped_and_says_so() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call(
            "CreateTrainingJob",
            **training_request(ResourceConfig=resources(2)),
        )
        await plane.settle(5.0)
        await plane.driver.stop((await plane.running())[0], StopCause.MAX_RUNTIME)  # its agent's own doing
        await plane.settle(5.0)
        shown = await describe(plane)
        assert (shown["TrainingJobStatus"], shown["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
        assert words(shown)[-1][1] == "Training job runtime exceeded MaxRuntimeInSeconds provided"
        assert shown["ModelArtifacts"]

    asyncio.run(facts())


def test_when_one_host_fails_the_others_are_stopped_and_the_first_cause_is_told() -> None:
    async def facts() -> None:
        def script(spec: TaskSpec) -> Script:
            assert isinstance(spec.work, TrainingWork)
            if spec.work.host == "algo-2":
                return failing_training("AlgorithmError: ValueError: the cause")
            return succeeding_training(running_seconds=1000.0)

        plane = ControlPlane(script)
        await plane.call(
            "CreateTrainingJob",
            **training_request(ResourceConfig=resources(3)),
        )
        await plane.settle(20.0)
        shown = await describe(plane)
        assert shown["TrainingJobStatus"] == "Failed"
        assert shown["FailureReason"] == "AlgorithmError: ValueError: the cause"
        assert await plane.driver.tasks() == []

    asyncio.run(facts())


def test_a_job_whose_agent_vanishes_fails_and_says_why() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(5.0)
        plane.driver.lose((await plane.running())[0], "the agent was killed by SIGKILL.")
        await plane.settle(5.0)
        shown = await describe(plane)
        assert shown["TrainingJobStatus"] == "Failed"
        assert shown["FailureReason"] == "InternalServerError: the agent was killed by SIGKILL."

    asyncio.run(facts())


def test_a_job_that_a_shutdown_interrupts_is_started_again_and_not_billed_for_the_gap() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(5.0)
        await plane.driver.close(stop_tasks=True)
        await plane.clock.advance(1000.0)
        plane.restart()
        await plane.settle(30.0)
        shown = await describe(plane)
        assert statuses(shown) == [
            *("Starting", "Downloading", "Training", "Interrupted", "Restarting"),
            *("Downloading", "Training", "Uploading", "Completed"),
        ]
        assert shown["TrainingTimeInSeconds"] > 1000
        assert shown["BillableTimeInSeconds"] < 30
        assert sorted(plane.driver.starts.values()) == [1, 1]
        assert await plane.driver.tasks() == []

    asyncio.run(facts())


@pytest.mark.parametrize(("retries", "attempts"), [(None, 1), (2, 3)])
def test_internal_errors_are_retried_as_often_as_the_caller_asked(retries: int | None, attempts: int) -> None:
    async def facts() -> None:
        reason = "InternalServerError: the disk is full"
        plane = ControlPlane(lambda spec: failing_training(reason))
        strategy = {"MaximumRetryAttempts": retries} if retries else None
        await plane.call("CreateTrainingJob", **training_request(RetryStrategy=strategy))
        await plane.settle(60.0)
        shown = await describe(plane)
        assert (shown["TrainingJobStatus"], shown["FailureReason"]) == ("Failed", reason)
        assert statuses(shown).count("Starting") == attempts == len(plane.driver.starts)

    asyncio.run(facts())


def test_failures_of_the_algorithm_are_not_retried() -> None:
    async def facts() -> None:
        plane = ControlPlane(lambda spec: failing_training("AlgorithmError: mine"))
        await plane.call("CreateTrainingJob", **training_request(RetryStrategy={"MaximumRetryAttempts": 5}))
        await plane.settle(60.0)
        assert (await describe(plane))["FailureReason"] == "AlgorithmError: mine"
        assert len(plane.driver.starts) == 1

    asyncio.run(facts())


def test_a_job_that_waits_for_room_says_what_it_waits_for() -> None:
    waiting = TaskTransition(TaskPhase.PENDING, 1_700_000_000.0, "Waiting for processors")

    async def facts() -> None:
        plane = ControlPlane(lambda spec: Script((Step(TaskPhase.PENDING, 1.0, waiting.message),)))
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(5.0)
        assert words(await describe(plane)) == [("Starting", "Waiting for processors")]

    asyncio.run(facts())


def test_what_was_missed_is_found_by_looking_again() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.look()
        plane.driver.forget_callbacks()  # nothing is heard of the task any more
        await plane.settle(30.0)
        assert (await describe(plane))["TrainingJobStatus"] == "Completed"

    asyncio.run(facts())


def test_an_ended_job_is_settled_and_looked_at_no_more() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(30.0)
        job = await plane.store.find(Key("TrainingJob", ACCOUNT, REGION, "job"))
        assert job is not None and job.due_at is None

    asyncio.run(facts())


# The branches of `decide` that no script leads to easily.


def task(phase: TaskPhase, cause: StopCause | None = None, reason: str = "", at: float = 1.0) -> TaskStatus:
    return TaskStatus("id", "owner", phase, (TaskTransition(phase, at, ""),), reason=reason, stop_cause=cause)


RUNNING, SUCCEEDED = task(TaskPhase.RUNNING), task(TaskPhase.SUCCEEDED)
FAILED, STOPPED = task(TaskPhase.FAILED, reason="AlgorithmError: x"), task(TaskPhase.STOPPED)
GONE = task(TaskPhase.LOST, StopCause.SHUTDOWN)
LOST = task(TaskPhase.LOST, reason="InternalServerError: lost", at=2.0)


@pytest.mark.parametrize(
    ("seen", "decision"),
    [
        (Observation({"a": None, "b": RUNNING}), Decision(start=["a"])),
        (Observation({"a": RUNNING, "b": SUCCEEDED}), Decision()),
        (Observation({"a": SUCCEEDED, "b": SUCCEEDED}), Decision(ending="Completed")),
        (Observation({"a": RUNNING}, stop_requested=True), Decision(stop=["a"])),
        (Observation({"a": None, "b": RUNNING}, stop_requested=True), Decision(stop=["b"])),
        (Observation({"a": None, "b": SUCCEEDED}, stop_requested=True), Decision(ending="Stopped")),
        # It ended by itself before the stop was heard.
        (Observation({"a": SUCCEEDED}, stop_requested=True), Decision(ending="Completed")),
        (
            Observation({"a": FAILED}, stop_requested=True),
            Decision(ending="Failed", reason="AlgorithmError: x"),
        ),
        # It was to end, and has, whatever became of its agent.
        (Observation({"a": LOST}, stop_requested=True), Decision(ending="Stopped")),
        (
            Observation({"a": LOST, "b": FAILED}, stop_requested=True),
            Decision(ending="Failed", reason="AlgorithmError: x"),
        ),
        (Observation({"a": LOST}, max_retries=1, stop_requested=True), Decision(ending="Stopped")),
        (Observation({"a": GONE}, stop_requested=True), Decision(ending="Stopped")),
        (Observation({"a": GONE, "b": RUNNING}), Decision(stop=["b"], stop_cause=StopCause.SHUTDOWN)),
        (Observation({"a": GONE, "b": SUCCEEDED}), Decision(again="interrupted")),
        (Observation({"a": task(TaskPhase.STOPPED, StopCause.SHUTDOWN)}), Decision(again="interrupted")),
        # Somebody deleted the tasks of a job that ran.
        (Observation({"a": None}, started=True), Decision(again="interrupted")),
        (
            Observation({"a": None, "b": RUNNING}, started=True),
            Decision(stop=["b"], stop_cause=StopCause.SHUTDOWN),
        ),
        (
            Observation({"a": STOPPED, "b": RUNNING}),
            Decision(stop=["b"], stop_cause=StopCause.SUPERSEDED),
        ),
        (Observation({"a": STOPPED, "b": SUCCEEDED}), Decision(ending="Stopped")),
        (Observation({"a": LOST}, max_retries=1), Decision(again="retry")),
        (
            Observation({"a": LOST}, max_retries=1, retries=1),
            Decision(ending="Failed", reason="InternalServerError: lost"),
        ),
        (
            Observation({"a": task(TaskPhase.FAILED)}),
            Decision(ending="Failed", reason="AlgorithmError: the algorithm failed and gave no reason."),
        ),
    ],
)
def test_decisions(seen: Observation, decision: Decision) -> None:
    assert decide(seen) == decision


def test_a_job_is_not_started_again_for_ever() -> None:
    last = decide(Observation({"a": GONE}, interruptions=MAX_INTERRUPTIONS))
    assert last.ending == "Failed" and str(MAX_INTERRUPTIONS + 1) in last.reason
    assert decide(Observation({"a": GONE}, interruptions=MAX_INTERRUPTIONS - 1)).again == "interrupted"
