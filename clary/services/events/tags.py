"""Tags of rules and event buses, by ARN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clary.faults import Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import split_arn
from clary.resources.event_rule import BUS, RULE
from clary.resources.resource import Key, Resource
from clary.services.operation import RequestContext, operation

MAX_TAGS = 50
_KINDS = {"rule": RULE, "event-bus": BUS}


@operation("events")
async def tag_resource(context: RequestContext, request: Members) -> ReplyMembers:
    def change(resource: Resource) -> dict[str, Any]:
        tags = {tag["Key"]: tag["Value"] for tag in [*_tags(resource), *request["Tags"]]}
        return {
            **resource.spec,
            "Tags": check_tags([{"Key": key, "Value": value} for key, value in tags.items()]),
        }

    await _write(context, request, change)
    return {}


@operation("events")
async def untag_resource(context: RequestContext, request: Members) -> ReplyMembers:
    gone = set(request["TagKeys"])

    def change(resource: Resource) -> dict[str, Any]:
        return {**resource.spec, "Tags": [tag for tag in _tags(resource) if tag["Key"] not in gone]}

    await _write(context, request, change)
    return {}


@operation("events")
async def list_tags_for_resource(context: RequestContext, request: Members) -> ReplyMembers:
    resource = await context.backends.store.find(_key(context, request["ResourceARN"]))
    if resource is None:
        raise _missing(request["ResourceARN"])
    return {"Tags": _tags(resource)}


def check_tags(tags: Sequence[dict[str, str]] | None) -> list[dict[str, str]]:
    """The tags of a request. Raises `Invalid` for too many."""
    if len(tags or ()) > MAX_TAGS:
        raise Invalid(
            f"There may be {MAX_TAGS} tags at most, not {len(tags or ())}.", code="ValidationException"
        )
    return list(tags or ())


async def _write(context: RequestContext, request: Members, change: Any) -> None:
    try:
        await context.backends.store.write_spec(_key(context, request["ResourceARN"]), change, due_at=None)
    except NotFound:
        raise _missing(request["ResourceARN"]) from None


def _key(context: RequestContext, arn: str) -> Key:
    try:
        parts = split_arn(arn)
    except Invalid:
        raise Invalid(f"{arn} is not an ARN.", code="ValidationException") from None
    kind, _, name = parts.resource.partition("/")
    if parts.service != "events" or kind not in _KINDS:
        raise Invalid(f"{arn} is not the ARN of a rule or an event bus.", code="ValidationException")
    if (parts.account, parts.region) != (context.account, context.region):
        raise _missing(arn)
    return Key(_KINDS[kind], context.account, context.region, name)


def _missing(arn: str) -> NotFound:
    return NotFound(f"The resource {arn} does not exist.", code="ResourceNotFoundException")


def _tags(resource: Resource) -> list[dict[str, str]]:
    tags: Any = resource.spec.get("Tags") or []
    return list(tags)
