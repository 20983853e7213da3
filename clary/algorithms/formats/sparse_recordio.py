"""Sparse records read all at once: every record's fields are walked in step, as arrays over records.

Only what the SDK writes is read this way, one tensor named ``values`` for the features and perhaps one for
the label; anything else, and whatever is wrong, is left to `clary.algorithms.formats.recordio`, which tells.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from clary.algorithms.formats.recordio import MAGIC, MAX_RECORD_BYTES

Array = numpy.ndarray

_GROUP_BYTES = 2 * 1024 * 1024  # worked on at a time: indices take several times as much
_LONGEST_VARINT = 5
_FEATURES, _LABEL, _KEY, _VALUE = 0x0A, 0x12, 0x0A, 0x12
_NAME = b"\x06values"
_VALUES, _KEYS, _SHAPE = 0x0A, 0x12, 0x1A
_KINDS: Mapping[int, numpy.dtype[Any]] = {0x12: numpy.dtype("<f4"), 0x1A: numpy.dtype("<f8")}
_PADDING = 16  # so that a look ahead stays within


@dataclass(frozen=True)
class SparseRows:
    """``values`` and ``keys`` of all rows, row n's being those from ``ends[n]`` to ``ends[n + 1]``.

    ``width`` is the shape that all rows give; ``labels`` is (rows, labels), ``None`` where there are none.
    """

    values: Array
    keys: Array
    ends: Array
    width: int
    labels: Array | None


def read_sparse(data: bytes) -> SparseRows | None:
    """The rows of whole records that all are sparse; ``None`` for any other file."""
    starts, lengths = _frames(data)
    if not len(starts):
        return None
    padded = numpy.frombuffer(data + bytes(_PADDING), numpy.uint8)
    group = numpy.cumsum(lengths) // _GROUP_BYTES
    cuts = [0, *(numpy.flatnonzero(numpy.diff(group)) + 1).tolist(), len(starts)]
    try:
        parts = [
            _read_group(padded, starts[first:end], lengths[first:end])
            for first, end in itertools.pairwise(cuts)
        ]
    except _Unlike:
        return None
    widths = {part.width for part in parts}
    counts = {0 if part.labels is None else part.labels.shape[1] for part in parts}
    if len(widths) > 1 or len(counts) > 1:
        return None
    sizes = numpy.concatenate([numpy.diff(part.ends) for part in parts])
    labels = [part.labels for part in parts if part.labels is not None]
    return SparseRows(
        numpy.concatenate([part.values for part in parts]),
        numpy.concatenate([part.keys for part in parts]),
        numpy.concatenate([numpy.zeros(1, numpy.int64), numpy.cumsum(sizes)]),
        widths.pop(),
        numpy.concatenate(labels) if labels else None,
    )


class _Unlike(Exception):
    """The records are not as this module reads them."""


def _frames(data: bytes) -> tuple[Array, Array]:
    """Where each record's payload begins, and its length; none if the framing is unusual."""
    starts, lengths = [], []
    position, size, unpack = 0, len(data), struct.Struct("<II").unpack_from
    while position + 8 <= size:
        magic, length = unpack(data, position)
        if magic != MAGIC or length > MAX_RECORD_BYTES or position + 8 + length > size:
            break
        starts.append(position + 8)
        lengths.append(length)
        position += 8 + length + (-length % 4)
    if position < size:
        return numpy.zeros(0, numpy.int64), numpy.zeros(0, numpy.int64)
    return numpy.array(starts, numpy.int64), numpy.array(lengths, numpy.int64)


class _Walk:
    """A position in each record, moved on together; no record is read beyond its ``end``."""

    def __init__(self, data: Array, position: Array, end: Array) -> None:
        self.data, self.position, self.end = data, position, end

    def byte(self, wanted: int) -> None:
        if (self.position >= self.end).any() or (self.data[self.position] != wanted).any():
            raise _Unlike
        self.position = self.position + 1

    def bytes(self, wanted: bytes) -> None:
        for each in wanted:
            self.byte(each)

    def kind(self) -> numpy.dtype[Any]:
        """What a tensor's numbers are, which must be the same for all records."""
        tag = int(self.data[self.position[0]])
        if tag not in _KINDS:
            raise _Unlike
        self.byte(tag)
        return _KINDS[tag]

    def number(self, there: Array | None = None) -> Array:
        """A varint of each record, 0 where it is not ``there``."""
        found = numpy.zeros(len(self.position), numpy.int64)
        more = numpy.ones(len(found), bool) if there is None else there
        for place in range(_LONGEST_VARINT):
            if not more.any():
                break
            byte = self.data[self.position].astype(numpy.int64)
            found += numpy.where(more, (byte & 0x7F) << (7 * place), 0)
            self.position = self.position + more
            more = more & (byte > 0x7F)
        if more.any() or (self.position > self.end).any():
            raise _Unlike
        return found

    def message(self) -> _Walk:
        """Into a message with a length before it; this walk goes on after it."""
        length = self.number()
        inside = _Walk(self.data, self.position, self.position + length)
        self.position = inside.end
        if (self.position > self.end).any():
            raise _Unlike
        return inside

    def field(self, tag: int) -> tuple[Array, Array]:
        """Start and length of a field of bytes, of length 0 where a record lacks it."""
        there = (self.position < self.end) & (self.data[self.position] == tag)
        self.position = self.position + there
        length = self.number(there)
        start = self.position
        self.position = start + length
        if (self.position > self.end).any():
            raise _Unlike
        return start, length

    def ends_here(self) -> None:
        if (self.position != self.end).any():
            raise _Unlike


