"""Trains the built-in XGBoost: the library itself, with the container's manners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import xgboost
from scipy.sparse import csr_matrix

from clary.algorithms.algorithm import TUNING_OBJECTIVE
from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.job import Job, processors
from clary.algorithms.xgboost.checkpoints import keep_checkpoint, latest_checkpoint, save_model
from clary.algorithms.xgboost.custom_metrics import custom_metrics
from clary.algorithms.xgboost.data import Rows, channel_content_type, read_channel, to_dmatrix
from clary.algorithms.xgboost.library import is_callers_mistake, library_message
from clary.algorithms.xgboost.spec import (
    CUSTOM_METRICS,
    DEFAULT_OBJECTIVE,
    MAXIMIZED,
    MODEL_NAME,
    SPEC,
    metric_names,
)

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


def train(job: Job) -> None:
    """Train and write ``model/xgboost-model``. Raises `ClientError` and `NothingTrained`."""
    plan = make_plan(SPEC.resolve(job.hyperparameters))
    job.log(f"XGBoost {xgboost.__version__}, {plan.threads} thread(s)")
    if plan.without_effect:
        job.log(f"Without effect in this version: {', '.join(plan.without_effect)}")
    rows = {
        name: _read(job, name, plan.weighted)
        for name in ("train", "validation")
        if job.channel(name) is not None
    }
    _check_rows(rows, plan)
    _log_shapes(job, rows)
    if plan.folds is not None:
        from clary.algorithms.xgboost.cross_validation import cross_validate

        cross_validate(job, plan, rows)
        return
    matrices = {name: to_dmatrix(each, plan.threads) for name, each in rows.items()}
    before, done = latest_checkpoint(job.checkpoints)
    if done:
        job.log(f"Resuming from the checkpoint of round {done - 1}")
    watch = RoundWatch(job, done)
    booster = boost(plan, matrices, watch, plan.rounds - done, before)
    if job.stop_requested:
        if not watch.rounds:
            raise NothingTrained
        job.log(f"Told to stop: keeping the model of {watch.rounds} round(s)")
    save_model(booster, job.model / MODEL_NAME)


@dataclass(frozen=True)
class Plan:
    """What the hyperparameters ask for. ``options`` are the library's; ``metrics`` are in the given order."""

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


def make_plan(values: Mapping[str, str]) -> Plan:
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
    )


class RoundWatch(xgboost.callback.TrainingCallback):
    """Prints a line a round as the container does, keeps checkpoints, ends training when told to."""

    def __init__(self, job: Job, done: int = 0, *, checkpoints: bool = True) -> None:
        self._job = job
        self._first = done
        self._checkpoints = job.checkpoints if checkpoints else None
        self.rounds = done

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        return self._job.stop_requested

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        number = self._first + epoch
        self.rounds = number + 1
        self._job.log(
            f"[{number}]"
            + "".join(
                shown_score(data, metric, history[-1])
                for data, metrics in evals_log.items()
                for metric, history in metrics.items()
            )
        )
        if self._checkpoints is not None:
            keep_checkpoint(model, self._checkpoints, number)
        return self._job.stop_requested


def shown_score(data: str, metric: str, score: float) -> str:
    """A score as log lines have it, under the name the metric is asked for by."""
    name = "tweedie-nloglik" if metric.startswith("tweedie-nloglik") else metric
    return f"\t{data}-{name}:{score:.5f}"


def boost(
    plan: Plan,
    matrices: Mapping[str, Any],
    watch: RoundWatch,
    rounds: int,
    before: Any = None,
    results: dict[str, Any] | None = None,
) -> Any:
    """The booster after ``rounds`` more rounds on ``matrices["train"]``, from the booster ``before``.

    ``results`` takes the scores. Raises `ClientError` where the caller is to blame.
    """
    own = [name for name in plan.metrics if name in CUSTOM_METRICS]
    evaluate: Callable[..., Any] | None = None
    if own:
        evaluate = custom_metrics(own, plan.objective)
    callbacks: list[Any] = [watch]
    if plan.patience is not None and "validation" in matrices:
        callbacks.append(_early_stopping(plan))
    try:
        return xgboost.train(
            dict(plan.options),
            matrices["train"],
            max(rounds, 0),
            evals=[(matrix, name) for name, matrix in matrices.items()],
            custom_metric=evaluate,
            xgb_model=before,
            callbacks=callbacks,
            evals_result=results,
            verbose_eval=False,
        )
    except (xgboost.core.XGBoostError, ValueError) as error:
        if is_callers_mistake(error):
            raise ClientError(library_message(error)) from error
        raise


def _early_stopping(plan: Plan) -> Any:
    """Watches the last metric that was asked for; where none was, the objective's."""
    last = plan.metrics[-1] if plan.metrics else None
    printed = last
    if last == "tweedie-nloglik":
        printed = next(name for name in plan.options["eval_metric"] if name.startswith(last))
    return xgboost.callback.EarlyStopping(
        rounds=plan.patience,
        metric_name=printed,
        data_name="validation",
        maximize=None if last is None else last.partition("@")[0] in MAXIMIZED,
        save_best=True,
    )


def _read(job: Job, channel: str, weighted: bool) -> Rows:
    folder = job.channel(channel)
    assert folder is not None
    if not folder.is_dir():
        raise ClientError(f"The channel '{channel}' holds no files.")
    return read_channel(folder, channel_content_type(job.input_config, channel), csv_weights=weighted)


def _log_shapes(job: Job, rows: Mapping[str, Rows]) -> None:
    count, columns = rows["train"].features.shape
    job.log(f"Train matrix has {count} rows and {columns} columns")
    if "validation" in rows:
        job.log(f"Validation matrix has {rows['validation'].features.shape[0]} rows")


def _check_rows(rows: Mapping[str, Rows], plan: Plan) -> None:
    """What the library would say without the place, or not at all."""
    for each in rows.values():
        labels = each.labels
        if plan.objective in ("binary:logistic", "binary:logitraw", "binary:hinge", "reg:logistic"):
            _refuse_label((labels < 0) | (labels > 1), each, "label must be in [0,1] for logistic regression")
        if plan.classes is not None:
            wrong = (labels < 0) | (labels >= plan.classes) | (labels != numpy.floor(labels))
            _refuse_label(wrong, each, f"label must be in [0, num_class), num_class being {plan.classes}")
    if "validation" in rows:
        train_width, validation_width = (rows[name].features.shape[1] for name in ("train", "validation"))
        if all(isinstance(each.features, csr_matrix) for each in rows.values()):
            for each in rows.values():  # sparse rows name only the columns they have
                each.features.resize(each.features.shape[0], max(train_width, validation_width))
        elif train_width != validation_width:
            raise ClientError(
                f"feature_names mismatch: the channel 'train' has {train_width} feature columns, "
                f"'validation' has {validation_width}"
            )


def _refuse_label(wrong: Any, rows: Rows, rule: str) -> None:
    found = numpy.flatnonzero(wrong)
    if found.size:
        row = int(found[0])
        raise ClientError(f"{rule}; {rows.place(row)} has {rows.labels[row]:g}")
