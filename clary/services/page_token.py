"""Tokens of pages that are not of the store: the place where the next begins, bound to the question."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import TypeAlias

Place: TypeAlias = "list[str | int]"


def page_token(place: Sequence[str | int], question: object) -> str:
    """A token for the page that begins behind ``place`` of the answer to ``question`` (any JSON)."""
    return base64.urlsafe_b64encode(json.dumps([_digest(question), *place]).encode()).decode()


def read_page_token(token: str, question: object, *kinds: type[str] | type[int]) -> Place | None:
    """The place in ``token``, which has members of ``kinds``; ``None`` if it was not given for this."""
    place: Place
    try:
        digest, *place = json.loads(base64.urlsafe_b64decode(token))
        if digest != _digest(question) or [type(part) for part in place] != list(kinds):
            return None
        for part in place:
            # What a database can take: text without lone surrogates, numbers of 64 bits.
            part.encode() if isinstance(part, str) else part.to_bytes(8, "big", signed=True)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return place


def _digest(question: object) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]
