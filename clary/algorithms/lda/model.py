"""The trained topics as they lie in a model folder: MXNet's file of ``alpha`` and ``beta``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import numpy.typing

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file, write_arrays
from clary.algorithms.lda.spec import MODEL_NAME

Array = numpy.typing.NDArray[Any]


@dataclass(frozen=True)
class Model:
    """``alpha`` (topics,) is the prior, ``beta`` (topics, words) how likely each topic's words are."""

    alpha: Array
    beta: Array

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{MODEL_NAME}.part"
        arrays = {"alpha": self.alpha.astype(numpy.float32), "beta": self.beta.astype(numpy.float32)}
        unfinished.write_bytes(write_arrays(arrays))
        unfinished.replace(folder / MODEL_NAME)


def load_model(folder: Path) -> Model:
    """Topics that were taken out of both arrays are gone, and the rest of a topic's words then add up to one
    again. Raises `ClientError`."""
    try:
        arrays = read_array_file(folder / MODEL_NAME)
    except FileNotFoundError:
        raise ClientError(f"The model archive holds no model file ({MODEL_NAME}).") from None
    except ValueError as error:
        raise ClientError(f"The model file {MODEL_NAME} cannot be read: {error}.") from None
    if not {"alpha", "beta"} <= set(arrays):
        raise ClientError(
            f"The model file {MODEL_NAME} must hold 'alpha' and 'beta'; it holds {list(arrays)}."
        )
    alpha, beta = arrays["alpha"].reshape(-1).astype(numpy.float64), arrays["beta"].astype(numpy.float64)
    if beta.ndim != 2 or not beta.size or len(beta) != len(alpha):
        raise ClientError(
            f"The model file {MODEL_NAME} has alpha of shape {arrays['alpha'].shape} and beta of shape "
            f"{beta.shape}; they must be (topics,) and (topics, words)."
        )
    sums = beta.sum(axis=1, keepdims=True)
    if not (
        numpy.isfinite(alpha).all()
        and numpy.isfinite(sums).all()
        and (alpha > 0).all()
        and (beta >= 0).all()
        and (sums > 0).all()
    ):
        raise ClientError(
            f"The model file {MODEL_NAME} holds numbers that are no topics: alpha must be positive, and beta "
            "0 or more with something positive in every row."
        )
    return Model(alpha, beta / sums)
