"""Training jobs as their users see them: what works, and what a wrong one says."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

GOOD = "".join(f"{row % 2},{row % 2 + row / 1000},{row}\n" for row in range(60))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def test_a_job_leaves_model_metrics_logs_and_its_history(platform):
    job = platform.ended(platform.create(train=platform.data(GOOD)))
    assert job["TrainingJobStatus"] == "Completed"
    moves = [move["Status"] for move in job["SecondaryStatusTransitions"]]
    assert moves == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all("EndTime" in move for move in job["SecondaryStatusTransitions"])
    assert [metric["MetricName"] for metric in job["FinalMetricDataList"]] == ["train:logloss"]
    assert job["BillableTimeInSeconds"] >= 1
    assert platform.members(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"xgboost-model"}
    assert any(line.startswith("[2]\ttrain-logloss:") for line in platform.log(job["TrainingJobName"]))


def test_libsvm_is_the_default_content_type(platform):
    lines = "".join(f"{row % 2} 0:{row % 2} 3:{row}\n" for row in range(40))
    assert (
        platform.ended(platform.create(train=platform.data(lines), content_type=None))["TrainingJobStatus"]
        == "Completed"
    )


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        ("0,1\n1,x\n", "text/csv", "data.csv, line 2, column 2: 'x' is not a number"),
        ("label,a\n0,1\n", "text/csv", "header"),
        ("0,1\n1,2,3\n", "text/csv", "line 2"),
        ("0,1\nnan,2\n", "text/csv", "line 2"),
        ("0,1\n7,2\n", "text/csv", "label must be in [0,1]"),
        ("0,1\n", "image/png", "image/png"),
        ("nonsense here\n", "text/libsvm", "line 1"),
    ],
)
def test_bad_data_fails_the_job_and_names_the_place(platform, body, content_type, reason):
    job = platform.ended(platform.create(train=platform.data(body), content_type=content_type))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError:"), job["FailureReason"]
    assert reason in job["FailureReason"]


@pytest.mark.parametrize("uri", ["s3://no-such-bucket-anywhere/x/", "s3://end-to-end/no/such/prefix/"])
def test_missing_data_fails_the_job_and_names_the_uri(platform, uri):
    job = platform.ended(platform.create(train=uri))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: ")
    assert uri.rstrip("/") in job["FailureReason"]


def test_an_unknown_image_fails_the_job_when_it_runs(platform):
    specification = {
        "TrainingImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1",
        "TrainingInputMode": "File",
    }
    job = platform.ended(platform.create(AlgorithmSpecification=specification, HyperParameters={}))
    assert job["TrainingJobStatus"] == "Failed"
    assert "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1" in job["FailureReason"]


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"num_round": "3", "max_deph": "4"}, "max_deph"),
        ({"num_round": "0"}, "num_round"),
        ({"num_round": "3", "eta": "2"}, "eta"),
        ({}, "num_round"),
        ({"num_round": "3", "objective": "multi:softmax"}, "num_class"),
    ],
)
def test_wrong_hyperparameters_are_refused_at_once(platform, hyperparameters, message):
    with pytest.raises(ClientError) as caught:
        platform.create(HyperParameters=hyperparameters)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert message in caught.value.response["Error"]["Message"]


def test_a_name_can_be_used_once(platform):
    name = platform.create(train=platform.data(GOOD))
    with pytest.raises(ClientError) as caught:
        platform.create(TrainingJobName=name)
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    platform.ended(name)


def test_a_failing_script_names_exception_file_and_line(platform):
    source = platform.source(train_py="def f():\n    raise ValueError('too few rows')\nf()\n")
    job = platform.ended(platform.script(source))
    assert job["TrainingJobStatus"] == "Failed"
    assert "ValueError: too few rows (/opt/ml/code/train.py:2)" in job["FailureReason"]
    assert any("Traceback" in line for line in platform.log(job["TrainingJobName"]))


def test_a_script_that_kills_itself_says_so(platform):
    source = platform.source(train_py="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    job = platform.ended(platform.script(source))
    assert "SIGKILL" in job["FailureReason"]


def test_an_exit_code_is_told(platform):
    job = platform.ended(
        platform.script(platform.source(train_py="print('giving up')\nraise SystemExit(3)\n"))
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert "exit code: 3" in job["FailureReason"]


def test_a_script_sees_its_arguments_channels_and_only_its_own_files(platform):
    script = """
