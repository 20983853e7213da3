"""Rules: which events go where."""

from __future__ import annotations

from typing import Any

from clary.event_bus.event_pattern import compile_pattern
from clary.faults import InUse, Invalid, LimitExceeded, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.event_rule import (
    DEFAULT_BUS,
    MAX_RULES,
    RULE,
    bus_of,
    rule_arn,
    rule_key,
    targets_of,
)
from clary.resources.resource import Key, Resource
from clary.services.events.buses import bus_name, require_bus
from clary.services.events.listing import every, page
from clary.services.events.schedule import check_schedule
from clary.services.events.tags import check_tags
from clary.services.operation import RequestContext, operation

_KEPT = ("Targets", "Tags")  # of a rule that is put again


@operation("events")
async def put_rule(context: RequestContext, request: Members) -> ReplyMembers:
    """Makes a rule, or replaces all of one but its targets and tags."""
    pattern, schedule = request.get("EventPattern"), request.get("ScheduleExpression")
    if not pattern and not schedule:
        raise Invalid(
            "Parameter(s) EventPattern or ScheduleExpression must be specified.", code="ValidationException"
        )
    bus = await require_bus(context, request.get("EventBusName"))
    if pattern:
        compile_pattern(pattern)
    if schedule:
        check_schedule(schedule)
        if bus != DEFAULT_BUS:
            raise Invalid(
                "ScheduleExpression is supported only on the default event bus.", code="ValidationException"
            )
    tags = check_tags(request.get("Tags"))
    key = rule_key(context.account, context.region, bus, request["Name"])
    state = request.get("State") or "ENABLED"
    spec: dict[str, Any] = {**request, "State": state, "EventBusName": bus, "Tags": tags}

    def change(rule: Resource) -> dict[str, Any]:
        kept: dict[str, Any] = {name: rule.spec[name] for name in _KEPT if name in rule.spec}
        return {**spec, **kept}

    store = context.backends.store
    while True:
        try:
            await store.write_spec(key, change, due_at=None)
            break
        except NotFound:
            await _check_room(context, bus)
        try:
            await store.create(key, spec, {}, phase="Active", due_at=None)
            break
        except InUse:
            continue  # somebody was faster
    return {"RuleArn": rule_arn(key)}


@operation("events")
async def describe_rule(context: RequestContext, request: Members) -> ReplyMembers:
    rule = await require_rule(context, request["Name"], request.get("EventBusName"))
    return {**_show(rule), "CreatedBy": context.account}


@operation("events")
async def list_rules(context: RequestContext, request: Members) -> ReplyMembers:
    bus = await require_bus(context, request.get("EventBusName"))
    prefix = request.get("NamePrefix", "")
    rules = [_show(rule) for rule in await rules_of(context, bus) if _name(rule).startswith(prefix)]
    return page(rules, lambda rule: str(rule["Name"]), request, "Rules", ["rules", bus, prefix])


@operation("events")
async def delete_rule(context: RequestContext, request: Members) -> ReplyMembers:
    """To delete a rule that does not exist does nothing."""
    key = _key(context, request["Name"], request.get("EventBusName"))
    rule = await context.backends.store.find(key)
    if rule is None:
        return {}
    if targets_of(rule):
        raise Invalid("Rule can't be deleted since it has targets.", code="ValidationException")
    await context.backends.store.delete(key, uid=rule.uid)
    return {}


@operation("events")
async def enable_rule(context: RequestContext, request: Members) -> ReplyMembers:
    return await _set_state(context, request, "ENABLED")


@operation("events")
async def disable_rule(context: RequestContext, request: Members) -> ReplyMembers:
    return await _set_state(context, request, "DISABLED")


async def _set_state(context: RequestContext, request: Members, state: str) -> ReplyMembers:
    rule = await require_rule(context, request["Name"], request.get("EventBusName"))
    await context.backends.store.write_spec(
        rule.key, lambda current: {**current.spec, "State": state}, due_at=None
    )
    return {}


async def require_rule(context: RequestContext, name: str, bus: str | None) -> Resource:
    """The rule. Raises `NotFound`."""
    rule = await context.backends.store.find(_key(context, name, bus))
    if rule is None:
        shown = bus_name(context, bus)
        raise NotFound(f"Rule {name} does not exist on EventBus {shown}.", code="ResourceNotFoundException")
    return rule


async def rules_of(context: RequestContext, bus: str) -> list[Resource]:
    """Every rule of a bus, by name."""
    prefix = "" if bus == DEFAULT_BUS else f"{bus}/"
    rules = await every(context.backends.store, RULE, context.account, context.region, prefix=prefix)
    return sorted((rule for rule in rules if bus_of(rule) == bus), key=_name)


async def _check_room(context: RequestContext, bus: str) -> None:
    if len(await rules_of(context, bus)) >= MAX_RULES:
        raise LimitExceeded("The requested resource exceeds the maximum number allowed.")


def _key(context: RequestContext, name: str, bus: str | None) -> Key:
    return rule_key(context.account, context.region, bus_name(context, bus), name)


def _name(rule: Resource) -> str:
    return str(rule.spec["Name"])


def _show(rule: Resource) -> dict[str, Any]:
    return {**rule.spec, "Arn": rule_arn(rule.key)}
