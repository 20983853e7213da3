"""A trained model, or an ensemble of several, as it lies in a model folder."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import xgboost

from clary.algorithms.faults import ClientError, PredictionRefused
from clary.algorithms.xgboost.in_place import DensePredictor
from clary.algorithms.xgboost.library import booster_from, library_message
from clary.algorithms.xgboost.spec import MODEL_NAME

_VOTING = ("multi:softmax", "binary:hinge")  # their predictions are classes, which have no mean
_NO_MODELS = (".csv", ".md", ".py", ".txt")
_LONGEST_CAUSE = 300


class Model:
    """What predicts. ``width`` is the number of features; ``classes`` is 0 unless there are several."""

    def __init__(self, boosters: Sequence[Any]) -> None:
        self._boosters = boosters
        self.width = int(boosters[0].num_features())
        learner = json.loads(boosters[0].save_config())["learner"]
        self.objective = str(learner["objective"]["name"])
        self.classes = int(learner["learner_model_param"]["num_class"])
        # A linear model cannot predict in place.
        self._in_place = learner["gradient_booster"]["name"] != "gblinear"
        self._ranges = [_rounds_used(booster) for booster in boosters]
        self._dense = [
            DensePredictor(booster, *rounds) for booster, rounds in zip(boosters, self._ranges, strict=True)
        ]

    def predict(self, features: Any) -> Any:
        """(rows,), or (rows, classes) of probabilities; ``features`` is (rows, width), dense or sparse.

        Raises `PredictionRefused`.
        """
        try:
            if self._in_place and isinstance(features, numpy.ndarray):
                answers = [predict(features) for predict in self._dense]
            else:
                answers = [
                    self._one(booster, rounds, features)
                    for booster, rounds in zip(self._boosters, self._ranges, strict=True)
                ]
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise PredictionRefused(
                400, f"Unable to evaluate payload provided: {library_message(error)}"
            ) from None
        if len(answers) == 1:
            return answers[0]
        stacked = numpy.stack(answers)
        if self.objective not in _VOTING:
            return stacked.mean(axis=0)
        votes = [numpy.bincount(row.astype(numpy.int64)).argmax() for row in stacked.T]
        return numpy.array(votes, numpy.float32)

    def _one(self, booster: Any, rounds: tuple[int, int], features: Any) -> Any:
        if self._in_place:
            return booster.inplace_predict(features, iteration_range=rounds, validate_features=False)
        return booster.predict(xgboost.DMatrix(features), iteration_range=rounds, validate_features=False)


def load_model(folder: Path) -> Model:
    """The model in ``folder``. Raises `ClientError` if there is none, or one that cannot be read."""
    files = _model_files(folder)
    if not files:
        raise ClientError(f"The model archive holds no model file ({MODEL_NAME}).")
    if os.environ.get("SAGEMAKER_INFERENCE_ENSEMBLE", "true").strip().lower() == "false":
        files = files[:1]
    return Model([_booster(path) for path in files])


def _model_files(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    named = [path for path in found if path.name.startswith(MODEL_NAME)]
    return named or [path for path in found if path.suffix.lower() not in _NO_MODELS]


def _booster(path: Path) -> Any:
    """The newer versions write the library's own format, the old ones wrote pickles."""
    data = path.read_bytes()
    try:
        booster = booster_from(data)
    except ValueError as native:
        if data[:1] != b"\x80":
            cause = str(native)[-_LONGEST_CAUSE:]
            raise ClientError(f"The model file {path.name} is no XGBoost model: {cause}") from None
        booster = _unpickled(data, path.name)
    # As the container has it: requests run beside one another, and threads cost one row more than they save.
    booster.set_param({"nthread": 1})
    return booster


def _unpickled(data: bytes, name: str) -> Any:
    try:
        # Runs code of whoever made the model, as the container does; it is why this runs in the sandbox.
        found = pickle.loads(data)
    except Exception as error:
        raise ClientError(
            f"The model file {name} is a pickle that cannot be read here ({type(error).__name__}: "
            f"{str(error)[:_LONGEST_CAUSE]}). Load it with the version that wrote it, and save it with "
            "Booster.save_model."
        ) from error
    booster = found.get_booster() if hasattr(found, "get_booster") else found
    if not isinstance(booster, xgboost.Booster):
        raise ClientError(f"The model file {name} is a pickle of {type(found).__name__}, not of a Booster.")
    return booster


def _rounds_used(booster: Any) -> tuple[int, int]:
    """The rounds up to the best one, if early stopping has noted it; else all of them."""
    best = booster.attr("best_iteration")
    return (0, int(best) + 1) if best is not None and best.isdecimal() else (0, 0)
