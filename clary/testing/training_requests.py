"""Requests for training jobs, complete and small, for tests."""

from __future__ import annotations

from typing import Any

ACCOUNT = "123456789012"
OWN_IMAGE = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/own:1"
XGBOOST_IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"


def channel(name: str = "train", **members: Any) -> dict[str, Any]:
    """A channel with S3 data."""
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://bucket/{name}/"}}
    return {"ChannelName": name, "DataSource": source, **members}


def training_request(name: str = "job", *, image: str = OWN_IMAGE, **members: Any) -> dict[str, Any]:
    """A CreateTrainingJob input; ``members`` replace the usual ones, those that are ``None`` are left out."""
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/service",
        "AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"},
        "InputDataConfig": [channel()],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        **members,
    }
    return {member: value for member, value in request.items() if value is not None}
