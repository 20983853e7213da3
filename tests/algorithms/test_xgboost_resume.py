"""A run that was interrupted and goes on from its checkpoint ends with the model of one that never was."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_digits

from clary.algorithms.xgboost import checkpoints
from clary.algorithms.xgboost.train import train

CsvBytes = Callable[[object], bytes]
SETTINGS: list[dict[str, object]] = [
    {},
    {"subsample": 0.6, "colsample_bytree": 0.5, "colsample_bylevel": 0.7, "colsample_bynode": 0.8, "seed": 3},
    {"booster": "dart", "rate_drop": 0.4, "skip_drop": 0.2, "sample_type": "weighted", "subsample": 0.8},
    {"booster": "gblinear", "updater": "coord_descent"},
    {"tree_method": "approx", "subsample": 0.6},
    {"tree_method": "exact", "subsample": 0.6},
    {"grow_policy": "lossguide", "max_leaves": 8, "sampling_method": "gradient_based", "subsample": 0.5},
    {"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.5},
    {"objective": "reg:absoluteerror", "subsample": 0.7},
    {"objective": "count:poisson", "base_score": 0.3},
    {"objective": "multi:softprob", "num_class": 2, "subsample": 0.5},
    {"early_stopping_rounds": 2, "eval_metric": "logloss", "eta": 0.9, "subsample": 0.7},
    {"early_stopping_rounds": 3, "eval_metric": "auc", "booster": "gblinear", "updater": "coord_descent"},
    {"early_stopping_rounds": 2, "eval_metric": "error,accuracy", "booster": "dart", "rate_drop": 0.5},
]


def cancer() -> tuple[Any, Any]:
    features, labels = load_breast_cancer(return_X_y=True)
    rows = numpy.column_stack([labels, features])
    rows = rows[numpy.random.default_rng(1).permutation(len(rows))]
    return rows[:400], rows[400:]


def run(folder: Any, **hyperparameters: object) -> Any:
    job = folder.job(**{"objective": "binary:logistic", "num_round": 12, "nthread": 1, **hyperparameters})
    job.model.mkdir(parents=True, exist_ok=True)
    train(job)
    return xgboost.Booster(model_file=folder.model)


def prepared(folder: Any, csv_bytes: CsvBytes) -> Any:
    inside, outside = cancer()
    folder.channel("train", {"a.csv": csv_bytes(inside)})
    folder.channel("validation", {"v.csv": csv_bytes(outside)})
    folder.write("checkpointconfig.json", {"S3Uri": "s3://bucket/checkpoints"})
    return folder


def keep_only(folder: Any, newest: int) -> None:
    for path in (folder.base / "checkpoints").iterdir():
        if int(path.suffix[1:]) > newest:
            path.unlink()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("after", [0, 4])
def test_a_resumed_run_ends_with_the_same_model(
    folder: Any, csv_bytes: CsvBytes, tmp_path: Any, settings: dict[str, object], after: int
) -> None:
    from tests.algorithms.conftest import JobFolder

    prepared(folder, csv_bytes)
    wanted = run(folder, **settings)
    interrupted = prepared(JobFolder(tmp_path / "interrupted"), csv_bytes)
    run(interrupted, **{**settings, "num_round": after + 1})
    interrupted.model.unlink()
    keep_only(interrupted, after)
    found = run(interrupted, **settings)
    assert bytes(found.save_raw("ubj")) == bytes(wanted.save_raw("ubj"))


def test_early_stopping_that_had_come_stays(folder: Any, csv_bytes: CsvBytes) -> None:
    """A finished job's checkpoints lead to the same end, not to more rounds."""
    prepared(folder, csv_bytes)
    settings = {"early_stopping_rounds": 2, "eta": 0.9, "num_round": 100}
    wanted = run(folder, **settings)
    assert wanted.num_boosted_rounds() < 98
    before = sorted(path.name for path in (folder.base / "checkpoints").iterdir())
    found = run(folder, **settings)
    assert bytes(found.save_raw("ubj")) == bytes(wanted.save_raw("ubj"))
    assert sorted(path.name for path in (folder.base / "checkpoints").iterdir()) == before


def test_rounds_are_left_out_where_writing_would_take_too_long(
    folder: Any, csv_bytes: CsvBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "FREE_SECONDS", -1.0)
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", 0.0)
    prepared(folder, csv_bytes)
    run(folder)
    assert [path.name for path in (folder.base / "checkpoints").iterdir()] == ["xgboost-checkpoint.11"]


def interrupt(programs: list[Any], at: str) -> None:
    assert programs[0].stdout is not None
    while not programs[0].stdout.readline().startswith(at):
        assert programs[0].poll() is None
    for program in programs:
        program.send_signal(signal.SIGTERM)


@pytest.mark.slow
def test_an_interrupted_program_saves_its_last_round_and_goes_on_from_it(
    folder: Any, csv_bytes: CsvBytes, tmp_path: Any
) -> None:
    from tests.algorithms.conftest import JobFolder

    settings = {"objective": "multi:softprob", "num_class": 10, "num_round": 60, "subsample": 0.7}
    features, labels = load_digits(return_X_y=True)
    rows = csv_bytes(numpy.column_stack([labels, features]))
    for each in (folder, whole := JobFolder(tmp_path / "whole")):
        each.channel("train", {"a.csv": rows})
        each.write("checkpointconfig.json", {"S3Uri": "s3://bucket/checkpoints"})
    program = folder.start(**settings)
    interrupt([program], "[3]")
    out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    rounds = int(re.search(r"keeping the model of (\d+) round", out)[1])  # type: ignore[index]
    assert 4 <= rounds < 60
    newest = folder.base / f"checkpoints/xgboost-checkpoint.{rounds - 1}"
    assert xgboost.Booster(model_file=newest).num_boosted_rounds() == rounds
    code, out, err = folder.run(**settings)
    assert code == 0, err
    assert f"Resuming from the checkpoint of round {rounds - 1}" in out
    assert re.findall(r"^\[(\d+)\]", out, re.M) == [str(number) for number in range(rounds, 60)]
    assert whole.run(**settings)[0] == 0
    assert folder.model.read_bytes() == whole.model.read_bytes()


@pytest.mark.slow
def test_an_interrupted_cluster_goes_on_from_the_first_hosts_checkpoint(
    cluster: Any, csv_bytes: CsvBytes
) -> None:
    inside, _ = cancer()
    settings = {"objective": "binary:logistic", "num_round": 40, "subsample": 0.7, "colsample_bynode": 0.5}
    models = []
    for count, at in ((2, None), (3, "[5]")):
        folders = cluster(count)
        hosts = folders.hosts[-2:]
        for number, host in enumerate(hosts):
            host.channel("train", {"a.csv": csv_bytes(inside[number::2])})
        for host in folders.hosts:
            host.write("checkpointconfig.json", {"S3Uri": "s3://bucket/checkpoints"})
            if host not in hosts:
                host.channel("train", {})
        if at is not None:
            programs = folders.start(**settings)
            interrupt(programs[1:], at)
            programs[0].send_signal(signal.SIGTERM)
            assert [code for code, _, _ in folders.finish(programs)] == [0, 0, 0]
        ends = folders.run(**settings)
        assert [code for code, _, _ in ends] == [0] * count, [err for _, _, err in ends]
        assert ("Resuming from the checkpoint" in ends[-2][1]) is (at is not None)
        models.append(folders.first.model.read_bytes())
    assert models[0] == models[1]
