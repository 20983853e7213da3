"""Jobs in containers through the API of a real server."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clary.agent.runtimes.docker import TASKS_LABEL
from clary.testing.container_images import Images
from clary.testing.server import ServerProcess

LIMIT_SECONDS = 120.0
ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
EACH_SAVES = """#!/usr/bin/python3
import os, socket, time
host = socket.gethostname()
print("here is", host, flush=True)
time.sleep(float(os.environ["WAIT_SECONDS"]))
open("/opt/ml/model/" + host, "w").write(host)
"""
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("containers")]


@pytest.fixture
def server(tmp_path: Path, images: Images) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as running:
        yield running
    label = f"{TASKS_LABEL}={tmp_path / 'data' / 'tasks'}"
    assert images.api.containers(all=True, filters={"label": label}) == []
    assert images.api.networks(filters={"label": label}) == []


def create(server: ServerProcess, name: str, image: str, hosts: int, wait_seconds: float) -> None:
    server.client("s3").create_bucket(Bucket="jobs")
    server.client("sagemaker").create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"},
        Environment={"WAIT_SECONDS": str(wait_seconds)},
        OutputDataConfig={"S3OutputPath": "s3://jobs/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )


def describe(server: ServerProcess, name: str) -> dict[str, Any]:
    return dict(server.client("sagemaker", attempts=5).describe_training_job(TrainingJobName=name))


def ended(server: ServerProcess, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT_SECONDS
    while (job := describe(server, name))["TrainingJobStatus"] in ("InProgress", "Stopping"):
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job


def log(server: ServerProcess, prefix: str) -> list[str]:
    client = server.client("logs", attempts=5)
    try:
        events = client.filter_log_events(
            logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=prefix
        )["events"]
    except client.exceptions.ResourceNotFoundException:
        return []  # nothing was ever said
    return [event["message"] for event in events]


def model(server: ServerProcess, job: dict[str, Any]) -> set[str]:
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://jobs/")
    packed = server.client("s3").get_object(Bucket="jobs", Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {member.name for member in archive.getmembers() if member.isfile()}


def test_a_cluster_of_containers_makes_one_model(server: ServerProcess, images: Images) -> None:
    image = images.make({"/usr/local/bin/train": EACH_SAVES})
    create(server, "pair", image, hosts=2, wait_seconds=0)
    job = ended(server, "pair")
    assert job["TrainingJobStatus"] == "Completed", job
    assert model(server, job) == {"algo-1", "algo-2"}
    assert "here is algo-2" in log(server, "pair/algo-2-")


def test_a_container_goes_on_while_the_server_is_away(server: ServerProcess, images: Images) -> None:
    image = images.make({"/usr/local/bin/train": EACH_SAVES})
    create(server, "survivor", image, hosts=1, wait_seconds=6)
    deadline = time.monotonic() + LIMIT_SECONDS
    while "here is algo-1" not in log(server, "survivor/"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.kill()
    server.start()
    job = ended(server, "survivor")
    assert job["TrainingJobStatus"] == "Completed", job
    assert model(server, job) == {"algo-1"}
    assert log(server, "survivor/").count("here is algo-1") == 1, "it ran once"
