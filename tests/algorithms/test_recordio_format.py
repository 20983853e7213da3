"""RecordIO-protobuf, both ways, and against files that others wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.recordio import (
    MAGIC,
    Tensor,
    read_dense,
    read_frames,
    read_record,
    read_rows,
    score_records,
    write_frame,
    write_record,
)

GOLDEN = Path(__file__).parent.parent / "data"
KINDS = st.sampled_from([numpy.float32, numpy.float64, numpy.int32])


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    values = draw(arrays(draw(KINDS), st.integers(0, 6)))
    if not draw(st.booleans()):
        return Tensor(values)
    keys = draw(arrays(numpy.int64, len(values), elements=st.integers(0, 2**40)))
    return Tensor(values, keys, (2**41,))


@given(st.dictionaries(st.text(max_size=4), tensors(), max_size=3), st.dictionaries(st.text(), tensors()))
def test_a_record_comes_back_as_it_was_written(features: dict[str, Tensor], label: dict[str, Tensor]) -> None:
    found = read_record(write_record(features, label))
    for wanted, given_back in ((features, found.features), (label, found.label)):
        assert wanted.keys() == given_back.keys()
        for name, tensor in wanted.items():
            back = given_back[name]
            assert numpy.array_equal(tensor.values, back.values, equal_nan=True)
            assert tensor.values.dtype == back.values.dtype
            assert tensor.shape == back.shape
            assert (tensor.keys is None) == (back.keys is None)
            assert tensor.keys is None or numpy.array_equal(tensor.keys, back.keys)


@given(st.lists(st.binary(max_size=20)))
def test_frames_come_back_as_they_were_written(payloads: list[bytes]) -> None:
    data = b"".join(map(write_frame, payloads))
    assert len(data) % 4 == 0
    assert list(read_frames(data, "a.rec")) == payloads


def test_a_record_cut_into_pieces_is_put_together() -> None:
    magic = struct.pack("<I", MAGIC)
    pieces = [(1, b"abcd"), (2, b"efgh"), (3, b"ij")]
    data = b"".join(
        magic + struct.pack("<I", flag << 29 | len(text)) + text + b"\0" * (-len(text) % 4)
        for flag, text in pieces
    )
    assert list(read_frames(data, "a.rec")) == [b"abcd" + magic + b"efgh" + magic + b"ij"]
    with pytest.raises(ClientError, match="the file ends within the record"):
        list(read_frames(data[:-12], "a.rec"))
    with pytest.raises(ClientError, match=r"a\.rec, record 1: its pieces are not in order"):
        list(read_frames(data[12:], "a.rec"))


@given(arrays(numpy.float32, array_shapes(min_dims=2, max_dims=2, max_side=6)), st.booleans(), KINDS)
def test_uniform_rows_are_read_at_once_and_alike(rows: numpy.ndarray, labelled: bool, kind: type) -> None:
    data = b"".join(
        write_frame(write_record({"values": Tensor(row)}, {"values": Tensor(row[:1])} if labelled else {}))
        for row in rows
    )
    dense = read_dense(data, "a.rec")
    assert dense is not None
    assert numpy.array_equal(dense.features, rows, equal_nan=True)
    if labelled:
        assert dense.labels is not None and numpy.array_equal(dense.labels, rows[:, :1], equal_nan=True)
    else:
        assert dense.labels is None


@given(st.lists(st.tuples(tensors(), tensors()), min_size=1, max_size=4))
def test_reading_at_once_never_differs_from_reading_one_by_one(rows: list[tuple[Tensor, Tensor]]) -> None:
    data = b"".join(write_frame(write_record({"values": a}, {"values": b})) for a, b in rows)
    dense = read_dense(data, "a.rec")
    if dense is not None:
        for row, (features, label) in enumerate(rows):
            assert features.keys is None
            assert numpy.array_equal(dense.features[row], features.values, equal_nan=True)
            if dense.labels is not None:
                assert numpy.array_equal(dense.labels[row], label.values, equal_nan=True)
            else:
                assert label.values.dtype == numpy.int32 or label.keys is not None or not label.values.size


def test_golden_framing_of_ten_rows() -> None:
    payloads = list(read_frames((GOLDEN / "first_10_rows_recordio").read_bytes(), "golden"))
    assert len(payloads) == 10 and {len(payload) for payload in payloads} == {3148}


def test_golden_dense_matrix() -> None:
    data = (GOLDEN / "matrix_0.pbr").read_bytes()
    records = list(read_rows(data, "golden"))
    dense = read_dense(data, "golden")
    assert dense is not None and dense.features.shape == (100, 784) and dense.labels is None
    assert numpy.array_equal(dense.features, numpy.stack([r.features["values"].values for r in records]))
    assert 0 < numpy.abs(dense.features).sum() < numpy.inf
    assert b"".join(write_frame(write_record(r.features, r.label)) for r in records) == data


def test_golden_sparse_word_counts() -> None:
    data = (GOLDEN / "nips-train_first_20.pbr").read_bytes()
    records = list(read_rows(data, "golden"))
    assert len(records) == 20 and read_dense(data, "golden") is None
    for record in records:
        words = record.features["values"]
        assert words.shape == (12419,) and words.keys is not None
        assert len(words.keys) == len(words.values) and words.keys.max() < 12419
        assert (words.values >= 1).all() and (words.values == numpy.floor(words.values)).all()
    assert b"".join(write_frame(write_record(r.features, r.label)) for r in records) == data


def test_a_reply_has_a_record_a_row() -> None:
    found = list(read_rows(score_records([{"score": numpy.float32(0.5)}, {"score": numpy.ones(3)}]), "x"))
    assert [record.label["score"].values.tolist() for record in found] == [[0.5], [1, 1, 1]]
    assert not found[0].features


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"1,2,3,4,5\n", "record 1: this is not RecordIO"),
        (struct.pack("<II", MAGIC, 8) + b"abc", "record 1: the file ends within the record"),
        (b"\x0a\x23", "record 1: the file ends within the record"),
        (write_frame(b"") + b"garbage!", "record 2: this is not RecordIO"),
        (write_frame(b"\x0a\xff"), "record 1: this is no Record message"),
        (write_frame(b"\x0a\x05ab"), "record 1: this is no Record message"),
        (write_frame(b"\xff" * 12), "record 1: this is no Record message"),
    ],
)
def test_what_is_broken_is_told_with_its_record(data: bytes, words: str) -> None:
    with pytest.raises(ClientError, match=words):
        list(read_rows(data, "a.rec"))


def test_keys_that_do_not_match_their_values_are_refused() -> None:
    payload = write_record({"values": Tensor(numpy.ones(2), numpy.array([1]), (5,))}, {})
    with pytest.raises(ClientError, match="1 keys for 2 values"):
        read_record(payload)


@given(st.binary(max_size=60))
def test_no_bytes_lead_to_anything_but_records_or_a_refusal(data: bytes) -> None:
    for content in (data, write_frame(data)):
        try:
            list(read_rows(content, "a.rec"))
            read_dense(content, "a.rec")
        except ClientError:
            pass
