"""Tags of objects."""

from __future__ import annotations

from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.object_members import check_object_tags
from clary.services.s3.owned_bucket import owned_bucket


@operation("s3")
async def put_object_tagging(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    tags = check_object_tags(request["Tagging"]["TagSet"])
    await context.backends.objects.set_tags(request["Bucket"], request["Key"], tags)
    return {}


@operation("s3")
async def get_object_tagging(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    info = await context.backends.objects.head(request["Bucket"], request["Key"])
    return {"TagSet": [{"Key": key, "Value": value} for key, value in info.tags.items()]}


@operation("s3")
async def delete_object_tagging(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    await context.backends.objects.set_tags(request["Bucket"], request["Key"], {})
    return {}
