"""Training jobs are taken, shown, listed, stopped, changed and deleted as SageMaker does it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clary.faults import Conflict, Fault, InUse, Invalid, NotFound
from clary.testing.control_plane import ACCOUNT, REGION, ControlPlane
from clary.testing.training_requests import OWN_IMAGE, XGBOOST_IMAGE, channel, training_request

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/"
BASE_MODEL = f"arn:aws:sagemaker:{REGION}:aws:hub-content/Hub/Model/m/1.0.0"
XGBOOST = {"num_round": "10", "objective": "binary:logistic"}


def refusal(**members: Any) -> str:
    """Why a request is refused; nothing must be kept of it."""

    async def attempt() -> str:
        plane = ControlPlane()
        with pytest.raises(Invalid) as refused:
            await plane.call("CreateTrainingJob", **training_request(**members))
        assert await plane.call("ListTrainingJobs") == {"TrainingJobSummaries": []}
        return refused.value.message

    return asyncio.run(attempt())


def test_every_member_is_kept_and_given_back() -> None:
    given = training_request(
        "Job-1",
        HyperParameters={"a": "1", "b": '"two"'},
        AlgorithmSpecification={
            "TrainingImage": OWN_IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
            "EnableSageMakerMetricsTimeSeries": False,
            "ContainerEntrypoint": ["/bin/sh"],
            "ContainerArguments": ["-c", "train"],
            "TrainingImageConfig": {"TrainingRepositoryAccessMode": "Vpc"},
        },
        InputDataConfig=[
            channel("train", ContentType="text/csv", CompressionType="Gzip", InputMode="Pipe"),
            channel("code", ShuffleConfig={"Seed": 7}),
        ],
        OutputDataConfig={"S3OutputPath": "s3://bucket/o", "KmsKeyId": "k", "CompressionType": "NONE"},
        ResourceConfig={
            "InstanceType": "ml.m5.large",
            "InstanceCount": 2,
            "VolumeSizeInGB": 30,
            "VolumeKmsKeyId": "v",
        },
        VpcConfig={"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
        EnableNetworkIsolation=True,
        EnableInterContainerTrafficEncryption=True,
        EnableManagedSpotTraining=True,
        CheckpointConfig={"S3Uri": "s3://bucket/c", "LocalPath": "/opt/ml/checkpoints"},
        DebugHookConfig={"S3OutputPath": "s3://bucket/d", "HookParameters": {"a": "b"}},
        TensorBoardOutputConfig={"S3OutputPath": "s3://bucket/t"},
        ExperimentConfig={"ExperimentName": "e", "TrialName": "t"},
        ProfilerConfig={"S3OutputPath": "s3://bucket/p", "ProfilingIntervalInMilliseconds": 500},
        Environment={"A": "1"},
        RetryStrategy={"MaximumRetryAttempts": 3},
        RemoteDebugConfig={"EnableRemoteDebug": True},
        InfraCheckConfig={"EnableInfraCheck": True},
    )

    async def facts() -> None:
        plane = ControlPlane()
        created = await plane.call("CreateTrainingJob", **given)
        assert created == {"TrainingJobArn": ARN + "job-1"}
        shown = await plane.call("DescribeTrainingJob", TrainingJobName="Job-1")
        assert {name: shown[name] for name in given} == given
        assert shown["TrainingJobArn"] == ARN + "job-1"
        assert shown["CreationTime"].timestamp() == plane.clock.now()

    asyncio.run(facts())


def test_members_that_clients_rely_on_are_always_there_and_others_only_when_they_have_a_value() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call(
            "CreateTrainingJob", **training_request(StoppingCondition=None, InputDataConfig=None)
        )
        shown = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        assert shown["OutputDataConfig"]["KmsKeyId"] == ""
        assert shown["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400}
        assert shown["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"] is True
        for name in ("NetworkIsolation", "InterContainerTrafficEncryption", "ManagedSpotTraining"):
            assert shown[f"Enable{name}"] is False
        assert shown["TrainingJobStatus"] == "InProgress" and shown["SecondaryStatus"] == "Starting"
        transitions = shown["SecondaryStatusTransitions"]
        assert [each["StatusMessage"] for each in transitions] == ["Starting the training job"]
        absent = {
            "InputDataConfig",
            "ModelArtifacts",
            "FailureReason",
            "HyperParameters",
            "VpcConfig",
            "Tags",
        }
        assert not absent & set(shown)

    asyncio.run(facts())


def test_the_metrics_of_a_built_in_algorithm_are_implied() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call(
            "CreateTrainingJob", **training_request(image=XGBOOST_IMAGE, HyperParameters=XGBOOST)
        )
        shown = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        metrics = {
            each["Name"]: each["Regex"] for each in shown["AlgorithmSpecification"]["MetricDefinitions"]
        }
        assert "validation:auc" in metrics and all("(" in regex for regex in metrics.values())

    asyncio.run(facts())


def test_a_name_that_is_taken_is_refused_until_its_job_is_deleted() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        with pytest.raises(InUse) as taken:
            await plane.call("CreateTrainingJob", **training_request())
        assert taken.value.code is None  # the model's ResourceInUse
        assert taken.value.message.startswith(
            "Training job names must be unique within an AWS account and region"
        )
        await plane.call("CreateTrainingJob", account="210987654321", **training_request())
        await plane.call("CreateTrainingJob", region="eu-west-1", **training_request())
        await plane.settle()
        await plane.call("DeleteTrainingJob", TrainingJobName="job")
        await plane.call("CreateTrainingJob", **training_request())

    asyncio.run(facts())


@pytest.mark.parametrize("operation", ["Describe", "Stop", "Update", "Delete"])
def test_unknown_jobs_are_refused_as_sagemaker_does(operation: str) -> None:
    async def facts() -> None:
        plane = ControlPlane()
        with pytest.raises(NotFound) as unknown:
            await plane.call(f"{operation}TrainingJob", TrainingJobName="None")
        assert unknown.value.code == "ValidationException"
        assert unknown.value.message == f"Could not find training job '{ARN}none'."

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"TrainingJobName": "no_underscores"}, "at 'trainingJobName' failed to satisfy constraint"),
        ({"RoleArn": "arn:aws:iam::123:role/me"}, "at 'roleArn' failed to satisfy constraint"),
        ({"OutputDataConfig": {"S3OutputPath": "/tmp/x"}}, "at 'outputDataConfig.s3OutputPath' failed"),
        ({"AlgorithmSpecification": None}, "exactly one of TrainingImage and AlgorithmName"),
        (
            {"AlgorithmSpecification": {"TrainingInputMode": "File"}},
            "exactly one of TrainingImage and AlgorithmName in AlgorithmSpecification, not none",
        ),
        (
            {
                "AlgorithmSpecification": {
                    "TrainingInputMode": "File",
                    "TrainingImage": "i",
                    "AlgorithmName": "a",
                }
            },
            "not TrainingImage and AlgorithmName",
        ),
        ({"InputDataConfig": [channel("a"), channel("b"), channel("a")]}, "'a' is given 2 times"),
        (
            {"InputDataConfig": [{"ChannelName": "a", "DataSource": {}}]},
            "'a' must have exactly one data source",
        ),
        ({"ResourceConfig": None}, "ResourceConfig must have either InstanceGroups, or"),
        ({"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 0}}, "of at least 1"),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 101}},
            "1 to 100 instances, not 101",
        ),
        ({"ResourceConfig": {"InstanceType": "ml.none.large", "InstanceCount": 1}}, "enum value set"),
        (
            {
                "ResourceConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceGroups": [
                        {"InstanceGroupName": "g", "InstanceType": "ml.m5.large", "InstanceCount": 1}
                    ],
                }
            },
            "InstanceType or InstanceCount cannot be specified with InstanceGroups",
        ),
        (
            {
                "ResourceConfig": {
                    "InstanceGroups": [
                        {"InstanceGroupName": "g", "InstanceType": "ml.m5.large", "InstanceCount": 1},
                    ]
                    * 2
                }
            },
            "'g' is given 2 times",
        ),
        ({"StoppingCondition": {"MaxWaitTimeInSeconds": 9}}, "when EnableManagedSpotTraining is set to true"),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds. It must be present"),
        (
            {
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 10, "MaxWaitTimeInSeconds": 9},
            },
            "greater than or equal to MaxRuntimeInSeconds",
        ),
        ({"Tags": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]}, "Duplicate tag keys"),
        ({"Tags": [{"Key": "aws:k", "Value": "1"}]}, "aws: prefixed tag key names are not allowed"),
        (
            {"ServerlessJobConfig": {"BaseModelArn": BASE_MODEL, "JobType": "FineTuning"}},
            "ServerlessJobConfig is not offered",
        ),
        (
            {"image": XGBOOST_IMAGE, "HyperParameters": {**XGBOOST, "eta": "2"}},
            "Hyperparameter eta: '2'",
        ),
        (
            {"image": XGBOOST_IMAGE, "HyperParameters": {**XGBOOST, "etta": "1"}},
            "Additional properties are not allowed ('etta' was unexpected)",
        ),
        ({"image": XGBOOST_IMAGE}, "Missing required hyperparameter: num_round"),
    ],
)
def test_what_is_wrong_is_said_at_once(members: dict[str, Any], words: str) -> None:
    assert words in refusal(**members)


@pytest.mark.parametrize(
    "members",
    [
        {"image": "no.such/image:9", "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/none"},
        {"HyperParameters": {"anything": "goes"}},
        # A script's hyperparameters are its own affair.
        {
            "image": XGBOOST_IMAGE,
            "HyperParameters": {"sagemaker_program": '"train.py"', "mine": "1"},
        },
        {"image": XGBOOST_IMAGE, "Environment": {"SAGEMAKER_PROGRAM": "t.py"}, "HyperParameters": {"x": "1"}},
        # What a tuning job adds.
        {
            "image": XGBOOST_IMAGE,
            "HyperParameters": {**XGBOOST, "_tuning_objective_metric": "validation:auc"},
        },
        {"Tags": [{"Key": f"k{n}", "Value": ""} for n in range(50)]},
    ],
)
def test_what_only_a_run_can_tell_is_taken(members: dict[str, Any]) -> None:
    async def facts() -> None:
        await ControlPlane().call("CreateTrainingJob", **training_request(**members))

    asyncio.run(facts())


def test_stopping_twice_does_no_harm_and_an_ended_job_cannot_be_stopped() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(3.0)
        assert await plane.call("StopTrainingJob", TrainingJobName="job") == {}
        first = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        await plane.clock.advance(0.1)
        await plane.call("StopTrainingJob", TrainingJobName="job")
        second = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        assert first["SecondaryStatusTransitions"] == second["SecondaryStatusTransitions"]
        await plane.settle()
        with pytest.raises(Conflict) as rejected:
            await plane.call("StopTrainingJob", TrainingJobName="job")
        assert rejected.value.code == "ValidationException"
        assert rejected.value.message == (
            "The request was rejected because the training job is in status Stopped."
        )

    asyncio.run(facts())


def test_what_may_change_of_a_running_job_changes_and_nothing_else() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        resources = {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
            "KeepAlivePeriodInSeconds": 60,
        }
        await plane.call("CreateTrainingJob", **training_request(ResourceConfig=resources))
        before = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        updated = await plane.call(
            "UpdateTrainingJob",
            TrainingJobName="job",
            ProfilerConfig={"DisableProfiler": True},
            ResourceConfig={"KeepAlivePeriodInSeconds": 600},
            RemoteDebugConfig={"EnableRemoteDebug": True},
        )
        assert updated == {"TrainingJobArn": ARN + "job"}
        after = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        assert after.pop("ProfilerConfig") == {"DisableProfiler": True}
        assert after.pop("RemoteDebugConfig") == {"EnableRemoteDebug": True}
        before["ResourceConfig"]["KeepAlivePeriodInSeconds"] = 600
        assert after == before
        await plane.settle()
        with pytest.raises(Conflict, match="in status Completed"):
            await plane.call("UpdateTrainingJob", TrainingJobName="job", ProfilerConfig={})

    asyncio.run(facts())


def test_a_job_is_deleted_only_when_it_has_ended() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        for _ in range(2):
            with pytest.raises(Conflict, match=r"in status (InProgress|Stopping)"):
                await plane.call("DeleteTrainingJob", TrainingJobName="job")
            await plane.call("StopTrainingJob", TrainingJobName="job")
        await plane.settle()
        await plane.call("DeleteTrainingJob", TrainingJobName="job")
        with pytest.raises(NotFound):
            await plane.call("DescribeTrainingJob", TrainingJobName="job")

    asyncio.run(facts())


def test_a_job_that_is_deleted_the_moment_it_ends_leaves_no_task_behind() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        await plane.settle(11.5)
        await plane.clock.advance(5.0)
        claims = await plane.store.claim(["TrainingJob"], now=plane.clock.now(), lease_seconds=9, limit=1)
        ended = {**claims[0].resource.status, "TrainingJobStatus": "Completed"}
        now = plane.clock.now()
        await plane.store.write_status(claims[0], ended, phase="Completed", due_at=now, now=now)
        assert len(await plane.driver.tasks()) == 1
        await plane.call("DeleteTrainingJob", TrainingJobName="job")
        shown = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        assert shown["TrainingJobStatus"] == "Deleting"
        await plane.look()
        assert await plane.driver.tasks() == []
        with pytest.raises(NotFound):
            await plane.call("DescribeTrainingJob", TrainingJobName="job")

    asyncio.run(facts())


def test_jobs_are_listed_by_every_filter() -> None:
    plan = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-plan/mine"

    async def facts() -> None:
        plane = ControlPlane()
        for name in ("alpha", "Beta", "gamma"):
            resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
            if name == "Beta":
                resources["TrainingPlanArn"] = plan
            await plane.call("CreateTrainingJob", **training_request(name, ResourceConfig=resources))
            await plane.settle(10.0)
        now = plane.clock.now()

        async def names(**members: Any) -> list[str]:
            page = await plane.call("ListTrainingJobs", **members)
            return [each["TrainingJobName"] for each in page["TrainingJobSummaries"]]

        assert await names() == ["alpha", "Beta", "gamma"]  # by time, the oldest first
        assert await names(SortOrder="Descending") == ["gamma", "Beta", "alpha"]
        assert await names(SortBy="Name") == ["Beta", "alpha", "gamma"]
        assert await names(SortBy="Status") == ["Beta", "alpha", "gamma"]
        assert await names(StatusEquals="Completed") == ["alpha", "Beta"]
        assert await names(StatusEquals="InProgress") == ["gamma"]
        assert await names(NameContains="ET") == ["Beta"]
        assert await names(CreationTimeAfter=now - 25) == ["Beta", "gamma"]
        assert await names(CreationTimeBefore=now - 15) == ["alpha", "Beta"]
        assert await names(LastModifiedTimeBefore=now - 12) == ["alpha"]
        assert await names(TrainingPlanArnEquals=plan) == ["Beta"]
        assert await names(WarmPoolStatusEquals="Available") == []
        first = await plane.call("ListTrainingJobs", MaxResults=2)
        second = await plane.call("ListTrainingJobs", MaxResults=2, NextToken=first["NextToken"])
        assert len(first["TrainingJobSummaries"]) == 2 and "NextToken" not in second
        assert second["TrainingJobSummaries"][0]["TrainingJobName"] == "gamma"
        with pytest.raises(Fault, match="NextToken"):
            await plane.call("ListTrainingJobs", NextToken="foreign")
        ended = first["TrainingJobSummaries"][0]
        assert ended["TrainingJobArn"] == ARN + "alpha" and ended["TrainingEndTime"]
        assert (ended["TrainingJobStatus"], ended["SecondaryStatus"]) == ("Completed", "Completed")

    asyncio.run(facts())
