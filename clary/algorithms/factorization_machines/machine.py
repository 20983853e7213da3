"""The model while it is trained: a row of numbers for each feature, and steps of Adam on the rows that a
batch touches.

A feature's row is its linear weight and its factors; the last row has the bias in its first place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import csr_matrix

from clary.algorithms.gradients import Gradient
from clary.algorithms.records import Features

Array = numpy.typing.NDArray[Any]

_SEED = 20171129
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8
_DRAWN_ROWS = 1 << 16  # at a time


@dataclass(frozen=True)
class Part:
    """How one kind of weights starts and learns."""

    init_method: str
    init_scale: float
    init_sigma: float
    init_value: float
    rate: float
    decay: float

    def drawn(self, random: numpy.random.Generator, shape: tuple[int, ...]) -> Array:
        if self.init_method == "constant":
            return numpy.full(shape, self.init_value, numpy.float32)
        if self.init_method == "uniform":
            return (2 * random.random(shape, numpy.float32) - 1) * numpy.float32(self.init_scale)
        return random.standard_normal(shape, numpy.float32) * numpy.float32(self.init_sigma)


@dataclass(frozen=True)
class Plan:
    """The hyperparameters, in numbers; ``None`` where they leave it to the algorithm."""

    features: int
    factors: int
    binary: bool
    bias: Part
    linear: Part
    pairs: Part
    epochs: int
    mini_batch_size: int
    clip: float | None
    rescale: float | None
    epsilon: float


def make_plan(values: Mapping[str, str]) -> Plan:
    """From hyperparameters that are complete; see `AlgorithmSpec.complete`."""

    def part(name: str) -> Part:
        return Part(
            init_method=values[f"{name}_init_method"],
            init_scale=float(values.get(f"{name}_init_scale", "0")),
            init_sigma=float(values[f"{name}_init_sigma"]),
            init_value=float(values.get(f"{name}_init_value", "0")),
            rate=float(values[f"{name}_lr"]),
            decay=float(values[f"{name}_wd"]),
        )

    return Plan(
        features=int(values["feature_dim"]),
        factors=int(values["num_factors"]),
        binary=values["predictor_type"] == "binary_classifier",
        bias=part("bias"),
        linear=part("linear"),
        pairs=part("factors"),
        epochs=int(values["epochs"]),
        mini_batch_size=int(values["mini_batch_size"]),
        clip=float(values["clip_gradient"]) if "clip_gradient" in values else None,
        rescale=float(values["rescale_grad"]) if "rescale_grad" in values else None,
        epsilon=float(values.get("eps", _EPSILON)),
    )


class Machine:
    """Weights start alike in every run. The moments of what no batch touches take no memory of their own."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.steps = 0
        random = numpy.random.Generator(numpy.random.PCG64(_SEED))
        self._weights = numpy.empty((plan.features + 1, plan.factors + 1), numpy.float32)
        for start in range(0, plan.features, _DRAWN_ROWS):
            rows = min(_DRAWN_ROWS, plan.features - start)
            self._weights[start : start + rows, 0] = plan.linear.drawn(random, (rows,))
            self._weights[start : start + rows, 1:] = plan.pairs.drawn(random, (rows, plan.factors))
        self._weights[-1] = 0
        self._weights[-1, 0] = plan.bias.drawn(random, (1,))[0]
        self._first = numpy.zeros(self._weights.shape, numpy.float32)
        self._second = numpy.zeros(self._weights.shape, numpy.float32)
        self._touched = numpy.zeros(plan.features + 1, numpy.int64)
        self._last = numpy.zeros(plan.features + 1, numpy.int64)
        of_row = [plan.linear] + [plan.pairs] * plan.factors
        self._rates = numpy.array([part.rate for part in of_row], numpy.float32)
        self._decays = numpy.array([part.decay for part in of_row], numpy.float32)

    def arrays(self) -> tuple[Array, Array, Array]:
        """Bias (1,), linear weights (features,) and factors (features, factors)."""
        return self._weights[-1, :1].copy(), self._weights[:-1, 0].copy(), self._weights[:-1, 1:].copy()

    def batch(self, features: Features) -> Batch:
        """``features`` (rows, features), ready to be scored and learned from."""
        sparse = csr_matrix(features)
        present, places = numpy.unique(sparse.indices, return_inverse=True)
        narrow = csr_matrix((sparse.data, places, sparse.indptr), (sparse.shape[0], len(present)))
        return Batch(narrow, present.astype(numpy.int64), self._weights[present], float(self._weights[-1, 0]))

    def step(self, gradient: Gradient, rows: int) -> None:
        """Go down the sum of gradients of ``rows`` rows."""
        assert gradient.features is not None
        plan = self._plan
        self.steps += 1
        names = numpy.append(gradient.features, plan.features)
        now = self._weights[names]
        slope = gradient.values * numpy.float32(1 / max(rows, 1) if plan.rescale is None else plan.rescale)
        last = self._last[names]
        # What the penalty would have done in the steps that passed a feature by, it does now.
        passed = numpy.where(last > 0, self.steps - last, 1).astype(numpy.float32)[:, None]
        slope[:-1] += self._decays * passed[:-1] * now[:-1]
        slope[-1, 0] += numpy.float32(plan.bias.decay) * now[-1, 0]
        if plan.clip is not None:
            numpy.clip(slope, -plan.clip, plan.clip, out=slope)
        self._last[names] = self.steps
        self._touched[names] += 1
        # A feature's own count: one that comes rarely has seen few gradients.
        count = self._touched[names][:, None]
        first = numpy.float32(_BETA_1) * self._first[names] + numpy.float32(1 - _BETA_1) * slope
        second = numpy.float32(_BETA_2) * self._second[names] + numpy.float32(1 - _BETA_2) * slope * slope
        self._first[names], self._second[names] = first, second
        size = numpy.sqrt(second / (1 - _BETA_2**count).astype(numpy.float32)) + numpy.float32(plan.epsilon)
        move = first / (1 - _BETA_1**count).astype(numpy.float32) / size
        move[:-1] *= self._rates
        move[-1] *= numpy.float32(plan.bias.rate)
        self._weights[names] = now - move


class Batch:
    """Rows of only those features that one of them has. ``weights`` are those features' rows."""

    def __init__(self, features: csr_matrix, present: Array, weights: Array, bias: float) -> None:
        self._features, self._present, self._weights, self._bias = features, present, weights, bias
        self._sums = features @ weights  # (rows, 1 + factors)
        squares = features.multiply(features).tocsr()
        self._squares = squares
        own = squares @ (weights[:, 1:] ** 2)
        pairs = ((self._sums[:, 1:] ** 2).sum(axis=1) - own.sum(axis=1)) / 2
        self.scores = (self._sums[:, 0] + pairs + numpy.float32(bias)).astype(numpy.float32)

    def gradient(self, of_scores: Array) -> Gradient:
        """The sum over the rows, from how the loss of each, (rows,), grows with its score."""
        slopes = of_scores.astype(numpy.float32)[:, None]
        sums = self._sums.copy()
        sums[:, 0] = 1
        values = numpy.zeros((len(self._present) + 1, self._weights.shape[1]), numpy.float32)
        values[:-1] = self._features.T @ (slopes * sums)
        values[:-1, 1:] -= (self._squares.T @ slopes) * self._weights[:, 1:]
        values[-1, 0] = slopes.sum(dtype=numpy.float64)
        return Gradient(values, self._present)
