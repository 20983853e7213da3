"""Multipart uploads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clary.faults import Invalid
from clary.objects.keys import ALGORITHMS
from clary.objects.object_store import Part, PutOptions
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.object_members import (
    byte_range,
    check_copy_conditions,
    checksum_members,
    copy_source,
    put_options,
)
from clary.services.s3.owned_bucket import check_expected_source, invalid_argument, owned_bucket

MAX_LISTED = 1000


@operation("s3")
async def create_multipart_upload(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    options = replace(put_options(request), checksums={}, if_match=None, if_none_match=None)
    upload = await context.backends.objects.create_upload(request["Bucket"], request["Key"], options)
    return {
        "Bucket": upload.bucket,
        "Key": upload.key,
        "UploadId": upload.upload_id,
        "ChecksumAlgorithm": options.checksum_algorithm,
        "ChecksumType": request.get("ChecksumType"),
    }


@operation("s3")
async def upload_part(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    options = put_options(request)
    part = await context.backends.objects.put_part(
        request["Bucket"],
        request["Key"],
        request["UploadId"],
        request["PartNumber"],
        request["Body"],
        PutOptions(
            checksum_algorithm=options.checksum_algorithm,
            checksums=options.checksums,
            content_md5=options.content_md5,
        ),
    )
    return {"ETag": f'"{part.etag}"', **_checksums(part)}


@operation("s3")
async def upload_part_copy(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    source_bucket, source_key = copy_source(request["CopySource"])
    source = await owned_bucket(context, {}, name=source_bucket)
    check_expected_source(source, request.get("ExpectedSourceBucketOwner"))
    objects = context.backends.objects
    info = await objects.head(source_bucket, source_key)
    check_copy_conditions(info, request)
    span = None
    if request.get("CopySourceRange"):
        span = byte_range(request["CopySourceRange"], info.size_bytes)
        if span is None or span[1] - span[0] + 1 > info.size_bytes:
            raise invalid_argument(
                "The x-amz-copy-source-range value must be of the form bytes=first-last",
                "x-amz-copy-source-range",
                request["CopySourceRange"],
            )
    _, body = await objects.read(
        source_bucket, source_key, first=span[0] if span else 0, last=span[1] if span else None
    )
    part = await objects.put_part(
        request["Bucket"], request["Key"], request["UploadId"], request["PartNumber"], body, PutOptions()
    )
    result = {"ETag": f'"{part.etag}"', "LastModified": part.modified_at, **_checksums(part)}
    return {"CopyPartResult": result}


@operation("s3")
async def complete_multipart_upload(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    named: list[dict[str, Any]] = (request.get("MultipartUpload") or {}).get("Parts", [])
    if any("PartNumber" not in part or "ETag" not in part for part in named):
        raise Invalid(
            "The XML you provided was not well-formed or did not validate against our published schema",
            code="MalformedXML",
            status=400,
        )
    composite = request.get("ChecksumType") == "COMPOSITE"
    checksums = {
        name: request[f"Checksum{name}"]
        for name in ALGORITHMS
        if request.get(f"Checksum{name}") and not composite
    }
    info = await context.backends.objects.complete_upload(
        request["Bucket"],
        request["Key"],
        request["UploadId"],
        [(part["PartNumber"], part["ETag"]) for part in named],
        PutOptions(
            checksums={name: value for name, value in checksums.items() if "-" not in value},
            if_match=request.get("IfMatch"),
            if_none_match=request.get("IfNoneMatch"),
        ),
    )
    return {
        "Location": f"{context.backends.endpoint_url}/{bucket.name}/{info.key}",
        "Bucket": bucket.name,
        "Key": info.key,
        "ETag": f'"{info.etag}"',
        **checksum_members(info),
    }


@operation("s3")
async def abort_multipart_upload(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    await context.backends.objects.abort_upload(request["Bucket"], request["Key"], request["UploadId"])
    return {}


@operation("s3")
async def list_parts(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    limit = min(request.get("MaxParts", MAX_LISTED), MAX_LISTED)
    after = request.get("PartNumberMarker", 0)
    parts = await context.backends.objects.list_parts(
        request["Bucket"], request["Key"], request["UploadId"], after=int(after), limit=limit + 1
    )
    page = parts[:limit]
    owner = {"ID": bucket.account, "DisplayName": bucket.account}
    return {
        "Bucket": bucket.name,
        "Key": request["Key"],
        "UploadId": request["UploadId"],
        "PartNumberMarker": int(after),
        "NextPartNumberMarker": page[-1].number if page else 0,
        "MaxParts": limit,
        "IsTruncated": len(parts) > limit,
        "Parts": [
            {
                "PartNumber": part.number,
                "LastModified": part.modified_at,
                "ETag": f'"{part.etag}"',
                "Size": part.size_bytes,
                **_checksums(part),
            }
            for part in page
        ]
        or None,
        "Initiator": owner,
        "Owner": owner,
        "StorageClass": "STANDARD",
    }


@operation("s3")
async def list_multipart_uploads(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    limit = min(request.get("MaxUploads", MAX_LISTED), MAX_LISTED)
    after_key, after_upload = request.get("KeyMarker", ""), request.get("UploadIdMarker", "")
    uploads = await context.backends.objects.list_uploads(
        request["Bucket"],
        prefix=request.get("Prefix", ""),
        after_key=after_key,
        # Without an upload's id the marker stands behind every upload of its key.
        after_upload=after_upload or ("\uffff" if after_key else ""),
        limit=limit + 1,
    )
    page = uploads[:limit]
    owner = {"ID": bucket.account, "DisplayName": bucket.account}
    more = len(uploads) > limit
    return {
        "Bucket": bucket.name,
        "KeyMarker": after_key,
        "UploadIdMarker": after_upload,
        "NextKeyMarker": page[-1].key if more else None,
        "NextUploadIdMarker": page[-1].upload_id if more else None,
        "MaxUploads": limit,
        "IsTruncated": more,
        "Prefix": request.get("Prefix"),
        "Uploads": [
            {
                "UploadId": upload.upload_id,
                "Key": upload.key,
                "Initiated": upload.started_at,
                "StorageClass": "STANDARD",
                "Owner": owner,
                "Initiator": owner,
            }
            for upload in page
        ]
        or None,
    }


def _checksums(part: Part) -> Members:
    return {f"Checksum{name}": value for name, value in part.checksums.items()}
