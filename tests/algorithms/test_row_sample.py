"""A sample of a stream: bounded, in order, and every row with the same chance."""

from __future__ import annotations

import numpy
import pytest
from scipy.sparse import csr_matrix

from clary.algorithms.records import Batch
from clary.algorithms.sampling import RowSample

ROWS = numpy.arange(200_000, dtype=numpy.float32).reshape(-1, 1)


@pytest.mark.parametrize("sparse", [False, True])
def test_what_is_kept_is_bounded_and_even(sparse: bool) -> None:
    sample = RowSample(1000, 1)
    for start in range(0, len(ROWS), 5000):
        part = ROWS[start : start + 5000]
        sample.add(Batch(csr_matrix(part) if sparse else part, part))
        assert sample.kept <= 2000
    rows = sample.rows()
    kept = rows.labels[:, 0]
    assert len(kept) == 1000 and (numpy.diff(kept) > 0).all() and sample.seen == 200_000
    assert (numpy.asarray(rows.features.sum(axis=1)).reshape(-1) == kept).all()
    assert abs(kept.mean() - 100_000) < 6_000 and abs((kept < 20_000).mean() - 0.1) < 0.04


def test_a_short_stream_is_kept_whole() -> None:
    sample = RowSample(1000, 1)
    for start in range(0, 900, 300):
        sample.add(Batch(ROWS[start : start + 300], ROWS[:300, :0]))
    assert (sample.rows().features == ROWS[:900]).all()
