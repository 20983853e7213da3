"""CSV of numbers: quickly where a file is plain, and with line and column where something is wrong.

A file is read in pieces of whole lines. A piece goes through numpy's own parser; only a piece that this
cannot read (quotes, blank lines, mistakes) is read field by field, which also finds what to complain of.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy
import numpy.typing

from clary.algorithms.faults import ClientError

Matrix = numpy.typing.NDArray[numpy.float32]
Lines = numpy.typing.NDArray[numpy.int64]

PIECE_BYTES = 16 * 1024 * 1024
_LONGEST_SHOWN = 50
_DELIMITERS = (",", "\t", ";", "|")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NUMBER = re.compile(
    r"\s*[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|inf|infinity|nan)\s*\Z",
    re.IGNORECASE | re.ASCII,  # what `float` takes for blank, and not the separators of files and records
)


@dataclass(frozen=True)
class CsvRows:
    """``values`` is (rows, columns), an empty field NaN; ``lines`` (rows,) tells each row's line, from 1."""

    values: Matrix
    lines: Lines


def sniff_delimiter(data: bytes) -> str:
    """The delimiter that the first line with anything on it uses most; a comma if it uses none."""
    first = data.lstrip(b"\r\n").split(b"\n", 1)[0]
    return max(_DELIMITERS, key=lambda delimiter: first.count(delimiter.encode()))


def read_csv(data: bytes, name: str) -> CsvRows:
    """All rows of ``data``.

    Raises `ClientError` naming ``name``, line and column for a field that is no number, a row of another
    length, a header, an empty file, or text that is not UTF-8.
    """
    parts = list(read_csv_pieces(line_pieces(data), name))
    if not parts:
        raise ClientError(f"{name}: the file holds no rows.")
    if len(parts) == 1:
        return parts[0]
    return CsvRows(
        numpy.concatenate([part.values for part in parts]), numpy.concatenate([part.lines for part in parts])
    )


def read_csv_pieces(pieces: Iterable[tuple[int, bytes]], name: str) -> Iterator[CsvRows]:
    """The rows of each piece of a text; see `line_pieces`. Raises `ClientError` as `read_csv` does, except
    for a text without rows."""
    delimiter, columns = "", None
    for first_line, piece in pieces:
        if first_line == 1:
            piece = piece.removeprefix(_BYTE_ORDER_MARK)
        delimiter = delimiter or (sniff_delimiter(piece) if piece.strip() else "")
        if not delimiter:
            continue
        part = _read_plain(piece, delimiter, first_line)
        if part is None or columns not in (None, part.values.shape[1]):
            part = _read_carefully(piece, delimiter, name, first_line, columns)
        if part is not None:
            columns = part.values.shape[1]
            yield part


def line_pieces_of(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """As `line_pieces`, of a stream: what a block has after its last line's end goes with the next."""
    line = 1
    rest: list[bytes] = []
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if not end:
            rest.append(block)
            continue
        whole = block if not rest and end == len(block) else b"".join((*rest, block[:end]))
        for first, piece in line_pieces(whole):
            yield line + first - 1, piece
        line += whole.count(b"\n")
        rest = [block[end:]] if end < len(block) else []
    if rest:
        yield line, b"".join(rest)


def line_pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Pieces of whole lines, with the number of each one's first line."""
    start, line = 0, 1
    while start < len(data):
        end = len(data)
        if end - start > PIECE_BYTES:
            end = data.rfind(b"\n", start, start + PIECE_BYTES) + 1
            end = end or (data.find(b"\n", start) + 1) or len(data)
        piece = data[start:end]
        yield line, piece
        line += piece.count(b"\n")
        start = end


def _read_plain(data: bytes, delimiter: str, first_line: int) -> CsvRows | None:
    """The rows of a piece of plain numbers; ``None`` for any other piece."""
    separator = delimiter.encode()
    text = data.replace(b"\r\n", b"\n") if b"\r" in data else data
    text = text.removesuffix(b"\n")
    if b"\n" in text:
        columns = _columns(text, separator)
        if columns is None:
            return None
        text = text.replace(b"\n", separator)
    else:
        columns = text.count(separator) + 1
    values = _numbers(text, separator)
    if values is None or not values.size or values.size % columns:
        return None
    rows = values.size // columns
    return CsvRows(values.reshape(rows, columns), numpy.arange(first_line, first_line + rows))


def _columns(text: bytes, separator: bytes) -> int | None:
    """How many fields each line has; ``None`` if they differ or a line is blank."""
    characters = numpy.frombuffer(text, numpy.uint8)
    ends = numpy.append(numpy.flatnonzero(characters == ord("\n")), len(text))
    if (numpy.diff(ends) == 1).any():
        return None
    separators = numpy.flatnonzero(characters == separator[0])
    each = numpy.diff(numpy.searchsorted(separators, ends), prepend=0)
    return int(each[0]) + 1 if (each == each[0]).all() else None


def _numbers(text: bytes, separator: bytes) -> Matrix | None:
    """The numbers in ``text``, an empty field NaN; ``None`` if it holds anything else."""
    if separator * 2 in text:
        # Twice, because neighbours share a separator: ",,," is two empty fields.
        filled = separator + b"nan" + separator
        text = text.replace(separator * 2, filled).replace(separator * 2, filled)
    if text.startswith(separator):
        text = b"nan" + text
    if text.endswith(separator):
        text += b"nan"
    with warnings.catch_warnings():
        # What older numpys cannot read, they read up to, and warn: the count tells.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            values = numpy.fromstring(text.decode("ascii"), numpy.float32, sep=separator.decode())
        except (ValueError, UnicodeDecodeError):
            return None
    return values if values.size == text.count(separator) + 1 else None


def _read_carefully(
    data: bytes, delimiter: str, name: str, first_line: int, columns: int | None
) -> CsvRows | None:
    """The rows of any piece, ``None`` if it has none; ``columns`` is how many the rows before have."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + data[: error.start].count(b"\n")
        raise ClientError(f"{name}, line {line}: the file is not UTF-8 text.") from None
    rows: list[list[float]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = first_line
    try:
        for fields in reader:
            if fields and (len(fields) > 1 or fields[0].strip()):
                is_first = columns is None and not rows
                values = _row(fields, f"{name}, line {line}", may_be_header=is_first)
                columns = columns or len(values)
                if len(values) != columns:
                    raise ClientError(
                        f"{name}, line {line}: {len(values)} columns, but the lines before have {columns}."
                    )
                rows.append(values)
                lines.append(line)
            line = first_line + reader.line_num
    except csv.Error as error:
        raise ClientError(f"{name}, line {line}: {error}.") from None
    if not rows:
        return None
    with numpy.errstate(over="ignore"):  # what 32 bits cannot hold is infinite
        return CsvRows(numpy.array(rows, numpy.float32), numpy.array(lines, numpy.int64))


def _row(fields: list[str], place: str, *, may_be_header: bool) -> list[float]:
    values = []
    for column, field in enumerate(fields, 1):
        if not field.strip():
            values.append(numpy.nan)
        elif _NUMBER.match(field):
            values.append(float(field))
        else:
            hint = ""
            if may_be_header and not any(_NUMBER.match(each) for each in fields):
                hint = " The first line looks like a header: a file must not have one."
            raise ClientError(f"{place}, column {column}: '{field[:_LONGEST_SHOWN]}' is not a number.{hint}")
    return values
