"""Buckets: made, found, listed, deleted."""

from __future__ import annotations

import json

from clary.faults import Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.object_members import check_owners_acl, check_tags
from clary.services.s3.owned_bucket import owned_bucket

MAX_BUCKET_TAGS = 50


@operation("s3")
async def list_buckets(context: RequestContext, request: Members) -> ReplyMembers:
    buckets = await context.backends.objects.list_buckets(context.account)
    prefix, after = request.get("Prefix", ""), request.get("ContinuationToken", "")
    found = [bucket for bucket in buckets if bucket.name.startswith(prefix) and bucket.name > after]
    if request.get("BucketRegion"):
        found = [bucket for bucket in found if bucket.region == request["BucketRegion"]]
    limit = request.get("MaxBuckets", len(found))
    page = found[:limit]
    return {
        "Buckets": [
            {"Name": bucket.name, "CreationDate": bucket.created_at, "BucketRegion": bucket.region}
            for bucket in page
        ],
        "Owner": {"ID": context.account, "DisplayName": context.account},
        "ContinuationToken": page[-1].name if len(found) > limit and page else None,
    }


@operation("s3")
async def create_bucket(context: RequestContext, request: Members) -> ReplyMembers:
    """The region is the constraint's, which must be the one that the request was signed for."""
    check_owners_acl(request)
    if request.get("ObjectLockEnabledForBucket"):
        raise Invalid(
            "Clary keeps one version of each object: object lock cannot be enabled.",
            code="NotImplemented",
            status=501,
        )
    configuration = request.get("CreateBucketConfiguration") or {}
    constraint = configuration.get("LocationConstraint")
    tags = configuration.get("Tags")
    check_bucket_tags(tags or [])
    region = context.region
    if constraint is None and region != "us-east-1":
        raise Invalid(
            "The unspecified location constraint is incompatible for the region specific endpoint this "
            "request was sent to.",
            code="IllegalLocationConstraintException",
            status=400,
        )
    if constraint is not None:
        if constraint == "us-east-1":
            raise Invalid(
                "The specified location-constraint is not valid",
                code="InvalidLocationConstraint",
                status=400,
                fields={"LocationConstraint": constraint},
            )
        constraint = "eu-west-1" if constraint == "EU" else constraint
        if region not in ("us-east-1", constraint):
            raise Invalid(
                f"The {constraint} location constraint is incompatible for the region specific endpoint this "
                "request was sent to.",
                code="IllegalLocationConstraintException",
                status=400,
            )
        region = constraint
    bucket = await context.backends.objects.create_bucket(
        request["Bucket"], account=context.account, region=region
    )
    settings = {
        "tagging": tags,
        "ownership_controls": {"Rules": [{"ObjectOwnership": request["ObjectOwnership"]}]}
        if request.get("ObjectOwnership")
        else None,
    }
    for name, value in settings.items():
        if value:
            await context.backends.objects.set_bucket_setting(bucket.name, name, json.dumps(value))
    return {"Location": f"/{bucket.name}"}


@operation("s3")
async def head_bucket(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    return {"BucketRegion": bucket.region, "AccessPointAlias": False}


@operation("s3")
async def delete_bucket(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    await context.backends.objects.delete_bucket(request["Bucket"])
    return {}


@operation("s3")
async def get_bucket_location(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    return {"LocationConstraint": None if bucket.region == "us-east-1" else bucket.region}


@operation("s3")
async def get_bucket_acl(context: RequestContext, request: Members) -> ReplyMembers:
    """Everything in a bucket is its owner's alone."""
    bucket = await owned_bucket(context, request)
    return owner_grants(bucket.account)


def check_bucket_tags(tags: list[dict[str, str]]) -> None:
    """Raises `Invalid` for tags that a bucket cannot have."""
    if len(check_tags(tags)) > MAX_BUCKET_TAGS:
        raise Invalid(
            f"Bucket tag count cannot be greater than {MAX_BUCKET_TAGS}", code="BadRequest", status=400
        )


def owner_grants(account: str) -> Members:
    """An access control list that gives everything to the owner."""
    owner = {"ID": account, "DisplayName": account}
    return {
        "Owner": owner,
        "Grants": [{"Grantee": {**owner, "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"}],
    }


def no_such_configuration(message: str, code: str, bucket: str) -> NotFound:
    return NotFound(message, code=code, status=404, fields={"BucketName": bucket})
