"""A channel's files as rows, and rows as an ``xgboost.DMatrix``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from clary.algorithms.formats.csv import Lines, Matrix, read_csv
from clary.algorithms.formats.libsvm import read_libsvm
from clary.algorithms.formats.recordio import Record, Tensor, read_dense, read_rows
from clary.algorithms.xgboost.library import library_message

DEEPEST_FOLDER = 3


class NoRows(ClientError):
    """A channel has no data, which is no fault of a host among several."""


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


def data_files(folder: Path) -> list[Path]:
    """Files to depth 3, in name order; those whose name begins with ``.`` or ``_`` are skipped.

    Raises `NoRows` if there are none.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and len(path.relative_to(folder).parts) <= DEEPEST_FOLDER
        and not path.name.startswith((".", "_"))
    ]
    if not found:
        raise NoRows(f"The channel '{folder.name}' holds no files.")
    return found


def read_channel(folder: Path, content_type: str, *, csv_weights: bool) -> Rows:
    """All rows of a channel. Raises `ClientError` naming file and place of what will not do."""
    media, parameters = parse_content_type(content_type)
    if media == CSV and label_size(parameters, 1) != 1:
        raise ClientError(
            f"The content type '{content_type}' will not do: label_size must be 1, "
            "with the label in the first column."
        )
    reader = {CSV: _csv, LIBSVM: _libsvm, PARQUET: _parquet, RECORDIO: _recordio}.get(media)
    if reader is None:
        raise ClientError(
            f"The content type '{content_type}' of channel '{folder.name}' is not one of {CSV}, {LIBSVM}, "
            f"{PARQUET}, {RECORDIO}."
        )
    parts = []
    for path in data_files(folder):
        data = path.read_bytes()
        if data.strip():
            part = reader(data, f"{folder.name}/{path.relative_to(folder)}", csv_weights)
            _check_labels(part)
            parts.append(part)
    if not parts:
        raise NoRows(f"The files of channel '{folder.name}' are empty.")
    return join(parts)


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
    widths = {part.features.shape[1] for part in parts}
    if isinstance(parts[0].features, csr_matrix):
        for part in parts:
            part.features.resize(part.features.shape[0], max(widths))
        features = vstack([part.features for part in parts], format="csr")
    else:
        first = parts[0].features.shape[1]
        for part in parts:
            if part.features.shape[1] != first:
                raise ClientError(
                    f"{part.places[0].name} has {part.features.shape[1]} feature columns, but "
                    f"{parts[0].places[0].name} has {first}."
                )
        features = numpy.concatenate([part.features for part in parts])
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


def _check_labels(rows: Rows) -> None:
    wrong = numpy.flatnonzero(~numpy.isfinite(rows.labels))
    if wrong.size:
        value = "missing or NaN" if numpy.isnan(rows.labels[wrong[0]]) else "infinite"
        raise ClientError(f"{rows.place(int(wrong[0]))}: the label is {value}.")
    if rows.weights is not None:
        wrong = numpy.flatnonzero(~(numpy.isfinite(rows.weights) & (rows.weights >= 0)))
        if wrong.size:
            raise ClientError(f"{rows.place(int(wrong[0]))}: a weight must be a number of at least 0.")


def _csv(data: bytes, name: str, csv_weights: bool) -> Rows:
    rows = read_csv(data, name)
    first = 2 if csv_weights else 1
    if rows.values.shape[1] <= first:
        raise ClientError(
            f"{name}: {rows.values.shape[1]} column(s), but there must be a label"
            f"{', a weight' if csv_weights else ''} and at least one feature."
        )
    return Rows(
        rows.values[:, first:],
        rows.values[:, 0],
        rows.values[:, 1] if csv_weights else None,
        places=[_Place(name, "line", rows.lines)],
    )


def _libsvm(data: bytes, name: str, csv_weights: bool) -> Rows:
    rows = read_libsvm(data, name)
    return Rows(rows.features, rows.labels, rows.weights, rows.groups, [_Place(name, "line", rows.lines)])


def _recordio(data: bytes, name: str, csv_weights: bool) -> Rows:
    dense = read_dense(data, name)
    if dense is not None and dense.labels is not None and dense.labels.shape[1]:
        features, labels = dense.features.astype(numpy.float32), dense.labels[:, 0].astype(numpy.float32)
    else:
        records = list(read_rows(data, name))
        if not records:
            raise ClientError(f"{name}: the file holds no records.")
        labels = numpy.array(list(_labels(records, name)), numpy.float32)
        features = record_features(records, name)
    places = [_Place(name, "record", numpy.arange(1, len(labels) + 1))]
    return Rows(features, labels, places=places)


def _labels(records: Sequence[Record], name: str) -> Iterator[float]:
    for number, record in enumerate(records, 1):
        label = record.label.get("values")
        if label is None or not len(label.values):
            raise ClientError(f"{name}, record {number}: the record has no label named 'values'.")
        yield float(label.values[0])


def record_features(records: Sequence[Record], name: str) -> Features:
    """The features keyed ``values`` of ``records``: dense if all are, else sparse. Raises `ClientError`."""
    tensors = list(_tensors(records, name))
    if all(tensor.keys is None for tensor in tensors):
        widths = {len(tensor.values) for tensor in tensors}
        if len(widths) > 1:
            raise ClientError(f"{name}: records of different lengths: {sorted(widths)}.")
        return numpy.stack([tensor.values for tensor in tensors]).astype(numpy.float32)
    widest = max(tensor.shape[0] if tensor.shape else len(tensor.values) for tensor in tensors)
    if widest >= 2**31:
        raise ClientError(f"{name}: a record's shape of {widest} is too large.")
    indices, values, starts = [], [], [0]
    for number, tensor in enumerate(tensors, 1):
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


def _tensors(records: Sequence[Record], name: str) -> Iterator[Tensor]:
    for number, record in enumerate(records, 1):
        if "values" not in record.features:
            raise ClientError(f"{name}, record {number}: the record has no feature named 'values'.")
        yield record.features["values"]


def _parquet(data: bytes, name: str, csv_weights: bool) -> Rows:
    try:
        import pyarrow  # type: ignore[import-not-found]
        import pyarrow.parquet  # type: ignore[import-not-found]
    except ImportError:
        raise ClientError(
            f"{name}: reading parquet needs pyarrow, which is not installed: pip install pyarrow."
        ) from None
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        columns = [column.to_numpy().astype(numpy.float32) for column in table.columns]
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise ClientError(f"{name}: {error}") from None
    if len(columns) < 2:
        raise ClientError(
            f"{name}: {len(columns)} column(s), but there must be a label and at least one feature."
        )
    places = [_Place(name, "row", numpy.arange(1, len(columns[0]) + 1))]
    return Rows(numpy.column_stack(columns[1:]), columns[0], places=places)


def channel_content_type(config: Mapping[str, Mapping[str, str]], channel: str) -> str:
    """What the job says of a channel; LIBSVM where it says nothing."""
    return config.get(channel, {}).get("ContentType") or LIBSVM
