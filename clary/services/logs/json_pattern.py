"""Filter patterns for events that are JSON: ``{ $.level = "ERROR" && ($.ms > 100 || $.user IS NULL) }``.

An event that is no JSON object or array, or lacks the field, does not match a comparison.
"""

from __future__ import annotations

import fnmatch
import json
import operator
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from clary.faults import Invalid

MAX_DEPTH = 50  # of parentheses

Test: TypeAlias = Callable[[Any], bool]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<selector>\$(?:\.[^\s.\[\]=!<>()&|"]+|\[\d{1,6}\])*)
    | (?P<operator><=|>=|!=|=|<|>)
    | (?P<logic>&&|\|\||\(|\))
    | "(?P<quoted>(?:[^"\\]|\\.)*)"
    | (?P<word>[^\s()&|=<>!"]+)
    )""",
    re.VERBOSE,
)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_MISSING = object()
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def compile_json_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a message matches ``pattern``, which is in braces. Raises `Invalid` for a malformed one."""
    if not pattern.endswith("}"):
        raise Invalid(f"Invalid filter pattern {pattern[:100]}: the brace is not closed.")
    test = _Parser(pattern[1:-1], pattern).parse()

    def matches(message: str) -> bool:
        if message.lstrip()[:1] not in ("{", "["):
            return False
        try:
            return test(json.loads(message))
        except (ValueError, RecursionError):
            return False

    return matches


class _Parser:
    """Reads one pattern: ``or`` binds less than ``and``; parentheses group."""

    def __init__(self, text: str, pattern: str) -> None:
        self._pattern = pattern
        self._tokens: list[tuple[str, str]] = []
        place, text = 0, text.strip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise self._wrong(f"'{text[place : place + 20]}' is not understood")
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind]))
            place = match.end()
        self._next = 0

    def parse(self) -> Test:
        test = self._either(0)
        if self._next < len(self._tokens):
            raise self._wrong(f"'{self._tokens[self._next][1]}' was not expected")
        return test

    def _wrong(self, why: str) -> Invalid:
        return Invalid(f"Invalid filter pattern {self._pattern[:100]}: {why}.")

    def _take(self, *kinds: str) -> tuple[str, str]:
        if self._next == len(self._tokens):
            raise self._wrong("it ends too soon")
        kind, text = self._tokens[self._next]
        if kind not in kinds:
            raise self._wrong(f"'{text}' was not expected")
        self._next += 1
        return kind, text

    def _skip(self, kind: str, text: str) -> bool:
        """Take the next token if it is this one; words compare without case."""
        if self._next < len(self._tokens):
            found_kind, found = self._tokens[self._next]
            if found_kind == kind and found.upper() == text:
                self._next += 1
                return True
        return False

    def _either(self, depth: int) -> Test:
        tests = [self._both(depth)]
        while self._skip("logic", "||"):
            tests.append(self._both(depth))
        return lambda event: any(test(event) for test in tests)

    def _both(self, depth: int) -> Test:
        tests = [self._one(depth)]
        while self._skip("logic", "&&"):
            tests.append(self._one(depth))
        return lambda event: all(test(event) for test in tests)

    def _one(self, depth: int) -> Test:
        if depth == MAX_DEPTH:
            raise self._wrong(f"parentheses are more than {MAX_DEPTH} deep")
        if self._skip("logic", "("):
            test = self._either(depth + 1)
            if not self._skip("logic", ")"):
                raise self._wrong("a parenthesis is not closed")
            return test
        steps = [name if name else int(index) for name, index in _STEP.findall(self._take("selector")[1])]  # type: list[str | int]
        return self._condition(lambda event: _select(event, steps))

    def _condition(self, field: Callable[[Any], Any]) -> Test:
        if self._skip("word", "IS"):
            word = self._take("word")[1].upper()
            wanted = {"NULL": None, "TRUE": True, "FALSE": False}
            if word not in wanted:
                raise self._wrong(f"IS is followed by NULL, TRUE or FALSE, not {word}")
            return lambda event: field(event) is wanted[word]
        if self._skip("word", "EXISTS"):
            return lambda event: field(event) is not _MISSING
        if self._skip("word", "NOT"):
            if not self._skip("word", "EXISTS"):
                raise self._wrong("NOT is followed by EXISTS")
            return lambda event: field(event) is _MISSING
        sign = self._take("operator")[1]
        kind, text = self._take("quoted", "word")
        if kind == "quoted":
            text = re.sub(r"\\(.)", r"\1", text)
        number = float(text) if kind == "word" and _NUMBER.fullmatch(text) else None
        if sign in _ORDER:
            if number is None:
                raise self._wrong(f"{sign} compares with a number, not with '{text}'")
            limit, compare = number, _ORDER[sign]
            return lambda event: _is_number(field(event)) and compare(field(event), limit)
        equal = _equals(text, number)
        if sign == "=":
            return lambda event: equal(field(event))
        return lambda event: isinstance(field(event), str | int | float) and not equal(field(event))


def _equals(text: str, number: float | None) -> Test:
    """Whether a value is ``text``, in which ``*`` stands for anything, or ``number``."""
    pattern = re.compile(fnmatch.translate(re.sub(r"[?\[]", r"[\g<0>]", text)))

    def equal(value: Any) -> bool:
        if _is_number(value):
            return number is not None and bool(value == number)
        return isinstance(value, str) and pattern.match(value) is not None

    return equal


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _select(event: Any, steps: list[str | int]) -> Any:
    """The value that ``steps`` lead to, or `_MISSING`."""
    for step in steps:
        if isinstance(step, int):
            if not isinstance(event, list) or step >= len(event):
                return _MISSING
        elif not isinstance(event, dict) or step not in event:
            return _MISSING
        event = event[step]
    return event
