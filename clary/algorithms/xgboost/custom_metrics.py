"""The metrics that AWS's container computes itself, from predictions, as scikit-learn defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

Score = Callable[[Any, Any], float]


def custom_metrics(names: Sequence[str], objective: str) -> Callable[[Any, Any], list[tuple[str, float]]]:
    """A function for ``xgboost.train(custom_metric=...)`` that gives each of ``names`` (see `spec`).

    ``objective`` says what predictions mean. What cannot be computed raises ``ValueError``.
    """
    from sklearn import metrics

    def averaged(score: Callable[..., float], average: str) -> Score:
        return lambda truth, classes: score(truth, classes, average=average, zero_division=0)

    of_classes: dict[str, Score] = {
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
    of_numbers: dict[str, Score] = {"mse": metrics.mean_squared_error, "r2": metrics.r2_score}

    def evaluate(predictions: Any, data: Any) -> list[tuple[str, float]]:
        truth = data.get_label()
        classes = predicted_classes(predictions, objective)
        return [
            (
                name,
                float(
                    of_numbers[name](truth, predictions)
                    if name in of_numbers
                    else of_classes[name](truth, classes)
                ),
            )
            for name in names
        ]

    return evaluate


def predicted_classes(predictions: Any, objective: str) -> Any:
    """Class numbers: the likeliest of a row of probabilities; else above a half, or 0 for raw scores."""
    if predictions.ndim == 2 and predictions.shape[1] > 1:
        return predictions.argmax(axis=1)
    flat = predictions.reshape(-1)
    if objective == "multi:softmax":
        return flat.astype(numpy.int64)
    return (flat > (0.0 if objective == "binary:logitraw" else 0.5)).astype(numpy.int64)