import json, os, sys
print("argv", sys.argv[1:])
print("channel", sorted(os.listdir(os.environ["SM_CHANNEL_TRAIN"])))
print("home", os.path.exists("/home"))
try:
    open(os.environ["SM_CHANNEL_TRAIN"] + "/data.csv", "a")
except OSError as error:
    print("input", type(error).__name__)
try:
    open("/usr/escaped", "w")
except OSError as error:
    print("root", type(error).__name__)
open(os.environ["SM_MODEL_DIR"] + "/model.txt", "w").write("m")
open(os.environ["SM_OUTPUT_DATA_DIR"] + "/more.txt", "w").write("o")
"""
    name = platform.script(
        platform.source(train_py=script),
        hyperparameters={"epochs": "3", "name": '"x y"'},
        train=platform.data(GOOD),
    )
    job, log = platform.ended(name), platform.log(name)
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert "argv ['--epochs', '3', '--name', 'x y']" in log
    assert "channel ['data.csv']" in log
    assert platform.members(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"model.txt"}
    output = f"{job['OutputDataConfig']['S3OutputPath']}/{name}/output/output.tar.gz"
    assert any(member.endswith("more.txt") for member in platform.members(output))
    if "home False" in log:  # in the sandbox
        assert "root OSError" in log or "root PermissionError" in log
        assert "input OSError" in log or "input PermissionError" in log


def test_metrics_are_read_by_the_jobs_own_expressions(platform):
    source = platform.source(train_py="for n in range(3): print(f'loss={n / 2};')\n")
    definitions = [{"Name": "loss", "Regex": "loss=([0-9.]+);"}, {"Name": "none", "Regex": "none=([0-9.]+)"}]
    job = platform.ended(platform.script(source, specification={"MetricDefinitions": definitions}))
    assert [(m["MetricName"], m["Value"]) for m in job["FinalMetricDataList"]] == [("loss", 1.0)]


def test_stopping_a_job_uploads_what_was_trained(platform):
    script = """
import os, time
open(os.environ["SM_MODEL_DIR"] + "/half.txt", "w").write("half")
print("ready", flush=True)
time.sleep(600)
"""
    name = platform.script(platform.source(train_py=script))
    platform.until_training(name)
    while "ready" not in platform.log(name):
        pass
    platform.sagemaker.stop_training_job(TrainingJobName=name)
    assert platform.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] in (
        "Stopping",
        "Stopped",
    )
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Stopped"
    assert platform.members(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"half.txt"}
    with pytest.raises(ClientError, match="status Stopped"):
        platform.sagemaker.stop_training_job(TrainingJobName=name)


def test_max_runtime_ends_a_job_and_uploads_what_was_saved(platform):
    script = """
import os, time
open(os.environ["SM_MODEL_DIR"] + "/half.txt", "w").write("half")
time.sleep(600)
"""
    name = platform.script(platform.source(train_py=script), StoppingCondition={"MaxRuntimeInSeconds": 2})
    job = platform.ended(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert platform.members(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"half.txt"}


def test_a_script_gets_the_packages_it_asks_for(platform):
    source = platform.source(
        train_py="import six; print('six', six.__version__)\n", requirements_txt="six==1.16.0\n"
    )
    job = platform.ended(platform.script(source))
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert "six 1.16.0" in platform.log(job["TrainingJobName"])


def test_a_package_that_is_not_there_fails_the_job_with_its_name(platform):
    source = platform.source(train_py="pass\n", requirements_txt="clary-does-not-exist==9.9.9\n")
    job = platform.ended(platform.script(source))
    assert job["TrainingJobStatus"] == "Failed"
    assert "clary-does-not-exist" in job["FailureReason"]


def test_jobs_are_listed_and_deleted(platform):
    name = platform.ended(platform.create(train=platform.data(GOOD)))["TrainingJobName"]
    listed = platform.sagemaker.list_training_jobs(NameContains=name[-8:], StatusEquals="Completed")
    assert [job["TrainingJobName"] for job in listed["TrainingJobSummaries"]] == [name]
    platform.sagemaker.delete_training_job(TrainingJobName=name)
    until = time.monotonic() + 60
    with pytest.raises(ClientError, match="Could not find training job"):
        while time.monotonic() < until:
            platform.sagemaker.describe_training_job(TrainingJobName=name)
            time.sleep(0.05)
