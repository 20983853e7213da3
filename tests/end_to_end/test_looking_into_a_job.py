"""What a user learns of a job on the command line: its log, its inside, its fit, its cost."""

from __future__ import annotations

import io
import json
import math
import os
import random
import select
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clary.testing.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]

TWO_HOSTS = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
WAITING = """
import os, sys, time
print("hello from", os.environ["SM_CURRENT_HOST"], flush=True)
open("/opt/ml/model/begun", "w").close()
for _ in range(6000):
    if os.path.exists("/opt/ml/model/go"):
        print("goodbye", flush=True)
        sys.exit(int(open("/opt/ml/model/go").read() or "0"))
    time.sleep(0.1)
"""


def clary(
    server: ServerProcess, command: str, *arguments: str, **how: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clary.cli", command, "--data", str(server.data), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **how,
    )


def until_said(platform: Any, name: str, text: str) -> None:
    platform.until(lambda: any(text in line for line in platform.log(name)))


# Logs.


def test_a_log_is_followed_from_before_the_job_runs_to_its_end(platform: Any) -> None:
    name = platform.script(platform.source(train_py=WAITING))
    following = subprocess.Popen(
        [sys.executable, "-m", "clary.cli", "logs", name, "--follow", "--data", str(platform.server.data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = until_told(following, "hello from algo-1")
        let_go(platform, name, "algo-1")
        out, said = following.communicate(timeout=120)
    finally:
        following.kill()
    assert following.returncode == 0, said
    assert "hello from algo-1" in lines
    assert "goodbye" in out.splitlines()
    assert f"{name} Completed" in said.splitlines()[-1]
    assert "Training" in said


def until_told(following: subprocess.Popen[str], text: str) -> list[str]:
    """The lines that were printed up to ``text``."""
    assert following.stdout is not None
    lines: list[str] = []
    for line in following.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"the log ended without {text!r}: {lines}")


def let_go(platform: Any, name: str, host: str, code: int = 0) -> None:
    """Let a script that waits end."""
    folder = platform.tasks(name)[host]
    (folder.ml / "model/go").write_text(str(code))


def test_a_failed_job_ends_its_log_with_the_reason_and_exit_code_1(platform: Any) -> None:
    name = platform.script(platform.source(train_py="raise ValueError('no such colour')"))
    platform.ended(name)
    told = clary(platform.server, "logs", name, "--follow")
    assert told.returncode == 1
    assert "ValueError: no such colour" in told.stdout
    assert f"{name} Failed" in told.stderr
    assert "no such colour" in told.stderr


def test_lines_of_several_hosts_are_told_apart_and_one_host_can_be_chosen(platform: Any) -> None:
    script = "import os\nprint('I am', os.environ['SM_CURRENT_HOST'], flush=True)"
    name = platform.script(platform.source(train_py=script), ResourceConfig=TWO_HOSTS)
    platform.ended(name)
    both = clary(platform.server, "logs", name).stdout.splitlines()
    assert "algo-1  I am algo-1" in both
    assert "algo-2  I am algo-2" in both
    second = clary(platform.server, "logs", name, "--host", "algo-2", "--times").stdout
    assert "I am algo-2" in second
    assert "I am algo-1" not in second
    assert second.splitlines()[0].startswith("20")
    wrong = clary(platform.server, "logs", name, "--host", "algo-3")
    assert wrong.returncode == 1
    assert "its hosts are algo-1, algo-2" in wrong.stderr


def test_an_endpoint_has_a_log_too(platform: Any) -> None:
    name = f"endpoint-{time.time_ns()}"
    client = platform.sagemaker
    script = "import json\ndef model_fn(folder):\n    print('the model is here', flush=True)\n    return 1\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script.encode()))
    folder = platform.put(f"{name}/model.tar.gz", buffer.getvalue())
    image = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
    container = {"Image": image, "ModelDataUrl": f"{folder}model.tar.gz"}
    container["Environment"] = {"SAGEMAKER_PROGRAM": "inference.py"}  # type: ignore[assignment]
    role = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
    client.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1}
    variant["InstanceType"] = "ml.m5.large"
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    try:
        told = subprocess.CompletedProcess[str]([], 0)
        until = time.monotonic() + 120
        while "the model is here" not in (told.stdout or ""):
            assert time.monotonic() < until, told
            told = clary(platform.server, "logs", name)
        assert told.returncode == 0
        assert f"{name} is " in told.stderr
    finally:
        client.delete_endpoint(EndpointName=name)


def test_a_name_that_is_neither_job_nor_endpoint_is_told(platform: Any) -> None:
    told = clary(platform.server, "logs", "no-such-thing")
    assert told.returncode == 1
    assert "no training job and no endpoint 'no-such-thing'" in told.stderr


def test_a_log_that_is_cut_short_by_its_reader_is_no_error(platform: Any) -> None:
    name = platform.script(platform.source(train_py="for n in range(20000): print('line', n)"))
    platform.ended(name)
    command = f"{sys.executable} -m clary.cli logs {name} --data {platform.server.data} | head -n 3"
    told = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert len(told.stdout.splitlines()) == 3
    assert "Traceback" not in told.stderr


def test_a_follower_outlives_the_server(platform: Any, tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        platform = type(platform)(server)
        name = platform.script(platform.source(train_py=WAITING))
        until_said(platform, name, "hello")
        following = subprocess.Popen(
            [sys.executable, "-m", "clary.cli", "logs", name, "-f", "--data", str(server.data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until_told(following, "hello")
            server.kill()
            server.start()
            let_go(platform, name, "algo-1")
            out, said = following.communicate(timeout=120)
        finally:
            following.kill()
        assert following.returncode == 0, said
        assert out.count("goodbye") == 1
        assert out.count("hello") == 0  # it was read before, and is not told again


# Shell.


@dataclass(frozen=True)
class Waiting:
    """A job that waits, on a server where nobody stops what a test has left."""

    server: ServerProcess
    name: str


@pytest.fixture(scope="module")
def waiting(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waiting]:
    with ServerProcess(tmp_path_factory.mktemp("waiting")) as server:
        own = type(platform)(server)
        name = own.script(
            own.source(train_py=WAITING), Environment={"COLOUR": "blue"}, hyperparameters={"depth": "7"}
        )
        until_said(own, name, "hello")
        yield Waiting(server, name)


def test_a_command_runs_where_the_algorithm_does(waiting: Waiting) -> None:
    script = 'pwd; ls /opt/ml/model; echo "$COLOUR $SM_HP_DEPTH $TRAINING_JOB_NAME"; ls /opt/ml/code'
    told = clary(waiting.server, "shell", waiting.name, "--", "sh", "-c", script)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0] == "/opt/ml"
    assert "begun" in lines
    assert f"blue 7 {waiting.name}" in lines
    assert "train.py" in lines


def test_a_shell_reads_its_commands_and_its_exit_code_is_ours(waiting: Waiting) -> None:
    told = clary(waiting.server, "shell", waiting.name, input='echo "in $SM_CURRENT_HOST"; exit 9\n')
    assert (told.returncode, told.stdout) == (9, "in algo-1\n")
    missing = clary(waiting.server, "shell", waiting.name, "--host", "algo-1", "--", "no-such-command")
    assert (missing.returncode, missing.stderr) == (
        127,
        "clary shell: there is no command 'no-such-command' there.\n",
    )


def test_what_a_shell_writes_the_algorithm_reads(platform: Any) -> None:
    name = platform.script(platform.source(train_py=WAITING))
    until_said(platform, name, "hello")
    told = clary(platform.server, "shell", name, "--", "sh", "-c", "echo 0 > /opt/ml/model/go")
    assert told.returncode == 0, told.stderr
    assert platform.ended(name)["TrainingJobStatus"] == "Completed"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_shell_has_no_more_rights_than_the_algorithm(waiting: Waiting) -> None:
    script = (
        "grep -h ^Cap /proc/self/status; ls -A /run/clary/tasks; touch /opt/ml/input/config/x 2>&1; "
        f"ls {waiting.server.data} 2>&1; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'"
    )
    told = clary(waiting.server, "shell", waiting.name, "--", "sh", "-c", script).stdout
    assert all(set(line.split()[1]) == {"0"} for line in told.splitlines() if line.startswith("Cap"))
    assert told.count("Cap") == 5
    assert "Read-only file system" in told
    assert f"cannot access '{waiting.server.data}'" in told
    assert int(told.splitlines()[-1]) < 10  # only the processes of the sandbox


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_an_isolated_job_is_entered_with_its_network_that_reaches_nothing(platform: Any) -> None:
    name = platform.script(platform.source(train_py=WAITING), EnableNetworkIsolation=True)
    until_said(platform, name, "hello")
    port = int(platform.server.environment()["AWS_ENDPOINT_URL"].rpartition(":")[2])
    probe = f"import socket; s = socket.socket(); s.settimeout(5); print(s.connect_ex(('127.0.0.1', {port})))"
    told = clary(platform.server, "shell", name, "--", "python", "-c", probe)
    platform.sagemaker.stop_training_job(TrainingJobName=name)
    platform.ended(name)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout.splitlines()[-1]) != 0


def test_a_terminal_is_passed_through(waiting: Waiting) -> None:
    """On a terminal of the user's the shell gets one of its own, with job control."""
    import pty

    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-m", "clary.cli", "shell", "--data", str(waiting.server.data), waiting.name],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    try:
        os.write(ours, b"test -t 0 && echo it-is-a-$((40+2)); exit 3\n")
        until = time.monotonic() + 60
        while b"it-is-a-42" not in said and time.monotonic() < until:
            if select.select([ours], [], [], 1)[0]:
                said += os.read(ours, 4096)
        assert shell.wait(60) == 3
    finally:
        shell.kill()
        os.close(ours)
    assert b"it-is-a-42" in said


def test_why_there_is_nothing_to_enter_is_said(platform: Any, waiting: Waiting) -> None:
    wrong = clary(waiting.server, "shell", waiting.name, "--host", "algo-2", "--", "true")
    assert wrong.returncode == 1
    assert "has no host algo-2: its hosts are algo-1" in wrong.stderr
    done = platform.script(platform.source(train_py="pass"))
    platform.ended(done)
    ended = clary(platform.server, "shell", done, "--", "true")
    assert (ended.returncode, ended.stderr) == (1, f"clary shell: {done} does not run: it is Completed.\n")


def test_without_a_sandbox_a_shell_is_in_the_jobs_folder(platform: Any, tmp_path: Path) -> None:
    script = WAITING.replace("/opt/ml/model", "{os.environ['SM_MODEL_DIR']}").replace('"{', 'f"{')
    with ServerProcess(tmp_path, sandbox="none") as server:
        platform = type(platform)(server)
        name = platform.script(platform.source(train_py=script), Environment={"COLOUR": "red"})
        until_said(platform, name, "hello")
        told = clary(
            server, "shell", name, "--", "sh", "-c", 'pwd; ls model; echo "$COLOUR $SM_CURRENT_HOST"'
        )
        let_go(platform, name, "algo-1")
        platform.ended(name)
    assert told.stdout.splitlines()[0].endswith("/ml")
    assert told.stdout.splitlines()[1:] == ["begun", "red algo-1"]


# Fit, evaluation and cost.


def noisy(rows: int, seed: int, wrong: float) -> str:
    """Rows of ``label,x1..x6`` of which the share ``wrong`` has the other label."""
    lots = random.Random(seed)
    lines = []
    for _ in range(rows):
        values = [lots.gauss(0, 1) for _ in range(6)]
        label = int(math.sin(3 * values[0]) + values[1] * values[2] > 0)
        label = 1 - label if lots.random() < wrong else label
        lines.append(",".join([str(label), *(f"{value:.4f}" for value in values)]))
    return "\n".join(lines) + "\n"


def channels(platform: Any, wrong: float) -> list[dict[str, Any]]:
    return [
        {
            "ChannelName": name,
            "ContentType": "text/csv",
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": platform.data(noisy(rows, seed, wrong)),
                }
            },
        }
        for name, rows, seed in (("train", 500, 1), ("validation", 300, 2))
    ]


def test_the_fit_doctor_finds_a_built_in_job_that_learns_by_heart(platform: Any) -> None:
    hyperparameters = {"objective": "binary:logistic", "num_round": "120", "max_depth": "9", "eta": "0.3"}
    name = platform.create(InputDataConfig=channels(platform, 0.3), HyperParameters=hyperparameters)
    assert platform.ended(name)["TrainingJobStatus"] == "Completed"
    told = clary(platform.server, "fit", name)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0].startswith(f"{name}, logloss: overfitting from step ")
    assert "o train:logloss   # validation:logloss" in told.stdout
    assert "Try: " in told.stdout
    found = json.loads(clary(platform.server, "fit", name, "--json").stdout)
    assert found["Verdict"] == "Overfitting"
    assert found["SinceStep"] < 60
    assert found["Suggestion"]["HyperparameterName"] in ("early_stopping_rounds", "max_depth")
    assert len(found["TrainCurve"]["Values"]) == 120


