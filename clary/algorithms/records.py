"""A channel's data as batches of records: rows of 32-bit features, dense or sparse, with their labels.

For the algorithms that learn from a stream: files and pipes of any length go by in bounded memory. What is
wrong with a record is told with its file and its number or line.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy
import numpy.typing
from scipy.sparse import csr_matrix, issparse, vstack

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.content_type import CSV, RECORDIO, label_size, parse_content_type
from clary.algorithms.formats.csv import line_pieces_of, read_csv_pieces
from clary.algorithms.formats.recordio import Record, Tensor, read_dense, read_rows, record_pieces
from clary.algorithms.formats.sparse_recordio import SparseRows, read_sparse
from clary.algorithms.formats.streams import NoData, Stream, channel_streams
from clary.algorithms.job import Job

Matrix = numpy.typing.NDArray[numpy.float32]
# (rows, columns) of float32: an array, or a csr_matrix
Features: TypeAlias = Any
LARGEST_WIDTH = 2**31 - 1


@dataclass(frozen=True)
class Place:
    """Where rows come from, for messages: ``numbers`` are their lines or records in ``name``, from 1."""

    name: str
    what: str
    numbers: Sequence[int] | numpy.typing.NDArray[numpy.int64]

    def of(self, row: int) -> str:
        return f"{self.name}, {self.what} {self.numbers[row]}"

    def part(self, start: int, end: int) -> Place:
        return Place(self.name, self.what, self.numbers[start:end])


@dataclass(frozen=True)
class Batch:
    """``features`` is (rows, width), all finite; ``labels`` is (rows, labels), with no columns where there
    are none."""

    features: Features
    labels: Matrix
    places: Sequence[Place] = ()

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def place(self, row: int) -> str:
        """``train.csv, line 7``, where row number ``row`` (from 0) was read."""
        for place in self.places:
            if row < len(place.numbers):
                return place.of(row)
            row -= len(place.numbers)
        return f"row {row + 1}"

    def part(self, start: int, end: int) -> Batch:
        """The rows from ``start`` up to ``end``."""
        places, offset = [], 0
        for place in self.places:
            count = len(place.numbers)
            if offset < end and offset + count > start:
                places.append(place.part(max(start - offset, 0), min(end - offset, count)))
            offset += count
        return Batch(self.features[start:end], self.labels[start:end], places)


def read_batches(
    job: Job,
    channel: str,
    *,
    rows: int,
    width: int | None = None,
    labelled: bool = False,
    epoch: int = 0,
    content_types: Sequence[str] = (RECORDIO, CSV),
) -> Iterator[Batch]:
    """The records of a channel in batches of ``rows``, the last one perhaps smaller.

    ``width`` is how many features each must have (``None``: as many as the first). With ``labelled`` each
    must have a label: in CSV the first column, or as many as the content type's ``label_size``; without,
    labels are passed over. A CSV content type that does not tell ``label_size`` may have one column more than
    ``width``. A channel without a content type is of the first of ``content_types``.

    Raises `ClientError` naming the place of what will not do, `NoData` if there is nothing, and
    `NothingTrained` if the job is told to stop meanwhile.
    """
    given = job.input_config[channel].get("ContentType") or content_types[0]
    media, parameters = parse_content_type(given)
    if media not in content_types or media not in (RECORDIO, CSV):
        raise ClientError(
            f"The content type '{given}' of channel '{channel}' is not one of {', '.join(content_types)}."
        )
    asked: int | None = None
    if media == CSV and (labelled or "label_size" in parameters):
        asked = label_size(parameters, 1)
        if labelled and asked < 1:
            raise ClientError(
                f"The content type '{given}' of channel '{channel}' will not do: label_size must be at "
                "least 1, with the label in the first column."
            )
    reader = _Reader(width, labelled, asked)
    read = reader.csv if media == CSV else reader.recordio
    parts = (part for stream in channel_streams(job, channel, epoch) for part in read(stream))
    first = next(parts, None)
    if first is None:
        raise NoData(f"The files of channel '{channel}' are empty.")
    yield from _in_batches(itertools.chain([first], parts), rows)


class _Reader:
    """Streams as batches of whatever size, checked."""

    def __init__(self, width: int | None, labelled: bool, label_columns: int | None) -> None:
        self._width = width
        self._labelled = labelled
        self._label_columns = label_columns

    def csv(self, stream: Stream) -> Iterator[Batch]:
        for rows in read_csv_pieces(line_pieces_of(stream.blocks()), stream.name):
            place = Place(stream.name, "line", rows.lines)
            labels = self._labels_among(rows.values.shape[1], place)
            yield self._checked(
                rows.values[:, labels:],
                rows.values[:, :labels] if self._labelled else rows.values[:, :0],
                place,
            )

    def recordio(self, stream: Stream) -> Iterator[Batch]:
        for number, data in record_pieces(stream.blocks()):
            dense = read_dense(data, stream.name, number)
            if dense is not None and not (self._labelled and dense.labels is None):
                features = as_float32(dense.features)
                place = Place(stream.name, "record", range(number, number + len(features)))
                labels = dense.labels if self._labelled else None
                yield self._checked(features, _labels(labels, len(features)), place)
            elif (sparse := read_sparse(data)) is not None and self._fits(sparse):
                rows = len(sparse.ends) - 1
                place = Place(stream.name, "record", range(number, number + rows))
                features = csr_matrix((sparse.values, sparse.keys, sparse.ends), (rows, sparse.width))
                labels = sparse.labels if self._labelled else None
                yield self._checked(features, _labels(labels, rows), place)
            else:
                records = list(read_rows(data, stream.name, number))
                place = Place(stream.name, "record", range(number, number + len(records)))
                tensors = [_values(record.features, "feature", place, row)
                           for row, record in enumerate(records)]  # fmt: skip
                width = self._width or _width_of(tensors)
                yield self._checked(
                    tensor_rows(tensors, width, place.of),
                    self._record_labels(records, place),
                    place,
                )

    def _fits(self, rows: SparseRows) -> bool:
        """Whether they are as wanted; if not, reading them one by one tells of the first that is not."""
        return self._width in (None, rows.width) and not (self._labelled and rows.labels is None)

    def _labels_among(self, columns: int, place: Place) -> int:
        """How many of a text's columns are labels."""
        if self._label_columns is None:
            return 1 if self._width is not None and columns == self._width + 1 else 0
        if columns <= self._label_columns:
            raise ClientError(
                f"{place.of(0)}: {columns} column(s), but there must be {self._label_columns} label(s) and "
                "at least one feature."
            )
        return self._label_columns

    def _record_labels(self, records: Sequence[Record], place: Place) -> Matrix:
        if not self._labelled:
            return _labels(None, len(records))
        tensors = [_values(record.label, "label", place, row) for row, record in enumerate(records)]
        count = len(tensors[0].values)
        for row, tensor in enumerate(tensors):
            if tensor.keys is not None or len(tensor.values) != count or not count:
                raise ClientError(
                    f"{place.of(row)}: the record has {len(tensor.values)} label(s), but the records before "
                    f"have {count}." if row else f"{place.of(row)}: the record's label must be a number."
                )  # fmt: skip
        return as_float32(numpy.stack([tensor.values for tensor in tensors]))

    def _checked(self, features: Features, labels: Matrix, place: Place) -> Batch:
        columns = features.shape[1]
        if self._width is None:
            self._width = columns
        elif columns != self._width:
            raise ClientError(
                f"{place.of(0)}: the {place.what} has {columns} features, but feature_dim is {self._width}."
            )
        check_finite(features, place.of)
        if not _all_finite(labels):
            row = int(numpy.flatnonzero(~numpy.isfinite(labels).all(axis=1))[0])
            raise ClientError(f"{place.of(row)}: the label is missing, NaN or infinite.")
        return Batch(features, labels, (place,))


