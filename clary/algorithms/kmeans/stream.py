"""The stream's centres: many of them, each of which drifts to the middle of the points that came near it."""

from __future__ import annotations

import numpy

from clary.algorithms.kmeans.clustering import STARTS, Matrix, Vector, take_step
from clary.algorithms.records import Features


class StreamCentres:
    """``centres`` is (K, columns); ``weights`` (K,) are the points that each stands for."""

    def __init__(self, centres: Matrix, half_life: int) -> None:
        self.centres = centres.astype(numpy.float64)
        self.weights: Vector = numpy.zeros(len(centres))
        self._half_life = half_life

    def add(self, points: Features) -> float:
        """Let the centres drift; gives the sum of squared distances to where they were."""
        step = take_step(points, self.centres)
        if self._half_life:
            self.weights *= 0.5 ** (points.shape[0] / self._half_life)
        weights = self.weights + step.weights
        met = step.weights > 0
        shares = step.weights[met] / weights[met]
        means = step.sums[met] / step.weights[met][:, None]
        self.centres[met] += shares[:, None] * (means - self.centres[met])
        self.weights = weights
        return step.loss


def candidates(points: Features, count: int, method: str, random: numpy.random.Generator) -> Matrix:
    """Up to ``count`` of the points, dense."""
    return STARTS[method](points, min(count, points.shape[0]), random, None)
