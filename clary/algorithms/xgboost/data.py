"""A channel's files as rows, and rows as an ``xgboost.DMatrix``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import xgboost
from scipy.sparse import csr_matrix, vstack

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.content_type import (
    CSV,
    LIBSVM,
    PARQUET,
    RECORDIO,
    label_size,
    parse_content_type,
)
from clary.algorithms.formats.csv import Lines, Matrix, line_pieces_of, read_csv_pieces
from clary.algorithms.formats.libsvm import read_libsvm_pieces
from clary.algorithms.formats.parquet import read_parquet
from clary.algorithms.formats.recordio import Record, Tensor, read_dense, read_rows, record_pieces
from clary.algorithms.formats.streams import NoData, Stream, channel_streams, is_piped
from clary.algorithms.job import Job
from clary.algorithms.xgboost.library import library_message

# The image of this version, and those after it, refuse Pipe mode.
_FIRST_WITHOUT_PIPE = 3

Features = Any  # a dense (rows, columns) float32 array, or a csr_matrix


@dataclass(frozen=True)
class Rows:
    """``features`` (rows, columns), dense or sparse; the others are (rows,), or ``None``.

    ``groups`` are LIBSVM's query ids. ``places`` names where parts of the rows come from, for messages.
    """

    features: Features
    labels: Matrix
    weights: Matrix | None = None
    groups: Lines | None = None
    places: Sequence[_Place] = ()

    def place(self, row: int) -> str:
        """``train.csv, line 7``, where row number ``row`` (from 0) was read."""
        for place in self.places:
            if row < len(place.lines):
                return f"{place.name}, {place.what} {place.lines[row]}"
            row -= len(place.lines)
        return f"row {row + 1}"


@dataclass(frozen=True)
class _Place:
    name: str
    what: str
    lines: Lines


def read_channel(job: Job, channel: str, *, csv_weights: bool) -> Rows:
    """All rows of a channel of the job, in whatever input mode.

    Raises `ClientError` naming file and place of what will not do, `NoData` if there is nothing at all, and
    `NothingTrained` if the job is told to stop meanwhile.
    """
    content_type = job.input_config[channel].get("ContentType") or LIBSVM
    media, parameters = parse_content_type(content_type)
    if media == CSV and label_size(parameters, 1) != 1:
        raise ClientError(
            f"The content type '{content_type}' will not do: label_size must be 1, "
            "with the label in the first column."
        )
    reader = {CSV: _csv, LIBSVM: _libsvm, PARQUET: _parquet, RECORDIO: _recordio}.get(media)
    if reader is None:
        raise ClientError(
            f"The content type '{content_type}' of channel '{channel}' is not one of {CSV}, {LIBSVM}, "
            f"{PARQUET}, {RECORDIO}."
        )
    if is_piped(job, channel):
        _check_piped(job, channel, media)
    parts = []
    for stream in channel_streams(job, channel):
        for part in reader(stream, csv_weights):
            _check_labels(part)
            parts.append(part)
    if not parts:
        raise NoData(f"The files of channel '{channel}' are empty.")
    return join(parts)


def _check_piped(job: Job, channel: str, media: str) -> None:
    major = job.version.partition(".")[0]
    if major.isdecimal() and int(major) >= _FIRST_WITHOUT_PIPE:
        raise ClientError(
            f"Pipe mode is not supported by version {job.version} (channel '{channel}'); "
            "use File or FastFile."
        )
    if media == LIBSVM:
        raise ClientError(
            f"Pipe mode is not supported for {LIBSVM} (channel '{channel}'); "
            "use File or FastFile, or another content type."
        )


def to_dmatrix(rows: Rows, threads: int) -> Any:
    """Raises `ClientError` for what the library does not take."""
    try:
        return xgboost.DMatrix(
            rows.features, rows.labels, weight=rows.weights, qid=rows.groups, nthread=threads
        )
    except (ValueError, xgboost.core.XGBoostError) as error:
        raise ClientError(library_message(error)) from error


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of all ``parts``, one after the other. Raises `ClientError` if their columns differ."""
    if len(parts) == 1:
        return parts[0]
    sparse = [part.features for part in parts if isinstance(part.features, csr_matrix)]
    first = next((part for part in parts if not isinstance(part.features, csr_matrix)), None)
    width = max(part.features.shape[1] for part in parts)
    if first is not None:
        for part in parts:
            more = part.features.shape[1] - first.features.shape[1]
            # Sparse rows may lack columns.
            if more > 0 or (more and not isinstance(part.features, csr_matrix)):
                raise ClientError(
                    f"{part.places[0].name} has {part.features.shape[1]} feature columns, but "
                    f"{first.places[0].name} has {first.features.shape[1]}."
                )
    if not sparse:
        features = numpy.concatenate([part.features for part in parts])
    else:
        features = vstack([_as_sparse(part.features, width) for part in parts], format="csr")
    weighted = any(part.weights is not None for part in parts)
    grouped = any(part.groups is not None for part in parts)
    if grouped and not all(part.groups is not None for part in parts):
        raise ClientError("Some files have query ids (qid:) and others have none.")
    return Rows(
        features,
        numpy.concatenate([part.labels for part in parts]),
        numpy.concatenate(
            [numpy.ones(len(part.labels), numpy.float32) if part.weights is None else part.weights
             for part in parts]
        ) if weighted else None,
        numpy.concatenate([part.groups for part in parts if part.groups is not None]) if grouped else None,
        [place for part in parts for place in part.places],
    )  # fmt: skip


