"""What all List operations of EventBridge share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from clary.faults import Invalid
from clary.protocol.wire import Members
from clary.resources.resource import Resource
from clary.services.page_token import page_token, read_page_token
from clary.store.store import MAX_PAGE_SIZE, Query, Store

DEFAULT_LIMIT = 100

Item = TypeVar("Item")


async def every(store: Store, kind: str, account: str, region: str, *, prefix: str = "") -> list[Resource]:
    """Every resource of a kind whose name begins with ``prefix``, by name."""
    found: list[Resource] = []
    token: str | None = None
    while True:
        query = Query(
            kind,
            account,
            region,
            name_prefix=prefix,
            sort_by="name",
            page_size=MAX_PAGE_SIZE,
            page_token=token,
        )
        piece = await store.list(query)
        found += piece.resources
        token = piece.next_token
        if token is None:
            return found


def page(
    items: Sequence[Item], name_of: Callable[[Item], str], request: Members, member: str, question: Any
) -> dict[str, Any]:
    """A piece of ``items``, which are sorted by name, as Limit and NextToken want it. Raises `Invalid`."""
    after = ""
    if request.get("NextToken"):
        place = read_page_token(request["NextToken"], question, str)
        if place is None:
            raise Invalid(
                "Invalid NextToken: it does not belong to this request.", code="ValidationException"
            )
        after = str(place[0])
    limit = request.get("Limit") or DEFAULT_LIMIT
    left = [item for item in items if name_of(item) > after]
    shown = left[:limit]
    token = page_token([name_of(shown[-1])], question) if len(left) > limit else None
    return {member: shown, "NextToken": token}
