"""``_kfold``: repeated cross validation over the rows of train and validation together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.job import Job
from clary.algorithms.xgboost.boosting import RoundWatch, Scores, boost, shown_score
from clary.algorithms.xgboost.checkpoints import save_model
from clary.algorithms.xgboost.custom_metrics import predicted_classes
from clary.algorithms.xgboost.data import Rows, join, to_dmatrix
from clary.algorithms.xgboost.plan import Plan
from clary.algorithms.xgboost.spec import MODEL_NAME

PREDICTIONS_FILE = "predictions.csv"


def cross_validate(job: Job, plan: Plan, rows: Mapping[str, Rows]) -> None:
    """Train a model a fold and save it as ``xgboost-model-<i>``; print mean scores, and write the predictions
    for rows that a model had not seen to ``output/data/predictions.csv``: label, (probability,) prediction.

    Raises `ClientError` and `NothingTrained`.
    """
    assert plan.folds is not None
    everything = join(list(rows.values()))
    if everything.groups is not None:
        raise ClientError("_kfold cannot be used with query ids (qid:): folds would tear groups apart.")
    count = len(everything.labels)
    if plan.folds > count:
        raise ClientError(f"_kfold is {plan.folds}, but there are only {count} rows.")
    job.log(f"Run {plan.repeats}-round of {plan.folds}-fold cross validation with {count} rows")
    classify = plan.classes is not None or plan.objective.startswith("binary:")
    splitter: Any = RepeatedStratifiedKFold if classify else RepeatedKFold
    seed = int(plan.options.get("seed", 0))
    splits = splitter(n_splits=plan.folds, n_repeats=plan.repeats, random_state=seed).split(
        numpy.zeros(count), everything.labels if classify else None
    )
    matrix = to_dmatrix(everything, plan.threads)
    predicted: list[list[Any]] = [[] for _ in range(count)]
    results: list[Scores] = []
    for fold, (inside, outside) in enumerate(splits):
        job.log(f"Train cross validation fold {fold % plan.folds + 1}")
        parts = {"train": matrix.slice(inside), "validation": matrix.slice(outside)}
        watch = RoundWatch(job, checkpoints=False)
        booster, found = boost(plan, parts, watch)
        if watch.rounds:
            save_model(booster, job.model / f"{MODEL_NAME}-{fold}")
        elif not results:
            raise NothingTrained
        if job.stop_requested:
            job.log(f"Told to stop: keeping the models of {len(results) + bool(watch.rounds)} fold(s)")
            return
        results.append(found)
        for row, prediction in zip(outside, booster.predict(parts["validation"]), strict=True):
            predicted[row].append(prediction)
        if len(results) % plan.folds == 0:
            job.log(f"The metrics of round {len(results) // plan.folds} cross validation")
            job.log(_mean_scores(plan.rounds, results[-plan.folds :]))
    if plan.repeats > 1:
        job.log(f"The overall metrics of {plan.repeats}-round cross validation")
        job.log(_mean_scores(plan.rounds, results))
    _write_predictions(job, plan, everything.labels, numpy.array(predicted), classify)


def _mean_scores(rounds: int, results: Sequence[Scores]) -> str:
    return f"[{rounds}]" + "".join(
        shown_score(data, metric, float(numpy.mean([each[data][metric] for each in results])))
        for metric in results[0]["train"]
        for data in ("train", "validation")
    )


def _write_predictions(job: Job, plan: Plan, labels: Any, predicted: Any, classify: bool) -> None:
    """``predicted`` is (rows, repeats) or, of probabilities, (rows, repeats, classes)."""
    if classify:
        flat = predicted.reshape(-1, *predicted.shape[2:])
        classes = predicted_classes(flat, plan.objective)
        scores = flat.max(axis=1) if flat.ndim == 2 else flat
        shape = predicted.shape[:2]
        votes = [numpy.bincount(row).argmax() for row in classes.reshape(shape)]
        columns = [labels, scores.reshape(shape).mean(axis=1), votes]
    else:
        columns = [labels, predicted.mean(axis=1)]
    job.output_data.mkdir(parents=True, exist_ok=True)
    numpy.savetxt(job.output_data / PREDICTIONS_FILE, numpy.column_stack(columns), delimiter=",", fmt="%f")
