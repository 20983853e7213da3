"""The events of a region's buses, as they come: what ``clary events --follow`` shows."""

from __future__ import annotations

import json
import time

from clary.event_bus.event_pattern import Matcher, compile_pattern
from clary.event_bus.event_store import BusEvent
from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation

DEFAULT_LIMIT = 50
LOOKED_AT_ONCE = 200  # events, of which a pattern may choose
MOST_LOOKED_AT = 5000  # in one call; the next goes on from there


@operation("clary")
async def list_events(context: RequestContext, request: Members) -> ReplyMembers:
    """Events behind ``After``; without it none, and where the next will come.

    Where there are none, waits up to ``WaitSeconds`` for one. ``After`` of the reply is to be given next.
    """
    matches = _matcher(request.get("EventPattern"))
    store = context.backends.events
    after = request.get("After")
    if after is None:
        return {"Events": [], "After": await store.newest()}
    limit = request.get("Limit") or DEFAULT_LIMIT
    deadline = time.monotonic() + (request.get("WaitSeconds") or 0)
    newest = await store.newest()
    if after > newest:
        after = newest  # a bus that began anew
    looked_at = 0
    while True:
        events = await store.events(
            after=after, limit=LOOKED_AT_ONCE, account=context.account, region=context.region
        )
        found: list[BusEvent] = []
        for event in events:
            after = event.position
            if matches is None or matches(event.envelope):
                found.append(event)
                if len(found) == limit:
                    break
        looked_at += len(events)
        left = deadline - time.monotonic()
        if found or looked_at >= MOST_LOOKED_AT or (not events and left <= 0):
            return {"Events": [_show(event) for event in found], "After": after}
        if not events:
            # What came, if anything, may be of another region.
            known = max(after, newest)
            newest = await store.wait(after=known, timeout_seconds=left)
            if newest <= known:
                return {"Events": [], "After": after}


def _matcher(pattern: str | None) -> Matcher | None:
    if not pattern:
        return None
    try:
        return compile_pattern(pattern)
    except Invalid as fault:
        raise Invalid(fault.message, code="ValidationException") from None


def _show(event: BusEvent) -> Members:
    return {
        "Position": event.position,
        "Event": json.dumps(event.envelope, ensure_ascii=False),
        "EventBusName": event.bus,
        "IngestionTime": event.at,
    }
