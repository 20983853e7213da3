"""API destinations: HTTP endpoints that rules may have as targets; what others call webhooks."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from clary.faults import InUse, Invalid, LimitExceeded, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import split_arn
from clary.resources.event_rule import (
    API_DESTINATION,
    CONNECTION,
    DEFAULT_RATE_PER_SECOND,
    MAX_API_DESTINATIONS,
    api_destination_arn,
    connection_arn,
)
from clary.resources.resource import Key, Resource
from clary.services.events.listing import every, page
from clary.services.operation import RequestContext, operation


@operation("events")
async def create_api_destination(context: RequestContext, request: Members) -> ReplyMembers:
    """Beside https, http is taken: the endpoint may well be on this machine."""
    _check_endpoint(request["InvocationEndpoint"])
    await _require_connection(context, request["ConnectionArn"])
    store = context.backends.store
    if len(await every(store, API_DESTINATION, context.account, context.region)) >= MAX_API_DESTINATIONS:
        raise LimitExceeded("The requested resource exceeds the maximum number allowed.")
    spec = {"InvocationRateLimitPerSecond": DEFAULT_RATE_PER_SECOND, **request}
    try:
        made = await store.create(_key(context, request["Name"]), spec, {}, phase="ACTIVE", due_at=None)
    except InUse:
        raise InUse(
            f"An api-destination '{request['Name']}' already exists.", code="ResourceAlreadyExistsException"
        ) from None
    return await _show(context, made)


@operation("events")
async def describe_api_destination(context: RequestContext, request: Members) -> ReplyMembers:
    return await _show(context, await _require(context, request["Name"]))


@operation("events")
async def update_api_destination(context: RequestContext, request: Members) -> ReplyMembers:
    if "InvocationEndpoint" in request:
        _check_endpoint(request["InvocationEndpoint"])
    if "ConnectionArn" in request:
        await _require_connection(context, request["ConnectionArn"])
    destination = await _require(context, request["Name"])
    changed = await context.backends.store.write_spec(
        destination.key, lambda current: {**current.spec, **request}, due_at=None
    )
    return await _show(context, changed)


@operation("events")
async def delete_api_destination(context: RequestContext, request: Members) -> ReplyMembers:
    destination = await _require(context, request["Name"])
    await context.backends.store.delete(destination.key, uid=destination.uid)
    return {}


@operation("events")
async def list_api_destinations(context: RequestContext, request: Members) -> ReplyMembers:
    prefix, connection = request.get("NamePrefix", ""), request.get("ConnectionArn")
    found = await every(
        context.backends.store, API_DESTINATION, context.account, context.region, prefix=prefix
    )
    shown = [await _show(context, each) for each in found if connection in (None, each.spec["ConnectionArn"])]
    question = ["destinations", prefix, connection]
    return page(shown, lambda each: str(each["Name"]), request, "ApiDestinations", question)


async def _require(context: RequestContext, name: str) -> Resource:
    destination = await context.backends.store.find(_key(context, name))
    if destination is None:
        raise NotFound(
            f"Failed to describe the api-destination(s). An api-destination '{name}' does not exist.",
            code="ResourceNotFoundException",
        )
    return destination


async def _require_connection(context: RequestContext, arn: str) -> None:
    if await _connection(context, arn) is None:
        raise NotFound(f"Connection '{arn}' does not exist.", code="ResourceNotFoundException")


async def _connection(context: RequestContext, arn: str) -> Resource | None:
    parts = split_arn(arn).resource.split("/")
    if len(parts) != 3:
        return None
    found = await context.backends.store.find(Key(CONNECTION, context.account, context.region, parts[1]))
    return found if found is not None and connection_arn(found) == arn else None


def _check_endpoint(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        good = good and parts.username is None
    except ValueError:
        good = False
    if not good:
        raise Invalid(
            f"InvocationEndpoint '{url}' is not valid: it must be a URL that begins with https:// or http:// "
            "and names a host.",
            code="ValidationException",
        )


def _key(context: RequestContext, name: str) -> Key:
    return Key(API_DESTINATION, context.account, context.region, name)


async def _show(context: RequestContext, destination: Resource) -> dict[str, Any]:
    connection = await _connection(context, str(destination.spec["ConnectionArn"]))
    return {
        **destination.spec,
        "ApiDestinationArn": api_destination_arn(destination),
        "ApiDestinationState": "ACTIVE" if connection is not None else "INACTIVE",
        "CreationTime": destination.created_at,
        "LastModifiedTime": destination.modified_at,
    }