def _read_group(data: Array, starts: Array, lengths: Array) -> SparseRows:
    record = _Walk(data, starts, starts + lengths)
    record.byte(_FEATURES)
    tensor, kind = _tensor(record)
    value_starts, value_bytes = tensor.field(_VALUES)
    key_starts, key_bytes = tensor.field(_KEYS)
    shape = _shape(tensor)
    tensor.ends_here()
    labels = None
    if (record.position < record.end).any():
        record.byte(_LABEL)
        label, label_kind = _tensor(record)
        label_starts, label_bytes = label.field(_VALUES)
        label.ends_here()
        if (label_bytes != label_bytes[0]).any() or not label_bytes[0]:
            raise _Unlike
        numbers, counts = _floats(data, label_starts, label_bytes, label_kind)
        labels = numbers.reshape(len(starts), counts[0])
    record.ends_here()
    values, sizes = _floats(data, value_starts, value_bytes, kind)
    keys, numbers_of_keys = _varints(data, key_starts, key_bytes)
    if (sizes != numbers_of_keys).any() or (len(keys) and int(keys.max()) >= shape):
        raise _Unlike
    ends = numpy.concatenate([numpy.zeros(1, numpy.int64), numpy.cumsum(sizes)])
    return SparseRows(values, keys, ends, shape, labels)


def _tensor(record: _Walk) -> tuple[_Walk, numpy.dtype[Any]]:
    """Into the tensor of an entry named ``values``, and the kind of its numbers."""
    entry = record.message()
    entry.byte(_KEY)
    entry.bytes(_NAME)
    entry.byte(_VALUE)
    value = entry.message()
    entry.ends_here()
    kind = value.kind()
    tensor = value.message()
    value.ends_here()
    return tensor, kind


def _shape(tensor: _Walk) -> int:
    """The one dimension that all records give."""
    start, length = tensor.field(_SHAPE)
    inside = _Walk(tensor.data, start, start + length)
    found = inside.number(length > 0)
    inside.ends_here()
    if (found != found[0]).any() or not 0 < found[0] < 2**31:
        raise _Unlike
    return int(found[0])


def _floats(data: Array, starts: Array, sizes: Array, kind: numpy.dtype[Any]) -> tuple[Array, Array]:
    """The packed numbers, and how many each record has."""
    if (sizes % kind.itemsize).any():
        raise _Unlike
    counts = sizes // kind.itemsize
    # Numbers begin at any byte.
    everywhere: Array = numpy.ndarray((len(data) - kind.itemsize + 1,), kind, buffer=data.data, strides=(1,))
    return everywhere[_places(starts, counts, kind.itemsize)].astype(numpy.float32), counts


def _varints(data: Array, starts: Array, sizes: Array) -> tuple[Array, Array]:
    """The packed varints, and how many each record has."""
    packed = data[_places(starts, sizes, 1)]
    last = packed < 0x80
    total = numpy.concatenate([numpy.zeros(1, numpy.int64), numpy.cumsum(last)])
    ends = numpy.cumsum(sizes)
    counts = total[ends] - total[ends - sizes]
    if (~last[ends[sizes > 0] - 1]).any():
        raise _Unlike
    finish = numpy.flatnonzero(last)
    begin = numpy.concatenate([numpy.zeros(1, numpy.int64), finish[:-1] + 1])[: len(finish)]
    widths = finish - begin + 1
    if len(widths) and int(widths.max()) > _LONGEST_VARINT:
        raise _Unlike
    found = numpy.zeros(len(finish), numpy.int64)
    for place in range(int(widths.max()) if len(widths) else 0):
        here = numpy.minimum(begin + place, len(packed) - 1)
        found += numpy.where(widths > place, (packed[here].astype(numpy.int64) & 0x7F) << (7 * place), 0)
    return found, counts


def _places(starts: Array, counts: Array, step: int) -> Array:
    """``starts``, each with its ``counts`` followers ``step`` apart."""
    before = numpy.cumsum(counts) - counts
    places = numpy.arange(int(counts.sum()), dtype=numpy.int64) - numpy.repeat(before, counts)
    found: Array = places * step + numpy.repeat(starts, counts)
    return found
