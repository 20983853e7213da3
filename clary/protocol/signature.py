"""Who signed a request, and whether the signature is right: AWS Signature Version 4.

By header and by query (presigned URLs), with signed chunks for streamed S3 bodies. `Authenticator` works in
two steps, so that a stranger is refused before the body is read: `Authenticator.open` reads the claim and
looks up the key; `Opened.check` compares the signature once the hash of the body is known. Presigned URLs
of the older S3 signature, which boto3 still makes by default, are in `clary.protocol.signature_v2`.
"""

from __future__ import annotations

import calendar
import functools
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, quote, unquote_plus, unquote_to_bytes

from clary.clock import Clock
from clary.protocol import refusals, signature_v2
from clary.protocol.key_ring import AccessKey, KeyRing
from clary.protocol.refusals import Dialect
from clary.protocol.wire import Caller, HttpRequest

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW_SECONDS = 15 * 60
MAX_EXPIRES_SECONDS = 7 * 24 * 3600
MAX_SIGNED_HEADERS = 200
CACHED_SIGNING_KEYS = 1024

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_HASHES = frozenset({STREAMING_UNSIGNED_TRAILER, STREAMING_SIGNED, STREAMING_SIGNED_TRAILER})

_CLAIM_NAMES = frozenset(
    f"x-amz-{name}"
    for name in ("algorithm", "credential", "date", "expires", "signedheaders", "signature", "security-token")
)
_TIMESTAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z\Z")
_SCOPE_IN_HEADER = re.compile(r"Credential=([^/,\s]+)/(\d{8})/([^/,\s]+)/([^/,\s]+)/aws4_request")
_SCOPE_IN_QUERY = re.compile(
    r"(?:^|&)X-Amz-Credential=([^&%/]+)(?:%2F|/)(\d{8})(?:%2F|/)([^&%/]+)(?:%2F|/)([^&%/]+)(?:%2F|/)aws4_request",
    re.IGNORECASE,
)
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class CredentialScope:
    """The part of a signature that says which key signed for which service, where and when."""

    access_key_id: str
    date: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def glimpse_scope(request: HttpRequest) -> CredentialScope | None:
    """The credential scope as far as it can be read, to find the service; nothing is verified."""
    header = request.headers.get("authorization")
    pattern, text = (_SCOPE_IN_HEADER, header) if header is not None else (_SCOPE_IN_QUERY, request.query)
    found = pattern.search(text)
    return CredentialScope(*found.groups()) if found else None


@dataclass(frozen=True)
class Signature:
    """A signature as the client wrote it. ``expires_seconds`` is set for presigned URLs only."""

    scope: CredentialScope
    timestamp: str
    signed_headers: tuple[str, ...]
    value: str
    session_token: str | None = field(repr=False)
    expires_seconds: int | None = None

    @property
    def presigned(self) -> bool:
        return self.expires_seconds is not None


@functools.lru_cache(maxsize=CACHED_SIGNING_KEYS)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key that signs requests of one day, region and service."""
    key = hmac.digest(b"AWS4" + secret.encode(), date.encode(), "sha256")
    for part in (region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


@dataclass(frozen=True)
class Opened:
    """A request whose claim is in order: the key is known and the time is right.

    ``signature`` is ``None`` where there is none to check (signatures are switched off, or the request was
    verified by the older S3 signature already).
    """

    caller: Caller
    region: str
    signature: Signature | None
    key: AccessKey | None
    dialect: Dialect

    def check(self, request: HttpRequest, payload_hash: str) -> None:
        """Compare the signature; ``payload_hash`` is what the canonical request ends in.

        Raises `AccessDenied` in the words of the service.
        """
        if self.signature is None or self.key is None or self.key.secret is None:
            return
        if not matches(request, self.signature, self.key.secret, payload_hash, s3=self.dialect == "s3"):
            raise refusals.signature_mismatch(self.dialect)

    @property
    def chunk_signer(self) -> ChunkSigner | None:
        """What verifies signed chunks, starting from this request's signature."""
        if self.signature is None or self.key is None or self.key.secret is None:
            return None
        scope = self.signature.scope
        return ChunkSigner(
            key=signing_key(self.key.secret, scope.date, scope.region, scope.service),
            prefix=f"{self.signature.timestamp}\n{scope}\n",
            previous=self.signature.value,
        )


