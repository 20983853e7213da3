"""Log streams."""

from __future__ import annotations

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.logs.log_group import log_group_arn, log_group_of
from clary.services.operation import RequestContext, operation
from clary.services.page_token import page_token, read_page_token

DEFAULT_PAGE = 50


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
    prefix, descending = request.get("logStreamNamePrefix", ""), bool(request.get("descending"))
    if by_last_event and prefix:
        raise Invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
    group, limit = log_group_of(context, request), request.get("limit", DEFAULT_PAGE)
    question = ["streams", group, prefix, by_last_event, descending]
    after = None
    if "nextToken" in request:
        place = read_page_token(request["nextToken"], question, int, str)
        if place is None:
            raise Invalid("The specified nextToken is invalid.")
        after = (int(place[0]), str(place[1]))
    streams = await context.backends.logs.streams(
        context.account,
        context.region,
        group,
        prefix=prefix,
        by_last_event=by_last_event,
        descending=descending,
        after=after,
        limit=limit + 1,
    )
    last = streams[limit - 1] if len(streams) > limit else None
    return {
        "logStreams": [
            {
                "logStreamName": stream.name,
                "creationTime": stream.created_at,
                "firstEventTimestamp": stream.first_event_at,
                "lastEventTimestamp": stream.last_event_at,
                "lastIngestionTime": stream.last_ingestion_at,
                "uploadSequenceToken": "1",
                "arn": f"{log_group_arn(context, group)}:log-stream:{stream.name}",
                "storedBytes": 0,  # as CloudWatch has it: only groups tell
            }
            for stream in streams[:limit]
        ],
        "nextToken": page_token([last.last_event_at or 0, last.name], question) if last else None,
    }
