"""Scores of predicted probabilities: the ROC and precision-recall curves and the areas under them.

Rows of equal score are one step: no order among them may make a model look better than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clary.evaluation.classification import Unusable, check_rows


@dataclass(frozen=True)
class RocCurve:
    """From nothing found (threshold infinite) to everything; ``area`` is the trapezoids' sum."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    thresholds: tuple[float, ...]
    area: float


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """From everything found to nothing, as scikit-learn has it; the last point, (1, 0), has no threshold.

    ``average_precision`` is the sum of precisions weighted by the gain in recall. ``best_f1`` and
    ``best_threshold`` are the highest F1 on the curve and where it is.
    """

    precision: tuple[float, ...]
    recall: tuple[float, ...]
    thresholds: tuple[float, ...]
    average_precision: float
    best_f1: float
    best_threshold: float


def roc_curve(
    positive: Sequence[bool], scores: Sequence[float], weights: Sequence[float] | None = None
) -> RocCurve:
    """The ROC curve of ``scores``, where a higher one says "positive".

    Raises `Unusable` for a score that is no number, and where one of the two classes is missing.
    """
    thresholds, hits, alarms = _steps(positive, scores, weights)
    if not hits[-1] or not alarms[-1]:
        missing = "positive" if not hits[-1] else "negative"
        raise Unusable(f"A ROC curve needs rows of both classes; there is no {missing} one.")
    found = [0.0, *(each / hits[-1] for each in hits)]
    wrong = [0.0, *(each / alarms[-1] for each in alarms)]
    return RocCurve(tuple(wrong), tuple(found), (math.inf, *thresholds), area_under(wrong, found))


def precision_recall_curve(
    positive: Sequence[bool], scores: Sequence[float], weights: Sequence[float] | None = None
) -> PrecisionRecallCurve:
    """The precision-recall curve of ``scores``. Raises `Unusable` as `roc_curve`, but negatives may miss."""
    thresholds, hits, alarms = _steps(positive, scores, weights)
    if not hits[-1]:
        raise Unusable("A precision-recall curve needs positive rows; there is none.")
    precision = [hit / (hit + alarm) for hit, alarm in zip(hits, alarms, strict=True)]
    recall = [hit / hits[-1] for hit in hits]
    gains = [after - before for before, after in zip([0.0, *recall[:-1]], recall, strict=True)]
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True)]
    best = max(range(len(f1)), key=f1.__getitem__)
    return PrecisionRecallCurve(
        precision=(*reversed(precision), 1.0),
        recall=(*reversed(recall), 0.0),
        thresholds=tuple(reversed(thresholds)),
        average_precision=math.fsum(p * gain for p, gain in zip(precision, gains, strict=True)),
        best_f1=f1[best],
        best_threshold=thresholds[best],
    )


def one_versus_rest_area(
    truth: Sequence[str], scores: Mapping[str, Sequence[float]], weights: Sequence[float] | None = None
) -> float:
    """The mean over all labels of the area under the ROC curve of that label against the others.

    ``scores`` has a column for each label. Raises `Unusable`.
    """
    areas = [
        roc_curve([label == each for each in truth], column, weights).area for label, column in scores.items()
    ]
    if not areas:
        raise Unusable("There are no scores.")
    return math.fsum(areas) / len(areas)


def area_under(x: Sequence[float], y: Sequence[float]) -> float:
    """The area under a line of points, by trapezoids; ``x`` must not go back."""
    return math.fsum((x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2 for i in range(1, len(x)))


def _steps(
    positive: Sequence[bool], scores: Sequence[float], weights: Sequence[float] | None
) -> tuple[list[float], list[float], list[float]]:
    """Distinct scores, the highest first, and the weight of positives and negatives at or above each."""
    check_rows(positive, scores, weights)
    for row, score in enumerate(scores):
        if not math.isfinite(score):
            raise Unusable(f"The score of row {row + 1} must be a number, not {score}.")
    rows = sorted(
        (
            (score, is_positive, 1.0 if weights is None else weights[row])
            for row, (score, is_positive) in enumerate(zip(scores, positive, strict=True))
            if weights is None or weights[row]
        ),
        key=lambda each: -each[0],
    )
    thresholds: list[float] = []
    hits: list[float] = []
    alarms: list[float] = []
    found = wrong = 0.0
    for score, is_positive, weight in rows:
        if is_positive:
            found += weight
        else:
            wrong += weight
        if thresholds and thresholds[-1] == score:
            hits[-1], alarms[-1] = found, wrong
        else:
            thresholds.append(score)
            hits.append(found)
            alarms.append(wrong)
    return thresholds, hits, alarms
