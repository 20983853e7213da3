"""Content types: the media type, without case, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clary.algorithms.faults import ClientError

CSV, LIBSVM, PARQUET = "text/csv", "text/libsvm", "application/x-parquet"
RECORDIO, JSON, JSON_LINES = "application/x-recordio-protobuf", "application/json", "application/jsonlines"
_SHORT = {
    "csv": CSV,
    "libsvm": LIBSVM,
    "text/x-libsvm": LIBSVM,
    "parquet": PARQUET,
    "recordio-protobuf": RECORDIO,
    "application/vnd.apache.parquet": PARQUET,
}


def parse_content_type(text: str) -> tuple[str, Mapping[str, str]]:
    """``Text/CSV; label_size=1`` as ``("text/csv", {"label_size": "1"})``; short names are spelled out."""
    media, *rest = text.split(";")
    media = media.strip().lower()
    parameters = {}
    for item in rest:
        name, _, value = item.partition("=")
        if name.strip():
            parameters[name.strip().lower()] = value.strip().strip('"')
    return _SHORT.get(media, media), parameters


def label_size(parameters: Mapping[str, str], default: int) -> int:
    """The ``label_size`` parameter. Raises `ClientError` if it is no whole number."""
    value = parameters.get("label_size", str(default))
    if not value.isdecimal():
        raise ClientError(f"The content type's label_size must be a whole number, not '{value}'.")
    return int(value)


def accepted_type(accept: str, offered: Sequence[str], default: str) -> str | None:
    """The first media type of an Accept header that is offered; ``None`` if there is none.

    An empty header and ``*/*`` mean ``default``, ``application/*`` the first of its kind.
    """
    for item in (accept or "*/*").split(","):
        media, parameters = parse_content_type(item)
        if parameters.get("q") in ("0", "0.0"):
            continue
        if media in ("", "*/*"):
            media = parse_content_type(default)[0]
        family = media.removesuffix("*")
        for each in offered:
            if each == media or (media.endswith("/*") and each.startswith(family)):
                return each
    return None
