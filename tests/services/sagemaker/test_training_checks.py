"""Members of a training job that exclude, need or limit one another are refused when it is created."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clary.faults import Invalid
from clary.testing.control_plane import ControlPlane
from clary.testing.training_requests import OWN_IMAGE, training_request

LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:credentials"
VPC = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
}
RULE = {"RuleConfigurationName": "r", "RuleEvaluatorImage": "i"}


def resources(**members: Any) -> dict[str, Any]:
    return {
        "ResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
            **members,
        }
    }


def groups(*counts: int, **members: Any) -> dict[str, Any]:
    found = [
        {"InstanceGroupName": f"g{number}", "InstanceType": "ml.m5.large", "InstanceCount": count}
        for number, count in enumerate(counts)
    ]
    return {"ResourceConfig": {"InstanceGroups": found, "VolumeSizeInGB": 1, **members}}


def algorithm(**members: Any) -> dict[str, Any]:
    specification = {"TrainingImage": OWN_IMAGE, "TrainingInputMode": "File", **members}
    return {"AlgorithmSpecification": specification}


def checkpoints(path: str) -> dict[str, Any]:
    return {"CheckpointConfig": {"S3Uri": "s3://bucket/c", "LocalPath": path}}


def tensors(path: str | None = None) -> dict[str, Any]:
    given = {"LocalPath": path} if path else {}
    return {"DebugHookConfig": {"S3OutputPath": "s3://bucket/d", **given}}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (resources(VolumeSizeInGB=0), "VolumeSizeInGB must be at least 1 and is 0"),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1}},
            "VolumeSizeInGB must be at least 1 and is not given",
        ),
        (resources(InstanceType="ml.g5.xlarge", VolumeKmsKeyId="k"), "for instance type ml.g5.xlarge"),
        (groups(1, InstanceCount=1), "InstanceType or InstanceCount cannot be specified with InstanceGroups"),
        (groups(1, 0), "InstanceCount of instance group 'g1' must be at least 1"),
        (groups(60, 41), "1 to 100 instances, not 101"),
        (resources(SelectedInstanceType="ml.m5.large"), "SelectedInstanceType is read-only"),
        (
            {
                "ResourceConfig": {
                    "InstancePreferences": [{"InstanceType": "ml.m5.large"}],
                    "VolumeSizeInGB": 1,
                }
            },
            "InstancePreferences is not offered",
        ),
        (
            resources(KeepAlivePeriodInSeconds=60) | SPOT,
            "not supported together with EnableManagedSpotTraining",
        ),
        (groups(1, KeepAlivePeriodInSeconds=60), "not supported together with InstanceGroups"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 2_419_201}}, "at most 2419200 (28 days), not 2419201"),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 9, "MaxWaitTimeInSeconds": 9}},
            "It is only supported when EnableManagedSpotTraining is set to true",
        ),
        ({"RetryStrategy": {"MaximumRetryAttempts": 31}}, "less than or equal to 30"),
        ({"RetryStrategy": {"MaximumRetryAttempts": 0}}, "greater than or equal to 1"),
        (algorithm(ContainerEntrypoint=[""]), "first string of ContainerEntrypoint"),
        (algorithm(ContainerEntrypoint=[]), "containerEntrypoint"),
        (
            algorithm(MetricDefinitions=[{"Name": "m", "Regex": "(a)"}, {"Name": "m", "Regex": "(b)"}]),
            "'m' is given 2 times",
        ),
        (algorithm(TrainingImageConfig={"TrainingRepositoryAccessMode": "Vpc"}), "VpcConfig must be given"),
        (
            algorithm(
                TrainingImageConfig={
                    "TrainingRepositoryAccessMode": "Platform",
                    "TrainingRepositoryAuthConfig": {"TrainingRepositoryCredentialsProviderArn": LAMBDA},
                }
            ),
            "can only be given when TrainingRepositoryAccessMode is Vpc, not Platform",
        ),
        ({"VpcConfig": {"SecurityGroupIds": [], "Subnets": ["subnet-1"]}}, "securityGroupIds"),
        ({"VpcConfig": {"SecurityGroupIds": ["sg-1"] * 6, "Subnets": ["s"]}}, "securityGroupIds"),
        ({"Environment": {f"K{number}": "v" for number in range(101)}}, "environment"),
        ({"Environment": {"K": "v" * 513}}, "512"),
        ({"Environment": {"1K": "v"}}, "environment"),
        (checkpoints("checkpoints"), "'checkpoints' must be a folder of its own below /opt/ml"),
        (checkpoints("/tmp/checkpoints"), "below /opt/ml"),
        (checkpoints("/opt/ml"), "below /opt/ml"),
        (checkpoints("/opt/ml/../../etc"), "below /opt/ml"),
        (checkpoints("/opt/ml/checkpoints/../model"), "below /opt/ml"),
        (checkpoints("/opt/ml/model/checkpoints"), "apart from"),
        (checkpoints("/opt/ml/input/data/train"), "apart from"),
        (checkpoints("/opt/ml/output"), "apart from"),
        (tensors("/opt/ml/output/data/tensors"), "apart from"),
        (tensors("/opt/ml/output"), "apart from"),
        (
            checkpoints("/opt/ml/all/c") | tensors("/opt/ml/all"),
            "DebugHookConfig.LocalPath '/opt/ml/all' and CheckpointConfig.LocalPath '/opt/ml/all/c'",
        ),
        (
            {
                "TensorBoardOutputConfig": {
                    "S3OutputPath": "s3://bucket/t",
                    "LocalPath": "/opt/ml/output/tensors",
                }
            }
            | tensors(),
            "must be apart",
        ),
        ({"DebugRuleConfigurations": [RULE, RULE]}, "DebugRuleConfigurations must be unique: 'r'"),
        ({"ProfilerRuleConfigurations": [RULE, RULE]}, "ProfilerRuleConfigurations must be unique: 'r'"),
        (
            {
                "DebugHookConfig": {
                    "S3OutputPath": "s3://bucket/d",
                    "CollectionConfigurations": [{"CollectionName": "c"}, {"CollectionName": "c"}],
                }
            },
            "CollectionNames of DebugHookConfig must be unique: 'c'",
        ),
        ({"ProfilerConfig": {"ProfilingIntervalInMilliseconds": 300}}, "must be one of 100, 200, 500, 1000"),
        (
            {
                "ModelPackageConfig": {
                    "ModelPackageGroupArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/g"
                }
            },
            "ModelPackageConfig is not offered",
        ),
    ],
)
def test_a_wrong_combination_is_refused_and_nothing_is_kept(members: dict[str, Any], words: str) -> None:
    async def facts() -> None:
        plane = ControlPlane()
        with pytest.raises(Invalid) as refused:
            await plane.call("CreateTrainingJob", **training_request(**members))
        assert words in refused.value.message
        assert await plane.call("ListTrainingJobs") == {"TrainingJobSummaries": []}

    asyncio.run(facts())


@pytest.mark.parametrize(
    "members",
    [
        SPOT,
        SPOT | groups(1, 1),
        resources(KeepAlivePeriodInSeconds=0) | SPOT,
        resources(KeepAlivePeriodInSeconds=3600),
        resources(InstanceType="ml.g5.xlarge"),
        resources(InstanceType="ml.m5.large", VolumeKmsKeyId="k"),
        {"StoppingCondition": {"MaxRuntimeInSeconds": 2_419_200}},
        algorithm(ContainerEntrypoint=["train"], ContainerArguments=[""]),
        algorithm(TrainingImageConfig={"TrainingRepositoryAccessMode": "Vpc"}) | {"VpcConfig": VPC},
        checkpoints("/opt/ml/checkpoints/") | tensors(),
        checkpoints("/opt/ml/elsewhere") | tensors("/opt/ml/elsewhere-too"),
        {"DebugRuleConfigurations": [RULE], "ProfilerRuleConfigurations": [RULE]},
        {"ProfilerConfig": {"ProfilingIntervalInMilliseconds": 60_000}},
        {"ProfilerConfig": {"DisableProfiler": True}},
        {"DebugHookConfig": {"S3OutputPath": "s3://bucket/d", "CollectionConfigurations": [{}, {}]}},
    ],
)
def test_what_aws_takes_is_taken(members: dict[str, Any]) -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request(**members))

    asyncio.run(facts())


def test_profiling_is_held_to_the_same_rules_when_it_is_changed() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateTrainingJob", **training_request())
        for wrong in (
            {"ProfilerConfig": {"ProfilingIntervalInMilliseconds": 300}},
            {"ProfilerRuleConfigurations": [RULE, RULE]},
        ):
            with pytest.raises(Invalid):
                await plane.call("UpdateTrainingJob", TrainingJobName="job", **wrong)
        shown = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        assert not {"ProfilerConfig", "ProfilerRuleConfigurations"} & set(shown)

    asyncio.run(facts())
