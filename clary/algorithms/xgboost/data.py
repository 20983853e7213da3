"""A channel's files as one ``xgboost.DMatrix``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from clary.algorithms.formats.csv import read_csv
from clary.algorithms.formats.libsvm import read_libsvm
from clary.algorithms.formats.recordio import Record, Tensor, read_rows

DEEPEST_FOLDER = 3

Features = Any  # a dense (rows, columns) float32 array, or a csr_matrix


@dataclass(frozen=True)
class Rows:
    """``features`` (rows, columns), dense or sparse; ``labels`` (rows,); ``weights`` (rows,) or ``None``."""

    features: Features
    labels: Any
    weights: Any = None


def data_files(folder: Path) -> list[Path]:
    """Files to depth 3, in name order; hidden ones and those that begin with ``_`` are skipped.

    Raises `ClientError` if there are none.
    """
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and len(path.relative_to(folder).parts) <= DEEPEST_FOLDER
        and not path.name.startswith((".", "_"))
    ]
    if not found:
        raise ClientError(f"The channel '{folder.name}' holds no files.")
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
            f"The content type '{content_type}' of channel '{folder.name}' is not one of text/csv, "
            "text/libsvm, application/x-parquet, application/x-recordio-protobuf."
        )
    parts = []
    for path in data_files(folder):
        data = path.read_bytes()
        if data.strip():
            parts.append(reader(data, str(path.relative_to(folder)), csv_weights))
    if not parts:
        raise ClientError(f"The files of channel '{folder.name}' are empty.")
    return _joined(parts)


def to_dmatrix(rows: Rows, threads: int) -> Any:
    return xgboost.DMatrix(rows.features, rows.labels, weight=rows.weights, nthread=threads)


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    columns = {part.features.shape[1] for part in parts}
    if isinstance(parts[0].features, csr_matrix):
        widest = max(columns)
        for part in parts:
            part.features.resize(part.features.shape[0], widest)
        features = vstack([part.features for part in parts], format="csr")
    else:
        if len(columns) > 1:
            raise ClientError(
                f"The channel's files have different numbers of feature columns: {sorted(columns)}."
            )
        features = numpy.concatenate([part.features for part in parts])
    weighted = any(part.weights is not None for part in parts)
    weights = [
        part.weights if part.weights is not None else numpy.ones(len(part.labels), numpy.float32)
        for part in parts
    ]
    labels = numpy.concatenate([part.labels for part in parts])
    return Rows(features, labels, numpy.concatenate(weights) if weighted else None)


def _check_labels(labels: Any, name: str) -> None:
    wrong = numpy.flatnonzero(~numpy.isfinite(labels))
    if wrong.size:
        value = "missing or NaN" if numpy.isnan(labels[wrong[0]]) else "infinite"
        raise ClientError(f"{name}, line {wrong[0] + 1}, column 1: the label is {value}.")


def _csv(data: bytes, name: str, csv_weights: bool) -> Rows:
    matrix = read_csv(data, name)
    first = 2 if csv_weights else 1
    if matrix.shape[1] <= first:
        raise ClientError(
            f"{name}: {matrix.shape[1]} columns, but there must be a label"
            f"{', a weight' if csv_weights else ''} and at least one feature."
        )
    _check_labels(matrix[:, 0], name)
    weights = matrix[:, 1] if csv_weights else None
    if weights is not None and not (weights >= 0).all():
        line = int(numpy.flatnonzero(~(weights >= 0))[0]) + 1
        raise ClientError(f"{name}, line {line}, column 2: a weight must be at least 0.")
    return Rows(matrix[:, first:], matrix[:, 0], weights)


def _libsvm(data: bytes, name: str, csv_weights: bool) -> Rows:
    rows = read_libsvm(data, name)
    _check_labels(rows.labels, name)
    return Rows(rows.features, rows.labels, rows.weights)


def _recordio(data: bytes, name: str, csv_weights: bool) -> Rows:
    records = list(read_rows(data, name))
    if not records:
        raise ClientError(f"{name}: the file holds no records.")
    labels = []
    for number, record in enumerate(records, 1):
        label = record.label.get("values")
        if label is None or not len(label.values):
            raise ClientError(f"{name}, record {number}: the record has no label.")
        labels.append(float(label.values[0]))
    found = numpy.array(labels, numpy.float32)
    _check_labels(found, name)
    return Rows(record_features(records, name), found)


def record_features(records: list[Record], name: str) -> Features:
    """The features keyed ``values`` of ``records``: dense if all are, else sparse."""
    tensors = list(_tensors(records, name))
    if all(tensor.keys is None for tensor in tensors):
        widths = {len(tensor.values) for tensor in tensors}
        if len(widths) > 1:
            raise ClientError(f"{name}: records of different lengths: {sorted(widths)}.")
        return numpy.stack([tensor.values for tensor in tensors]).astype(numpy.float32)
    indices, values, starts = [], [], [0]
    for tensor in tensors:
        keys = tensor.keys if tensor.keys is not None else numpy.arange(len(tensor.values))
        indices.append(keys)
        values.append(tensor.values)
        starts.append(starts[-1] + len(keys))
    widest = max(
        (int(tensor.shape[0]) if tensor.shape else len(tensor.values) for tensor in tensors), default=0
    )
    return csr_matrix(
        (numpy.concatenate(values).astype(numpy.float32), numpy.concatenate(indices), numpy.array(starts)),
        shape=(len(tensors), widest),
    )


def _tensors(records: list[Record], name: str) -> Iterator[Tensor]:
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
            f"{name}: {len(columns)} columns, but there must be a label and at least one feature."
        )
    _check_labels(columns[0], name)
    return Rows(numpy.column_stack(columns[1:]), columns[0])


def channel_content_type(config: Mapping[str, Mapping[str, str]], channel: str) -> str:
    """What the job says of a channel; LIBSVM where it says nothing."""
    return config.get(channel, {}).get("ContentType") or LIBSVM
