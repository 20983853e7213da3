"""What botocore signs is verified; what was changed after signing is not."""

from __future__ import annotations

import asyncio
import calendar
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.clock import ManualClock
from clary.faults import Fault
from clary.protocol.key_ring import AccessKey
from clary.protocol.refusals import Dialect
from clary.protocol.signature import (
    UNSIGNED_PAYLOAD,
    Authenticator,
    declared_payload_hash,
    glimpse_scope,
    parse_timestamp,
    signed_payload_hash,
)
from clary.protocol.wire import Caller, Headers, HttpRequest

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
CLAIM = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/r/logs/aws4_request"
TOKEN = "a-session/token+with=signs"
CALLER = Caller("111122223333", "arn:aws:iam::111122223333:root", "111122223333", KEY_ID)


class OneKey:
    """A key ring with one long-term key and one session of it, ``ASIA…``."""

    def __init__(self, session_expires_at: float) -> None:
        self._session = AccessKey(replace(CALLER, access_key_id="ASIATEMPORARY"), SECRET, session_expires_at)

    async def find(self, access_key_id: str, session_token: str | None) -> AccessKey | None:
        if access_key_id == KEY_ID and session_token is None:
            return AccessKey(CALLER, SECRET)
        if access_key_id == "ASIATEMPORARY" and session_token == TOKEN:
            return self._session
        return None


async def nothing() -> AsyncIterator[bytes]:
    for _ in ():
        yield b""


def received(sent: AWSRequest, host: str = "127.0.0.1:8750") -> HttpRequest:
    """``sent`` as the server would see it."""
    prepared = sent.prepare()
    parts = urlsplit(prepared.url)
    headers = [
        (name, value.decode() if isinstance(value, bytes) else value)
        for name, value in prepared.headers.items()
    ]
    return HttpRequest(
        prepared.method, parts.path or "/", parts.query, Headers([("Host", host), *headers]), nothing()
    )


def authenticator(*, later_seconds: float = 0.0, **options: Any) -> Authenticator:
    now = time.time()
    clock = ManualClock(now + later_seconds)
    defaults: dict[str, Any] = {"default_account": "123456789012", "default_region": "us-east-1"}
    return Authenticator(OneKey(now + 600), clock, **{**defaults, **options})


def verify(request: HttpRequest, body: bytes, scope: str = "logs", **options: Any) -> Caller:
    """Let ``request`` through, or raise its refusal."""
    dialects: dict[str, Dialect] = {"s3": "s3", "sts": "query"}
    opened = asyncio.run(authenticator(**options).open(request, dialects.get(scope, "json"), scope))
    if scope == "s3":
        declared = declared_payload_hash(request, opened)
        opened.check(request, signed_payload_hash(request, opened, declared))
    else:
        opened.check(request, hashlib.sha256(body).hexdigest())
    return opened.caller


def refusal(
    request: HttpRequest, body: bytes = b"", scope: str = "logs", **options: Any
) -> tuple[str | None, int | None]:
    with pytest.raises(Fault) as caught:
        verify(request, body, scope, **options)
    return caught.value.code, caught.value.status


def signed(
    method: str = "POST",
    url: str = "http://127.0.0.1:8750/",
    body: bytes = b"{}",
    headers: dict[str, str] | None = None,
    scope: str = "logs",
    signer: Any = None,
    credentials: Credentials | None = None,
    **options: Any,
) -> HttpRequest:
    sent = AWSRequest(method, url, headers or {}, body)
    signer = signer or (S3SigV4Auth if scope == "s3" else SigV4Auth)
    signer(credentials or Credentials(KEY_ID, SECRET), scope, "eu-west-1", **options).add_auth(sent)
    return received(sent)


def with_header(request: HttpRequest, name: str, value: str) -> HttpRequest:
    request.headers.set(name, value)
    return request


SESSION = Credentials("ASIATEMPORARY", SECRET, TOKEN)
TARGET = {"X-Amz-Target": "Logs_20140328.PutLogEvents", "Content-Type": "application/x-amz-json-1.1"}


def test_a_signed_header_lets_its_caller_in() -> None:
    assert verify(signed(headers=TARGET), b"{}") == CALLER


