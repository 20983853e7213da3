"""A sample of a stream's rows: each row has the same chance, however long the stream turns out to be."""

from __future__ import annotations

import numpy

from clary.algorithms.records import Batch, join


class RowSample:
    """Keeps ``most`` rows at the end, up to twice as many on the way, in the order in which they came.

    Each row draws a number, and the lowest stay.
    """

    def __init__(self, most: int, seed: int) -> None:
        self._most = most
        self._random = numpy.random.default_rng(seed)
        self._parts: list[Batch] = []
        self._draws: list[numpy.ndarray] = []
        self.kept = 0
        self._limit = 1.0  # a row whose draw is not below it is out
        self.seen = 0

    def add(self, batch: Batch) -> None:
        draws = self._random.random(len(batch))
        self.seen += len(batch)
        if self._limit < 1.0:
            chosen = numpy.flatnonzero(draws < self._limit)
            if not chosen.size:
                return
            batch, draws = _rows(batch, chosen), draws[chosen]
        self._parts.append(batch)
        self._draws.append(draws)
        self.kept += len(batch)
        if self.kept > 2 * self._most:
            self._prune()

    def rows(self) -> Batch:
        """The sample; there must have been a row. Its places are not kept."""
        self._prune()
        return self._parts[0]

    def _prune(self) -> None:
        if len(self._parts) == 1 and self.kept <= self._most:
            return
        batch, draws = join(self._parts), numpy.concatenate(self._draws)
        if len(batch) > self._most:
            self._limit = float(numpy.partition(draws, self._most)[self._most])
            chosen = numpy.flatnonzero(draws < self._limit)
            batch, draws = _rows(batch, chosen), draws[chosen]
        self._parts, self._draws, self.kept = [batch], [draws], len(batch)


def _rows(batch: Batch, chosen: numpy.ndarray) -> Batch:
    return Batch(batch.features[chosen], batch.labels[chosen])
