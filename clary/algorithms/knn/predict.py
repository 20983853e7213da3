"""Answers requests with a k-NN model: the label, and if asked the neighbours' labels and distances."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy

from clary.algorithms.answers import Answerer
from clary.algorithms.entrypoint import Predictor
from clary.algorithms.knn.model import load_model
from clary.algorithms.knn.spec import SPEC
from clary.algorithms.records import Features


def load(model_directory: Path) -> Predictor:
    """See `clary.algorithms.entrypoint.load_predictor`."""
    model = load_model(model_directory)

    def predict(features: Features, verbose: bool) -> Mapping[str, numpy.ndarray]:
        found = model.predict(features)
        if not verbose:
            return {"predicted_label": found.values}
        return {"predicted_label": found.values, "distances": found.distances, "labels": found.labels}

    return Answerer(SPEC, model.settings.width, predict).answer
