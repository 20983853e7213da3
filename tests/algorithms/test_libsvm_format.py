"""Reading LIBSVM text: what is taken, and what is said of what is not."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.algorithms.faults import ClientError
from clary.algorithms.formats import csv
from clary.algorithms.formats.libsvm import LibsvmRows, read_libsvm

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.tuples(NUMBERS, st.dictionaries(st.integers(0, 30), NUMBERS, max_size=5)), min_size=1, max_size=8
)


def read(data: bytes, **options: bool) -> LibsvmRows:
    return read_libsvm(data, "a.svm", **options)


def refusal(data: bytes) -> str:
    with pytest.raises(ClientError) as caught:
        read(data)
    return str(caught.value)


@given(ROWS, st.sampled_from([3, 40, 10_000]), st.sampled_from(["", " # a comment"]))
def test_rows_come_back_as_they_were_written(
    rows: list[tuple[float, dict[int, float]]], piece: int, comment: str
) -> None:
    text = "\n".join(
        f"{label:.9g} " + " ".join(f"{i}:{v:.9g}" for i, v in entries.items()) + comment
        for label, entries in rows
    )
    before, csv.PIECE_BYTES = csv.PIECE_BYTES, piece
    try:
        found = read(text.encode())
    finally:
        csv.PIECE_BYTES = before
    width = max((index for _, entries in rows for index in entries), default=-1) + 1
    wanted = numpy.zeros((len(rows), width), numpy.float32)
    for row, (_, entries) in enumerate(rows):
        for index, value in entries.items():
            wanted[row, index] = value
    assert found.features.shape == wanted.shape
    assert numpy.array_equal(found.features.toarray(), wanted)
    assert numpy.array_equal(found.labels, numpy.array([label for label, _ in rows], numpy.float32))
    assert found.lines.tolist() == list(range(1, len(rows) + 1))
    assert found.weights is None and found.groups is None


def test_weights_and_query_ids_are_kept() -> None:
    found = read(b"1:0.5 qid:3 0:1\n\n0 qid:4 1:2 # note\n")
    assert found.weights is not None and found.weights.tolist() == [0.5, 1.0]
    assert found.groups is not None and found.groups.tolist() == [3, 4]
    assert found.lines.tolist() == [1, 3]


def test_a_request_may_have_labels_or_none() -> None:
    found = read(b"0:1 2:3\n5 1:2\n", label_optional=True)
    assert found.features.toarray().tolist() == [[1, 0, 3], [0, 2, 0]]
    assert numpy.isnan(found.labels[0]) and found.labels[1] == 5


def test_a_row_of_a_label_only_has_no_features() -> None:
    assert read(b"1\n0\n").features.shape == (2, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a.svm: the file holds no rows."),
        (b"# nothing\n", "a.svm: the file holds no rows."),
        (b"1 0:1\nx 1:2\n", "a.svm, line 2, column 1: 'x' is not a label."),
        (b"1 0:1\n0 1:2 3\n", "a.svm, line 2, column 3: '3' is not index:value."),
        (b"1 0:abc", "line 1, column 2: '0:abc' is not index:value."),
        (b"1 0:1:2", "'0:1:2' is not index:value."),
        (b"1 0:", "'0:' is not index:value."),
        (b"1 :5", "':5' is not index:value with a whole number"),
        (b"1 -1:5", "'-1:5' is not index:value with a whole number"),
        (b"1 1-2:", "'1-2:' is not index:value"),
        (b"1 99999999999:1", "'99999999999:1' is not index:value with a whole number up to 2147483646"),
        (b"1 qid:x 0:1", "'qid:x' is not qid:number"),
        (b"1,2,3\n", "'1,2,3' is not a label."),
        (b"1:x 0:1\n", "'1:x' is not label:weight"),
        (b"\xff\xfe", "is not a label."),
    ],
)
def test_what_is_wrong_is_told_with_its_place(data: bytes, words: str) -> None:
    assert words in refusal(data)


@given(st.text("0123456789:.-e \nq#", max_size=40))
def test_both_ways_of_reading_agree(text: str) -> None:
    from clary.algorithms.formats.libsvm import _read_carefully, _read_plain

    with numpy.errstate(over="ignore"):
        plain = _read_plain(text.encode(), 1)
        if plain is None:
            return
        careful = _read_carefully(text.encode(), "a.svm", 1, False)
    for field in ("labels", "starts", "indices", "values", "lines"):
        assert numpy.array_equal(getattr(plain, field), getattr(careful, field)), field
