"""Trains the built-in XGBoost: the library itself, with the container's manners."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import xgboost

from clary.algorithms.algorithm import TUNING_OBJECTIVE
from clary.algorithms.faults import ClientError
from clary.algorithms.job import Job
from clary.algorithms.xgboost.data import Rows, channel_content_type, read_channel, to_dmatrix
from clary.algorithms.xgboost.spec import CUSTOM_METRICS, MAXIMIZED, metric_names

CHECKPOINTS_KEPT = 5
_CHECKPOINT = "xgboost-checkpoint"
# Not parameters of the library, or of none that still exists.
_NOT_PASSED_ON = frozenset(
    {
        "num_round",
        "csv_weights",
        "early_stopping_rounds",
        "eval_metric",
        "save_model_on_termination",
        "use_dask_gpu_training",
        "predictor",
        "deterministic_histogram",
        "single_precision_histogram",
        "sketch_eps",
        "dsplit",
        "prob_buffer_row",
        TUNING_OBJECTIVE,
    }
)
# What the library says when the data or the parameters are to blame.
_CALLERS_MISTAKES = (
    "label must be",
    "feature_names mismatch",
    "base_score must be",
    "value 0 for Parameter num_class",
    "Invalid Parameter",
    "Check failed: base_score",
    "must be non-negative",
    "Label set is empty",
    "Invalid prediction shape",
    "SoftmaxMultiClassObj",
    "Metric",
    "Unknown",
    "should be",
    "must be",
)


def train(job: Job) -> None:
    """Train and write ``model/xgboost-model``. Raises `ClientError` for the caller's mistakes."""
    parameters = dict(job.hyperparameters)
    threads = int(parameters.get("nthread", job.threads))
    job.log(f"Training with XGBoost {xgboost.__version__} on {threads} thread{'s' if threads > 1 else ''}")
    weighted = parameters.get("csv_weights") == "1"
    rows = {
        name: _read(job, name, weighted) for name in ("train", "validation") if job.channel(name) is not None
    }
    if "train" not in rows:
        raise ClientError("The job has no channel 'train'.")
    _check(rows, parameters)
    matrices = {name: to_dmatrix(each, threads) for name, each in rows.items()}
    train_rows = rows["train"].features.shape
    job.log(f"Train matrix has {train_rows[0]} rows and {train_rows[1]} columns")
    if "validation" in rows:
        job.log(f"Validation matrix has {rows['validation'].features.shape[0]} rows")

    library_metrics, custom = _metrics(parameters)
    rounds = int(parameters["num_round"])
    booster, done = _checkpoint(job.checkpoints)
    if done:
        job.log(f"Resuming from the checkpoint of round {done - 1}")
    watch = _Watch(job, done)
    callbacks: list[Any] = [watch]
    stopping = _early_stopping(parameters, matrices, [*library_metrics, *custom])
    if stopping is not None:
        callbacks.append(stopping)
    options: dict[str, Any] = {
        "objective": "reg:squarederror",
        **library_parameters(parameters),
        "nthread": threads,
    }
    if library_metrics:
        options["eval_metric"] = library_metrics
    feval = None
    if custom:
        from clary.algorithms.xgboost.custom_metrics import custom_metrics

        feval = custom_metrics(custom)
    try:
        booster = xgboost.train(
            options,
            matrices["train"],
            max(rounds - done, 0),
            evals=[(matrix, name) for name, matrix in matrices.items()],
            custom_metric=feval,
            xgb_model=booster,
            callbacks=callbacks,
            verbose_eval=False,
        )
    except xgboost.core.XGBoostError as error:
        message = _short(str(error))
        if any(words in message for words in _CALLERS_MISTAKES):
            raise ClientError(message) from error
        raise
    if job.stop_requested:
        job.log(f"Asked to stop: saving the model after {watch.rounds} rounds")
    _save(booster, job.model / "xgboost-model")


def library_parameters(values: Mapping[str, str]) -> dict[str, str]:
    """The hyperparameters in the library's words."""
    found = {name: value.strip() for name, value in values.items() if name not in _NOT_PASSED_ON}
    found = {name: value for name, value in found.items() if not name.startswith("sagemaker_")}
    if found.get("objective") == "reg:linear":
        found["objective"] = "reg:squarederror"
    if found.get("tree_method") == "gpu_hist":
        found["tree_method"] = "hist"
    if found.get("updater") == "":
        del found["updater"]
    return found


def _read(job: Job, channel: str, weighted: bool) -> Rows:
    folder = job.channel(channel)
    assert folder is not None
    return read_channel(folder, channel_content_type(job.input_config, channel), csv_weights=weighted)


