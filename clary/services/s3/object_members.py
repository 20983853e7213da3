"""Between S3's members and what the object store keeps: headers, metadata, tags, checksums, conditions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from clary.faults import Conflict, Fault, Invalid
from clary.objects.keys import ALGORITHMS
from clary.objects.object_store import ObjectInfo, PutOptions
from clary.objects.refusals import precondition_failed
from clary.protocol.wire import Members
from clary.services.operation import RequestContext
from clary.services.s3.owned_bucket import invalid_argument

MAX_METADATA_BYTES = 2048
MAX_OBJECT_TAGS = 10
# Headers that are kept with an object: member name -> header.
CONTENT_HEADERS: Mapping[str, str] = {
    "ContentType": "content-type",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "ContentDisposition": "content-disposition",
    "CacheControl": "cache-control",
    "Expires": "expires",
}
# Headers that say how an object is to be stored: kept and given back, for an external S3 to heed.
STORAGE_HEADERS: Mapping[str, str] = {
    "StorageClass": "x-amz-storage-class",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "WebsiteRedirectLocation": "x-amz-website-redirect-location",
}
OWNERS_ACLS = ("private", "bucket-owner-full-control", "bucket-owner-read")
DEFAULT_CONTENT_TYPE = "binary/octet-stream"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")


def put_options(context: RequestContext, request: Members) -> PutOptions:
    """What a request that makes an object, or a part of one, says of it. Raises `Invalid`."""
    check_owners_acl(request)
    check_no_customer_key(request)
    if any(request.get(name) for name in ("ObjectLockMode", "ObjectLockRetainUntilDate")) or (
        request.get("ObjectLockLegalHoldStatus") == "ON"
    ):
        raise Invalid("Bucket is missing Object Lock Configuration", code="InvalidRequest", status=400)
    if request.get("IfNoneMatch") not in (None, "*"):
        raise Invalid(
            "A header you provided implies functionality that is not implemented: the If-None-Match of a "
            "write can only be *.",
            code="NotImplemented",
            status=501,
            fields={"Header": "If-None-Match"},
        )
    content = {
        header: str(request[member])
        for member, header in {**CONTENT_HEADERS, **STORAGE_HEADERS}.items()
        if request.get(member) not in (None, "") and (member, request[member]) != ("StorageClass", "STANDARD")
    }
    # The framing is no part of the object: it was taken off on the way in.
    encodings = [each.strip() for each in content.get("content-encoding", "").split(",")]
    kept = ",".join(each for each in encodings if each and each != "aws-chunked")
    content.pop("content-encoding", None)
    if kept:
        content["content-encoding"] = kept
    content.setdefault("content-type", DEFAULT_CONTENT_TYPE)
    metadata = {name.lower(): value for name, value in (request.get("Metadata") or {}).items()}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size > MAX_METADATA_BYTES:
        raise Invalid(
            "Your metadata headers exceed the maximum allowed metadata size",
            code="MetadataTooLarge",
            status=400,
            fields={"Size": size, "MaxSizeAllowed": MAX_METADATA_BYTES},
        )
    checksums = {name: request[f"Checksum{name}"] for name in ALGORITHMS if request.get(f"Checksum{name}")}
    return PutOptions(
        content_headers=content,
        metadata=metadata,
        tags=parse_tagging(request.get("Tagging") if isinstance(request.get("Tagging"), str) else None),
        checksum_algorithm=request.get("ChecksumAlgorithm") or _trailing_checksum(context),
        checksums=checksums,
        content_md5=request.get("ContentMD5"),
        if_match=request.get("IfMatch"),
        if_none_match=request.get("IfNoneMatch"),
    )


def _trailing_checksum(context: RequestContext) -> str | None:
    """The algorithm of a checksum that comes behind the body: the front door compares it, we keep it."""
    name = (context.call.http.headers.get("x-amz-trailer") or "").strip().lower()
    algorithm = name.removeprefix("x-amz-checksum-").upper()
    return algorithm if algorithm in ALGORITHMS and name.startswith("x-amz-checksum-") else None


def check_owners_acl(request: Members) -> None:
    """Raises `Invalid` if a request wants others to be let in by an access control list."""
    granted = [name for name in request if name.startswith("Grant") and request[name]]
    if granted or request.get("ACL") not in (None, *OWNERS_ACLS):
        raise Invalid("The bucket does not allow ACLs", code="AccessControlListNotSupported", status=400)


def check_no_customer_key(request: Members) -> None:
    """Raises `Invalid` rather than keep unencrypted what was to be encrypted with the caller's own key."""
    if any("SSECustomer" in name for name in request):
        raise Invalid(
            "A header you provided implies functionality that is not implemented: Clary does not encrypt "
            "objects with keys that customers provide (SSE-C).",
            code="NotImplemented",
            status=501,
            fields={"Header": "x-amz-server-side-encryption-customer-algorithm"},
        )


def storage_members(content_headers: Mapping[str, str]) -> Members:
    """How an object is stored, as the replies to writes tell it."""
    names = ("ServerSideEncryption", "SSEKMSKeyId")
    return {name: content_headers.get(STORAGE_HEADERS[name]) for name in names}


