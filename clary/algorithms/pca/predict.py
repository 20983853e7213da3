"""Answers requests with PCA's components: the projection of each record on them, the largest last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy

from clary.algorithms.answers import Answerer
from clary.algorithms.entrypoint import Predictor
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file
from clary.algorithms.pca.spec import MODEL_NAME, SPEC
from clary.algorithms.records import Features


def load(model_directory: Path) -> Predictor:
    """See `clary.algorithms.entrypoint.load_predictor`."""
    vectors, mean = _load_model(model_directory)
    shift = mean @ vectors

    def predict(features: Features, verbose: bool) -> Mapping[str, numpy.ndarray]:
        if isinstance(features, numpy.ndarray):
            return {"projection": (features - mean) @ vectors}
        return {"projection": features @ vectors - shift}

    return Answerer(SPEC, len(vectors), predict, "projections").answer


def _load_model(folder: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(width, components) of float32, and the mean (width,). Raises `ClientError`."""
    try:
        arrays = read_array_file(folder / MODEL_NAME)
    except FileNotFoundError:
        raise ClientError(f"The model archive holds no model file ({MODEL_NAME}).") from None
    except ValueError as error:
        raise ClientError(f"The model file {MODEL_NAME} cannot be read: {error}.") from None
    vectors = arrays.get("v")
    if vectors is None or vectors.ndim != 2 or not vectors.size:
        raise ClientError(f"The model file {MODEL_NAME} must hold a matrix 'v'; it holds {list(arrays)}.")
    mean = arrays.get("mean", numpy.zeros(len(vectors))).reshape(-1)
    if len(mean) != len(vectors):
        raise ClientError(
            f"The model file {MODEL_NAME} has a mean of {len(mean)} numbers for {len(vectors)} features."
        )
    return numpy.ascontiguousarray(vectors, numpy.float32), mean.astype(numpy.float32)