def test_the_fit_doctor_looks_at_a_scripts_metrics_by_its_own_expressions(platform: Any) -> None:
    script = """
for epoch in range(40):
    print(f"epoch {epoch} loss={1.0 + 0.9 ** epoch:.5f} val_loss={1.02 + 0.9 ** epoch:.5f}", flush=True)
"""
    definitions = [
        {"Name": "loss", "Regex": r" loss=([0-9.]+)"},
        {"Name": "val_loss", "Regex": r"val_loss=([0-9.]+)"},
    ]
    name = platform.script(platform.source(train_py=script), specification={"MetricDefinitions": definitions})
    platform.ended(name)
    found = json.loads(clary(platform.server, "fit", name, "--json", "--baseline", "1.1").stdout)
    assert (found["Verdict"], found["Cause"]) == ("Underfitting", "too-simple")
    assert (found["TrainCurve"]["MetricName"], found["ValidationCurve"]["MetricName"]) == ("loss", "val_loss")
    generous = json.loads(clary(platform.server, "fit", name, "--json", "--baseline", "50").stdout)
    assert generous["Verdict"] != "Underfitting"
    wrong = clary(platform.server, "fit", name, "--metric", "colour")
    assert wrong.returncode == 1
    assert "there is no metric 'colour'; the job has loss, val_loss" in wrong.stderr


