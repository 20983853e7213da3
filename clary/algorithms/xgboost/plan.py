"""What a job's hyperparameters ask of the library and of the container around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clary.algorithms.algorithm import TUNING_OBJECTIVE
from clary.algorithms.job import processors
from clary.algorithms.xgboost.spec import CUSTOM_METRICS, DEFAULT_OBJECTIVE, metric_names

# Hyperparameters that are the container's own.
_CONTAINERS = frozenset(
    {
        "num_round", "csv_weights", "early_stopping_rounds", "eval_metric", "save_model_on_termination",
        "_kfold", "_num_cv_round", TUNING_OBJECTIVE,
    }
)  # fmt: skip
# Hyperparameters of older versions of the library, which today's does not know.
_WITHOUT_EFFECT = frozenset(
    {
        "deterministic_histogram", "dsplit", "lambda_bias", "predictor", "prob_buffer_row",
        "single_precision_histogram", "sketch_eps", "use_dask_gpu_training",
    }
)  # fmt: skip

# Shares of rows and columns that are drawn at random.
_SHARES = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")


@dataclass(frozen=True)
class Plan:
    """What the hyperparameters ask for. ``options`` are the library's; ``metrics`` are in the given order.

    ``renews`` says that no round may depend on the random numbers that earlier ones drew.
    """

    options: Mapping[str, Any]
    objective: str
    classes: int | None
    rounds: int
    threads: int
    weighted: bool
    metrics: Sequence[str]
    patience: int | None
    folds: int | None
    repeats: int
    without_effect: Sequence[str]
    renews: bool


def make_plan(values: Mapping[str, str], *, keeps_checkpoints: bool = False) -> Plan:
    """From hyperparameters that were checked and resolved; see `AlgorithmSpec.resolve`."""
    metrics = list(dict.fromkeys(metric_names(values.get("eval_metric", ""))))
    target = values.get(TUNING_OBJECTIVE, "").rpartition(":")[2]
    if target:
        metrics = [name for name in metrics if name != target] + [target]
    threads = int(values.get("nthread", processors()))
    options: dict[str, Any] = {
        name: value for name, value in values.items() if name not in _CONTAINERS | _WITHOUT_EFFECT
    }
    options["nthread"] = threads
    options.setdefault("objective", DEFAULT_OBJECTIVE)
    if options["objective"] == "reg:linear":  # its name before version 1.0
        options["objective"] = "reg:squarederror"
    if options.get("tree_method") == "gpu_hist":
        options["tree_method"] = "hist"
    power = values.get("tweedie_variance_power", "1.5")
    library = [
        f"{name}@{power}" if name == "tweedie-nloglik" else name
        for name in metrics
        if name not in CUSTOM_METRICS
    ]
    if library:
        options["eval_metric"] = library
    # Else a run that resumes would draw again the random numbers that the first rounds have drawn.
    renews = keeps_checkpoints and (
        options.get("booster") == "dart" or any(float(values.get(name, "1")) < 1 for name in _SHARES)
    )
    if renews:
        options["seed_per_iteration"] = "true"
    return Plan(
        options=options,
        objective=options["objective"],
        classes=int(values["num_class"]) if "num_class" in values else None,
        rounds=int(values["num_round"]),
        threads=threads,
        weighted=values.get("csv_weights") == "1",
        metrics=metrics,
        patience=int(values["early_stopping_rounds"]) if "early_stopping_rounds" in values else None,
        folds=int(values["_kfold"]) if "_kfold" in values else None,
        repeats=int(values.get("_num_cv_round", "1")),
        without_effect=sorted(_WITHOUT_EFFECT & set(values)),
        renews=renews,
    )
