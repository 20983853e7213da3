"""A bought algorithm: its image is here, its ARN is the marketplace's, and it trains in a container."""

from __future__ import annotations

import io
import tarfile
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.container_images import Images
from clary.testing.server import ServerProcess

BOUGHT = "arn:aws:sagemaker:us-east-1:865070037744:algorithm/bought-trees-57b73412"
ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
TRAIN = """#!/usr/bin/python3
import json
given = json.load(open("/opt/ml/input/config/hyperparameters.json"))
if given["depth"] == "9":
    raise SystemExit(3)
print(f"loss={1 / int(given['depth'])};", flush=True)
open("/opt/ml/model/trees", "w").write(json.dumps(given))
"""
PATIENCE_SECONDS = 120

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("containers")]


def job(depth: str) -> dict[str, Any]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bought/train/"}}
    return {
        "HyperParameters": {"depth": depth},
        "InputDataConfig": [{"ChannelName": "train", "DataSource": source}],
        "OutputDataConfig": {"S3OutputPath": "s3://bought/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
    }


def algorithm(image: str, depth: str) -> dict[str, Any]:
    range_ = {"IntegerParameterRangeSpecification": {"MinValue": "1", "MaxValue": "9"}}
    return {
        "TrainingSpecification": {
            "TrainingImage": image,
            "SupportedHyperParameters": [{"Name": "depth", "Type": "Integer", "Range": range_}],
            "SupportedTrainingInstanceTypes": ["ml.m5.large"],
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
            "TrainingChannels": [
                {"Name": "train", "SupportedContentTypes": [], "SupportedInputModes": ["File"]}
            ],
        },
        "ValidationSpecification": {
            "ValidationRole": ROLE,
            "ValidationProfiles": [
                {
                    "ProfileName": "small",
                    "TrainingJobDefinition": {"TrainingInputMode": "File", **job(depth)},
                }
            ],
        },
    }


def settled(sagemaker: Any, name: str) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        shown: dict[str, Any] = sagemaker.describe_algorithm(AlgorithmName=name)
        if shown["AlgorithmStatus"] not in ("Pending", "InProgress"):
            return shown
        assert time.monotonic() < until, shown
        time.sleep(0.1)


def ended(sagemaker: Any, name: str) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        shown: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=name)
        if shown["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            return shown
        assert time.monotonic() < until, shown["SecondaryStatusTransitions"]
        time.sleep(0.1)


def test_a_bought_algorithm_is_validated_and_trains_in_a_container(images: Images, tmp_path: Path) -> None:
    repository = f"bought-{uuid.uuid4().hex[:8]}"
    images.make({"/usr/local/bin/train": TRAIN}, name=f"{repository}:1")
    image = f"865070037744.dkr.ecr.us-east-1.amazonaws.com/{repository}:1"
    with ServerProcess(tmp_path, docker_host=images.address) as server:
        s3, sagemaker = server.client("s3"), server.client("sagemaker")
        s3.create_bucket(Bucket="bought")
        s3.put_object(Bucket="bought", Key="train/rows.csv", Body=b"1,2\n")
        with pytest.raises(ClientError, match="Caller is not subscribed to the marketplace offering"):
            sagemaker.describe_algorithm(AlgorithmName=BOUGHT)

        sagemaker.create_algorithm(AlgorithmName="broken-trees", **algorithm(image, depth="9"))
        shown = settled(sagemaker, "broken-trees")
        [item] = shown["AlgorithmStatusDetails"]["ValidationStatuses"]
        assert shown["AlgorithmStatus"] == item["Status"] == "Failed"
        assert "exit code: 3" in item["FailureReason"].lower(), item["FailureReason"]

        sagemaker.create_algorithm(AlgorithmName="bought-trees-57b73412", **algorithm(image, depth="2"))
        shown = settled(sagemaker, BOUGHT)
        assert shown["AlgorithmStatus"] == "Completed", shown["AlgorithmStatusDetails"]
        sagemaker.create_training_job(
            TrainingJobName="by-arn",
            RoleArn=ROLE,
            AlgorithmSpecification={"AlgorithmName": BOUGHT, "TrainingInputMode": "File"},
            **job("4"),
        )
        trained = ended(sagemaker, "by-arn")
        assert trained["TrainingJobStatus"] == "Completed", trained.get("FailureReason")
        metrics = {each["MetricName"]: each["Value"] for each in trained["FinalMetricDataList"]}
        assert metrics == {"loss": 0.25}
        bucket, key = trained["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").split("/", 1)
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            assert [member.name.removeprefix("./") for member in archive if member.isfile()] == ["trees"]
        left = server
    assert left.processes() == {}
