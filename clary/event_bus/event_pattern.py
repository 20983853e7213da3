"""Event patterns of EventBridge: which events a rule is for.

A pattern is a JSON object. Every field in it must match, a field matches if one of its values does, and what
the pattern does not name does not matter. Arrays in the event stand for each of their elements; fields below
one array must all be of the same element. The words of refusals are EventBridge's.
"""

from __future__ import annotations

import ipaddress
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from clary.faults import Invalid

MAX_DEPTH = 100  # of objects in a pattern
MAX_BRANCHES = 1000  # of all `$or` together

Matcher: TypeAlias = Callable[[Mapping[str, Any]], bool]
_Test: TypeAlias = Callable[[Any], bool]
_Path: TypeAlias = "tuple[str, ...]"

_OR = "$or"
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}


class _Wrong(Exception):
    """Why a pattern is none."""


@dataclass(frozen=True)
class _Field:
    """A leaf: one of ``tests`` holds for one of the values, or, with ``or_absent``, there are none."""

    path: _Path
    tests: Sequence[_Test]
    or_absent: bool

    def matches(self, value: Any, event: Any) -> bool:
        if any(test(leaf) for leaf in _leaves(value) for test in self.tests):
            return True
        return self.or_absent and not _is_there(event, self.path)


@dataclass(frozen=True)
class _Fields:
    """An object: each of ``fields`` matches, and one branch of each of ``choices``."""

    fields: Sequence[tuple[str, _Field | _Fields]]
    choices: Sequence[Sequence[_Fields]]

    def matches(self, value: Any, event: Any) -> bool:
        return any(self._match_one(each, event) for each in _objects(value))

    def _match_one(self, value: Mapping[str, Any], event: Any) -> bool:
        return all(inner.matches(value.get(name, _NOTHING), event) for name, inner in self.fields) and all(
            any(branch._match_one(value, event) for branch in branches) for branches in self.choices
        )


_NOTHING: Any = []  # no leaves, no objects: as good as absent