def tensor_rows(tensors: Sequence[Tensor], width: int, place: Callable[[int], str]) -> Features:
    """Tensors as rows of ``width`` features: dense if all are, else sparse.

    Raises `ClientError` for one of another width; ``place`` names a row (from 0).
    """
    if all(tensor.keys is None for tensor in tensors):
        for row, tensor in enumerate(tensors):
            if len(tensor.values) != width:
                raise ClientError(
                    f"{place(row)}: the record has {len(tensor.values)} features, but feature_dim is {width}."
                )
        return as_float32(numpy.stack([tensor.values for tensor in tensors]))
    keys: list[Any] = []
    for row, tensor in enumerate(tensors):
        found = tensor.shape[0] if tensor.keys is not None and tensor.shape else None
        if tensor.keys is None:
            found = len(tensor.values)
        if found is not None and found != width:
            raise ClientError(f"{place(row)}: the record has {found} features, but feature_dim is {width}.")
        own = numpy.arange(width) if tensor.keys is None else tensor.keys
        if len(own) and (own.min() < 0 or own.max() >= width):
            wrong = own[(own < 0) | (own >= width)][0]
            raise ClientError(f"{place(row)}: key {wrong} is not one of 0 to {width - 1}.")
        keys.append(own)
    ends = numpy.cumsum([0, *(len(each) for each in keys)])
    values = as_float32(numpy.concatenate([tensor.values for tensor in tensors]))
    return csr_matrix((values, numpy.concatenate(keys), ends), (len(tensors), width))


