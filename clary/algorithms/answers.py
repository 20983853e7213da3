"""Answering requests for the algorithms whose requests are records: one path for endpoint and batch.

A request is rows of features in any of the shared formats; a reply is columns, each written as one value or
one list a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy

from clary.algorithms.algorithm import AlgorithmSpec
from clary.algorithms.faults import ClientError, PredictionRefused
from clary.algorithms.formats.content_type import (
    CSV,
    JSON,
    JSON_LINES,
    RECORDIO,
    accepted_type,
    label_size,
    parse_content_type,
)
from clary.algorithms.formats.csv import read_csv
from clary.algorithms.formats.json_requests import read_json
from clary.algorithms.formats.recordio import Tensor, read_dense, read_rows, write_uniform
from clary.algorithms.records import Features, as_float32, check_finite, tensor_rows

_PLAIN = "text/plain"
_REQUEST = "request"

# (features, verbose) to columns, each (rows,) or (rows, values), in the order of the reply
Predict = Callable[[Features, bool], Mapping[str, numpy.ndarray]]


class Answerer:
    """Answers with ``predict``, which takes (rows, ``width``) of finite float32, dense or sparse.

    ``json_key`` is what wraps the rows of a JSON reply. ``predict`` may raise `PredictionRefused`.
    """

    def __init__(
        self, spec: AlgorithmSpec, width: int, predict: Predict, json_key: str = "predictions"
    ) -> None:
        self._spec = spec
        self._width = width
        self._predict = predict
        self._json_key = json_key

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[int, bytes, str]:
        """See `clary.algorithms.entrypoint.Predictor`."""
        try:
            reply_type = accepted_type(accept, self._spec.reply_types, self._spec.reply_types[0])
            if reply_type is None:
                raise PredictionRefused(
                    406,
                    f"The accept type {accept} is not supported; supported are "
                    f"{', '.join(self._spec.reply_types)}.",
                )
            features = self._features(body, content_type or self._spec.request_types[0])
            columns = self._predict(features, _is_verbose(accept))
        except PredictionRefused as refusal:
            return refusal.status, str(refusal).encode(), _PLAIN
        return 200, self._written(columns, reply_type), reply_type

    def _features(self, body: bytes, content_type: str) -> Features:
        media, parameters = parse_content_type(content_type)
        if media not in self._spec.request_types:
            raise PredictionRefused(
                415,
                f"The content type {content_type} is not supported; supported are "
                f"{', '.join(self._spec.request_types)}.",
            )
        try:
            if media == CSV:
                rows = read_csv(body, _REQUEST)
                return self._checked(
                    rows.values[:, label_size(parameters, 0) :], lambda row: f"line {rows.lines[row]}"
                )
            if media in (JSON, JSON_LINES):
                what = "instance" if media == JSON else "line"
                return self._rows(read_json(body, media).instances, what)
            if not body:
                raise ClientError("The request holds no records.")
            dense = read_dense(body, _REQUEST)
            if dense is not None:
                return self._checked(as_float32(dense.features), lambda row: f"record {row + 1}")
            records = enumerate(read_rows(body, _REQUEST), 1)
            return self._rows([_feature(record.features, number) for number, record in records], "record")
        except ClientError as error:
            raise PredictionRefused(400, str(error)) from None

    def _rows(self, tensors: Sequence[Tensor], what: str) -> Features:
        def place(row: int) -> str:
            return f"{what} {row + 1}"

        return self._checked(tensor_rows(tensors, self._width, place), place)

    def _checked(self, features: Features, place: Callable[[int], str]) -> Features:
        if features.shape[1] != self._width:
            raise ClientError(
                f"{place(0)}: it has {features.shape[1]} features, but the model takes {self._width}."
            )
        check_finite(features, place)
        return features

    def _written(self, columns: Mapping[str, numpy.ndarray], reply_type: str) -> bytes:
        if reply_type == RECORDIO:
            return write_uniform({}, {name: column.astype(numpy.float32) for name, column in columns.items()})
        names = list(columns)
        if reply_type == CSV:
            texts = [_csv_texts(column) for column in columns.values()]
            return "".join(",".join(row) + "\n" for row in zip(*texts, strict=True)).encode()
        rows = [
            dict(zip(names, row, strict=True))
            for row in zip(*(column.tolist() for column in columns.values()), strict=True)
        ]
        if reply_type == JSON_LINES:
            return "".join(json.dumps(row) + "\n" for row in rows).encode()
        return json.dumps({self._json_key: rows}).encode()


def _csv_texts(column: numpy.ndarray) -> Sequence[str]:
    if column.ndim == 1:
        return [str(value) for value in column.tolist()]
    return [",".join(str(value) for value in values) for values in column.tolist()]


def _is_verbose(accept: str) -> bool:
    return any(parse_content_type(item)[1].get("verbose", "").lower() == "true" for item in accept.split(","))


def _feature(features: Mapping[str, Tensor], number: int) -> Tensor:
    if "values" not in features:
        raise ClientError(f"record {number}: the record has no feature named 'values'.")
    return features["values"]
