"""XGBoost's hyperparameters, metrics and images, as the developer guide and AWS's container have them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from clary.algorithms.algorithm import (
    AlgorithmSpec,
    Channel,
    Hyperparameter,
    Kind,
    Metric,
    Range,
    Tunable,
)

VERSIONS = ("0.90-1", "0.90-2", "1.0-1", "1.2-1", "1.2-2", "1.3-1", "1.5-1", "1.7-1", "3.0-5")
CONTENT_TYPES = (
    "text/libsvm",
    "text/x-libsvm",
    "libsvm",
    "text/csv",
    "csv",
    "application/x-parquet",
    "parquet",
    "application/x-recordio-protobuf",
    "recordio-protobuf",
)
OBJECTIVES = (
    "binary:logistic",
    "binary:logitraw",
    "binary:hinge",
    "count:poisson",
    "multi:softmax",
    "multi:softprob",
    "rank:pairwise",
    "rank:ndcg",
    "rank:map",
    "reg:linear",
    "reg:squarederror",
    "reg:logistic",
    "reg:gamma",
    "reg:pseudohubererror",
    "reg:squaredlogerror",
    "reg:absoluteerror",
    "reg:tweedie",
    "survival:aft",
    "survival:cox",
)
MAXIMIZED = (
    "accuracy",
    "auc",
    "aucpr",
    "balanced_accuracy",
    "f1",
    "f1_binary",
    "f1_macro",
    "map",
    "ndcg",
    "precision",
    "precision_macro",
    "precision_micro",
    "r2",
    "recall",
    "recall_macro",
    "recall_micro",
)
MINIMIZED = (
    "aft-nloglik",
    "cox-nloglik",
    "error",
    "gamma-deviance",
    "gamma-nloglik",
    "interval-regression-accuracy",
    "logloss",
    "mae",
    "mape",
    "merror",
    "mlogloss",
    "mphe",
    "mse",
    "poisson-nloglik",
    "rmse",
    "rmsle",
    "tweedie-nloglik",
)
# Metrics that AWS's container computes itself from predictions; see `custom_metrics`.
CUSTOM_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "f1",
    "f1_binary",
    "f1_macro",
    "mse",
    "precision",
    "precision_macro",
    "precision_micro",
    "r2",
    "recall",
    "recall_macro",
    "recall_micro",
)
_PLAIN_THRESHOLD = re.compile(r"(?:error@[0-9.]+|(?:ndcg|map)(?:@[0-9]+)?-?|tweedie-nloglik@[0-9.]+)\Z")

_NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
UNIT = Range(0, 1)
SHARE = Range(0, 1, low_open=True)
POSITIVE = Range(0)


def _parameter(
    name: str,
    kind: Kind,
    valid: Range | Sequence[str] | None = None,
    default: str | None = None,
    *,
    required: bool = False,
    tune: tuple[float, float] | None = None,
) -> Hyperparameter:
    return Hyperparameter(
        name,
        kind,
        range=valid if isinstance(valid, Range) else None,
        values=valid if valid is not None and not isinstance(valid, Range) else (),
        default=default,
        required=required,
        tunable=Tunable(*tune) if tune else None,
    )


_BINARY = ("0", "1")
_BOOLEAN = ("true", "false")
HYPERPARAMETERS = (
    _parameter("num_round", "Integer", Range(1), required=True, tune=(1, 4000)),
    _parameter("num_class", "Integer", Range(2)),
    _parameter("alpha", "Continuous", default="0", tune=(0, 1000)),
    _parameter("aft_loss_distribution", "Categorical", ("normal", "logistic", "extreme"), "normal"),
    _parameter("aft_loss_distribution_scale", "Continuous", Range(0, low_open=True), "1"),
    _parameter("base_score", "Continuous", default="0.5"),
    _parameter("booster", "Categorical", ("gbtree", "gblinear", "dart"), "gbtree"),
    _parameter("colsample_bylevel", "Continuous", SHARE, "1", tune=(0.1, 1)),
    _parameter("colsample_bynode", "Continuous", SHARE, "1", tune=(0.1, 1)),
    _parameter("colsample_bytree", "Continuous", SHARE, "1", tune=(0.5, 1)),
    _parameter("csv_weights", "Categorical", _BINARY, "0"),
    _parameter("deterministic_histogram", "Categorical", _BOOLEAN, "true"),
    _parameter("dsplit", "Categorical", ("row", "col")),
    _parameter("early_stopping_rounds", "Integer", Range(1)),
    _parameter("eta", "Continuous", UNIT, "0.3", tune=(0.1, 0.5)),
    _parameter("eval_metric", "FreeText"),
    _parameter("gamma", "Continuous", POSITIVE, "0", tune=(0, 5)),
    _parameter("grow_policy", "Categorical", ("depthwise", "lossguide"), "depthwise"),
    _parameter("interaction_constraints", "FreeText"),
    _parameter("lambda", "Continuous", default="1", tune=(0, 1000)),
    _parameter("lambda_bias", "Continuous", UNIT, "0"),
    _parameter("max_bin", "Integer", Range(2), "256"),
    _parameter("max_delta_step", "Continuous", POSITIVE, "0", tune=(0, 10)),
    _parameter("max_depth", "Integer", POSITIVE, "6", tune=(0, 10)),
    _parameter("max_leaves", "Integer", POSITIVE, "0"),
    _parameter("min_child_weight", "Continuous", POSITIVE, "1", tune=(0, 120)),
    _parameter("monotone_constraints", "FreeText"),
    _parameter("normalize_type", "Categorical", ("tree", "forest"), "tree"),
    _parameter("nthread", "Integer", Range(1)),
    _parameter("num_parallel_tree", "Integer", Range(1), "1"),
    _parameter("objective", "Categorical", OBJECTIVES, "reg:squarederror"),
    _parameter("one_drop", "Categorical", _BINARY, "0"),
    _parameter("predictor", "Categorical", ("auto", "cpu_predictor", "gpu_predictor"), "auto"),
    _parameter("prob_buffer_row", "Continuous", Range(1, low_open=True), "1.5"),
    _parameter("process_type", "Categorical", ("default", "update"), "default"),
    _parameter("rate_drop", "Continuous", UNIT, "0"),
    _parameter("refresh_leaf", "Categorical", _BINARY, "1"),
    _parameter("sample_type", "Categorical", ("uniform", "weighted"), "uniform"),
    _parameter("sampling_method", "Categorical", ("uniform", "gradient_based"), "uniform"),
    _parameter("save_model_on_termination", "Categorical", _BOOLEAN, "false"),
    _parameter("scale_pos_weight", "Continuous", default="1"),
    _parameter("seed", "Integer", default="0"),
    _parameter("single_precision_histogram", "Categorical", _BOOLEAN, "false"),
    _parameter("sketch_eps", "Continuous", UNIT, "0.03"),
    _parameter("skip_drop", "Continuous", UNIT, "0"),
    _parameter("subsample", "Continuous", SHARE, "1", tune=(0.5, 1)),
    _parameter("tree_method", "Categorical", ("auto", "exact", "approx", "hist", "gpu_hist"), "auto"),
    _parameter("tweedie_variance_power", "Continuous", Range(1, 2, True, True), "1.5"),
    _parameter("updater", "FreeText"),
    _parameter("use_dask_gpu_training", "Categorical", _BOOLEAN, "false"),
    _parameter("verbosity", "Categorical", ("0", "1", "2", "3"), "1"),
)


def metric_names(value: str) -> list[str]:
    """The names in an ``eval_metric`` list."""
    return [name for name in re.split(r"[,\s\[\]'\"]+", value) if name]


def _rules(values: Mapping[str, str]) -> Sequence[str]:
    errors = []
    objective = values.get("objective", "reg:squarederror")
    if objective.startswith("multi:") and "num_class" not in values:
        errors.append(f"Require input for parameter 'num_class' for multi-classification ({objective})")
    if "num_class" in values and not objective.startswith("multi:"):
        errors.append(f"Do not need to setup parameter 'num_class' for learning task {objective}")
    for name in metric_names(values.get("eval_metric", "")):
        if name not in (*MAXIMIZED, *MINIMIZED) and not _PLAIN_THRESHOLD.match(name):
            errors.append(
                f"Hyperparameter eval_metric: '{name}' is not one of [{', '.join((*MAXIMIZED, *MINIMIZED))}]"
            )
        if name == "auc" and not objective.startswith(("binary:", "rank:")):
            errors.append("Metric 'auc' can only be applied for classification and ranking problems")
        if name == "aft-nloglik" and objective != "survival:aft":
            errors.append("Metric 'aft-nloglik' can only be applied for survival:aft objective")
    method = values.get("tree_method", "auto")
    if "monotone_constraints" in values and method not in ("exact", "hist", "auto"):
        errors.append("monotone_constraints can be used only when the tree_method is exact or hist")
    if "interaction_constraints" in values and method not in ("exact", "hist", "approx", "auto"):
        errors.append(
            "interaction_constraints can be used only when the tree_method is exact, hist or approx"
        )
    updaters = [name for name in values.get("updater", "").split(",") if name]
    if values.get("booster") == "gblinear" and updaters:
        if len(updaters) != 1 or updaters[0] not in ("shotgun", "coord_descent"):
            errors.append("Linear updater should be one of these options: 'shotgun', 'coord_descent'")
    elif values.get("process_type") == "update" and not set(updaters) <= {"refresh", "prune"}:
        errors.append("process_type 'update' can only be used with updater 'refresh' and 'prune'")
    return errors


def _metrics() -> Sequence[Metric]:
    found = []
    for part in ("train", "validation"):
        for name in (*MAXIMIZED, *MINIMIZED):
            # The service's log forwarding shows the tab as #011; a raw tab is what the algorithm prints.
            regex = rf"(?:#011|\t){part}-{re.escape(name)}:{_NUMBER}"
            direction = "Maximize" if name in MAXIMIZED else "Minimize"
            found.append(Metric(f"{part}:{name}", regex, direction))  # type: ignore[arg-type]
    return tuple(found)


SPEC = AlgorithmSpec(
    name="xgboost",
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
        Channel("train", True, CONTENT_TYPES),
        Channel("validation", False, CONTENT_TYPES),
        Channel("code", False, ()),
    ),
    rules=_rules,
)
