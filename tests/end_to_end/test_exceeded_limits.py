"""What users see of limits: the reason of a job that used too much, and what a smaller machine gives."""

from __future__ import annotations

import os

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]

HOG = """
kept = []
while True:
    kept.append(bytearray(b"x" * (64 << 20)))
"""
FILL = """
import os, time
os.makedirs("/tmp/cache", exist_ok=True)
for number in range(20):
    with open(f"/tmp/cache/{number}", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64 << 20)
print("filled")
"""


def test_a_job_that_needs_more_memory_than_its_instance_type_says_so(platform):
    resources = {"InstanceType": "ml.t3.medium", "InstanceCount": 1, "VolumeSizeInGB": 1}
    job = platform.ended(platform.script(platform.source(train_py=HOG), ResourceConfig=resources))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: OutOfMemoryError: the algorithm ")
    assert "ml.t3.medium has 4 GiB. Choose an instance type with more memory" in job["FailureReason"]


def test_a_job_that_wrote_more_than_its_volume_fails_even_if_nobody_looked_in_time(platform):
    job = platform.ended(platform.script(platform.source(train_py=FILL)))
    assert job["TrainingJobStatus"] == "Failed"
    assert "VolumeSizeInGB is 1. Most of it is in /tmp" in job["FailureReason"], job["FailureReason"]
    assert "ModelArtifacts" not in job or not job["ModelArtifacts"].get("S3ModelArtifacts")


def test_the_log_says_what_this_machine_gives_of_a_large_instance_type(platform):
    resources = {"InstanceType": "ml.m7i.48xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    job = platform.ended(
        platform.script(platform.source(train_py="print('hello')"), ResourceConfig=resources)
    )
    assert job["TrainingJobStatus"] == "Completed"
    said = [line for line in platform.log(job["TrainingJobName"]) if "this machine gives" in line]
    assert len(said) == 1
    given = min(192, os.cpu_count() or 1)
    assert said[0].startswith(
        f"ml.m7i.48xlarge has 192 processors and 768 GiB; this machine gives {given} and "
    )
