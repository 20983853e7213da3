"""Sums over rows that have been scored, from which metrics follow; they add up over batches and hosts.

What a threshold does to a binary model is read off a histogram of its scores, so no score is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing

from clary.algorithms.linear_learner.losses import Loss, sigmoid
from clary.algorithms.linear_learner.plan import Plan

Array = numpy.typing.NDArray[Any]

BINS = 1 << 14
_PENDING_SCORES = 1 << 20
_LEAST = 1e-15  # of a probability, in a logarithm


class Tally:
    """``loss`` and ``squares`` and so on are sums over ``rows`` rows, a number a model."""

    def __init__(self, plan: Plan, loss: Loss, models: int, *, histogram_rows: int = 0) -> None:
        self._plan, self._loss_function = plan, loss
        self.rows = 0
        self.loss = numpy.zeros(models)
        self.histogram = numpy.zeros((2, models, BINS if plan.is_binary else 0), numpy.int64)
        self._pending: list[Array] = []
        self._room = histogram_rows

    def add(self, scores: Array, labels: Array) -> None:
        self.rows += len(labels)
        self.loss += self._loss_function.values(scores, labels).sum(axis=0, dtype=numpy.float64)
        if self._plan.is_binary and self._room > 0:
            scores, labels = scores[: self._room], labels[: self._room]
            self._room -= len(labels)
            models = self.histogram.shape[1]
            places = numpy.arange(models) + (labels[:, None] > 0) * models
            self._pending.append((places * BINS + bins_of(scores)).ravel())
            if sum(map(len, self._pending)) > _PENDING_SCORES:
                self._settle()

    def parts(self) -> Sequence[Array]:
        """What adds up over hosts."""
        self._settle()
        return [numpy.array([float(self.rows)]), self.loss, self.histogram]

    def take(self, parts: Sequence[Array]) -> None:
        """Take the sums over all hosts in place of this one's."""
        self.rows, self.loss, self.histogram = int(parts[0][0]), parts[1], parts[2]

    def mean_loss(self) -> Array:
        return self.loss / max(self.rows, 1)

    def _settle(self) -> None:
        if self._pending:
            counts = numpy.bincount(numpy.concatenate(self._pending), minlength=self.histogram.size)
            self.histogram += counts.reshape(self.histogram.shape)
            self._pending = []


def bins_of(scores: Array) -> Array:
    """The bin of each score; finest around 0."""
    squeezed = scores / (1 + numpy.abs(scores))
    found = ((squeezed + 1) * (BINS / 2)).astype(numpy.int64)
    return numpy.clip(numpy.where(numpy.isfinite(scores), found, 0), 0, BINS - 1)


def edge(number: int) -> float:
    """The lowest score of a bin."""
    squeezed = 2 * number / BINS - 1
    return squeezed / (1 - abs(squeezed)) if 0 < number < BINS else float(numpy.copysign(numpy.inf, squeezed))


@dataclass(frozen=True)
class Choice:
    """A threshold for a model's score, and the criterion's value that it gives; higher is better."""

    threshold: float
    value: float


