"""Settings of buckets, as the SDKs set and read them: kept and given back, not acted on."""

from __future__ import annotations

import json
from typing import Any

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.buckets import check_bucket_tags, no_such_configuration
from clary.services.s3.owned_bucket import owned_bucket

MAX_POLICY_BYTES = 20 * 1024
MAX_CORS_RULES = 100
MAX_LIFECYCLE_RULES = 1000
_DEFAULT_OWNERSHIP = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


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
    size = len(request["Policy"].encode())
    if size > MAX_POLICY_BYTES:
        raise _malformed_policy(f"Policies may have {MAX_POLICY_BYTES} bytes, this one has {size}.")
    try:
        document = json.loads(request["Policy"])
    except ValueError as error:
        raise _malformed_policy(f"Policies must be valid JSON: {error}") from None
    except RecursionError:
        raise _malformed_policy("Policies must be valid JSON: this one is nested too deeply.") from None
    if not isinstance(document, dict) or "Statement" not in document:
        raise _malformed_policy("Missing required field Statement")
    return await _write(context, request, "policy", request["Policy"])


def _malformed_policy(message: str) -> Invalid:
    return Invalid(message, code="MalformedPolicy", status=400)


def _check_rules(rules: list[Any], most: int) -> None:
    if len(rules) > most:
        raise Invalid(
            f"The number of rules should not exceed the allowed limit of {most} rules.",
            code="InvalidRequest",
            status=400,
        )


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
    _check_rules(request["CORSConfiguration"]["CORSRules"], MAX_CORS_RULES)
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
    configuration = request.get("LifecycleConfiguration") or {"Rules": []}
    _check_rules(configuration["Rules"], MAX_LIFECYCLE_RULES)
    return await _write(context, request, "lifecycle", configuration)


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
    check_bucket_tags(request["Tagging"]["TagSet"])
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


@operation("s3")
async def put_bucket_ownership_controls(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "ownership_controls", request["OwnershipControls"])


@operation("s3")
async def get_bucket_ownership_controls(context: RequestContext, request: Members) -> ReplyMembers:
    """A new bucket has S3's default; one whose controls were deleted has none."""
    found = await _read(context, request, "ownership_controls")
    if found == {}:
        raise no_such_configuration(
            "The bucket ownership controls were not found",
            "OwnershipControlsNotFoundError",
            request["Bucket"],
        )
    return {"OwnershipControls": found or _DEFAULT_OWNERSHIP}


@operation("s3")
async def delete_bucket_ownership_controls(context: RequestContext, request: Members) -> ReplyMembers:
    return await _write(context, request, "ownership_controls", {})
