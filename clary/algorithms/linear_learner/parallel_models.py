"""The models that are trained side by side: one product of matrices scores a batch with all of them.

Each step's weights go into a running average that favours late ones; the average is what predicts. On wide
sparse data a step touches only the features that its batch has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import csr_matrix

from clary.algorithms.gradients import Gradient
from clary.algorithms.linear_learner.plan import Plan, Setting

Array = numpy.typing.NDArray[Any]

# Sparse batches up to this width are handled as dense ones.
WIDEST_DENSE = 4096
_SEED = 20171129
_RMSPROP_DECAY = 0.9
_EPSILON = 1e-8
# The average over the first t steps has most of its weight on the last t / _LATE ones.
_LATE = 8.0


class ParallelModels:
    """``models`` linear models of ``features`` features, each of ``classes`` scores."""

    def __init__(self, plan: Plan, settings: Sequence[Setting], features: int) -> None:
        self.models, self.classes, self.features = len(settings), plan.classes, features
        self.steps = 0
        width = self.models * self.classes
        self._plan = plan
        self._rates = _column(settings, "learning_rate", self.classes)
        self._minimum = _column(settings, "schedule_minimum", self.classes)
        self._factors = _column(settings, "schedule_factor", self.classes)
        self._schedule_step = settings[0].schedule_step
        self._wd = _column(settings, "wd", self.classes).astype(numpy.float32)
        self._l1 = _column(settings, "l1", self.classes).astype(numpy.float32)
        # All models start alike: they differ by their settings only.
        self._now = numpy.empty((features + 1, width), numpy.float32)
        self._now[:-1] = numpy.tile(_start(plan, features), self.models)
        self._now[-1] = plan.init_bias
        self._average = self._now.copy()
        self._seen = numpy.zeros(features, bool)
        # Adam's two moments; of the others one.
        self._first = numpy.zeros_like(self._now) if plan.optimizer != "rmsprop" else None
        self._second = numpy.zeros_like(self._now) if plan.optimizer != "sgd" else None
        self._touched = numpy.zeros(features + 1, numpy.int64)  # how often a step has changed a row
        self._averaged = numpy.zeros(features + 1, numpy.int64)  # the step up to which its average goes
        self._kept = _Kept()

    def scores(self, features: Any, *, averaged: bool = True) -> Array:
        """(rows, models), or (rows, models, classes) of a multiclass model."""
        weights = self._average if averaged else self._now
        found = features @ weights[:-1]
        found += weights[-1]
        return found.reshape(-1, self.models, self.classes) if self._plan.is_multiclass else found  # type: ignore[no-any-return]

    def gradient(self, features: Any, of_scores: Array) -> Gradient:
        """From how the loss of each row grows with its scores."""
        of_scores = of_scores.reshape(len(of_scores), -1)
        bias = of_scores.sum(axis=0, dtype=numpy.float32)
        if not isinstance(features, csr_matrix):
            values = numpy.empty_like(self._now)
            numpy.matmul(features.T, of_scores, out=values[:-1])
            values[-1] = bias
            return Gradient(values)
        present, place = numpy.unique(features.indices, return_inverse=True)
        narrow = csr_matrix((features.data, place, features.indptr), (features.shape[0], len(present)))
        return Gradient(numpy.vstack([narrow.T @ of_scores, bias]), present)

    def step(self, gradient: Gradient, rows: int) -> None:
        """Go down the sum of gradients of ``rows`` rows."""
        self.steps += 1
        names: Any = slice(None)
        passed: Any = numpy.float32(1)
        if gradient.features is None:
            self._seen |= (gradient.values[:-1] != 0).any(axis=1)
        else:
            names = numpy.append(gradient.features, self.features)
            # What the penalties would have done in the steps that passed a feature by, they do now.
            last = self._averaged[gradient.features]
            passed = numpy.where(last > 0, self.steps - last, 1).astype(numpy.float32)[:, None]
            self._seen[gradient.features] |= (gradient.values[:-1] != 0).any(axis=1)
            self._catch_up(names, self.steps - 1)
        self._touched[names] += 1
        now = self._now[names]
        slope = gradient.values / numpy.float32(max(rows, 1))
        slope[:-1] += self._wd * passed * now[:-1]
        if self._plan.bias_wd_mult:
            slope[-1] += self._wd * numpy.float32(self._plan.bias_wd_mult) * now[-1]
        rates = self._rates * self._factors ** (self.steps // self._schedule_step)
        rates = numpy.maximum(rates, self._minimum).astype(numpy.float32)
        move, reach = self._move(names, slope, rates)
        if not self._plan.use_bias:
            move[-1] = 0
        elif self._plan.bias_lr_mult != 1:
            move[-1] *= numpy.float32(self._plan.bias_lr_mult)
        now = now - move
        if self._l1.any():
            # The proximal step: weights that the penalty holds are zero, not almost so.
            weights = now[:-1]
            shrink = self._l1 * passed * (reach[:-1] if reach.ndim == 2 else reach)
            now[:-1] = numpy.sign(weights) * numpy.maximum(numpy.abs(weights) - shrink, 0)
        self._now[names] = now
        share = numpy.float32((_LATE + 1) / (self.steps + _LATE))
        self._average[names] += (now - self._average[names]) * share
        self._averaged[names] = self.steps

    def finish_average(self) -> None:
        """Bring the average of every feature up to the last step."""
        late = numpy.flatnonzero(self._averaged < self.steps)
        if late.size and self._averaged.any():
            self._catch_up(late, self.steps)

    def model(self, number: int) -> tuple[Array, Array]:
        """Weights (features, classes) and bias (classes,) of one model, as float64."""
        self.finish_average()
        columns = slice(number * self.classes, (number + 1) * self.classes)
        weights = self._average[:-1, columns].astype(numpy.float64)
        if self._l1[columns].any():
            weights[self._now[:-1, columns] == 0] = 0
        weights[~self._seen] = 0  # what the start put there says nothing
        return weights, self._average[-1, columns].astype(numpy.float64)

    def _move(self, names: Any, slope: Array, rates: Array) -> tuple[Array, Array]:
        """How far each weight goes, and how far a slope of one would take it."""
        plan = self._plan
        if plan.optimizer == "sgd":
            assert self._first is not None
            speed = numpy.float32(plan.momentum) * self._first[names] + rates * slope
            self._first[names] = speed
            return speed.copy(), rates
        assert self._second is not None
        decay = numpy.float32(plan.beta_2 if plan.optimizer == "adam" else _RMSPROP_DECAY)
        second = decay * self._second[names] + (1 - decay) * slope * slope
        self._second[names] = second
        # A feature's own count: one that comes rarely has seen few gradients.
        count = self._touched[names][:, None]
        if isinstance(names, slice):
            count = count[:1]
        size = numpy.sqrt(second / (1 - numpy.float64(decay) ** count).astype(numpy.float32)) + numpy.float32(
            _EPSILON
        )
        reach = rates / size
        if plan.optimizer == "rmsprop":
            return slope * reach, reach
        assert self._first is not None
        keep = numpy.float32(plan.beta_1)
        first = keep * self._first[names] + (1 - keep) * slope
        self._first[names] = first
        return first * reach / (1 - plan.beta_1**count).astype(numpy.float32), reach

    def _catch_up(self, names: Array, step: int) -> None:
        """Take into the average that the weights of ``names`` stood still up to ``step``."""
        share = self._kept.between(self._averaged[names], step)
        now = self._now[names]
        self._average[names] = now + (self._average[names] - now) * share[:, None].astype(numpy.float32)
        self._averaged[names] = step


class _Kept:
    """How much of an average is left after steps that add nothing new."""

    def __init__(self) -> None:
        self._logarithms = numpy.zeros(2)

    def between(self, first: Array, last: int) -> Array:
        if last >= len(self._logarithms):
            steps = numpy.arange(2, 2 * last + 2)
            shares = numpy.log1p(-(_LATE + 1) / (steps + _LATE))
            self._logarithms = numpy.concatenate([numpy.zeros(2), numpy.cumsum(shares)])
        return numpy.exp(self._logarithms[last] - self._logarithms[first])  # type: ignore[no-any-return]


def _column(settings: Sequence[Setting], name: str, classes: int) -> Array:
    return numpy.repeat(numpy.array([getattr(each, name) for each in settings], numpy.float64), classes)


def _start(plan: Plan, features: int) -> Array:
    random = numpy.random.Generator(numpy.random.PCG64(_SEED))
    shape = (features, plan.classes)
    if plan.init_method == "normal":
        return (random.standard_normal(shape, numpy.float32) * numpy.float32(plan.init_sigma)).astype(
            numpy.float32
        )
    return ((2 * random.random(shape, numpy.float32) - 1) * numpy.float32(plan.init_scale)).astype(
        numpy.float32
    )
