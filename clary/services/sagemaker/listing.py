"""What every List operation of SageMaker shares: filters, order and pages, from the input's own members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from clary.protocol.wire import Members, ReplyMembers
from clary.resources.resource import Resource
from clary.services.operation import RequestContext
from clary.store.store import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Query

SortColumn = Literal["name", "created_at", "modified_at", "phase"]
_COLUMNS: Mapping[str, SortColumn] = {
    "Name": "name",
    "CreationTime": "created_at",
    "LastModifiedTime": "modified_at",
    "Status": "phase",
}


async def list_resources(
    context: RequestContext,
    request: Members,
    kind: str,
    summaries: str,
    summarize: Callable[[Resource], Mapping[str, Any]],
    *,
    default_sort: str = "CreationTime",
    default_order: str = "Ascending",
    labels: Mapping[str, str] | None = None,
) -> ReplyMembers:
    """A page of ``kind`` as ``{summaries: [...], "NextToken": ...}``.

    ``SortBy`` and ``SortOrder`` default as the operation's documentation says. Raises `Invalid` for a
    token that does not belong to the request.
    """
    query = query_of(
        context, request, kind, default_sort=default_sort, default_order=default_order, labels=labels
    )
    page = await context.backends.store.list(query)
    return {summaries: [summarize(resource) for resource in page.resources], "NextToken": page.next_token}


def query_of(
    context: RequestContext,
    request: Members,
    kind: str,
    *,
    default_sort: str = "CreationTime",
    default_order: str = "Ascending",
    labels: Mapping[str, str] | None = None,
) -> Query:
    """What a List operation's input asks the store for."""
    return Query(
        kind,
        context.account,
        context.region,
        name_contains=request.get("NameContains", ""),
        phase=request.get("StatusEquals", ""),
        created_after=request.get("CreationTimeAfter"),
        created_before=request.get("CreationTimeBefore"),
        modified_after=request.get("LastModifiedTimeAfter"),
        modified_before=request.get("LastModifiedTimeBefore"),
        labels=labels or {},
        sort_by=_COLUMNS[_column(request.get("SortBy", default_sort))],
        descending=request.get("SortOrder", default_order) in ("Descending", "Desc"),
        page_size=min(request.get("MaxResults", DEFAULT_PAGE_SIZE), MAX_PAGE_SIZE),
        page_token=request.get("NextToken"),
    )


def _column(sort_by: str) -> str:
    """``SortBy`` without the resource's name, which some operations put in front (``ModelName``)."""
    return sort_by if sort_by in _COLUMNS else next(name for name in _COLUMNS if sort_by.endswith(name))
