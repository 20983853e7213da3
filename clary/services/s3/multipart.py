"""Multipart uploads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from clary.faults import Invalid, NotFound
from clary.objects.keys import ALGORITHMS
from clary.objects.object_store import MAX_PARTS, MultipartUpload, Part, PutOptions
from clary.objects.refusals import invalid_part
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.listing import encoder
from clary.services.s3.object_members import (
    STORAGE_HEADERS,
    check_copy_conditions,
    check_no_customer_key,
    checksum_members,
    copy_source,
    put_options,
    storage_members,
)
from clary.services.s3.owned_bucket import check_expected_source, invalid_argument, owned_bucket

MAX_LISTED = 1000
_COPIED_RANGE = re.compile(r"bytes=(\d+)-(\d+)\Z", re.ASCII)


@operation("s3")
async def create_multipart_upload(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    options = put_options(context, request)
    options = replace(
        options,
        checksums={},
        if_match=None,
        if_none_match=None,
        checksum_type=_checksum_type(options.checksum_algorithm, request.get("ChecksumType")),
    )
    upload = await context.backends.objects.create_upload(request["Bucket"], request["Key"], options)
    return {
        "Bucket": upload.bucket,
        "Key": upload.key,
        "UploadId": upload.upload_id,
        "ChecksumAlgorithm": options.checksum_algorithm,
        "ChecksumType": options.checksum_type,
        **storage_members(options.content_headers),
    }


def _checksum_type(algorithm: str | None, asked: str | None) -> str | None:
    """Of what an upload's checksum is. Raises `Invalid` if the algorithm cannot do what is asked."""
    possible = {"CRC64NVME": ("FULL_OBJECT",), "SHA1": ("COMPOSITE",), "SHA256": ("COMPOSITE",)}
    if algorithm is None:
        if asked is None:
            return None
        raise Invalid(
            "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            code="InvalidRequest",
            status=400,
        )
    allowed = possible.get(algorithm, ("COMPOSITE", "FULL_OBJECT"))
    if asked is not None and asked not in allowed:
        raise Invalid(
            f"The {asked} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
            code="InvalidRequest",
            status=400,
        )
    return asked or allowed[0]


@operation("s3")
async def upload_part(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    options = put_options(context, request)
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
    check_no_customer_key(request)
    source_bucket, source_key = copy_source(request["CopySource"])
    source = await owned_bucket(context, {}, name=source_bucket)
    check_expected_source(source, request.get("ExpectedSourceBucketOwner"))
    objects = context.backends.objects
    info = await objects.head(source_bucket, source_key)
    check_copy_conditions(info, request)
    span = (
        _copied_range(request["CopySourceRange"], info.size_bytes) if "CopySourceRange" in request else None
    )
    _, body = await objects.read(
        source_bucket, source_key, first=span[0] if span else 0, last=span[1] if span else None
    )
    part = await objects.put_part(
        request["Bucket"], request["Key"], request["UploadId"], request["PartNumber"], body, PutOptions()
    )
    result = {"ETag": f'"{part.etag}"', "LastModified": part.modified_at, **_checksums(part)}
    return {"CopyPartResult": result}


def _copied_range(text: str, size: int) -> tuple[int, int]:
    """First and last byte of the part of a source of ``size`` bytes that is copied. Raises `Invalid`."""
    found = _COPIED_RANGE.match(text)
    if found is None or int(found[1]) > int(found[2]):
        raise invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are "
            "the zero-based offsets of the first and last bytes to copy",
            "x-amz-copy-source-range",
            text,
        )
    if int(found[2]) >= size:
        raise invalid_argument(
            f"Range specified is not valid for source object of size: {size}", "x-amz-copy-source-range", text
        )
    return int(found[1]), int(found[2])


async def _check_named_parts(context: RequestContext, request: Members, named: list[dict[str, Any]]) -> None:
    """Raises `Invalid` if a completion names a checksum or a size that is not that of what was uploaded."""
    expected_size = request.get("MpuObjectSize")
    if expected_size is None and not any(f"Checksum{name}" in part for part in named for name in ALGORITHMS):
        return
    try:
        parts = await context.backends.objects.list_parts(
            request["Bucket"], request["Key"], request["UploadId"], limit=MAX_PARTS
        )
    except NotFound:
        return  # completed before, or not there at all: the completion itself tells
    kept = {part.number: part for part in parts}
    for part in named:
        found = kept.get(part["PartNumber"])
        for name in ALGORITHMS if found else ():
            given, computed = part.get(f"Checksum{name}"), found.checksums.get(name) if found else None
            if given is not None and computed is not None and given != computed:
                raise invalid_part(part["PartNumber"])
    size = sum(kept[part["PartNumber"]].size_bytes for part in named if part["PartNumber"] in kept)
    if expected_size is not None and size != expected_size:
        raise Invalid(
            f"The provided 'x-amz-mp-object-size' header value {expected_size} does not match what was "
            f"computed: {size}",
            code="InvalidRequest",
            status=400,
        )


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
    await _check_named_parts(context, request, named)
    promised = {name: request[f"Checksum{name}"] for name in ALGORITHMS if request.get(f"Checksum{name}")}
    info = await context.backends.objects.complete_upload(
        request["Bucket"],
        request["Key"],
        request["UploadId"],
        [(part["PartNumber"], part["ETag"]) for part in named],
        PutOptions(
            checksums=promised,
            if_match=request.get("IfMatch"),
            if_none_match=request.get("IfNoneMatch"),
        ),
    )
    return {
        "Location": f"{context.backends.endpoint_url}/{bucket.name}/{quote(info.key)}",
        "Bucket": bucket.name,
        "Key": info.key,
        "ETag": f'"{info.etag}"',
        **checksum_members(info),
        **storage_members(info.content_headers),
    }


