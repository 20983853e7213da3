"""Answers requests with a Random Cut Forest: the anomaly score of each record, high for the unlikely ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy
from scipy.sparse import issparse

from clary.algorithms.answers import Answerer
from clary.algorithms.entrypoint import Predictor
from clary.algorithms.randomcutforest.model import load_forest
from clary.algorithms.randomcutforest.spec import SPEC
from clary.algorithms.records import Features


def load(model_directory: Path) -> Predictor:
    """See `clary.algorithms.entrypoint.load_predictor`."""
    forest = load_forest(model_directory)
    forest.prepare()

    def predict(features: Features, verbose: bool) -> Mapping[str, numpy.ndarray]:
        points = features.toarray() if issparse(features) else features
        return {"score": forest.scores(points)}

    return Answerer(SPEC, forest.width, predict, "scores").answer
