"""What a script writes for Debugger and TensorBoard is where their clients look for it."""

from __future__ import annotations

import pytest

BUCKET = "end-to-end"
SCRIPT = """
import json, pathlib
hook = json.load(open("/opt/ml/input/config/debughookconfig.json"))
for folder, name in (("/opt/ml/output/tensorboard", "run/events"), (hook["LocalPath"], "step-1")):
    path = pathlib.Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def test_tensors_and_boards_are_in_s3_when_the_job_has_ended(platform):
    name = platform.script(
        platform.source(train_py=SCRIPT),
        TensorBoardOutputConfig={"S3OutputPath": f"s3://{BUCKET}/boards"},
        DebugHookConfig={"S3OutputPath": f"s3://{BUCKET}/debug/", "LocalPath": "/opt/ml/output/hooked"},
    )
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")

    def content(key: str) -> bytes:
        return platform.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    assert content(f"boards/{name}/tensorboard-output/run/events") == b"run/events"
    assert content(f"debug/{name}/debug-output/step-1") == b"step-1"
