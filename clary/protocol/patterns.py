"""The regular expressions of the service models, which are Java's, in Python's words."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator

# Expressions of the models that backtrack without end on texts that nearly match, and what they say, said so
# that they do not.
_TAME = {
    r"[a-z0-9]([-a-z0-9]*[a-z0-9]){0,39}?": r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?",
    r"https://([.\-_a-zA-Z0-9]+/?){3,1016}": (
        r"https://(?=(?:/?[.\-_a-zA-Z0-9]){3})[.\-_a-zA-Z0-9]+(?:/[.\-_a-zA-Z0-9]+)*/?"
    ),
    r"^[a-z0-9*](?:[._\-/a-z0-9*]?[a-z0-9*]+)*$": r"[a-z0-9*]+(?:[._\-/][a-z0-9*]+)*",
    r"^[ \t]*[\x20-\x7E]+([ \t]+[\x20-\x7E]+)*[ \t]*$": r"\t*[\x20-\x7E][\t\x20-\x7E]*",
    r"^[ \t]*[^\x00-\x1F:\x7F]+([ \t]+[^\x00-\x1F:\x7F]+)*[ \t]*$": (
        r"\t*[^\x00-\x1F:\x7F][^\x00-\x08\x0A-\x1F:\x7F]*"
    ),
}

_POSIX = {
    "Alnum": "0-9A-Za-z",
    "Alpha": "A-Za-z",
    "ASCII": r"\x00-\x7f",
    "Blank": r" \t",
    "Cntrl": r"\x00-\x1f\x7f",
    "Digit": "0-9",
    "Graph": r"\x21-\x7e",
    "Lower": "a-z",
    "Print": r"\x20-\x7e",
    "Punct": r"!-/:-@\[-`{-~",
    "Space": r" \t\n\x0b\f\r",
    "Upper": "A-Z",
    "XDigit": "0-9A-Fa-f",
}
_BEYOND_16_BITS = r"\U00010000-\U0010ffff"

_PLANES = 0x40000  # code points that are looked at: up to the last plane where letters are

_TOKEN = re.compile(
    r"""
    (?P<pairs> \\uD800\\uDC00-\\uDBFF\\uDFFF | \\u10000-\\u10FFFF )  # all that Java needs two characters for
  | \\ p \{ (?:Is)? (?P<property> \w+ ) \}
  | (?P<idle> \$ \{ \d+ (?:,\d*)? \} )  # the end of the text, several times
  | (?P<escape> \\ . )
  | (?P<open> \[ \^? \]? )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    r"""``pattern``, ready for ``fullmatch``; ``\w``, ``\d`` and ``\s`` are ASCII, as in Java.

    Raises ``re.error`` for what Python has no words for.
    """
    return re.compile(_TAME.get(pattern) or "".join(_translated(pattern)), re.ASCII)


def _translated(pattern: str) -> Iterator[str]:
    inside = False  # of a character class
    after_class = False  # inside, just after an escape that stands for several characters
    for found in _TOKEN.finditer(pattern):
        text, was_after_class = found[0], after_class
        after_class = False
        if found["pairs"] and inside:
            yield _BEYOND_16_BITS
        elif found["property"]:
            ranges = _POSIX.get(found["property"]) or _category(found["property"])
            negative = text[1] == "P"
            if negative and inside:
                raise re.error(f"a negated property inside a class: {text}")
            yield ranges if inside else f"[{'^' if negative else ''}{ranges}]"
            after_class = inside
        elif found["idle"] and not inside:
            yield "$"
        elif found["escape"] or found["pairs"]:
            yield r"\Z" if text == r"\z" and not inside else text
            after_class = inside and text in (r"\w", r"\d", r"\s", r"\W", r"\D", r"\S")
        elif inside:
            if text == "]":
                inside = False
            elif found["open"] or text == "&":
                # Java would take an inner class, or the intersection of two; no model has either.
                text = "".join(f"\\{character}" for character in text)
            yield rf"\{text}" if text in "|~" or (text == "-" and was_after_class) else text
        else:
            inside = bool(found["open"])
            yield text


@functools.cache
def _category(name: str) -> str:
    """A Unicode category (``L``, ``Zs``) as the inside of a character class. Raises ``re.error``."""
    ranges = [
        f"\\U{first:08x}-\\U{last:08x}" for first, last, category in _runs() if category.startswith(name)
    ]
    if not ranges or len(name) > 2:
        raise re.error(f"unknown category {name}")
    return "".join(ranges)


@functools.cache
def _runs() -> list[tuple[int, int, str]]:
    """Neighbouring code points of one category: the first, the last, the category.

    The planes without letters are left out; what stands there has no category that a pattern asks for.
    """
    runs = []
    first = 0
    for category, group in itertools.groupby(map(unicodedata.category, map(chr, range(_PLANES)))):
        after = first + sum(1 for _ in group)
        runs.append((first, after - 1, category))
        first = after
    return runs