def _check(rows: Mapping[str, Rows], parameters: Mapping[str, str]) -> None:
    """What the library would say in its own words, or not at all."""
    objective = parameters.get("objective", "reg:squarederror")
    for name, each in rows.items():
        labels = each.labels
        if objective in ("binary:logistic", "binary:logitraw", "reg:logistic"):
            wrong = numpy.flatnonzero((labels < 0) | (labels > 1))
            if wrong.size:
                raise ClientError(
                    f"label must be in [0,1] for logistic regression; channel '{name}', row {wrong[0] + 1} "
                    f"has {labels[wrong[0]]:g}"
                )
        if objective.startswith("multi:"):
            classes = int(parameters["num_class"])
            wrong = numpy.flatnonzero((labels < 0) | (labels >= classes) | (labels != labels.astype(int)))
            if wrong.size:
                raise ClientError(
                    f"label must be in [0, num_class); channel '{name}', row {wrong[0] + 1} has "
                    f"{labels[wrong[0]]:g}, num_class is {classes}"
                )
    if len(rows) == 2:
        widths = [rows[name].features.shape[1] for name in ("train", "validation")]
        if hasattr(rows["train"].features, "resize") and not isinstance(
            rows["train"].features, numpy.ndarray
        ):
            # Sparse rows name only the columns they have.
            for each in rows.values():
                each.features.resize(each.features.shape[0], max(widths))
        elif widths[0] != widths[1]:
            raise ClientError(
                f"feature_names mismatch: channel 'train' has {widths[0]} features, 'validation' {widths[1]}"
            )


def _metrics(parameters: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Names for the library and names for the container's own, the tuning objective's last."""
    names = list(dict.fromkeys(metric_names(parameters.get("eval_metric", ""))))
    objective = parameters.get(TUNING_OBJECTIVE, "").rpartition(":")[2]
    if objective and objective not in names:
        names.append(objective)
    return (
        [name for name in names if name not in CUSTOM_METRICS],
        [name for name in names if name in CUSTOM_METRICS],
    )


def _early_stopping(parameters: Mapping[str, str], matrices: Mapping[str, Any], names: list[str]) -> Any:
    rounds = parameters.get("early_stopping_rounds")
    if rounds is None or "validation" not in matrices:
        return None
    metric = names[-1] if names else None
    return xgboost.callback.EarlyStopping(
        rounds=int(rounds),
        metric_name=metric,
        data_name="validation",
        maximize=None if metric is None else metric.split("@")[0] in MAXIMIZED,
        save_best=True,
    )


class _Watch(xgboost.callback.TrainingCallback):
    """Prints a line a round as the container does, keeps checkpoints, ends training when asked to."""

    def __init__(self, job: Job, done: int) -> None:
        self._job = job
        self.rounds = done

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self.rounds = epoch + 1
        scores = "".join(
            f"\t{data}-{metric}:{history[-1]:.5f}"
            for data, metrics in evals_log.items()
            for metric, history in metrics.items()
        )
        self._job.log(f"[{epoch}]{scores}")
        if self._job.checkpoints.is_dir():
            _keep_checkpoint(model, self._job.checkpoints, epoch)
        return self._job.stop_requested


def _keep_checkpoint(model: Any, folder: Path, epoch: int) -> None:
    _save(model, folder / f"{_CHECKPOINT}.{epoch}")
    old = folder / f"{_CHECKPOINT}.{epoch - CHECKPOINTS_KEPT}"
    with contextlib.suppress(FileNotFoundError):
        old.unlink()


def _checkpoint(folder: Path) -> tuple[Any, int]:
    """The booster of the newest checkpoint and how many rounds it has had."""
    found = {}
    for path in folder.glob(f"{_CHECKPOINT}.*") if folder.is_dir() else ():
        text = path.name.rpartition(".")[2]
        if text.isdecimal():
            found[int(text)] = path
    for number in sorted(found, reverse=True):
        try:
            return xgboost.Booster(model_file=bytearray(found[number].read_bytes())), number + 1
        except xgboost.core.XGBoostError:
            continue  # cut off in the middle of being written
    return None, 0


def _save(booster: Any, path: Path) -> None:
    """Write a model whole or not at all, in the library's binary format."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(booster.save_raw("ubj"))
    temporary.replace(path)


def _short(message: str) -> str:
    """The library's message without its C++ stack and time stamp."""
    text = message.split("Stack trace")[0].strip()
    return text.split(": ", 1)[-1] if text.startswith("[") else text
