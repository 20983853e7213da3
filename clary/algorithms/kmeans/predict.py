"""Answers requests with K-Means's centres: the nearest one of each record, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy

from clary.algorithms.answers import Answerer
from clary.algorithms.entrypoint import Predictor
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file
from clary.algorithms.kmeans.clustering import exact_distances, nearest
from clary.algorithms.kmeans.spec import MODEL_NAME, SPEC
from clary.algorithms.records import Features


def load(model_directory: Path) -> Predictor:
    """See `clary.algorithms.entrypoint.load_predictor`."""
    centres = load_centres(model_directory)
    origin = centres.mean(axis=0)  # where 32 bits tell distances best
    shifted = centres - origin

    def predict(features: Features, verbose: bool) -> Mapping[str, numpy.ndarray]:
        if isinstance(features, numpy.ndarray):
            points, at = features - origin, shifted
        else:
            points, at = features, centres
        chosen, _ = nearest(points, at)
        distances = numpy.sqrt(exact_distances(points, at, chosen))
        return {
            "closest_cluster": chosen.astype(numpy.float32),
            "distance_to_cluster": distances.astype(numpy.float32),
        }

    return Answerer(SPEC, centres.shape[1], predict).answer


def load_centres(folder: Path) -> numpy.ndarray:
    """(k, width) of float32. Raises `ClientError` if there are none that can be read."""
    try:
        arrays = list(read_array_file(folder / MODEL_NAME).values())
    except FileNotFoundError:
        raise ClientError(f"The model archive holds no model file ({MODEL_NAME}).") from None
    except ValueError as error:
        raise ClientError(f"The model file {MODEL_NAME} cannot be read: {error}.") from None
    if len(arrays) != 1 or arrays[0].ndim != 2 or not arrays[0].size:
        shapes = ", ".join(str(array.shape) for array in arrays) or "none"
        raise ClientError(f"The model file {MODEL_NAME} must hold one matrix of centres; it holds {shapes}.")
    return numpy.ascontiguousarray(arrays[0], numpy.float32)
