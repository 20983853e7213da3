"""Reading CSV: what is taken, and what is said of what is not."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from clary.algorithms.faults import ClientError
from clary.algorithms.formats import csv
from clary.algorithms.formats.csv import read_csv

NUMBERS = st.floats(width=32, allow_infinity=False)


def refusal(data: bytes) -> str:
    with pytest.raises(ClientError) as caught:
        read_csv(data, "a.csv")
    return str(caught.value)


def same(found: numpy.ndarray, wanted: object) -> bool:
    return numpy.array_equal(found, numpy.asarray(wanted, numpy.float32), equal_nan=True)


@given(arrays(numpy.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=NUMBERS))
def test_rows_come_back_as_they_were_written(rows: numpy.ndarray) -> None:
    # A single column with an empty field is a blank line.
    empty = "" if rows.shape[1] > 1 else "nan"
    text = "\n".join(",".join(empty if numpy.isnan(v) else f"{v:.9g}" for v in row) for row in rows)
    found = read_csv(text.encode(), "a.csv")
    assert same(found.values, rows)
    assert found.lines.tolist() == list(range(1, len(rows) + 1))


@given(
    arrays(numpy.float32, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8), elements=NUMBERS),
    st.integers(1, 60),
    st.sampled_from(["\n", "\r\n"]),
)
def test_pieces_make_no_difference(rows: numpy.ndarray, size: int, end: str) -> None:
    text = end.join(",".join("" if numpy.isnan(v) else f"{v:.9g}" for v in row) for row in rows) + end
    before, csv.PIECE_BYTES = csv.PIECE_BYTES, size
    try:
        found = read_csv(text.encode(), "a.csv")
    finally:
        csv.PIECE_BYTES = before
    assert same(found.values, rows)
    assert found.lines.tolist() == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    data = f"1{delimiter}2.5{delimiter}-3e2\n4{delimiter}{delimiter}6".encode()
    assert same(read_csv(data, "a.csv").values, [[1, 2.5, -300], [4, numpy.nan, 6]])


@pytest.mark.parametrize(
    ("data", "rows", "lines"),
    [
        (b"1,2", [[1, 2]], [1]),
        (b"\xef\xbb\xbf1,2\n", [[1, 2]], [1]),
        (b"1,2\n\n3,4\n\n", [[1, 2], [3, 4]], [1, 3]),
        (b"\n1,2", [[1, 2]], [2]),
        (b",,\n,1,", [[numpy.nan] * 3, [numpy.nan, 1, numpy.nan]], [1, 2]),
        (b'"1"," 2 "\n', [[1, 2]], [1]),
        (b"inf,-Infinity,NaN\n", [[numpy.inf, -numpy.inf, numpy.nan]], [1]),
        (b"5\n6\n", [[5], [6]], [1, 2]),
        (b" 1 , 2\n", [[1, 2]], [1]),
    ],
)
def test_unusual_but_clear_files_are_read(data: bytes, rows: object, lines: list[int]) -> None:
    found = read_csv(data, "a.csv")
    assert same(found.values, rows) and found.lines.tolist() == lines


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a.csv: the file holds no rows."),
        (b" \n\n", "a.csv: the file holds no rows."),
        (b"1,2\n3,4\n5,abc\n", "a.csv, line 3, column 2: 'abc' is not a number."),
        (b"1,2\n\n3,1_0\n", "a.csv, line 3, column 2: '1_0' is not a number."),
        (b"1,0x1A\n", "line 1, column 2: '0x1A' is not a number."),
        ("1,２\n".encode(), "line 1, column 2: '２' is not a number."),
        (b"1,2\n3,4,5\n", "a.csv, line 2: 3 columns, but the lines before have 2."),
        (b"1,2\n3,4\n5\n", "a.csv, line 3: 1 columns, but the lines before have 2."),
        (b"1,2\n3,\xe9\n", "a.csv, line 2: the file is not UTF-8 text."),
        (b"1 2,3\n", "line 1, column 1: '1 2' is not a number."),
        (b"1," + b"x" * 900, f"'{'x' * 50}' is not a number."),
    ],
)
def test_what_is_wrong_is_told_with_its_place(data: bytes, words: str) -> None:
    assert words in refusal(data)


def test_a_header_is_recognized() -> None:
    assert "line 1, column 1: 'label' is not a number. The first line looks like a header" in refusal(
        b"label,size\n1,2\n"
    )
    assert "header" not in refusal(b"1,2\nlabel,size\n")


def test_a_mistake_far_into_a_file_is_found_at_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "PIECE_BYTES", 1000)
    lines = [b"1,2,3"] * 5000
    lines[4321] = b"1,2,oops"
    assert "a.csv, line 4322, column 3: 'oops'" in refusal(b"\n".join(lines))
    lines[4321] = b"1,2"
    assert "a.csv, line 4322: 2 columns, but the lines before have 3." in refusal(b"\n".join(lines))


def test_a_separator_of_files_before_a_number_is_no_blank() -> None:
    assert "line 2, column 1" in refusal(b"1\n\x1c0\n")


@given(st.binary(max_size=60))
def test_no_bytes_lead_to_anything_but_rows_or_a_refusal(data: bytes) -> None:
    try:
        found = read_csv(data, "a.csv")
    except ClientError:
        return
    assert found.values.ndim == 2 and found.values.size and len(found.lines) == len(found.values)
