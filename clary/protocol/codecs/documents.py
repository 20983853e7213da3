"""Members as JSON and CBOR hold them: the walk along a shape that the two share.

They differ in three leaves only, the types that JSON does not have, which a `Leaves` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.model import Shape

from clary.protocol.codecs.codec import MAX_DEPTH, Unreadable
from clary.protocol.codecs.scalars import INTEGER_BITS, NOT_FINITE, checked, in_range


@dataclass(frozen=True)
class Leaves:
    """How a protocol holds what JSON has no type for. Readers raise `Unreadable`."""

    read_blob: Callable[[Any], bytes]
    write_blob: Callable[[bytes], Any]
    read_timestamp: Callable[[Any], float]
    write_timestamp: Callable[[Any], Any]
    write_float: Callable[[float], Any]


def read(shape: Shape, value: Any, leaves: Leaves, depth: int = MAX_DEPTH) -> Any:
    """``value`` in the types of ``shape``. Raises `Unreadable`."""
    if depth < 0:
        raise Unreadable(f"Values are nested more than {MAX_DEPTH} deep")
    kind = shape.type_name
    if kind == "string":
        if isinstance(value, str):
            return value
    elif kind == "structure":
        if isinstance(value, dict):
            return read_members(shape, value, leaves, depth)
    elif kind == "list":
        if isinstance(value, list):
            return _read_list(shape, value, leaves, depth)
    elif kind == "map":
        if isinstance(value, dict):
            return _read_map(shape, value, leaves, depth)
    elif kind == "boolean":
        if isinstance(value, bool):
            return value
    elif kind == "timestamp":
        return leaves.read_timestamp(value)
    elif kind == "blob":
        return leaves.read_blob(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind in ("float", "double"):
            return _as_float(value)
        if isinstance(value, int) or value.is_integer():
            return in_range(kind, int(value))
    elif kind in ("float", "double") and isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    elif kind == "character" and isinstance(value, str):
        return value
    raise _mismatch(kind, value)


def read_members(shape: Shape, document: dict[Any, Any], leaves: Leaves, depth: int = MAX_DEPTH) -> Any:
    """The members of a structure that travel in documents. Raises `Unreadable`."""
    if getattr(shape, "is_document_type", False):
        return document
    members = {}
    for name, member in shape.members.items():
        serialization = member.serialization
        value = document.get(serialization.get("name", name))
        if value is None or "location" in serialization:
            continue
        try:
            members[name] = read(member, value, leaves, depth - 1)
        except Unreadable as error:
            raise error.within(name) from None
    return members


def _read_list(shape: Shape, items: list[Any], leaves: Leaves, depth: int) -> list[Any]:
    member = shape.member
    values = []
    for item in items:
        try:
            values.append(None if item is None else read(member, item, leaves, depth - 1))
        except Unreadable as error:
            raise error.within(str(len(values) + 1)) from None
    return values


def _read_map(shape: Shape, entries: dict[Any, Any], leaves: Leaves, depth: int) -> dict[Any, Any]:
    value_shape = shape.value
    values = {}
    for key, item in entries.items():
        if not isinstance(key, str):
            raise _mismatch("string", key)
        if item is None:
            continue
        try:
            values[key] = read(value_shape, item, leaves, depth - 1)
        except Unreadable as error:
            raise error.within(key) from None
    return values


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        raise Unreadable("A number is out of the range of type double") from None


_GIVEN: Mapping[type, str] = {
    str: "STRING_VALUE",
    bool: "BOOLEAN_VALUE",
    int: "NUMBER_VALUE",
    float: "NUMBER_VALUE",
    bytes: "BINARY_VALUE",
    type(None): "NULL_VALUE",
}
_WANTED: Mapping[str, str] = {
    "string": "a String",
    "character": "a String",
    "integer": "an Integer",
    "long": "a Long",
    "float": "a Float",
    "double": "a Double",
    "boolean": "a Boolean",
}


def _mismatch(kind: str, value: Any) -> Unreadable:
    """What AWS says of a value of the wrong type."""
    if isinstance(value, dict):
        return Unreadable("Start of structure or map found where not expected")
    if isinstance(value, list):
        return Unreadable("Start of list found where not expected")
    if kind == "list":
        return Unreadable("Expected list or null")
    if kind in ("structure", "map"):
        return Unreadable("Expected structure or map, or null")
    given = _GIVEN.get(type(value), "A value of unknown type")
    wanted = _WANTED.get(kind, f"a {kind}")
    return Unreadable(f"{given} can not be converted to {wanted}")


def write(shape: Shape, value: Any, leaves: Leaves) -> Any:
    """``value`` cut down to ``shape``, as the protocol holds it. Raises ``TypeError``."""
    kind = shape.type_name
    if kind == "structure":
        if isinstance(value, Mapping):
            return write_members(shape, value, leaves)
    elif kind == "list":
        if isinstance(value, (list, tuple)):
            member = shape.member
            return [write(member, item, leaves) for item in value]
    elif kind == "map":
        if isinstance(value, Mapping):
            key_shape, value_shape = shape.key, shape.value
            return {
                checked(key_shape, key): write(value_shape, item, leaves)
                for key, item in value.items()
                if item is not None
            }
    elif kind == "timestamp":
        return leaves.write_timestamp(value)
    elif kind == "blob":
        return leaves.write_blob(checked(shape, value))
    elif kind in ("float", "double"):
        return leaves.write_float(checked(shape, value))
    elif kind in INTEGER_BITS or kind in _WANTED:
        return checked(shape, value)
    raise TypeError(f"{shape.name} is a {kind}, not {type(value).__name__}")


def write_members(shape: Shape, members: Mapping[str, Any], leaves: Leaves) -> Any:
    """The members of a structure that travel in documents, by their wire names."""
    if getattr(shape, "is_document_type", False):
        return dict(members)
    document = {}
    for name, member in shape.members.items():
        value = members.get(name)
        serialization = member.serialization
        if value is not None and "location" not in serialization and "eventstream" not in serialization:
            document[serialization.get("name", name)] = write(member, value, leaves)
    return document
