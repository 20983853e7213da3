"""Event buses: the default one, that is always there, and those that callers make."""

from __future__ import annotations

import contextlib
from typing import Any

from clary.faults import InUse, Invalid, LimitExceeded, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.event_rule import (
    BUS,
    DEFAULT_BUS,
    MAX_BUSES,
    RULE,
    bus_arn,
    bus_key,
)
from clary.resources.resource import Resource
from clary.services.events.listing import every, page
from clary.services.operation import RequestContext, operation


@operation("events")
async def create_event_bus(context: RequestContext, request: Members) -> ReplyMembers:
    name = request["Name"]
    if name == DEFAULT_BUS or "/" in name or request.get("EventSourceName"):
        raise Invalid(
            f"The event bus name '{name}' is not valid: it must not be default nor hold a slash, and Clary "
            "has no partner event sources.",
            code="ValidationException",
        )
    store = context.backends.store
    if len(await every(store, BUS, context.account, context.region)) >= MAX_BUSES:
        raise LimitExceeded("The requested resource exceeds the maximum number allowed.")
    try:
        await store.create(
            bus_key(context.account, context.region, name), dict(request), {}, phase="Active", due_at=None
        )
    except InUse:
        raise InUse(f"Event bus {name} already exists.", code="ResourceAlreadyExistsException") from None
    return {
        "EventBusArn": bus_arn(context.account, context.region, name),
        "Description": request.get("Description"),
    }


@operation("events")
async def delete_event_bus(context: RequestContext, request: Members) -> ReplyMembers:
    name = bus_name(context, request["Name"])
    if name == DEFAULT_BUS:
        raise Invalid("Cannot delete event bus default.", code="ValidationException")
    rules = await every(context.backends.store, RULE, context.account, context.region, prefix=f"{name}/")
    if rules:
        raise Invalid(
            f"Cannot delete event bus {name} since it has {len(rules)} rules: delete them first.",
            code="ValidationException",
        )
    with contextlib.suppress(NotFound):  # as AWS has it: to delete twice does no harm
        await context.backends.store.delete(bus_key(context.account, context.region, name))
    return {}


@operation("events")
async def describe_event_bus(context: RequestContext, request: Members) -> ReplyMembers:
    name = await require_bus(context, request.get("Name"))
    bus = await context.backends.store.find(bus_key(context.account, context.region, name))
    return _show(context, name, bus)


@operation("events")
async def list_event_buses(context: RequestContext, request: Members) -> ReplyMembers:
    prefix = request.get("NamePrefix", "")
    buses = await every(context.backends.store, BUS, context.account, context.region, prefix=prefix)
    shown = [_show(context, bus.key.name, bus) for bus in buses]
    if DEFAULT_BUS.startswith(prefix):
        shown.append(_show(context, DEFAULT_BUS, None))
    shown.sort(key=_name)
    return page(shown, _name, request, "EventBuses", ["buses", prefix])


def _name(bus: Members) -> str:
    return str(bus["Name"])


def bus_name(context: RequestContext, given: str | None) -> str:
    """The name of a bus that is given by name, by ARN, or not at all. Raises `NotFound`."""
    if not given:
        return DEFAULT_BUS
    if not given.startswith("arn:"):
        return given
    name = given.partition(":event-bus/")[2]
    if given != bus_arn(context.account, context.region, name):
        raise no_bus(given)
    return name


async def require_bus(context: RequestContext, given: str | None) -> str:
    """See `bus_name`. Raises `NotFound` for one that does not exist."""
    name = bus_name(context, given)
    key = bus_key(context.account, context.region, name)
    if name != DEFAULT_BUS and await context.backends.store.find(key) is None:
        raise no_bus(name)
    return name


def no_bus(name: str) -> NotFound:
    return NotFound(f"Event bus {name} does not exist.", code="ResourceNotFoundException")


def _show(context: RequestContext, name: str, bus: Resource | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"Name": name, "Arn": bus_arn(context.account, context.region, name)}
    if bus is not None:
        shown = {**bus.spec, **shown, "CreationTime": bus.created_at, "LastModifiedTime": bus.modified_at}
    return shown
