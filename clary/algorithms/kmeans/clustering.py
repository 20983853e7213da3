"""The arithmetic of K-Means, on dense and on sparse points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import csc_matrix, issparse

from clary.algorithms.records import Features

Vector = numpy.typing.NDArray[numpy.float64]
Matrix = numpy.typing.NDArray[Any]

_SCORES_BYTES = 1024 * 1024  # of distances, held at a time: what a processor's cache holds
_SUMMED_BYTES = 8 * 1024 * 1024  # of points, added up in 32 bits before they are in 64
_FEWEST_ROWS = 256


@dataclass(frozen=True)
class Step:
    """What points say of centres: ``sums`` (k, columns) and ``weights`` (k,) of those nearest to each, and
    the sum of all squared distances."""

    sums: Matrix
    weights: Vector
    loss: float


def nearest(points: Features, centres: Matrix) -> tuple[Matrix, Vector]:
    """The number of the nearest centre of each point, and the squared distance to it.

    Distances have the precision of 32 bits, relative to the points' distance from the origin.
    """
    centres = numpy.ascontiguousarray(centres, numpy.float32)
    half_norms = 0.5 * numpy.einsum("ij,ij->i", centres, centres)
    rows = points.shape[0]
    found = numpy.empty(rows, numpy.int64)
    scores = numpy.empty(rows)
    step = max(_FEWEST_ROWS, _SCORES_BYTES // (4 * len(centres)))
    for start in range(0, rows, step):
        part = points[start : start + step] @ centres.T
        numpy.subtract(half_norms, part, out=part)
        chosen = part.argmin(axis=1)
        found[start : start + step] = chosen
        scores[start : start + step] = part[numpy.arange(len(chosen)), chosen]
    return found, numpy.maximum(2.0 * scores + squared_norms(points), 0.0)


def squared_norms(points: Features) -> Vector:
    if issparse(points):
        squared = points.copy()
        squared.data = squared.data**2
        return numpy.asarray(squared.sum(axis=1), numpy.float64).reshape(-1)
    norms: Vector = numpy.einsum("ij,ij->i", points, points).astype(numpy.float64)
    return norms


def exact_distances(points: Features, centres: Matrix, chosen: Matrix) -> Vector:
    """The squared distance of each point to its chosen centre; exact where points are dense."""
    found: Vector
    if issparse(points):
        own = centres.astype(numpy.float64)[chosen]
        products = numpy.asarray(points.multiply(own).sum(axis=1), numpy.float64).reshape(-1)
        norms = squared_norms(points) + numpy.einsum("ij,ij->i", own, own)
        found = numpy.maximum(norms - 2.0 * products, 0.0)
        return found
    found = numpy.empty(len(points))
    step = max(_FEWEST_ROWS, _SCORES_BYTES // (4 * points.shape[1]))
    for start in range(0, len(points), step):
        gaps = points[start : start + step] - centres[chosen[start : start + step]].astype(numpy.float32)
        found[start : start + step] = numpy.einsum("ij,ij->i", gaps, gaps)
    return found


def take_step(points: Features, centres: Matrix, weights: Vector | None = None) -> Step:
    """What ``points`` say of ``centres``; each has its weight, or 1."""
    chosen, distances = nearest(points, centres)
    counts = numpy.bincount(chosen, weights, minlength=len(centres)).astype(numpy.float64)
    loss = float(distances.sum() if weights is None else distances @ weights)
    return Step(_sums(points, chosen, weights, len(centres)), counts, loss)


def _sums(points: Features, chosen: Matrix, weights: Vector | None, count: int) -> Matrix:
    total = numpy.zeros((count, points.shape[1]))
    rows = points.shape[0]
    step = max(_FEWEST_ROWS, _SUMMED_BYTES // 4 // min(points.shape[1], 1024))
    for start in range(0, rows, step):
        part = points[start : start + step]
        size = part.shape[0]
        ones = numpy.ones(size, numpy.float32) if weights is None else weights[start : start + size]
        # A column a point, whose only entry is in its centre's row.
        members = csc_matrix(
            (ones.astype(part.dtype), chosen[start : start + size], numpy.arange(size + 1)), (count, size)
        )
        summed = members @ part
        total += summed.toarray() if issparse(summed) else summed
    return total


def moved(centres: Matrix, step: Step) -> Matrix:
    """The centres in the middle of their points; one without points stays."""
    weights = step.weights[:, None]
    return numpy.where(weights > 0, step.sums / numpy.where(weights > 0, weights, 1.0), centres)


def lloyd(
    take: Callable[[Matrix], Step],
    centres: Matrix,
    steps: int,
    tolerance: float,
    stopped: Callable[[], bool],
) -> tuple[Matrix, float]:
    """Lloyd's method from ``centres``: the centres at the end, and the loss of the last but one's.

    ``take`` is `take_step` on the points, wherever they are. It ends sooner once ``stopped`` says so.
    """
    before = numpy.inf
    for _ in range(steps):
        step = take(centres)
        centres = moved(centres, step)
        settled = numpy.isfinite(before) and before - step.loss <= tolerance * before
        before = step.loss
        if settled or stopped():
            break
    return centres, before


def random_start(points: Features, k: int, random: numpy.random.Generator, weights: Vector | None) -> Matrix:
    """``k`` of the points, chosen by their weights."""
    shares = None if weights is None else weights / weights.sum()
    enough = shares is None or numpy.count_nonzero(shares) >= k
    chosen = random.choice(points.shape[0], k, replace=False, p=shares if enough else None)
    return dense_rows(points, numpy.sort(chosen))


def spread_start(points: Features, k: int, random: numpy.random.Generator, weights: Vector | None) -> Matrix:
    """``k`` of the points by k-means++, each the best of several drawn with probabilities as their squared
    distance to those before."""
    rows = points.shape[0]
    own = numpy.ones(rows) if weights is None else weights
    norms = squared_norms(points)
    tries = 2 + int(numpy.log(k))
    chosen = [int(random.choice(rows, p=own / own.sum()))]
    distances = _to_points(points, norms, numpy.array(chosen))[0]
    for _ in range(1, k):
        mass = numpy.cumsum(distances * own)
        if mass[-1] <= 0:  # all points are centres already
            chosen.append(int(random.integers(rows)))
            continue
        drawn = numpy.searchsorted(mass, random.random(tries) * mass[-1], side="right")
        drawn = numpy.minimum(drawn, rows - 1)
        nearer = numpy.minimum(_to_points(points, norms, drawn), distances)
        best = int((nearer @ own).argmin())
        chosen.append(int(drawn[best]))
        distances = nearer[best]
    return dense_rows(points, numpy.array(chosen))


def _to_points(points: Features, norms: Vector, chosen: Matrix) -> Matrix:
    """Squared distances of the ``chosen`` points to all, (chosen, points)."""
    products = points[chosen] @ points.T
    if issparse(products):
        products = products.toarray()
    found: Matrix = numpy.maximum(norms[chosen][:, None] + norms - 2.0 * products, 0.0)
    return found


def dense_rows(points: Features, chosen: Matrix) -> Matrix:
    rows: Matrix = points[chosen].toarray() if issparse(points) else points[chosen]
    return rows


STARTS = {"random": random_start, "kmeans++": spread_start}
