"""Answers requests with a trained Factorization Machines model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy

from clary.algorithms.answers import Answerer
from clary.algorithms.entrypoint import Predictor
from clary.algorithms.factorization_machines.model import load_model
from clary.algorithms.factorization_machines.spec import SPEC
from clary.algorithms.records import Features


def load(model_directory: Path) -> Predictor:
    """See `clary.algorithms.entrypoint.load_predictor`."""
    model = load_model(model_directory)

    def predict(features: Features, verbose: bool) -> Mapping[str, numpy.ndarray]:
        raw = model.raw_scores(features)
        if not model.binary:
            return {"score": raw}
        # Without overflow; half and more is 1.
        return {"score": (numpy.tanh(raw / 2) + 1) / 2, "predicted_label": (raw >= 0).astype(numpy.int64)}

    return Answerer(SPEC, model.features, predict).answer
