"""The regular expressions of the service models, which are Java's, in Python's words."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata

_POSIX = {
    "Alnum": "0-9A-Za-z",
    "Alpha": "A-Za-z",
    "ASCII": "\\x00-\\x7f",
    "Blank": " \\t",
    "Cntrl": "\\x00-\\x1f\\x7f",
    "Digit": "0-9",
    "Graph": "\\x21-\\x7e",
    "Lower": "a-z",
    "Print": "\\x20-\\x7e",
    "Punct": "!-/:-@\\[-`{-~",
    "Space": " \\t\\n\\x0b\\f\\r",
    "Upper": "A-Z",
    "XDigit": "0-9A-Fa-f",
}
_PROPERTY = re.compile(r"\\p\{(?:Is)?(\w+)\}")
# The pairs that Java needs for what Python's strings hold as one character.
_SURROGATES = "\\uD800\\uDC00-\\uDBFF\\uDFFF"


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """``pattern`` ready for ``fullmatch``. Raises ``re.error`` for one that Python has no words for."""
    text = pattern.replace(_SURROGATES, "\\U00010000-\\U0010FFFF")
    text = text.replace("[\\w-_", "[\\w\\-_").replace("\\z", "\\Z")
    # A bound on the end of the text, which a few models carry by mistake, says nothing.
    text = re.sub(r"\$\{\d+,\d*\}", "$", text)
    return re.compile(_properties(text))


def _properties(text: str) -> str:
    """Replace ``\\p{...}``, inside and outside of character classes, by ranges."""
    result, inside, position = [], False, 0
    while position < len(text):
        found = _PROPERTY.match(text, position)
        if found:
            ranges = _POSIX.get(found[1]) or _category(found[1])
            result.append(ranges if inside else f"[{ranges}]")
            position = found.end()
            continue
        if text[position] == "\\":
            result.append(text[position : position + 2])
            position += 2
            continue
        if text[position] == "[":
            inside = True
        elif text[position] == "]":
            inside = False
        result.append(text[position])
        position += 1
    return "".join(result)


@functools.cache
def _category(name: str) -> str:
    """A Unicode category (``L``, ``Zs``) as ranges for a character class. Raises ``re.error``."""
    ranges: list[str] = []
    first: int | None = None
    for point in range(sys.maxunicode + 2):
        belongs = point <= sys.maxunicode and unicodedata.category(chr(point)).startswith(name)
        if belongs and first is None:
            first = point
        elif not belongs and first is not None:
            ranges.append(f"\\U{first:08x}-\\U{point - 1:08x}")
            first = None
    if not ranges:
        raise re.error(f"unknown category {name}")
    return "".join(ranges)
