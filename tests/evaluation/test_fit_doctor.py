"""The fit doctor is right about real runs of known fit, and silent where nobody could tell."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from fit_runs import NONE, Run
from hypothesis import given
from hypothesis import strategies as st

from clary.evaluation.fit import Diagnosis, Verdict, diagnose
from clary.evaluation.metrics import metric_kind, part_of, plain_name
from clary.evaluation.series import MOST_STEPS, Series, grain
from clary.evaluation.suggestions import suggest

WORDS = {
    Verdict.UNDERFITTING: "underfitting",
    Verdict.OVERFITTING: "overfitting",
    Verdict.DIVERGING: "diverging",
    Verdict.PLATEAU: "plateau",
    Verdict.APPROPRIATE: "appropriate fit",
    None: NONE,
}
LEAST_RIGHT = 0.9


def examine(run: Run) -> Diagnosis:
    return diagnose(
        Series(run.train), Series(run.validation), run.metric, hyperparameters=run.hyperparameters
    )


def share_right(runs: Sequence[Run]) -> float:
    wrong = [f"{run.name}: {run.truth}, told {examine(run)}" for run in runs if not right(run)]
    print("\n".join(wrong))  # shown if the test fails
    return 1 - len(wrong) / len(runs)


def right(run: Run) -> bool:
    return WORDS[examine(run).verdict] == run.truth


# The runs.


@pytest.mark.slow
@pytest.mark.xdist_group("fit-runs")
def test_what_is_known_of_each_run_shows_on_rows_that_neither_series_has_seen(runs: Sequence[Run]) -> None:
    assert [run.name for run in runs if not run.confirmed()] == []


@pytest.mark.slow
@pytest.mark.xdist_group("fit-runs")
def test_nine_in_ten_verdicts_are_right_on_the_runs_the_thresholds_were_chosen_on(
    runs: Sequence[Run],
) -> None:
    chosen_on = [run for run in runs if not run.held_out]
    assert len(chosen_on) >= 60
    assert share_right(chosen_on) >= LEAST_RIGHT


@pytest.mark.slow
@pytest.mark.xdist_group("fit-runs")
def test_nine_in_ten_verdicts_are_right_on_the_runs_held_out(runs: Sequence[Run]) -> None:
    held_out = [run for run in runs if run.held_out]
    assert len(held_out) >= 30
    assert share_right(held_out) >= LEAST_RIGHT


@pytest.mark.slow
@pytest.mark.xdist_group("fit-runs")
def test_there_is_no_verdict_where_the_data_cannot_tell(runs: Sequence[Run]) -> None:
    silent = [run for run in runs if run.truth == NONE]
    assert len(silent) >= 10
    assert [run.name for run in silent if examine(run).verdict is not None] == []


@pytest.mark.slow
@pytest.mark.xdist_group("fit-runs")
def test_every_family_is_mostly_right(runs: Sequence[Run]) -> None:
    families = {run.family for run in runs}
    assert len(families) == 7
    for family in families:
        assert share_right([run for run in runs if run.family == family]) >= 0.75, family


@pytest.mark.slow
@pytest.mark.xdist_group("fit-runs")
def test_the_same_run_told_as_a_score_to_be_maximised_gets_the_same_verdict(runs: Sequence[Run]) -> None:
    errors = [run for run in runs if run.metric == "error"]
    assert errors
    for run in errors:
        score = diagnose(
            Series([1 - value for value in run.train]), Series([1 - v for v in run.validation]), "accuracy",
            hyperparameters={"num_class": "2"},
        )  # fmt: skip
        assert score.verdict == examine(run).verdict, run.name


@pytest.mark.slow
@pytest.mark.xdist_group("fit-runs")
def test_values_that_were_lost_hardly_change_a_verdict(runs: Sequence[Run]) -> None:
    """Log lines get lost and metrics are sampled: a tenth of each series is missing."""
    lots = random.Random(3)
    changed = 0
    told = [run for run in runs if run.truth != NONE and len(run.validation) >= 20]
    for run in told:
        kept = [
            Series([values[step] for step in steps], steps)
            for values in (run.train, run.validation)
            for steps in [[step for step in range(len(values)) if lots.random() > 0.1]]
        ]
        thinned = diagnose(*kept, run.metric, hyperparameters=run.hyperparameters)
        changed += thinned.verdict != examine(run).verdict
    assert changed <= 0.1 * len(told)


# Shapes that need no training.


def falling(count: int, start: float = 1.0, end: float = 0.1, speed: float = 5.0) -> list[float]:
    return [end + (start - end) * math.exp(-speed * step / count) for step in range(count)]


def test_overfitting_is_told_with_the_step_from_which_on() -> None:
    train = falling(100, end=0.01)
    validation = [0.3 + 0.4 * math.exp(-step / 8) + 0.004 * max(0, step - 30) for step in range(100)]
    found = diagnose(Series(train), Series(validation), "validation:rmse")
    assert found.verdict is Verdict.OVERFITTING
    assert found.since is not None
    assert 20 <= found.since <= 40
    assert found.numbers["validation_rise"] > 0.1
    assert f"step {found.since:g}" in found.reason


def test_the_steps_are_those_of_the_caller() -> None:
    steps = [10.0 * step for step in range(100)]
    validation = [0.3 + 0.4 * math.exp(-step / 8) + 0.004 * max(0, step - 30) for step in range(100)]
    found = diagnose(Series(falling(100, end=0.01), steps), Series(validation, steps), "rmse")
    assert found.since is not None
    assert 200 <= found.since <= 400


def test_a_sparse_validation_series_is_held_against_the_training_values_of_its_steps() -> None:
    train = falling(200, end=0.01)
    steps = list(range(0, 200, 10))
    validation = [0.3 + 0.4 * math.exp(-step / 16) + 0.002 * max(0, step - 60) for step in steps]
    found = diagnose(Series(train), Series(validation, steps), "loss")
    assert found.verdict is Verdict.OVERFITTING


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_run_that_ends_in_no_numbers_diverges_from_there(bad: float) -> None:
    found = diagnose(Series([*falling(10), *[bad] * 20]), Series([*falling(10), *[bad] * 20]), "loss")
    assert (found.verdict, found.since) == (Verdict.DIVERGING, 10)
    assert "step 10" in found.reason


def test_one_stray_value_does_not_make_a_run_diverge() -> None:
    train, validation = falling(60, end=0.02), falling(60, end=0.05)
    clean = diagnose(Series(train), Series(validation), "logloss")
    train[20] = math.nan
    assert diagnose(Series(train), Series(validation), "logloss").verdict is clean.verdict


def test_a_run_that_was_nothing_but_nan_diverges() -> None:
    found = diagnose(Series([math.nan] * 8), Series([math.nan] * 8), "loss")
    assert found.verdict is Verdict.DIVERGING


def test_a_baseline_of_the_caller_tells_a_weak_model_from_a_good_one() -> None:
    values = falling(50, start=12.0, end=10.0, speed=12)
    weak = diagnose(Series(values), Series([v * 1.02 for v in values]), "mse", baseline=20.0)
    good = diagnose(Series(values), Series([v * 1.02 for v in values]), "mse", baseline=400.0)
    assert (weak.verdict, weak.cause) == (Verdict.UNDERFITTING, "too-simple")
    assert good.verdict is not Verdict.UNDERFITTING


def test_few_validation_rows_are_told_by_the_metric_or_by_the_caller() -> None:
    validation = [0.4, 0.4, 0.2, 0.2, 0.4, 0.2, 0.2, 0.2, 0.2, 0.2]
    told = diagnose(Series(falling(10)), Series(validation), "validation:error")
    assert told.verdict is None
    assert "about 5 validation rows" in told.reason
    given = diagnose(Series(falling(10)), Series(falling(10)), "logloss", validation_rows=7)
    assert given.verdict is None


def test_a_long_run_is_looked_at_in_blocks() -> None:
    lots = random.Random(1)
    count = 100_000
    train = [value + lots.gauss(0, 0.01) for value in falling(count, end=0.01)]
    validation = [
        0.3 + 0.4 * math.exp(-step / 8000) + 4e-6 * max(0, step - 30_000) + lots.gauss(0, 0.02)
        for step in range(count)
    ]
    found = diagnose(Series(train), Series(validation), "rmse")
    assert found.verdict is Verdict.OVERFITTING
    assert found.since is not None
    assert 15_000 <= found.since <= 45_000
    assert found.numbers["steps"] <= MOST_STEPS


def test_nothing_at_all_is_no_verdict() -> None:
    for train, validation in (([], []), ([0.5], []), ([], [0.5]), ([0.5, 0.4], [0.5, 0.4])):
        found = diagnose(Series(train), Series(validation), "loss")
        assert found.verdict is None
        assert found.reason.endswith(".")


VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40)


@given(train=VALUES, validation=VALUES, metric=st.sampled_from(["loss", "accuracy", "rmse", "auc", "x"]))
def test_no_series_breaks_the_doctor(train: list[float], validation: list[float], metric: str) -> None:
    found = diagnose(Series(train), Series(validation), metric)
    assert found.reason
    assert all(isinstance(value, float) for value in map(float, found.numbers.values()))
    suggest(found, algorithm="xgboost", hyperparameters={"eta": "x", "max_depth": ""})
    suggest(found, hyperparameters={"lr": "0.1"})


@given(scale=st.floats(1e-6, 1e6))
def test_the_unit_of_an_error_does_not_matter(scale: float) -> None:
    train = falling(80, end=0.01)
    validation = [0.3 + 0.4 * math.exp(-step / 8) + 0.004 * max(0, step - 30) for step in range(80)]
    found = diagnose(Series([scale * v for v in train]), Series([scale * v for v in validation]), "mae")
    assert found.verdict is Verdict.OVERFITTING


# Names and grains.


@pytest.mark.parametrize(
    ("name", "part", "plain"),
    [
        ("train:rmse", "train", "rmse"),
        ("validation:rmse", "validation", "rmse"),
        ("validation:map@3", "validation", "map@3"),
        ("val_loss", "validation", "loss"),
        ("Training Loss", "train", "loss"),
        ("test-accuracy", "validation", "accuracy"),
        ("eval_f1", "validation", "f1"),
        ("loss", "", "loss"),
        ("evaluation_time", "", "evaluation_time"),
    ],
)
def test_a_name_tells_whose_rows_and_which_metric(name: str, part: str, plain: str) -> None:
    assert (part_of(name), plain_name(name)) == (part, plain)


def test_what_ignorance_scores_is_known_by_name_and_classes() -> None:
    assert metric_kind("validation:logloss").ignorance == pytest.approx(math.log(2))
    assert metric_kind("mlogloss", {"num_class": "10"}).ignorance == pytest.approx(math.log(10))
    assert metric_kind("accuracy", {"num_class": "4"}).ignorance == pytest.approx(0.75)
    assert metric_kind("rmse").ignorance is None
    assert metric_kind("auc").maximize


def test_the_grain_of_shares_is_one_row() -> None:
    assert grain([0.2, 0.4, 0.0]) == pytest.approx(0.2)
    assert grain([0.0333, 0.1, 0.2333]) == pytest.approx(1 / 30)
    assert grain([0.123456, 0.777123, 0.31]) == 0.0


# Suggestions.


def told(cause: str, verdict: Verdict | None, since: float | None = None) -> Diagnosis:
    return Diagnosis(verdict, "…", cause, since, {"steps": 50.0})


@pytest.mark.parametrize(
    ("diagnosis", "hyperparameters", "name", "proposed"),
    [
        (told("grows", Verdict.DIVERGING), {"eta": "0.9"}, "eta", "0.1"),
        (told("turned", Verdict.OVERFITTING, 40), {"num_round": "100"}, "early_stopping_rounds", "10"),
        (told("turned", Verdict.OVERFITTING, 40), {"early_stopping_rounds": "50"}, "max_depth", "3"),
        (told("by-heart", Verdict.OVERFITTING, 2), {"max_depth": "10"}, "max_depth", "5"),
        (told("by-heart", Verdict.OVERFITTING, 2), {"max_depth": "2"}, "min_child_weight", "5"),
        (told("too-short", Verdict.UNDERFITTING), {"num_round": "20"}, "num_round", "60"),
        (told("too-simple", Verdict.UNDERFITTING), {"booster": "gblinear"}, "booster", "gbtree"),
        (told("too-simple", Verdict.UNDERFITTING), {"gamma": "60"}, "gamma", "0"),
        (told("too-simple", Verdict.UNDERFITTING), {"min_child_weight": "200"}, "min_child_weight", "1"),
        (told("too-simple", Verdict.UNDERFITTING), {"max_depth": "1"}, "max_depth", "4"),
        (told("idle", Verdict.PLATEAU, 49), {"num_round": "600"}, "num_round", "60"),
    ],
)
def test_one_change_is_suggested_for_xgboost(
    diagnosis: Diagnosis, hyperparameters: dict[str, str], name: str, proposed: str
) -> None:
    found = suggest(diagnosis, algorithm="xgboost", hyperparameters=hyperparameters)
    assert found is not None
    assert (found.hyperparameter, found.proposed) == (name, proposed)
    assert found.reason


@pytest.mark.parametrize(
    ("diagnosis", "hyperparameters", "name", "proposed"),
    [
        (told("jumps", Verdict.DIVERGING), {"lr": '"0.5"'}, "lr", "0.05"),
        (told("turned", Verdict.OVERFITTING, 11), {"epochs": "30"}, "epochs", "12"),
        (told("by-heart", Verdict.OVERFITTING, 1), {"hidden_size": "128"}, "hidden_size", "64"),
        (told("too-short", Verdict.UNDERFITTING), {"epochs": "5"}, "epochs", "15"),
        (told("too-simple", Verdict.UNDERFITTING), {"alpha": "1.0"}, "alpha", "0.1"),
        (told("idle", Verdict.PLATEAU, 9), {"n_estimators": "500"}, "n_estimators", "12"),
        (told("idle", Verdict.PLATEAU, 9), {"colour": "red"}, "", ""),
    ],
)
def test_one_change_is_suggested_for_a_script_if_it_has_a_hyperparameter_of_a_usual_name(
    diagnosis: Diagnosis, hyperparameters: dict[str, str], name: str, proposed: str
) -> None:
    found = suggest(diagnosis, hyperparameters=hyperparameters)
    assert found is not None
    assert (found.hyperparameter, found.proposed) == (name, proposed)


def test_a_good_fit_needs_no_change_and_too_little_data_needs_more() -> None:
    assert suggest(told("appropriate", Verdict.APPROPRIATE)) is None
    found = suggest(told("one-series", None))
    assert found is not None
    assert "validation channel" in found.reason
