"""Bodies to arrays and arrays to bodies, as the inference toolkit has them."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy

JSON, CSV, NPY, NPZ = "application/json", "text/csv", "application/x-npy", "application/x-npz"
ANY = "*/*"


class Unsupported(Exception):
    """A body or a reply type that cannot be; ``status`` is the HTTP status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def media_type(content_type: str) -> str:
    """``Text/CSV; charset=utf-8`` as ``text/csv``."""
    return content_type.partition(";")[0].strip().lower()


def is_text(content_type: str) -> bool:
    """Whether bodies of this type reach the user's functions as ``str``."""
    return media_type(content_type) in (JSON, CSV)


def decode(body: bytes | str, content_type: str) -> Any:
    """An array, or a sparse matrix for npz. Raises `Unsupported`."""
    media = media_type(content_type or JSON)
    reader = {JSON: _read_json, CSV: read_csv, NPY: _read_npy, NPZ: _read_npz}.get(media)
    if reader is None:
        offered = ", ".join((JSON, CSV, NPY, NPZ))
        raise Unsupported(415, f"Content type {content_type} is not supported; use one of {offered}.")
    try:
        return reader(body)
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise Unsupported(400, f"The body is not {media}: {error}") from None


def read_csv(body: bytes | str) -> Any:
    """(rows, columns), or one dimension for a single row or column, as numpy's genfromtxt gives it.

    Numbers are 64-bit floats, an empty field NaN; where any field is something else, all are texts.
    Raises ``ValueError``.
    """
    text = (body.decode("utf-8") if isinstance(body, bytes) else body).strip("\r\n")
    if not text.strip():
        raise ValueError("it is empty")
    lines = text.splitlines()
    array = _plain_numbers(lines)
    if array is None:
        rows = [row for row in csv.reader(lines) if row]
        for number, row in enumerate(rows, 1):
            if len(row) != len(rows[0]):
                raise ValueError(f"row {number} has {len(row)} columns, the first one {len(rows[0])}")
        try:
            array = numpy.array(
                [[float(each) if each.strip() else numpy.nan for each in row] for row in rows]
            )
        except ValueError:
            array = numpy.array(rows)
    return array.ravel() if 1 in array.shape else array


def _plain_numbers(lines: Sequence[str]) -> Any:
    """(rows, columns) of lines with nothing but numbers, fast; ``None`` for any others."""
    separators = lines[0].count(",")
    if any(line.count(",") != separators for line in lines):
        return None
    with warnings.catch_warnings():
        # What older numpys cannot read, they read up to, and warn: the count tells.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            values = numpy.fromstring(",".join(lines), numpy.float64, sep=",")
        except ValueError:
            return None
    whole = values.size == len(lines) * (separators + 1)
    return values.reshape(len(lines), separators + 1) if whole else None


def _read_json(body: bytes | str) -> Any:
    return numpy.array(json.loads(body))


def _read_npy(body: bytes | str) -> Any:
    return numpy.load(_binary(body), allow_pickle=False)


def _read_npz(body: bytes | str) -> Any:
    from scipy import sparse

    return sparse.load_npz(_binary(body))


def _binary(body: bytes | str) -> io.BytesIO:
    return io.BytesIO(body.encode("latin-1") if isinstance(body, str) else body)


def encode(prediction: Any, accept: str) -> tuple[bytes, str]:
    """The body and its content type: the first of the ``accept`` list that can be written.

    Raises `Unsupported`.
    """
    for item in (accept or JSON).split(","):
        media = media_type(item)
        if media in (JSON, ANY, ""):
            return json.dumps(_plain(prediction)).encode(), JSON
        if media == CSV:
            buffer = io.StringIO()
            numpy.savetxt(buffer, numpy.atleast_1d(numpy.asarray(prediction)), delimiter=",", fmt="%s")
            return buffer.getvalue().encode(), CSV
        if media == NPY:
            raw = io.BytesIO()
            numpy.save(raw, numpy.asarray(prediction), allow_pickle=False)
            return raw.getvalue(), NPY
    raise Unsupported(406, f"Accept type {accept} is not supported; use one of {JSON}, {CSV}, {NPY}.")


def _plain(value: Any) -> Any:
    """``value`` in types that JSON has."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
