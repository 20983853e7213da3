"""Answers requests with a trained XGBoost model, in the container's formats."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import xgboost
from scipy.sparse import csr_matrix

from clary.algorithms.entrypoint import Predictor
from clary.algorithms.faults import ClientError, PredictionRefused
from clary.algorithms.formats.content_type import (
    CSV,
    JSON,
    JSON_LINES,
    LIBSVM,
    RECORDIO,
    parse_content_type,
)
from clary.algorithms.formats.csv import read_csv
from clary.algorithms.formats.libsvm import read_libsvm
from clary.algorithms.formats.recordio import read_rows, score_records
from clary.algorithms.xgboost.data import record_features

ACCEPTED = (CSV, JSON, JSON_LINES, RECORDIO)
_PROBABILITY_KEYS = ("labels", "probability", "probabilities", "raw_score", "raw_scores", "predicted_label")
# What can be selected, by objective; anything else is NaN.
_SELECTABLE: Mapping[str, Sequence[str]] = {
    "binary:logistic": _PROBABILITY_KEYS,
    "multi:softprob": _PROBABILITY_KEYS,
    "binary:logitraw": ("predicted_label", "labels", "raw_score", "raw_scores"),
    "binary:hinge": ("predicted_label", "labels", "raw_score", "raw_scores"),
    "multi:softmax": ("predicted_label", "labels", "raw_score", "raw_scores"),
}
_VOTES = ("multi:softmax", "binary:hinge")


def load(model_directory: Path) -> Predictor:
    """Several files are an ensemble. Raises `ClientError` if there is no model, or one cannot be read."""
    files = [
        path
        for path in sorted(model_directory.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.suffix not in (".json", ".txt", ".py")
    ] or sorted(model_directory.glob("*.json"))
    if not files:
        raise ClientError("The model archive holds no model file (xgboost-model).")
    if len(files) > 1 and os.environ.get("SAGEMAKER_INFERENCE_ENSEMBLE", "true").lower() == "false":
        files = files[:1]
    boosters = [_booster(path) for path in files]
    return _Answerer(boosters).answer


def _booster(path: Path) -> Any:
    """The old versions wrote pickles, the newer ones the library's own format."""
    data = path.read_bytes()
    try:
        booster = xgboost.Booster(model_file=bytearray(data))
    except xgboost.core.XGBoostError as native:
        if data[:1] != b"\x80":
            cause = str(native).split("Stack trace")[0].strip()
            raise ClientError(f"The model file {path.name} is no XGBoost model: {cause[-300:]}") from None
        try:
            # Runs code of whoever made the model, which is why this happens in the sandbox only.
            booster = pickle.loads(data)
        except Exception as error:
            raise ClientError(
                f"The model file {path.name} is a pickle that cannot be read: {type(error).__name__}: {error}"
            ) from error
        booster = booster.get_booster() if hasattr(booster, "get_booster") else booster
    booster.set_param({"nthread": max(1, int(os.environ.get("SM_NUM_CPUS") or 1))})
    return booster


