"""``kill -9`` of the real server while it validates an algorithm: the validation goes on, with one job."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import pytest

from clary.testing.server import ServerProcess

ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
SCRIPT = """
import os, time
print("begun", flush=True)
time.sleep(4)
open(os.path.join(os.environ["SM_MODEL_DIR"], "model"), "w").write("trained")
"""
KILLS = 4
PATIENCE_SECONDS = 120

pytestmark = pytest.mark.slow


def source_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("train.py")
        member.size = len(SCRIPT.encode())
        archive.addfile(member, io.BytesIO(SCRIPT.encode()))
    return buffer.getvalue()


def request() -> dict:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://crash/train/"}}
    return {
        "AlgorithmName": "survivor",
        "TrainingSpecification": {
            "TrainingImage": IMAGE,
            "SupportedHyperParameters": [
                {"Name": "sagemaker_program", "Type": "FreeText", "DefaultValue": "train.py"},
                {
                    "Name": "sagemaker_submit_directory",
                    "Type": "FreeText",
                    "DefaultValue": "s3://crash/code/sourcedir.tar.gz",
                },
            ],
            "SupportedTrainingInstanceTypes": ["ml.m5.large"],
            "TrainingChannels": [
                {"Name": "train", "SupportedContentTypes": ["text/csv"], "SupportedInputModes": ["File"]}
            ],
        },
        "ValidationSpecification": {
            "ValidationRole": ROLE,
            "ValidationProfiles": [
                {
                    "ProfileName": "small",
                    "TrainingJobDefinition": {
                        "TrainingInputMode": "File",
                        "InputDataConfig": [{"ChannelName": "train", "DataSource": source}],
                        "OutputDataConfig": {"S3OutputPath": "s3://crash/output"},
                        "ResourceConfig": {
                            "InstanceType": "ml.m5.large",
                            "InstanceCount": 1,
                            "VolumeSizeInGB": 1,
                        },
                        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
                    },
                }
            ],
        },
    }


def test_a_validation_outlives_the_server(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    try:
        s3 = server.client("s3")
        s3.create_bucket(Bucket="crash")
        s3.put_object(Bucket="crash", Key="train/data.csv", Body=b"0,1\n1,2\n")
        s3.put_object(Bucket="crash", Key="code/sourcedir.tar.gz", Body=source_archive())
        server.client("sagemaker").create_algorithm(**request())
        for _ in range(KILLS):
            server.kill()
            server.start()
            time.sleep(0.5)  # some of its work is done by then, which part does not matter
        until = time.monotonic() + PATIENCE_SECONDS
        sagemaker = server.client("sagemaker")
        while True:
            shown = sagemaker.describe_algorithm(AlgorithmName="survivor")
            if shown["AlgorithmStatus"] not in ("Pending", "InProgress"):
                break
            assert time.monotonic() < until, shown
            time.sleep(0.1)
        assert shown["AlgorithmStatus"] == "Completed", shown["AlgorithmStatusDetails"]
        [job] = sagemaker.list_training_jobs()["TrainingJobSummaries"]
        assert job["TrainingJobStatus"] == "Completed"
    finally:
        server.stop()
    assert server.processes() == {}
