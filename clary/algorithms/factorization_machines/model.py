"""The trained model as it lies in a model folder: a zip with the files that SageMaker's own has.

``params`` has the arrays ``arg:w0_weight`` (1, 1), ``arg:w1_weight`` (features, 1) and ``arg:v``
(features, factors) in MXNet's format; ``symbol.json`` says what they are of.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import csr_matrix

from clary.algorithms.factorization_machines.spec import MODEL_NAME
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.model_archive import UNREADABLE, read_part
from clary.algorithms.formats.ndarrays import read_arrays, write_arrays
from clary.algorithms.records import Features

Array = numpy.typing.NDArray[Any]

_PARAMETERS, _SYMBOL = "params", "symbol.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model is the same file
_LARGEST_PART_BYTES = 1 << 34


@dataclass(frozen=True)
class Model:
    """``bias`` (1,), ``linear`` (features,) and ``factors`` (features, factors) are float32."""

    binary: bool
    bias: Array
    linear: Array
    factors: Array

    @property
    def features(self) -> int:
        return len(self.linear)

    def raw_scores(self, features: Features) -> Array:
        """(rows,)."""
        rows = csr_matrix(features)
        sums = rows @ self.factors
        own = rows.multiply(rows) @ (self.factors**2).sum(axis=1)
        return numpy.asarray(rows @ self.linear + self.bias[0] + ((sums**2).sum(axis=1) - own) / 2)

    def save(self, folder: Path) -> None:
        """As one file that is whole or not there."""
        arrays = {
            "arg:w0_weight": self.bias[:, None],
            "arg:w1_weight": self.linear[:, None],
            "arg:v": self.factors,
        }
        symbol = {
            "predictor_type": "binary_classifier" if self.binary else "regressor",
            "arrays": {"w0_weight": "bias", "w1_weight": "linear weights", "v": "factors"},
        }
        unfinished = folder / f".{MODEL_NAME}.part"
        with zipfile.ZipFile(unfinished, "w") as archive:
            archive.writestr(zipfile.ZipInfo(_SYMBOL, _EPOCH), json.dumps(symbol, indent=2))
            with archive.open(zipfile.ZipInfo(_PARAMETERS, _EPOCH), "w", force_zip64=True) as file:
                file.write(write_arrays(arrays))
        unfinished.replace(folder / MODEL_NAME)


def load_model(folder: Path) -> Model:
    """Raises `ClientError` for a folder without a model, or one that cannot be read."""
    path = folder / MODEL_NAME
    if not path.is_file():
        raise ClientError(f"The model archive holds no model file ({MODEL_NAME}).")
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = read_arrays(read_part(archive, _PARAMETERS, _LARGEST_PART_BYTES))
            symbol = json.loads(read_part(archive, _SYMBOL, _LARGEST_PART_BYTES))
        bias, linear, factors = arrays["arg:w0_weight"], arrays["arg:w1_weight"], arrays["arg:v"]
        if bias.size != 1 or linear.size != len(factors) or factors.ndim != 2:
            raise ValueError(f"arrays of {bias.shape}, {linear.shape} and {factors.shape} do not go together")
        return Model(
            symbol["predictor_type"] == "binary_classifier",
            bias.reshape(1).astype(numpy.float32),
            linear.reshape(-1).astype(numpy.float32),
            factors.astype(numpy.float32),
        )
    except UNREADABLE as error:
        raise ClientError(
            f"The model file {MODEL_NAME} is no Factorization Machines model of Clary's: {error}"
        ) from None