def choose_threshold(plan: Plan, negatives: Array, positives: Array) -> Choice:
    """For one model's histograms (BINS,) of scores, by the criterion of ``plan``."""
    true_positives = numpy.append(
        numpy.cumsum(positives[::-1])[::-1], 0
    )  # if bin number n and up are positive
    false_positives = numpy.append(numpy.cumsum(negatives[::-1])[::-1], 0)
    total = max(int(true_positives[0]), 1)
    precision = true_positives / numpy.maximum(true_positives + false_positives, 1)
    recall = true_positives / total
    if plan.criterion == "f_beta":
        worth = f_score(precision, recall, plan.f_beta)
    elif plan.criterion == "precision_at_target_recall":
        worth = numpy.where(recall >= plan.target_recall, precision, -1.0)
    elif plan.criterion == "recall_at_target_precision":
        enough = (precision >= plan.target_precision) & (true_positives > 0)
        # Where no threshold is precise enough, the most precise one has to do.
        worth = numpy.where(enough, recall, precision - 2) if enough.any() else precision - 2
    else:
        rows = max(int(true_positives[0] + false_positives[0]), 1)
        worth = (true_positives + (false_positives[0] - false_positives)) / rows
    # An edge within a gap between scores does as well as the gap's ends: take the middle of the gap, and of
    # several gaps that are as good the one nearest to even odds.
    best = numpy.flatnonzero(worth == worth.max())
    runs = numpy.split(best, numpy.flatnonzero(numpy.diff(best) > 1) + 1)
    middles = [_middle(run, negatives + positives) for run in runs]
    chosen = min(middles, key=lambda place: abs(place - BINS // 2))
    return Choice(edge(chosen), float(worth.max()))


def _middle(run: Array, counts: Array) -> int:
    """Between the occupied bins around the best edge of a run of equally good ones."""
    nearest = int(run[numpy.abs(run - BINS // 2).argmin()])
    below = numpy.flatnonzero(counts[:nearest])
    above = numpy.flatnonzero(counts[nearest:])
    low = int(below[-1]) + 1 if below.size else None
    high = int(above[0]) + nearest if above.size else None
    if low is None or high is None:
        return nearest
    return (low + high) // 2


def area_under_curve(negatives: Array, positives: Array) -> float:
    """Of the receiver's curve; scores in the same bin count as equal. NaN without both kinds."""
    pairs = float(negatives.sum()) * float(positives.sum())
    if not pairs:
        return float("nan")
    below = numpy.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def f_score(precision: Any, recall: Any, beta: float) -> Any:
    square = beta * beta
    return (1 + square) * precision * recall / numpy.maximum(square * precision + recall, 1e-30)


class FinalTally:
    """Everything told of the chosen model on one channel."""

    def __init__(self, plan: Plan, loss: Loss, threshold: float) -> None:
        self._plan, self._threshold = plan, threshold
        self._tally = Tally(plan, loss, 1, histogram_rows=1 << 62)
        self._sums = numpy.zeros(8)
        self._by_class = numpy.zeros((3, plan.classes if plan.is_multiclass else 0))

    def add(self, scores: Array, labels: Array) -> None:
        """``scores`` of one model: (rows, 1), or (rows, 1, classes)."""
        self._tally.add(scores, labels)
        if self._plan.is_binary:
            positive, said = labels > 0, scores[:, 0] >= self._threshold
            self._sums[:4] += [
                (positive & said).sum(), (~positive & said).sum(),
                (positive & ~said).sum(), (~positive & ~said).sum(),
            ]  # fmt: skip
            if self._plan.loss == "logistic":
                share = numpy.clip(sigmoid(scores[:, 0].astype(numpy.float64)), _LEAST, 1 - _LEAST)
                self._sums[4] -= numpy.log(numpy.where(positive, share, 1 - share)).sum()
        elif self._plan.is_multiclass:
            self._add_classes(scores[:, 0], labels.astype(numpy.intp))
        else:
            truth = labels.astype(numpy.float64)
            errors = scores[:, 0].astype(numpy.float64) - truth
            self._sums[:4] += [(errors**2).sum(), numpy.abs(errors).sum(), truth.sum(), (truth**2).sum()]

    def _add_classes(self, scores: Array, labels: Array) -> None:
        own = scores[numpy.arange(len(labels)), labels]
        rank = (scores > own[:, None]).sum(axis=1)
        said = scores.argmax(axis=1)
        self._sums[0] += (rank < self._plan.top_k).sum()
        self._sums[1] += (1 / numpy.log2(2 + rank)).sum()
        size = self._plan.classes
        for row, chosen in enumerate((said[said == labels], said, labels)):
            self._by_class[row] += numpy.bincount(chosen, minlength=size)

    def parts(self) -> Sequence[Array]:
        return [*self._tally.parts(), self._sums, self._by_class]

    def take(self, parts: Sequence[Array]) -> None:
        self._tally.take(parts[:3])
        self._sums, self._by_class = parts[3], parts[4]

    @property
    def rows(self) -> int:
        return self._tally.rows

    def metrics(self) -> Mapping[str, float]:
        """By name, in the log's order, the objective first."""
        rows = max(self.rows, 1)
        found = {"objective_loss": float(self._tally.mean_loss()[0])}
        if self._plan.is_binary:
            return {**found, **self._binary(rows)}
        if self._plan.is_multiclass:
            return {**found, **self._multiclass(rows, found["objective_loss"])}
        squares, sizes, total, total_squares = self._sums[:4]
        spread = total_squares - total * total / rows
        return {
            **found,
            "mse": squares / rows,
            "absolute_loss": sizes / rows,
            "rmse": (squares / rows) ** 0.5,
            "r2": 1 - squares / spread if spread > 0 else float("nan"),
        }

    def _binary(self, rows: int) -> Mapping[str, float]:
        hits, alarms, misses, rejections = self._sums[:4]
        precision, recall = hits / max(hits + alarms, 1), hits / max(hits + misses, 1)
        found = {
            "binary_classification_accuracy": (hits + rejections) / rows,
            f"binary_f_{self._plan.f_beta:.3f}": float(f_score(precision, recall, self._plan.f_beta)),
            "precision": precision,
            "recall": recall,
            "roc_auc_score": area_under_curve(self._tally.histogram[0, 0], self._tally.histogram[1, 0]),
            "binary_balanced_accuracy": (recall + rejections / max(rejections + alarms, 1)) / 2,
        }
        if self._plan.loss == "logistic":
            found["binary_log_loss"] = self._sums[4] / rows
        return found

    def _multiclass(self, rows: int, loss: float) -> Mapping[str, float]:
        right, said, there = self._by_class
        precision = right / numpy.maximum(said, 1)
        recall = right / numpy.maximum(there, 1)
        known = there > 0
        return {
            "multiclass_accuracy": float(right.sum()) / rows,
            f"multiclass_top_k_accuracy_{self._plan.top_k}": self._sums[0] / rows,
            "dcg": self._sums[1] / rows,
            "macro_recall": float(recall[known].mean()),
            "macro_precision": float(precision[known].mean()),
            f"macro_f_{self._plan.f_beta:.3f}": float(
                f_score(precision, recall, self._plan.f_beta)[known].mean()
            ),
            "multiclass_balanced_accuracy": float(recall[known].mean()),
            "multiclass_log_loss": loss,
        }
