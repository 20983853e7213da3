"""RecordIO framing and the ``aialgs.data.Record`` protobuf message, both ways.

A record is: 4 bytes magic, 4 bytes length (its upper three bits flag pieces), payload, zero padding to a
multiple of 4. The message's fields are those of the SDK's ``record.proto``; the wire format is protobuf's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from clary.algorithms.faults import ClientError

MAGIC = 0xCED7230A
MAX_RECORD_BYTES = (1 << 29) - 1
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_WHOLE, _FIRST, _MIDDLE, _LAST = 0, 1, 2, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Field number of a Value -> how its numbers are packed.
_TENSORS: Mapping[int, numpy.dtype[Any]] = {
    2: numpy.dtype("<f4"),
    3: numpy.dtype("<f8"),
    7: numpy.dtype("<i4"),
}
_FLOAT32_TENSOR, _FLOAT64_TENSOR, _INT32_TENSOR, _BYTES_VALUE = 2, 3, 7, 9
_FLOATS = (_FLOAT32_TENSOR, _FLOAT64_TENSOR)

Array = numpy.ndarray


@dataclass(frozen=True)
class Tensor:
    """``values`` (n,); a sparse one has ``keys`` (n,), positions in the first dimension of ``shape``."""

    values: Array
    keys: Array | None = None
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Record:
    features: Mapping[str, Tensor]
    label: Mapping[str, Tensor]


def read_frames(data: bytes, name: str, first: int = 1) -> Iterator[bytes]:
    """The payloads in ``data``, whose first record is number ``first``. Raises `ClientError` for broken
    framing."""
    position, number = 0, first - 1
    pieces: list[bytes] = []
    view = memoryview(data)
    while position < len(data):
        place = f"{name}, record {number + 1}"
        if len(data) - position < 8:
            raise ClientError(f"{place}: the file ends within the record.")
        magic, word = struct.unpack_from("<II", data, position)
        length, flag = word & MAX_RECORD_BYTES, word >> 29
        if magic != MAGIC:
            raise ClientError(f"{place}: this is not RecordIO (its magic number is missing).")
        if position + 8 + length > len(data):
            raise ClientError(f"{place}: the file ends within the record.")
        payload = bytes(view[position + 8 : position + 8 + length])
        position += 8 + length + (-length % 4)
        if flag not in ((_MIDDLE, _LAST) if pieces else (_WHOLE, _FIRST)):
            raise ClientError(f"{place}: its pieces are not in order.")
        if flag == _WHOLE:
            yield payload
            number += 1
            continue
        pieces.append(payload)
        if flag == _LAST:
            # A record is cut where its payload has the magic number, which is left out.
            yield _MAGIC_BYTES.join(pieces)
            number += 1
            pieces = []
    if pieces:
        raise ClientError(f"{name}, record {number + 1}: the file ends within the record.")


def read_frames_of(blocks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The payloads of a stream. Raises `ClientError` for broken framing."""
    for first, piece in record_pieces(blocks):
        yield from read_frames(piece, name, first)


