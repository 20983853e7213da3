"""Values as JSON and CBOR hold them: the walk along a shape that both share.

The two differ in three leaves only (blob, timestamp, float), which a `Leaves` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.model import Shape

from clary.protocol.codecs.codec import MAX_DEPTH, unreadable


@dataclass(frozen=True)
class Leaves:
    """How a protocol holds what JSON has no type for."""

    read_blob: Callable[[object], bytes]
    write_blob: Callable[[object], object]
    read_timestamp: Callable[[object], float]
    write_timestamp: Callable[[object], object]
    write_float: Callable[[object], object]


_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "a string"),
    "character": ((str,), "a string"),
    "integer": ((int,), "a whole number"),
    "long": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "double": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
}


def read(shape: Shape, value: Any, leaves: Leaves, path: str = "", depth: int = 0) -> Any:
    """``value`` in the types of ``shape``. Raises `Invalid` naming the member whose type is wrong."""
    if depth > MAX_DEPTH:
        raise unreadable(f"The request nests values more than {MAX_DEPTH} deep.")
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        _expect(isinstance(value, dict), path, "an object", value)
        members = {}
        for name, member in shape.members.items():
            wire_name = member.serialization.get("name", name)
            if value.get(wire_name) is not None:
                inner = f"{path}.{name}" if path else name
                members[name] = read(member, value[wire_name], leaves, inner, depth + 1)
        return members
    if kind == "list":
        _expect(isinstance(value, list), path, "a list", value)
        return [
            read(shape.member, item, leaves, f"{path}.{number}", depth + 1)
            for number, item in enumerate(value, 1)
            if item is not None
        ]
    if kind == "map":
        _expect(isinstance(value, dict), path, "an object", value)
        return {
            read(shape.key, key, leaves, path, depth + 1): read(
                shape.value, item, leaves, f"{path}.{key}", depth + 1
            )
            for key, item in value.items()
            if item is not None
        }
    if kind == "blob":
        return leaves.read_blob(value)
    if kind == "timestamp":
        return leaves.read_timestamp(value)
    types, words = _KINDS[kind]
    if kind in ("float", "double") and isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    wrong_bool = isinstance(value, bool) and kind != "boolean"
    if kind in ("integer", "long") and isinstance(value, float) and value.is_integer():
        value = int(value)
    _expect(isinstance(value, types) and not wrong_bool, path, words, value)
    return float(value) if kind in ("float", "double") else value


def _expect(holds: bool, path: str, words: str, value: object) -> None:
    if not holds:
        shown = str(value)[:100]
        raise unreadable(f"'{path or 'the request'}' must be {words}, not {type(value).__name__} {shown}")


def write(shape: Shape, value: Any, leaves: Leaves) -> Any:
    """``value`` cut down to ``shape``, as the protocol holds it."""
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        return {
            member.serialization.get("name", name): write(member, value[name], leaves)
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if kind == "list":
        return [write(shape.member, item, leaves) for item in value]
    if kind == "map":
        return {key: write(shape.value, item, leaves) for key, item in value.items() if item is not None}
    if kind == "blob":
        return leaves.write_blob(value)
    if kind == "timestamp":
        return leaves.write_timestamp(value)
    if kind in ("float", "double"):
        return leaves.write_float(value)
    if kind in ("integer", "long"):
        return int(value)
    return bool(value) if kind == "boolean" else str(value)