def test_a_session_signs_with_its_token() -> None:
    assert verify(signed(headers=TARGET, credentials=SESSION), b"{}").access_key_id == "ASIATEMPORARY"
    assert verify(signed("GET", scope="s3", body=b"", credentials=SESSION), b"", "s3")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/bkt",
        "/bkt/a%20b",
        "/bkt/a/../b",
        "/bkt//a//",
        "/bkt/%C3%BC%2B",
        "/bkt/a+b",
        "/bkt/~a(b)",
        "/bkt/.",
    ],
)
@pytest.mark.parametrize(
    "query", ["", "?list-type=2&prefix=a%2Fb", "?b=2&a=1&a=0", "?acl", "?a=%20b&c=d%2Be"]
)
def test_paths_and_queries_are_verified_as_they_are_sent(path: str, query: str) -> None:
    url = f"http://127.0.0.1:8750{path}{query}"
    assert verify(signed("GET", url, b"", scope="s3"), b"", "s3") == CALLER
    assert verify(signed("GET", url, b"", scope="logs"), b"") == CALLER
    presigned = signed("GET", url, b"", scope="s3", signer=S3SigV4QueryAuth, expires=60)
    assert verify(presigned, b"", "s3") == CALLER


@pytest.mark.parametrize(
    ("name", "sent", "signed_as"),
    [("raw_path", "/bkt/a(b)!", "/bkt/a%28b%29%21"), ("query", "prefix=a+b(c)", "prefix=a%20b%28c%29")],
)
def test_a_client_may_sign_the_escaped_spelling_of_what_it_sends(
    name: str, sent: str, signed_as: str
) -> None:
    path, query = (signed_as, "") if name == "raw_path" else ("/bkt", signed_as)
    request = signed("GET", f"http://127.0.0.1:8750{path}?{query}", b"", scope="s3")
    setattr(request, name, sent)
    assert verify(request, b"", "s3") == CALLER


def test_several_values_of_a_header_are_signed_together() -> None:
    request = signed(headers={"X-Amz-Meta-A": "one  two,three"})
    pieces = [("x-amz-meta-a", "one two "), ("x-amz-meta-a", "three")]
    others = [item for item in request.headers.items() if item[0] != "x-amz-meta-a"]
    request = replace(request, headers=Headers(others + pieces))
    assert verify(request, b"{}") == CALLER


@pytest.mark.parametrize(
    "change",
    [
        lambda r: replace(r, method="PUT"),
        lambda r: replace(r, raw_path="/other"),
        lambda r: replace(r, query="a=2"),
        lambda r: replace(r, query=""),
        lambda r: replace(r, query="a=1&b=2"),
        lambda r: with_header(r, "host", "elsewhere:8750"),
        lambda r: with_header(r, "x-amz-target", "Logs_20140328.DeleteLogGroup"),
        lambda r: with_header(r, "content-type", "text/plain"),
        lambda r: with_header(
            r, "authorization", r.headers.get("authorization").replace("eu-west-1", "eu-west-2")
        ),
        lambda r: with_header(
            r,
            "authorization",
            r.headers.get("authorization")[:-1] + ("0" if r.headers.get("authorization")[-1] != "0" else "1"),
        ),
        lambda r: with_header(r, "authorization", r.headers.get("authorization") + "0"),
    ],
)
def test_any_signed_part_that_was_changed_breaks_the_signature(change: Any) -> None:
    request = change(signed(url="http://127.0.0.1:8750/x?a=1", headers=TARGET))
    assert refusal(request, b"{}") == ("InvalidSignatureException", 400)


def test_another_body_breaks_the_signature() -> None:
    assert refusal(signed(headers=TARGET), b'{"a":1}') == ("InvalidSignatureException", 400)


def test_another_secret_breaks_the_signature_in_the_words_of_each_kind_of_service() -> None:
    stranger = Credentials(KEY_ID, "another")
    assert refusal(signed(credentials=stranger), b"{}") == ("InvalidSignatureException", 400)
    assert refusal(signed(credentials=stranger, scope="sts"), b"{}", "sts") == ("SignatureDoesNotMatch", 403)
    assert refusal(signed(credentials=stranger, scope="s3"), b"{}", "s3") == ("SignatureDoesNotMatch", 403)


