"""Forms and the policies they are held against, piece by piece; whole uploads are S3's tests' matter."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.faults import Fault
from clary.protocol.browser_upload import MAX_FORM_BYTES, check_policy, read_form
from clary.protocol.wire import Headers, HttpRequest

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
SOON = "2023-11-14T23:00:00Z"


def read(body: bytes, piece_bytes: int = 10_000, boundary: str = "b") -> tuple[dict[str, str], bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece_bytes):
            yield body[start : start + piece_bytes]

    async def run() -> tuple[dict[str, str], bytes]:
        content_type = f"multipart/form-data; boundary={boundary}"
        headers = Headers([("content-type", content_type)])
        form = await read_form(HttpRequest("POST", "/bkt", "", headers, pieces()))
        return dict(form.fields), b"".join([piece async for piece in form.file])

    return asyncio.run(run())


def part(name: str, value: bytes, file_name: str | None = None) -> bytes:
    file = f'; filename="{file_name}"' if file_name is not None else ""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + value + b"\r\n"


@given(st.binary(max_size=400), st.integers(1, 50))
def test_a_file_comes_out_whole_wherever_the_form_is_cut(content: bytes, piece_bytes: int) -> None:
    if b"\r\n--b" in content:
        return
    body = part("key", b"k") + part("file", content, "f") + b"--b--\r\n"
    assert read(body, piece_bytes) == ({"key": "k"}, content)


def test_what_looks_like_a_boundary_may_be_in_the_file() -> None:
    content = b"\r\n--\r\n-b\r\n--a"
    assert read(part("file", content) + b"--b--", 3)[1] == content


def test_what_follows_the_file_is_dropped() -> None:
    assert read(part("file", b"x") + part("key", b"late") + b"--b--") == ({}, b"x")


def test_the_name_of_the_file_may_be_part_of_the_key() -> None:
    for sent, leaf in (
        ("a b.csv", "a b.csv"),
        ("C:\\x\\y.txt", "y.txt"),
        ("../../etc/passwd", "passwd"),
        ("", ""),
    ):
        fields, _ = read(
            part("key", b"up/${filename}") + part("file", b"x", sent.replace("\\", "\\\\")) + b"--b--"
        )
        assert fields["key"] == f"up/{leaf}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"--b--",
        b"--b\r\n",
        part("key", b"k") + b"--b--",
        part("key", b"k") + part("key", b"l") + part("file", b"x"),
        part("key", b"k" * (MAX_FORM_BYTES + 1)) + part("file", b"x"),
        b"".join(part(f"f{number}", b"") for number in range(200)) + part("file", b"x"),
        b"--b\r\n" + b"X: " + b"y" * 100_000,
        part("file", b"never ends")[:-2],
    ],
)
def test_a_form_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Fault) as caught:
        read(body)
    assert caught.value.status == 400


def test_a_form_needs_a_boundary() -> None:
    for boundary in ("", '""', "x" * 500):
        with pytest.raises(Fault):
            read(part("file", b"x"), boundary=boundary)


@given(st.binary(max_size=300))
def test_random_forms_are_read_or_refused(body: bytes) -> None:
    for prefix in (b"", b"--b\r\n", part("key", b"k")):
        try:
            read(prefix + body)
        except Fault as fault:
            assert fault.status == 400


def held(fields: dict[str, str], *conditions: Any, expiration: Any = SOON) -> tuple[int, int]:
    policy = {"expiration": expiration, "conditions": list(conditions)}
    text = base64.b64encode(json.dumps(policy).encode()).decode()
    return check_policy({**fields, "policy": text, "bucket": "bkt"}, NOW)


def test_a_policy_lets_through_what_its_conditions_say() -> None:
    conditions = [{"bucket": "bkt"}, ["starts-with", "$key", "up/"], ["eq", "$acl", "private"]]
    assert held({"key": "up/x", "acl": "private"}, *conditions) == (0, 5 * 1024**3)
    assert held({"key": "k", "x-ignore-me": "1"}, {"key": "k"}, ["content-length-range", 1, 10]) == (1, 10)
    assert held({"key": "anything"}, ["starts-with", "$key", ""])
    assert held({"key": "k"}, {"Key": "k"}, expiration="2023-11-14T23:13:20.000+00:00")


@pytest.mark.parametrize(
    ("fields", "conditions", "words"),
    [
        ({"key": "k"}, [{"key": "other"}], "Policy Condition failed"),
        ({"key": "k"}, [{"key": "k"}, {"bucket": "other"}], "Policy Condition failed"),
        ({"key": "down/x"}, [["starts-with", "$key", "up/"]], "Policy Condition failed"),
        ({}, [{"key": "k"}], "Policy Condition failed"),
        ({"key": "k", "acl": "public-read"}, [{"key": "k"}], "Extra input fields: acl"),
        ({"key": "k", "x-amz-meta-a": "1"}, [{"key": "k"}], "Extra input fields: x-amz-meta-a"),
    ],
)
def test_a_policy_refuses_what_it_does_not_say(fields: dict[str, str], conditions: Any, words: str) -> None:
    with pytest.raises(Fault, match=words) as caught:
        held(fields, *conditions)
    assert (caught.value.code, caught.value.status) == ("AccessDenied", 403)


def test_a_policy_ends() -> None:
    with pytest.raises(Fault, match="Policy expired"):
        held({"key": "k"}, {"key": "k"}, expiration="2023-11-14T22:13:20Z")


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "not base64!",
        base64.b64encode(b"text").decode(),
        base64.b64encode(b"[]").decode(),
        base64.b64encode(b'{"expiration": "2099-01-01T00:00:00Z"}').decode(),
        base64.b64encode(b'{"expiration": "soon", "conditions": []}').decode(),
        base64.b64encode(b'{"conditions": []}').decode(),
        base64.b64encode(b'{"expiration": "2099-01-01T00:00:00Z", "conditions": ["x"]}').decode(),
        base64.b64encode(b'{"expiration": "2099-01-01T00:00:00Z", "conditions": [["ne", "$a", 1]]}').decode(),
        base64.b64encode(
            b'{"expiration": "2099-01-01T00:00:00Z", "conditions": [["content-length-range", "a", 1]]}'
        ).decode(),
        base64.b64encode(b"[" * 100_000).decode(),
    ],
)
def test_a_broken_policy_is_refused(policy: str) -> None:
    with pytest.raises(Fault) as caught:
        check_policy({"policy": policy, "bucket": "b"}, NOW)
    assert caught.value.status == 400
