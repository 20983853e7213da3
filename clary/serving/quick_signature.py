"""The check of the usual signature at a quarter of the price.

It knows only the form that the AWS SDKs write: a header, a plain path, no query, header values without inner
runs of blanks. It can say nothing but "right"; whatever it does not understand, or finds wrong, is left to
`clary.protocol.signature`, which knows all forms and has the words for refusals. Both use the same signing
keys, clock skew and rules on which headers must be signed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from clary.clock import Clock
from clary.protocol.signature import MAX_SKEW_SECONDS, parse_timestamp, signing_key

MAX_CLAIMS_KEPT = 4096
_AUTHORIZATION = re.compile(
    rb"AWS4-HMAC-SHA256 Credential=([A-Za-z0-9]{1,128})/(\d{8})/([a-z0-9-]{1,64})/sagemaker/aws4_request, "
    rb"SignedHeaders=([a-z0-9;-]{4,2048}), Signature=([0-9a-f]{64})\Z"
)
_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_~-]+)+\Z")

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class KnownKey:
    """What a claim that was let in once stands for."""

    account: str
    region: str
    secret: str
    expires_at: float | None


@dataclass(frozen=True)
class _Claim:
    key: KnownKey
    date: str
    names: tuple[bytes, ...]
    signed: frozenset[bytes]
    name_line: bytes
    scope: bytes


@dataclass(frozen=True)
class QuickClaim:
    """The claim of one request; `check` compares its signature."""

    claim: _Claim
    timestamp: bytes
    signature: bytes
    head: bytes  # of the canonical request, all but the body's hash

    def check(self, digest: str) -> bool:
        """Whether the signature is right for a body whose SHA-256 in hex is ``digest``."""
        claim = self.claim
        canonical = hashlib.sha256(self.head + digest.encode()).hexdigest()
        text = b"AWS4-HMAC-SHA256\n%b\n%b\n%b" % (self.timestamp, claim.scope, canonical.encode())
        key = signing_key(claim.key.secret, claim.date, claim.key.region, "sagemaker")
        return hmac.compare_digest(hmac.digest(key, text, "sha256").hex().encode(), self.signature)


class QuickSignatures:
    """The claims of callers that the full check has let in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._claims: dict[tuple[bytes, bytes], _Claim] = {}
        self._last_timestamp: tuple[bytes, float | None] = (b"", None)

    def learn(self, headers: Headers, key: KnownKey) -> None:
        """The full check found the signature of ``headers`` right, and made with ``key``."""
        authorization, token = _credentials(headers)
        found = _AUTHORIZATION.match(authorization)
        if found is None or found.group(3) != key.region.encode():
            return
        names = tuple(found.group(4).split(b";"))
        if len(self._claims) >= MAX_CLAIMS_KEPT:
            self._claims.clear()
        self._claims[authorization[: found.end(4)], token] = _Claim(
            key,
            found.group(2).decode(),
            names,
            frozenset(names),
            found.group(4),
            b"%b/%b/sagemaker/aws4_request" % (found.group(2), found.group(3)),
        )

    def open(self, method: bytes, target: bytes, headers: Headers) -> QuickClaim | None:
        """The claim of a request in the usual form by a known caller; ``None`` for any other."""
        values: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in values:
                return None
            values[name] = value
        authorization = values.get(b"authorization", b"")
        cut = authorization.rfind(b", Signature=")
        claim = self._claims.get((authorization[:cut], values.get(b"x-amz-security-token", b"")))
        timestamp = values.get(b"x-amz-date")
        if claim is None or timestamp is None or not _PLAIN_PATH.match(target):
            return None
        now = self._clock.now()
        at = self._epoch(timestamp)
        if at is None or abs(now - at) > MAX_SKEW_SECONDS or timestamp[:8].decode("latin-1") != claim.date:
            return None
        if claim.key.expires_at is not None and claim.key.expires_at <= now:
            return None
        for name in values:
            if name.startswith(b"x-amz-") and name not in claim.signed:
                return None
        lines = []
        for name in claim.names:
            signed = values.get(name)
            if signed is None or b"  " in signed or b"\t" in signed:
                return None
            lines.append(b"%b:%b\n" % (name, signed.strip()))
        head = b"%b\n%b\n\n%b\n%b\n" % (method, target, b"".join(lines), claim.name_line)
        return QuickClaim(claim, timestamp, authorization[cut + len(b", Signature=") :], head)

    def _epoch(self, timestamp: bytes) -> float | None:
        if self._last_timestamp[0] != timestamp:
            self._last_timestamp = (timestamp, parse_timestamp(timestamp.decode("latin-1")))
        return self._last_timestamp[1]


def _credentials(headers: Headers) -> tuple[bytes, bytes]:
    values = dict(headers)
    return values.get(b"authorization", b""), values.get(b"x-amz-security-token", b"")
