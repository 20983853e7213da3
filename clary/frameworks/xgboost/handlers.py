"""What XGBoost's container does, in script mode, where the script defines no function of its own."""

from __future__ import annotations

import io
from typing import Any

from clary.frameworks.encoders import Unsupported, decode, encode, media_type


def input_fn(body: bytes | str, content_type: str) -> Any:
    """CSV, LIBSVM, JSON or npy to a ``DMatrix``."""
    import xgboost

    if media_type(content_type) in ("text/libsvm", "text/x-libsvm"):
        return xgboost.DMatrix(_libsvm(body))
    if media_type(content_type) == "application/x-recordio-protobuf":
        raise Unsupported(415, "RecordIO needs an input_fn of the script's own.")
    data = decode(body, content_type)
    return xgboost.DMatrix(data.reshape(1, -1) if data.ndim == 1 else data)


def predict_fn(data: Any, model: Any) -> Any:
    import xgboost

    if isinstance(model, xgboost.Booster):
        return model.predict(data, validate_features=False)
    return model.get_booster().predict(data, validate_features=False)


def output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    return encode(prediction, accept)


def _libsvm(body: bytes | str) -> Any:
    from sklearn.datasets import load_svmlight_file

    lines = body.encode() if isinstance(body, str) else body
    labelled = b"\n".join(
        line if not line.split(b" ", 1)[0].count(b":") else b"0 " + line for line in lines.splitlines()
    )
    return load_svmlight_file(io.BytesIO(labelled))[0]
