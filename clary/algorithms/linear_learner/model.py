"""The trained model as it lies in a model folder: a zip of the files that SageMaker's own has.

``mx-mod-0000.params`` has the arrays ``arg:fc0_weight`` (classes, features) and ``arg:fc0_bias`` (classes,)
in MXNet's format, for raw features; ``mx-mod-symbol.json`` is its graph; ``additional-params.json`` says the
rest.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.model_archive import UNREADABLE, read_part
from clary.algorithms.formats.ndarrays import read_arrays, write_arrays
from clary.algorithms.linear_learner.losses import sigmoid, softmax
from clary.algorithms.linear_learner.spec import MODEL_NAME

Array = numpy.typing.NDArray[Any]

_PARAMETERS, _SYMBOL, _MORE = "mx-mod-0000.params", "mx-mod-symbol.json", "additional-params.json"
_MANIFEST = "manifest.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model is the same file
_LARGEST_PART_BYTES = 1 << 33
_LABEL = "out_label"


@dataclass(frozen=True)
class Model:
    """``weights`` (features, classes), which 32 bits hold, and ``bias`` (classes,) are float64: where
    features are far from 0, both are large and nearly cancel.

    A binary model says 1 where its raw score is at least ``threshold``.
    """

    predictor_type: str
    loss: str
    weights: Array
    bias: Array
    threshold: float

    @property
    def features(self) -> int:
        return int(self.weights.shape[0])

    def raw_scores(self, features: Any) -> Array:
        """(rows, classes)."""
        return numpy.asarray(features @ self.weights + self.bias)

    def answers(self, features: Any) -> tuple[Array, Array | None]:
        """Scores, (rows,) or (rows, classes), and predicted labels (rows,), but for a regressor ``None``.

        A score is a probability where the loss gives one, else a margin.
        """
        raw = self.raw_scores(features)
        if self.predictor_type == "multiclass_classifier":
            return softmax(raw), raw.argmax(axis=1).astype(numpy.int64)
        if self.predictor_type == "regressor":
            return raw[:, 0], None
        scores = sigmoid(raw[:, 0]) if self.loss == "logistic" else raw[:, 0]
        return scores, (raw[:, 0] >= self.threshold).astype(numpy.int64)

    def save(self, folder: Path) -> None:
        """As one file that is whole or not there."""
        arrays = {
            "arg:fc0_weight": numpy.ascontiguousarray(self.weights.T, numpy.float32),
            "arg:fc0_bias": self.bias.astype(numpy.float32),
        }
        more = {
            "predictor_type": self.predictor_type,
            "loss": self.loss,
            "feature_dim": self.features,
            "num_classes": int(self.weights.shape[1]),
            "bias": self.bias.tolist(),
            "threshold": None if math.isinf(self.threshold) else self.threshold,
            "threshold_above_all": self.threshold == math.inf,
        }
        manifest = {"symbol": _SYMBOL, "params": _PARAMETERS, "data_names": ["data"], "label_names": [_LABEL]}
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, data in (
                (_SYMBOL, json.dumps(self._graph(), indent=2).encode()),
                (_PARAMETERS, write_arrays(arrays)),
                (_MORE, json.dumps(more, indent=2).encode()),
                (_MANIFEST, json.dumps(manifest, indent=2).encode()),
            ):
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
        path = folder / MODEL_NAME
        unfinished = path.with_name(f".{path.name}.part")
        unfinished.write_bytes(content.getvalue())
        unfinished.replace(path)

    def _graph(self) -> dict[str, object]:
        """One fully connected layer and its output, as MXNet writes a symbol."""
        output = {
            "binary_classifier": "LogisticRegressionOutput"
            if self.loss == "logistic"
            else "LinearRegressionOutput",
            "multiclass_classifier": "SoftmaxOutput",
            "regressor": "LinearRegressionOutput",
        }[self.predictor_type]
        layer = {"num_hidden": str(self.weights.shape[1])}
        return {
            "nodes": [
                {"op": "null", "name": "data", "inputs": []},
                {"op": "null", "name": "fc0_weight", "inputs": []},
                {"op": "null", "name": "fc0_bias", "inputs": []},
                {
                    "op": "FullyConnected",
                    "name": "fc0",
                    "attrs": layer,
                    "inputs": [[0, 0, 0], [1, 0, 0], [2, 0, 0]],
                },
                {"op": "null", "name": _LABEL, "inputs": []},
                {"op": output, "name": "out", "inputs": [[3, 0, 0], [4, 0, 0]]},
            ],
            "arg_nodes": [0, 1, 2, 4],
            "node_row_ptr": [0, 1, 2, 3, 4, 5, 6],
            "heads": [[5, 0, 0]],
            "attrs": {"mxnet_version": ["int", 10300]},
        }


def load_model(folder: Path) -> Model:
    """Raises `ClientError` for a folder without a model, or one that cannot be read."""
    path = folder / MODEL_NAME
    if not path.is_file():
        raise ClientError(f"The model archive holds no model file ({MODEL_NAME}).")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = read_arrays(read_part(archive, _PARAMETERS, _LARGEST_PART_BYTES))
            more = json.loads(read_part(archive, _MORE, _LARGEST_PART_BYTES))
        weights, bias = arrays["arg:fc0_weight"], numpy.array(more["bias"], numpy.float64)
        threshold = more["threshold"]
        if threshold is None:
            threshold = math.inf if more["threshold_above_all"] else -math.inf
        if weights.ndim != 2 or bias.shape != weights.shape[:1]:
            raise ValueError(
                f"weights of shape {weights.shape} and a bias of {bias.shape} do not go together"
            )
        return Model(
            str(more["predictor_type"]),
            str(more["loss"]),
            numpy.ascontiguousarray(weights.T.astype(numpy.float64)),
            bias,
            float(threshold),
        )
    except UNREADABLE as error:
        raise ClientError(
            f"The model file {MODEL_NAME} is no Linear Learner model of Clary's: {error}"
        ) from None
