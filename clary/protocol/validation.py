"""A request's members against their shape, with the errors in AWS's words.

All errors are found before the request is refused, and told in one message:
``2 validation errors detected: Value 'x' at 'a.b' failed to satisfy constraint: Member must ...; Value ...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.model import Shape

from clary.faults import Invalid
from clary.protocol.patterns import compiled

MAX_ERRORS_TOLD = 10
MAX_VALUE_SHOWN = 1024
# A pattern is tried on texts up to this length only: some of the models' patterns take time that grows
# with a power of it. Longer texts all break a length limit that the shape has as well, or are free text.
MAX_PATTERN_TEXT = 65_536


def validate(shape: Shape, members: Mapping[str, Any]) -> None:
    """Raises `Invalid` (``ValidationException`` or what the service calls it) if a constraint is broken."""
    errors = []
    for error in _structure(shape, members, ""):
        errors.append(error)
        if len(errors) == MAX_ERRORS_TOLD:
            break
    if errors:
        count = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''} detected"
        raise Invalid(f"{count}: {'; '.join(errors)}")


def _structure(shape: Shape, members: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if members.get(name) is None:
            yield _broken(None, _join(path, name), "Member must not be null")
    if getattr(shape, "is_tagged_union", False) and members and len(members) != 1:
        yield _broken(sorted(members), path or shape.name, "Exactly one member must be set")
    for name, member in shape.members.items():
        value = members.get(name)
        if value is not None:
            yield from _value(member, value, _join(path, name))


def _join(path: str, name: str) -> str:
    member = name[:1].lower() + name[1:]
    return f"{path}.{member}" if path else member


def _value(shape: Shape, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "structure":
        if isinstance(value, Mapping) and not getattr(shape, "is_document_type", False):
            yield from _structure(shape, value, path)
    elif kind == "list":
        for constraint in _size(shape, len(value)):
            yield _broken(value, path, constraint)
        if shape.member.type_name in ("structure", "list", "map"):
            for number, item in enumerate(value, 1):
                yield from _value(shape.member, item, f"{path}.{number}.member")
        else:
            yield from _inner(shape.member, value, value, path, "Member must satisfy constraint")
    elif kind == "map":
        for constraint in _size(shape, len(value)):
            yield _broken(value, path, constraint)
        yield from _inner(shape.key, value, value, path, "Map keys must satisfy constraint")
        if shape.value.type_name in ("structure", "list", "map"):
            for key, item in value.items():
                yield from _value(shape.value, item, f"{path}.{key}.member")
        else:
            yield from _inner(shape.value, value.values(), value, path, "Map value must satisfy constraint")
    else:
        for constraint in _scalar(shape, value):
            yield _broken(value, path, constraint)


def _inner(shape: Shape, items: Any, whole: Any, path: str, words: str) -> Iterator[str]:
    """Constraints on the scalars inside a list or map are told once, all together."""
    if any(True for item in items for _ in _scalar(shape, item)):
        yield _broken(whole, path, f"{words}: [{', '.join(_all_constraints(shape))}]")


def _scalar(shape: Shape, value: Any) -> Iterator[str]:
    kind = shape.type_name
    if kind in ("string", "blob"):
        if isinstance(value, (str, bytes, bytearray)):
            limits = list(_size(shape, len(value)))
            yield from limits
            if kind == "string" and isinstance(value, str):
                enum = shape.metadata.get("enum")
                if enum and value not in enum:
                    yield _enum_words(enum)
                pattern = shape.metadata.get("pattern")
                if pattern and (len(value) > MAX_PATTERN_TEXT or not _matches(pattern, value)):
                    yield f"Member must satisfy regular expression pattern: {pattern}"
    elif kind in ("integer", "long", "float", "double"):
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        if low is not None and value < low:
            yield f"Member must have value greater than or equal to {low}"
        if high is not None and value > high:
            yield f"Member must have value less than or equal to {high}"


def _matches(pattern: str, value: str) -> bool:
    return re.fullmatch(compiled(pattern), value) is not None


def _size(shape: Shape, length: int) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and length < low:
        yield f"Member must have length greater than or equal to {low}"
    if high is not None and length > high:
        yield f"Member must have length less than or equal to {high}"


def _all_constraints(shape: Shape) -> Iterator[str]:
    metadata = shape.metadata
    words = "length" if shape.type_name in ("string", "blob") else "value"
    if "max" in metadata:
        yield f"Member must have {words} less than or equal to {metadata['max']}"
    if "min" in metadata:
        yield f"Member must have {words} greater than or equal to {metadata['min']}"
    if "pattern" in metadata:
        yield f"Member must satisfy regular expression pattern: {metadata['pattern']}"
    if "enum" in metadata:
        yield _enum_words(metadata["enum"])


def _enum_words(enum: list[str]) -> str:
    return f"Member must satisfy enum value set: [{', '.join(enum)}]"


def _broken(value: Any, path: str, constraint: str) -> str:
    return f"Value {_shown(value)} at '{path}' failed to satisfy constraint: {constraint}"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, (bytes, bytearray)):
        text = f"({len(value)} bytes)"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}={_bare(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(_bare(item) for item in value) + "]"
    else:
        text = str(value)
    return f"'{text if len(text) <= MAX_VALUE_SHOWN else text[:MAX_VALUE_SHOWN] + '...'}'"


def _bare(value: Any) -> str:
    return _shown(value)[1:-1] if value is not None else "null"
