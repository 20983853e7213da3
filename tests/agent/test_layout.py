"""The configuration files of a training job, for every mode of its channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clary.agent.layout import lay_out_training
from clary.resources.task import TrainingWork
from clary.testing.agent_world import AgentWorld, channel, training_spec


def configuration(folder: Path, name: str, **request: Any) -> Any:
    work = training_spec(AgentWorld(), "job", **request).work
    assert isinstance(work, TrainingWork)
    lay_out_training(folder, work)
    return json.loads((folder / "input/config" / name).read_text())


CHANNELS = [
    channel("plain", "s3://b/p"),
    {
        **channel("piped", "s3://b/m", S3DataType="AugmentedManifestFile", AttributeNames=["a", "b-ref"]),
        "InputMode": "Pipe",
        "RecordWrapperType": "RecordIO",
        "CompressionType": "Gzip",
        "ContentType": "application/x-recordio",
        "ShuffleConfig": {"Seed": 3},
    },
    {**channel("fast", "s3://b/f", S3DataDistributionType="ShardedByS3Key"), "InputMode": "FastFile"},
    {
        "ChannelName": "shared",
        "DataSource": {
            "FileSystemDataSource": {
                "FileSystemId": "fs-0123abcd",
                "FileSystemAccessMode": "rw",
                "FileSystemType": "EFS",
                "DirectoryPath": "/data",
            }
        },
    },
]


def test_channels_are_described_as_their_modes_ask(tmp_path: Path) -> None:
    assert configuration(tmp_path, "inputdataconfig.json", InputDataConfig=CHANNELS) == {
        "plain": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        },
        "piped": {
            "TrainingInputMode": "Pipe",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "RecordIO",
            "ContentType": "application/x-recordio",
        },
        "fast": {
            "TrainingInputMode": "FastFile",
            "S3DistributionType": "ShardedByS3Key",
            "RecordWrapperType": "None",
        },
        "shared": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        },
    }


def test_the_initial_configuration_names_the_sources(tmp_path: Path) -> None:
    written = configuration(tmp_path, "init-config.json", InputDataConfig=CHANNELS)
    assert written["inputMode"] == "FILE"
    channels = written["channels"]
    assert list(channels) == ["plain", "piped", "fast", "shared"]
    assert channels["piped"] == {
        "s3DataSource": {
            "attributeNames": ["a", "b-ref"],
            "s3DataDistributionType": "FULLY_REPLICATED",
            "s3DataType": "AUGMENTED_MANIFEST_FILE",
            "s3Uri": "s3://b/m",
        },
        "fileSystemDataSource": None,
        "contentType": "application/x-recordio",
        "compressionType": "GZIP",
        "recordWrapperType": "RECORDIO",
        "inputMode": "PIPE",
        "sharded": False,
        "shuffleConfig": {"seed": 3},
    }
    assert channels["fast"]["sharded"] is True
    assert channels["shared"]["s3DataSource"] is None
    assert channels["shared"]["fileSystemDataSource"]["fileSystemId"] == "fs-0123abcd"


def test_a_job_in_pipe_mode_pipes_the_channels_that_name_no_mode(tmp_path: Path) -> None:
    written = configuration(
        tmp_path,
        "inputdataconfig.json",
        InputDataConfig=[channel("train", "s3://b/x"), {**channel("test", "s3://b/y"), "InputMode": "File"}],
        AlgorithmSpecification={"TrainingImage": "i", "TrainingInputMode": "Pipe"},
    )
    assert [each["TrainingInputMode"] for each in written.values()] == ["Pipe", "File"]


def test_a_job_without_channels_has_an_empty_configuration(tmp_path: Path) -> None:
    assert configuration(tmp_path, "inputdataconfig.json", InputDataConfig=None) == {}
