"""Tokens of listings: where the last page ended, bound to the query they belong to."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json

from clary.faults import Invalid
from clary.resources.resource import Resource
from clary.store.store import Query

# What a listing is ordered by: the sort value, then the identity, so that no two are equal.
Position = tuple[float | str, str, str, str]


def position(resource: Resource, query: Query) -> Position:
    """Where ``resource`` stands in the listing of ``query``."""
    value: float | str
    if query.sort_by == "name":
        value = resource.key.name
    elif query.sort_by == "phase":
        value = resource.phase
    else:
        value = resource.created_at if query.sort_by == "created_at" else resource.modified_at
    return (value, resource.key.name, resource.key.account, resource.key.region)


def token_after(resource: Resource, query: Query) -> str:
    """The token of the page that begins behind ``resource``."""
    return base64.urlsafe_b64encode(
        json.dumps([_digest(query), *position(resource, query)]).encode()
    ).decode()


def read_token(query: Query) -> Position | None:
    """Where the page of ``query.page_token`` begins. Raises `Invalid` for a foreign token."""
    if query.page_token is None:
        return None
    try:
        digest, value, *identity = json.loads(base64.urlsafe_b64decode(query.page_token))
        name, account, region = (_text(part) for part in identity)
        if digest == _digest(query):
            return (
                _text(value) if query.sort_by in ("name", "phase") else float(value),
                name,
                account,
                region,
            )
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise Invalid("Invalid NextToken: it does not belong to this request. Start again without it.")


def _text(part: object) -> str:
    """``part``, if it is text that a database can take. Raises ``ValueError``, ``TypeError``."""
    if not isinstance(part, str):
        raise TypeError("A token's part is not text.")
    part.encode()
    return part


def _digest(query: Query) -> str:
    fields = dataclasses.asdict(query)
    del fields["page_token"], fields["page_size"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
