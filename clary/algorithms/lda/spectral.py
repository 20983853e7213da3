"""The topics that the moments of words' occurring together tell (Anandkumar and others, 2014).

In expectation, how pairs and triples of words occur in one document is a sum over topics of their words'
products. The second moment whitens the first few directions; in these the third is a small cube, and its
decomposition by alternating least squares gives the topics. Neither moment is ever built over all words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import diags

from clary.algorithms.lda.documents import Counts

Array = numpy.typing.NDArray[Any]
Stops = Callable[[], bool]

FEWEST_WORDS = 3  # of a document with triples
MOST_TOPICS = 256  # of a cube in memory, 128 MiB of 64 bits
# Multiplications of all attempts together: half a minute.
LARGEST_WORK = 5e11
_EXTRA_DIRECTIONS = 10
_POWER_STEPS = 8
_SMALLEST_SHARE = 1e-10  # of the largest moment, below which a direction is noise
_BLOCK_ROWS_BYTES = 32 * 1024 * 1024
_SMOOTHING = 0.2  # how much of all documents' words is mixed into a topic to begin with


@dataclass(frozen=True)
class Attempts:
    restarts: int
    iterations: int
    tolerance: float


def first_topics(
    counts: Counts, topics: int, alpha0: float, attempts: Attempts, stops: Stops, seed: int
) -> tuple[Array, int]:
    """(topics, words) whose rows add up to one, no number zero for a word that occurs; and how many of them
    the moments told. The others, where documents are too few or too short to tell as many, are documents."""
    random = numpy.random.default_rng(seed)
    lengths = numpy.asarray(counts.sum(axis=1, dtype=numpy.float64)).reshape(-1)
    everything = numpy.asarray(counts.sum(axis=0, dtype=numpy.float64)).reshape(-1)
    everything /= everything.sum()
    found: Array = numpy.zeros((0, counts.shape[1]))
    long = lengths >= FEWEST_WORDS
    if topics <= MOST_TOPICS and long.any():
        found = _decomposed(
            counts[numpy.flatnonzero(long)].astype(numpy.float64),
            lengths[long], topics, alpha0, attempts, stops, random,
        )  # fmt: skip
    told = len(found)
    if told < topics:
        chosen = random.choice(counts.shape[0], topics - told, replace=False)
        rows = counts[chosen].toarray().astype(numpy.float64)
        found = numpy.concatenate([found, rows / rows.sum(axis=1, keepdims=True)])
    return (1 - _SMOOTHING) * found + _SMOOTHING * everything, told


def _decomposed(
    counts: Counts, lengths: Array, topics: int, alpha0: float, attempts: Attempts, stops: Stops, random: Any
) -> Array:
    documents, words = counts.shape
    pairs = 1 / (lengths * (lengths - 1) * documents)
    triples = pairs / (lengths - 2)
    mean = numpy.asarray((diags(1 / (lengths * documents)) @ counts).sum(axis=0)).reshape(-1)
    own_pairs, own_triples = counts.T @ pairs, counts.T @ triples

    def second(vectors: Array) -> Array:
        """The second moment times (words, columns)."""
        product: Array = counts.T @ (pairs[:, None] * (counts @ vectors))
        product -= own_pairs[:, None] * vectors
        product -= alpha0 / (alpha0 + 1) * mean[:, None] * (mean @ vectors)
        return product

    width = min(words, 2 * topics + _EXTRA_DIRECTIONS)
    basis = numpy.linalg.qr(random.standard_normal((words, width)))[0]
    for _ in range(_POWER_STEPS):
        basis = numpy.linalg.qr(second(basis))[0]
    core = basis.T @ second(basis)
    values, vectors = numpy.linalg.eigh((core + core.T) / 2)
    values, vectors = values[::-1][:topics], vectors[:, ::-1][:, :topics]
    good = values > _SMALLEST_SHARE * max(values[0], 0.0)
    if not good.any():
        return numpy.zeros((0, words))
    roots, vectors = numpy.sqrt(values[good]), basis @ vectors[:, good]
    white, back = vectors / roots, vectors * roots

    # The third moment as seen in these directions.
    seen = counts @ white
    cube = _cube(seen * triples[:, None], seen, seen)
    cube -= _everywhere(_cube(white, white, counts.T @ (triples[:, None] * seen)))
    cube += 2 * _cube(white * own_triples[:, None], white, white)
    middle = white.T @ mean
    both = seen.T @ (pairs[:, None] * seen) - white.T @ (own_pairs[:, None] * white)
    cube -= alpha0 / (alpha0 + 2) * _everywhere(both[:, :, None] * middle)
    cube += 2 * alpha0**2 / ((alpha0 + 1) * (alpha0 + 2)) * numpy.einsum("a,b,c->abc", middle, middle, middle)
    cube = _everywhere(cube) / 3

    found: Array = (back @ _factors(cube, attempts, stops, random)).T
    found *= numpy.where(found.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    found = numpy.maximum(found, 0.0)
    sums = found.sum(axis=1, keepdims=True)
    some = sums[:, 0] > 0
    topics_found: Array = found[some] / sums[some]
    return topics_found


def _cube(first: Array, second: Array, third: Array) -> Array:
    """The sum over rows of their outer products, (a, b, c)."""
    width = first.shape[1]
    total: Array = numpy.zeros((width * width, width))
    step = max(1, _BLOCK_ROWS_BYTES // (8 * width * width))
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        outer = first[part][:, :, None] * second[part][:, None, :]
        total += outer.reshape(len(outer), -1).T @ third[part]
    return total.reshape(width, width, width)


def _everywhere(cube: Array) -> Array:
    """With the last place at each of the three in turn."""
    return cube + cube.transpose(2, 0, 1) + cube.transpose(1, 2, 0)


def _factors(cube: Array, attempts: Attempts, stops: Stops, random: Any) -> Array:
    """(directions, terms): unit columns whose cubes add up to ``cube`` nearly, by the best attempt."""
    width = len(cube)
    flat = cube.reshape(width, -1)
    whole = max(float(numpy.linalg.norm(flat)), numpy.finfo(float).tiny)
    most = max(1, int(LARGEST_WORK / (3 * attempts.restarts * width**4)))
    best: Array = numpy.eye(width)
    least = numpy.inf
    for _ in range(attempts.restarts):
        first = numpy.linalg.qr(random.standard_normal((width, width)))[0]
        second, third, weights = first.copy(), first.copy(), numpy.ones(width)
        error = numpy.inf
        for _ in range(min(attempts.iterations, most)):
            first, _ = _fitted(flat, second, third)
            second, _ = _fitted(flat, first, third)
            third, weights = _fitted(flat, first, second)
            rest = flat - (first * weights) @ _products(second, third)
            before, error = error, float(numpy.linalg.norm(rest)) / whole
            if abs(before - error) < attempts.tolerance or stops():
                break
        if error < least:
            best, least = first * numpy.where((second * third).sum(axis=0) < 0, -1.0, 1.0), error
        if stops():
            break
    return best


def _fitted(flat: Array, one: Array, other: Array) -> tuple[Array, Array]:
    """The third factor's unit columns by least squares, the two others given; and their lengths."""
    solved = flat @ _products(one, other).T @ numpy.linalg.pinv((one.T @ one) * (other.T @ other))
    lengths = numpy.maximum(numpy.linalg.norm(solved, axis=0), numpy.finfo(float).tiny)
    return solved / lengths, lengths


def _products(one: Array, other: Array) -> Array:
    """(terms, directions²): the outer product of each pair of columns."""
    width = one.shape[1]
    found: Array = (one.T[:, :, None] * other.T[:, None, :]).reshape(width, -1)
    return found