def check_finite(features: Features, place: Callable[[int], str]) -> None:
    """Raises `ClientError` for a value that is missing, NaN or infinite; ``place`` names a row (from 0)."""
    values = features.data if issparse(features) else features
    if _all_finite(values):
        return
    wrong = numpy.argwhere(~numpy.isfinite(values))[0]
    if issparse(features):
        row = int(numpy.searchsorted(features.indptr, wrong[0], side="right")) - 1
        column, value = int(features.indices[wrong[0]]), values[wrong[0]]
    else:
        row, column = int(wrong[0]), int(wrong[1])
        value = values[row, column]
    said = "missing or NaN" if numpy.isnan(value) else "infinite"
    raise ClientError(f"{place(row)}: feature {column + 1} is {said}, but must be a finite number.")


def as_float32(values: Any) -> Matrix:
    """What 32 bits cannot hold becomes infinite, which `check_finite` refuses."""
    with numpy.errstate(over="ignore"):
        found: Matrix = values.astype(numpy.float32, copy=False)
    return found


def _all_finite(values: Any) -> bool:
    # One pass without a temporary: whatever is not finite makes the sum so. A sum may overflow by itself.
    with numpy.errstate(all="ignore"):
        return bool(numpy.isfinite(numpy.sum(values))) or bool(numpy.isfinite(values).all())


def _labels(found: Any, rows: int) -> Matrix:
    return numpy.zeros((rows, 0), numpy.float32) if found is None else as_float32(found)


def _values(tensors: Any, what: str, place: Place, row: int) -> Tensor:
    found: Tensor | None = tensors.get("values")
    if found is None:
        raise ClientError(f"{place.of(row)}: the record has no {what} named 'values'.")
    return found


def _width_of(tensors: Sequence[Tensor]) -> int:
    """How many features the first of ``tensors`` has."""
    first = tensors[0]
    if first.keys is None:
        return len(first.values)
    if first.shape:
        return min(first.shape[0], LARGEST_WIDTH)
    return int(first.keys.max()) + 1 if len(first.keys) else 1


def _in_batches(parts: Iterator[Batch], rows: int) -> Iterator[Batch]:
    waiting: list[Batch] = []
    count = 0
    for part in parts:
        start = 0
        while count + len(part) - start >= rows:
            end = start + rows - count
            yield join([*waiting, part.part(start, end)])
            waiting, count, start = [], 0, end
        if start < len(part):
            waiting.append(part.part(start, len(part)))
            count += len(part) - start
    if waiting:
        yield join(waiting)


def join(parts: Sequence[Batch]) -> Batch:
    """The rows of all ``parts``, one after the other: dense if all are, else sparse.

    Raises `ClientError` if their labels differ in number.
    """
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if part.labels.shape[1] != parts[0].labels.shape[1]:
            raise ClientError(
                f"{part.place(0)}: there are {part.labels.shape[1]} labels, but {parts[0].place(0)} has "
                f"{parts[0].labels.shape[1]}."
            )
    features = [part.features for part in parts]
    joined = (
        vstack([csr_matrix(each) for each in features], format="csr")
        if any(issparse(each) for each in features)
        else numpy.concatenate(features)
    )
    return Batch(
        joined,
        numpy.concatenate([part.labels for part in parts]),
        [place for part in parts for place in part.places],
    )
