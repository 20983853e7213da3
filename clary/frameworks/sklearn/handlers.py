"""What scikit-learn's container does where the script defines no function of its own."""

from __future__ import annotations

from typing import Any

from clary.frameworks.encoders import decode, encode


def input_fn(body: bytes | str, content_type: str) -> Any:
    """JSON, CSV or npy to an array; numbers of texts are 32-bit floats."""
    return decode(body, content_type)


def predict_fn(data: Any, model: Any) -> Any:
    return model.predict(data)


def output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    return encode(prediction, accept)