@operation("s3")
async def abort_multipart_upload(context: RequestContext, request: Members) -> ReplyMembers:
    await owned_bucket(context, request)
    await context.backends.objects.abort_upload(request["Bucket"], request["Key"], request["UploadId"])
    return {}


@operation("s3")
async def list_parts(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    limit = _page_size(request, "MaxParts", "max-parts")
    after = request.get("PartNumberMarker", 0)
    upload = await context.backends.objects.find_upload(
        request["Bucket"], request["Key"], request["UploadId"]
    )
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
        "StorageClass": upload.options.content_headers.get(STORAGE_HEADERS["StorageClass"], "STANDARD"),
        "ChecksumAlgorithm": upload.options.checksum_algorithm,
        "ChecksumType": upload.options.checksum_type,
    }


def _page_size(request: Members, member: str, parameter: str) -> int:
    limit: int = request.get(member, MAX_LISTED)
    if limit < 0:
        raise invalid_argument(
            f"Argument {parameter} must be an integer between 0 and 2147483647", parameter, limit
        )
    return min(limit, MAX_LISTED)


@operation("s3")
async def list_multipart_uploads(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    limit = _page_size(request, "MaxUploads", "max-uploads")
    page = await _uploads(context, request, limit)
    shown = encoder(request)
    owner = {"ID": bucket.account, "DisplayName": bucket.account}
    delimiter = request.get("Delimiter")
    return {
        "Bucket": bucket.name,
        "KeyMarker": shown(request.get("KeyMarker", "")),
        "UploadIdMarker": request.get("UploadIdMarker", ""),
        "NextKeyMarker": shown(page.last[0]) if page.more else None,
        "NextUploadIdMarker": page.last[1] if page.more else None,
        "MaxUploads": limit,
        "IsTruncated": page.more,
        "Prefix": shown(request.get("Prefix", "")),
        "Delimiter": shown(delimiter) if delimiter else None,
        "EncodingType": request.get("EncodingType"),
        "Uploads": [
            {
                "UploadId": upload.upload_id,
                "Key": shown(upload.key),
                "Initiated": upload.started_at,
                "StorageClass": upload.options.content_headers.get(
                    STORAGE_HEADERS["StorageClass"], "STANDARD"
                ),
                "ChecksumAlgorithm": upload.options.checksum_algorithm,
                "ChecksumType": upload.options.checksum_type,
                "Owner": owner,
                "Initiator": owner,
            }
            for upload in page.uploads
        ]
        or None,
        "CommonPrefixes": [{"Prefix": shown(prefix)} for prefix in page.prefixes] or None,
    }


@dataclass
class _Uploads:
    """A page of uploads; ``last`` is the key and upload id of the last thing on it."""

    uploads: list[MultipartUpload] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: tuple[str, str] = ("", "")
    more: bool = False


async def _uploads(context: RequestContext, request: Members, limit: int) -> _Uploads:
    page = _Uploads()
    prefix, delimiter = request.get("Prefix", ""), request.get("Delimiter", "")
    after_key, after_upload = request.get("KeyMarker", ""), request.get("UploadIdMarker", "")
    # A page that ended with a common prefix has that as its marker: all below it has been told.
    told = after_key if delimiter and not after_upload and after_key.endswith(delimiter) else None
    while limit > 0:
        # Without an upload's id the marker stands behind every upload of its key.
        marker = after_upload or ("\uffff" if after_key else "")
        found = await context.backends.objects.list_uploads(
            request["Bucket"], prefix=prefix, after_key=after_key, after_upload=marker, limit=MAX_LISTED
        )
        for upload in found:
            after_key, after_upload = upload.key, upload.upload_id
            cut = upload.key.find(delimiter, len(prefix)) if delimiter else -1
            common = upload.key[: cut + len(delimiter)] if cut >= 0 else None
            if common is not None and common in (told, *page.prefixes[-1:]):
                continue
            if len(page.uploads) + len(page.prefixes) == limit:
                page.more = True
                return page
            if common is None:
                page.uploads.append(upload)
                page.last = (upload.key, upload.upload_id)
            else:
                page.prefixes.append(common)
                page.last = (common, "")
        if len(found) < MAX_LISTED:
            break
    return page


def _checksums(part: Part) -> Members:
    return {f"Checksum{name}": value for name, value in part.checksums.items()}