class ChunkSigner:
    """Verifies the chain of chunk signatures of one streamed body."""

    def __init__(self, key: bytes, prefix: str, previous: str) -> None:
        self._key = key
        self._prefix = prefix
        self._previous = previous

    def check_chunk(self, digest: str, signature: str) -> bool:
        """Whether ``signature`` is right for the next chunk, whose SHA-256 in hex is ``digest``."""
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self._prefix}{self._previous}\n{EMPTY_SHA256}\n{digest}"
        return self._check(text, signature)

    def check_trailer(self, digest: str, signature: str) -> bool:
        """Whether ``signature`` is right for the trailing headers, hashed as ``name:value\\n`` lines."""
        return self._check(f"AWS4-HMAC-SHA256-TRAILER\n{self._prefix}{self._previous}\n{digest}", signature)

    def _check(self, text: str, signature: str) -> bool:
        self._previous = hmac.digest(self._key, text.encode(), "sha256").hex()
        return hmac.compare_digest(self._previous.encode(), signature.encode())


class Authenticator:
    """Turns requests into callers. ``verify`` off takes every request for what its key id says."""

    def __init__(
        self,
        key_ring: KeyRing,
        clock: Clock,
        *,
        default_account: str,
        default_region: str,
        verify: bool = True,
    ) -> None:
        self._key_ring = key_ring
        self._clock = clock
        self._default_account = default_account
        self._default_region = default_region
        self._verify = verify

    async def open(
        self, request: HttpRequest, dialect: Dialect, scope_name: str, bucket: str | None = None
    ) -> Opened:
        """Read the claim, find the key, check the times.

        ``scope_name`` is the service that the signature must be made for; ``bucket`` is the bucket that the
        Host header names (the older S3 signature covers it). Raises `AccessDenied` or `Invalid`.
        """
        if not self._verify:
            return await self._trust(request, dialect)
        if dialect == "s3" and signature_v2.is_presigned(request):
            return await self._open_v2(request, bucket)
        signature = read_signature(request, dialect)
        if signature is None:
            raise refusals.missing_token(dialect)
        scope = signature.scope
        if scope.service != scope_name:
            raise refusals.wrong_scope(dialect, scope_name, scope.service)
        key = await self.key(scope.access_key_id, signature.session_token, dialect)
        self._check_time(signature, dialect)
        if key.secret is not None:
            _demand_signed(request, signature, dialect)
        if dialect == "s3" and signature.presigned:
            _take_headers_from(_lower_fields(request.query), request)
        return Opened(key.caller, scope.region, signature, key, dialect)

    async def key(self, access_key_id: str, session_token: str | None, dialect: Dialect) -> AccessKey:
        """A living key. Raises `AccessDenied` if it is unknown or expired."""
        key = await self._key_ring.find(access_key_id, session_token)
        if key is None:
            raise refusals.unknown_key(dialect, access_key_id, has_token=session_token is not None)
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise refusals.expired_token(dialect)
        return key

    @property
    def verifies(self) -> bool:
        """Whether signatures count."""
        return self._verify

    def now(self) -> float:
        """The time that signatures are held against, in epoch seconds."""
        return self._clock.now()

    def region(self, scope: CredentialScope | None) -> str:
        """The region a request is for, where its signature may not say."""
        return scope.region if scope else self._default_region

    async def trusted(self, access_key_id: str | None, session_token: str | None) -> Caller:
        """The caller behind a key id that nobody verifies; unknown ones own the default account."""
        key = await self._key_ring.find(access_key_id, session_token) if access_key_id else None
        account = self._default_account
        return key.caller if key else Caller(account, f"arn:aws:iam::{account}:root", account, "")

    async def _open_v2(self, request: HttpRequest, bucket: str | None) -> Opened:
        claim = signature_v2.read_presigned(request)
        key = await self.key(claim.access_key_id, claim.session_token, "s3")
        if claim.expires_at <= self._clock.now():
            raise refusals.request_expired("s3")
        if key.secret is not None and not signature_v2.matches(request, claim, key.secret, bucket):
            raise refusals.signature_mismatch("s3")
        _take_headers_from(claim.headers, request)
        return Opened(key.caller, self._default_region, None, key, "s3")

    async def _trust(self, request: HttpRequest, dialect: Dialect) -> Opened:
        scope = glimpse_scope(request)
        fields = _lower_fields(request.query)
        access_key_id = scope.access_key_id if scope else fields.get("awsaccesskeyid")
        token = request.headers.get("x-amz-security-token") or fields.get("x-amz-security-token")
        caller = await self.trusted(access_key_id, token)
        if dialect == "s3":
            _take_headers_from(fields, request)
        return Opened(caller, self.region(scope), None, None, dialect)

    def _check_time(self, signature: Signature, dialect: Dialect) -> None:
        now = self._clock.now()
        at = parse_timestamp(signature.timestamp)
        if at is None:
            raise refusals.malformed(
                dialect, f"Date in Credential scope does not match a valid time: '{signature.timestamp}'."
            )
        if signature.timestamp[:8] != signature.scope.date:
            raise refusals.malformed(
                dialect,
                f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
                f"HTTP: '{signature.scope.date}' != '{signature.timestamp[:8]}', from "
                f"'{signature.timestamp}'.",
            )
        if at > now + MAX_SKEW_SECONDS:
            raise refusals.not_yet_current(dialect, at, now, MAX_SKEW_SECONDS)
        if signature.expires_seconds is not None:
            if at + signature.expires_seconds <= now:
                raise refusals.request_expired(dialect)
        elif at < now - MAX_SKEW_SECONDS:
            raise refusals.expired(dialect, at, now, MAX_SKEW_SECONDS)


