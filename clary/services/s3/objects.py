"""Objects: put, got, copied, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from clary.faults import Fault, Invalid, NotFound
from clary.objects.object_store import ObjectInfo
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.buckets import owner_grants
from clary.services.s3.object_members import (
    STORAGE_HEADERS,
    byte_range,
    check_copy_conditions,
    check_no_customer_key,
    check_read_conditions,
    checksum_members,
    copy_source,
    described,
    parse_tagging,
    put_options,
    storage_members,
)
from clary.services.s3.owned_bucket import check_expected_source, invalid_argument, owned_bucket

MAX_DELETED_AT_ONCE = 1000
DELETED_SIDE_BY_SIDE = 100  # the store flushes once for deletions that come together
MAX_SINGLE_PUT_BYTES = 5 * 1024**3


@operation("s3")
async def put_object(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    if request.get("ContentLength", 0) > MAX_SINGLE_PUT_BYTES:
        raise Invalid(
            "Your proposed upload exceeds the maximum allowed size",
            code="EntityTooLarge",
            status=400,
            fields={"ProposedSize": request["ContentLength"], "MaxSizeAllowed": MAX_SINGLE_PUT_BYTES},
        )
    options = put_options(context, request)
    info = await context.backends.objects.put(request["Bucket"], request["Key"], request["Body"], options)
    return {"ETag": f'"{info.etag}"', **checksum_members(info), **storage_members(info.content_headers)}


@operation("s3")
async def get_object(context: RequestContext, request: Members) -> ReplyMembers:
    bucket, key = request["Bucket"], request["Key"]
    while True:
        seen, span = await _looked_up(context, request)
        first, last = span or (0, None)
        info, body = await context.backends.objects.read(bucket, key, first=first, last=last)
        if (info.etag, info.size_bytes, info.modified_at) == (seen.etag, seen.size_bytes, seen.modified_at):
            break
        # Another version came between the look and the read: its conditions and range are not checked yet.
        await _discard(body)
    return {**_part(context, info, span, request), "Body": body}


@operation("s3")
async def head_object(context: RequestContext, request: Members) -> ReplyMembers:
    info, span = await _looked_up(context, request)
    return _part(context, info, span, request)


def _part(
    context: RequestContext, info: ObjectInfo, span: tuple[int, int] | None, request: Members
) -> Members:
    """What GetObject and HeadObject say of the bytes ``span`` of an object (``None``: of all)."""
    reply = described(info, request, part=span is not None)
    if span is None:
        return {**reply, "ContentLength": info.size_bytes}
    context.call.reply_status = 206
    return {
        **reply,
        "ContentLength": span[1] - span[0] + 1,
        "ContentRange": f"bytes {span[0]}-{span[1]}/{info.size_bytes}",
    }


async def _discard(body: AsyncIterator[bytes]) -> None:
    """Let go of a body that nobody will read."""
    close = getattr(body, "aclose", None)
    if close is not None:
        await close()


async def _looked_up(context: RequestContext, request: Members) -> tuple[ObjectInfo, tuple[int, int] | None]:
    """The object, its conditions checked, and the bytes that are asked for (``None``: all)."""
    await owned_bucket(context, request)
    bucket, key, number = request["Bucket"], request["Key"], request.get("PartNumber")
    check_no_customer_key(request)
    if request.get("VersionId") not in (None, "null"):
        raise invalid_argument("Invalid version id specified", "versionId", request["VersionId"])
    if number is None:
        info = await context.backends.objects.head(bucket, key)
        check_read_conditions(info, request)
        return info, byte_range(request.get("Range"), info.size_bytes)
    if "Range" in request:
        raise Invalid(
            "Cannot specify both Range header and partNumber query parameter",
            code="InvalidRequest",
            status=400,
        )
    info, first, size = await context.backends.objects.locate_part(bucket, key, number)
    check_read_conditions(info, request)
    return info, (first, first + size - 1) if size else None


@operation("s3")
async def get_object_attributes(context: RequestContext, request: Members) -> ReplyMembers:
    info, _ = await _looked_up(context, request)
    found: dict[str, Any] = {
        "ETag": info.etag,
        "ObjectSize": info.size_bytes,
        "StorageClass": info.content_headers.get(STORAGE_HEADERS["StorageClass"], "STANDARD"),
        "Checksum": checksum_members(info) or None,
        "ObjectParts": {"TotalPartsCount": info.part_count} if info.part_count else None,
    }
    wanted = {name: found[name] for name in request["ObjectAttributes"]}
    return {**wanted, "LastModified": info.modified_at}


@operation("s3")
async def copy_object(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    source_bucket, source_key = copy_source(request["CopySource"])
    source = await owned_bucket(context, {}, name=source_bucket)
    check_expected_source(source, request.get("ExpectedSourceBucketOwner"))
    objects = context.backends.objects
    info = await objects.head(source_bucket, source_key)
    check_copy_conditions(info, request)
    if info.size_bytes > MAX_SINGLE_PUT_BYTES:
        raise Invalid(
            "The specified copy source is larger than the maximum allowable size for a copy source: "
            f"{MAX_SINGLE_PUT_BYTES}",
            code="InvalidRequest",
            status=400,
        )
    replaces = request.get("MetadataDirective") == "REPLACE"
    retags = request.get("TaggingDirective") == "REPLACE"
    itself = (source_bucket, source_key) == (request["Bucket"], request["Key"])
    stored_otherwise = any(request.get(name) for name in STORAGE_HEADERS)
    if itself and not replaces and not retags and not stored_otherwise:
        raise Invalid(
            "This copy request is illegal because it is trying to copy an object to itself without changing "
            "the object's metadata, storage class, website redirect location or encryption attributes.",
            code="InvalidRequest",
            status=400,
        )
    options = put_options(context, request)
    if not replaces:
        # How the copy is stored is the request's to say in any case.
        kept = {h: v for h, v in info.content_headers.items() if h not in STORAGE_HEADERS.values()}
        asked = {h: v for h, v in options.content_headers.items() if h in STORAGE_HEADERS.values()}
        options = replace(options, content_headers={**kept, **asked}, metadata=info.metadata)
    tags = parse_tagging(request.get("Tagging")) if retags else info.tags
    copied = await objects.copy(
        source_bucket, source_key, request["Bucket"], request["Key"], replace(options, tags=tags)
    )
    result = {"ETag": f'"{copied.etag}"', "LastModified": copied.modified_at, **checksum_members(copied)}
    return {"CopyObjectResult": result, **storage_members(copied.content_headers)}


@operation("s3")
async def delete_object(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    if request.get("VersionId") not in (None, "null"):
        raise invalid_argument("Invalid version id specified", "versionId", request["VersionId"])
    await context.backends.objects.delete(request["Bucket"], request["Key"], if_match=request.get("IfMatch"))
    return {}


@operation("s3")
async def delete_objects(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    wanted = request["Delete"].get("Objects", [])
    if not 1 <= len(wanted) <= MAX_DELETED_AT_ONCE:
        raise Invalid(
            "The XML you provided was not well-formed or did not validate against our published schema",
            code="MalformedXML",
            status=400,
        )
    turns = asyncio.Semaphore(DELETED_SIDE_BY_SIDE)

    async def delete(item: Members) -> Fault | None:
        async with turns:
            try:
                if item.get("VersionId") not in (None, "null"):
                    raise NotFound("The specified version does not exist.", code="NoSuchVersion", status=404)
                await context.backends.objects.delete(
                    request["Bucket"], item["Key"], if_match=item.get("ETag")
                )
            except Fault as fault:
                return fault
        return None

    faults = await asyncio.gather(*map(delete, wanted))
    deleted = [{"Key": item["Key"]} for item, fault in zip(wanted, faults, strict=True) if fault is None]
    errors = [
        {"Key": item["Key"], "Code": fault.code or "InternalError", "Message": fault.message}
        for item, fault in zip(wanted, faults, strict=True)
        if fault is not None
    ]
    return {"Deleted": None if request["Delete"].get("Quiet") else deleted, "Errors": errors or None}


@operation("s3")
async def get_object_acl(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    await context.backends.objects.head(request["Bucket"], request["Key"])
    return owner_grants(bucket.account)
