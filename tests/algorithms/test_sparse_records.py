"""Reading sparse records at once gives what reading them one by one gives, or leaves it to that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.algorithms.faults import ClientError
from clary.algorithms.formats import sparse_recordio
from clary.algorithms.formats.recordio import Tensor, read_rows, write_frame, write_record
from clary.algorithms.formats.sparse_recordio import read_sparse
from clary.algorithms.records import read_batches

DATA = Path(__file__).parent.parent / "data"
RECORDIO = "application/x-recordio-protobuf"


def records(rows: int, width: int, labels: int = 1, dtype: Any = numpy.float32, seed: int = 0) -> list[bytes]:
    """Sparse rows of 0 to 20 values, keys of every length of varint that ``width`` has."""
    random = numpy.random.default_rng(seed)
    found = []
    for _ in range(rows):
        count = int(random.integers(0, min(20, width) + 1))
        keys = numpy.unique((width ** random.random(count)).astype(numpy.int64) % width)
        values = Tensor(random.normal(size=len(keys)).astype(dtype), keys, (width,))
        label = {"values": Tensor(random.normal(size=labels).astype(dtype))} if labels else {}
        found.append(write_record({"values": values}, label))
    return found


def framed(payloads: list[bytes]) -> bytes:
    return b"".join(map(write_frame, payloads))


def assert_alike(data: bytes) -> None:
    """`read_sparse` reads ``data``, as `read_rows` does."""
    found = read_sparse(data)
    assert found is not None
    one_by_one = list(read_rows(data, "rows"))
    assert len(found.ends) == len(one_by_one) + 1
    for number, record in enumerate(one_by_one):
        tensor, part = record.features["values"], slice(*found.ends[number : number + 2])
        assert tensor.shape == (found.width,)
        assert numpy.array_equal(found.values[part], tensor.values.astype(numpy.float32), equal_nan=True)
        assert tensor.keys is not None and (found.keys[part] == tensor.keys).all()
        label = record.label.get("values")
        assert (found.labels is None) == (label is None)
        if label is not None and found.labels is not None:
            assert numpy.array_equal(found.labels[number], label.values.astype(numpy.float32), equal_nan=True)


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
@pytest.mark.parametrize("labels", [0, 1, 3])
@pytest.mark.parametrize("width", [1, 100, 20_000, 3_000_000, 2**31 - 1])
def test_rows_are_those_that_are_read_one_by_one(width: int, labels: int, dtype: Any) -> None:
    assert_alike(framed(records(200, width, labels, dtype)))


def test_a_long_file_is_read_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_recordio, "_GROUP_BYTES", 500)
    assert_alike(framed(records(300, 1000)))


def test_real_word_counts_are_read_at_once() -> None:
    assert_alike((DATA / "nips-train_first_20.pbr").read_bytes())


@pytest.mark.parametrize(
    "odd",
    [
        write_record({"values": Tensor(numpy.ones(3, numpy.float32))}, {}),
        write_record({"values": Tensor(numpy.ones(1, numpy.float32), numpy.array([7]), (7,))}, {}),
        write_record({"values": Tensor(numpy.ones(1, numpy.float32), numpy.array([1]), (8,))}, {}),
        write_record({"values": Tensor(numpy.ones(1, numpy.float32), numpy.array([1]))}, {}),
        write_record({"values": Tensor(numpy.ones(1, numpy.float64), numpy.array([1]), (7,))}, {}),
        write_record({"values": Tensor(numpy.ones(1, numpy.int32), numpy.array([1]), (7,))}, {}),
        write_record({"other": Tensor(numpy.ones(1, numpy.float32), numpy.array([1]), (7,))}, {}),
        records(1, 7, labels=2)[0],
        records(1, 7)[0] + b"\x1a\x01u",
        b"",
        b"\x0a\xff\xff\xff\xff\xff\xff",
        b"\x0a\xff\xff\xff\xff\x7f",
    ],
    ids=[
        "dense", "key", "shape", "no shape", "kind", "integers", "name", "labels", "uid", "empty", "varint",
        "length",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_record_of_another_kind_leaves_the_file_to_the_other_reader(odd: bytes, place: int) -> None:
    payloads = records(5, 7)
    payloads.insert(place, odd)
    assert read_sparse(framed(payloads)) is None


@pytest.mark.parametrize("cut", [1, 5, 9, 30])
def test_a_file_that_ends_too_early_is_left_to_the_other_reader(cut: int) -> None:
    data = write_frame(records(1, 7)[0]) * 5
    padding = len(data) - len(data.rstrip(b"\0"))
    assert read_sparse(data[: -cut - padding]) is None or cut <= padding


def test_nothing_is_no_sparse_file() -> None:
    assert read_sparse(b"") is None


SAMPLE = framed(records(4, 300))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_bytes_change_both_readers_agree(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLE)
    for place, byte in changes:
        data[place] = byte
    if read_sparse(bytes(data)) is not None:
        assert_alike(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_no_mistake_of_the_reader(payload: bytes) -> None:
    data = write_frame(payload)
    if read_sparse(data) is not None:
        assert_alike(data)
    read_sparse(payload)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (framed([*records(3, 7), records(1, 9)[0]]), "train/a, record 4: the record has 9 features"),
        (framed([*records(3, 7), records(1, 7, labels=0)[0]]), "record 4: the record has no label"),
        (framed(records(3, 9)), "train/a, record 1: the record has 9 features, but feature_dim is 7"),
        (
            framed([*records(3, 7), write_record({"values": Tensor(numpy.array([numpy.inf], numpy.float32),
                                                                   numpy.array([2]), (7,))},
                                                 {"values": Tensor(numpy.ones(1, numpy.float32))})]),
            "train/a, record 4: feature 3 is infinite",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_still_told_with_its_place(folder: Any, content: bytes, message: str) -> None:
    folder.channel("train", {"a": content}, RECORDIO)
    with pytest.raises(ClientError) as raised:
        list(read_batches(folder.job(), "train", rows=10, width=7, labelled=True))
    assert message in str(raised.value)
