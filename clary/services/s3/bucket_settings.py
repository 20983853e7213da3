"""Settings of buckets, as the SDKs set and read them: kept and given back, not acted on."""

from __future__ import annotations

import json
from typing import Any

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.buckets import no_such_configuration
from clary.services.s3.owned_bucket import owned_bucket


async def _read(context: RequestContext, request: Members, name: str) -> Any:
    await owned_bucket(context, request)
    text = await context.backends.objects.bucket_setting(request["Bucket"], name)
    return None if text is None else json.loads(text)


async def _write(context: RequestContext, request: Members, name: str, value: Any) -> ReplyMembers:
    await owned_bucket(context, request)
    text = None if value is None else json.dumps(value)
    await context.backends.objects.set_bucket_setting(request["Bucket"], name, text)
    return {}


@operation("s3")
async def put_bucket_policy(context: RequestContext, request: Members) -> ReplyMembers:
    try:
        document = json.loads(request["Policy"])
    except ValueError as error:
        raise Invalid(f"Policies must be valid JSON: {error}", code="MalformedPolicy", status=400) from None
    if not isinstance(document, dict) or "Statement" not in document:
        raise Invalid("Missing required field Statement", code="MalformedPolicy", status=400)
    return await _write(context, request, "policy", request["Policy"])


@operation("s3")
async def get_bucket_policy(context: RequestContext, request: Members) -> ReplyMembers:
    policy = await _read(context, request, "policy")
    if policy is None:
        raise no_such_configuration(
            "The bucket policy does not exist", "NoSuchBucketPolicy", request["Bucket"]
        )
    return {"Policy": policy}


@operation("s3")
async def delete_bucket_policy(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "policy", None)


@operation("s3")
async def put_bucket_cors(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "cors", request["CORSConfiguration"])


@operation("s3")
async def get_bucket_cors(context: RequestContext, request: Members) -> ReplyMembers:
    found = await _read(context, request, "cors")
    if found is None:
        raise no_such_configuration(
            "The CORS configuration does not exist", "NoSuchCORSConfiguration", request["Bucket"]
        )
    return dict(found)


@operation("s3")
async def delete_bucket_cors(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "cors", None)


@operation("s3")
async def put_bucket_encryption(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "encryption", request["ServerSideEncryptionConfiguration"])


@operation("s3")
async def get_bucket_encryption(context: RequestContext, request: Members) -> ReplyMembers:
    found = await _read(context, request, "encryption")
    if found is None:
        raise no_such_configuration(
            "The server side encryption configuration was not found",
            "ServerSideEncryptionConfigurationNotFoundError",
            request["Bucket"],
        )
    return {"ServerSideEncryptionConfiguration": found}


@operation("s3")
async def delete_bucket_encryption(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "encryption", None)


@operation("s3")
async def put_bucket_versioning(context: RequestContext, request: Members) -> ReplyMembers:
    """Clary keeps one version of an object, so versioning cannot be switched on."""
    if request["VersioningConfiguration"].get("Status") == "Enabled":
        raise Invalid(
            "Clary keeps one version of each object: versioning cannot be enabled.",
            code="NotImplemented",
            status=501,
        )
    return await _write(context, request, "versioning", request["VersioningConfiguration"])


@operation("s3")
async def get_bucket_versioning(context: RequestContext, request: Members) -> ReplyMembers:
    return await _read(context, request, "versioning") or {}


@operation("s3")
async def put_bucket_notification_configuration(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "notification", request["NotificationConfiguration"])


@operation("s3")
async def get_bucket_notification_configuration(context: RequestContext, request: Members) -> ReplyMembers:
    return await _read(context, request, "notification") or {}


@operation("s3")
async def put_bucket_lifecycle_configuration(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "lifecycle", request.get("LifecycleConfiguration") or {})


@operation("s3")
async def get_bucket_lifecycle_configuration(context: RequestContext, request: Members) -> ReplyMembers:
    found = await _read(context, request, "lifecycle")
    if found is None:
        raise no_such_configuration(
            "The lifecycle configuration does not exist", "NoSuchLifecycleConfiguration", request["Bucket"]
        )
    return dict(found)


@operation("s3")
async def delete_bucket_lifecycle(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "lifecycle", None)


@operation("s3")
async def put_public_access_block(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "public_access_block", request["PublicAccessBlockConfiguration"])


@operation("s3")
async def get_public_access_block(context: RequestContext, request: Members) -> ReplyMembers:
    found = await _read(context, request, "public_access_block")
    if found is None:
        raise no_such_configuration(
            "The public access block configuration was not found",
            "NoSuchPublicAccessBlockConfiguration",
            request["Bucket"],
        )
    return {"PublicAccessBlockConfiguration": found}


@operation("s3")
async def delete_public_access_block(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "public_access_block", None)


@operation("s3")
async def put_bucket_tagging(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "tagging", request["Tagging"]["TagSet"])


@operation("s3")
async def get_bucket_tagging(context: RequestContext, request: Members) -> ReplyMembers:
    found = await _read(context, request, "tagging")
    if not found:
        raise no_such_configuration("The TagSet does not exist", "NoSuchTagSet", request["Bucket"])
    return {"TagSet": found}


@operation("s3")
async def delete_bucket_tagging(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "tagging", None)
