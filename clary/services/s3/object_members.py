"""Between S3's members and what the object store keeps: headers, metadata, tags, checksums, conditions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from clary.faults import Conflict, Fault, Invalid
from clary.objects.keys import ALGORITHMS
from clary.objects.object_store import MAX_PARTS, ObjectInfo, PutOptions
from clary.protocol.wire import Members
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
DEFAULT_CONTENT_TYPE = "binary/octet-stream"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")


def put_options(request: Members) -> PutOptions:
    """What a request that makes an object says of it. Raises `Invalid`."""
    content = {
        header: str(request[member])
        for member, header in CONTENT_HEADERS.items()
        if request.get(member) not in (None, "")
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
        checksum_algorithm=request.get("ChecksumAlgorithm"),
        checksums=checksums,
        content_md5=request.get("ContentMD5"),
        if_match=request.get("IfMatch"),
        if_none_match=request.get("IfNoneMatch"),
    )


def parse_tagging(text: str | None) -> dict[str, str]:
    """Tags as a header has them, ``a=1&b=2``. Raises `Invalid`."""
    pairs = parse_qsl(text or "", keep_blank_values=True)
    return check_object_tags([{"Key": key, "Value": value} for key, value in pairs])


def check_object_tags(tags: list[dict[str, str]]) -> dict[str, str]:
    """Raises `Invalid` for too many tags, a key given twice, or lengths beyond S3's."""
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
    if len(found) > MAX_OBJECT_TAGS:
        raise Invalid("Object tags cannot be greater than 10", code="BadRequest", status=400)
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
    for member, header in CONTENT_HEADERS.items():
        value = request.get(f"Response{member}") or info.content_headers.get(header)
        if value is not None:
            members[member] = value
    if "Expires" in members:
        # Kept as the caller wrote it; the wire has a second member for the text.
        members["ExpiresString"] = members.pop("Expires")
    if request.get("ChecksumMode") == "ENABLED" and not part:
        members |= checksum_members(info)
    if info.part_sizes and request.get("PartNumber"):
        members["PartsCount"] = len(info.part_sizes)
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
            raise _precondition("If-Match")
    elif request.get("IfUnmodifiedSince") is not None and modified > request["IfUnmodifiedSince"]:
        raise _precondition("If-Unmodified-Since")
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
            raise _precondition("x-amz-copy-source-if-none-match") from None
        raise


def _names(header: str, etag: str) -> bool:
    return any(each.strip().strip('"') in (etag, "*") for each in header.split(","))


def _precondition(condition: str) -> Conflict:
    return Conflict(
        "At least one of the pre-conditions you specified did not hold",
        code="PreconditionFailed",
        status=412,
        fields={"Condition": condition},
    )


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


def part_range(info: ObjectInfo, number: int) -> tuple[int, int] | None:
    """First and last byte of a part of a multipart object; ``None`` for one that is empty, and so the whole.

    Raises `Invalid` (``InvalidPartNumber``).
    """
    sizes = list(info.part_sizes) or [info.size_bytes]
    if not 1 <= number <= MAX_PARTS:
        raise invalid_argument(
            f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive", "partNumber", number
        )
    if number > len(sizes):
        raise Invalid("The requested partnumber is not satisfiable", code="InvalidPartNumber", status=416)
    first = sum(sizes[: number - 1])
    return (first, first + sizes[number - 1] - 1) if info.size_bytes else None


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
