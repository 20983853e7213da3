"""Answers requests with the mixture of topics of each document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy

from clary.algorithms.answers import Answerer
from clary.algorithms.entrypoint import Predictor
from clary.algorithms.faults import ClientError, PredictionRefused
from clary.algorithms.lda.documents import as_counts
from clary.algorithms.lda.model import load_model
from clary.algorithms.lda.spec import SPEC
from clary.algorithms.lda.topics import mixtures
from clary.algorithms.records import Features


def load(model_directory: Path) -> Predictor:
    """See `clary.algorithms.entrypoint.load_predictor`."""
    model = load_model(model_directory)

    def predict(features: Features, verbose: bool) -> Mapping[str, numpy.ndarray]:
        try:
            counts = as_counts(features, lambda row: f"document {row + 1}")
        except ClientError as error:
            raise PredictionRefused(400, str(error)) from None
        return {"topic_mixture": mixtures(counts, model.alpha, model.beta)}

    return Answerer(SPEC, model.beta.shape[1], predict).answer
