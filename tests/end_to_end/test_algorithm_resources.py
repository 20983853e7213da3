"""Algorithms on a real server: validated by a job that really trains, and trained with by name."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

GOOD = "".join(f"{row % 2},{row % 2 + row / 1000},{row}\n" for row in range(60))
XGBOOST = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"
SKLEARN = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
PATIENCE_SECONDS = 120

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def specification(**members: Any) -> dict[str, Any]:
    return {
        "TrainingImage": XGBOOST,
        "SupportedHyperParameters": [
            {"Name": "num_round", "Type": "Integer", "DefaultValue": "4", "IsTunable": False},
            {"Name": "objective", "Type": "Categorical", "IsRequired": True},
        ],
        "SupportedTrainingInstanceTypes": ["ml.m5.large"],
        "SupportsDistributedTraining": False,
        "TrainingChannels": [
            {
                "Name": "train",
                "IsRequired": True,
                "SupportedContentTypes": ["text/csv"],
                "SupportedInputModes": ["File", "FastFile"],
            }
        ],
        **members,
    }


def validation(train: str, **hyperparameters: str) -> dict[str, Any]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": train}}
    job = {
        "TrainingInputMode": "File",
        "HyperParameters": hyperparameters,
        "InputDataConfig": [{"ChannelName": "train", "ContentType": "text/csv", "DataSource": source}],
        "OutputDataConfig": {"S3OutputPath": "s3://end-to-end/validation"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
    }
    return {
        "ValidationRole": ROLE,
        "ValidationProfiles": [{"ProfileName": "small", "TrainingJobDefinition": job}],
    }


def create(platform: Any, **members: Any) -> str:
    name = f"algorithm-{uuid.uuid4().hex[:12]}"
    platform.sagemaker.create_algorithm(AlgorithmName=name, **members)
    return name


def settled(platform: Any, name: str) -> dict[str, Any]:
    """The algorithm's description once its validation is over."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        shown: dict[str, Any] = platform.sagemaker.describe_algorithm(AlgorithmName=name)
        if shown["AlgorithmStatus"] not in ("Pending", "InProgress"):
            return shown
        assert time.monotonic() < until, shown
        time.sleep(0.1)


def test_an_algorithm_is_validated_by_a_job_that_trains_and_then_trains_by_name(platform):
    train = platform.data(GOOD)
    name = create(
        platform,
        TrainingSpecification=specification(),
        ValidationSpecification=validation(train, objective="binary:logistic"),
    )
    shown = settled(platform, name)
    assert shown["AlgorithmStatus"] == "Completed", shown["AlgorithmStatusDetails"]
    listed = platform.sagemaker.list_training_jobs(NameContains=f"{name}-small")["TrainingJobSummaries"]
    [validated] = [platform.ended(each["TrainingJobName"]) for each in listed]
    assert validated["TrainingJobStatus"] == "Completed"
    assert platform.members(validated["ModelArtifacts"]["S3ModelArtifacts"]) == {"xgboost-model"}

    specified = {"AlgorithmName": shown["AlgorithmArn"], "TrainingInputMode": "File"}
    job = platform.create(
        train=train, AlgorithmSpecification=specified, HyperParameters={"objective": "binary:logistic"}
    )
    platform.sagemaker.delete_algorithm(AlgorithmName=name)
    ended = platform.ended(job)
    assert ended["TrainingJobStatus"] == "Completed", ended.get("FailureReason")
    assert ended["AlgorithmSpecification"]["AlgorithmName"] == shown["AlgorithmArn"]
    assert ended["HyperParameters"] == {"objective": "binary:logistic", "num_round": "4"}
    assert [metric["MetricName"] for metric in ended["FinalMetricDataList"]] == ["train:logloss"]
    assert any(line.startswith("[3]\ttrain-logloss:") for line in platform.log(job))
    with pytest.raises(ClientError, match="does not exist"):
        platform.sagemaker.describe_algorithm(AlgorithmName=name)


def test_a_validation_that_fails_carries_the_cause(platform):
    name = create(
        platform,
        TrainingSpecification=specification(),
        ValidationSpecification=validation(platform.data("0,1\n1,x\n"), objective="binary:logistic"),
    )
    shown = settled(platform, name)
    assert shown["AlgorithmStatus"] == "Failed"
    [item] = shown["AlgorithmStatusDetails"]["ValidationStatuses"]
    assert (item["Name"], item["Status"]) == ("small", "Failed")
    assert "line 2, column 2: 'x' is not a number" in item["FailureReason"]
    with pytest.raises(ClientError, match="is in status Failed"):
        specified = {"AlgorithmName": name, "TrainingInputMode": "File"}
        platform.create(AlgorithmSpecification=specified, HyperParameters={"objective": "binary:logistic"})


def test_a_script_is_published_with_a_framework_image(platform):
    source = platform.source(
        train_py="import os, argparse\n"
        "given = argparse.ArgumentParser()\n"
        "given.add_argument('--size', type=int)\n"
        "size = given.parse_args().size\n"
        "print(f'size={size};')\n"
        "open(os.path.join(os.environ['SM_MODEL_DIR'], 'model'), 'w').write('x' * size)\n"
    )
    training = specification(
        TrainingImage=SKLEARN,
        SupportedHyperParameters=[
            {"Name": "size", "Type": "Integer", "DefaultValue": "7"},
            {"Name": "sagemaker_program", "Type": "FreeText", "DefaultValue": "train.py"},
            {"Name": "sagemaker_submit_directory", "Type": "FreeText", "DefaultValue": source},
        ],
        MetricDefinitions=[{"Name": "size", "Regex": "size=([0-9]+);"}],
    )
    name = create(platform, TrainingSpecification=training)
    specified = {"AlgorithmName": name, "TrainingInputMode": "File"}
    job = platform.create(
        train=platform.data(GOOD), AlgorithmSpecification=specified, HyperParameters={"size": "9"}
    )
    ended = platform.ended(job)
    assert ended["TrainingJobStatus"] == "Completed", ended.get("FailureReason")
    found = {each["MetricName"]: each["Value"] for each in ended["FinalMetricDataList"]}
    assert found == {"size": 9.0}
    assert platform.members(ended["ModelArtifacts"]["S3ModelArtifacts"]) == {"model"}


def test_deleting_an_algorithm_stops_its_validation_for_real(platform):
    source = platform.source(train_py="import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    training = specification(
        TrainingImage=SKLEARN,
        SupportedHyperParameters=[
            {"Name": "sagemaker_program", "Type": "FreeText", "DefaultValue": "train.py"},
            {"Name": "sagemaker_submit_directory", "Type": "FreeText", "DefaultValue": source},
        ],
    )
    name = create(
        platform,
        TrainingSpecification=training,
        ValidationSpecification=validation(platform.data(GOOD)),
    )
    until = time.monotonic() + PATIENCE_SECONDS
    while not (
        listed := platform.sagemaker.list_training_jobs(NameContains=f"{name}-small")["TrainingJobSummaries"]
    ):
        assert time.monotonic() < until
        time.sleep(0.1)
    job = listed[0]["TrainingJobName"]
    platform.until_training(job)
    platform.sagemaker.delete_algorithm(AlgorithmName=name)
    assert platform.ended(job)["TrainingJobStatus"] == "Stopped"
    while platform.sagemaker.list_algorithms(NameContains=name)["AlgorithmSummaryList"]:
        assert time.monotonic() < until
        time.sleep(0.1)
