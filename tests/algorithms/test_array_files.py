"""MXNet's files of arrays: what is written reads back, and what is no such file is told."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.algorithms.formats.ndarrays import read_arrays, write_arrays

CENTRES = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
# The same two arrays as MXNet 1.9.1 writes them, by `mx.nd.save(path, {"s": ..., "v": ...})`.
FROM_MXNET = bytes.fromhex(
    "12010000000000000000000000000000" "0200000000000000"
    "c9fa93f9" "00000000" "01000000" "0200000000000000" "01000000" "00000000" "00000000"
    "0000803f" "00000040"
    "c9fa93f9" "00000000" "02000000" "0100000000000000" "0200000000000000" "01000000" "00000000" "00000000"
    "00004040" "00008040"
    "0200000000000000" "0100000000000000" "73" "0100000000000000" "76"
)  # fmt: skip
NAMED = {"s": numpy.array([1, 2], numpy.float32), "v": numpy.array([[3, 4]], numpy.float32)}


def test_named_arrays_are_written_as_mxnet_writes_them() -> None:
    assert write_arrays(NAMED) == FROM_MXNET


def test_what_mxnet_wrote_is_read() -> None:
    found = read_arrays(FROM_MXNET)
    assert {name: array.tolist() for name, array in found.items()} == {"s": [1, 2], "v": [[3, 4]]}


def test_arrays_without_names_are_numbered() -> None:
    found = read_arrays(write_arrays([CENTRES, CENTRES[:1].astype(numpy.float64)]))
    assert (found["0"] == CENTRES).all() and found["1"].dtype == numpy.float64


def test_a_file_within_a_zip_is_read() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("about.json", "{}")
        archive.writestr("model_algo-1", write_arrays([CENTRES]))
    assert (read_arrays(packed.getvalue())["0"] == CENTRES).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends too early"),
        (b"PK\x03\x04 broken", "zip that cannot be read"),
        (b"x" * 64, "does not begin as MXNet's"),
        (FROM_MXNET[:-1], "ends too early"),
        (FROM_MXNET[:70], "ends too early"),
        (struct.pack("<QQQ", 0x112, 0, 1 << 60), "claims to hold"),
        (FROM_MXNET.replace(b"\xc9\xfa\x93\xf9\0\0\0\0", b"\xc9\xfa\x93\xf9\1\0\0\0", 1), "sparse array"),
    ],
)
def test_what_is_no_such_file_is_told(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_arrays(data)


@given(st.integers(0, len(FROM_MXNET) - 1), st.integers(0, 255))
def test_a_broken_byte_gives_an_error_or_an_answer(position: int, value: int) -> None:
    broken = bytearray(FROM_MXNET)
    broken[position] = value
    with contextlib.suppress(ValueError):
        read_arrays(bytes(broken))