def compile_pattern(text: str) -> Matcher:
    """Whether an event, as parsed from JSON, matches ``text``.

    Raises `Invalid` (``InvalidEventPatternException``) for a malformed pattern.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except _Wrong as wrong:
        raise _invalid(str(wrong)) from None
    except RecursionError:
        raise _invalid(f"It is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise _invalid(f"It is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise _invalid("Filter is not an object")
    try:
        compiled = _Compiler().fields(document, (), inside_or=False)
    except _Wrong as wrong:
        raise _invalid(str(wrong)) from None
    return lambda event: compiled.matches(event, event)


def _invalid(reason: str) -> Invalid:
    return Invalid(f"Event pattern is not valid. Reason: {reason}", code="InvalidEventPatternException")


def _refuse_constant(name: str) -> None:
    raise _Wrong(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise _Wrong(f"Path `{name}` cannot be allowed multiple times")
        document[name] = value
    return document


class _Compiler:
    """Turns the document into matchers, counting the branches."""

    def __init__(self) -> None:
        self._branches = 0

    def fields(self, document: Mapping[str, Any], path: _Path, *, inside_or: bool) -> _Fields:
        if len(path) > MAX_DEPTH:
            raise _Wrong(f"It is nested more than {MAX_DEPTH} deep")
        if not document:
            raise _Wrong("Empty objects are not allowed")
        fields: list[tuple[str, _Field | _Fields]] = []
        choices = []
        for name, value in document.items():
            if name == _OR:
                choices.append(self._choice(value, path))
                continue
            if inside_or and name in _EXPRESSIONS:
                raise _Wrong(f"{name} is Ruler reserved fieldName which cannot be used inside {_OR}.")
            below = (*path, name)
            if isinstance(value, dict):
                fields.append((name, self.fields(value, below, inside_or=inside_or)))
            elif isinstance(value, list):
                fields.append((name, _leaf(value, below)))
            else:
                raise _Wrong(f'"{name}" must be an object or an array')
        return _Fields(fields, choices)

    def _choice(self, value: Any, path: _Path) -> list[_Fields]:
        if not isinstance(value, list):
            raise _Wrong(f"It must be an Array followed with {_OR}.")
        if any(not isinstance(branch, dict) for branch in value):
            raise _Wrong(f"Only JSON object is allowed in array of {_OR} relationship.")
        if len(value) < 2:
            raise _Wrong(f"There must have at least 2 Objects in {_OR} relationship.")
        self._branches += len(value)
        if self._branches > MAX_BRANCHES:
            raise _Wrong(f"Rule is too complex: it has more than {MAX_BRANCHES} branches")
        return [self.fields(branch, path, inside_or=True) for branch in value]


def _leaf(values: Sequence[Any], path: _Path) -> _Field:
    if not values:
        raise _Wrong("Empty arrays are not allowed")
    tests: list[_Test] = []
    or_absent = False
    for value in values:
        if isinstance(value, dict):
            name, argument = _only(value, "Match expression name not found")
            if name == "exists":
                if not isinstance(argument, bool):
                    raise _Wrong("exists match pattern must be either true or false.")
                if argument:
                    tests.append(lambda leaf: True)
                else:
                    or_absent = True
            elif name in _EXPRESSIONS:
                tests.append(_EXPRESSIONS[name](argument))
            else:
                raise _Wrong(f"Unrecognized match type {name}")
        elif isinstance(value, list):
            raise _Wrong("Match value must be String, number, true, false, or null")
        else:
            tests.append(_equals(value))
    return _Field(path, tests, or_absent)


def _only(document: Mapping[str, Any], missing: str) -> tuple[str, Any]:
    """The name and value of an object that has one member."""
    if not document:
        raise _Wrong(missing)
    if len(document) > 1:
        raise _Wrong("Only one key allowed in match expression")
    return next(iter(document.items()))


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"{what} match pattern must be a string")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equals(wanted: Any) -> _Test:
    if _is_number(wanted):
        return lambda leaf: _is_number(leaf) and bool(leaf == wanted)
    return lambda leaf: type(leaf) is type(wanted) and bool(leaf == wanted)


def _exactly(argument: Any) -> _Test:
    return _equals(_text(argument, "exact"))


def _affix(what: str, argument: Any, holds: Callable[[str, str], bool]) -> _Test:
    """Of ``prefix`` and ``suffix``, which may ignore case."""
    if isinstance(argument, dict):
        name, inner = _only(argument, f"{what.capitalize()} expression name not found")
        if name != "equals-ignore-case":
            raise _Wrong(f"Unsupported {what} pattern: {name}")
        folded = _text(inner, name).lower()
        return lambda leaf: isinstance(leaf, str) and holds(leaf.lower(), folded)
    wanted = _text(argument, what)
    return lambda leaf: isinstance(leaf, str) and holds(leaf, wanted)


def _prefix(argument: Any) -> _Test:
    return _affix("prefix", argument, str.startswith)


def _suffix(argument: Any) -> _Test:
    return _affix("suffix", argument, str.endswith)


def _ignoring_case(argument: Any) -> _Test:
    folded = _text(argument, "equals-ignore-case").lower()
    return lambda leaf: isinstance(leaf, str) and leaf.lower() == folded


def _wildcard(argument: Any) -> _Test:
    pieces = _pieces(_text(argument, "wildcard"))
    return lambda leaf: isinstance(leaf, str) and _fits(leaf, pieces)


def _pieces(text: str) -> list[str]:
    """The literal texts between the stars of a wildcard."""
    pieces, place = [""], 0
    while place < len(text):
        character = text[place]
        if character == "*":
            if place > 0 and pieces[-1] == "" and len(pieces) > 1:
                raise _Wrong(f"Consecutive wildcard characters at pos {place}")
            pieces.append("")
        elif character == "\\":
            if text[place + 1 : place + 2] not in ("*", "\\"):
                raise _Wrong(f"Invalid escape character at pos {place}")
            place += 1
            pieces[-1] += text[place]
        else:
            pieces[-1] += character
        place += 1
    return pieces


def _fits(text: str, pieces: Sequence[str]) -> bool:
    """Whether ``text`` is the pieces with anything between; the leftmost places do if any do."""
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    place, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, place, end)
        if found < 0:
            return False
        place = found + len(piece)
    return True


def _anything_but(argument: Any) -> _Test:
    if isinstance(argument, dict):
        name, inner = _only(argument, "Anything-But expression name not found")
        if name not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise _Wrong(f"Unsupported anything-but pattern: {name}")
        values = inner if isinstance(inner, list) else [inner]
        if not values:
            raise _Wrong(f"Value of anything-but {name} must not be an empty array.")
        if any(not isinstance(value, str) for value in values):
            what = "prefix/suffix" if name in ("prefix", "suffix") else name
            raise _Wrong(f"{what} match pattern must be a string")
        if name in ("prefix", "suffix") and "" in values:
            raise _Wrong("Null prefix/suffix not allowed")
        refused = [_EXPRESSIONS[name](value) for value in values]
    elif isinstance(argument, list):
        strings = [isinstance(value, str) for value in argument]
        if any(not isinstance(v, str) and not _is_number(v) for v in argument):
            raise _Wrong("Inside anything but list, start|null|boolean is not supported.")
        if not argument or any(strings) != all(strings):
            raise _Wrong(
                "Inside anything but list, either all values are number or string, "
                "mixed type is not supported"
            )
        refused = [_equals(value) for value in argument]
    elif isinstance(argument, str) or _is_number(argument):
        refused = [_equals(argument)]
    else:
        raise _Wrong("Value of anything-but must be an array or single string/number value.")
    return lambda leaf: not any(test(leaf) for test in refused)


def _numeric(argument: Any) -> _Test:
    if not isinstance(argument, list):
        raise _Wrong("Value of numeric must be an array.")
    if not argument:
        raise _Wrong("Invalid member in numeric match: it is empty")
    if len(argument) not in (2, 4):
        too = "Too many elements" if len(argument) > 4 else "Too few elements"
        raise _Wrong(f"{too} in numeric expression")
    bounds: list[tuple[str, float]] = []
    for sign, value in zip(argument[::2], argument[1::2], strict=True):
        if sign not in _ORDER:
            raise _Wrong(f"Unrecognized numeric range operator: {sign}")
        if not _is_number(value):
            raise _Wrong(f"Value of {sign} must be numeric")
        bounds.append((sign, value))
    if len(bounds) == 2:
        (low, bottom), (high, top) = bounds
        if low not in (">", ">="):
            raise _Wrong(f"Bad numeric range operator: {low}")
        if high not in ("<", "<="):
            raise _Wrong(f"Bad numeric range operator: {high}")
        if bottom >= top:
            raise _Wrong("Bottom must be less than top")
    return lambda leaf: _is_number(leaf) and all(_ORDER[sign](leaf, value) for sign, value in bounds)


def _cidr(argument: Any) -> _Test:
    text = _text(argument, "cidr")
    if text.count("/") != 1:
        raise _Wrong("Malformed CIDR, one '/' required")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise _Wrong(f"Malformed CIDR: {error}") from None

    def within(leaf: Any) -> bool:
        if not isinstance(leaf, str):
            return False
        try:
            return ipaddress.ip_address(leaf) in network
        except ValueError:
            return False

    return within


_EXPRESSIONS: Mapping[str, Callable[[Any], _Test]] = {
    "exactly": _exactly,
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _ignoring_case,
    "wildcard": _wildcard,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "cidr": _cidr,
    "exists": lambda argument: lambda leaf: bool(argument),
}


def _elements(value: Any) -> Iterator[Any]:
    """``value``, or what is in it if it is an array, however deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting.extend(reversed(each))
        else:
            yield each


def _leaves(value: Any) -> Iterator[Any]:
    return (each for each in _elements(value) if not isinstance(each, dict))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects that ``value`` stands for; an empty one where there are none, for fields to be absent."""
    return [each for each in _elements(value) if isinstance(each, dict)] or [{}]


def _is_there(event: Any, path: _Path) -> bool:
    """Whether there is a leaf at ``path``, in any element of the arrays on the way."""
    values = [event]
    for name in path:
        values = [each[name] for value in values for each in _elements(value) if _has(each, name)]
    return any(True for value in values for _ in _leaves(value))


def _has(value: Any, name: str) -> bool:
    return isinstance(value, dict) and name in value
