"""Log events: put, followed in one stream, searched in many."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.logs.filter_pattern import compile_pattern
from clary.services.logs.log_group import log_group_of
from clary.services.operation import RequestContext, operation
from clary.services.page_token import page_token, read_page_token
from clary.telemetry.log_store import EVENT_OVERHEAD_BYTES, MAX_EVENTS_OF_A_PAGE, LogEvent

MAX_BATCH_BYTES = 1_048_576  # the messages in UTF-8 plus 26 bytes each
MAX_BATCH_SPAN_MILLISECONDS = 24 * 3_600_000
MAX_EVENT_AGE_MILLISECONDS = 14 * 86_400_000
MAX_EVENT_AHEAD_MILLISECONDS = 2 * 3_600_000
_DAY_MILLISECONDS = 86_400_000
_LATEST = 2**63 - 1
_TOKEN_DIGITS = 56


@operation("logs")
async def put_log_events(context: RequestContext, request: Members) -> ReplyMembers:
    """Keeps the events that are neither too old nor too new, and says which those are not."""
    logs, now = context.backends.logs, int(context.backends.clock.now() * 1000)
    events: list[tuple[int, str]] = [(event["timestamp"], event["message"]) for event in request["logEvents"]]
    size = sum(len(message.encode("utf-8", "replace")) + EVENT_OVERHEAD_BYTES for _, message in events)
    if size > MAX_BATCH_BYTES:
        raise Invalid(f"Upload too large: {size} bytes exceeds limit of {MAX_BATCH_BYTES}")
    if any(later < earlier for (earlier, _), (later, _) in itertools.pairwise(events)):
        raise Invalid("Log events in a single PutLogEvents request must be in chronological order.")
    group = await logs.group(context.account, context.region, request["logGroupName"])
    # In chronological order, what is too old is in front and what is too new behind.
    too_old = sum(timestamp < now - MAX_EVENT_AGE_MILLISECONDS for timestamp, _ in events)
    expired = 0
    if group.retention_days is not None:
        expired = sum(timestamp < now - group.retention_days * _DAY_MILLISECONDS for timestamp, _ in events)
    behind = sum(timestamp > now + MAX_EVENT_AHEAD_MILLISECONDS for timestamp, _ in events)
    good = events[max(too_old, expired) : len(events) - behind]
    if good and good[-1][0] - good[0][0] > MAX_BATCH_SPAN_MILLISECONDS:
        raise Invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        )
    await logs.put(context.account, context.region, group.name, request["logStreamName"], good)
    rejected = {}
    if too_old:
        rejected["tooOldLogEventEndIndex"] = too_old
    if expired > too_old:
        rejected["expiredLogEventEndIndex"] = expired
    if behind:
        rejected["tooNewLogEventStartIndex"] = len(events) - behind
    return {"nextSequenceToken": "1", "rejectedLogEventsInfo": rejected or None}


@operation("logs")
async def get_log_events(context: RequestContext, request: Members) -> ReplyMembers:
    """Pages forward or backward; at an end, the token that was given comes back.

    Pages follow the order in which events were put, so that a follower of a growing log misses none, however
    late it came; within a page they are in the order of their times.
    """
    token = request.get("nextToken")
    forward, position = _read_token(token) if token else (bool(request.get("startFromHead")), None)
    events = await context.backends.logs.read(
        context.account,
        context.region,
        log_group_of(context, request),
        request["logStreamName"],
        start=_time(request, "startTime"),
        end=_time(request, "endTime"),
        after_position=position if forward else None,
        before_position=None if forward else position,
        newest_first=not forward,
        limit=request.get("limit", MAX_EVENTS_OF_A_PAGE),
    )
    if events:
        ends = (events[0].position, events[-1].position)
        first, last = min(ends), max(ends)
    elif position is None:
        first = last = 0
    else:
        # Nothing there: stay, and in the other direction begin with the event beside.
        first, last = (position + 1, position) if forward else (position, max(position - 1, 0))
    return {
        "events": [_show(event) for event in sorted(events, key=lambda e: (e.timestamp, e.position))],
        "nextForwardToken": f"f/{last:0{_TOKEN_DIGITS}}",
        "nextBackwardToken": f"b/{first:0{_TOKEN_DIGITS}}",
    }


@operation("logs")
async def filter_log_events(context: RequestContext, request: Members) -> ReplyMembers:
    names: Sequence[str] = request.get("logStreamNames", [])
    prefix = request.get("logStreamNamePrefix", "")
    if names and prefix:
        raise Invalid("Only one of logStreamNames and logStreamNamePrefix may be given.")
    group, pattern = log_group_of(context, request), request.get("filterPattern", "")
    start, end = _time(request, "startTime"), _time(request, "endTime")
    question = ["events", group, sorted(names), prefix, pattern, start, end]
    newest_first, after = request.get("startFromHead") is False, None
    if "nextToken" in request:
        place = read_page_token(request["nextToken"], question, int, int, int)
        if place is None:
            raise Invalid("The specified nextToken is invalid.")
        newest_first, after = bool(place[0]), (int(place[1]), int(place[2]))
    found = await context.backends.logs.search(
        context.account,
        context.region,
        group,
        streams=names,
        prefix=prefix,
        start=start,
        end=None if end is None else min(end + 1, _LATEST),  # here, and only here, the end is part
        after=after,
        newest_first=newest_first,
        matches=compile_pattern(pattern),
        limit=request.get("limit", MAX_EVENTS_OF_A_PAGE),
    )
    return {
        "events": [
            {
                **_show(event),
                "logStreamName": event.stream,
                "eventId": f"{event.position:0{_TOKEN_DIGITS}}",
            }
            for event in found.events
        ],
        "searchedLogStreams": [],
        "nextToken": page_token([int(newest_first), *found.place], question) if found.place else None,
    }


def _show(event: LogEvent) -> dict[str, str | int]:
    return {"timestamp": event.timestamp, "message": event.message, "ingestionTime": event.ingested_at}


def _time(request: Members, name: str) -> int | None:
    """A bound of time, cut to what the store can hold."""
    value = request.get(name)
    return None if value is None else min(int(value), _LATEST)


def _read_token(token: str) -> tuple[bool, int]:
    """Whether the token goes forward, and from where. Raises `Invalid`."""
    direction, _, position = token.partition("/")
    if (
        direction in ("f", "b")
        and position.isascii()
        and position.isdecimal()
        and len(position) <= _TOKEN_DIGITS
        and int(position) <= _LATEST
    ):
        return direction == "f", int(position)
    raise Invalid("The specified nextToken is invalid.")
