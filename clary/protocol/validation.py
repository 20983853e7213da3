"""A request's members against their shape, with the errors in AWS's words.

All that is wrong is told in one message: ``2 validation errors detected: Value 'x' at 'a.b' failed to satisfy
constraint: Member must ...; Value ...``. A shape is turned into checks once, when it is first met, so that a
request costs little more than the look at each of its values.
"""

from __future__ import annotations

import contextlib
import operator
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from botocore.model import Shape

from clary.faults import Invalid
from clary.protocol.patterns import compiled

MAX_ERRORS_TOLD = 10
MAX_VALUE_SHOWN = 256
# No text that has a pattern may be longer in any model; and no pattern is tried on one that is.
MAX_PATTERN_TEXT = 1024**2

NOT_NULL = "Member must not be null"


class ConstraintViolation(Invalid):
    """Members break constraints of their shapes. ``members`` are the input's own members that hold them."""

    def __init__(self, message: str, members: frozenset[str]) -> None:
        super().__init__(message)
        self.members = members


def validate(shape: Shape, members: Mapping[str, Any]) -> None:
    """Check the members of an input. Raises `ConstraintViolation`. Members the shape has not are ignored."""
    findings = _Findings()
    check = _checks.get(shape)
    if check is None:
        check = _checks[shape] = _Structure(shape)
    with contextlib.suppress(_Enough):  # the rest is left untold
        check.look(members, "", findings)
    if findings.errors:
        count = len(findings.errors)
        words = "1 validation error" if count == 1 else f"{count} validation errors"
        told = "; ".join(findings.errors)
        raise ConstraintViolation(f"{words} detected: {told}", frozenset(findings.roots))


class _Enough(Exception):
    """As many errors were found as will be told."""


class _Findings:
    def __init__(self) -> None:
        self.errors: list[str] = []
        self.roots: set[str] = set()
        self.root = ""

    def add(self, shown: str, path: str, constraint: str) -> None:
        self.roots.add(self.root)
        self.errors.append(f"Value {shown}at '{path}' failed to satisfy constraint: {constraint}")
        if len(self.errors) == MAX_ERRORS_TOLD:
            raise _Enough


Broken: TypeAlias = "Callable[[Any], Iterator[str]]"


class _Structure:
    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._required = tuple((name, _camel(name)) for name in shape.required_members)
        self._is_union = bool(getattr(shape, "is_tagged_union", False))
        self._is_document = bool(getattr(shape, "is_document_type", False))
        self._members: dict[str, tuple[str, _Check | None]] = {}

    def look(self, members: Mapping[str, Any], path: str, findings: _Findings) -> None:
        if self._is_document:
            return
        prefix = f"{path}." if path else ""
        for name, camel in self._required:
            if members.get(name) is None:
                if not path:
                    findings.root = name
                findings.add("null ", prefix + camel, NOT_NULL)
        if self._is_union and sum(value is not None for value in members.values()) != 1:
            choices = ", ".join(self._shape.members)
            constraint = f"Member must have exactly one of its members set: [{choices}]"
            findings.add(_quoted(members), path or _camel(self._shape.name), constraint)
        for name, value in members.items():
            if value is None:
                continue
            known = self._members.get(name)
            if known is None:
                known = self._members[name] = (_camel(name), self._check_of(name))
            camel, check = known
            if check is not None:
                if not path:
                    findings.root = name
                check.look(value, prefix + camel, findings)

    def _check_of(self, name: str) -> _Check | None:
        member = self._shape.members.get(name)
        return None if member is None else _check(member)


class _List:
    """Scalars inside are told of together, as AWS does; structures one by one."""

    def __init__(self, shape: Shape) -> None:
        self._size = list(_size(shape, "length"))
        self._member: _Check | None = None
        self._scalar: _Scalar | None = None
        if shape.member.type_name in _NESTED:
            self._member = _check(shape.member)
        else:
            self._scalar = _Scalar(shape.member)

    def look(self, items: Any, path: str, findings: _Findings) -> None:
        for broken, constraint in self._size:
            if broken(len(items)):
                findings.add(_quoted(items), path, constraint)
        if self._scalar is not None:
            self._scalar.look_inside(items, items, path, "Member", findings)
            return
        for number, item in enumerate(items, 1):
            if item is None:
                findings.add("null ", f"{path}.{number}.member", NOT_NULL)
            elif self._member is not None:
                self._member.look(item, f"{path}.{number}.member", findings)


