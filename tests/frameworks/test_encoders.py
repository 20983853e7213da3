"""Bodies to arrays, as numpy's own reader gives them, and back."""

from __future__ import annotations

import io

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from clary.frameworks.encoders import CSV, JSON, NPY, decode, encode, is_text, read_csv

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(arrays(numpy.float64, array_shapes(min_dims=2, max_dims=2, max_side=5), elements=NUMBERS))
def test_csv_of_numbers_is_read_as_numpy_reads_it(rows: numpy.ndarray) -> None:
    text = "\n".join(",".join(map(repr, row.tolist())) for row in rows)
    wanted = numpy.atleast_1d(numpy.genfromtxt(io.StringIO(text), delimiter=","))
    assert numpy.array_equal(read_csv(text), wanted)
    assert numpy.array_equal(read_csv(text.encode() + b"\n"), wanted)


def test_empty_fields_are_nan_and_texts_stay_texts() -> None:
    assert numpy.array_equal(read_csv("1,,3\n4,5,6"), [[1, numpy.nan, 3], [4, 5, 6]], equal_nan=True)
    assert read_csv('1,"a, b"\n2,c').tolist() == [["1", "a, b"], ["2", "c"]]


@pytest.mark.parametrize("text", ["", "\n", "1,2\n3", "1\n2,3"])
def test_csv_without_rows_or_of_uneven_ones_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"empty|columns"):
        read_csv(text)


@given(
    arrays(numpy.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32, allow_nan=False))
)
def test_arrays_come_back_from_json_and_npy(array: numpy.ndarray) -> None:
    for media in (JSON, NPY):
        body, written = encode(array, media)
        assert written == media
        assert numpy.array_equal(numpy.asarray(decode(body, media), numpy.float32), array)


@given(arrays(numpy.float64, array_shapes(min_dims=2, max_dims=2, max_side=4), elements=NUMBERS))
def test_arrays_come_back_from_csv(array: numpy.ndarray) -> None:
    body, _ = encode(array, CSV)
    assert numpy.array_equal(read_csv(body).reshape(array.shape), array)


def test_text_types_are_known_whatever_their_parameters() -> None:
    assert is_text("Text/CSV; charset=utf-8") and is_text("application/json")
    assert not is_text("text/libsvm") and not is_text("application/x-npy")