def read_signature(request: HttpRequest, dialect: Dialect) -> Signature | None:
    """The signature of ``request``; ``None`` if there is none. Raises `AccessDenied` if it is malformed."""
    header = request.headers.get("authorization")
    if header is not None:
        return _read_header(request, header, dialect)
    if "X-Amz-Algorithm=" in request.query or "X-Amz-Signature=" in request.query:
        return _read_query(request, dialect)
    return None


def _read_header(request: HttpRequest, header: str, dialect: Dialect) -> Signature:
    algorithm, _, rest = header.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise refusals.unsupported_algorithm(dialect, algorithm)
    if len(request.headers.all("authorization")) > 1:
        raise refusals.malformed(dialect, "The request has more than one Authorization header.")
    parts: dict[str, str] = {}
    for piece in rest.split(","):
        name, _, value = piece.strip().partition("=")
        parts[name] = value
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not parts.get(name)]
    if missing:
        raise refusals.malformed(
            dialect,
            " ".join(f"Authorization header requires '{name}' parameter." for name in missing),
        )
    timestamp = request.headers.get("x-amz-date")
    if timestamp is None:
        timestamp = _from_http_date(request.headers.get("date"))
    if timestamp is None:
        raise refusals.malformed(
            dialect,
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
        )
    return Signature(
        scope=_read_scope(parts["Credential"], dialect),
        timestamp=timestamp,
        signed_headers=_read_signed_headers(parts["SignedHeaders"], dialect),
        value=parts["Signature"],
        session_token=request.headers.get("x-amz-security-token"),
    )


