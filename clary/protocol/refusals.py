"""Why a request was not let in, in the code, status and words that AWS's services have for it.

Services of different protocols name the same refusal differently: clients retry, refresh credentials or give
up by these codes.
"""

from __future__ import annotations

import time
from typing import Literal, TypeAlias

from clary.faults import AccessDenied, Fault, Invalid

Dialect: TypeAlias = Literal["json", "rest-json", "query", "s3"]

_PROTOCOL_DIALECTS: dict[str, Dialect] = {
    "json": "json",
    "smithy-rpc-v2-cbor": "json",
    "rest-json": "rest-json",
    "rest-xml": "s3",
    "query": "query",
    "ec2": "query",
}

# Reason -> (code, status) in each dialect. JSON services answer 400 where the others answer 403.
_CODES: dict[str, dict[Dialect, tuple[str, int]]] = {
    "missing": {
        "json": ("MissingAuthenticationTokenException", 400),
        "rest-json": ("MissingAuthenticationTokenException", 403),
        "query": ("MissingAuthenticationToken", 403),
        "s3": ("AccessDenied", 403),
    },
    "malformed": {
        "json": ("IncompleteSignatureException", 400),
        "rest-json": ("IncompleteSignatureException", 403),
        "query": ("IncompleteSignature", 400),
        "s3": ("AuthorizationHeaderMalformed", 400),
    },
    "malformed query": {
        "json": ("IncompleteSignatureException", 400),
        "rest-json": ("IncompleteSignatureException", 403),
        "query": ("IncompleteSignature", 400),
        "s3": ("AuthorizationQueryParametersError", 400),
    },
    "unknown key": {
        "json": ("UnrecognizedClientException", 400),
        "rest-json": ("UnrecognizedClientException", 403),
        "query": ("InvalidClientTokenId", 403),
        "s3": ("InvalidAccessKeyId", 403),
    },
    "unknown token": {
        "json": ("UnrecognizedClientException", 400),
        "rest-json": ("UnrecognizedClientException", 403),
        "query": ("InvalidClientTokenId", 403),
        "s3": ("InvalidToken", 400),
    },
    "expired token": {
        "json": ("ExpiredTokenException", 400),
        "rest-json": ("ExpiredTokenException", 403),
        "query": ("ExpiredToken", 403),
        "s3": ("ExpiredToken", 400),
    },
    "mismatch": {
        "json": ("InvalidSignatureException", 400),
        "rest-json": ("InvalidSignatureException", 403),
        "query": ("SignatureDoesNotMatch", 403),
        "s3": ("SignatureDoesNotMatch", 403),
    },
    "skewed": {
        "json": ("InvalidSignatureException", 400),
        "rest-json": ("InvalidSignatureException", 403),
        "query": ("SignatureDoesNotMatch", 403),
        "s3": ("RequestTimeTooSkewed", 403),
    },
    "unsigned": {
        "json": ("InvalidSignatureException", 400),
        "rest-json": ("InvalidSignatureException", 403),
        "query": ("SignatureDoesNotMatch", 403),
        "s3": ("AccessDenied", 403),
    },
    "url expired": {
        "json": ("InvalidSignatureException", 400),
        "rest-json": ("InvalidSignatureException", 403),
        "query": ("SignatureDoesNotMatch", 403),
        "s3": ("AccessDenied", 403),
    },
    "wrong scope": {
        "json": ("InvalidSignatureException", 400),
        "rest-json": ("InvalidSignatureException", 403),
        "query": ("SignatureDoesNotMatch", 403),
        "s3": ("AuthorizationHeaderMalformed", 400),
    },
    "algorithm": {
        "json": ("IncompleteSignatureException", 400),
        "rest-json": ("IncompleteSignatureException", 403),
        "query": ("IncompleteSignature", 400),
        "s3": ("InvalidRequest", 400),
    },
}


def dialect_of(protocol: str) -> Dialect:
    """The dialect of a service that speaks ``protocol`` (botocore's name of it)."""
    return _PROTOCOL_DIALECTS[protocol]


def _refuse(reason: str, dialect: Dialect, message: str, **fields: object) -> AccessDenied:
    code, status = _CODES[reason][dialect]
    return AccessDenied(message, code=code, status=status, fields=fields)


