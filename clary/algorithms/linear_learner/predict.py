"""Answers requests with a trained Linear Learner model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy

from clary.algorithms.answers import Answerer
from clary.algorithms.entrypoint import Predictor
from clary.algorithms.linear_learner.model import load_model
from clary.algorithms.linear_learner.spec import SPEC
from clary.algorithms.records import Features


def load(model_directory: Path) -> Predictor:
    """See `clary.algorithms.entrypoint.load_predictor`."""
    model = load_model(model_directory)

    def predict(features: Features, verbose: bool) -> Mapping[str, numpy.ndarray]:
        scores, labels = model.answers(features)
        return {"score": scores} if labels is None else {"score": scores, "predicted_label": labels}

    return Answerer(SPEC, model.features, predict).answer