def test_a_job_without_metrics_and_one_that_is_not_there_are_told(platform: Any) -> None:
    name = platform.script(platform.source(train_py="pass"))
    platform.ended(name)
    without = clary(platform.server, "fit", name)
    assert without.returncode == 1
    assert "has no metrics to examine" in without.stderr
    missing = clary(platform.server, "fit", "no-such-job")
    assert "There is no training job 'no-such-job'" in missing.stderr


def test_predictions_here_and_in_s3_are_scored_alike(platform: Any, tmp_path: Path) -> None:
    lots = random.Random(5)
    rows = [
        (number % 2, min(1.0, max(0.0, 0.5 * (number % 2) + lots.random() * 0.6))) for number in range(200)
    ]
    text = "label,score\n" + "".join(f"{label},{score:.3f}\n" for label, score in rows)
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    uri = platform.put("evaluate/predictions.csv", text) + "predictions.csv"
    here = json.loads(clary(platform.server, "evaluate", str(path), "--json").stdout)
    there = clary(platform.server, "evaluate", uri, "--json")
    assert json.loads(there.stdout) == here
    shown = clary(platform.server, "evaluate", uri, "--threshold", "0.6").stdout
    assert "Confusion matrix" in shown
    assert "ROC: area 0." in shown
    piped = clary(platform.server, "evaluate", "-", "--json", input=text)
    assert json.loads(piped.stdout) == here


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3://end-to-end/no/such.csv", "does not exist"),
        ("s3://no-such-bucket-anywhere/x.csv", "bucket"),
        ("s3://end-to-end/evaluate/bad.csv", "no column of labels"),
        ("s3://end-to-end/evaluate/bad.bin", "no text"),
        ("/no/such/file.csv", "No such file"),
    ],
)
def test_predictions_that_cannot_be_read_are_told(platform: Any, uri: str, says: str) -> None:
    platform.put("evaluate/bad.csv", "a,b\n1,2\n")
    platform.put("evaluate/bad.bin", b"\xff\xfe\xfd")
    told = clary(platform.server, "evaluate", uri)
    assert told.returncode == 1
    assert says in told.stderr
    assert "Traceback" not in told.stderr


