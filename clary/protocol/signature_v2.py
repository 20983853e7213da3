"""Presigned URLs and form policies of the older S3 signature, with ``AWSAccessKeyId`` and ``Expires``.

AWS retired it for new regions, but boto3's ``generate_presigned_url`` still makes it by default in
us-east-1 and other old regions, so code written for AWS sends it. Only URLs and form posts: nobody signs
headers this way any more.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from clary.faults import AccessDenied
from clary.protocol.wire import HttpRequest

# The query parameters that the signature covers; part of the signature's definition.
_COVERED = frozenset(
    [
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "defaultObjectAcl",
        "delete",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "partNumber",
        "policy",
        "replication",
        "requestPayment",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "select",
        "select-type",
        "storageClass",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    ]
)
STANDS_FOR_HEADER = ("content-type", "content-md5")


@dataclass(frozen=True)
class PresignedClaim:
    """What a presigned URL says. ``headers`` are the headers its query stands in for, in lower case."""

    access_key_id: str
    signature: str
    expires: str
    expires_at: float
    headers: dict[str, str]
    session_token: str | None = field(repr=False)


def is_presigned(request: HttpRequest) -> bool:
    """Whether the request claims to be presigned in the older way."""
    query = request.query
    return "AWSAccessKeyId=" in query and "authorization" not in request.headers


def read_presigned(request: HttpRequest) -> PresignedClaim:
    """Read the claim. Raises `AccessDenied` if parts are missing."""
    parts = dict(parse_qsl(request.query, keep_blank_values=True))
    expires = parts.get("Expires", "")
    signature = parts.get("Signature", "")
    if not (parts.get("AWSAccessKeyId") and signature and expires):
        raise AccessDenied(
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
            code="AccessDenied",
            status=403,
        )
    if not expires.isascii() or not expires.isdigit() or len(expires) > 12:
        raise AccessDenied(
            f"Invalid date (should be seconds since epoch): {expires[:40]}", code="AccessDenied", status=403
        )
    headers = {
        name.lower(): value
        for name, value in parts.items()
        if name.lower().startswith("x-amz-") or name.lower() in STANDS_FOR_HEADER
    }
    token = headers.get("x-amz-security-token", request.headers.get("x-amz-security-token"))
    return PresignedClaim(parts["AWSAccessKeyId"], signature, expires, float(expires), headers, token)


def matches(request: HttpRequest, claim: PresignedClaim, secret: str, bucket: str | None) -> bool:
    """Whether ``secret`` signed the URL. ``bucket`` is the bucket that the Host header names, if any.

    A path and query may be spelled in more than one way; the spelling sent and the decoded one are tried.
    """
    amz: dict[str, str] = {}
    for name, value in request.headers.items():
        if name.startswith("x-amz-"):
            amz[name] = f"{amz[name]},{value.strip()}" if name in amz else value.strip()
    amz |= {name: value for name, value in claim.headers.items() if name.startswith("x-amz-")}
    lines = "".join(f"{name}:{amz[name]}\n" for name in sorted(amz))
    content_md5 = claim.headers.get("content-md5", request.headers.get("content-md5", ""))
    prefix = f"/{bucket}" if bucket else ""
    resource = prefix + (request.raw_path or "/") + _covered_query(request.query)
    # A browser adds a content type that the signer did not know of; S3 holds it against the signature, and
    # so do we, unless the signer wrote it into the URL.
    content_type = claim.headers.get("content-type", request.headers.get("content-type", ""))
    text = f"{request.method}\n{content_md5}\n{content_type}\n{claim.expires}\n{lines}{resource}"
    return text_matches(text, claim.signature, secret)


def text_matches(text: str, signature: str, secret: str) -> bool:
    """Whether ``signature`` is the base64 HMAC-SHA1 of ``text``."""
    expected = base64.b64encode(hmac.digest(secret.encode(), text.encode("latin-1", "replace"), "sha1"))
    return hmac.compare_digest(expected, signature.encode())


def _covered_query(query: str) -> str:
    pieces = []
    for piece in query.split("&") if query else ():
        name, mark, value = piece.partition("=")
        if name in _COVERED:
            pieces.append((name, f"{name}={unquote(value)}" if mark else name))
    return "?" + "&".join(piece for _, piece in sorted(pieces)) if pieces else ""
