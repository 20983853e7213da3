"""XGBoost's hyperparameters, metrics and images, as the developer guide and AWS's container have them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from clary.algorithms.algorithm import (
    AlgorithmSpec,
    Channel,
    Hyperparameter,
    Kind,
    Metric,
    Range,
    Tunable,
)

MODEL_NAME = "xgboost-model"
VERSIONS = ("0.90-1", "0.90-2", "1.0-1", "1.2-1", "1.2-2", "1.3-1", "1.5-1", "1.7-1", "3.0-5")
CONTENT_TYPES = (
    "text/libsvm", "text/x-libsvm", "libsvm", "text/csv", "csv", "application/x-parquet", "parquet",
    "application/x-recordio-protobuf", "recordio-protobuf",
)  # fmt: skip
_INPUT_MODES = ("File", "FastFile", "Pipe")
DEFAULT_OBJECTIVE = "reg:squarederror"
OBJECTIVES = (
    "binary:logistic", "binary:logitraw", "binary:hinge", "count:poisson", "multi:softmax", "multi:softprob",
    "rank:pairwise", "rank:ndcg", "rank:map", "reg:linear", "reg:squarederror", "reg:logistic", "reg:gamma",
    "reg:pseudohubererror", "reg:squaredlogerror", "reg:absoluteerror", "reg:tweedie", "survival:aft",
    "survival:cox",
)  # fmt: skip
MAXIMIZED = (
    "accuracy", "auc", "aucpr", "balanced_accuracy", "f1", "f1_binary", "f1_macro", "map", "ndcg",
    "precision", "precision_macro", "precision_micro", "r2", "recall", "recall_macro", "recall_micro",
)  # fmt: skip
MINIMIZED = (
    "aft-nloglik", "cox-nloglik", "error", "gamma-deviance", "gamma-nloglik", "interval-regression-accuracy",
    "logloss", "mae", "mape", "merror", "mlogloss", "mphe", "mse", "poisson-nloglik", "rmse", "rmsle",
    "tweedie-nloglik",
)  # fmt: skip
# Metrics that AWS's container computes itself from predictions; see `custom_metrics`.
CUSTOM_METRICS = (
    "accuracy", "balanced_accuracy", "f1", "f1_binary", "f1_macro", "mse", "precision", "precision_macro",
    "precision_micro", "r2", "recall", "recall_macro", "recall_micro",
)  # fmt: skip
# Metrics that may carry a threshold or a number of places: ``error@0.7``, ``ndcg@10``.
_WITH_NUMBER = ("error", "map", "ndcg")
_TREE_UPDATERS = (
    "grow_colmaker", "distcol", "grow_histmaker", "grow_local_histmaker", "grow_skmaker",
    "grow_quantile_histmaker", "sync", "refresh", "prune",
)  # fmt: skip
_LINEAR_UPDATERS = ("shotgun", "coord_descent")

_SCORE = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
_UNIT = Range(0, 1)
_SHARE = Range(0, 1, low_open=True)
_FROM_ZERO = Range(0)
_BINARY = ("0", "1")
_BOOLEAN = ("true", "false")


def metric_names(value: str) -> list[str]:
    """The names in an ``eval_metric`` list: ``auc,logloss`` or ``["auc", "logloss"]``."""
    return [name for name in re.split(r"[,\s\[\]()'\"]+", value) if name]


def _check_metrics(value: str) -> str | None:
    for name in metric_names(value):
        plain, at, number = name.partition("@")
        if at and (plain not in _WITH_NUMBER or not re.fullmatch(r"[0-9]*\.?[0-9]+-?", number)):
            return f"'{name}' is not supported: a number after @ goes with {', '.join(_WITH_NUMBER)} only"
        if plain not in (*MAXIMIZED, *MINIMIZED):
            return f"'{name}' is not in [{', '.join((*MAXIMIZED, *MINIMIZED))}]"
    return None if metric_names(value) else f"'{value}' names no metric"


def _check_signs(value: str) -> str | None:
    if re.fullmatch(r"[(\[]?\s*[-+]?[01]\s*(,\s*[-+]?[01]\s*)*,?\s*[)\]]?", value):
        return None
    return f"'{value}' is not a tuple of -1, 0 and 1, such as (1, 0, -1)"


def _check_groups(value: str) -> str | None:
    try:
        groups = json.loads(value.replace("(", "[").replace(")", "]"))
    except ValueError:
        groups = None
    if isinstance(groups, list) and all(
        isinstance(group, list) and all(type(each) is int and each >= 0 for each in group) for group in groups
    ):
        return None
    return f"'{value}' is not a nested list of feature numbers, such as [[0, 1], [2, 3, 4]]"


def _check_updaters(value: str) -> str | None:
    known = (*_TREE_UPDATERS, *_LINEAR_UPDATERS)
    unknown = [name for name in _updaters(value) if name not in known]
    return f"'{unknown[0]}' is not in [{', '.join(known)}]" if unknown else None


def _updaters(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _knob(
    name: str,
    kind: Kind,
    description: str,
    valid: Range | Sequence[str] | Callable[[str], str | None] | None = None,
    default: str | None = None,
    *,
    required: bool = False,
    tune: tuple[float, float] | None = None,
    alias: str = "",
) -> Hyperparameter:
    return Hyperparameter(
        name,
        kind,
        description,
        range=valid if isinstance(valid, Range) else None,
        values=tuple(valid) if isinstance(valid, Sequence) else (),
        check=valid if callable(valid) else None,
        default=default,
        required=required,
        tunable=Tunable(*tune) if tune else None,
        aliases=(alias,) if alias else (),
    )


HYPERPARAMETERS = (
    _knob("num_round", "Integer", "Rounds of boosting.", Range(1), required=True, tune=(1, 4000)),
    _knob("num_class", "Integer", "Number of classes; required by multi:* objectives.", Range(2)),
    _knob("alpha", "Continuous", "L1 penalty on weights.",
          _FROM_ZERO, "0", tune=(0, 1000), alias="reg_alpha"),
    _knob("aft_loss_distribution", "Categorical", "Distribution of the error term of survival:aft.",
          ("normal", "logistic", "extreme"), "normal"),
    _knob("aft_loss_distribution_scale", "Continuous", "Scale of that distribution.",
          Range(0, low_open=True), "1"),
    _knob("base_score", "Continuous", "What every prediction starts from.", default="0.5"),
    _knob("booster", "Categorical", "Kind of model.", ("gbtree", "gblinear", "dart"), "gbtree"),
    _knob("colsample_bylevel", "Continuous", "Share of columns drawn for a level.",
          _SHARE, "1", tune=(0.1, 1)),
    _knob("colsample_bynode", "Continuous", "Share of columns drawn for a node.", _SHARE, "1", tune=(0.1, 1)),
    _knob("colsample_bytree", "Continuous", "Share of columns drawn for a tree.", _SHARE, "1", tune=(0.5, 1)),
    _knob("csv_weights", "Categorical", "1: the second CSV column is the row's weight.", _BINARY, "0"),
    _knob("deterministic_histogram", "Categorical", "Repeatable histograms on a GPU.", _BOOLEAN, "true"),
    _knob("dsplit", "Categorical", "How rows are spread over hosts; without effect.", ("row", "col")),
    _knob("early_stopping_rounds", "Integer",
          "Stop after so many rounds without a better last metric on the validation channel.", Range(1)),
    _knob("eta", "Continuous", "Shrinks each round's step.",
          _UNIT, "0.3", tune=(0.1, 0.5), alias="learning_rate"),
    _knob("eval_metric", "FreeText", "Metrics, with commas between; by default the objective's.",
          _check_metrics),
    _knob("gamma", "Continuous", "Least gain of a split.",
          _FROM_ZERO, "0", tune=(0, 5), alias="min_split_loss"),
    _knob("grow_policy", "Categorical", "Which node is split next.", ("depthwise", "lossguide"), "depthwise"),
    _knob("interaction_constraints", "FreeText", "Groups of features that may meet in a branch.",
          _check_groups),
    _knob("lambda", "Continuous", "L2 penalty on weights.",
          _FROM_ZERO, "1", tune=(0, 1000), alias="reg_lambda"),
    _knob("lambda_bias", "Continuous", "L2 penalty on the bias of a linear model; without effect.",
          _UNIT, "0"),
    _knob("max_bin", "Integer", "Bins for a continuous feature.", Range(2), "256"),
    _knob("max_delta_step", "Integer", "Limit of a leaf's step; 0 for none.", _FROM_ZERO, "0", tune=(0, 10)),
    _knob("max_depth", "Integer", "Depth of a tree; 0 for no limit.", _FROM_ZERO, "6", tune=(0, 10)),
    _knob("max_leaves", "Integer", "Leaves of a tree; 0 for no limit.", _FROM_ZERO, "0"),
    _knob("min_child_weight", "Continuous", "Least sum of weights in a child.",
          _FROM_ZERO, "1", tune=(0, 120)),
    _knob("monotone_constraints", "FreeText", "The sign of each feature's effect.", _check_signs),
    _knob("normalize_type", "Categorical", "How dart weighs new trees.", ("tree", "forest"), "tree"),
    _knob("nthread", "Integer", "Threads; by default the job's processors.", Range(1)),
    _knob("num_parallel_tree", "Integer", "Trees grown in a round.", Range(1), "1"),
    _knob("objective", "Categorical", "What is learned.", OBJECTIVES, DEFAULT_OBJECTIVE),
    _knob("one_drop", "Categorical", "1: dart drops at least one tree.", _BINARY, "0"),
    _knob("predictor", "Categorical", "Where predictions are computed; without effect.",
          ("auto", "cpu_predictor", "gpu_predictor"), "auto"),
    _knob("prob_buffer_row", "Continuous", "Without effect.", Range(1, low_open=True)),
    _knob("process_type", "Categorical", "Grow new trees, or update a model's.",
          ("default", "update"), "default"),
    _knob("rate_drop", "Continuous", "Share of trees that dart drops.", _UNIT, "0"),
    _knob("refresh_leaf", "Categorical", "1: the refresh updater renews leaves too.", _BINARY, "1"),
    _knob("sample_type", "Categorical", "How dart draws the trees to drop.",
          ("uniform", "weighted"), "uniform"),
    _knob("sampling_method", "Categorical", "How rows are drawn.", ("uniform", "gradient_based"), "uniform"),
    _knob("save_model_on_termination", "Categorical",
          "Save what was trained when the job is stopped; here that is always done.", _BOOLEAN, "false"),
    _knob("scale_pos_weight", "Continuous", "Weight of positive rows.", Range(0, low_open=True), "1"),
    _knob("seed", "Integer", "Of the random numbers.", Range(-(2**31), 2**31 - 1, True, True), "0"),
    _knob("single_precision_histogram", "Categorical", "Without effect.", _BOOLEAN, "false"),
    _knob("sketch_eps", "Continuous", "Without effect: see max_bin.", _UNIT, "0.03"),
    _knob("skip_drop", "Continuous", "Probability that dart drops nothing in a round.", _UNIT, "0"),
    _knob("subsample", "Continuous", "Share of rows drawn for a tree.", _SHARE, "1", tune=(0.5, 1)),
    _knob("tree_method", "Categorical", "How trees are built; gpu_hist is hist here.",
          ("auto", "exact", "approx", "hist", "gpu_hist"), "auto"),
    _knob("tweedie_variance_power", "Continuous", "Of reg:tweedie.", Range(1, 2, True, True), "1.5"),
    _knob("updater", "FreeText", "Steps of building a tree, with commas between.", _check_updaters),
    _knob("use_dask_gpu_training", "Categorical", "Without effect: there is no GPU.", _BOOLEAN, "false"),
    _knob("verbosity", "Categorical", "How much the library says.", ("0", "1", "2", "3"), "1"),
    _knob("_kfold", "Integer", "Folds of a cross validation over train and validation.", Range(2)),
    _knob("_num_cv_round", "Integer", "How often the cross validation is repeated.", Range(1)),
)  # fmt: skip


def _rules(values: Mapping[str, str]) -> Sequence[str]:
    errors = []
    objective = values.get("objective", DEFAULT_OBJECTIVE)
    if objective.startswith("multi:") and "num_class" not in values:
        errors.append(f"Require input for parameter 'num_class' for multi-classification ({objective})")
    if "num_class" in values and not objective.startswith("multi:"):
        errors.append(
            f"Do not need to setup parameter 'num_class' for learning task other than multi-classification "
            f"(the objective is {objective})"
        )
    names = metric_names(values.get("eval_metric", ""))
    if "auc" in names and not objective.startswith(("binary:", "rank:")):
        errors.append("Metric 'auc' can only be applied for classification and ranking problems.")
    if "aft-nloglik" in names and objective != "survival:aft":
        errors.append("Metric 'aft-nloglik' can only be applied for 'survival:aft' objective.")
    method = values.get("tree_method", "auto")
    if "monotone_constraints" in values and method not in ("exact", "hist"):
        errors.append(
            "monotone_constraints can be used only when the tree_method parameter is set to either "
            "'exact' or 'hist'."
        )
    if "interaction_constraints" in values and method not in ("exact", "hist", "approx"):
        errors.append(
            "interaction_constraints can be used only when the tree_method parameter is set to either "
            "'exact', 'hist' or 'approx'."
        )
    if "updater" in values:
        errors += _updater_rules(values)
    return errors


def _updater_rules(values: Mapping[str, str]) -> Sequence[str]:
    updaters = _updaters(values["updater"])
    if values.get("booster") == "gblinear":
        if len(updaters) != 1 or updaters[0] not in _LINEAR_UPDATERS:
            return ["Linear updater should be one of these options: 'shotgun', 'coord_descent'."]
    elif values.get("process_type") == "update":
        if not set(updaters) <= {"refresh", "prune"}:
            return ["process_type 'update' can only be used with updater 'refresh' and 'prune'"]
    elif not set(updaters) <= set(_TREE_UPDATERS):
        return [
            f"Tree updater should be selected from these options: {', '.join(map(repr, _TREE_UPDATERS))}."
        ]
    elif sum(name.startswith("grow_") or name == "distcol" for name in updaters) > 1:
        return ["Only one tree grow plugin can be selected."]
    return []


def _metrics() -> Sequence[Metric]:
    return tuple(
        # The service's log forwarding shows the tab as #011; a raw tab is what the algorithm prints.
        Metric(
            f"{part}:{name}",
            rf"(?:#011|\t){part}-{re.escape(name)}:{_SCORE}",
            "Maximize" if name in MAXIMIZED else "Minimize",
        )
        for part in ("train", "validation")
        for name in (*MAXIMIZED, *MINIMIZED)
    )


SPEC = AlgorithmSpec(
    name="xgboost",
    title="XGBoost",
    tags={
        "sagemaker-xgboost": [
            *VERSIONS,
            *(f"{version}-cpu-py3" for version in VERSIONS),
            *(f"{version}-gpu-py3" for version in VERSIONS),
        ],
        "xgboost": ["1", "latest"],
    },
    hyperparameters=HYPERPARAMETERS,
    metrics=_metrics(),
    channels=(
        Channel("train", True, CONTENT_TYPES, _INPUT_MODES),
        Channel("validation", False, CONTENT_TYPES, _INPUT_MODES),
        Channel("code", False, ()),
    ),
    request_types=("text/csv", "text/libsvm", "application/x-recordio-protobuf"),
    reply_types=("text/csv", "application/json", "application/jsonlines", "application/x-recordio-protobuf"),
    most_instances=100,
    rules=_rules,
)
