"""What XGBoost's container does, in script mode, where the script defines no function of its own."""

from __future__ import annotations

import io
from typing import Any

import numpy

from clary.frameworks.encoders import CSV, Unsupported, encode, media_type, read_csv

LIBSVM = ("text/libsvm", "text/x-libsvm")


def input_fn(body: bytes | str, content_type: str) -> Any:
    """CSV or LIBSVM, without labels, to a ``DMatrix``; an empty CSV field is a missing value."""
    import xgboost

    media = media_type(content_type)
    try:
        if media == CSV:
            data = numpy.asarray(read_csv(body), numpy.float32)
            return xgboost.DMatrix(data.reshape(1, -1) if data.ndim < 2 else data)
        if media in LIBSVM:
            return xgboost.DMatrix(_read_libsvm(body))
    except (ValueError, TypeError) as error:
        raise Unsupported(400, f"The body is not {media}: {error}") from None
    raise Unsupported(
        415,
        f"Content type {content_type} is not supported without an input_fn in the script; "
        f"use {CSV} or {LIBSVM[0]}.",
    )


def predict_fn(data: Any, model: Any) -> Any:
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    return booster.predict(data, validate_features=False)


def output_fn(prediction: Any, accept: str) -> tuple[bytes, str]:
    return encode(prediction, accept)


def _read_libsvm(body: bytes | str) -> Any:
    """Rows of ``index:value``, indices as they stand; a label is passed over. Raises ``ValueError``."""
    from sklearn.datasets import load_svmlight_file

    lines = (body.encode() if isinstance(body, str) else body).strip().splitlines()
    labelled = b"\n".join(
        line if b":" not in line.split(None, 1)[0] else b"0 " + line for line in lines if line
    )
    return load_svmlight_file(io.BytesIO(labelled), zero_based=True)[0]
