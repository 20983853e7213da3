"""Broken constraints, in AWS's words."""

from __future__ import annotations

from typing import Any

import pytest

from clary.faults import Invalid
from clary.protocol.models import SERVED, ServiceModels
from clary.protocol.patterns import compiled
from clary.protocol.validation import validate

MODELS = ServiceModels()


def job(**changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "job",
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::123456789012:role/Role",
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    } | changes


def message(members: dict[str, Any], operation: str = "CreateTrainingJob", service: str = "sagemaker") -> str:
    shape = MODELS[service].operation_model(operation).input_shape
    with pytest.raises(Invalid) as caught:
        validate(shape, members)
    return caught.value.message


def test_a_right_request_passes() -> None:
    validate(MODELS["sagemaker"].operation_model("CreateTrainingJob").input_shape, job())


def test_a_broken_pattern_names_value_path_and_pattern() -> None:
    pattern = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
    assert message(job(TrainingJobName="no_good")) == (
        "1 validation error detected: Value 'no_good' at 'trainingJobName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern}"
    )


def test_an_unknown_enum_value_names_the_set() -> None:
    specification = {"TrainingImage": "image", "TrainingInputMode": "Teleport"}
    assert message(job(AlgorithmSpecification=specification)) == (
        "1 validation error detected: Value 'Teleport' at 'algorithmSpecification.trainingInputMode' failed "
        "to satisfy constraint: Member must satisfy enum value set: [Pipe, File, FastFile]"
    )


def test_several_errors_are_told_at_once() -> None:
    told = message(job(TrainingJobName="_", StoppingCondition={"MaxRuntimeInSeconds": 0}))
    assert told.startswith("2 validation errors detected: Value '_' at 'trainingJobName'")
    assert "; Value '0' at 'stoppingCondition.maxRuntimeInSeconds' failed to satisfy constraint: " in told
    assert told.endswith("Member must have value greater than or equal to 1")


def test_a_missing_member_must_not_be_null() -> None:
    members = job()
    del members["RoleArn"]
    assert message(members) == (
        "1 validation error detected: Value null at 'roleArn' failed to satisfy "
        "constraint: Member must not be null"
    )


def test_a_list_item_is_named_by_its_number() -> None:
    channel = {
        "ChannelName": "a b",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/k"}},
    }
    assert "Value 'a b' at 'inputDataConfig.1.member.channelName'" in message(job(InputDataConfig=[channel]))


def test_a_maps_values_are_told_together() -> None:
    told = message(job(HyperParameters={"a": "x" * 2501}))
    assert "at 'hyperParameters' failed to satisfy constraint: Map value must satisfy constraint: [" in told


def test_many_errors_are_cut_off() -> None:
    channels = [{"ChannelName": "!", "DataSource": {}} for _ in range(20)]
    assert message(job(InputDataConfig=channels)).startswith("10 validation errors detected: ")


def test_unicode_names_pass_where_the_model_allows_letters() -> None:
    shape = MODELS["sagemaker"].operation_model("AddTags").input_shape
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model/m"
    validate(shape, {"ResourceArn": arn, "Tags": [{"Key": "größe", "Value": "日本 語"}]})
    bad = message({"ResourceArn": arn, "Tags": [{"Key": "a\x00", "Value": ""}]}, "AddTags")
    assert "tags.1.member.key" in bad


@pytest.mark.parametrize("service", SERVED)
def test_every_pattern_of_the_models_can_be_tried(service: str) -> None:
    model = MODELS[service]
    for name in model.shape_names:
        pattern = model.shape_for(name).metadata.get("pattern")
        if pattern:
            compiled(pattern)
