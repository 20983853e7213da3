"""The quick check says "right" only where the full check would."""

from __future__ import annotations

import hashlib
import time

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from clary.clock import ManualClock
from clary.serving.quick_signature import Headers, KnownKey, QuickSignatures

TARGET = b"/endpoints/endpoint/invocations"
BODY = b"1,2,3"
KEY = KnownKey("123456789012", "us-east-1", "secret", None)


def _signed(token: str | None = None, **headers: str) -> Headers:
    request = AWSRequest(
        "POST",
        f"http://127.0.0.1:8750{TARGET.decode()}",
        data=BODY,
        headers={"Content-Type": "text/csv", **{n.replace("_", "-"): v for n, v in headers.items()}},
    )
    SigV4Auth(Credentials("AKIATEST", "secret", token), "sagemaker", "us-east-1").add_auth(request)
    sent = [(b"host", b"127.0.0.1:8750")]
    for name, value in request.headers.items():
        sent.append((name.lower().encode(), value if isinstance(value, bytes) else value.encode()))
    return sent


def _right(
    quick: QuickSignatures,
    headers: Headers,
    *,
    method: bytes = b"POST",
    target: bytes = TARGET,
    body: bytes = BODY,
) -> bool:
    claim = quick.open(method, target, headers)
    return claim is not None and claim.check(hashlib.sha256(body).hexdigest())


def _learned(headers: Headers, key: KnownKey = KEY) -> tuple[QuickSignatures, ManualClock]:
    clock = ManualClock(time.time())
    quick = QuickSignatures(clock)
    quick.learn(headers, key)
    return quick, clock


def test_a_caller_is_known_once_the_full_check_let_it_in() -> None:
    headers = _signed()
    quick, _ = _learned(headers)
    assert _right(quick, headers)
    assert not _right(QuickSignatures(ManualClock(time.time())), headers)
    later = _signed(X_Amzn_SageMaker_Target_Variant="a")  # other names are signed: another claim
    assert not _right(quick, later)


@pytest.mark.parametrize("number", range(len(_signed())))
def test_any_header_that_was_signed_counts(number: int) -> None:
    headers = _signed()
    quick, _ = _learned(headers)
    name, value = headers[number]
    for changed in (value + b"1", value[:-1], value[:1] + b"0" + value[2:]):
        forged = [*headers[:number], (name, changed), *headers[number + 1 :]]
        assert _right(quick, forged) is (forged == headers or name == b"content-length")
    if name != b"content-length":
        assert not _right(quick, [*headers[:number], *headers[number + 1 :]])
    assert not _right(quick, [*headers, (name, value)])


@pytest.mark.parametrize(
    "changed",
    [
        {"body": b"1,2,4"},
        {"method": b"PUT"},
        {"target": b"/endpoints/another/invocations"},
        {"target": TARGET + b"?a=b"},
        {"target": TARGET + b"/../x"},
        {"target": b"//endpoints/endpoint/invocations"},
        {"target": b"/endpoints/endp%6fint/invocations"},
    ],
)
def test_method_path_and_body_count(changed: dict[str, bytes]) -> None:
    headers = _signed()
    quick, _ = _learned(headers)
    assert not _right(quick, headers, **changed)


def test_a_header_that_steers_must_be_signed() -> None:
    headers = _signed()
    quick, _ = _learned(headers)
    assert not _right(quick, [*headers, (b"x-amz-security-token", b"t")])
    assert not _right(quick, [*headers, (b"x-amz-other", b"t")])
    assert _right(quick, [*headers, (b"user-agent", b"x  y")])


def test_times_count() -> None:
    headers = _signed()
    quick, clock = _learned(headers, KnownKey(KEY.account, KEY.region, KEY.secret, time.time() + 60))
    assert _right(quick, headers)
    clock._now += 61
    assert not _right(quick, headers)
    quick, clock = _learned(headers)
    clock._now += 14 * 60
    assert _right(quick, headers)
    clock._now += 2 * 60
    assert not _right(quick, headers)
    clock._now -= 40 * 60
    assert not _right(quick, headers)


def test_a_session_token_belongs_to_its_claim() -> None:
    headers = _signed("token")
    quick, _ = _learned(headers)
    assert _right(quick, headers)
    assert not _right(quick, _signed("other"))
    assert not _right(quick, _signed())
