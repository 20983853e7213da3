"""Which series of a job's metrics are held against one another, and over which steps."""

from __future__ import annotations

import pytest

from clary.faults import Invalid
from clary.services.clary.fit import Pair, choose_pair, values_of
from clary.telemetry.metric_store import Point

BUILT_IN = ["train:logloss", "validation:logloss", "train:auc", "validation:auc"]


def test_the_metric_of_the_tuning_objective_comes_first_then_the_last_that_is_asked_for() -> None:
    assert choose_pair(BUILT_IN, {}) == Pair("logloss", "train:logloss", "validation:logloss")
    asked = {"eval_metric": "logloss,auc"}
    assert choose_pair(BUILT_IN, asked) == Pair("auc", "train:auc", "validation:auc")
    tuned = {**asked, "_tuning_objective_metric": "validation:logloss"}
    assert choose_pair(BUILT_IN, tuned) == Pair("logloss", "train:logloss", "validation:logloss")


def test_a_pair_comes_before_a_series_that_is_alone() -> None:
    names = ["train:rmse", "train:mae", "validation:mae"]
    assert choose_pair(names, {"eval_metric": "mae,rmse"}) == Pair("mae", "train:mae", "validation:mae")
    assert choose_pair(["train:rmse"], {}) == Pair("rmse", "train:rmse", None)
    assert choose_pair([], {}) is None


def test_a_name_that_does_not_tell_whose_rows_is_of_the_training_rows() -> None:
    assert choose_pair(["loss", "val_loss"], {}) == Pair("loss", "loss", "val_loss")


@pytest.mark.parametrize("wanted", ["auc", "validation:auc", "train:auc"])
def test_a_metric_can_be_chosen_by_either_name(wanted: str) -> None:
    assert choose_pair(BUILT_IN, {}, wanted) == Pair("auc", "train:auc", "validation:auc")


def test_a_metric_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(Invalid, match="no metric 'f1'; the job has train:auc, train:logloss"):
        choose_pair(BUILT_IN, {}, "f1")


def points(count: int, *, steps: bool = False) -> list[Point]:
    return [Point(100.0, float(at), step=at * 5 if steps else None) for at in range(count)]


def test_steps_that_were_told_count() -> None:
    train, validation = values_of(points(10, steps=True), points(3, steps=True))
    assert list(train.steps) == [5.0 * at for at in range(10)]
    assert list(validation.steps) == [0, 5, 10]


def test_a_sparser_series_is_stretched_over_the_longer_one() -> None:
    train, validation = values_of(points(100), points(10))
    assert list(train.steps) == list(range(100))
    assert list(validation.steps) == [9.0 + 10 * at for at in range(10)]


def test_a_missing_series_is_empty() -> None:
    train, validation = values_of(points(4), [])
    assert list(train.steps) == [0, 1, 2, 3]
    assert list(validation.values) == []