def _as_sparse(features: Features, width: int) -> csr_matrix:
    """``features`` with every entry that it has: a zero is not a missing value."""
    if isinstance(features, csr_matrix):
        features.resize(features.shape[0], width)
        return features
    rows = features.shape[0]
    indices = numpy.tile(numpy.arange(width, dtype=numpy.int32), rows)
    return csr_matrix((features.reshape(-1), indices, numpy.arange(rows + 1) * width), (rows, width))


def _check_labels(rows: Rows) -> None:
    wrong = numpy.flatnonzero(~numpy.isfinite(rows.labels))
    if wrong.size:
        value = "missing or NaN" if numpy.isnan(rows.labels[wrong[0]]) else "infinite"
        raise ClientError(f"{rows.place(int(wrong[0]))}: the label is {value}.")
    if rows.weights is not None:
        wrong = numpy.flatnonzero(~(numpy.isfinite(rows.weights) & (rows.weights >= 0)))
        if wrong.size:
            raise ClientError(f"{rows.place(int(wrong[0]))}: a weight must be a number of at least 0.")


def _csv(stream: Stream, csv_weights: bool) -> Iterator[Rows]:
    name = stream.name
    first = 2 if csv_weights else 1
    for rows in read_csv_pieces(line_pieces_of(stream.blocks()), name):
        if rows.values.shape[1] <= first:
            raise ClientError(
                f"{name}: {rows.values.shape[1]} column(s), but there must be a label"
                f"{', a weight' if csv_weights else ''} and at least one feature."
            )
        yield Rows(
            rows.values[:, first:],
            rows.values[:, 0],
            rows.values[:, 1] if csv_weights else None,
            places=[_Place(name, "line", rows.lines)],
        )


def _libsvm(stream: Stream, csv_weights: bool) -> Iterator[Rows]:
    name = stream.name
    pieces = line_pieces_of(stream.blocks())
    first = next((piece for piece in pieces if piece[1].strip()), None)
    if first is not None:
        rows = read_libsvm_pieces(itertools.chain([first], pieces), name)
        yield Rows(rows.features, rows.labels, rows.weights, rows.groups, [_Place(name, "line", rows.lines)])


def _recordio(stream: Stream, csv_weights: bool) -> Iterator[Rows]:
    name = stream.name
    for number, data in record_pieces(stream.blocks()):
        dense = read_dense(data, name, number)
        if dense is not None and dense.labels is not None and dense.labels.shape[1]:
            features = dense.features.astype(numpy.float32, copy=False)
            labels = dense.labels[:, 0].astype(numpy.float32)
        else:
            records = list(read_rows(data, name, number))
            labels = numpy.array(list(_labels(records, name, number)), numpy.float32)
            features = record_features(records, name, number)
        yield Rows(
            features,
            labels,
            places=[_Place(name, "record", numpy.arange(number, number + len(labels)))],
        )


def _labels(records: Sequence[Record], name: str, first: int) -> Iterator[float]:
    for number, record in enumerate(records, first):
        label = record.label.get("values")
        if label is None or not len(label.values):
            raise ClientError(f"{name}, record {number}: the record has no label named 'values'.")
        yield float(label.values[0])


def record_features(records: Sequence[Record], name: str, first: int = 1) -> Features:
    """The features keyed ``values`` of ``records``: dense if all are, else sparse.

    Raises `ClientError` naming the record; ``first`` is the first one's number.
    """
    tensors = list(_tensors(records, name, first))
    if all(tensor.keys is None for tensor in tensors):
        widths = {len(tensor.values) for tensor in tensors}
        if len(widths) > 1:
            raise ClientError(f"{name}: records of different lengths: {sorted(widths)}.")
        return numpy.stack([tensor.values for tensor in tensors]).astype(numpy.float32)
    widest = max(tensor.shape[0] if tensor.shape else len(tensor.values) for tensor in tensors)
    if widest >= 2**31:
        raise ClientError(f"{name}: a record's shape of {widest} is too large.")
    indices, values, starts = [], [], [0]
    for number, tensor in enumerate(tensors, first):
        keys = tensor.keys if tensor.keys is not None else numpy.arange(len(tensor.values))
        if len(keys) and int(keys.max()) >= widest:
            raise ClientError(f"{name}, record {number}: the key {keys.max()} is beyond the shape {widest}.")
        indices.append(keys)
        values.append(tensor.values)
        starts.append(starts[-1] + len(keys))
    return csr_matrix(
        (numpy.concatenate(values).astype(numpy.float32), numpy.concatenate(indices), numpy.array(starts)),
        shape=(len(tensors), widest),
    )


def _tensors(records: Sequence[Record], name: str, first: int) -> Iterator[Tensor]:
    for number, record in enumerate(records, first):
        if "values" not in record.features:
            raise ClientError(f"{name}, record {number}: the record has no feature named 'values'.")
        yield record.features["values"]


def _parquet(stream: Stream, csv_weights: bool) -> Iterator[Rows]:
    for name, first, values in read_parquet(stream):
        if values.shape[1] < 2:
            raise ClientError(
                f"{name}: {values.shape[1]} column(s), but there must be a label and at least one feature."
            )
        places = [_Place(name, "row", numpy.arange(first, first + len(values)))]
        yield Rows(values[:, 1:], values[:, 0], places=places)