def test_an_unknown_key_is_refused_in_the_words_of_each_kind_of_service() -> None:
    stranger = Credentials("AKIAUNKNOWN", SECRET)
    assert refusal(signed(credentials=stranger)) == ("UnrecognizedClientException", 400)
    assert refusal(signed(credentials=stranger, scope="sts"), scope="sts") == ("InvalidClientTokenId", 403)
    assert refusal(signed(credentials=stranger, scope="s3"), scope="s3") == ("InvalidAccessKeyId", 403)


def test_a_session_without_its_token_or_with_another_is_refused() -> None:
    for token in (None, "another"):
        other = Credentials("ASIATEMPORARY", SECRET, token)
        assert refusal(signed(credentials=other)) == ("UnrecognizedClientException", 400)
    other = Credentials("ASIATEMPORARY", SECRET, "another")
    assert refusal(signed(credentials=other, scope="s3"), scope="s3") == ("InvalidToken", 400)


def test_an_expired_session_is_told_so() -> None:
    options = {"later_seconds": 700.0}
    assert refusal(signed(credentials=SESSION), **options) == ("ExpiredTokenException", 400)
    request = signed(credentials=SESSION, scope="sts")
    assert refusal(request, scope="sts", **options) == ("ExpiredToken", 403)
    request = signed(credentials=SESSION, scope="s3")
    assert refusal(request, scope="s3", **options) == ("ExpiredToken", 400)


def test_a_request_outside_the_window_is_refused() -> None:
    assert verify(signed(), b"{}", later_seconds=14 * 60)
    assert verify(signed(), b"{}", later_seconds=-14 * 60)
    for later in (16 * 60.0, -16 * 60.0):
        assert refusal(signed(), b"{}", later_seconds=later) == ("InvalidSignatureException", 400)
        assert refusal(signed(scope="s3"), b"{}", "s3", later_seconds=later) == ("RequestTimeTooSkewed", 403)
    with pytest.raises(Fault, match=r"Signature expired: .* is now earlier than"):
        verify(signed(), b"{}", later_seconds=16 * 60)
    with pytest.raises(Fault, match=r"Signature not yet current: .* is still later than"):
        verify(signed(), b"{}", later_seconds=-16 * 60)


def test_an_unsigned_request_is_refused() -> None:
    request = HttpRequest("POST", "/", "", Headers([("Host", "h")]), nothing())
    assert refusal(request) == ("MissingAuthenticationTokenException", 400)
    assert refusal(request, scope="sts") == ("MissingAuthenticationToken", 403)
    assert refusal(request, scope="s3") == ("AccessDenied", 403)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 ,,,",
        "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0",
        f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/r/logs/other, SignedHeaders=host, Signature=0",
        f"{CLAIM}, SignedHeaders=host",
        f"{CLAIM}, SignedHeaders=date, Signature=0",
        f"{CLAIM}, SignedHeaders=host;date, Signature=0",
        "AWS4-ECDSA-P256-SHA256 Credential=a, SignedHeaders=host, Signature=0",
        "Bearer abc",
        f"AWS {KEY_ID}:frJIUN8DYpKDtOLCwo//yllqDzg=",
    ],
)
def test_a_malformed_authorization_is_refused(authorization: str) -> None:
    headers = Headers([("Host", "h"), ("X-Amz-Date", "20260101T000000Z"), ("Authorization", authorization)])
    request = HttpRequest("POST", "/", "", headers, nothing())
    assert refusal(request) == ("IncompleteSignatureException", 400)
    assert refusal(request, scope="sts") == ("IncompleteSignature", 400)


@pytest.mark.parametrize("date", ["", "yesterday", "20261301T000000Z", "20260101", "99999999T999999Z"])
def test_a_malformed_date_is_refused(date: str) -> None:
    request = with_header(signed(), "x-amz-date", date)
    assert refusal(request, b"{}") == ("IncompleteSignatureException", 400)


def test_the_date_of_the_scope_must_be_the_date_of_the_request() -> None:
    request = signed()
    yesterday = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 24 * 3600))
    assert refusal(with_header(request, "x-amz-date", yesterday), b"{}") == (
        "IncompleteSignatureException",
        400,
    )


