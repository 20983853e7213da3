"""Scores of predicted labels: the confusion matrix and what follows from it.

A ratio whose denominator is nought counts as nought, as scikit-learn has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


class Unusable(ValueError):
    """Labels, scores or weights that nothing can be computed from; the message is for the user."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """``counts[i][j]`` is the weight of the rows of ``labels[i]`` that were predicted ``labels[j]``."""

    labels: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]

    @property
    def total(self) -> float:
        return math.fsum(math.fsum(row) for row in self.counts)


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1, between 0 and 1; ``support`` is the weight of the rows they are about."""

    precision: float
    recall: float
    f1: float
    support: float


@dataclass(frozen=True)
class ClassificationReport:
    """Scores for each label and their averages.

    ``macro`` gives every label the same weight, ``weighted`` that of its rows, ``micro`` counts all rows as
    one. ``binary`` are the scores of the ``positive`` label where there are two labels.
    """

    matrix: ConfusionMatrix
    accuracy: float
    by_label: dict[str, Scores]
    macro: Scores
    micro: Scores
    weighted: Scores
    positive: str | None
    binary: Scores | None


def confusion_matrix(
    truth: Sequence[str],
    predicted: Sequence[str],
    weights: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
) -> ConfusionMatrix:
    """Count labels against predictions. ``labels`` gives the order; by default all that occur, sorted.

    Raises `Unusable` for no rows, lengths that differ, a label outside ``labels``, or a weight that is no
    number at or above nought.
    """
    check_rows(truth, predicted, weights)
    order = tuple(labels) if labels is not None else sorted_labels({*truth, *predicted})
    place = {label: index for index, label in enumerate(order)}
    if len(place) != len(order):
        raise Unusable("A label is given twice.")
    counts = [[0.0] * len(order) for _ in order]
    for row, (label, guess) in enumerate(zip(truth, predicted, strict=True)):
        for name in (label, guess):
            if name not in place:
                raise Unusable(f"Row {row + 1} has the label {name!r}, which is none of {', '.join(order)}.")
        counts[place[label]][place[guess]] += 1.0 if weights is None else weights[row]
    return ConfusionMatrix(order, tuple(tuple(row) for row in counts))


def classification_report(
    truth: Sequence[str],
    predicted: Sequence[str],
    weights: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    positive: str | None = None,
) -> ClassificationReport:
    """All scores of labelled predictions.

    ``positive`` names the label that counts as positive where there are two; by default the last one in
    order. Raises `Unusable` as `confusion_matrix` does, and for a ``positive`` that is no label.
    """
    matrix = confusion_matrix(truth, predicted, weights, labels)
    by_label = {}
    hits = [matrix.counts[index][index] for index in range(len(matrix.labels))]
    supports = [math.fsum(row) for row in matrix.counts]
    guesses = [math.fsum(column) for column in zip(*matrix.counts, strict=True)]
    for index, label in enumerate(matrix.labels):
        by_label[label] = _scores(hits[index], guesses[index], supports[index])
    each = list(by_label.values())
    total = matrix.total
    right = math.fsum(hits)
    if positive is not None and positive not in by_label:
        raise Unusable(f"The positive label {positive!r} is none of {', '.join(matrix.labels)}.")
    if positive is None and len(by_label) == 2:
        positive = matrix.labels[1]
    return ClassificationReport(
        matrix=matrix,
        accuracy=_ratio(right, total),
        by_label=by_label,
        macro=_average(each, [1.0] * len(each), total),
        micro=_scores(right, total, total),
        weighted=_average(each, supports, total),
        positive=positive if len(by_label) == 2 else None,
        binary=by_label[positive] if positive is not None and len(by_label) == 2 else None,
    )


def check_rows(
    truth: Sequence[object], predicted: Sequence[object], weights: Sequence[float] | None = None
) -> None:
    """Raises `Unusable` where there are no rows, or not as many of one as of the other."""
    if not truth:
        raise Unusable("There is no row to evaluate.")
    if len(truth) != len(predicted):
        raise Unusable(f"There are {len(truth)} labels and {len(predicted)} predictions.")
    if weights is None:
        return
    if len(weights) != len(truth):
        raise Unusable(f"There are {len(truth)} rows and {len(weights)} weights.")
    for row, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise Unusable(f"The weight of row {row + 1} must be a number of at least 0, not {weight}.")
    if not any(weights):
        raise Unusable("Every weight is 0.")


def sorted_labels(labels: set[str]) -> tuple[str, ...]:
    """In the order of numbers where all are numbers, else in that of the alphabet."""
    try:
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    except ValueError:
        return tuple(sorted(labels))


def _scores(hits: float, guesses: float, support: float) -> Scores:
    return Scores(
        precision=_ratio(hits, guesses),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, guesses + support),
        support=support,
    )


def _average(each: Sequence[Scores], weights: Sequence[float], support: float) -> Scores:
    total = math.fsum(weights)

    def mean(values: Sequence[float]) -> float:
        return _ratio(math.fsum(v * w for v, w in zip(values, weights, strict=True)), total)

    return Scores(
        precision=mean([scores.precision for scores in each]),
        recall=mean([scores.recall for scores in each]),
        f1=mean([scores.f1 for scores in each]),
        support=support,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
