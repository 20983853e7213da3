"""Log streams, and the events in them."""

from __future__ import annotations

import itertools

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.logs.filter_pattern import compile_pattern
from clary.services.operation import RequestContext, operation
from clary.telemetry.log_store import LogEvent

DEFAULT_PAGE = 50
MAX_EVENTS_READ = 10_000
MAX_REPLY_BYTES = 1024 * 1024
MAX_BATCH_BYTES = 1_048_576  # PutLogEvents: the messages in UTF-8 plus 26 bytes each
EVENT_OVERHEAD_BYTES = 26
MAX_EVENT_AGE_MS = 14 * 86_400_000
MAX_EVENT_AHEAD_MS = 2 * 3_600_000


def _group(request: Members) -> str:
    """The name of the group, given as a name or as an ARN. Raises `Invalid` if it is neither."""
    name = str(request.get("logGroupName") or request.get("logGroupIdentifier") or "")
    if name.startswith("arn:"):
        name = name.split(":log-group:", 1)[-1].removesuffix(":*")
    if not name:
        raise Invalid("One of logGroupName and logGroupIdentifier must be given.")
    return name


@operation("logs")
async def create_log_stream(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.logs.create_stream(
        context.account, context.region, request["logGroupName"], request["logStreamName"]
    )
    return {}


@operation("logs")
async def delete_log_stream(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.logs.delete_stream(
        context.account, context.region, request["logGroupName"], request["logStreamName"]
    )
    return {}


@operation("logs")
async def describe_log_streams(context: RequestContext, request: Members) -> ReplyMembers:
    by_last_event = request.get("orderBy") == "LastEventTime"
    prefix = request.get("logStreamNamePrefix", "")
    if by_last_event and prefix:
        raise Invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    group, limit = _group(request), request.get("limit", DEFAULT_PAGE)
    offset = _number(request.get("nextToken", "0"))
    streams = await context.backends.logs.streams(
        context.account,
        context.region,
        group,
        prefix=prefix,
        by_last_event=by_last_event,
        descending=bool(request.get("descending")),
        offset=offset,
        limit=limit + 1,
    )
    return {
        "logStreams": [
            {
                "logStreamName": stream.name,
                "creationTime": stream.created_at,
                "firstEventTimestamp": stream.first_event_at,
                "lastEventTimestamp": stream.last_event_at,
                "lastIngestionTime": stream.last_ingestion_at,
                "uploadSequenceToken": "1",
                "arn": f"arn:aws:logs:{context.region}:{context.account}:log-group:{group}"
                f":log-stream:{stream.name}",
                "storedBytes": 0,
            }
            for stream in streams[:limit]
        ],
        "nextToken": str(offset + limit) if len(streams) > limit else None,
    }


@operation("logs")
async def put_log_events(context: RequestContext, request: Members) -> ReplyMembers:
    now = int(context.backends.clock.now() * 1000)
    events = [(event["timestamp"], event["message"]) for event in request["logEvents"]]
    size = sum(len(message.encode("utf-8", "replace")) + EVENT_OVERHEAD_BYTES for _, message in events)
    if size > MAX_BATCH_BYTES:
        raise Invalid(
            f"Upload too large: {size} bytes exceeds limit of {MAX_BATCH_BYTES}",
            code="InvalidParameterException",
        )
    if any(later < earlier for (earlier, _), (later, _) in itertools.pairwise(events)):
        raise Invalid(
            "Log events in a single PutLogEvents request must be in chronological order.",
            code="InvalidParameterException",
        )
    too_old = sum(timestamp < now - MAX_EVENT_AGE_MS for timestamp, _ in events)
    good = [event for event in events[too_old:] if event[0] <= now + MAX_EVENT_AHEAD_MS]
    await context.backends.logs.put(
        context.account, context.region, request["logGroupName"], request["logStreamName"], good
    )
    rejected = {}
    if too_old:
        rejected["tooOldLogEventEndIndex"] = too_old
    if too_old + len(good) < len(events):
        rejected["tooNewLogEventStartIndex"] = too_old + len(good)
    return {"nextSequenceToken": "1", "rejectedLogEventsInfo": rejected or None}


@operation("logs")
async def get_log_events(context: RequestContext, request: Members) -> ReplyMembers:
    """Pages forward or backward; at an end, the token that was given comes back."""
    token = request.get("nextToken", "")
    forward = token.startswith("f/") if token else bool(request.get("startFromHead"))
    if token and token[:2] not in ("f/", "b/"):
        raise Invalid("The specified nextToken is invalid.", code="InvalidParameterException")
    position = _number(token[2:]) if token else None
    limit = min(request.get("limit", MAX_EVENTS_READ), MAX_EVENTS_READ)
    events = list(
        await context.backends.logs.read(
            context.account,
            context.region,
            _group(request),
            [request["logStreamName"]],
            start=request.get("startTime"),
            end=request.get("endTime"),
            after_position=position if forward else None,
            before_position=None if forward else position,
            newest_first=not forward,
            limit=limit,
        )
    )
    events = _fitting(events)
    if not forward:
        events.reverse()
    if events:
        first, last = events[0].position, events[-1].position
    else:
        # Nothing there: a follower that looked at the end goes on from where it stood.
        last = position if position is not None else 0
        first = position if position is not None else 0
    return {
        "events": [
            {"timestamp": event.timestamp, "message": event.message, "ingestionTime": event.ingested_at}
            for event in events
        ],
        "nextForwardToken": f"f/{last}" if events or forward or not token else f"f/{max(last - 1, 0)}",
        "nextBackwardToken": f"b/{first}" if events or not forward or not token else f"b/{first + 1}",
    }


@operation("logs")
async def filter_log_events(context: RequestContext, request: Members) -> ReplyMembers:
    names, prefix = request.get("logStreamNames", []), request.get("logStreamNamePrefix", "")
    if names and prefix:
        raise Invalid(
            "Only one of logStreamNames and logStreamNamePrefix may be given.",
            code="InvalidParameterException",
        )
    group, logs = _group(request), context.backends.logs
    matches = compile_pattern(request.get("filterPattern", ""))
    limit = min(request.get("limit", MAX_EVENTS_READ), MAX_EVENTS_READ)
    if prefix:
        found = await logs.streams(
            context.account, context.region, group, prefix=prefix, limit=MAX_EVENTS_READ
        )
        names = [stream.name for stream in found]
        if not names:
            return {"events": [], "searchedLogStreams": []}
    token = request.get("nextToken")
    position = _number(token) if token is not None else None
    events = await logs.read(
        context.account,
        context.region,
        group,
        names,
        start=request.get("startTime"),
        end=request.get("endTime"),
        after_position=position,
        limit=MAX_EVENTS_READ,
    )
    chosen: list[LogEvent] = []
    looked_at = 0
    for event in events:
        if len(chosen) == limit:
            break
        looked_at += 1
        if matches(event.message):
            chosen.append(event)
    chosen = _fitting(chosen)
    more = looked_at < len(events) or len(events) == MAX_EVENTS_READ
    return {
        "events": [
            {
                "logStreamName": event.stream,
                "timestamp": event.timestamp,
                "message": event.message,
                "ingestionTime": event.ingested_at,
                "eventId": f"{event.position:056d}",
            }
            for event in chosen
        ],
        "searchedLogStreams": [],
        "nextToken": str(events[looked_at - 1].position) if more and looked_at else None,
    }


def _fitting(events: list[LogEvent]) -> list[LogEvent]:
    """The first events that a reply has room for; at least one."""
    room = MAX_REPLY_BYTES
    for count, event in enumerate(events):
        room -= len(event.message) + EVENT_OVERHEAD_BYTES
        if room < 0 and count:
            return events[:count]
    return events


def _number(token: str) -> int:
    if not token.isdecimal() or len(token) > 18:
        raise Invalid("The specified nextToken is invalid.", code="InvalidParameterException")
    return int(token)
