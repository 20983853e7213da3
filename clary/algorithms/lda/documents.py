"""Documents as counts of words: read whole into memory, and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import csr_matrix, vstack

from clary.algorithms.faults import ClientError
from clary.algorithms.job import Job
from clary.algorithms.records import Features, read_batches

Array = numpy.typing.NDArray[Any]
# (documents, words) of float32, a csr_matrix without zeros or doubles
Counts = Any
MOST_ROWS_AT_ONCE = 4096
LARGEST_BATCH_BYTES = 64 * 1024 * 1024


def read_documents(job: Job, channel: str, words: int) -> Counts:
    """Every document of a channel.

    Raises as `clary.algorithms.records.read_batches` does, and `ClientError` for a count that is negative and
    for a document without words.
    """
    rows = max(1, min(MOST_ROWS_AT_ONCE, LARGEST_BATCH_BYTES // (4 * words)))
    parts = []
    for batch in read_batches(job, channel, rows=rows, width=words):
        counts = as_counts(batch.features, batch.place)
        empty = numpy.flatnonzero(numpy.diff(counts.indptr) == 0)
        if empty.size:
            raise ClientError(
                f"{batch.place(int(empty[0]))}: the document is empty: all of its counts are 0, but at least "
                "one must be positive. Leave such documents out."
            )
        parts.append(counts)
    return parts[0] if len(parts) == 1 else vstack(parts, format="csr")


def as_counts(features: Features, place: Callable[[int], str]) -> Counts:
    """Raises `ClientError` for a negative count; ``place`` names a row (from 0)."""
    counts = csr_matrix(features, dtype=numpy.float32)
    if counts.nnz and counts.data.min() < 0:
        wrong = int(counts.data.argmin())
        row = int(numpy.searchsorted(counts.indptr, wrong, side="right")) - 1
        raise ClientError(
            f"{place(row)}: feature {int(counts.indices[wrong]) + 1} is {counts.data[wrong]:g}, but must be "
            "how often a word occurs: 0 or more."
        )
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts
