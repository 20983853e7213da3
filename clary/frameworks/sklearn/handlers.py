"""What scikit-learn's container does where the script defines no function of its own."""

from __future__ import annotations

from typing import Any

import numpy

from clary.frameworks.encoders import Unsupported, decode, encode, is_text


def input_fn(body: bytes | str, content_type: str) -> Any:
    """JSON, CSV, npy or npz to an array; what came as text is made of 32-bit floats."""
    data = decode(body, content_type)
    if not is_text(content_type):
        return data
    try:
        return data.astype(numpy.float32)
    except (ValueError, TypeError) as error:
        raise Unsupported(
            400, f"The body does not hold numbers only ({error}); reading it needs an input_fn in the script."
        ) from None


def predict_fn(data: Any, model: Any) -> Any:
    """``model.predict``; a single row becomes a matrix first, or a column if the model has one feature."""
    if getattr(data, "ndim", 2) == 1:
        data = data.reshape((-1, 1) if getattr(model, "n_features_in_", 0) == 1 else (1, -1))
    return model.predict(data)


def output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    return encode(prediction, accept)