def record_pieces(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The stream in pieces of whole records, with the number of each one's first record, from 1.

    What is broken is left for the reader of the piece to complain of.
    """
    number = 1
    rest = bytearray()
    for block in blocks:
        rest += block
        end, count = _whole_records(rest)
        if end:
            with memoryview(rest) as view:
                piece = bytes(view[:end])
            del rest[:end]
            yield number, piece
            number += count
    if rest:
        yield number, bytes(rest)


def _whole_records(data: bytearray) -> tuple[int, int]:
    """Where the last whole record of ``data`` ends, and how many there are up to there."""
    if len(data) < 8:
        return 0, 0
    end, count = _uniform_records(data)
    position = end
    while position + 8 <= len(data):
        magic, word = struct.unpack_from("<II", data, position)
        if magic != MAGIC:
            return len(data), count
        length = word & MAX_RECORD_BYTES
        position += 8 + length + (-length % 4)
        if position > len(data):
            break
        if word >> 29 in (_WHOLE, _LAST):
            end, count = position, count + 1
    return end, count


def _uniform_records(data: bytearray) -> tuple[int, int]:
    """As `_whole_records`, as far as all records are as long as the first."""
    magic, length = struct.unpack_from("<II", data)
    if magic != MAGIC or length > MAX_RECORD_BYTES:
        return 0, 0
    size = 8 + length + (-length % 4)
    rows = numpy.frombuffer(data, numpy.uint8, len(data) // size * size).reshape(-1, size)[:, :8]
    others = numpy.flatnonzero((rows != rows[:1]).any(axis=1))
    count = int(others[0]) if others.size else len(rows)
    return count * size, count


def write_frame(payload: bytes) -> bytes:
    """One record. Raises ``ValueError`` for a payload beyond what the length word can say."""
    if len(payload) > MAX_RECORD_BYTES:
        raise ValueError(f"a record of {len(payload)} bytes is longer than {MAX_RECORD_BYTES}")
    return struct.pack("<II", MAGIC, len(payload)) + payload + b"\0" * (-len(payload) % 4)


def read_record(payload: bytes, place: str = "record") -> Record:
    """A Record message. Raises `ClientError` naming ``place`` if it is none."""
    features: dict[str, Tensor] = {}
    label: dict[str, Tensor] = {}
    try:
        for number, value in _fields(payload):
            if number in (1, 2) and isinstance(value, bytes):
                key, tensor = _entry(value)
                (features if number == 1 else label)[key] = tensor
    except (IndexError, OverflowError, ValueError) as error:
        raise ClientError(f"{place}: this is no Record message ({error}).") from None
    return Record(features, label)


def write_record(features: Mapping[str, Tensor], label: Mapping[str, Tensor]) -> bytes:
    """A Record message; float and integer values keep their kind."""
    pieces = []
    for number, tensors in ((1, features), (2, label)):
        for key, tensor in tensors.items():
            pieces.append(_field(number, _field(1, key.encode()) + _field(2, _field(*_packed(tensor)))))
    return b"".join(pieces)


def read_rows(data: bytes, name: str, first: int = 1) -> Iterator[Record]:
    """The records of a file, or of a piece of it that begins with record number ``first``.

    Raises `ClientError` naming ``name`` and the record.
    """
    for number, payload in enumerate(read_frames(data, name, first), first):
        yield read_record(payload, f"{name}, record {number}")


@dataclass(frozen=True)
class DenseRows:
    """What all records of a file have under the key ``values``: ``features`` (rows, columns), ``labels``
    (rows, labels) or ``None`` if they have none."""

    features: Array
    labels: Array | None


def read_dense(data: bytes, name: str, number: int = 1) -> DenseRows | None:
    """The rows of a file whose records all have the same layout, read at once; ``None`` for any other file.
    ``number`` is the first record's, where ``data`` is a piece of a file.

    Raises `ClientError` if the first record is broken.
    """
    first = next(read_frames(data, name, number), None)
    if first is None or set(_keys(read_record(first, f"{name}, record {number}"))) - {"values"}:
        return None
    size = 8 + len(first) + -len(first) % 4
    spans = list(_packed_spans(first, 8))
    if (
        len(data) % size
        or not spans
        or spans[0].field != 1
        or len({span.field for span in spans}) != len(spans)
    ):
        return None
    rows = numpy.frombuffer(data, numpy.uint8).reshape(-1, size)
    start = 0
    for span in (*spans, _Span(0, size, size, numpy.dtype("u1"))):
        if (rows[:, start : span.start] != rows[0, start : span.start]).any():
            return None
        start = span.end
    columns = {
        span.field: numpy.ascontiguousarray(rows[:, span.start : span.end]).view(span.kind) for span in spans
    }
    return DenseRows(columns[1], columns.get(2))


@dataclass(frozen=True)
class _Span:
    """Bytes ``start`` to ``end`` hold packed numbers of a feature (``field`` 1) or a label (2)."""

    field: int
    start: int
    end: int
    kind: numpy.dtype[Any]


def _keys(record: Record) -> Iterator[str]:
    yield from record.features
    yield from record.label


def _packed_spans(payload: bytes, offset: int) -> Iterator[_Span]:
    """Where a valid Record message keeps its dense numbers, if each tensor has one packed field of floats."""
    for field, start, end in _extents(payload, 0, len(payload)):
        if field not in (1, 2):
            continue  # a text may look like anything
        for part, value_start, value_end in _extents(payload, start, end):
            if part != 2:
                continue
            for kind, tensor_start, tensor_end in _extents(payload, value_start, value_end):
                if kind not in _FLOATS:
                    continue
                tensor = list(_extents(payload, tensor_start, tensor_end))
                if len(tensor) == 1 and tensor[0][0] == 1:
                    yield _Span(field, tensor[0][1] + offset, tensor[0][2] + offset, _TENSORS[kind])


def _packed(tensor: Tensor) -> tuple[int, bytes]:
    kind = _FLOAT64_TENSOR if tensor.values.dtype == numpy.float64 else _FLOAT32_TENSOR
    if tensor.values.dtype.kind in "iu":
        kind = _INT32_TENSOR
        packed = b"".join(_varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF) for value in tensor.values)
    else:
        packed = tensor.values.astype(_TENSORS[kind]).tobytes()
    message = _field(1, packed)
    if tensor.keys is not None:
        message += _field(2, b"".join(_varint(int(key)) for key in tensor.keys))
    if tensor.shape:
        message += _field(3, b"".join(_varint(size) for size in tensor.shape))
    return kind, message


def _entry(message: bytes) -> tuple[str, Tensor]:
    key, tensor = "", Tensor(numpy.zeros(0, numpy.float32))
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            key = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes):
            for kind, inner in _fields(value):
                if kind in _TENSORS and isinstance(inner, bytes):
                    tensor = _tensor(inner, kind)
                elif kind == _BYTES_VALUE:
                    raise ValueError("values are bytes, not numbers")
    return key, tensor


def _tensor(message: bytes, kind: int) -> Tensor:
    values: list[Array] = []
    keys: list[int] = []
    shape: list[int] = []
    for number, value in _fields(message):
        if number == 1:
            values.append(_numbers(value, kind))
        elif number == 2:
            keys += _varints(value) if isinstance(value, bytes) else [value]
        elif number == 3:
            shape += _varints(value) if isinstance(value, bytes) else [value]
    joined = numpy.concatenate(values) if values else numpy.zeros(0, _TENSORS[kind])
    if keys and len(keys) != len(joined):
        raise ValueError(f"{len(keys)} keys for {len(joined)} values")
    # Values without keys are dense, whatever shape is told; none at all are an empty sparse row.
    is_sparse = bool(keys) or (bool(shape) and not len(joined))
    return Tensor(joined, numpy.array(keys, numpy.int64) if is_sparse else None, tuple(shape))


def _numbers(value: bytes | int, kind: int) -> Array:
    if kind == _INT32_TENSOR:
        found = _varints(value) if isinstance(value, bytes) else [value]
        return numpy.array([_signed(number) for number in found], numpy.int32)
    if not isinstance(value, bytes):
        raise ValueError("numbers of the wrong wire type")
    numbers: Array = numpy.frombuffer(value, _TENSORS[kind])
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and content of each field of a message; a varint's content is its value."""
    position = 0
    while position < len(message):
        number, wire_type, start, position = _next_field(message, position, len(message))
        if wire_type == _VARINT:
            yield number, _read_varint(message, start)[0]
        else:
            yield number, message[start:position]


def _extents(message: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field with a length between ``position`` and ``end``."""
    while position < end:
        number, wire_type, start, position = _next_field(message, position, end)
        if wire_type == _BYTES:
            yield number, start, position


def _next_field(message: bytes, position: int, limit: int) -> tuple[int, int, int, int]:
    """Number, wire type, start and end of the content of the field at ``position``."""
    tag, start = _read_varint(message, position)
    number, wire_type = tag >> 3, tag & 7
    if wire_type == _VARINT:
        return number, wire_type, start, _read_varint(message, start)[1]
    if wire_type == _BYTES:
        length, start = _read_varint(message, start)
    elif wire_type in (_FIXED32, _FIXED64):
        length = 4 if wire_type == _FIXED32 else 8
    else:
        raise ValueError(f"wire type {wire_type}")
    if start + length > limit:
        raise ValueError("it ends too early")
    return number, wire_type, start, start + length


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varints(data: bytes) -> list[int]:
    found, position = [], 0
    while position < len(data):
        value, position = _read_varint(data, position)
        found.append(value)
    return found


def _varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(payload)) + payload


def write_uniform(features: Mapping[str, Array], labels: Mapping[str, Array]) -> bytes:
    """A file of a record a row, written at once; every array is (rows,) or (rows, numbers) of float32 or
    float64, and all have as many rows."""
    pieces: list[Array] = []
    for number, columns in ((1, features), (2, labels)):
        for key, column in columns.items():
            values = numpy.ascontiguousarray(column[:, None] if column.ndim == 1 else column)
            packed = numpy.frombuffer(values.tobytes(), numpy.uint8).reshape(len(values), -1)
            # All rows begin as a row of zeros does.
            sample = write_record({key: Tensor(values[0] * 0)}, {}) if len(values) else b""
            sample = _varint(number << 3 | _BYTES) + sample[1:]
            head = numpy.frombuffer(sample[: len(sample) - packed.shape[1]], numpy.uint8)
            pieces += [numpy.broadcast_to(head, (len(values), len(head))), packed]
    length = sum(piece.shape[1] for piece in pieces)
    rows = len(pieces[0])
    frame = numpy.frombuffer(struct.pack("<II", MAGIC, length), numpy.uint8)
    padding = numpy.zeros((rows, -length % 4), numpy.uint8)
    return numpy.hstack([numpy.broadcast_to(frame, (rows, 8)), *pieces, padding]).tobytes()


def score_records(rows: Sequence[Mapping[str, Array]]) -> bytes:
    """A reply: a record a row, results under label keys."""
    return b"".join(
        write_frame(write_record({}, {key: Tensor(numpy.atleast_1d(value)) for key, value in row.items()}))
        for row in rows
    )
