"""The losses: their values and gradients for the scores that all models give to a batch of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy
import numpy.typing

from clary.algorithms.linear_learner.plan import Plan

Array = numpy.typing.NDArray[Any]


class Loss(ABC):
    """``scores`` are (rows, models), of a multiclass loss (rows, models, classes); ``labels`` are (rows,).

    ``objective`` is the name that the log uses. ``power`` tells how the loss grows with the label's unit.
    """

    objective: str
    power = 0

    @abstractmethod
    def values(self, scores: Array, labels: Array) -> Array:
        """(rows, models)."""

    @abstractmethod
    def gradient(self, scores: Array, labels: Array) -> Array:
        """As ``scores``: how each row's loss grows with its scores."""


class Logistic(Loss):
    """Labels are 0 and 1, scores log-odds."""

    objective = "binary_classification_cross_entropy_objective"

    def values(self, scores: Array, labels: Array) -> Array:
        return numpy.logaddexp(0, scores) - labels[:, None] * scores  # type: ignore[no-any-return]

    def gradient(self, scores: Array, labels: Array) -> Array:
        return sigmoid(scores) - labels[:, None]


class Hinge(Loss):
    """Labels are 0 and 1."""

    objective = "hinge_loss_objective"

    def __init__(self, margin: float) -> None:
        self._margin = numpy.float32(margin)

    def values(self, scores: Array, labels: Array) -> Array:
        return numpy.maximum(self._margin - _signs(labels) * scores, 0)

    def gradient(self, scores: Array, labels: Array) -> Array:
        signs = _signs(labels)
        return numpy.where(signs * scores < self._margin, -signs, numpy.float32(0))


class Softmax(Loss):
    """Labels are class numbers."""

    objective = "multiclass_cross_entropy_objective"

    def values(self, scores: Array, labels: Array) -> Array:
        highest = scores.max(axis=2)
        total = numpy.exp(scores - highest[:, :, None]).sum(axis=2)
        return numpy.log(total) + highest - _of_label(scores, labels)  # type: ignore[no-any-return]

    def gradient(self, scores: Array, labels: Array) -> Array:
        shares = softmax(scores)
        shares[numpy.arange(len(labels)), :, labels.astype(numpy.intp)] -= 1
        return shares


class Squared(Loss):
    """Errors up to ``insensitivity`` cost nothing."""

    power = 2

    def __init__(self, insensitivity: float = 0.0) -> None:
        self._insensitivity = numpy.float32(insensitivity)
        self.objective = "eps_insensitive_squared_loss_objective" if insensitivity else "mse_objective"

    def values(self, scores: Array, labels: Array) -> Array:
        return numpy.maximum(numpy.abs(scores - labels[:, None]) - self._insensitivity, 0) ** 2  # type: ignore[no-any-return]

    def gradient(self, scores: Array, labels: Array) -> Array:
        errors = scores - labels[:, None]
        if not self._insensitivity:
            return 2 * errors
        return 2 * numpy.sign(errors) * numpy.maximum(numpy.abs(errors) - self._insensitivity, 0)  # type: ignore[no-any-return]


class Absolute(Loss):
    """Errors up to ``insensitivity`` cost nothing."""

    power = 1

    def __init__(self, insensitivity: float = 0.0) -> None:
        self._insensitivity = numpy.float32(insensitivity)
        self.objective = (
            "eps_insensitive_absolute_loss_objective" if insensitivity else "absolute_loss_objective"
        )

    def values(self, scores: Array, labels: Array) -> Array:
        return numpy.maximum(numpy.abs(scores - labels[:, None]) - self._insensitivity, 0)  # type: ignore[no-any-return]

    def gradient(self, scores: Array, labels: Array) -> Array:
        errors = scores - labels[:, None]
        return numpy.sign(errors) * (numpy.abs(errors) > self._insensitivity)  # type: ignore[no-any-return]


class Quantile(Loss):
    objective = "quantile_loss_objective"
    power = 1

    def __init__(self, quantile: float) -> None:
        self._quantile = numpy.float32(quantile)

    def values(self, scores: Array, labels: Array) -> Array:
        short = labels[:, None] - scores
        return numpy.maximum(self._quantile * short, (self._quantile - 1) * short)

    def gradient(self, scores: Array, labels: Array) -> Array:
        return numpy.where(scores < labels[:, None], -self._quantile, 1 - self._quantile)


class Huber(Loss):
    objective = "huber_loss_objective"
    power = 2

    def __init__(self, delta: float) -> None:
        self._delta = numpy.float32(delta)

    def values(self, scores: Array, labels: Array) -> Array:
        size = numpy.abs(scores - labels[:, None])
        near = numpy.minimum(size, self._delta)
        return near * (size - near / 2)  # type: ignore[no-any-return]

    def gradient(self, scores: Array, labels: Array) -> Array:
        return numpy.clip(scores - labels[:, None], -self._delta, self._delta)  # type: ignore[no-any-return]


def make_loss(plan: Plan, label_scale: float = 1.0) -> Loss:
    """``label_scale`` is the label's unit: thresholds of error are given in the label's own."""
    if plan.loss == "logistic":
        return Logistic()
    if plan.loss == "hinge_loss":
        return Hinge(plan.margin)
    if plan.loss == "softmax_loss":
        return Softmax()
    if plan.loss == "quantile_loss":
        return Quantile(plan.quantile)
    if plan.loss == "huber_loss":
        return Huber(plan.huber_delta / label_scale)
    insensitivity = plan.insensitivity / label_scale if plan.loss.startswith("eps") else 0.0
    return Squared(insensitivity) if "squared" in plan.loss else Absolute(insensitivity)


def sigmoid(scores: Array) -> Array:
    """Without overflow, in the kind of ``scores``."""
    return (numpy.tanh(scores / 2) + 1) / 2


def softmax(scores: Array) -> Array:
    """Over the last axis."""
    shares = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return shares  # type: ignore[no-any-return]


def _signs(labels: Array) -> Array:
    return (2 * labels - 1)[:, None]


def _of_label(scores: Array, labels: Array) -> Array:
    return scores[numpy.arange(len(labels)), :, labels.astype(numpy.intp)]
