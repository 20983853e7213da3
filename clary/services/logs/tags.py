"""Tags of log groups, by ARN and, in the older operations, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clary.faults import LimitExceeded
from clary.protocol.wire import Members, ReplyMembers
from clary.services.logs.log_group import log_group_of_arn
from clary.services.operation import RequestContext, operation

MAX_TAGS = 50


@operation("logs")
async def tag_resource(context: RequestContext, request: Members) -> ReplyMembers:
    return await _add(context, log_group_of_arn(context, request["resourceArn"]), request["tags"])


@operation("logs")
async def untag_resource(context: RequestContext, request: Members) -> ReplyMembers:
    return await _remove(context, log_group_of_arn(context, request["resourceArn"]), request["tagKeys"])


@operation("logs")
async def list_tags_for_resource(context: RequestContext, request: Members) -> ReplyMembers:
    return await _list(context, log_group_of_arn(context, request["resourceArn"]))


@operation("logs")
async def tag_log_group(context: RequestContext, request: Members) -> ReplyMembers:
    return await _add(context, request["logGroupName"], request["tags"])


@operation("logs")
async def untag_log_group(context: RequestContext, request: Members) -> ReplyMembers:
    return await _remove(context, request["logGroupName"], request["tags"])


@operation("logs")
async def list_tags_log_group(context: RequestContext, request: Members) -> ReplyMembers:
    return await _list(context, request["logGroupName"])


async def _add(context: RequestContext, group: str, added: Mapping[str, str]) -> ReplyMembers:
    def change(tags: Mapping[str, str]) -> Mapping[str, str]:
        changed = {**tags, **added}
        if len(changed) > MAX_TAGS:
            raise LimitExceeded(
                f"A log group can have {MAX_TAGS} tags, and {group} would have {len(changed)}: "
                "remove some first."
            )
        return changed

    await context.backends.logs.change_tags(context.account, context.region, group, change)
    return {}


async def _remove(context: RequestContext, group: str, keys: Sequence[str]) -> ReplyMembers:
    def change(tags: Mapping[str, str]) -> Mapping[str, str]:
        return {key: value for key, value in tags.items() if key not in keys}

    await context.backends.logs.change_tags(context.account, context.region, group, change)
    return {}


async def _list(context: RequestContext, group: str) -> ReplyMembers:
    found = await context.backends.logs.group(context.account, context.region, group)
    return {"tags": found.tags}
