"""Scores of a round over the rows of all hosts.

The metrics that AWS's container computes itself, from predictions, are as scikit-learn defines them. Of the
library's own, the areas under curves are only averages of each host's where hosts train together; here they
are computed from everyone's predictions, by the library's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import xgboost

from clary.algorithms.xgboost.hosts import Group
from clary.algorithms.xgboost.plan import Plan
from clary.algorithms.xgboost.spec import CUSTOM_METRICS

# Predictions that a host takes in from all others each round; with more rows, averages have to do.
MOST_ROWS_GATHERED = 8_000_000
_OF_CURVES = ("auc", "aucpr")
_OF_NUMBERS = ("mse", "r2")


class Scorer:
    """Scores the plan's metrics on each of ``matrices``. ``options`` are the library's, for its booster."""

    def __init__(self, plan: Plan, matrices: Mapping[str, Any], together: Group) -> None:
        self._matrices = matrices
        self._together = together
        self._objective = plan.objective
        self._own = [name for name in plan.metrics if name in CUSTOM_METRICS]
        self.options = dict(plan.options)
        curves = [name for name in plan.metrics if name in _OF_CURVES]
        self._curves: Mapping[str, _Curves] = {}
        # Ranking averages over groups anyway, each of which one host has.
        if curves and together.size > 1 and not plan.objective.startswith(("multi:", "rank:")):
            rows = {name: matrix.num_row() for name, matrix in matrices.items()}
            totals = together.total(numpy.array(list(rows.values()), numpy.int64))
            if totals.max() <= MOST_ROWS_GATHERED:
                self._curves = {name: _Curves(curves, matrix, together) for name, matrix in matrices.items()}
                left = [name for name in self.options["eval_metric"] if name not in curves]
                self.options["eval_metric"] = left
                if not left:
                    del self.options["eval_metric"]
                    self.options["disable_default_eval_metric"] = 1

    def scores(self, booster: Any, number: int) -> dict[str, dict[str, float]]:
        """By data set and metric, the library's first."""
        found: dict[str, dict[str, float]] = {name: {} for name in self._matrices}
        text = booster.eval_set([(matrix, name) for name, matrix in self._matrices.items()], number)
        for item in text.split("\t")[1:]:
            name, _, score = item.rpartition(":")
            data, _, metric = name.partition("-")
            found[data][metric] = float(score)
        if self._own or self._curves:
            for data, matrix in self._matrices.items():
                predictions = booster.predict(matrix, training=False)
                if self._curves:
                    found[data].update(self._curves[data].scores(predictions))
                found[data].update(
                    custom_scores(self._own, self._objective, predictions, matrix.get_label(), self._together)
                )
        return found


class _Curves:
    """The areas under curves of one data set: the library's, on everyone's rows."""

    def __init__(self, names: Sequence[str], matrix: Any, together: Group) -> None:
        self._together = together
        labels = together.everyones(matrix.get_label().reshape(-1, 1))[:, 0]
        weights = matrix.get_weight()
        if together.any(bool(len(weights))):
            mine = weights if len(weights) else numpy.ones(matrix.num_row(), numpy.float32)
            weights = together.everyones(mine.reshape(-1, 1))[:, 0]
        self._matrix = xgboost.DMatrix(
            numpy.zeros((len(labels), 1), numpy.float32), labels, weight=weights if len(weights) else None
        )
        # It only passes on the margins it is given; every host computes the same.
        self._options = {
            "objective": "binary:logitraw", "base_score": 0.5, "eval_metric": list(names), "nthread": 1
        }  # fmt: skip

    def scores(self, predictions: Any) -> dict[str, float]:
        everyones = self._together.everyones(predictions.reshape(-1, 1).astype(numpy.float32))
        self._matrix.set_base_margin(everyones[:, 0])
        scorer = xgboost.Booster(self._options, [self._matrix])  # a used one keeps what it once predicted
        text = scorer.eval(self._matrix, "all")
        return {
            name.partition("-")[2]: float(score)
            for name, _, score in (item.rpartition(":") for item in text.split("\t")[1:])
        }


def custom_scores(
    names: Sequence[str], objective: str, predictions: Any, labels: Any, together: Group
) -> dict[str, float]:
    """Each of ``names`` (see `spec`), from everyone's predictions and labels.

    ``objective`` says what predictions mean. What cannot be computed raises ``ValueError``.
    """
    found: dict[str, float] = {}
    if any(name in _OF_NUMBERS for name in names):
        found.update(_scores_of_numbers(predictions, labels, together))
    if any(name not in _OF_NUMBERS for name in names):
        classes = predicted_classes(predictions, objective)
        # Few pairs of label and class say the same as many rows.
        pairs = numpy.column_stack([labels.astype(numpy.float64), classes.astype(numpy.float64)])
        pairs, counts = numpy.unique(pairs, axis=0, return_counts=True)
        everyones = together.everyones(numpy.column_stack([pairs, counts]))
        truth, predicted = everyones[:, 0], everyones[:, 1].astype(numpy.int64)
        scores = _scores_of_classes()
        for name in names:
            if name not in _OF_NUMBERS:
                found[name] = float(scores[name](truth, predicted, sample_weight=everyones[:, 2]))
    return {name: found[name] for name in names}


def _scores_of_classes() -> Mapping[str, Callable[..., float]]:
    from sklearn import metrics

    def averaged(score: Callable[..., float], average: str) -> Callable[..., float]:
        return lambda truth, classes, sample_weight: score(
            truth, classes, average=average, zero_division=0, sample_weight=sample_weight
        )

    return {
        "accuracy": metrics.accuracy_score,
        "balanced_accuracy": metrics.balanced_accuracy_score,
        "f1": averaged(metrics.f1_score, "macro"),
        "f1_binary": averaged(metrics.f1_score, "binary"),
        "f1_macro": averaged(metrics.f1_score, "macro"),
        "precision": averaged(metrics.precision_score, "binary"),
        "precision_macro": averaged(metrics.precision_score, "macro"),
        "precision_micro": averaged(metrics.precision_score, "micro"),
        "recall": averaged(metrics.recall_score, "binary"),
        "recall_macro": averaged(metrics.recall_score, "macro"),
        "recall_micro": averaged(metrics.recall_score, "micro"),
    }


def _scores_of_numbers(predictions: Any, labels: Any, together: Group) -> dict[str, float]:
    if predictions.shape != labels.shape:
        raise ValueError("mse and r2 must be asked for only where a prediction is one number")
    truth = labels.astype(numpy.float64)
    count, total = together.total(numpy.array([len(truth), truth.sum()]))
    errors, spread = together.total(
        numpy.array([((truth - predictions) ** 2).sum(), ((truth - total / count) ** 2).sum()])
    )
    if count < 2:
        r2 = float("nan")
    elif spread:
        r2 = 1 - errors / spread
    else:  # as scikit-learn has it where all labels are the same
        r2 = float(not errors)
    return {"mse": float(errors / count), "r2": float(r2)}


def predicted_classes(predictions: Any, objective: str) -> Any:
    """Class numbers: the likeliest of a row of probabilities; else above a half, or 0 for raw scores."""
    if predictions.ndim == 2 and predictions.shape[1] > 1:
        return predictions.argmax(axis=1)
    flat = predictions.reshape(-1)
    if objective == "multi:softmax":
        return flat.astype(numpy.int64)
    return (flat > (0.0 if objective == "binary:logitraw" else 0.5)).astype(numpy.int64)
