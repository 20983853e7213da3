"""Parquet: columns of numbers, a piece of rows at a time, from a file or from several in one stream."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.csv import Matrix
from clary.algorithms.formats.streams import Stream

ROWS_AT_ONCE = 65_536
_MAGIC = b"PAR1"
_SEAM = _MAGIC + _MAGIC
_TAIL_BYTES = 12  # of a file: the footer's length and the magic, and the magic at its beginning


def read_parquet(stream: Stream) -> Iterator[tuple[str, int, Matrix]]:
    """Pieces of rows: the name of the file, the number of the piece's first row (from 1), and its values,
    (rows, columns), what is null NaN.

    Raises `ClientError` naming the file and the column that holds no numbers.
    """
    if stream.path is not None:
        yield from _rows(str(stream.path), stream.name)
        return
    for number, data in enumerate(split_files(stream.blocks(), stream.name), 1):
        yield from _rows(_library(stream.name).BufferReader(data), f"{stream.name}, object {number}")


def split_files(blocks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The files in a stream of whole parquet files, each of which begins and ends with the magic number."""
    data = bytearray()
    looked = 0
    for block in blocks:
        data += block
        while (seam := data.find(_SEAM, looked)) >= 0:
            end = seam + len(_MAGIC)
            # Within a file the two may stand beside one another by chance: there they follow no footer.
            if _is_file(data, end, name):
                yield bytes(memoryview(data)[:end])
                del data[:end]
                looked = 0
            else:
                looked = seam + 1
        looked = max(looked, len(data) - len(_SEAM) + 1, 0)
    if data:
        yield bytes(data)


def _is_file(data: bytearray, end: int, name: str) -> bool:
    if end < _TAIL_BYTES or not data.startswith(_MAGIC):
        return False
    (length,) = struct.unpack_from("<I", data, end - 8)
    if length > end - _TAIL_BYTES:
        return False
    library = _library(name)
    try:
        library.parquet.read_metadata(library.BufferReader(bytes(memoryview(data)[:end])))
    except (library.ArrowException, OSError):
        return False
    return True


def _rows(source: Any, name: str) -> Iterator[tuple[str, int, Matrix]]:
    library = _library(name)
    first = 1
    try:
        with library.parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                columns = [
                    _numbers(column, name, title)
                    for column, title in zip(batch.columns, batch.schema.names, strict=True)
                ]
                if columns:
                    yield name, first, numpy.column_stack(columns)
                    first += len(columns[0])
    except (library.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ClientError(f"{name}: {error}") from None


def _numbers(column: Any, name: str, title: str) -> Matrix:
    try:
        numbers: Matrix = column.to_numpy(zero_copy_only=False).astype(numpy.float32)
    except (ValueError, TypeError) as error:
        raise ClientError(f"{name}, column '{title}': {column.type} is not a number ({error}).") from None
    return numbers


def _library(name: str) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ClientError(
            f"{name}: reading parquet needs pyarrow, which is not installed: pip install 'clary[parquet]'."
        ) from None
    return pyarrow
