"""Tags of SageMaker's resources, by ARN. They live in the resource's spec, beside what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clary.faults import Invalid, LimitExceeded, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import SAGEMAKER_TYPES, sagemaker_key
from clary.resources.resource import Resource
from clary.services.operation import RequestContext, operation
from clary.store.store import MAX_PAGE_SIZE, Query

MAX_TAGS = 50
LIST_PAGE = 50


@operation("sagemaker")
async def add_tags(context: RequestContext, request: Members) -> ReplyMembers:
    """Adds tags, or gives present ones a new value; the reply has them all."""
    added = check_tags(request["Tags"])

    def change(resource: Resource) -> dict[str, Any]:
        tags = {tag["Key"]: tag["Value"] for tag in [*_tags(resource), *added]}
        if len(tags) > MAX_TAGS:
            raise LimitExceeded(
                f"The number of tags exceeds the limit of {MAX_TAGS}: {request['ResourceArn']} "
                f"would have {len(tags)}."
            )
        return {**resource.spec, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    resource = await tagged_resource(context, request["ResourceArn"])
    written = await context.backends.store.write_spec(resource.key, change, due_at=None)
    return {"Tags": _tags(written)}


@operation("sagemaker")
async def list_tags(context: RequestContext, request: Members) -> ReplyMembers:
    resource = await tagged_resource(context, request["ResourceArn"])
    token, size = request.get("NextToken", "0"), request.get("MaxResults", LIST_PAGE)
    if not token.isdecimal():
        raise Invalid("Invalid NextToken: it does not belong to this request. Start again without it.")
    start, tags = int(token), _tags(resource)
    more = start + size < len(tags)
    return {"Tags": tags[start : start + size], "NextToken": str(start + size) if more else None}


@operation("sagemaker")
async def delete_tags(context: RequestContext, request: Members) -> ReplyMembers:
    """Removes tags by key; keys that are not there do not matter."""
    gone = set(request["TagKeys"])

    def change(resource: Resource) -> dict[str, Any]:
        return {**resource.spec, "Tags": [tag for tag in _tags(resource) if tag["Key"] not in gone]}

    resource = await tagged_resource(context, request["ResourceArn"])
    await context.backends.store.write_spec(resource.key, change, due_at=None)
    return {}


def check_tags(tags: Sequence[dict[str, str]] | None) -> Sequence[dict[str, str]]:
    """The tags of a request. Raises `Invalid` for keys that will not do, `LimitExceeded` for too many."""
    keys = [tag["Key"] for tag in tags or []]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise Invalid(f"Duplicate tag keys found. Please remove the duplicate of '{twice}' and try again.")
    reserved = next((key for key in keys if key.lower().startswith("aws:")), None)
    if reserved is not None:
        raise Invalid(f"aws: prefixed tag key names are not allowed for external use: '{reserved}'.")
    if len(keys) > MAX_TAGS:
        raise LimitExceeded(f"The number of tags exceeds the limit: {len(keys)} of {MAX_TAGS}.")
    return list(tags or [])


async def tagged_resource(context: RequestContext, arn: str) -> Resource:
    """The resource an ARN means; ARNs carry names in lower case. Raises `NotFound`, `Invalid`."""
    key = sagemaker_key(arn)
    if key.account != context.account or key.region != context.region:
        raise Invalid(f"The resource {arn} belongs to another account or region.")
    found = await context.backends.store.find(key)
    if found is not None:
        return found
    query = Query(
        key.kind, key.account, key.region, name_contains=key.name, sort_by="name", page_size=MAX_PAGE_SIZE
    )
    while True:
        page = await context.backends.store.list(query)
        for resource in page.resources:
            if resource.key.name.lower() == key.name.lower():
                return resource
        if page.next_token is None:
            noun = SAGEMAKER_TYPES[key.kind].replace("-", " ")
            raise NotFound(f"Could not find {noun} {arn}.", code="ValidationException")
        query = Query(**{**query.__dict__, "page_token": page.next_token})


def _tags(resource: Resource) -> list[dict[str, str]]:
    tags: Any = resource.spec.get("Tags") or []
    return list(tags)
