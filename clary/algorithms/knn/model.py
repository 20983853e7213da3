"""A k-NN model: an index, the labels of its vectors, and how they make a prediction. Three files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import issparse

from clary.algorithms.faults import ClientError
from clary.algorithms.knn.index import Index, read_index
from clary.algorithms.knn.reduction import Reduction, read_reduction
from clary.algorithms.knn.spec import MODEL_NAME
from clary.algorithms.records import Features

Array = numpy.typing.NDArray[Any]

LABELS_NAME, ABOUT_NAME = f"{MODEL_NAME}.labels", f"{MODEL_NAME}.json"
VERSION = "1.0"
_VOTES_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """``width`` features go in; ``normalize`` makes them of length 1 first."""

    width: int
    k: int
    predictor_type: str
    normalize: bool
    reduction: Reduction | None


@dataclass(frozen=True)
class Prediction:
    """``values`` (rows,); the others are (rows, k), the nearest first."""

    values: Array
    distances: Array
    labels: Array


class Model:
    def __init__(self, settings: Settings, index: Index, labels: Array) -> None:
        self.settings = settings
        self._index = index
        self._labels = labels
        self._classes, self._class_numbers = numpy.unique(labels, return_inverse=True)
        self._project = settings.reduction.projector() if settings.reduction else None

    def predict(self, features: Features) -> Prediction:
        """``features`` is (rows, width)."""
        prepared = prepare(features, self.settings.normalize, self._project, self._index.width)
        distances, found = self._index.search(prepared, self.settings.k)
        labels = self._labels[found]
        if self.settings.predictor_type == "classifier":
            values = self._voted(found)
        else:
            values = labels.mean(axis=1, dtype=numpy.float64).astype(numpy.float32)
        return Prediction(values, distances, labels)

    def _voted(self, found: Array) -> Array:
        """The label that most neighbours have, the smallest of several."""
        values = numpy.empty(len(found), numpy.float32)
        classes = len(self._classes)
        step = max(1, _VOTES_BYTES // (8 * classes))
        for start in range(0, len(found), step):
            part = found[start : start + step]
            ballots = numpy.arange(len(part))[:, None] * classes + self._class_numbers[part]
            votes = numpy.bincount(ballots.reshape(-1), minlength=len(part) * classes)
            values[start : start + step] = self._classes[votes.reshape(len(part), -1).argmax(axis=1)]
        return values

    def save(self, folder: Path) -> None:
        settings = self.settings
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_NAME).write_bytes(self._index.written())
        (folder / LABELS_NAME).write_bytes(self._labels.astype("<f4").tobytes())
        about = {
            "k": settings.k,
            "predictor_type": settings.predictor_type,
            "dimension_reduction": settings.reduction.described() if settings.reduction else None,
            "normalize": settings.normalize,
            "feature_dim": settings.width,
            "version": VERSION,
        }
        (folder / ABOUT_NAME).write_text(json.dumps(about), encoding="utf-8")


def load_model(folder: Path) -> Model:
    """Raises `ClientError` for a model that is missing or cannot be read."""
    name = MODEL_NAME
    try:
        index = read_index((folder / MODEL_NAME).read_bytes())
        name = LABELS_NAME
        data = (folder / LABELS_NAME).read_bytes()
        if len(data) != 4 * index.count:
            raise ValueError(f"it has {len(data)} bytes, but the index has {index.count} vectors")
        labels = numpy.frombuffer(data, "<f4")
        name = ABOUT_NAME
        settings = _read_settings(json.loads((folder / ABOUT_NAME).read_bytes()), index.width)
    except FileNotFoundError:
        raise ClientError(f"The model archive holds no model file ({name}).") from None
    except ValueError as error:
        raise ClientError(f"The model file {name} cannot be read: {error}.") from None
    return Model(settings, index, labels)


def prepare(features: Features, normalize: bool, project: Any, width: int) -> Array:
    """``features`` as an index of ``width`` numbers holds them: of length 1, projected, filled with zeros."""
    rows = features.toarray() if issparse(features) else numpy.asarray(features, numpy.float32)
    if normalize:
        lengths = numpy.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / numpy.where(lengths > 0, lengths, 1)
    if project is not None:
        rows = project(rows)
    missing = width - rows.shape[1]
    return numpy.pad(rows, ((0, 0), (0, missing))) if missing else rows


def _read_settings(document: Any, index_width: int) -> Settings:
    """Raises ``ValueError``."""
    if not isinstance(document, Mapping):
        raise ValueError("it is no JSON object")
    k, kind, found = (document.get(name) for name in ("k", "predictor_type", "dimension_reduction"))
    if type(k) is not int or k < 1:
        raise ValueError(f"its k is {k}")
    if kind not in ("classifier", "regressor"):
        raise ValueError(f"its predictor_type is {kind}")
    reduction = read_reduction(found) if found and found.get("type") else None
    width = reduction.input_dim if reduction else document.get("feature_dim", index_width)
    searched = reduction.target_dim if reduction else width
    if type(width) is not int or not 0 < searched <= index_width:
        raise ValueError(f"it tells of {width} features, and the index is of {index_width} numbers")
    return Settings(width, k, str(kind), bool(document.get("normalize")), reduction)
