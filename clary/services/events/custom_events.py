"""Events that callers put on a bus, and patterns tried on one."""

from __future__ import annotations

import json
import uuid
from typing import Any

from clary.event_bus.envelope import envelope
from clary.event_bus.event_pattern import compile_pattern
from clary.event_bus.event_store import NewEvent
from clary.faults import Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.services.events.buses import require_bus
from clary.services.operation import RequestContext, operation

LARGEST_ENTRY_BYTES = 1_048_576
MAX_RESOURCES = 100
MAX_DEPTH = 200  # of an event's detail
_TIME_BYTES = 14
_NEEDED = ("id", "account", "source", "time", "region", "resources", "detail-type")


class _Refused(Exception):
    """Why an entry does not go onto a bus."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@operation("events")
async def put_events(context: RequestContext, request: Members) -> ReplyMembers:
    """Each entry succeeds or fails for itself. What succeeded is kept, and goes to targets later."""
    if request.get("EndpointId"):
        raise Invalid("Clary has no global endpoints: leave EndpointId out.", code="ValidationException")
    size = sum(_size(entry) for entry in request["Entries"])
    if size > LARGEST_ENTRY_BYTES:
        raise Invalid(
            f"Total size of the entries in the request is over the limit: {size} of {LARGEST_ENTRY_BYTES} "
            "bytes.",
            code="ValidationException",
        )
    results: list[Members] = []
    events: list[NewEvent] = []
    for entry in request["Entries"]:
        try:
            event = await _event(context, entry)
        except _Refused as refused:
            results.append({"ErrorCode": refused.code, "ErrorMessage": refused.message})
        else:
            events.append(event)
            results.append({"EventId": event.envelope["id"]})
    if events:
        await context.backends.events.publish(events)
    return {"FailedEntryCount": len(results) - len(events), "Entries": results}


@operation("events")
async def test_event_pattern(context: RequestContext, request: Members) -> ReplyMembers:
    matches = compile_pattern(request["EventPattern"])
    try:
        event = json.loads(request["Event"])
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise Invalid(
            "Parameter Event is not valid. Reason: It is no JSON object.", code="ValidationException"
        )
    missing = [name for name in _NEEDED if name not in event]
    if missing:
        raise Invalid(
            f"Parameter Event is not valid. Reason: It lacks {', '.join(missing)}.",
            code="ValidationException",
        )
    return {"Result": matches(event)}


async def _event(context: RequestContext, entry: Members) -> NewEvent:
    """The event that ``entry`` is. Raises `_Refused`."""
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            raise _Refused(
                "InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument."
            )
    if entry["Source"].startswith("aws."):
        raise _Refused("NotAuthorizedForSourceException", "Not authorized for the source.")
    detail = _detail(entry["Detail"])
    resources = entry.get("Resources") or []
    if len(resources) > MAX_RESOURCES:
        raise _Refused("InvalidArgument", f"There may be {MAX_RESOURCES} Resources at most.")
    try:
        bus = await require_bus(context, entry.get("EventBusName"))
    except NotFound as fault:
        raise _Refused("ResourceNotFoundException", fault.message) from None
    at = entry.get("Time")
    try:
        made = envelope(
            id=str(uuid.uuid4()),
            detail_type=entry["DetailType"],
            source=entry["Source"],
            account=context.account,
            region=context.region,
            at=context.backends.clock.now() if at is None else at,
            resources=resources,
            detail=detail,
        )
    except ValueError as error:
        raise _Refused("InvalidArgument", f"Parameter Time is not valid. Reason: {error}.") from None
    return NewEvent(context.account, context.region, made, bus)


def _detail(text: str) -> Any:
    try:
        detail = json.loads(text)
        # What is no JSON number (NaN, 1e999) and half a character could be sent to nobody.
        json.dumps(detail, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise _Refused("MalformedDetail", "Detail is malformed.") from None
    if not isinstance(detail, dict):
        raise _Refused("MalformedDetail", "Detail is malformed: it must be a JSON object.")
    if _is_deeper(detail, MAX_DEPTH):
        raise _Refused("MalformedDetail", f"Detail is malformed: it is nested more than {MAX_DEPTH} deep.")
    return detail


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)


def _size(entry: Members) -> int:
    """How EventBridge counts an entry."""
    texts = [
        entry.get("Source"),
        entry.get("DetailType"),
        entry.get("Detail"),
        *(entry.get("Resources") or ()),
    ]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts if text)
    return size + (_TIME_BYTES if entry.get("Time") is not None else 0)