class _Answerer:
    def __init__(self, boosters: Sequence[Any]) -> None:
        self._boosters = boosters
        self._width = boosters[0].num_features()
        config = json.loads(boosters[0].save_config())
        self._objective = config["learner"]["objective"]["name"]
        self._default_accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", CSV)
        selected = os.environ.get("SAGEMAKER_INFERENCE_OUTPUT", "")
        self._selected = [key.strip().lower() for key in selected.split(",") if key.strip()]
        self._batch = os.environ.get("SAGEMAKER_BATCH", "").lower() == "true"

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[int, bytes, str]:
        """See `clary.algorithms.entrypoint.Predictor`."""
        try:
            if not body.strip():
                return 204, b"", "text/plain"
            accepted = self._accept(accept)
            features = self._features(body, content_type)
            predictions = self._predict(features)
        except PredictionRefused as refusal:
            return refusal.status, str(refusal).encode(), "text/plain"
        rows = self._select(predictions, features) if self._selected else None
        if rows is not None:
            return 200, self._write_selected(rows, accepted), accepted
        return 200, self._write(predictions, accepted), accepted

    def _accept(self, accept: str) -> str:
        for item in (accept or "").split(","):
            media, _ = parse_content_type(item)
            if media in ("", "*/*"):
                return self._default_accept
            if media in ACCEPTED:
                return media
        raise PredictionRefused(
            406, f"Accept type {accept} is not supported. Use one of {', '.join(ACCEPTED)}."
        )

    def _features(self, body: bytes, content_type: str) -> Any:
        media, _ = parse_content_type(content_type or CSV)
        try:
            if media == CSV:
                return read_csv(body, "payload").values
            if media == LIBSVM:
                features = read_libsvm(body, "payload", label_optional=True).features
            elif media == RECORDIO:
                features = record_features(list(read_rows(body, "payload")), "payload")
            else:
                raise PredictionRefused(
                    415, f"Content type {content_type} is not supported. Use {CSV}, {LIBSVM} or {RECORDIO}."
                )
        except ClientError as error:
            raise PredictionRefused(415, f"Loading the payload failed: {error}") from None
        if isinstance(features, csr_matrix) and features.shape[1] < self._width:
            features.resize(features.shape[0], self._width)
        return features

    def _predict(self, features: Any) -> Any:
        if features.shape[1] != self._width:
            raise PredictionRefused(
                400,
                f"Feature shape mismatch: the model has {self._width} features, "
                f"the payload {features.shape[1]}.",
            )
        answers = [self._one(booster, features) for booster in self._boosters]
        if len(answers) == 1:
            return answers[0]
        stacked = numpy.stack(answers)
        if self._objective in _VOTES:
            return numpy.apply_along_axis(
                lambda votes: numpy.bincount(votes.astype(int)).argmax(), 0, stacked
            )
        return stacked.mean(axis=0)

    def _one(self, booster: Any, features: Any, margin: bool = False) -> Any:
        try:
            return booster.inplace_predict(
                features,
                predict_type="margin" if margin else "value",
                missing=numpy.nan,
                validate_features=False,
            )
        except xgboost.core.XGBoostError as error:
            raise PredictionRefused(400, str(error).split("Stack trace")[0].strip()) from None

    def _write(self, predictions: Any, accepted: str) -> bytes:
        values = predictions.tolist()
        if accepted == CSV:
            return ("\n" if self._batch else ",").join(map(_text, values)).encode()
        if accepted == JSON:
            return json.dumps({"predictions": [{"score": value} for value in values]}).encode()
        if accepted == JSON_LINES:
            return b"".join(json.dumps({"score": value}).encode() + b"\n" for value in values)
        return score_records([{"score": numpy.asarray(value, numpy.float32)} for value in predictions])

    def _select(self, predictions: Any, features: Any) -> list[dict[str, Any]]:
        """A dictionary a row, with the keys of ``SAGEMAKER_INFERENCE_OUTPUT``."""
        possible = _SELECTABLE.get(self._objective, ("predicted_score",))
        margins = None
        if {"raw_score", "raw_scores"} & set(self._selected):
            margins = numpy.stack([self._one(booster, features, True) for booster in self._boosters]).mean(
                axis=0
            )
        rows = []
        for number, prediction in enumerate(predictions):
            margin = None if margins is None else margins[number]
            row = self._outputs(prediction, margin)
            rows.append(
                {key: row[key] if key in possible and key in row else float("nan") for key in self._selected}
            )
        return rows

    def _outputs(self, prediction: Any, margin: Any) -> dict[str, Any]:
        if self._objective == "binary:logistic":
            share = float(prediction)
            label = int(share > 0.5)
            found: dict[str, Any] = {
                "predicted_label": label,
                "labels": [0, 1],
                "probability": share if label else 1 - share,
                "probabilities": [1 - share, share],
            }
        elif self._objective == "multi:softprob":
            label = int(numpy.argmax(prediction))
            found = {
                "predicted_label": label,
                "labels": list(range(len(prediction))),
                "probability": float(prediction[label]),
                "probabilities": [float(share) for share in prediction],
            }
        elif self._objective in _SELECTABLE:
            classes = 2 if margin is None or numpy.ndim(margin) == 0 else len(margin)
            label = int(prediction > 0) if self._objective == "binary:logitraw" else int(prediction)
            found = {"predicted_label": label, "labels": list(range(classes))}
        else:
            return {"predicted_score": float(prediction)}
        if margin is not None:
            flat = [float(value) for value in numpy.atleast_1d(margin)]
            found["raw_scores"] = [-flat[0], flat[0]] if len(flat) == 1 else flat
            found["raw_score"] = found["raw_scores"][found["predicted_label"]]
        return found

    def _write_selected(self, rows: Sequence[Mapping[str, Any]], accepted: str) -> bytes:
        if accepted == CSV:
            lines = [",".join(_quoted(row[key]) for key in self._selected) for row in rows]
            return "\n".join(lines).encode()
        if accepted == JSON:
            return json.dumps({"predictions": rows}).encode()
        if accepted == JSON_LINES:
            return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        return score_records(
            [
                {key: numpy.atleast_1d(numpy.asarray(value, numpy.float32)) for key, value in row.items()}
                for row in rows
            ]
        )


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list) else repr(value)


def _quoted(value: Any) -> str:
    return f'"{json.dumps(value)}"' if isinstance(value, list) else str(value)
