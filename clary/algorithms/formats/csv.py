"""CSV of numbers: quickly where a file is plain, and with line and column where something is wrong."""

from __future__ import annotations

import csv
import io
import warnings

import numpy
import numpy.typing

from clary.algorithms.faults import ClientError

Matrix = numpy.typing.NDArray[numpy.float32]
_DELIMITERS = (",", "\t", ";")


def sniff_delimiter(data: bytes) -> str:
    """The delimiter that the first line uses most; a comma if it uses none."""
    first = data.split(b"\n", 1)[0]
    return max(_DELIMITERS, key=lambda delimiter: first.count(delimiter.encode()))


def read_csv(data: bytes, name: str) -> Matrix:
    """The rows of ``data``, shape (rows, columns); an empty field is NaN.

    Raises `ClientError` naming ``name``, line and column for a field that is no number, a row of another
    length, or text that is not UTF-8.
    """
    delimiter = sniff_delimiter(data)
    fast = _read_plain(data, delimiter)
    return _read_carefully(data, delimiter, name) if fast is None else fast


def _read_plain(data: bytes, delimiter: str) -> Matrix | None:
    """The rows of a file without empty fields, quotes or errors; ``None`` for any other file."""
    text = data if data.endswith(b"\n") else data + b"\n"
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    characters = numpy.frombuffer(text, numpy.uint8)
    newlines = numpy.flatnonzero(characters == ord("\n"))
    delimiters = numpy.flatnonzero(characters == ord(delimiter))
    per_line = numpy.diff(numpy.searchsorted(delimiters, newlines), prepend=0)
    columns = int(per_line[0]) + 1
    if (per_line != columns - 1).any():
        return None
    with warnings.catch_warnings():
        # What it cannot read, it reads up to, and warns: the count tells.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            values = numpy.fromstring(
                text[:-1].replace(b"\n", delimiter.encode()).decode("ascii"), numpy.float64, sep=delimiter
            )
        except (ValueError, UnicodeDecodeError):
            return None
    if values.size != columns * len(newlines):
        return None
    return values.reshape(len(newlines), columns).astype(numpy.float32)


def _read_carefully(data: bytes, delimiter: str, name: str) -> Matrix:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ClientError(f"{name}, line {line}: the file is not UTF-8 text.") from None
    rows: list[list[float]] = []
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        for fields in reader:
            if not fields or (len(fields) == 1 and not fields[0].strip()):
                continue
            values = []
            for column, field in enumerate(fields, 1):
                try:
                    values.append(float(field) if field.strip() else numpy.nan)
                except ValueError:
                    hint = (
                        " The first line looks like a header: files must not have one."
                        if not rows and not any(_is_number(each) for each in fields)
                        else ""
                    )
                    place = f"{name}, line {reader.line_num}, column {column}"
                    raise ClientError(f"{place}: '{field[:50]}' is not a number.{hint}") from None
            if rows and len(values) != len(rows[0]):
                raise ClientError(
                    f"{name}, line {reader.line_num}: {len(values)} columns, but the lines before have "
                    f"{len(rows[0])}."
                )
            rows.append(values)
    except csv.Error as error:
        raise ClientError(f"{name}, line {reader.line_num}: {error}.") from None
    if not rows:
        raise ClientError(f"{name}: the file holds no rows.")
    return numpy.array(rows, numpy.float32)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True
