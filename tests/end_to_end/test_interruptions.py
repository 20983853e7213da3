"""Jobs whose machines are taken away go on from their checkpoints; limits of time end them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from botocore.exceptions import ClientError

from clary.testing.server import ServerProcess
from tests.end_to_end.conftest import BUCKET, Platform

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]

COUNTING = """
import pathlib, signal, sys, time
def end(*_):
    print("told to end", flush=True)
    (folder / "last-words").write_text(str(step))
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
folder = pathlib.Path("/opt/ml/checkpoints")
done = [int(f.name) for f in folder.iterdir() if f.name.isdigit()]
step = max(done, default=-1) + 1
print("begins at", step, sorted(f.name for f in folder.iterdir()), flush=True)
while step < LAST:
    (folder / str(step)).write_text("x" * step)
    step += 1
    time.sleep(0.1)
pathlib.Path("/opt/ml/model/steps").write_text(str(step))
"""


def counting(platform, last: int, **changes):
    """A job that counts to ``last``, a checkpoint a step; its name and where the checkpoints are."""
    source = platform.source(train_py=COUNTING.replace("LAST", str(last)))
    place = f"checkpoints/{source.split('/')[3]}"
    checkpoints = {"S3Uri": f"s3://{BUCKET}/{place}"}
    return platform.script(source, CheckpointConfig=checkpoints, **changes), place


def test_checkpoints_are_in_s3_while_the_job_runs(platform):
    name, place = counting(platform, 10_000)
    platform.until(lambda: len(platform.keys(f"{place}/")) > 3)
    platform.until_training(name)
    platform.sagemaker.stop_training_job(TrainingJobName=name)
    assert platform.ended(name)["TrainingJobStatus"] == "Stopped"
    written = platform.keys(f"{place}/")
    assert "last-words" in written
    assert platform.read(f"s3://{BUCKET}/{place}/3") == b"xxx"


def test_an_interrupted_job_goes_on_where_it_was(platform):
    name, _ = counting(platform, 60)
    platform.until(lambda: any("begins at 0" in line for line in platform.log(name)))
    outcome = subprocess.run(
        [
            sys.executable, "-m", "clary.cli", "chaos", "interrupt", name,
            "--data", str(platform.server.data),
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    moves = [move["Status"] for move in job["SecondaryStatusTransitions"]]
    assert moves[3:5] == ["Interrupted", "Restarting"]
    begun = [line for line in platform.log(name) if line.startswith("begins at")]
    assert len(begun) == 2 and "begins at 0" in begun[0] and "'last-words'" in begun[1]
    assert not begun[1].startswith("begins at 0 ")
    assert "told to end" in platform.log(name)
    assert platform.content(job["ModelArtifacts"]["S3ModelArtifacts"], "steps") == b"60"


def test_a_job_goes_on_after_the_server_was_stopped_and_started_again(tmp_path):
    with ServerProcess(tmp_path) as server:
        platform = Platform(server)
        name, place = counting(platform, 60)
        platform.until(lambda: len(platform.keys(f"{place}/")) > 2)
        server.stop()
        assert server.processes() == {}
        server.start()  # on the ports it had
        # What was written last went out while the server was on its way down.
        assert "last-words" in platform.keys(f"{place}/")
        job = platform.ended(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        begun = [line for line in platform.log(name) if line.startswith("begins at")]
        assert len(begun) == 2 and not begun[1].startswith("begins at 0 ")


def test_only_a_running_job_can_be_interrupted(platform):
    clary = platform.server.client("clary")
    with pytest.raises(ClientError, match="There is no training job 'nobody'"):
        clary.interrupt_training_job(TrainingJobName="nobody")
    name = platform.script(platform.source(train_py="print(1)"))
    platform.ended(name)
    with pytest.raises(ClientError, match="has ended"):
        clary.interrupt_training_job(TrainingJobName=name)


def test_a_checkpoint_folder_outside_of_opt_ml_is_refused_with_the_remedy(platform):
    with pytest.raises(ClientError, match="'/elsewhere' must be a folder of its own below /opt/ml"):
        platform.script(
            platform.source(train_py="print(1)"),
            CheckpointConfig={"S3Uri": f"s3://{BUCKET}/c", "LocalPath": "/elsewhere"},
        )


def test_checkpoints_that_cannot_be_read_fail_the_job_and_name_the_place(platform):
    name = platform.script(
        platform.source(train_py="print(1)"), CheckpointConfig={"S3Uri": "s3://nowhere-at-all/c"}
    )
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "nowhere-at-all" in job["FailureReason"]


def test_the_time_to_train_is_counted_over_all_attempts(platform):
    script = "import time; print('here', flush=True); time.sleep(600)"
    name = platform.script(
        platform.source(train_py=script),
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 6, "MaxWaitTimeInSeconds": 3600},
    )
    platform.until(lambda: "here" in platform.log(name))
    platform.server.client("clary").interrupt_training_job(TrainingJobName=name)
    job = platform.ended(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert 6 <= job["BillableTimeInSeconds"] <= 9


def test_a_spot_job_waits_no_longer_than_it_may(platform):
    script = "import time; print('here', flush=True); time.sleep(600)"
    name = platform.script(
        platform.source(train_py=script),
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 4, "MaxWaitTimeInSeconds": 4},
    )
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Stopped"
    assert job["SecondaryStatus"] in ("MaxWaitTimeExceeded", "MaxRuntimeExceeded")