def _read_query(request: HttpRequest, dialect: Dialect) -> Signature:
    parts: dict[str, str] = {}
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        if name.startswith("X-Amz-"):
            if name in parts:
                raise refusals.malformed_query(dialect, f"The query parameter {name} is given twice.")
            parts[name] = value
    names = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
    missing = [name for name in names if not parts.get(f"X-Amz-{name}") and name != "Expires"]
    if dialect == "s3" and not parts.get("X-Amz-Expires"):
        missing.append("Expires")
    if missing:
        raise refusals.malformed_query(
            dialect,
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
            "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
        )
    if parts["X-Amz-Algorithm"] != ALGORITHM:
        raise refusals.unsupported_algorithm(dialect, parts["X-Amz-Algorithm"])
    expires = parts.get("X-Amz-Expires") or str(MAX_SKEW_SECONDS)
    if not expires.isascii() or not expires.isdigit() or len(expires) > 9:
        raise refusals.malformed_query(dialect, "X-Amz-Expires should be a number")
    if int(expires) > MAX_EXPIRES_SECONDS:
        raise refusals.malformed_query(
            dialect,
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be "
            f"less than {MAX_EXPIRES_SECONDS} seconds",
        )
    return Signature(
        scope=_read_scope(parts["X-Amz-Credential"], dialect),
        timestamp=parts["X-Amz-Date"],
        signed_headers=_read_signed_headers(parts["X-Amz-SignedHeaders"], dialect),
        value=parts["X-Amz-Signature"],
        session_token=parts.get("X-Amz-Security-Token"),
        expires_seconds=int(expires),
    )


def read_scope(credential: str) -> CredentialScope | None:
    """``KEY/DATE/REGION/SERVICE/aws4_request`` taken apart; ``None`` if it has another form."""
    parts = credential.split("/")
    if len(parts) != 5 or parts[4] != "aws4_request" or not all(parts):
        return None
    return CredentialScope(*parts[:4])


def _read_scope(credential: str, dialect: Dialect) -> CredentialScope:
    scope = read_scope(credential)
    if scope is None:
        raise refusals.malformed(
            dialect,
            "Credential must have exactly 5 slash-delimited elements, "
            "e.g. keyid/date/region/service/aws4_request.",
        )
    return scope


def _read_signed_headers(text: str, dialect: Dialect) -> tuple[str, ...]:
    names = tuple(text.lower().split(";"))
    if len(names) > MAX_SIGNED_HEADERS or list(names) != sorted(set(names)):
        raise refusals.malformed(
            dialect,
            f"SignedHeaders must be sorted names, each once, and no more than {MAX_SIGNED_HEADERS} of them.",
        )
    if "host" not in names:
        raise refusals.malformed(
            dialect, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
        )
    return names


def _demand_signed(request: HttpRequest, signature: Signature, dialect: Dialect) -> None:
    """Refuse headers that steer a request and were not signed: somebody may have added them on the way."""
    for name, _ in request.headers.items():
        if name.startswith("x-amz-") and name not in signature.signed_headers:
            if name == "x-amz-content-sha256" and signature.presigned:
                continue  # a statement about the body, which is compared with the body anyway
            raise refusals.unsigned_header(dialect, name)
    if len(request.headers.all("host")) != 1:
        raise refusals.malformed(dialect, "The request must have exactly one Host header.")


def _lower_fields(query: str) -> dict[str, str]:
    return {name.lower(): value for name, value in parse_qsl(query, keep_blank_values=True)}


def _take_headers_from(query: Mapping[str, str], request: HttpRequest) -> None:
    """Let the query of a verified presigned URL stand for headers, as S3 does (``x-amz-meta-a=b``)."""
    for name, value in query.items():
        stands = name.startswith("x-amz-") and name not in _CLAIM_NAMES
        if (stands or name in signature_v2.STANDS_FOR_HEADER) and name not in request.headers:
            request.headers.set(name, value)


