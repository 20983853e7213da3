"""LIBSVM text: ``label[:weight] [qid:n] index:value ...``, a row a line, indices as they stand.

A file is read in pieces of whole lines. A piece of plain rows goes through numpy's own parser; any other one
is read token by token, which also finds what to complain of.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy
import numpy.typing
from scipy.sparse import csr_matrix

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.csv import Lines, Matrix, line_pieces

HIGHEST_INDEX = 2**31 - 2
_LONGEST_SHOWN = 50
# What a row without a weight or a group has, in a file where others have one.
_WEIGHT, _GROUP = numpy.ones(1, numpy.float32), numpy.zeros(1, numpy.int64)
Column = TypeVar("Column", Matrix, Lines)
_SPACE = numpy.zeros(256, bool)
_SPACE[[9, 10, 11, 12, 13, 32]] = True
_COLON_TO_SPACE = bytes.maketrans(b":\n\r\t\v\f", b"      ")
_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|inf|infinity|nan)\Z", re.IGNORECASE
)


@dataclass(frozen=True)
class LibsvmRows:
    """``features`` is sparse, (rows, highest index + 1); the others are (rows,), ``lines`` from 1.

    ``weights`` and ``groups`` (``qid``) are ``None`` where no row has one.
    """

    features: csr_matrix
    labels: Matrix
    lines: Lines
    weights: Matrix | None = None
    groups: Lines | None = None


@dataclass(frozen=True)
class _Part:
    """``starts`` (rows + 1,) says where each row's entries begin in ``indices`` and ``values``."""

    labels: Matrix
    starts: Lines
    indices: Lines
    values: Matrix
    lines: Lines
    weights: Matrix | None = None
    groups: Lines | None = None


def read_libsvm(data: bytes, name: str, *, label_optional: bool = False) -> LibsvmRows:
    """All rows of ``data``. With ``label_optional`` a row may lack its label (NaN then).

    Raises `ClientError` naming ``name``, line and column (of the token) of what cannot be read.
    """
    return read_libsvm_pieces(line_pieces(data), name, label_optional=label_optional)


def read_libsvm_pieces(
    pieces: Iterable[tuple[int, bytes]], name: str, *, label_optional: bool = False
) -> LibsvmRows:
    """All rows of the pieces of a text; see `line_pieces`. Raises as `read_libsvm` does."""
    parts = []
    with numpy.errstate(over="ignore"):  # what 32 bits cannot hold is infinite
        for first_line, piece in pieces:
            part = None if label_optional else _read_plain(piece, first_line)
            part = part or _read_carefully(piece, name, first_line, label_optional)
            if len(part.labels):
                parts.append(part)
    if not parts:
        raise ClientError(f"{name}: the file holds no rows.")
    counts = numpy.concatenate([numpy.diff(part.starts) for part in parts])
    lengths = [len(part.labels) for part in parts]
    indices = numpy.concatenate([part.indices for part in parts])
    features = csr_matrix(
        (
            numpy.concatenate([part.values for part in parts]),
            indices.astype(numpy.int32),
            numpy.concatenate([[0], numpy.cumsum(counts)]),
        ),
        shape=(len(counts), int(indices.max(initial=-1)) + 1),
    )
    return LibsvmRows(
        features,
        numpy.concatenate([part.labels for part in parts]),
        numpy.concatenate([part.lines for part in parts]),
        _optional([part.weights for part in parts], lengths, _WEIGHT),
        _optional([part.groups for part in parts], lengths, _GROUP),
    )


def _optional(columns: Sequence[Column | None], lengths: Sequence[int], default: Column) -> Column | None:
    """The parts of a column one after the other, ``default`` where a part has none; ``None`` if none has."""
    if all(column is None for column in columns):
        return None
    return numpy.concatenate(
        [
            numpy.repeat(default, length) if column is None else column
            for column, length in zip(columns, lengths, strict=True)
        ]
    )


