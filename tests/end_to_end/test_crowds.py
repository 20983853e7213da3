"""More jobs at once than the machine can take: they wait in order, say what for, and all end."""

from __future__ import annotations

import os
import time

import pytest

from tests.end_to_end.conftest import PATIENCE_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]

JOBS = 12


def test_jobs_wait_in_order_and_never_more_run_than_there_is_room_for(platform):
    machine = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
    room = max(1, (os.cpu_count() or 1) // 2)
    source = platform.source(train_py="import time; time.sleep(0.3)")
    names = [platform.script(source, ResourceConfig=machine) for _ in range(JOBS)]
    told: set[str] = set()
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert time.monotonic() < until, told
        jobs = [platform.sagemaker.describe_training_job(TrainingJobName=name) for name in names]
        told |= {job["SecondaryStatusTransitions"][0]["StatusMessage"] for job in jobs}
        if all(job["TrainingJobStatus"] == "Completed" for job in jobs):
            break
        assert not any(job["TrainingJobStatus"] == "Failed" for job in jobs), jobs
    times = [(job["TrainingStartTime"], job["TrainingEndTime"]) for job in jobs]
    assert max(sum(1 for start, end in times if start <= at < end) for at, _ in times) <= room
    if room < JOBS:
        assert any(message.startswith("Waiting for 2 of this machine's") for message in told), told
    assert times == sorted(times)