def matches(request: HttpRequest, signature: Signature, secret: str, payload_hash: str, *, s3: bool) -> bool:
    """Whether ``signature`` is the one that ``secret`` gives for ``request``.

    The path and query are taken as sent; if that fails, once more with their percent-encoding put in AWS's
    form, for clients that sign another spelling than they send. Text is what latin-1 makes of the bytes
    received, so that it turns back into exactly these bytes.
    """
    scope = signature.scope
    key = signing_key(secret, scope.date, scope.region, scope.service)
    headers = _canonical_headers(request, signature.signed_headers)
    if headers is None:
        return False
    names = ";".join(signature.signed_headers)

    def agrees(path: str, query: str) -> bool:
        canonical = f"{request.method}\n{path}\n{query}\n{headers}\n{names}\n{payload_hash}"
        digest = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
        text = f"{ALGORITHM}\n{signature.timestamp}\n{scope}\n{digest}"
        expected = hmac.digest(key, text.encode(), "sha256").hex()
        return hmac.compare_digest(expected.encode(), signature.value.encode())

    sent = (_canonical_path(request.raw_path, s3=s3), _canonical_query(request.query))
    if agrees(*sent):
        return True
    path = quote(unquote_to_bytes(request.raw_path.encode("latin-1", "replace")), safe="/-_.~")
    again = (_canonical_path(path, s3=s3), _canonical_query(_respell_query(request.query)))
    return again != sent and agrees(*again)


def _canonical_path(raw_path: str, *, s3: bool) -> str:
    if raw_path in ("/", ""):
        return "/"
    return raw_path if s3 else quote(_without_dots(raw_path), safe="/~")


def _without_dots(path: str) -> str:
    """``path`` with empty and dot segments taken out, as signers other than S3's do."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment and segment != ".":
            kept.append(segment)
    end = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + end


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = []
    for piece in query.split("&"):
        name, _, value = piece.partition("=")
        if name != "X-Amz-Signature":
            pairs.append((name, value))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _respell_query(query: str) -> str:
    pairs = (piece.partition("=") for piece in query.split("&")) if query else ()
    return "&".join(
        f"{quote(unquote_plus(name), safe='-_.~')}={quote(unquote_plus(value), safe='-_.~')}"
        for name, _, value in pairs
    )


def _canonical_headers(request: HttpRequest, names: tuple[str, ...]) -> str | None:
    """The signed headers, one a line; ``None`` if one of them is not there."""
    values: dict[str, str] = {}
    for name, value in request.headers.items():
        plain = " ".join(value.split())
        values[name] = f"{values[name]},{plain}" if name in values else plain
    lines = []
    for name in names:
        if name not in values:
            return None
        lines.append(f"{name}:{values[name]}\n")
    return "".join(lines)


def parse_timestamp(text: str) -> float | None:
    """``20260101T000000Z`` in epoch seconds; ``None`` if it is no such time."""
    found = _TIMESTAMP.match(text)
    if not found:
        return None
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        return float(calendar.timegm((year, month, day, hour, minute, second)))
    except ValueError:
        return None


def _from_http_date(text: str | None) -> str | None:
    if text is None or _TIMESTAMP.match(text):
        return text
    try:
        return parsedate_to_datetime(text).astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, TypeError, OverflowError):
        return None


def declared_payload_hash(request: HttpRequest, opened: Opened) -> str:
    """What an S3 request says of its body: a SHA-256 in hex, or one of the words. Raises a `Fault`."""
    declared = request.headers.get("x-amz-content-sha256")
    if declared is None:
        if opened.signature is None or opened.signature.presigned:
            return UNSIGNED_PAYLOAD
        raise refusals.missing_content_hash()
    if declared != UNSIGNED_PAYLOAD and declared not in STREAMING_HASHES and not _HEX_SHA256.match(declared):
        raise refusals.invalid_content_hash()
    return declared


def signed_payload_hash(request: HttpRequest, opened: Opened, declared: str) -> str:
    """What an S3 signature covers in place of the body: of a presigned URL, only what was signed into it."""
    signature = opened.signature
    if (
        signature is None
        or not signature.presigned
        or "x-amz-content-sha256" in signature.signed_headers
        or "x-amz-content-sha256=" in request.query.lower()
    ):
        return declared
    return UNSIGNED_PAYLOAD