def missing_token(dialect: Dialect) -> AccessDenied:
    words = {"s3": "Access Denied", "json": "Missing Authentication Token"}
    return _refuse("missing", dialect, words.get(dialect, "Request is missing Authentication Token"))


def malformed(dialect: Dialect, message: str) -> AccessDenied:
    """The Authorization header cannot be read."""
    return _refuse("malformed", dialect, message)


def malformed_query(dialect: Dialect, message: str) -> AccessDenied:
    """The query of a presigned URL cannot be read."""
    return _refuse("malformed query", dialect, message)


def unsupported_algorithm(dialect: Dialect, algorithm: str) -> AccessDenied:
    if dialect == "s3":
        message = (
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        )
    else:
        message = f"Unsupported AWS 'algorithm': '{algorithm[:40]}'. Please use AWS4-HMAC-SHA256."
    return _refuse("algorithm", dialect, message)


def unknown_key(dialect: Dialect, access_key_id: str, *, has_token: bool) -> AccessDenied:
    if dialect != "s3":
        return _refuse("unknown key", dialect, "The security token included in the request is invalid.")
    if has_token:
        message = "The provided token is malformed or otherwise invalid."
        return _refuse("unknown token", dialect, message)
    message = "The AWS Access Key Id you provided does not exist in our records."
    return _refuse("unknown key", dialect, message, AWSAccessKeyId=access_key_id)


def expired_token(dialect: Dialect) -> AccessDenied:
    words = {"s3": "The provided token has expired."}
    message = words.get(dialect, "The security token included in the request is expired")
    return _refuse("expired token", dialect, message)


def signature_mismatch(dialect: Dialect) -> AccessDenied:
    if dialect == "s3":
        message = (
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method."
        )
    else:
        message = (
            "The request signature we calculated does not match the signature you provided. Check your AWS "
            "Secret Access Key and signing method. Consult the service documentation for details."
        )
    return _refuse("mismatch", dialect, message)


def wrong_scope(dialect: Dialect, wanted: str, given: str) -> AccessDenied:
    if dialect == "s3":
        message = f"The authorization header is malformed; incorrect service {given!r}. Expecting {wanted!r}."
    else:
        message = f"Credential should be scoped to correct service: '{wanted}'. "
    return _refuse("wrong scope", dialect, message)


def unsigned_header(dialect: Dialect, name: str) -> AccessDenied:
    message = "There were headers present in the request which were not signed"
    return _refuse("unsigned", dialect, message, HeadersNotSigned=name)


def request_expired(dialect: Dialect) -> AccessDenied:
    """A presigned URL is past its time."""
    words = {"s3": "Request has expired"}
    return _refuse("url expired", dialect, words.get(dialect, "Signature expired: the URL is past its time."))


def expired(dialect: Dialect, at: float, now: float, skew_seconds: int) -> AccessDenied:
    if dialect == "s3":
        return _too_skewed(at, now, skew_seconds)
    return _refuse(
        "skewed",
        dialect,
        f"Signature expired: {_basic(at)} is now earlier than {_basic(now - skew_seconds)} "
        f"({_basic(now)} - {skew_seconds // 60} min.)",
    )


def not_yet_current(dialect: Dialect, at: float, now: float, skew_seconds: int) -> AccessDenied:
    if dialect == "s3":
        return _too_skewed(at, now, skew_seconds)
    return _refuse(
        "skewed",
        dialect,
        f"Signature not yet current: {_basic(at)} is still later than {_basic(now + skew_seconds)} "
        f"({_basic(now)} + {skew_seconds // 60} min.)",
    )


def _too_skewed(at: float, now: float, skew_seconds: int) -> AccessDenied:
    return _refuse(
        "skewed",
        "s3",
        "The difference between the request time and the current time is too large.",
        RequestTime=_basic(at),
        ServerTime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        MaxAllowedSkewMilliseconds=str(skew_seconds * 1000),
    )


def missing_content_hash() -> Fault:
    return Invalid(
        "Missing required header for this request: x-amz-content-sha256",
        code="MissingSecurityHeader",
        status=400,
    )


def invalid_content_hash() -> Fault:
    return Invalid(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 "
        "value.",
        code="InvalidArgument",
        status=400,
        fields={"ArgumentName": "x-amz-content-sha256"},
    )


def _basic(at: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
