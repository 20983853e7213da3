"""What is known of a metric by its name: which way is better, its best value, and what ignorance scores.

Names are those of the built-in algorithms, of scikit-learn and of what users' scripts print. A name that is
not known counts as a loss to be minimised towards nought, which most are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_MAXIMIZED = (
    "accuracy", "acc", "auc", "aucpr", "f1", "f1_macro", "f1_binary", "precision", "recall", "r2", "map",
    "ndcg", "balanced_accuracy",
)  # fmt: skip
_BINARY_LOSSES = ("logloss", "log_loss", "binary_crossentropy", "bce")
_CLASS_LOSSES = ("loss", "mlogloss", "cross_entropy", "crossentropy", "categorical_crossentropy", "nll")
_SQUARED = ("rmse", "rmsle")
_COUNTED = ("error", "merror", "accuracy", "acc", "balanced_accuracy", "precision", "recall")


@dataclass(frozen=True)
class MetricKind:
    """``ignorance`` is the error of a model that knows nothing, where the name (and the classes) tell it.

    ``floor`` is what it is at least. ``power`` makes an error of one that adds up (a root mean square must
    be squared). ``counted`` says that a value is a share of rows.
    """

    name: str
    maximize: bool
    ideal: float
    ignorance: float | None = None
    floor: float = 0.0
    power: float = 1.0
    counted: bool = False
    log_loss: bool = False


def metric_kind(name: str, hyperparameters: Mapping[str, str] | None = None) -> MetricKind:
    """What is known of the metric ``name`` (``validation:mlogloss``, ``test_accuracy``, ``loss``)."""
    plain = plain_name(name)
    classes = _classes(hyperparameters or {})
    maximize = plain in _MAXIMIZED
    ignorance: float | None = None
    floor = 0.0
    if plain in _BINARY_LOSSES:
        ignorance = math.log(2)
    elif plain in _CLASS_LOSSES:
        ignorance, floor = (math.log(classes) if classes else None), math.log(2)
    elif plain in ("auc", "error"):
        ignorance = 0.5
    elif plain in ("merror", "accuracy", "acc", "balanced_accuracy") and classes:
        ignorance = 1 - 1 / classes
    elif plain == "r2":
        ignorance = 1.0
    return MetricKind(
        name=plain,
        maximize=maximize,
        ideal=1.0 if maximize else 0.0,
        ignorance=ignorance,
        floor=floor,
        power=2.0 if plain in _SQUARED else 1.0,
        counted=plain in _COUNTED,
        log_loss=plain in _BINARY_LOSSES + _CLASS_LOSSES,
    )


def plain_name(name: str) -> str:
    """``name`` in lower case without the part that says whose rows: ``validation:rmse`` is ``rmse``."""
    return _PART.sub("", re.sub(r"[\s-]+", "_", name.strip().lower())).strip(":_/") or name.lower()


def part_of(name: str) -> str:
    """``train`` or ``validation``: whose rows the metric is of; empty if its name does not tell."""
    match = _PART.search(re.sub(r"[\s-]+", "_", name.strip().lower()))
    if not match:
        return ""
    return "train" if match.group("part").startswith("train") else "validation"


_PART = re.compile(r"(?:^|(?<=[:_/.]))(?P<part>training|train|validation|valid|val|eval|test)(?:[:_/.]|$)")


def _classes(hyperparameters: Mapping[str, str]) -> int:
    for name in ("num_class", "num_classes", "num-classes", "n_classes", "classes"):
        text = str(hyperparameters.get(name, "")).strip('"')
        if text.isdecimal() and int(text) > 1:
            return int(text)
    return 0
