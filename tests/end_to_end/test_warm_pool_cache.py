"""What a job keeps for the next one of its warm pool is there when that one runs."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]

KEPT = {
    "InstanceType": "ml.m5.large",
    "InstanceCount": 1,
    "VolumeSizeInGB": 1,
    "KeepAlivePeriodInSeconds": 300,
}
SCRIPT = """
import pathlib
cache = pathlib.Path("/opt/ml/sagemaker/warmpoolcache")
print("kept:", sorted(file.name for file in cache.iterdir()))
(cache / "weights").write_text("downloaded once")
"""


def test_the_next_job_finds_what_the_one_before_kept_and_a_stranger_does_not(platform):
    source = platform.source(train_py=SCRIPT)
    first = platform.script(source, ResourceConfig=KEPT)
    assert platform.ended(first)["WarmPoolStatus"]["Status"] == "Available"
    second = platform.script(source, ResourceConfig=KEPT)
    assert platform.ended(second)["TrainingJobStatus"] == "Completed"
    assert "kept: []" in platform.log(first)
    assert "kept: ['weights']" in platform.log(second)
    platform.until(
        lambda: (
            platform.sagemaker.describe_training_job(TrainingJobName=first)["WarmPoolStatus"].get(
                "ReusedByJob"
            )
            == second
        )
    )
    platform.sagemaker.update_training_job(
        TrainingJobName=second, ResourceConfig={"KeepAlivePeriodInSeconds": 0}
    )
    platform.until(lambda: platform.tasks(second) == {} and platform.tasks(first) == {})
    third = platform.script(source, ResourceConfig=KEPT | {"KeepAlivePeriodInSeconds": 0})
    assert platform.ended(third)["TrainingJobStatus"] == "Completed"
    assert "kept: []" in platform.log(third)
