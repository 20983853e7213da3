"""Log groups."""

from __future__ import annotations

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation

DEFAULT_PAGE = 50


@operation("logs")
async def create_log_group(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.logs.create_group(context.account, context.region, request["logGroupName"])
    return {}


@operation("logs")
async def delete_log_group(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.logs.delete_group(context.account, context.region, request["logGroupName"])
    return {}


@operation("logs")
async def put_retention_policy(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.logs.set_retention(
        context.account, context.region, request["logGroupName"], request["retentionInDays"]
    )
    return {}


@operation("logs")
async def delete_retention_policy(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.logs.set_retention(context.account, context.region, request["logGroupName"], None)
    return {}


@operation("logs")
async def describe_log_groups(context: RequestContext, request: Members) -> ReplyMembers:
    prefix, pattern = request.get("logGroupNamePrefix", ""), request.get("logGroupNamePattern", "")
    if prefix and pattern:
        raise Invalid("Only one of logGroupNamePrefix and logGroupNamePattern may be given.")
    limit = request.get("limit", DEFAULT_PAGE)
    groups = await context.backends.logs.groups(
        context.account,
        context.region,
        prefix=prefix,
        pattern=pattern,
        after=request.get("nextToken", ""),
        limit=limit + 1,
    )
    shown = groups[:limit]
    return {
        "logGroups": [
            {
                "logGroupName": group.name,
                "creationTime": group.created_at,
                "retentionInDays": group.retention_days,
                "metricFilterCount": 0,
                "arn": f"arn:aws:logs:{group.region}:{group.account}:log-group:{group.name}:*",
                "logGroupArn": f"arn:aws:logs:{group.region}:{group.account}:log-group:{group.name}",
                "storedBytes": group.stored_bytes,
            }
            for group in shown
        ],
        "nextToken": shown[-1].name if len(groups) > limit else None,
    }


@operation("logs")
async def describe_metric_filters(context: RequestContext, request: Members) -> ReplyMembers:
    """Clary has no metric filters: training metrics come from the job's own definitions."""
    if "logGroupName" in request:
        await context.backends.logs.streams(context.account, context.region, request["logGroupName"], limit=1)
    return {"metricFilters": []}