def parse_tagging(text: str | None) -> dict[str, str]:
    """Tags as a header has them, ``a=1&b=2``. Raises `Invalid`."""
    pairs = parse_qsl(text or "", keep_blank_values=True)
    return check_object_tags([{"Key": key, "Value": value} for key, value in pairs])


def check_object_tags(tags: list[dict[str, str]]) -> dict[str, str]:
    """Raises `Invalid` for more tags than an object may have, or what `check_tags` refuses."""
    found = check_tags(tags)
    if len(found) > MAX_OBJECT_TAGS:
        raise Invalid(f"Object tags cannot be greater than {MAX_OBJECT_TAGS}", code="BadRequest", status=400)
    return found


def check_tags(tags: list[dict[str, str]]) -> dict[str, str]:
    """Raises `Invalid` for a key given twice, or lengths beyond S3's."""
    found: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if key in found:
            raise Invalid("Cannot provide multiple Tags with the same key", code="InvalidTag", status=400)
        if not 1 <= len(key) <= 128:
            raise Invalid("The TagKey you have provided is invalid", code="InvalidTag", status=400)
        if len(value) > 256:
            raise Invalid("The TagValue you have provided is invalid", code="InvalidTag", status=400)
        found[key] = value
    return found


def described(info: ObjectInfo, request: Members, *, part: bool = False) -> Members:
    """An object's members as GetObject and HeadObject share them."""
    members: Members = {
        "ETag": f'"{info.etag}"',
        "LastModified": info.modified_at,
        "AcceptRanges": "bytes",
        "Metadata": dict(info.metadata),
        "TagCount": len(info.tags) or None,
    }
    for member, header in {**CONTENT_HEADERS, **STORAGE_HEADERS}.items():
        value = request.get(f"Response{member}") or info.content_headers.get(header)
        if value is not None:
            members[member] = value
    if "Expires" in members:
        # Kept as the caller wrote it; the wire has a second member for the text.
        members["ExpiresString"] = members.pop("Expires")
    if request.get("ChecksumMode") == "ENABLED" and not part:
        members |= checksum_members(info)
    if info.part_count and request.get("PartNumber"):
        members["PartsCount"] = info.part_count
    return members


def checksum_members(info: ObjectInfo) -> Members:
    found: Members = {f"Checksum{name}": value for name, value in info.checksums.items()}
    return {**found, "ChecksumType": info.checksum_type} if found else {}


def check_read_conditions(info: ObjectInfo, request: Mapping[str, Any]) -> None:
    """The conditions of a read, in HTTP's order. Raises a fault of status 304 or 412."""
    match, none_match = request.get("IfMatch"), request.get("IfNoneMatch")
    modified = int(info.modified_at)
    if match is not None:
        if not _names(match, info.etag):
            raise precondition_failed("If-Match")
    elif request.get("IfUnmodifiedSince") is not None and modified > request["IfUnmodifiedSince"]:
        raise precondition_failed("If-Unmodified-Since")
    if none_match is not None:
        if _names(none_match, info.etag):
            raise Conflict("Not Modified", code="NotModified", status=304)
    elif request.get("IfModifiedSince") is not None and modified <= request["IfModifiedSince"]:
        raise Conflict("Not Modified", code="NotModified", status=304)


def check_copy_conditions(info: ObjectInfo, request: Mapping[str, Any]) -> None:
    """The conditions on a copy's source: all of them end in 412."""
    named = {
        "IfMatch": request.get("CopySourceIfMatch"),
        "IfNoneMatch": request.get("CopySourceIfNoneMatch"),
        "IfModifiedSince": request.get("CopySourceIfModifiedSince"),
        "IfUnmodifiedSince": request.get("CopySourceIfUnmodifiedSince"),
    }
    try:
        check_read_conditions(info, {name: value for name, value in named.items() if value is not None})
    except Fault as fault:
        if fault.status == 304:
            raise precondition_failed("x-amz-copy-source-if-none-match") from None
        raise


def _names(header: str, etag: str) -> bool:
    return any(each.strip().strip('"') in (etag, "*") for each in header.split(","))


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a Range header; ``None`` for the whole object, as for a header that is no range.

    Raises `Invalid` (``InvalidRange``, 416) if the object has none of the bytes.
    """
    found = _RANGE.match(header.strip()) if header else None
    if found is None or (not found[1] and not found[2]):
        return None
    if found[1]:
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < first:
            return None
    else:
        first, last = max(size - int(found[2]), 0), size - 1
        if int(found[2]) == 0:
            first = size
    if first >= size:
        raise Invalid(
            "The requested range is not satisfiable",
            code="InvalidRange",
            status=416,
            fields={"ActualObjectSize": size, "RangeRequested": header or ""},
        )
    return first, last


def copy_source(text: str) -> tuple[str, str]:
    """Bucket and key of an ``x-amz-copy-source`` header. Raises `Invalid`."""
    path, _, query = text.lstrip("/").partition("?")
    bucket, _, key = unquote(path).partition("/")
    version = dict(parse_qsl(query)).get("versionId")
    if not bucket or not key or version not in (None, "null"):
        raise invalid_argument(
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            "x-amz-copy-source",
            text,
        )
    return bucket, key
