"""``clary shell`` and ``clary logs`` of a job that runs in a container of the user's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clary.testing.container_images import Images
from clary.testing.server import ServerProcess
from clary.testing.training_requests import training_request

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("containers")]

TRAIN = """#!/bin/sh
echo it begins
while [ ! -e /opt/ml/model/go ]; do sleep 0.2; done
echo it ends
"""


def clary(server: ServerProcess, *arguments: str, **how: str) -> subprocess.CompletedProcess[str]:
    command, *rest = arguments
    return subprocess.run(
        [sys.executable, "-m", "clary.cli", command, "--data", str(server.data), *rest],
        capture_output=True,
        text=True,
        timeout=120,
        **how,  # type: ignore[call-overload]
    )


@pytest.mark.skipif(
    not (shutil.which("docker") or shutil.which("podman")), reason="there is no docker and no podman command"
)
def test_a_container_is_entered_through_its_engine(tmp_path: Path, images: Images) -> None:
    image = images.make({"/usr/local/bin/train": TRAIN})
    with ServerProcess(tmp_path) as server:
        server.client("s3").create_bucket(Bucket="bucket")
        sagemaker = server.client("sagemaker")
        role = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
        request = training_request(
            image=image, RoleArn=role, InputDataConfig=None, Environment={"COLOUR": "red"}
        )
        sagemaker.create_training_job(**request)
        until = time.monotonic() + 90
        while "it begins" not in clary(server, "logs", "job").stdout:
            assert time.monotonic() < until, sagemaker.describe_training_job(TrainingJobName="job")
            time.sleep(0.2)
        told = clary(server, "shell", "job", "--", "/bin/sh", "-c", 'echo "$COLOUR"; ls /opt/ml')
        assert told.returncode == 0, told.stderr
        assert told.stdout.splitlines()[0] == "red"
        assert "input" in told.stdout.splitlines()
        typed = clary(server, "shell", "job", input="echo now > /opt/ml/model/go; exit 4\n")
        assert typed.returncode == 4, typed.stderr
        followed = clary(server, "logs", "job", "--follow")
        assert followed.returncode == 0, followed.stderr
        assert followed.stdout.splitlines()[-1] == "it ends"
        ended = clary(server, "shell", "job", "--", "true")
        assert ended.stderr == "clary shell: job does not run: it is Completed.\n"