class _Map:
    def __init__(self, shape: Shape) -> None:
        self._size = list(_size(shape, "length"))
        self._key = _Scalar(shape.key)
        self._value: _Check | None = None
        self._scalar: _Scalar | None = None
        if shape.value.type_name in _NESTED:
            self._value = _check(shape.value)
        else:
            self._scalar = _Scalar(shape.value)

    def look(self, entries: Any, path: str, findings: _Findings) -> None:
        for broken, constraint in self._size:
            if broken(len(entries)):
                findings.add(_quoted(entries), path, constraint)
        self._key.look_inside(entries, entries, path, "Map keys", findings)
        if self._scalar is not None:
            self._scalar.look_inside(entries.values(), entries, path, "Map value", findings)
        elif self._value is not None:
            for key, value in entries.items():
                self._value.look(value, f"{path}.{key}.member", findings)


class _Scalar:
    """The constraints of one value: each is a test that says whether it is broken, and its words."""

    def __init__(self, shape: Shape) -> None:
        self._sensitive = bool(shape.metadata.get("sensitive"))
        # Of the size first: a pattern is not tried on a text that is longer than it may be.
        is_text = shape.type_name in ("string", "blob")
        self._limits = (
            [] if shape.type_name == "boolean" else list(_size(shape, "length" if is_text else "value"))
        )
        self._measure = len if is_text else _itself
        self._enum = frozenset(shape.metadata.get("enum") or ())
        self._enum_words = (
            f"Member must satisfy enum value set: [{', '.join(shape.metadata.get('enum') or ())}]"
        )
        self._pattern: str | None = shape.metadata.get("pattern") if shape.type_name == "string" else None

    def __bool__(self) -> bool:
        """Whether there is anything to check."""
        return bool(self._limits or self._enum or self._pattern)

    def look(self, value: Any, path: str, findings: _Findings) -> None:
        for constraint in self.broken(value):
            findings.add("" if self._sensitive else _quoted(value), path, constraint)

    def look_inside(self, items: Any, whole: Any, path: str, whose: str, findings: _Findings) -> None:
        """Check each of the scalars in a list or map; what is broken is told of the whole."""
        for item in items:
            if item is None:
                words = NOT_NULL
            elif any(True for _ in self.broken(item)):
                words = ", ".join(self._all_words())
            else:
                continue
            shown = "" if self._sensitive else _quoted(whole)
            findings.add(shown, path, f"{whose} must satisfy constraint: [{words}]")
            return

    def broken(self, value: Any) -> Iterator[str]:
        if isinstance(value, AsyncIterator):
            return  # a body that streams
        limits = [words for broken, words in self._limits if broken(self._measure(value))]
        yield from limits
        if self._enum and value not in self._enum:
            yield self._enum_words
        if self._pattern is not None and not limits and not _matches(self._pattern, value):
            yield self._pattern_words()

    def _pattern_words(self) -> str:
        return f"Member must satisfy regular expression pattern: {self._pattern}"

    def _all_words(self) -> Iterator[str]:
        yield from (words for _, words in reversed(self._limits))
        if self._pattern is not None:
            yield self._pattern_words()
        if self._enum:
            yield self._enum_words


_Check: TypeAlias = "_Structure | _List | _Map | _Scalar"
_NESTED: Mapping[str, Callable[[Shape], _Check]] = {"structure": _Structure, "list": _List, "map": _Map}
_checks: weakref.WeakKeyDictionary[Shape, _Structure] = weakref.WeakKeyDictionary()


def _check(shape: Shape) -> _Check | None:
    """What checks values of ``shape``; ``None`` if it has no constraints."""
    nested = _NESTED.get(shape.type_name)
    if nested is not None:
        return nested(shape)
    return _Scalar(shape) or None


def _matches(pattern: str, text: str) -> bool:
    return len(text) <= MAX_PATTERN_TEXT and compiled(pattern).fullmatch(text) is not None


def _itself(value: Any) -> Any:
    return value


def _size(shape: Shape, measured: str) -> Iterator[tuple[Callable[[Any], bool], str]]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None:
        yield partial(operator.gt, low), f"Member must have {measured} greater than or equal to {low}"
    if high is not None:
        yield partial(operator.lt, high), f"Member must have {measured} less than or equal to {high}"


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def _quoted(value: Any) -> str:
    text = _shown(value)
    if len(text) > MAX_VALUE_SHOWN:
        text = f"{text[:MAX_VALUE_SHOWN]}..."
    return f"'{text}' "


def _shown(value: Any) -> str:
    """``value`` as Java shows it, or the beginning of that."""
    if isinstance(value, str):
        return value[: MAX_VALUE_SHOWN + 1]
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping):
        return "{" + _beginning(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + _beginning(_shown(item) for item in value) + "]"
    return str(value)


def _beginning(pieces: Iterator[str]) -> str:
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size > MAX_VALUE_SHOWN:
            break
    return ", ".join(taken)
