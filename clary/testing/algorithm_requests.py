"""Requests for algorithms, complete and small, for tests."""

from __future__ import annotations

from typing import Any

from clary.testing.training_requests import ACCOUNT, OWN_IMAGE, channel

ROLE = f"arn:aws:iam::{ACCOUNT}:role/service"


def hyperparameter(name: str, kind: str, *ends: str, **members: Any) -> dict[str, Any]:
    """A HyperParameterSpecification; ``ends`` are the least and the greatest value, or the categories."""
    parameter: dict[str, Any] = {"Name": name, "Type": kind, **members}
    if ends:
        range_ = {"Values": list(ends)} if kind == "Categorical" else dict(zip(_ENDS, ends, strict=True))
        parameter["Range"] = {f"{kind}ParameterRangeSpecification": range_}
    return parameter


_ENDS = ("MinValue", "MaxValue")


def training_specification(**members: Any) -> dict[str, Any]:
    """A TrainingSpecification; ``members`` replace the usual ones, ``None`` leaves one out."""
    specification = {
        "TrainingImage": OWN_IMAGE,
        "SupportedHyperParameters": [
            hyperparameter("depth", "Integer", "1", "10", DefaultValue="3", IsTunable=True),
            hyperparameter("rate", "Continuous", "0.0", "1.0", IsRequired=True),
            hyperparameter("booster", "Categorical", "tree", "linear", DefaultValue="tree"),
            hyperparameter("note", "FreeText"),
        ],
        "SupportedTrainingInstanceTypes": ["ml.m5.large", "ml.m5.xlarge"],
        "SupportsDistributedTraining": False,
        "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
        "TrainingChannels": [
            {
                "Name": "train",
                "IsRequired": True,
                "SupportedContentTypes": ["text/csv"],
                "SupportedCompressionTypes": ["None"],
                "SupportedInputModes": ["File"],
            },
            {
                "Name": "validation",
                "SupportedContentTypes": ["text/csv", "application/json"],
                "SupportedInputModes": ["File", "Pipe"],
            },
        ],
        "SupportedTuningJobObjectiveMetrics": [{"Type": "Minimize", "MetricName": "loss"}],
        **members,
    }
    return {name: value for name, value in specification.items() if value is not None}


def validation_specification(profile: str = "profile", **members: Any) -> dict[str, Any]:
    """A ValidationSpecification of one profile; ``members`` replace those of its training job."""
    definition = {
        "TrainingInputMode": "File",
        "HyperParameters": {"rate": "0.5"},
        "InputDataConfig": [channel("train")],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/validation"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        **members,
    }
    return {
        "ValidationRole": ROLE,
        "ValidationProfiles": [{"ProfileName": profile, "TrainingJobDefinition": definition}],
    }


def algorithm_request(name: str = "algorithm", **members: Any) -> dict[str, Any]:
    """A CreateAlgorithm input without validation."""
    return {"AlgorithmName": name, "TrainingSpecification": training_specification(), **members}
