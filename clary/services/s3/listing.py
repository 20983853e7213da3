"""Listings of a bucket's keys."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from urllib.parse import quote

from clary.faults import Invalid
from clary.objects.object_store import Listing, ObjectInfo
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.object_members import STORAGE_HEADERS
from clary.services.s3.owned_bucket import invalid_argument, owned_bucket

MAX_KEYS = 1000


@operation("s3")
async def list_objects_v2(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    token = request.get("ContinuationToken")
    after = _read_token(token) if token else request.get("StartAfter", "")
    limit, listing = await _listed(context, request, after)
    shown = encoder(request)
    owner = {"ID": bucket.account, "DisplayName": bucket.account} if request.get("FetchOwner") else None
    return {
        **_echoed(request, shown),
        "IsTruncated": listing.next_marker is not None,
        "Contents": [_item(info, shown, owner) for info in listing.objects] or None,
        "CommonPrefixes": [{"Prefix": shown(prefix)} for prefix in listing.common_prefixes] or None,
        "KeyCount": len(listing.objects) + len(listing.common_prefixes),
        "MaxKeys": limit,
        "ContinuationToken": token,
        "NextContinuationToken": _token(listing.next_marker) if listing.next_marker is not None else None,
        "StartAfter": shown(request["StartAfter"]) if "StartAfter" in request else None,
    }


@operation("s3")
async def list_objects(context: RequestContext, request: Members) -> ReplyMembers:
    bucket = await owned_bucket(context, request)
    limit, listing = await _listed(context, request, request.get("Marker", ""))
    shown = encoder(request)
    owner = {"ID": bucket.account, "DisplayName": bucket.account}
    next_marker = listing.next_marker if request.get("Delimiter") else None
    return {
        **_echoed(request, shown),
        "IsTruncated": listing.next_marker is not None,
        "Contents": [_item(info, shown, owner) for info in listing.objects] or None,
        "CommonPrefixes": [{"Prefix": shown(prefix)} for prefix in listing.common_prefixes] or None,
        "MaxKeys": limit,
        "Marker": shown(request.get("Marker", "")),
        "NextMarker": shown(next_marker) if next_marker is not None else None,
    }


@operation("s3")
async def list_object_versions(context: RequestContext, request: Members) -> ReplyMembers:
    """Every object has the one version ``null``."""
    bucket = await owned_bucket(context, request)
    limit, listing = await _listed(context, request, request.get("KeyMarker", ""))
    shown = encoder(request)
    owner = {"ID": bucket.account, "DisplayName": bucket.account}
    return {
        **_echoed(request, shown),
        "IsTruncated": listing.next_marker is not None,
        "Versions": [
            {**_item(info, shown, owner), "VersionId": "null", "IsLatest": True} for info in listing.objects
        ]
        or None,
        "CommonPrefixes": [{"Prefix": shown(prefix)} for prefix in listing.common_prefixes] or None,
        "MaxKeys": limit,
        "KeyMarker": shown(request.get("KeyMarker", "")),
        "NextKeyMarker": shown(listing.next_marker) if listing.next_marker is not None else None,
        "NextVersionIdMarker": "null" if listing.next_marker is not None else None,
    }


async def _listed(context: RequestContext, request: Members, after: str) -> tuple[int, Listing]:
    limit = request.get("MaxKeys", MAX_KEYS)
    if limit < 0:
        raise invalid_argument(
            "Argument maxKeys must be an integer between 0 and 2147483647", "maxKeys", limit
        )
    limit = min(limit, MAX_KEYS)
    if limit == 0:
        return 0, Listing([], [], None)
    listing = await context.backends.objects.list(
        request["Bucket"],
        prefix=request.get("Prefix", ""),
        delimiter=request.get("Delimiter", ""),
        after=after,
        limit=limit,
    )
    return limit, listing


def encoder(request: Members) -> Callable[[str], str]:
    """How keys are shown: percent-encoded if the caller asked for it, since XML cannot hold them all."""
    if request.get("EncodingType") == "url":
        return lambda text: quote(text.encode("utf-8", "surrogatepass"), safe="/-_.~*!'()")
    return lambda text: text


def _echoed(request: Members, shown: Callable[[str], str]) -> Members:
    delimiter = request.get("Delimiter")
    return {
        "Name": request["Bucket"],
        "Prefix": shown(request.get("Prefix", "")),
        "Delimiter": shown(delimiter) if delimiter else None,
        "EncodingType": request.get("EncodingType"),
    }


def _item(info: ObjectInfo, shown: Callable[[str], str], owner: dict[str, str] | None) -> Members:
    return {
        "Key": shown(info.key),
        "LastModified": info.modified_at,
        "ETag": f'"{info.etag}"',
        "Size": info.size_bytes,
        "StorageClass": info.content_headers.get(STORAGE_HEADERS["StorageClass"], "STANDARD"),
        "Owner": owner,
        "ChecksumAlgorithm": list(info.checksums) or None,
        "ChecksumType": info.checksum_type if info.checksums else None,
    }


def _token(marker: str) -> str:
    return base64.urlsafe_b64encode(marker.encode("utf-8", "surrogatepass")).decode()


def _read_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), b"-_", validate=True).decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError):
        raise Invalid(
            "The continuation token provided is incorrect", code="InvalidArgument", status=400
        ) from None
