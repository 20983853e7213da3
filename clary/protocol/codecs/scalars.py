"""Single values as text: in paths, queries, headers, forms and XML."""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any

from botocore.model import Shape

from clary.protocol.codecs.codec import Unreadable, shortened
from clary.protocol.codecs.timestamps import as_text, read_timestamp

INTEGER_BITS = {"integer": 32, "long": 64}
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)


def read_scalar(shape: Shape, text: str) -> Any:
    """``text`` in the type of ``shape``. Raises `Unreadable`."""
    kind = shape.type_name
    if kind in ("string", "character"):
        return text
    if kind in INTEGER_BITS:
        if _INTEGER.fullmatch(text):
            return in_range(kind, int(text))
    elif kind == "boolean":
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif kind in ("float", "double"):
        if text in NOT_FINITE:
            return NOT_FINITE[text]
        if _FLOAT.fullmatch(text):
            return float(text)
    elif kind == "timestamp":
        return read_timestamp(text)
    elif kind == "blob":
        return read_base64(text)
    raise Unreadable(f"'{shortened(text)}' is not of type {kind}")


def in_range(kind: str, number: int) -> int:
    """``number`` if an ``integer`` or ``long`` can hold it. Raises `Unreadable`."""
    bits = INTEGER_BITS[kind]
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise Unreadable(f"{number} is out of the range of type {kind}")
    return number


def read_base64(text: str) -> bytes:
    """The bytes that ``text`` encodes; line breaks are allowed. Raises `Unreadable`."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("a blob must be base64 text") from None


def write_base64(value: bytes) -> str:
    """The base64 text of ``value``."""
    return base64.b64encode(value).decode("ascii")


def write_scalar(shape: Shape, value: Any, timestamp_form: str, *, always_fraction: bool = False) -> str:
    """``value`` as text. ``timestamp_form`` is for shapes that name none. Raises ``TypeError``."""
    kind = shape.type_name
    if kind == "timestamp":
        form = shape.serialization.get("timestampFormat", timestamp_form)
        return as_text(value, form, always_fraction=always_fraction)
    value = checked(shape, value)
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "blob":
        return write_base64(value)
    if kind in ("float", "double"):
        return write_not_finite(value) or repr(value)
    return str(value)


def write_not_finite(number: float) -> str | None:
    """The word for a number that is not finite; ``None`` for one that is."""
    if math.isfinite(number):
        return None
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def checked(shape: Shape, value: Any) -> Any:
    """A handler's value, if it is of the type of ``shape`` (timestamps apart). Raises ``TypeError``."""
    kind = shape.type_name
    if kind in ("string", "character"):
        if isinstance(value, str):
            return str.__str__(value)  # of a member of an enum, its value
    elif kind == "boolean":
        if isinstance(value, bool):
            return value
    elif kind in INTEGER_BITS:
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
    elif kind in ("float", "double"):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif kind == "blob" and isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{shape.name} is a {kind}, not {type(value).__name__}: {shortened(repr(value))}")
