"""CloudWatch Logs' filter patterns for unstructured events: words, "quoted phrases", -without, ?any.

Patterns for JSON and space-delimited events are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from clary.faults import Invalid

_TERM = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|(\S+))')


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a message matches. Terms compare with case. Raises `Invalid` for what is not supported."""
    text = pattern.strip()
    if text.startswith(("{", "[", "%")):
        raise Invalid(
            f"The filter pattern {text[:100]} is of a kind that Clary does not offer: use words, "
            '"quoted phrases", -words to leave out and ?words of which one must be there.',
            code="InvalidParameterException",
        )
    every: list[str] = []
    none: list[str] = []
    some: list[str] = []
    for sign, quoted, word in _TERM.findall(text):
        term = re.sub(r"\\(.)", r"\1", quoted) if quoted else word
        if term:
            {"": every, "-": none, "?": some}[sign].append(term)

    def matches(message: str) -> bool:
        return (
            all(term in message for term in every)
            and not any(term in message for term in none)
            and (not some or any(term in message for term in some))
        )

    return matches
