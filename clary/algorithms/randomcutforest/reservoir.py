"""A uniform sample of a stream in fixed memory, and how the samples of several hosts become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import numpy.typing

Array = numpy.typing.NDArray[Any]

_FIRST_ROWS = 1024


class Reservoir:
    """Keeps ``most`` rows of a stream, each with the same chance, in the memory of just these rows."""

    def __init__(self, most: int, width: int, random: numpy.random.Generator) -> None:
        self._most = most
        self._random = random
        self._rows = numpy.empty((min(_FIRST_ROWS, most), width), numpy.float32)
        self.seen = 0

    @property
    def kept(self) -> int:
        return min(self.seen, self._most)

    @property
    def rows(self) -> Array:
        """(kept, width) of float32."""
        return self._rows[: self.kept]

    def add(self, rows: Array) -> None:
        free = self._most - self.kept
        if free:
            self._append(rows[:free])
            rows = rows[free:]
        if not len(rows):
            return
        # The row that is number n takes one of n places at random, most of which are outside.
        numbers = numpy.arange(self.seen + 1, self.seen + 1 + len(rows), dtype=numpy.float64)
        places = (self._random.random(len(rows)) * numbers).astype(numpy.int64)
        taken = numpy.flatnonzero(places < self._most)
        self._rows[places[taken]] = rows[taken]  # where a place is taken twice, the later row stays
        self.seen += len(rows)

    def _append(self, rows: Array) -> None:
        end = self.seen + len(rows)
        if end > len(self._rows):
            # Enlarged in place: large memory is moved without a copy.
            size = min(self._most, max(end, 2 * len(self._rows)))
            self._rows.resize((size, self._rows.shape[1]), refcheck=False)
        self._rows[self.seen : end] = rows
        self.seen = end


def draws(kept: int, seen: int, random: numpy.random.Generator) -> Array:
    """The ``kept`` smallest of ``seen`` random numbers (of the exponential distribution), ascending.

    Rows that were sampled from ``seen`` may be given these in any order: the smallest numbers of several
    samples together then name a sample of everything.
    """
    found: Array = numpy.cumsum(random.standard_exponential(kept) / (seen - numpy.arange(kept)))
    return found


def shares(hosts: Sequence[Array], most: int) -> Sequence[int]:
    """How many of the ``most`` smallest draws are each host's."""
    owners = numpy.repeat(numpy.arange(len(hosts)), [len(each) for each in hosts])
    smallest = numpy.argsort(numpy.concatenate(hosts), kind="stable")[:most]
    return [int(count) for count in numpy.bincount(owners[smallest], minlength=len(hosts))]
