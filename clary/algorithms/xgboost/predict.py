"""Answers requests with a trained XGBoost model, in the container's formats."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from scipy.sparse import csr_matrix

from clary.algorithms.entrypoint import Predictor
from clary.algorithms.faults import ClientError, PredictionRefused
from clary.algorithms.formats.content_type import (
    CSV,
    JSON,
    JSON_LINES,
    LIBSVM,
    accepted_type,
    parse_content_type,
)
from clary.algorithms.formats.csv import read_csv
from clary.algorithms.formats.libsvm import read_libsvm
from clary.algorithms.formats.recordio import read_dense, read_rows, score_records
from clary.algorithms.xgboost.data import record_features
from clary.algorithms.xgboost.model import Model, load_model
from clary.algorithms.xgboost.selected_output import selected_csv, selected_outputs
from clary.algorithms.xgboost.spec import SPEC

DEFAULT_LARGEST_BODY = 6 * 1024**2
LARGEST_BODY = 20 * 1024**2  # whatever MAX_CONTENT_LENGTH says
_PLAIN = "text/plain"


def load(model_directory: Path) -> Predictor:
    """See `clary.algorithms.entrypoint.load_predictor`."""
    return _Answerer(load_model(model_directory), os.environ).answer


class _Answerer:
    def __init__(self, model: Model, environment: Mapping[str, str]) -> None:
        self._model = model
        self._default_type = environment.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or CSV
        if accepted_type("*/*", SPEC.reply_types, self._default_type) is None:
            raise ClientError(
                f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is {self._default_type}, but must be one of "
                f"{', '.join(SPEC.reply_types)}."
            )
        chosen = environment.get("SAGEMAKER_INFERENCE_OUTPUT", "").replace(" ", "").lower()
        self._selected = [key for key in chosen.split(",") if key]
        self._batch = bool(environment.get("SAGEMAKER_BATCH"))
        limit = environment.get("MAX_CONTENT_LENGTH", "")
        self._largest = min(int(limit) if limit.isdecimal() else DEFAULT_LARGEST_BODY, LARGEST_BODY)

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[int, bytes, str]:
        """See `clary.algorithms.entrypoint.Predictor`."""
        try:
            if not body:
                return 204, b"", _PLAIN
            if len(body) > self._largest:
                raise PredictionRefused(
                    413, f"The body of {len(body)} bytes is larger than MAX_CONTENT_LENGTH, {self._largest}."
                )
            features = self._features(body, content_type)
            reply_type = accepted_type(accept, SPEC.reply_types, self._default_type)
            if reply_type is None:
                raise PredictionRefused(
                    406,
                    f"Accept type {accept} is not supported. Please use supported accept types: "
                    f"{', '.join(SPEC.reply_types)}.",
                )
            predictions = self._model.predict(features)
        except PredictionRefused as refusal:
            return refusal.status, str(refusal).encode(), _PLAIN
        if self._selected:
            return 200, self._write_selected(predictions, reply_type), reply_type
        return 200, self._write(predictions, reply_type), reply_type

    def _features(self, body: bytes, content_type: str) -> Any:
        media, _ = parse_content_type(content_type or CSV)
        if media not in SPEC.request_types:
            raise PredictionRefused(
                415,
                f"Content-type {content_type} not supported. Supported content-type is "
                f"{', '.join(SPEC.request_types)}",
            )
        try:
            if media == CSV:
                features: Any = read_csv(body, "payload").values
            elif media == LIBSVM:
                features = read_libsvm(body, "payload", label_optional=True).features
            else:
                dense = read_dense(body, "payload")
                features = (
                    record_features(list(read_rows(body, "payload")), "payload")
                    if dense is None
                    else dense.features.astype(numpy.float32)
                )
        except ClientError as error:
            raise PredictionRefused(
                415, f"Loading {media} data failed, please ensure data is in {media} format: {error}"
            ) from None
        return self._of_width(features, media)

    def _of_width(self, features: Any, media: str) -> Any:
        """``features`` with as many columns as the model has."""
        width = self._model.width
        if isinstance(features, csr_matrix):
            if features.shape[1] == width + 1 and not (features.indices == 0).any():
                features = features[:, 1:]  # counted from 1
            if features.shape[1] < width:
                features.resize(features.shape[0], width)  # sparse rows name only the columns they have
        if features.shape[1] != width:
            raise PredictionRefused(
                400,
                f"Unable to evaluate payload provided: Feature size of {media} inference data "
                f"{features.shape[1]} is not consistent with feature size of trained model {width}.",
            )
        return features

    def _write(self, predictions: Any, reply_type: str) -> bytes:
        values = predictions.tolist()
        if reply_type == CSV:
            return self._lines(map(str, values)).encode()
        if reply_type == JSON:
            return json.dumps({"predictions": [{"score": value} for value in values]}).encode()
        if reply_type == JSON_LINES:
            return _json_lines([{"score": value} for value in values])
        return score_records([{"score": numpy.asarray(value, numpy.float32)} for value in predictions])

    def _lines(self, values: Any) -> str:
        """A line for each value in a batch transform, else all on one line."""
        return "\n".join(values) + "\n" if self._batch else ",".join(values)

    def _write_selected(self, predictions: Any, reply_type: str) -> bytes:
        rows = selected_outputs(predictions, self._selected, self._model.objective, self._model.classes)
        if reply_type == CSV:
            return (selected_csv(rows, self._selected) + ("\n" if self._batch else "")).encode()
        if reply_type == JSON:
            return json.dumps({"predictions": rows}).encode()
        if reply_type == JSON_LINES:
            return _json_lines(rows)
        return score_records(
            [{key: numpy.asarray(value, numpy.float32) for key, value in row.items()} for row in rows]
        )


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
