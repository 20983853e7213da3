"""What algorithms declare, and how hyperparameters are checked against it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from clary.algorithms.algorithm import (
    Hyperparameter,
    Range,
    check_hyperparameters,
    find_algorithm,
    get_algorithm,
    specs,
)

XGBOOST = get_algorithm("xgboost")


def errors(**values: str) -> list[str]:
    return check_hyperparameters(XGBOOST, {"num_round": "10", **values})


def test_reading_specs_imports_no_numerical_library() -> None:
    script = (
        "import sys; from clary.algorithms.algorithm import specs; specs();"
        "print([m for m in ('numpy', 'scipy', 'xgboost', 'sklearn') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("repository", "tag"),
    [
        ("sagemaker-xgboost", "0.90-1-cpu-py3"),
        ("sagemaker-xgboost", "1.2-2"),
        ("sagemaker-xgboost", "1.7-1"),
        ("sagemaker-xgboost", "3.0-5"),
        ("xgboost", "1"),
        ("xgboost", "latest"),
    ],
)
def test_every_image_name_of_xgboost_means_it(repository: str, tag: str) -> None:
    assert find_algorithm(repository, tag) is XGBOOST


@pytest.mark.parametrize(
    ("repository", "tag"), [("sagemaker-xgboost", "9.9-9"), ("xgboost-mine", "1"), ("", "")]
)
def test_another_image_means_nothing(repository: str, tag: str) -> None:
    assert find_algorithm(repository, tag) is None


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.name)
def test_defaults_and_tuning_ranges_are_valid_themselves(spec) -> None:  # type: ignore[no-untyped-def]
    names = [name for each in spec.hyperparameters for name in (each.name, *each.aliases)]
    assert len(names) == len(set(names))
    for each in spec.hyperparameters:
        assert each.description and each.described_values()
        assert each.default is None or each.error(each.default) is None, each.name
        if each.tunable:
            low, high = (f"{end:.15g}" for end in (each.tunable.low, each.tunable.high))
            assert each.error(low) is None and each.error(high) is None, each.name
    for metric in spec.metrics:
        assert re.compile(metric.regex).groups == 1


def test_an_unknown_name_is_refused_in_awss_words() -> None:
    assert errors(learning="0.1") == ["Additional properties are not allowed ('learning' was unexpected)"]


def test_what_the_sdk_and_a_tuning_job_add_is_accepted() -> None:
    assert errors(sagemaker_region="us-east-1", _tuning_objective_metric="validation:auc") == []
    [error] = errors(_tuning_objective_metric="validation:fame")
    assert "'validation:fame' is not a metric of XGBoost" in error


def test_a_missing_required_one_is_named() -> None:
    assert check_hyperparameters(XGBOOST, {}) == ["Missing required hyperparameter: num_round"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_round", "0", "Hyperparameter num_round: '0' is not in [1, +inf)"),
        ("num_round", "1.5", "'1.5' is not a whole number"),
        ("num_round", "1_000", "'1_000' is not a whole number"),
        ("eta", "1.01", "Hyperparameter eta: '1.01' is not in [0, 1]"),
        ("eta", "nan", "'nan' is not a number"),
        ("eta", "inf", "'inf' is not a number"),
        ("eta", "1e999", "'1e999' is not in [0, 1]"),
        ("subsample", "0", "'0' is not in (0, 1]"),
        ("tweedie_variance_power", "2", "'2' is not in (1, 2)"),
        ("booster", "forest", "'forest' is not in [gbtree, gblinear, dart]"),
        ("eval_metric", "auc,fame", "'fame' is not in [accuracy, "),
        ("eval_metric", "auc@3", "'auc@3' is not supported"),
        ("eval_metric", "error@x", "'error@x' is not supported"),
        ("eval_metric", ",", "names no metric"),
        ("monotone_constraints", "(1, 2)", "is not a tuple of -1, 0 and 1"),
        ("interaction_constraints", "[1, 2]", "is not a nested list"),
        ("updater", "grow_bonsai", "'grow_bonsai' is not in [grow_colmaker"),
        ("csv_weights", "2", "'2' is not in [0, 1]"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_and_range(name: str, value: str, words: str) -> None:
    [error] = errors(**{name: value, "objective": "binary:logistic", "tree_method": "hist"})
    assert error.startswith(f"Hyperparameter {name}: ") and words in error


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"objective": "multi:softmax"}, "Require input for parameter 'num_class'"),
        ({"objective": "binary:logistic", "num_class": "2"}, "Do not need to setup parameter 'num_class'"),
        ({"eval_metric": "auc"}, "Metric 'auc' can only be applied for classification and ranking"),
        ({"eval_metric": "aft-nloglik"}, "can only be applied for 'survival:aft'"),
        (
            {"monotone_constraints": "(1)", "tree_method": "approx"},
            "monotone_constraints can be used only when",
        ),
        ({"interaction_constraints": "[[0]]"}, "interaction_constraints can be used only when"),
        ({"booster": "gblinear", "updater": "prune"}, "Linear updater should be one of"),
        ({"process_type": "update", "updater": "grow_histmaker"}, "'update' can only be used with updater"),
        ({"updater": "shotgun"}, "Tree updater should be selected"),
        ({"updater": "grow_colmaker,grow_histmaker"}, "Only one tree grow plugin"),
    ],
)
def test_hyperparameters_that_do_not_go_together_are_refused(values: dict[str, str], words: str) -> None:
    [error] = errors(**values)
    assert words in error


@pytest.mark.parametrize(
    "values",
    [
        {"objective": "binary:logistic", "eval_metric": "auc,error@0.7,logloss"},
        {"objective": "rank:ndcg", "eval_metric": "ndcg@10,map@5-"},
        {"objective": "multi:softprob", "num_class": "3", "eval_metric": "['mlogloss', 'merror']"},
        {"monotone_constraints": "(1, 0, -1)", "tree_method": "hist"},
        {"interaction_constraints": "[[0, 1], [2, 3]]", "tree_method": "exact"},
        {"booster": "gblinear", "updater": "shotgun"},
        {"updater": "grow_histmaker, prune"},
        {"learning_rate": "0.1", "reg_alpha": "1", "reg_lambda": "2", "min_split_loss": ".5"},
        {"objective": "Binary:Logistic", "booster": "GBTree", "save_model_on_termination": "True"},
    ],
)
def test_hyperparameters_that_aws_takes_are_taken(values: dict[str, str]) -> None:
    assert errors(**values) == []


def test_an_alias_and_its_name_together_are_refused() -> None:
    assert errors(eta="0.1", learning_rate="0.2") == [
        "Hyperparameter eta is given twice, as 'eta' and 'learning_rate'"
    ]


def test_resolving_gives_own_names_and_spelling() -> None:
    given = {"learning_rate": " 0.1", "objective": "Binary:Logistic", "sagemaker_region": "x"}
    assert XGBOOST.resolve(given) == {"eta": "0.1", "objective": "binary:logistic"}


def test_several_mistakes_are_told_at_once() -> None:
    assert len(check_hyperparameters(XGBOOST, {"eta": "7", "x": "1"})) == 3


@pytest.mark.parametrize("tab", ["\t", "#011"])
def test_metrics_are_found_in_log_lines_with_either_tab(tab: str) -> None:
    line = f"[12]{tab}train-auc:0.93000{tab}validation-auc:0.91e-1{tab}validation-aucpr:0.5"
    found = {
        metric.name: match.group(1)
        for metric in XGBOOST.metrics
        if (match := re.search(metric.regex, line)) is not None
    }
    assert found == {"train:auc": "0.93000", "validation:auc": "0.91e-1", "validation:aucpr": "0.5"}


def test_metrics_know_their_direction() -> None:
    directions = {metric.name: metric.direction for metric in XGBOOST.metrics}
    assert directions["validation:auc"] == "Maximize" and directions["validation:rmse"] == "Minimize"


def test_a_word_may_stand_for_a_number() -> None:
    factor = Hyperparameter("factor", "Integer", range=Range(1), words=("auto",))
    assert factor.error("auto") is None and factor.error(" Auto ") is None and factor.error("4") is None
    assert factor.canonical("AUTO") == "auto"
    assert factor.error("0") == "Hyperparameter factor: '0' is not in [1, +inf) or auto"
    assert factor.error("many") == (
        "Hyperparameter factor: 'many' is not a whole number in [1, +inf) or auto"
    )


def test_ranges_show_open_and_closed_ends() -> None:
    assert str(Range(0, 1, low_open=True)) == "(0, 1]" and str(Range()) == "(-inf, +inf)"
    assert Hyperparameter("n", "Integer", range=Range(1, 3)).error("3") is None
