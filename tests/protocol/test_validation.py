"""Broken constraints, in AWS's words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from clary.faults import Invalid
from clary.protocol.models import SERVED, ServiceModels
from clary.protocol.validation import MAX_VALUE_SHOWN, ConstraintViolation, validate

MODELS = ServiceModels()
JOB_NAME_PATTERN = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"


def job(**changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "job",
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::123456789012:role/Role",
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    } | changes


def check(members: dict[str, Any], operation: str = "CreateTrainingJob", service: str = "sagemaker") -> None:
    validate(MODELS[service].operation_model(operation).input_shape, members)


def message(members: dict[str, Any], operation: str = "CreateTrainingJob", service: str = "sagemaker") -> str:
    with pytest.raises(Invalid) as caught:
        check(members, operation, service)
    assert caught.value.code is None
    return caught.value.message


def test_a_right_request_passes() -> None:
    check(job())


def test_members_that_no_shape_knows_are_ignored() -> None:
    check(job(Unknown={"a": [1]}, StoppingCondition={"MaxRuntimeInSeconds": 60, "Unknown": None}))


def test_a_broken_pattern_names_value_path_and_pattern() -> None:
    assert message(job(TrainingJobName="no_good")) == (
        "1 validation error detected: Value 'no_good' at 'trainingJobName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {JOB_NAME_PATTERN}"
    )


def test_the_whole_text_must_match() -> None:
    assert "trainingJobName" in message(job(TrainingJobName="job\n"))


def test_a_text_that_is_too_long_is_not_tried_against_its_pattern() -> None:
    told = message(job(TrainingJobName="a" * 5000))
    assert told == (
        f"1 validation error detected: Value '{'a' * MAX_VALUE_SHOWN}...' at 'trainingJobName' failed to "
        "satisfy constraint: Member must have length less than or equal to 63"
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
    members = job(OutputDataConfig={})
    del members["RoleArn"]
    assert message(members) == (
        "2 validation errors detected: Value null at 'roleArn' failed to satisfy constraint: Member must not "
        "be null; Value null at 'outputDataConfig.s3OutputPath' failed to satisfy constraint: Member must "
        "not be null"
    )


def test_a_list_item_is_named_by_its_number() -> None:
    good = {"ChannelName": "a", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b"}}}
    bad = {"ChannelName": "a b", "DataSource": {"S3DataSource": {"S3DataType": "Prefix", "S3Uri": "s3://b"}}}
    told = message(job(InputDataConfig=[good, bad]))
    assert "Value 'a b' at 'inputDataConfig.2.member.channelName'" in told
    assert "Value 'Prefix' at 'inputDataConfig.2.member.dataSource.s3DataSource.s3DataType'" in told


def test_scalars_of_a_list_are_told_together() -> None:
    vpc = {"SecurityGroupIds": ["sg-1", "bad id"], "Subnets": ["subnet-1"]}
    shape = MODELS["sagemaker"].shape_for("SecurityGroupId")
    assert message(job(VpcConfig=vpc)) == (
        "1 validation error detected: Value '[sg-1, bad id]' at 'vpcConfig.securityGroupIds' failed to "
        "satisfy constraint: Member must satisfy constraint: ["
        f"Member must have length less than or equal to {shape.metadata['max']}, "
        f"Member must have length greater than or equal to {shape.metadata['min']}, "
        f"Member must satisfy regular expression pattern: {shape.metadata['pattern']}]"
    )


def test_the_size_of_a_list_is_checked() -> None:
    told = message(job(VpcConfig={"SecurityGroupIds": [], "Subnets": ["subnet-1"] * 17}))
    assert (
        "Value '[]' at 'vpcConfig.securityGroupIds' failed to satisfy constraint: Member must have length"
        in told
    )
    assert "greater than or equal to 1" in told
    assert "at 'vpcConfig.subnets' failed to satisfy constraint: Member must have length less than" in told


def test_a_null_in_a_list_is_refused() -> None:
    assert "Value null at 'tags.1.member' failed to satisfy constraint: Member must not be null" in message(
        job(Tags=[None])
    )
    vpc = {"SecurityGroupIds": [None], "Subnets": ["subnet-1"]}
    assert "Value '[null]' at 'vpcConfig.securityGroupIds'" in message(job(VpcConfig=vpc))


def test_keys_and_values_of_a_map_are_told_together() -> None:
    told = message(job(HyperParameters={"a" * 257: "x", "b": "x" * 2501}))
    assert told.startswith("2 validation errors detected: ")
    assert "at 'hyperParameters' failed to satisfy constraint: Map keys must satisfy constraint: [" in told
    assert "at 'hyperParameters' failed to satisfy constraint: Map value must satisfy constraint: [" in told


def test_structures_in_a_map_are_named_by_their_key() -> None:
    members = {"TrialComponentName": "t", "InputArtifacts": {"data": {"MediaType": "text/csv"}}}
    told = message(members, "CreateTrialComponent")
    assert "Value null at 'inputArtifacts.data.member.value'" in told


def test_a_union_has_exactly_one_member() -> None:
    shape = next(
        shape
        for name in MODELS["sagemaker"].shape_names
        for shape in [MODELS["sagemaker"].shape_for(name)]
        if getattr(shape, "is_tagged_union", False) and len(shape.members) > 1
    )
    first, second = list(shape.members)[:2]
    for members in ({}, {first: _least(shape.members[first]), second: _least(shape.members[second])}):
        with pytest.raises(Invalid, match="Member must have exactly one of its members set"):
            validate(shape, members)


def _least(shape: Any) -> Any:
    return {"structure": {}, "list": [], "map": {}, "string": "", "boolean": True}.get(shape.type_name, 1)


def test_bounds_are_inclusive() -> None:
    for count in (0, 2**31 - 1):
        check(
            job(ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": count, "VolumeSizeInGB": 1})
        )
    told = message(job(StoppingCondition={"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 0}))
    assert "Value '0' at 'stoppingCondition.maxWaitTimeInSeconds'" in told


def test_a_sensitive_value_is_not_repeated() -> None:
    model = MODELS["kms"]
    shapes = (model.operation_model(name).input_shape for name in model.operation_names)
    shape, member = next(
        (shape, name)
        for shape in shapes
        if shape is not None
        for name, member in shape.members.items()
        if member.metadata.get("sensitive") and member.metadata.get("max") and member.type_name == "blob"
    )
    with pytest.raises(Invalid) as caught:
        validate(shape, {member: b"secret" * 100_000})
    name = member[0].lower() + member[1:]
    assert f"Value at '{name}' failed to satisfy constraint: Member must have length" in caught.value.message
    assert "secret" not in caught.value.message


def test_many_errors_are_cut_off() -> None:
    channels = [{"ChannelName": "!", "DataSource": {}} for _ in range(20)]
    assert message(job(InputDataConfig=channels)).startswith("10 validation errors detected: ")


def test_a_long_message_stays_short() -> None:
    tags = [{"Key": "\x00" * 120, "Value": "v" * 200}] * 10_000
    assert len(message(job(Tags=tags, HyperParameters={str(n): "x" * 3000 for n in range(200)}))) < 20_000


def test_unicode_names_pass_where_the_model_allows_letters() -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model/m"
    check({"ResourceArn": arn, "Tags": [{"Key": "größe", "Value": "日本 語"}]}, "AddTags")
    told = message({"ResourceArn": arn, "Tags": [{"Key": "a\x00", "Value": ""}]}, "AddTags")
    assert "at 'tags.1.member.key'" in told


def test_conditions_may_nest() -> None:
    expression: dict[str, Any] = {"Filters": [{"Name": "", "Operator": "Like"}]}
    for _ in range(5):
        expression = {"SubExpressions": [expression]}
    told = message({"Resource": "TrainingJob", "SearchExpression": expression}, "Search")
    path = "searchExpression" + ".subExpressions.1.member" * 5 + ".filters.1.member"
    assert f"Value '' at '{path}.name'" in told
    assert f"Value 'Like' at '{path}.operator'" in told


def test_a_body_that_streams_is_not_looked_at() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b""

    check({"Bucket": "b", "Key": "k", "Body": body()}, "PutObject", "s3")
    assert "Value '' at 'key'" in message({"Bucket": "b", "Key": "", "Body": body()}, "PutObject", "s3")


def test_the_members_that_hold_the_errors_are_known() -> None:
    with pytest.raises(ConstraintViolation) as caught:
        check({"Bucket": "b", "VersioningConfiguration": {"Status": "On"}}, "PutBucketVersioning", "s3")
    assert caught.value.members == {"VersioningConfiguration"}


@pytest.mark.parametrize("service", SERVED)
def test_every_input_can_be_checked(service: str) -> None:
    model = MODELS[service]
    for name in model.operation_names:
        shape = model.operation_model(name).input_shape
        if shape is None:
            continue
        if shape.required_members:
            with pytest.raises(Invalid, match=r"validation errors? detected: Value null at '"):
                validate(shape, {})
        else:
            validate(shape, {})
