"""The metrics that AWS's container computes itself, from predictions, as scikit-learn defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy


def custom_metrics(names: Sequence[str]) -> Callable[[Any, Any], list[tuple[str, float]]]:
    """A function for ``xgboost.train(custom_metric=...)`` that gives each of ``names`` (see `spec`)."""
    from sklearn import metrics

    functions: dict[str, Callable[[Any, Any], float]] = {
        "accuracy": metrics.accuracy_score,
        "balanced_accuracy": metrics.balanced_accuracy_score,
        "f1": lambda t, p: metrics.f1_score(t, p, average="macro"),
        "f1_binary": lambda t, p: metrics.f1_score(t, p, average="binary"),
        "f1_macro": lambda t, p: metrics.f1_score(t, p, average="macro"),
        "precision": lambda t, p: metrics.precision_score(t, p, average="binary", zero_division=0),
        "precision_macro": lambda t, p: metrics.precision_score(t, p, average="macro", zero_division=0),
        "precision_micro": lambda t, p: metrics.precision_score(t, p, average="micro", zero_division=0),
        "recall": lambda t, p: metrics.recall_score(t, p, average="binary", zero_division=0),
        "recall_macro": lambda t, p: metrics.recall_score(t, p, average="macro", zero_division=0),
        "recall_micro": lambda t, p: metrics.recall_score(t, p, average="micro", zero_division=0),
    }
    on_numbers: dict[str, Callable[[Any, Any], float]] = {
        "mse": metrics.mean_squared_error,
        "r2": metrics.r2_score,
    }

    def evaluate(predictions: Any, data: Any) -> list[tuple[str, float]]:
        truth = data.get_label()
        classes = _classes(predictions)
        return [
            (
                name,
                float(
                    on_numbers[name](truth, predictions)
                    if name in on_numbers
                    else functions[name](truth, classes)
                ),
            )
            for name in names
        ]

    return evaluate


def _classes(predictions: Any) -> Any:
    """Class numbers: of rows of probabilities the likeliest, of single numbers those above a half."""
    if predictions.ndim == 2 and predictions.shape[1] > 1:
        return predictions.argmax(axis=1)
    flat = predictions.reshape(-1)
    if numpy.array_equal(flat, flat.astype(int)):
        return flat.astype(int)
    return (flat > 0.5).astype(int)
