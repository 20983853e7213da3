"""Log groups."""

from __future__ import annotations

from typing import Any

from clary.faults import Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.services.logs.log_group import log_group_arn, log_group_of_identifier
from clary.services.operation import RequestContext, operation
from clary.services.page_token import page_token, read_page_token
from clary.telemetry.log_store import LogGroup

DEFAULT_PAGE = 50
# The days that CloudWatch Logs offers.
RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545),
    *(731, 1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


@operation("logs")
async def create_log_group(context: RequestContext, request: Members) -> ReplyMembers:
    name = request["logGroupName"]
    if name.startswith("aws/"):
        raise Invalid(f"Log groups starting with aws/ are reserved for AWS: {name}")
    if request.get("deletionProtectionEnabled"):
        raise Invalid("Clary does not offer deletionProtectionEnabled of log groups: leave it out.")
    await context.backends.logs.create_group(
        context.account,
        context.region,
        name,
        tags=request.get("tags"),
        log_class=request.get("logGroupClass", "STANDARD"),
        kms_key_id=request.get("kmsKeyId"),
    )
    return {}


@operation("logs")
async def delete_log_group(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.logs.delete_group(context.account, context.region, request["logGroupName"])
    return {}


@operation("logs")
async def put_retention_policy(context: RequestContext, request: Members) -> ReplyMembers:
    days = request["retentionInDays"]
    if days not in RETENTION_DAYS:
        offered = ", ".join(str(each) for each in RETENTION_DAYS)
        raise Invalid(f"retentionInDays must be one of {offered}, not {days}.")
    await context.backends.logs.set_retention(context.account, context.region, request["logGroupName"], days)
    return {}


@operation("logs")
async def delete_retention_policy(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.logs.set_retention(context.account, context.region, request["logGroupName"], None)
    return {}


@operation("logs")
async def describe_log_groups(context: RequestContext, request: Members) -> ReplyMembers:
    prefix, pattern = request.get("logGroupNamePrefix", ""), request.get("logGroupNamePattern", "")
    if prefix and pattern:
        raise Invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
    if "logGroupIdentifiers" in request:
        return {"logGroups": await _named(context, request)}
    wanted, question = request.get("logGroupClass"), ["groups", prefix, pattern, request.get("logGroupClass")]
    after = ""
    if "nextToken" in request:
        place = read_page_token(request["nextToken"], question, str)
        if place is None:
            raise Invalid("The specified nextToken is invalid.")
        after = str(place[0])
    limit = request.get("limit", DEFAULT_PAGE)
    shown: list[LogGroup] = []
    more = True
    while more and len(shown) <= limit:
        groups = await context.backends.logs.groups(
            context.account, context.region, prefix=prefix, pattern=pattern, after=after, limit=limit + 1
        )
        more = len(groups) > limit
        after = groups[-1].name if groups else after
        shown += [group for group in groups if wanted in (None, group.log_class)]
    token = page_token([shown[limit - 1].name], question) if len(shown) > limit else None
    return {
        "logGroups": [_show(context, group, brief=bool(pattern)) for group in shown[:limit]],
        "nextToken": token,
    }


@operation("logs")
async def describe_metric_filters(context: RequestContext, request: Members) -> ReplyMembers:
    """Clary has no metric filters: training metrics come from the job's own definitions."""
    if "logGroupName" in request:
        await context.backends.logs.group(context.account, context.region, request["logGroupName"])
    return {"metricFilters": []}


async def _named(context: RequestContext, request: Members) -> list[dict[str, Any]]:
    """The groups that were asked for by name or ARN, those that exist."""
    others = {"logGroupNamePrefix", "logGroupNamePattern", "logGroupClass", "limit", "nextToken"}
    if not others.isdisjoint(request):
        raise Invalid("logGroupIdentifiers cannot be combined with other filters: leave them out.")
    shown = []
    for identifier in request["logGroupIdentifiers"]:
        try:
            name = log_group_of_identifier(context, identifier)
            group = await context.backends.logs.group(context.account, context.region, name)
        except NotFound:
            continue
        shown.append(_show(context, group))
    return sorted(shown, key=lambda group: str(group["logGroupName"]))


def _show(context: RequestContext, group: LogGroup, *, brief: bool = False) -> dict[str, Any]:
    arn = log_group_arn(context, group.name)
    shown = {"logGroupName": group.name, "creationTime": group.created_at, "arn": f"{arn}:*"}
    if brief:
        return shown
    return {
        **shown,
        "logGroupArn": arn,
        "retentionInDays": group.retention_days,
        "metricFilterCount": 0,
        "storedBytes": group.stored_bytes,
        "logGroupClass": group.log_class,
        "kmsKeyId": group.kms_key_id,
    }