def test_the_date_header_may_stand_in_for_x_amz_date() -> None:
    assert verify(signed(headers={"Date": "now"}), b"{}") == CALLER


def test_a_header_that_steers_the_request_must_be_signed() -> None:
    request = with_header(signed(), "x-amz-target", "SageMaker.DeleteModel")
    assert refusal(request, b"{}") == ("InvalidSignatureException", 400)
    presigned = signed(
        "PUT", "http://127.0.0.1:8750/b/k", b"", scope="s3", signer=S3SigV4QueryAuth, expires=60
    )
    request = with_header(presigned, "x-amz-copy-source", "/secret/key")
    assert refusal(request, scope="s3") == ("AccessDenied", 403)


def test_the_signature_must_be_made_for_the_service_that_is_called() -> None:
    assert refusal(signed(scope="sts"), b"{}", "logs") == ("InvalidSignatureException", 400)


def test_s3_must_say_what_its_body_is() -> None:
    request = signed(scope="s3", signer=SigV4Auth)
    assert refusal(request, b"{}", "s3") == ("MissingSecurityHeader", 400)
    request = with_header(signed(scope="s3"), "x-amz-content-sha256", "nonsense")
    assert refusal(request, b"{}", "s3") == ("InvalidArgument", 400)
    request = with_header(signed(scope="s3"), "x-amz-content-sha256", UNSIGNED_PAYLOAD)
    assert refusal(request, b"{}", "s3") == ("SignatureDoesNotMatch", 403)


def presign(expires: int = 60, signer: Any = S3SigV4QueryAuth, **options: Any) -> HttpRequest:
    url = "http://127.0.0.1:8750/bkt/a%20key?response-content-type=text%2Fplain"
    return signed("GET", url, b"", scope="s3", signer=signer, expires=expires, **options)


def test_a_presigned_url_works_until_it_expires() -> None:
    assert verify(presign(), b"", "s3") == CALLER
    assert verify(presign(credentials=SESSION), b"", "s3").access_key_id == "ASIATEMPORARY"
    assert verify(presign(expires=7 * 24 * 3600), b"", "s3", later_seconds=6 * 24 * 3600) == CALLER
    assert refusal(presign(), scope="s3", later_seconds=61) == ("AccessDenied", 403)
    assert refusal(presign(expires=7 * 24 * 3600 + 1), scope="s3") == (
        "AuthorizationQueryParametersError",
        400,
    )


def test_a_presigned_url_of_another_service_covers_its_empty_body() -> None:
    url = "http://127.0.0.1:8750/?Action=GetCallerIdentity&Version=2011-06-15"
    request = signed("GET", url, b"", scope="sts", signer=SigV4QueryAuth, expires=60)
    assert verify(request, b"", "sts") == CALLER
    assert refusal(request, b"Action=AssumeRole", "sts") == ("SignatureDoesNotMatch", 403)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/bkt/", "/other/"),
        ("text%2Fplain", "text%2Fhtml"),
        ("X-Amz-Expires=60", "X-Amz-Expires=600"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host&a=b"),
        ("eu-west-1", "eu-west-2"),
    ],
)
def test_a_changed_presigned_url_is_refused(old: str, new: str) -> None:
    request = presign()
    request = replace(
        request, raw_path=request.raw_path.replace(old, new), query=request.query.replace(old, new)
    )
    assert refusal(request, scope="s3") == ("SignatureDoesNotMatch", 403)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=soon"),
        ("X-Amz-Expires=60", "X-Amz-Expires=-1"),
        ("X-Amz-Expires=60", "X-Amz-Expires=99999999999999999"),
        ("X-Amz-Expires=60&", ""),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=host&X-Amz-SignedHeaders=host"),
    ],
)
def test_a_malformed_presigned_url_is_refused(old: str, new: str) -> None:
    request = presign()
    assert old in request.query
    code, status = refusal(replace(request, query=request.query.replace(old, new)), scope="s3")
    assert (code, status) == ("AuthorizationQueryParametersError", 400)


