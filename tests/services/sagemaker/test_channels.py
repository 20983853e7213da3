"""The channels of a training job: what may go together, and the words for what may not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.api_world import ApiWorld
from clary.testing.training_requests import channel, training_request

FILE_SYSTEM = {
    "FileSystemId": "fs-0123abcd",
    "FileSystemAccessMode": "ro",
    "FileSystemType": "EFS",
    "DirectoryPath": "/data/train",
}
GROUPS = {
    "InstanceGroups": [
        {"InstanceGroupName": "big", "InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
        {"InstanceGroupName": "small", "InstanceType": "ml.m5.large", "InstanceCount": 1},
    ],
    "VolumeSizeInGB": 1,
}


def s3_channel(
    name: str = "train", source: Mapping[str, Any] | None = None, **members: Any
) -> dict[str, Any]:
    """A channel whose S3DataSource has the further members ``source``."""
    made = channel(name, **members)
    made["DataSource"]["S3DataSource"].update(source or {})
    return made


def mounted(name: str = "train", source: Mapping[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """A channel from a file system."""
    data = {"FileSystemDataSource": {**FILE_SYSTEM, **(source or {})}}
    return {"ChannelName": name, "DataSource": data, **members}


AUGMENTED = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["source-ref", "label"]}


@pytest.mark.parametrize(
    "channels",
    [
        [
            s3_channel(
                source=AUGMENTED, InputMode="Pipe", RecordWrapperType="RecordIO", CompressionType="Gzip"
            )
        ],
        [s3_channel(source={"S3DataType": "ManifestFile"}, ShuffleConfig={"Seed": 1})],
        [s3_channel(source={"S3DataType": "ManifestFile"}, InputMode="Pipe")],
        [s3_channel(InputMode="FastFile", CompressionType="None", RecordWrapperType="None")],
        [s3_channel(source={"S3DataDistributionType": "ShardedByS3Key", "InstanceGroupNames": ["small"]})],
        [s3_channel("a", InputMode="Pipe"), s3_channel("b", InputMode="FastFile"), mounted("c")],
        [s3_channel("train", InputMode="Pipe"), s3_channel("train_x"), s3_channel("train_0x")],
        [s3_channel("train"), s3_channel("train_0")],
        [mounted(source={"FileSystemAccessMode": "rw", "DirectoryPath": "/"})],
        [s3_channel(source={"ModelAccessConfig": {"AcceptEula": True}})],
        [s3_channel(source={"S3Uri": "s3://bucket"})],
    ],
)
def test_what_goes_together_is_taken(tmp_path: Path, channels: list[dict[str, Any]]) -> None:
    client = ApiWorld(tmp_path).client("sagemaker")
    client.create_training_job(**training_request(InputDataConfig=channels, ResourceConfig=GROUPS))
    assert client.describe_training_job(TrainingJobName="job")["InputDataConfig"] == channels


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ([s3_channel(source=AUGMENTED)], "can only be used if the Channel's input mode is Pipe"),
        ([s3_channel(source=AUGMENTED, InputMode="FastFile")], "the channel 'train' has FastFile input mode"),
        (
            [s3_channel(source={**AUGMENTED, "AttributeNames": []}, InputMode="Pipe")],
            "AttributeNames must be specified for the channel 'train'",
        ),
        (
            [s3_channel(source={"AttributeNames": ["a"]}, InputMode="Pipe")],
            "AttributeNames can only be used with the S3DataType AugmentedManifestFile",
        ),
        (
            [s3_channel(source={"S3DataType": "ManifestFile"}, InputMode="FastFile")],
            "FastFile input mode supports S3 prefixes only, not ManifestFile",
        ),
        (
            [s3_channel(CompressionType="Gzip")],
            "CompressionType is used only in Pipe input mode. In File mode",
        ),
        (
            [s3_channel(CompressionType="Gzip", InputMode="FastFile")],
            "In FastFile mode, leave this field unset",
        ),
        ([s3_channel(RecordWrapperType="RecordIO")], "RecordWrapperType is used only in Pipe input mode"),
        ([s3_channel(source={"S3DataType": "Converse"})], "Converse of the channel 'train' is not offered"),
        ([s3_channel(source={"S3Uri": "https://bucket/x"})], "must look like s3://bucket/key-prefix"),
        (
            [s3_channel(source={"HubAccessConfig": {"HubContentArn": "arn"}})],
            "HubAccessConfig of the channel 'train' is not offered",
        ),
        (
            [s3_channel(source={"ModelAccessConfig": {"AcceptEula": False}})],
            "You must explicitly accept the end-user license agreement",
        ),
        (
            [s3_channel(source={"InstanceGroupNames": ["big", "huge"]})],
            "names 'huge'; the instance groups of the job are: big, small",
        ),
        ([s3_channel("..")], "'..' cannot be the name of a channel"),
        ([s3_channel("a", InputMode="Pipe"), s3_channel("a_12")], "would be a pipe of 'a'"),
        (
            [s3_channel("a", {"S3DataType": "ManifestFile"}), s3_channel("a-manifest")],
            "whose manifest is to lie at /opt/ml/input/data/a-manifest",
        ),
        ([mounted(InputMode="Pipe")], "FileSystemDataSource supports File input mode only"),
        ([mounted(ShuffleConfig={"Seed": 1})], "ShuffleConfig of the channel 'train' can only be used with"),
        ([mounted(CompressionType="Gzip")], "CompressionType is used only in Pipe input mode"),
        (
            [mounted(source={"DirectoryPath": "data"})],
            "The DirectoryPath 'data' of the channel 'train' must be",
        ),
        ([mounted(source={"DirectoryPath": "/data/../etc"})], "without '..'"),
        (
            [
                {
                    "ChannelName": "train",
                    "DataSource": {
                        "DatasetSource": {
                            "DatasetArn": "arn:aws:sagemaker:us-east-1:123456789012:hub-content/h/DataSet/d"
                        }
                    },
                }
            ],
            "has a DatasetSource",
        ),
        (
            [{**mounted(), "DataSource": {**mounted()["DataSource"], **s3_channel()["DataSource"]}}],
            "must have exactly one data source, not 2",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, channels: list[dict[str, Any]], words: str
) -> None:
    client = ApiWorld(tmp_path).client("sagemaker")
    with pytest.raises(ClientError) as refused:
        client.create_training_job(**training_request(InputDataConfig=channels, ResourceConfig=GROUPS))
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert words in refused.value.response["Error"]["Message"]
    assert client.list_training_jobs()["TrainingJobSummaries"] == []


def test_the_job_s_input_mode_counts_for_channels_without_one(tmp_path: Path) -> None:
    client = ApiWorld(tmp_path).client("sagemaker")
    request = training_request(InputDataConfig=[s3_channel(CompressionType="Gzip")])
    request["AlgorithmSpecification"]["TrainingInputMode"] = "Pipe"
    client.create_training_job(**request)
    request["InputDataConfig"][0]["InputMode"] = "File"
    with pytest.raises(ClientError, match="CompressionType is used only in Pipe input mode"):
        client.create_training_job(**{**request, "TrainingJobName": "other"})
