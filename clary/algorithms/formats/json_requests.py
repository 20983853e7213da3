"""Requests in JSON and JSON Lines, as the built-in algorithms that take them share them.

An instance is dense (``{"features": [1.5, 16]}``, or long, ``{"data": {"features": {"values": [1.5, 16]}}}``)
or sparse (``keys`` and ``shape`` beside ``values``); kinds may be mixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.content_type import JSON_LINES
from clary.algorithms.formats.recordio import Tensor

HIGHEST_KEY = 2**31 - 2


@dataclass(frozen=True)
class JsonRequest:
    """``instances`` in order; ``configuration`` is what the request says besides."""

    instances: Sequence[Tensor]
    configuration: Mapping[str, Any]


def read_json(body: bytes, media: str) -> JsonRequest:
    """The instances of a request of type ``media`` (application/json or application/jsonlines).

    Raises `ClientError` naming the instance, or line, that will not do.
    """
    if media == JSON_LINES:
        numbered = enumerate(body.splitlines(), 1)
        lines = {number: line for number, line in numbered if line.strip()}
        if not lines:
            raise ClientError("The request holds no instances.")
        tensors = [
            _instance(_parsed(line, f"line {number}"), f"line {number}") for number, line in lines.items()
        ]
        return JsonRequest(tensors, {})
    document = _parsed(body, "request")
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        raise ClientError('The request must be an object with a list of "instances" that is not empty.')
    configuration = document.get("configuration", {})
    if not isinstance(configuration, dict):
        raise ClientError('"configuration" must be an object.')
    return JsonRequest(
        [_instance(each, f"instance {number}") for number, each in enumerate(instances, 1)], configuration
    )


def _parsed(text: bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClientError(f"{place}: this is not JSON ({error}).") from None


def _instance(value: Any, place: str) -> Tensor:
    if isinstance(value, dict) and isinstance(value.get("data"), dict):
        value = value["data"]
    features = value.get("features") if isinstance(value, dict) else None
    if isinstance(features, list):
        return Tensor(_vector(features, place, '"features"'))
    if not isinstance(features, dict) or not isinstance(features.get("values"), list):
        raise ClientError(
            f'{place}: it must have "features", a list of numbers or an object with a list "values".'
        )
    values = _vector(features["values"], place, '"values"')
    if "keys" not in features:
        return Tensor(values)
    keys, shape = features["keys"], features.get("shape")
    if not (
        isinstance(shape, list)
        and len(shape) == 1
        and type(shape[0]) is int
        and 0 < shape[0] <= HIGHEST_KEY + 1
    ):
        raise ClientError(f'{place}: sparse features need "shape", a list of one whole number.')
    if not isinstance(keys, list) or not all(type(key) is int and 0 <= key < shape[0] for key in keys):
        raise ClientError(f'{place}: "keys" must be whole numbers from 0 to {shape[0] - 1}.')
    if len(keys) != len(values):
        raise ClientError(f"{place}: there are {len(keys)} keys for {len(values)} values.")
    return Tensor(values, numpy.array(keys, numpy.int64), (shape[0],))


def _vector(values: list[Any], place: str, what: str) -> Any:
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values):
        raise ClientError(f"{place}: {what} must be numbers only.")
    try:
        return numpy.array(values, numpy.float32)
    except OverflowError:
        raise ClientError(f"{place}: {what} has a number that is too large.") from None
