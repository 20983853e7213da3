"""``SAGEMAKER_INFERENCE_OUTPUT``: replies with the values a caller selects, as the container has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

_BINARY = ("predicted_label", "labels", "raw_score", "raw_scores")
_PROBABILITY = (*_BINARY, "probability", "probabilities")
_SELECTABLE: Mapping[str, Sequence[str]] = {
    "binary:logistic": _PROBABILITY,
    "multi:softprob": _PROBABILITY,
    "binary:logitraw": _BINARY,
    "binary:hinge": _BINARY,
    "multi:softmax": _BINARY,
}

Selected = Mapping[str, Any]


def selected_outputs(
    predictions: Any, keys: Sequence[str], objective: str, classes: int
) -> Sequence[Selected]:
    """A mapping of ``keys`` a row; what the objective does not give is NaN."""
    possible = _SELECTABLE.get(objective, ("predicted_score",))
    rows = []
    for prediction in predictions:
        known = _outputs(prediction, objective, classes)
        rows.append({key: known[key] if key in possible else float("nan") for key in keys})
    return rows


def _outputs(prediction: Any, objective: str, classes: int) -> Selected:
    if objective == "multi:softprob":
        shares = [float(share) for share in prediction]
        likeliest = int(numpy.argmax(prediction))
        return {
            "predicted_label": likeliest,
            "labels": list(range(len(shares))),
            "probability": shares[likeliest],
            "probabilities": shares,
            "raw_score": shares[likeliest],
            "raw_scores": shares,
        }
    value = float(prediction)
    if objective not in _SELECTABLE:
        return {"predicted_score": value}
    label: float = value
    if objective in ("binary:logistic", "binary:logitraw"):
        label = int(value > (0.5 if objective == "binary:logistic" else 0.0))
    both = [1.0 - value, value]
    return {
        "predicted_label": label,
        "labels": list(range(max(2, classes))),
        "probability": value,
        "probabilities": both,
        "raw_score": value,
        "raw_scores": both,
    }


def selected_csv(rows: Sequence[Selected], keys: Sequence[str]) -> str:
    """A line a row, values in the asked order, lists in quotes."""
    return "\n".join(",".join(_csv_value(row[key]) for key in keys) for row in rows)


def _csv_value(value: Any) -> str:
    return f'"{json.dumps(value)}"' if isinstance(value, list) else str(value)
