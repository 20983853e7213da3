"""The container contract around an algorithm, run as the program that the agent starts."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import numpy
import pytest
import xgboost

from clary.algorithms.entrypoint import main
from clary.algorithms.job import processors, read_job

LABELS = {"train": {"a.csv": b"1,2\n0,3\n" * 50}}


def run_here(folder: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the algorithm in the test's own process."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(folder.base))
    before = signal.getsignal(signal.SIGTERM)
    try:
        return main(["train", "xgboost"])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_job_trains_and_ends_with_zero(folder: Any) -> None:
    folder.channel("train", LABELS["train"])
    code, out, err = folder.run(num_round=3, objective="binary:logistic")
    assert (code, err, folder.failure) == (0, "", "")
    assert re.findall(r"^\[(\d)\]\ttrain-logloss:\d\.\d+$", out, re.M) == ["0", "1", "2"]
    assert out.startswith("Training XGBoost (image version 1.7-1)\n")
    assert xgboost.Booster(model_file=folder.model).num_boosted_rounds() == 3


def test_a_callers_mistake_ends_with_one_and_a_failure_file(folder: Any) -> None:
    folder.channel("train", {"a.csv": b"1,2\n0,three\n"})
    code, _, err = folder.run(num_round=3)
    reason = "ClientError: train/a.csv, line 2, column 2: 'three' is not a number."
    assert code == 1 and folder.failure == reason and reason in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("hyperparameters", "words"),
    [
        ({}, "ClientError: Missing required hyperparameter: num_round"),
        ({"num_round": 1, "eta": 3}, "ClientError: Hyperparameter eta: '3' is not in [0, 1]"),
        ({"num_round": 1, "foo": 3}, "Additional properties are not allowed ('foo' was unexpected)"),
    ],
)
def test_hyperparameters_are_checked_again_where_they_are_used(
    folder: Any, monkeypatch: pytest.MonkeyPatch, hyperparameters: dict[str, object], words: str
) -> None:
    folder.channel("train", LABELS["train"])
    folder.job(**hyperparameters)
    assert run_here(folder, monkeypatch) == 1
    assert words in folder.failure


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ("validation", "ClientError: The job needs a channel 'train'; it has: validation."),
        ("training", "ClientError: The job needs a channel 'train'; it has: training."),
    ],
)
def test_a_missing_channel_is_named(folder: Any, channel: str, words: str) -> None:
    folder.channel(channel, LABELS["train"])
    code, _, _ = folder.run(num_round=1)
    assert code == 1 and folder.failure == words


def test_an_unknown_channel_and_several_hosts_are_refused(folder: Any) -> None:
    folder.channel("train", LABELS["train"])
    folder.channel("test", LABELS["train"])
    assert folder.run(num_round=1)[0] == 1
    assert "XGBoost has no channel 'test'; its channels are: train, validation, code." in folder.failure


def test_a_job_for_too_many_hosts_is_refused(folder: Any) -> None:
    folder.channel("train", LABELS["train"])
    hosts = [f"algo-{number}" for number in range(1, 102)]
    folder.write("resourceconfig.json", {"hosts": hosts, "current_host": "algo-2"})
    assert folder.run(num_round=1)[0] == 1
    assert "trains on 100 instance(s) here; the job has 101" in folder.failure


def test_an_unexpected_error_is_an_algorithm_error_with_its_place(folder: Any) -> None:
    folder.channel("train", LABELS["train"])
    (folder.base / "model").write_text("in the way")
    code, _, err = folder.run(num_round=1)
    assert code == 1
    assert re.match(r"AlgorithmError: FileExistsError: .+ \(\S+\.py:\d+\)$", folder.failure)
    assert "Traceback (most recent call last)" in err


def test_a_broken_configuration_file_is_named(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.job(num_round=1)
    for content, words in (("{", "is not JSON"), ("[]", "must hold a JSON object")):
        (folder.base / "input/config/inputdataconfig.json").write_text(content)
        (folder.base / "output/failure").unlink(missing_ok=True)
        assert run_here(folder, monkeypatch) == 1
        assert re.match(rf"ClientError: \S+/inputdataconfig.json {words}", folder.failure)


def test_a_cause_that_is_there_already_stays(folder: Any) -> None:
    folder.channel("train", {"a.csv": b"x\n"})
    (folder.base / "output").mkdir()
    (folder.base / "output/failure").write_text("first")
    assert folder.run(num_round=1)[0] == 1 and folder.failure == "first"


def test_a_long_cause_is_cut_to_what_a_failure_reason_holds(folder: Any) -> None:
    folder.channel("train", {("n" * 120 + "/") * 2 + "a.csv": b"1,2\nx,1\n"})
    folder.run(num_round=1, **{f"wrong_{i}": 1 for i in range(60)})
    assert len(folder.failure) == 1024 and folder.failure.startswith("ClientError: Additional properties")


def test_told_to_stop_it_keeps_the_rounds_that_were_done(folder: Any) -> None:
    rows = numpy.random.default_rng(0).normal(size=(2000, 20)).astype(numpy.float32)
    rows[:, 0] = rows[:, 1] > 0
    folder.channel("train", {"a.csv": "\n".join(",".join(map(str, row)) for row in rows).encode()})
    process = folder.start(num_round=100_000, objective="binary:logistic", max_depth=2)
    assert process.stdout is not None
    rounds = 0
    for line in process.stdout:
        if line.startswith("["):
            rounds += 1
            if rounds == 3:
                process.send_signal(signal.SIGTERM)
                break
    out = "".join(process.stdout)  # on from what the loop has read ahead
    assert process.wait(60) == 0, out
    printed = rounds + len(re.findall(r"^\[\d+\]", out, re.M))
    assert f"Told to stop: keeping the model of {printed} round(s)" in out
    assert xgboost.Booster(model_file=folder.model).num_boosted_rounds() == printed
    assert folder.failure == ""


def test_another_command_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="not 'serve'"):
        main(["serve", "xgboost"])


def test_checkpoints_go_below_the_base_directory(folder: Any, tmp_path: Path) -> None:
    assert folder.job().checkpoints is None
    folder.write("checkpointconfig.json", {"S3Uri": "s3://b/c"})
    assert read_job(folder.base).checkpoints == folder.base / "checkpoints"
    folder.write("checkpointconfig.json", {"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/mine/here"})
    assert read_job(folder.base).checkpoints == folder.base / "mine/here"
    folder.write("checkpointconfig.json", {"S3Uri": "s3://b/c", "LocalPath": str(tmp_path / "far")})
    assert read_job(folder.base).checkpoints == tmp_path / "far"


def test_the_processors_are_the_jobs_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_NUM_CPUS", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert processors() == 3
    monkeypatch.setenv("SM_NUM_CPUS", "many")
    assert processors() == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert processors() >= 1
