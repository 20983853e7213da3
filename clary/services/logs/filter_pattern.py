"""CloudWatch Logs' filter patterns: words, "quoted phrases", -without, ?any; and those for JSON in braces.

Patterns for space-delimited events and regular expressions are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from clary.faults import Invalid
from clary.services.logs.json_pattern import compile_json_pattern

_TERM = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))')


def compile_pattern(pattern: str) -> Callable[[str], bool] | None:
    """Whether a message matches; ``None`` if all do. Terms compare with case.

    Raises `Invalid` for a pattern that is malformed or not supported.
    """
    text = pattern.strip()
    if not text:
        return None
    if text.startswith("{"):
        return compile_json_pattern(text)
    if text.startswith(("[", "%")):
        raise Invalid(
            f"Invalid filter pattern {text[:100]}: Clary does not offer patterns in brackets or percent "
            'signs. Use words, "quoted phrases", -words to leave out, ?words of which one must be there, '
            "or a pattern for JSON in braces."
        )
    every: list[str] = []
    none: list[str] = []
    some: list[str] = []
    place = 0
    while place < len(text):
        match = _TERM.match(text, place)
        if match is None:
            raise Invalid(f"Invalid filter pattern {text[:100]}: a quotation mark is not closed.")
        sign, quoted, word = match.groups()
        term = word if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        {"": every, "-": none, "?": some}[sign].append(term)
        place = match.end()

    def matches(message: str) -> bool:
        return (
            all(term in message for term in every)
            and not any(term in message for term in none)
            and (not some or any(term in message for term in some))
        )

    return matches
