"""A channel's rows, pass after pass: in windows that fit in memory, and cut into mini-batches.

For the algorithms that learn by gradients, with one label a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import issparse

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.content_type import CSV, RECORDIO
from clary.algorithms.job import Job
from clary.algorithms.records import Batch, Features, join, read_batches

Array = numpy.typing.NDArray[Any]

WINDOW_BYTES = 16 * 1024 * 1024
# A channel of up to this size is read once and kept.
LARGEST_KEPT_BYTES = 128 * 1024 * 1024
# Rows read at a time: as many as a window holds, within limits; the fewest while their size is unknown.
FEWEST_ROWS, MOST_ROWS = 200, 1 << 16
_SEED = 20171129


@dataclass(frozen=True)
class LabelRule:
    """``broken_by`` says which of (rows,) labels will not do, ``words`` what they must be."""

    broken_by: Callable[[Array], Array]
    words: str


ZERO_OR_ONE = LabelRule(lambda labels: (labels != 0) & (labels != 1), "0 or 1 for a binary_classifier")


def class_numbers(classes: int) -> LabelRule:
    return LabelRule(
        lambda labels: (labels < 0) | (labels >= classes) | (labels != numpy.floor(labels)),
        f"a whole number from 0 to num_classes - 1, which is {classes - 1}",
    )


class Channel:
    """The labelled rows of one channel, of ``width`` features (``None``: as the first row). Each pass over a
    pipe is an epoch of it."""

    def __init__(
        self,
        job: Job,
        name: str,
        rule: LabelRule | None,
        width: int | None,
        content_types: Sequence[str] = (RECORDIO, CSV),
    ) -> None:
        self.name, self.width = name, width
        self._job, self._rule, self._content_types = job, rule, content_types
        self._passes = 0
        self._row_bytes: int | None = None
        self._kept: list[Batch] | None = None

    def windows(self) -> Generator[Batch, None, None]:
        """One pass. Raises as `clary.algorithms.records.read_batches` does, and `ClientError` for a label
        that is none of the task's."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Batch] | None = []
        size = 0
        rows = FEWEST_ROWS
        if self._row_bytes is not None:
            rows = max(FEWEST_ROWS, min(MOST_ROWS, WINDOW_BYTES // self._row_bytes))
        passes, self._passes = self._passes, self._passes + 1
        for batch in read_batches(
            self._job,
            self.name,
            rows=rows,
            width=self.width,
            labelled=True,
            epoch=passes,
            content_types=self._content_types,
        ):
            self.width = batch.features.shape[1]
            if self._row_bytes is None:
                self._row_bytes = max(1, _bytes(batch.features) // len(batch))
            _check_labels(batch, self._rule)
            size += _bytes(batch.features)
            kept = [*kept, batch] if kept is not None and size <= LARGEST_KEPT_BYTES else None
            yield batch
        self._kept = kept


def mini_batches(
    windows: Iterator[Batch], size: int, epoch: int, rank: int
) -> Iterator[tuple[Features, Array]]:
    """Features and labels of about ``size`` rows each; the order within a window is drawn anew in each epoch.

    What a window has left over goes with the next; the last window's rows are shared out evenly.
    """
    random = numpy.random.Generator(numpy.random.PCG64([_SEED, epoch, rank]))
    rest: list[Batch] = []
    windows = _merged(windows)
    window = next(windows, None)
    while window is not None:
        following = next(windows, None)
        rows = join([*rest, window])
        count, used = len(rows), len(rows) // size * size
        if following is None:
            batches = -(-count // size)
            ends = numpy.linspace(0, count, batches + 1).astype(int)
            used = count
        else:
            ends = numpy.arange(0, used + 1, size)
        order = random.permutation(count)
        labels = rows.labels[:, 0]
        for start, end in itertools.pairwise(ends):
            chosen = order[start:end]
            yield rows.features[chosen], labels[chosen]
        rest = [] if used == count else [Batch(rows.features[order[used:]], rows.labels[order[used:]])]
        window = following


def _merged(windows: Iterator[Batch]) -> Iterator[Batch]:
    """The same rows in windows that are not small, where there are enough."""
    waiting: list[Batch] = []
    size = rows = 0
    for window in windows:
        waiting.append(window)
        size, rows = size + _bytes(window.features), rows + len(window)
        if size >= WINDOW_BYTES or rows >= MOST_ROWS:
            yield join(waiting)
            waiting, size, rows = [], 0, 0
    if waiting:
        yield join(waiting)


def pieces(windows: Iterator[Batch], size: int) -> Iterator[tuple[Features, Array]]:
    """Features and labels in their order, at most ``size`` rows at a time."""
    for window in windows:
        for start in range(0, len(window), size):
            yield window.features[start : start + size], window.labels[start : start + size, 0]


def _check_labels(batch: Batch, rule: LabelRule | None) -> None:
    if batch.labels.shape[1] != 1:
        raise ClientError(
            f"{batch.place(0)}: there are {batch.labels.shape[1]} labels, but there must be one."
        )
    if rule is None:
        return
    labels = batch.labels[:, 0]
    found = numpy.flatnonzero(rule.broken_by(labels))
    if found.size:
        row = int(found[0])
        raise ClientError(f"{batch.place(row)}: the label is {labels[row]:g}, but must be {rule.words}.")


def _bytes(features: Features) -> int:
    return int(features.data.nbytes + features.indices.nbytes) if issparse(features) else int(features.nbytes)