def presign_v2(
    expires: int = 60, method: str = "GET", headers: dict[str, str] | None = None, **options: Any
) -> HttpRequest:
    sent = AWSRequest(method, "http://127.0.0.1:8750/bkt/a%20key?versionId=3%2B4&x=y", headers or {}, b"")
    sent.auth_path = options.pop("auth_path", None)
    credentials = options.pop("credentials", Credentials(KEY_ID, SECRET))
    HmacV1QueryAuth(credentials, expires=expires).add_auth(sent)
    request = received(sent)
    return replace(request, headers=Headers([("Host", "127.0.0.1:8750")]))


def test_a_url_presigned_the_older_way_works_until_it_expires() -> None:
    assert verify(presign_v2(), b"", "s3") == CALLER
    assert verify(presign_v2(credentials=SESSION), b"", "s3").access_key_id == "ASIATEMPORARY"
    assert verify(presign_v2(method="PUT", headers={"Content-Type": "text/plain"}), b"", "s3") == CALLER
    assert refusal(presign_v2(), scope="s3", later_seconds=61) == ("AccessDenied", 403)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("/bkt/", "/other/", "SignatureDoesNotMatch"),
        ("versionId=3%2B4", "versionId=4", "SignatureDoesNotMatch"),
        ("x=y", "acl", "SignatureDoesNotMatch"),
        ("AWSAccessKeyId=AKIA", "AWSAccessKeyId=AKIB", "InvalidAccessKeyId"),
        ("Expires=", "Expires=9", "SignatureDoesNotMatch"),
        ("Expires=", "Expires=x", "AccessDenied"),
        ("Signature=", "Signature=A", "SignatureDoesNotMatch"),
        ("Signature=", "Other=", "AccessDenied"),
    ],
)
def test_a_changed_url_presigned_the_older_way_is_refused(old: str, new: str, code: str) -> None:
    request = presign_v2()
    request = replace(
        request, raw_path=request.raw_path.replace(old, new), query=request.query.replace(old, new)
    )
    assert refusal(request, scope="s3")[0] == code


def test_a_header_added_to_a_url_presigned_the_older_way_is_refused() -> None:
    request = with_header(presign_v2(method="PUT"), "x-amz-copy-source", "/secret/key")
    assert refusal(request, scope="s3") == ("SignatureDoesNotMatch", 403)


def test_without_verification_the_key_id_alone_names_the_caller() -> None:
    stranger = signed(credentials=Credentials("AKIAUNKNOWN", "x"))
    assert verify(stranger, b"other", verify=False).account == "123456789012"
    known = signed(credentials=Credentials(KEY_ID, "wrong"))
    assert verify(known, b"other", verify=False) == CALLER
    unsigned = HttpRequest("GET", "/", "", Headers([("Host", "h")]), nothing())
    assert verify(unsigned, b"", verify=False).account == "123456789012"


def test_the_scope_can_be_glimpsed_in_header_and_query() -> None:
    for request in (signed(), presign()):
        scope = glimpse_scope(request)
        assert scope is not None
        assert (scope.access_key_id, scope.region) == (KEY_ID, "eu-west-1")
    assert glimpse_scope(presign_v2()) is None


@settings(deadline=None)
@given(
    st.text(st.characters(max_codepoint=255), max_size=80),
    st.text(st.characters(max_codepoint=255), max_size=80),
    st.text(st.characters(max_codepoint=255), max_size=30),
)
def test_random_claims_are_refused_and_never_break_the_verifier(text: str, query: str, date: str) -> None:
    for scope in ("logs", "s3"):
        for authorization in (text, f"AWS4-HMAC-SHA256 {text}"):
            headers = Headers([("host", "h"), ("authorization", authorization), ("x-amz-date", date)])
            with pytest.raises(Fault):
                verify(HttpRequest("GET", "/", query, headers, nothing()), b"", scope)
        with pytest.raises(Fault):
            request = HttpRequest(
                "GET", "/", f"X-Amz-Algorithm=&{query}", Headers([("host", "h")]), nothing()
            )
            verify(request, b"", scope)


def test_timestamps_are_read_as_utc() -> None:
    assert parse_timestamp("20260102T030405Z") == calendar.timegm((2026, 1, 2, 3, 4, 5))
    assert parse_timestamp("20260102T030405") is None