def test_costs_are_billed_seconds_of_every_instance_at_dated_prices(platform: Any) -> None:
    one = platform.script(platform.source(train_py="pass"))
    resources = {"InstanceType": "ml.p3.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    unknown = platform.script(platform.source(train_py="pass"), ResourceConfig=resources)
    two = platform.script(platform.source(train_py="pass"), ResourceConfig=TWO_HOSTS)
    jobs = {name: platform.ended(name) for name in (one, two, unknown)}
    costs = json.loads(clary(platform.server, "cost", one, two, unknown, "--json").stdout)
    found = {cost["TrainingJobName"]: cost for cost in costs}
    for name, count in ((one, 1), (two, 2)):
        seconds = jobs[name]["BillableTimeInSeconds"]
        assert found[name]["BillableTimeInSeconds"] == seconds
        assert found[name]["Instances"][0]["BillableInstanceSeconds"] == count * seconds
        assert found[name]["Price"] == pytest.approx(0.115 * count * seconds / 3600)
        assert found[name]["Instances"][0]["PriceDate"].startswith("20")
    assert "Price" not in found[unknown]
    assert found[unknown]["UnpricedInstanceTypes"] == ["ml.p3.2xlarge"]
    assert "SpotSavingPercent" not in found[one]
    shown = clary(platform.server, "cost", one, unknown).stdout
    assert "Unknown prices: ml.p3.2xlarge (us-east-1)" in shown
    assert "On-demand prices of:" in shown


def test_the_users_prices_come_first_and_a_broken_table_is_told(platform: Any) -> None:
    name = platform.script(platform.source(train_py="pass"))
    platform.ended(name)
    own = platform.server.data / "prices.toml"
    try:
        own.write_text(
            '[[prices]]\nregion = "us-east-1"\ndate = 2026-11-01\nsource = "our contract"\n'
            '[prices.dollars_per_hour]\n"ml.m5.large" = 3600\n'
        )
        cost = json.loads(clary(platform.server, "cost", name, "--json").stdout)[0]
        assert cost["Price"] == cost["BillableTimeInSeconds"]
        assert cost["Instances"][0]["PriceSource"] == "our contract"
        own.write_text("[[prices]]\nregion = 1\n")
        broken = clary(platform.server, "cost", name)
        assert broken.returncode == 1
        assert "prices.toml, block 1: 'region' must be text" in broken.stderr
    finally:
        own.unlink()


def test_jobs_since_a_date_are_listed(platform: Any) -> None:
    name = platform.script(platform.source(train_py="pass"))
    platform.ended(name)
    assert name in clary(platform.server, "cost", "--since", "2020-01-01").stdout
    assert (
        clary(platform.server, "cost", "--since", "2999-01-01").stdout == "There are no such training jobs.\n"
    )
    wrong = clary(platform.server, "cost", "--since", "yesterday")
    assert wrong.returncode == 2
    assert "'yesterday' is no date" in wrong.stderr
