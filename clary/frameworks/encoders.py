"""Bodies to arrays and arrays to bodies, as the inference toolkit has them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"


class Unsupported(Exception):
    """``status`` is the HTTP status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def media_type(content_type: str) -> str:
    return content_type.split(";")[0].strip().lower()


def decode(body: bytes | str, content_type: str) -> Any:
    """An array; JSON and CSV become 32-bit floats where they can. Raises `Unsupported`."""
    media = media_type(content_type or JSON)
    try:
        if media == JSON:
            return _as_floats(numpy.array(json.loads(body)))
        if media == CSV:
            text = body.decode() if isinstance(body, bytes) else body
            return _as_floats(numpy.genfromtxt(io.StringIO(text), delimiter=","))
        if media == NPY:
            data = body.encode("latin-1") if isinstance(body, str) else body
            return numpy.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, UnicodeDecodeError, EOFError) as error:
        raise Unsupported(400, f"The body is not {media}: {error}") from None
    raise Unsupported(415, f"Content type {content_type} is not supported; use {JSON}, {CSV} or {NPY}.")


def _as_floats(array: Any) -> Any:
    return array.astype(numpy.float32) if array.dtype.kind in "fiub" else array


def encode(prediction: Any, accept: str) -> tuple[bytes, str]:
    """The body and its content type; the first of the ``accept`` list that can be written."""
    for item in (accept or JSON).split(","):
        media = media_type(item)
        if media in (JSON, "*/*", ""):
            return json.dumps(_plain(prediction)).encode(), JSON
        if media == CSV:
            buffer = io.StringIO()
            array = numpy.atleast_1d(numpy.asarray(prediction))
            numpy.savetxt(buffer, array, delimiter=",", fmt="%s")
            return buffer.getvalue().encode(), CSV
        if media == NPY:
            raw = io.BytesIO()
            numpy.save(raw, numpy.asarray(prediction))
            return raw.getvalue(), NPY
    raise Unsupported(406, f"Accept type {accept} is not supported; use {JSON}, {CSV} or {NPY}.")


def _plain(value: Any) -> Any:
    """``value`` in types that JSON has."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
