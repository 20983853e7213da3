"""Unmodified clients against a real Clary, each in its own environment, with no network but loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from sklearn.datasets import load_breast_cancer

RunClient = Callable[..., dict[str, Any]]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clients")]


def test_sdk_2_trains_deploys_and_scores(run_client: RunClient) -> None:
    seen = run_client("sdk2", "python", "sdk2.py")
    assert seen["role"] == "arn:aws:iam::123456789012:role/ClaryExecutionRole"
    assert seen["builtin_accuracy"] > 0.9
    assert seen["curve_points"] >= 1  # a point for each minute of the job
    assert seen["script_accuracy"] > 0.9
    assert seen["script_metrics"]["train:accuracy"] > 0.9
    assert any("assumed-role/ClaryExecutionRole/" in line for line in seen["script_logs"])


def test_sdk_1_trains_deploys_and_scores(run_client: RunClient) -> None:
    seen = run_client("sdk1", "python", "sdk1.py")
    assert seen["builtin_accuracy"] > 0.9
    assert seen["model_data"].endswith("/output/model.tar.gz")


def test_sdk_3_trains_deploys_and_scores(run_client: RunClient) -> None:
    seen = run_client("sdk3", "python", "sdk3.py")
    assert seen["status"] == "Completed"
    assert seen["builtin_accuracy"] > 0.9
    assert "train:logloss" in seen["metrics"]


def test_the_aws_cli_trains_deploys_and_scores(run_client: RunClient, tmp_path: Path) -> None:
    data = load_breast_cancer()
    labels = 1 - data.target
    rows = numpy.column_stack([labels, data.data])
    numpy.savetxt(tmp_path / "train.csv", rows[:400], delimiter=",", fmt="%.6g")
    numpy.savetxt(tmp_path / "test.csv", rows[400:, 1:], delimiter=",", fmt="%.6g")
    run_client("cli", "sh", "cli.sh")
    scores = numpy.fromstring((tmp_path / "answer.csv").read_text().replace("\n", ","), sep=",")
    assert ((scores > 0.5) == labels[400:]).mean() > 0.9
    assert "train-logloss" in (tmp_path / "log.txt").read_text()


PUBLISHED = {"objective": "binary:logistic", "num_round": "20"}


def test_sdk_1_trains_by_an_algorithms_arn(run_client: RunClient) -> None:
    seen = run_client("sdk1", "python", "sdk1_algorithm.py")
    assert seen["status"] == "Completed"
    assert seen["hyperparameters"] == {**PUBLISHED, "eta": "0.3"}
    assert seen["attached_arn"] == seen["arn"]
    assert seen["model_data"].endswith("/output/model.tar.gz")
    assert "train:logloss" in seen["metrics"]
    wrong_type, too_many = seen["refused"]
    assert "sdk1-Algorithm supports the following instance types" in wrong_type
    assert "Distributed training is not supported by sdk1-Algorithm" in too_many


def test_sdk_2_trains_by_an_algorithms_arn(run_client: RunClient) -> None:
    seen = run_client("sdk2", "python", "sdk2_algorithm.py")
    assert seen["status"] == "Completed"
    assert seen["hyperparameters"] == PUBLISHED
    assert seen["attached_arn"] == seen["arn"]
    assert seen["model_data"].endswith("/output/model.tar.gz")
    assert "train:logloss" in seen["curve"]


def test_sdk_3_trains_by_an_algorithms_arn(run_client: RunClient) -> None:
    seen = run_client("sdk3", "python", "sdk3_algorithm.py")
    assert seen["status"] == "Completed"
    assert seen["hyperparameters"] == PUBLISHED
    assert seen["trainer_status"] == "Completed"
    assert seen["trainer_algorithm"] == seen["arn"]
    assert seen["listed"] == ["sdk3-algorithm"]
    assert seen["left"] == []


def test_the_aws_cli_publishes_and_trains_by_an_algorithms_arn(run_client: RunClient, tmp_path: Path) -> None:
    data = load_breast_cancer()
    rows = numpy.column_stack([1 - data.target, data.data])
    numpy.savetxt(tmp_path / "train.csv", rows[:400], delimiter=",", fmt="%.6g")
    run_client("cli", "sh", "cli_algorithm.sh")
    assert (tmp_path / "listed.txt").read_text().split() == ["cli-algorithm", "Completed"]
    assert "Hyperparameter num_round: 'ten' is not a whole number" in (tmp_path / "refused.txt").read_text()
    status, objective, named = (tmp_path / "described.txt").read_text().split()
    assert (status, objective) == ("Completed", "binary:logistic")
    assert named.endswith(":algorithm/cli-algorithm")
    assert "does not exist" in (tmp_path / "gone.txt").read_text()
