"""Reading a channel as batches of records: the same rows whichever way they come; a bad one is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy.sparse import csr_matrix, issparse

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.recordio import Tensor, write_frame, write_record
from clary.algorithms.formats.streams import NoData
from clary.algorithms.records import read_batches

DATA = Path(__file__).parent.parent / "data"
RECORDIO = "application/x-recordio-protobuf"
ROWS = numpy.arange(60, dtype=numpy.float32).reshape(20, 3)
LABELS = numpy.arange(20, dtype=numpy.float32)


def dense(rows: Any, labels: Any = None, dtype: Any = numpy.float32) -> bytes:
    return b"".join(
        write_frame(
            write_record(
                {"values": Tensor(row.astype(dtype))},
                {} if labels is None else {"values": Tensor(labels[number : number + 1])},
            )
        )
        for number, row in enumerate(rows)
    )


def sparse(rows: Any, shape: bool = True) -> bytes:
    return b"".join(
        write_frame(
            write_record(
                {"values": Tensor(row[row != 0], numpy.flatnonzero(row), (len(row),) if shape else ())},
                {},
            )
        )
        for row in rows
    )


def read(folder: Any, **options: Any) -> Sequence[Any]:
    return list(read_batches(folder.job(), "train", **{"rows": 7, **options}))


def together(batches: Sequence[Any]) -> Any:
    return numpy.concatenate([b.features.toarray() if issparse(b.features) else b.features for b in batches])


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64, numpy.int32])
def test_files_are_read_in_batches_of_the_asked_size(folder: Any, dtype: Any) -> None:
    folder.channel("train", {"a": dense(ROWS[:9], dtype=dtype), "b": dense(ROWS[9:], dtype=dtype)}, RECORDIO)
    batches = read(folder, width=3)
    assert [len(batch) for batch in batches] == [7, 7, 6]
    assert (together(batches) == ROWS).all()
    assert {batch.features.dtype for batch in batches} == {numpy.dtype(numpy.float32)}
    assert batches[1].place(0) == "train/a, record 8" and batches[1].place(2) == "train/b, record 1"


def test_labels_are_read_where_they_are_wanted(folder: Any) -> None:
    folder.channel("train", {"a": dense(ROWS, LABELS)}, RECORDIO)
    assert (numpy.concatenate([b.labels[:, 0] for b in read(folder, labelled=True)]) == LABELS).all()
    assert all(batch.labels.shape[1] == 0 for batch in read(folder))


def test_sparse_records_are_rows_of_a_sparse_matrix(folder: Any) -> None:
    rows = ROWS * (ROWS % 2 == 0)
    folder.channel("train", {"a": sparse(rows)}, RECORDIO)
    batches = read(folder, width=3)
    assert all(isinstance(batch.features, csr_matrix) for batch in batches)
    assert (together(batches) == rows).all()


def test_values_with_a_shape_and_no_keys_are_dense(folder: Any) -> None:
    told = Tensor(ROWS[1], None, (3,))
    records = [write_frame(write_record({"values": told}, {})), sparse(ROWS[:1] * 0)]
    folder.channel("train", {"a": b"".join(records)}, RECORDIO)
    assert (together(read(folder, width=3)) == [ROWS[1], [0, 0, 0]]).all()


def test_what_records_say_besides_is_passed_over(folder: Any) -> None:
    """A uid that is no message, though read as one it would be a broken one."""
    uid = b"\x1a\x02\xff\xff"
    records = [write_frame(write_record({"values": Tensor(row)}, {}) + uid) for row in ROWS]
    folder.channel("train", {"a": b"".join(records)}, RECORDIO)
    assert (together(read(folder, width=3)) == ROWS).all()


def test_sparse_and_dense_files_mix(folder: Any) -> None:
    folder.channel("train", {"a": sparse(ROWS[:10], shape=False), "b": dense(ROWS[10:])}, RECORDIO)
    assert (together(read(folder, width=3)) == ROWS).all()


@pytest.mark.parametrize(
    ("content_type", "labelled", "columns"),
    [
        ("text/csv;label_size=0", False, 0),
        ("text/csv", False, 0),
        ("text/csv", False, 1),
        ("text/csv", True, 1),
        ("text/csv;label_size=2", True, 2),
        ("text/csv; label_size=2", False, 2),
    ],
)
def test_csv_has_its_labels_in_front(
    folder: Any, csv_bytes: Any, content_type: str, labelled: bool, columns: int
) -> None:
    labels = numpy.column_stack([LABELS, -LABELS])[:, :columns]
    folder.channel("train", {"a.csv": csv_bytes(numpy.column_stack([labels, ROWS]))}, content_type)
    batches = read(folder, width=3, labelled=labelled)
    assert (together(batches) == ROWS).all()
    assert (numpy.concatenate([b.labels for b in batches]) == (labels if labelled else labels[:, :0])).all()
    assert batches[1].place(0) == "train/a.csv, line 8"


def test_the_sdks_own_matrix_is_read(folder: Any) -> None:
    folder.channel("train", {"a": (DATA / "matrix_0.pbr").read_bytes()}, RECORDIO)
    [batch] = read(folder, rows=200, width=784)
    assert batch.features.shape == (100, 784) and batch.features.max() > 0


def test_real_word_counts_are_read_sparse(folder: Any) -> None:
    folder.channel("train", {"a": (DATA / "nips-train_first_20.pbr").read_bytes()}, RECORDIO)
    [batch] = read(folder, rows=100)
    assert issparse(batch.features) and batch.features.shape[0] == 20 and batch.features.sum() > 1000


def with_value(row: int, column: int, value: float) -> Any:
    rows = ROWS.copy()
    rows[row, column] = value
    return rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dense(with_value(12, 1, numpy.nan)), "train/a, record 13: feature 2 is missing or NaN"),
        (dense(with_value(0, 2, numpy.inf)), "train/a, record 1: feature 3 is infinite"),
        (sparse(with_value(9, 0, -numpy.inf)), "train/a, record 10: feature 1 is infinite"),
        (dense(ROWS[:, :2]), "train/a, record 1: the record has 2 features, but feature_dim is 3"),
        (dense(ROWS[:9]) + dense(ROWS[9:, :2]), "train/a, record 10: the record has 2 features"),
        (sparse(ROWS[:, :2]), "train/a, record 1: the record has 2 features, but feature_dim is 3"),
        (sparse(numpy.ones((4, 5), numpy.float32), shape=False), "record 1: key 3 is not one of 0 to 2"),
        (dense(ROWS)[:-5], "train/a, record 20: the file ends within the record"),
        (b"1,2,3\n", "train/a, record 1"),
        (write_frame(write_record({"other": Tensor(ROWS[0])}, {})), "no feature named 'values'"),
        (write_frame(b"\xff\xff\xff"), "record 1: this is no Record message"),
    ],
)
def test_a_bad_record_is_told_with_its_place(folder: Any, content: bytes, message: str) -> None:
    folder.channel("train", {"a": content}, RECORDIO)
    with pytest.raises(ClientError) as raised:
        read(folder, width=3)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "content_type", "message"),
    [
        (b"1,2,3\n4,,6\n", "text/csv;label_size=0", "a, line 2: feature 2 is missing or NaN"),
        (b"1,2,3\n4,x,6\n", "text/csv;label_size=0", "a, line 2, column 2: 'x' is not a number"),
        (b"1,2,3\n4,5\n", "text/csv;label_size=0", "a, line 2: 2 columns"),
        (b"1,2,3,4,5\n", "text/csv", "a, line 1: the line has 5 features, but feature_dim is 3"),
        (b"1,2\n", "text/csv;label_size=2", "a, line 1: 2 column(s), but there must be 2 label(s)"),
        (b"1 2 3\n", "text/libsvm", "The content type 'text/libsvm' of channel 'train' is not one of"),
        (b"1,2,3\n", "text/csv;label_size=x", "label_size must be a whole number, not 'x'"),
    ],
)
def test_bad_csv_is_told_with_its_line(folder: Any, content: bytes, content_type: str, message: str) -> None:
    folder.channel("train", {"a": content}, content_type)
    with pytest.raises(ClientError) as raised:
        read(folder, width=3)
    assert message in str(raised.value)


def test_a_missing_label_is_told_with_its_place(folder: Any) -> None:
    folder.channel("train", {"a": dense(ROWS)}, RECORDIO)
    with pytest.raises(ClientError, match="train/a, record 1: the record has no label named 'values'"):
        read(folder, width=3, labelled=True)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_channel_is_told(folder: Any, content: bytes) -> None:
    folder.channel("train", {"a": content}, "text/csv")
    with pytest.raises(NoData, match="The files of channel 'train' are empty"):
        read(folder)


def test_huge_finite_values_are_no_mistake(folder: Any) -> None:
    rows = numpy.full((20, 3), 3e38, numpy.float32)
    folder.channel("train", {"a": dense(rows)}, RECORDIO)
    assert (together(read(folder)) == rows).all()
