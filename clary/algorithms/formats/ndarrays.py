"""MXNet's file of arrays (``mx.nd.save``), in which SageMaker keeps the parameters of its own algorithms.

A list: magic, how many arrays, the arrays, how many names, the names (none, or one an array). All numbers are
little endian. Written is the layout that every MXNet since 1.0 reads; read are the older ones too, also
inside a zip, as early algorithms wrapped it.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

_LIST_MAGIC = 0x112
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # of one array, oldest first
_DENSE, _CPU = 0, 1
_TYPES: Mapping[int, numpy.dtype[Any]] = {
    0: numpy.dtype("<f4"),
    1: numpy.dtype("<f8"),
    2: numpy.dtype("<f2"),
    3: numpy.dtype("u1"),
    4: numpy.dtype("<i4"),
    5: numpy.dtype("i1"),
    6: numpy.dtype("<i8"),
}
_MOST_ARRAYS = 10_000
_MOST_DIMENSIONS = 32
_LARGEST_UNPACKED_BYTES = 1 << 32

Array = numpy.ndarray


def write_arrays(arrays: Mapping[str, Array] | Sequence[Array]) -> bytes:
    """A file of named arrays, or of arrays without names."""
    names = list(arrays) if isinstance(arrays, Mapping) else []
    values = list(arrays.values()) if isinstance(arrays, Mapping) else list(arrays)
    pieces = [struct.pack("<QQQ", _LIST_MAGIC, 0, len(values)), *map(_written, values)]
    pieces.append(struct.pack("<Q", len(names)))
    pieces += [struct.pack("<Q", len(name.encode())) + name.encode() for name in names]
    return b"".join(pieces)


def read_arrays(data: bytes) -> Mapping[str, Array]:
    """The arrays of a file, by name; those without a name by their number, "0" the first.

    Raises ``ValueError`` saying why ``data`` is no such file.
    """
    if data[:4] == b"PK\x03\x04":
        data = _unzipped(data)
    reader = _Reader(data)
    magic, _, count = reader.numbers("<QQQ")
    if magic != _LIST_MAGIC:
        raise ValueError("it does not begin as MXNet's files of arrays do")
    if count > _MOST_ARRAYS:
        raise ValueError(f"it claims to hold {count} arrays")
    arrays = [reader.array() for _ in range(count)]
    (named,) = reader.numbers("<Q")
    if named not in (0, count):
        raise ValueError(f"it has {named} names for {count} arrays")
    names = [reader.text() for _ in range(named)] or [str(number) for number in range(count)]
    return dict(zip(names, arrays, strict=True))


def read_array_file(path: Path) -> Mapping[str, Array]:
    """Raises ``ValueError`` and ``OSError``."""
    return read_arrays(path.read_bytes())


def _written(array: Array) -> bytes:
    kind = next((kind for kind, dtype in _TYPES.items() if dtype == array.dtype), None)
    if kind is None or not array.ndim:
        raise ValueError(f"an array of {array.ndim} dimensions of {array.dtype} cannot be written")
    return (
        struct.pack("<IiI", _V2, _DENSE, array.ndim)
        + struct.pack(f"<{array.ndim}q", *array.shape)
        + struct.pack("<iii", _CPU, 0, kind)
        + numpy.ascontiguousarray(array).tobytes()
    )


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def bytes(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise ValueError("it ends too early")
        found = self._data[self._position : end]
        self._position = end
        return found

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def text(self) -> str:
        (size,) = self.numbers("<Q")
        return self.bytes(size).decode("utf-8")  # a UnicodeDecodeError is a ValueError

    def array(self) -> Array:
        (magic,) = self.numbers("<I")
        if magic in (_V2, _V3):
            (storage,) = self.numbers("<i")
            if storage != _DENSE:
                raise ValueError("it holds a sparse array")
        if magic in (_V1, _V2, _V3):
            (dimensions,) = self.numbers("<I")
            form = "q"
        else:
            dimensions, form = magic, "I"  # the first layout has no magic number
        if not 0 < dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"it holds an array of {dimensions} dimensions")
        shape = self.numbers(f"<{dimensions}{form}")
        _, _, kind = self.numbers("<iii")
        if kind not in _TYPES or min(shape) < 0:
            raise ValueError(f"it holds an array of shape {shape} and type {kind}")
        content = self.bytes(math.prod(shape) * _TYPES[kind].itemsize)
        return numpy.frombuffer(content, _TYPES[kind]).reshape(shape)


def _unzipped(data: bytes) -> bytes:
    """The only array file in a zip. Raises ``ValueError``."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.file_size > _LARGEST_UNPACKED_BYTES:
                    raise ValueError(f"{entry.filename} in it has {entry.file_size} bytes")
                content = archive.read(entry)
                if content[:8] == struct.pack("<Q", _LIST_MAGIC):
                    return content
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"it is a zip that cannot be read ({error})") from None
    raise ValueError("it is a zip without a file of arrays")