def _read_plain(data: bytes, first_line: int) -> _Part | None:
    """The rows of a piece with nothing but ``label index:value ...``; ``None`` for any other piece."""
    if b"#" in data or b"q" in data:
        return None
    characters = numpy.frombuffer(data, numpy.uint8)
    space = _SPACE[characters]
    starts = numpy.flatnonzero(~space & numpy.concatenate([[True], space[:-1]]))
    if not len(starts):
        return None
    line_of_token = numpy.searchsorted(numpy.flatnonzero(characters == ord("\n")), starts)
    is_label = numpy.diff(line_of_token, prepend=-1) != 0
    colons = numpy.flatnonzero(characters == ord(":"))
    of_colons = numpy.searchsorted(starts, colons, "right") - 1
    if not numpy.array_equal(of_colons, numpy.flatnonzero(~is_label)):
        return None  # every token but the labels must have one colon
    if colons.size and (colons[-1] + 1 == len(data) or space[colons - 1].any() or space[colons + 1].any()):
        return None  # with something on either side
    with warnings.catch_warnings():
        # What older numpys cannot read, they read up to, and warn: the count tells.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            numbers = numpy.fromstring(
                data.translate(_COLON_TO_SPACE).decode("ascii"), numpy.float64, sep=" "
            )
        except (ValueError, UnicodeDecodeError):
            return None
    if numbers.size != len(starts) + len(colons):
        return None
    offsets = numpy.cumsum(numpy.where(is_label, 1, 2)) - numpy.where(is_label, 1, 2)
    indices = numbers[offsets[~is_label]]
    if not ((indices >= 0) & (indices <= HIGHEST_INDEX) & (indices == numpy.floor(indices))).all():
        return None
    labels = numpy.flatnonzero(is_label)
    entries_before = numpy.append(labels, len(starts)) - numpy.arange(len(labels) + 1)
    return _Part(
        labels=numbers[offsets[is_label]].astype(numpy.float32),
        starts=entries_before,
        indices=indices.astype(numpy.int64),
        values=numbers[offsets[~is_label] + 1].astype(numpy.float32),
        lines=first_line + line_of_token[is_label],
    )


class _NotThis(Exception):
    """A token is not what must stand in its place; the message says what must."""


def _read_carefully(data: bytes, name: str, first_line: int, label_optional: bool) -> _Part:
    labels: list[float] = []
    weights: list[float | None] = []
    groups: list[int | None] = []
    lines: list[int] = []
    indices: list[int] = []
    values: list[float] = []
    starts = [0]
    for line, text in enumerate(data.decode("utf-8", "replace").split("\n"), first_line):
        tokens = text.split("#", 1)[0].split()
        if not tokens:
            continue
        label, weight, group = numpy.nan, None, None
        for column, token in enumerate(tokens, 1):
            before, colon, after = token.partition(":")
            try:
                if column == 1 and not (label_optional and colon):
                    label = _number(before, "a label")
                    weight = _number(after, "label:weight") if colon else None
                elif before == "qid" and colon:
                    group = _whole(after, "qid:number")
                else:
                    indices.append(_whole(before, "index:value"))
                    values.append(_number(after, "index:value"))
            except _NotThis as must:
                place = f"{name}, line {line}, column {column}"
                raise ClientError(f"{place}: '{token[:_LONGEST_SHOWN]}' is not {must}.") from None
        labels.append(label)
        weights.append(weight)
        groups.append(group)
        lines.append(line)
        starts.append(len(indices))
    return _Part(
        labels=numpy.array(labels, numpy.float32),
        starts=numpy.array(starts, numpy.int64),
        indices=numpy.array(indices, numpy.int64),
        values=numpy.array(values, numpy.float32),
        lines=numpy.array(lines, numpy.int64),
        weights=_column(weights, _WEIGHT),
        groups=_column(groups, _GROUP),
    )


def _column(found: Sequence[float | None], default: Column) -> Column | None:
    if all(each is None for each in found):
        return None
    return numpy.array([default[0] if each is None else each for each in found], default.dtype)


def _number(text: str, what: str) -> float:
    if not _NUMBER.match(text):
        raise _NotThis(what)
    return float(text)


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > HIGHEST_INDEX:
        raise _NotThis(f"{what} with a whole number up to {HIGHEST_INDEX}")
    return int(text)
