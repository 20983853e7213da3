"""Real clients at the real door: botocore over HTTP and TLS, and whatever else may knock."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import hmac
import http.client
import io
import json
import logging
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.clock import SystemClock
from clary.faults import NotFound
from clary.protocol import front_door
from clary.protocol.certificate_authority import Certificates, ensure_certificates
from clary.protocol.checksums import new_checksum
from clary.protocol.front_door import FrontDoor
from clary.protocol.key_ring import AccessKey
from clary.protocol.listeners import Listening, serve
from clary.protocol.models import ServiceModels
from clary.protocol.signature import Authenticator, signing_key
from clary.protocol.wire import Call, Caller, Headers, HttpRequest, HttpResponse, ReplyMembers

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CALLER = Caller("111122223333", "arn:aws:iam::111122223333:root", "111122223333", KEY_ID)
REQUEST_ID = ("x-amzn-requestid", "x-amz-request-id")


class OneKey:
    async def find(self, access_key_id: str, session_token: str | None) -> AccessKey | None:
        return AccessKey(CALLER, SECRET) if access_key_id == KEY_ID and session_token is None else None


class Shelf:
    """Operations that keep what they are given, so that a test can see what came through the door."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.members: dict[str, Any] = {}
        self.pieces = 0

    def handlers(self) -> dict[tuple[str, str], Any]:
        return {
            ("s3", "put_object"): self.put_object,
            ("s3", "get_object"): self.get_object,
            ("s3", "delete_objects"): self.delete_objects,
            ("s3", "list_buckets"): self.list_buckets,
            ("logs", "describe_log_groups"): self.describe_log_groups,
            ("logs", "delete_log_group"): self.delete_log_group,
            ("sts", "get_caller_identity"): self.get_caller_identity,
            ("cloudwatch", "put_metric_data"): self.put_metric_data,
        }

    async def put_object(self, call: Call) -> ReplyMembers:
        content = b""
        self.pieces = 0
        async for piece in call.members["Body"]:
            content += piece
            self.pieces += 1
        self.members = {name: value for name, value in call.members.items() if name != "Body"}
        self.objects[call.members["Key"]] = content
        return {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}

    async def get_object(self, call: Call) -> ReplyMembers:
        if call.members["Key"] not in self.objects:
            raise NotFound("The specified key does not exist.", code="NoSuchKey")
        content = self.objects[call.members["Key"]]

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(content), 65536):
                if call.members["Key"] == "breaks" and start:
                    raise ValueError("the disk broke")
                yield content[start : start + 65536]

        return {"Body": pieces(), "ContentLength": len(content)}

    async def delete_objects(self, call: Call) -> ReplyMembers:
        self.members = call.members
        return {}

    async def list_buckets(self, call: Call) -> ReplyMembers:
        return {"Buckets": []}

    async def describe_log_groups(self, call: Call) -> ReplyMembers:
        return {"logGroups": [{"logGroupName": call.caller.account + call.region}]}

    async def delete_log_group(self, call: Call) -> ReplyMembers:
        raise ZeroDivisionError("a secret of the implementation")

    async def get_caller_identity(self, call: Call) -> ReplyMembers:
        return {"Account": call.caller.account, "Arn": call.caller.arn, "UserId": call.caller.user_id}

    async def put_metric_data(self, call: Call) -> ReplyMembers:
        self.members = call.members
        return {}


class Door:
    """A front door that listens, in a thread of its own."""

    def __init__(self, shelf: Shelf, certificates: Certificates) -> None:
        self.shelf = shelf
        self.certificates = certificates
        self.listening = Listening(0, 0)
        self.forwarded: list[str] = []
        self._ready = threading.Event()
        self._ended: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def app(self) -> FrontDoor:
        async def mounted(request: HttpRequest) -> HttpResponse:
            return HttpResponse(200, Headers([("content-type", "text/plain")]), request.raw_path.encode())

        async def forward(scope: Any, receive: Any, send: Any) -> None:
            self.forwarded.append(scope["path"])
            if scope["path"].startswith("/endpoints/broken/"):
                raise ConnectionError("the gateway is away")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"from the gateway"})

        return FrontDoor(
            models=ServiceModels(),
            authenticator=Authenticator(
                OneKey(), SystemClock(), default_account="123456789012", default_region="us-east-1"
            ),
            handlers=self.shelf.handlers(),
            mounts={"/.clary/mounted/": mounted},
            forward=forward,
            own_names=["127.0.0.1"],
        )

    async def _run(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        async with serve(self.app(), "127.0.0.1", 0, certificate=self.certificates.server) as self.listening:
            self._ready.set()
            await self._ended.wait()

    def __enter__(self) -> Door:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None and self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listening.port}"

    def client(self, service: str, *, tls: bool = False, secret: str = SECRET, **config: Any) -> Any:
        options: dict[str, Any] = {"retries": {"total_max_attempts": 1}, **config}
        url = f"https://localhost:{self.listening.tls_port}" if tls else self.url
        return botocore.session.get_session().create_client(
            service,
            endpoint_url=url,
            region_name="eu-west-1",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=secret,
            verify=str(self.certificates.bundle) if tls else None,
            config=Config(**options),
        )

    def send(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """One request as it is written here; status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.listening.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()

    def signed(
        self, method: str, path: str, body: bytes, headers: dict[str, str], service: str = "s3"
    ) -> dict[str, str]:
        """``headers`` with a signature."""
        sent = AWSRequest(method, self.url + path, headers, body)
        signer = S3SigV4Auth if service == "s3" else SigV4Auth
        signer(Credentials(KEY_ID, SECRET), service, "eu-west-1").add_auth(sent)
        return dict(sent.headers.items())


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("tls")
    with Door(Shelf(), ensure_certificates(folder, ["127.0.0.1"], time.time())) as door:
        yield door


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    reply = caught.value.response
    return reply["Error"]["Code"], reply["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("tls", [False, True])
def test_json_query_and_xml_clients_are_answered_on_one_port(door: Door, tls: bool) -> None:
    groups = door.client("logs", tls=tls).describe_log_groups()
    assert groups["logGroups"] == [{"logGroupName": "111122223333eu-west-1"}]
    assert door.client("sts", tls=tls).get_caller_identity()["Arn"] == CALLER.arn
    assert door.client("s3", tls=tls).list_buckets()["Buckets"] == []
    assert len(groups["ResponseMetadata"]["RequestId"]) == 36


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_an_object_comes_through_whole_with_each_checksum(door: Door, tls: bool, algorithm: str) -> None:
    content = bytes(range(256)) * 2000
    s3 = door.client("s3", tls=tls)
    s3.put_object(Bucket="bkt", Key="a b/ü", Body=io.BytesIO(content), ChecksumAlgorithm=algorithm)
    assert door.shelf.objects["a b/ü"] == content
    assert "aws-chunked" not in str(door.shelf.members.get("ContentEncoding"))
    assert s3.get_object(Bucket="bkt", Key="a b/ü")["Body"].read() == content


def test_a_content_encoding_beside_the_framing_stays(door: Door) -> None:
    s3 = door.client("s3", tls=True)
    s3.put_object(Bucket="bkt", Key="k", Body=io.BytesIO(b"x" * 100), ContentEncoding="gzip")
    assert door.shelf.members["ContentEncoding"] == "gzip"


def test_a_large_body_streams_in_pieces(door: Door) -> None:
    content = b"\0" * (8 * 1024**2)
    door.client("s3").put_object(Bucket="bkt", Key="large", Body=io.BytesIO(content))
    assert door.shelf.objects["large"] == content
    assert door.shelf.pieces > 10


def test_a_wrong_secret_is_refused_in_the_words_of_each_service(door: Door) -> None:
    for service, call, code in (
        ("logs", "describe_log_groups", ("InvalidSignatureException", 400)),
        ("sts", "get_caller_identity", ("SignatureDoesNotMatch", 403)),
        ("s3", "list_buckets", ("SignatureDoesNotMatch", 403)),
    ):
        with pytest.raises(ClientError) as caught:
            getattr(door.client(service, secret="wrong"), call)()
        assert code_of(caught) == code


def test_an_operation_that_is_not_offered_is_refused_by_name(door: Door) -> None:
    for service, call, members, name in (
        ("logs", "list_anomalies", {}, "ListAnomalies"),
        ("iam", "list_users", {}, "ListUsers"),
        ("s3", "get_bucket_acl", {"Bucket": "bkt"}, "GetBucketAcl"),
        ("sagemaker", "list_hubs", {}, "ListHubs"),
        ("kms", "list_keys", {}, "ListKeys"),
    ):
        with pytest.raises(ClientError, match=name) as caught:
            getattr(door.client(service), call)(**members)
        assert 400 <= code_of(caught)[1] <= 501


def test_a_broken_constraint_is_told_in_aws_words(door: Door) -> None:
    with pytest.raises(ClientError, match="Value 'a b' at 'logGroupNamePrefix' failed to satisfy"):
        door.client("logs").describe_log_groups(logGroupNamePrefix="a b")


def wait_for_access(caplog: pytest.LogCaptureFixture, request_id: str) -> list[logging.LogRecord]:
    """What was logged of a request, once its line in the access log (written after the reply) is there."""
    deadline = time.monotonic() + 30
    while True:
        logged = [record for record in caplog.records if request_id in record.getMessage()]
        if any(record.name == "clary.access" for record in logged):
            return logged
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_bug_is_shown_by_its_request_id_only_and_logged_whole(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(ClientError) as caught:
        door.client("logs").delete_log_group(logGroupName="g")
    assert code_of(caught)[1] == 500
    assert "secret" not in str(caught.value)
    request_id = caught.value.response["ResponseMetadata"]["RequestId"]
    logged = wait_for_access(caplog, request_id)
    assert any(record.exc_info and "secret of" in str(record.exc_info[1]) for record in logged)


def test_secrets_are_not_logged(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("botocore").setLevel(logging.WARNING)  # the client's own log is its own affair
    with caplog.at_level(logging.DEBUG):
        url = door.client("s3").generate_presigned_url("get_object", Params={"Bucket": "bkt", "Key": "k"})
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(url)
        reply = door.client("sts").get_caller_identity()
        wait_for_access(caplog, reply["ResponseMetadata"]["RequestId"])
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert KEY_ID not in text
    assert "Signature" not in text


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls_get_and_put(door: Door, version: str) -> None:
    s3 = door.client("s3", signature_version=version)
    params: dict[str, Any] = {"Bucket": "bkt", "Key": "pre signed", "Metadata": {"a": "b"}}
    url = s3.generate_presigned_url("put_object", Params=params)
    headers = {} if version == "s3" else {"x-amz-meta-a": "b"}
    request = urllib.request.Request(url, b"content", headers, method="PUT")
    request.add_header("Content-Type", "")
    with urllib.request.urlopen(request) as reply:
        assert reply.status == 200
    assert door.shelf.objects["pre signed"] == b"content"
    assert door.shelf.members["Metadata"] == {"a": "b"}
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "bkt", "Key": "pre signed"})
    with urllib.request.urlopen(url) as reply:
        assert reply.read() == b"content"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("pre%20signed", "another"))
    assert caught.value.code == 403
    assert b"<Code>SignatureDoesNotMatch</Code>" in caught.value.read()


def test_an_unsigned_request_is_refused(door: Door) -> None:
    status, headers, body = door.send("GET", "/bkt/key", {})
    assert (status, headers["content-type"]) == (403, "application/xml")
    assert b"<Code>AccessDenied</Code>" in body
    target = {"X-Amz-Target": "Logs_20140328.DescribeLogGroups", "Content-Type": "application/x-amz-json-1.1"}
    status, _, body = door.send("POST", "/", target, b"{}")
    assert (status, json.loads(body)["__type"]) == (400, "MissingAuthenticationTokenException")


def put(door: Door, body: bytes, headers: dict[str, str], key: str = "checked") -> tuple[int, bytes]:
    signed = door.signed("PUT", f"/bkt/{key}", body, headers)
    status, _, reply = door.send("PUT", f"/bkt/{key}", signed, body)
    return status, reply


def test_another_body_than_the_one_that_was_signed_is_refused_and_not_kept(door: Door) -> None:
    headers = door.signed("PUT", "/bkt/tampered", b"signed", {})
    status, _, body = door.send("PUT", "/bkt/tampered", headers, b"sent!!")
    assert status == 400
    assert b"<Code>XAmzContentSHA256Mismatch</Code>" in body
    assert "tampered" not in door.shelf.objects


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-MD5": base64.b64encode(bytes(16)).decode()}, "BadDigest"),
        ({"Content-MD5": "nonsense"}, "InvalidDigest"),
        ({"x-amz-checksum-crc32": base64.b64encode(bytes(4)).decode()}, "BadDigest"),
        ({"x-amz-checksum-sha256": base64.b64encode(bytes(32)).decode()}, "BadDigest"),
        ({"x-amz-checksum-crc32c": base64.b64encode(bytes(5)).decode()}, "InvalidRequest"),
        ({"x-amz-checksum-crc32c": "not base64!"}, "InvalidRequest"),
        ({"x-amz-checksum-crc7": "AAAA"}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-crc32c": "AAAAAA=="}, "InvalidRequest"),
    ],
)
def test_a_wrong_checksum_is_refused_and_nothing_is_kept(
    door: Door, headers: dict[str, str], code: str
) -> None:
    status, reply = put(door, b"content", headers, key="wrong")
    assert status == 400
    assert f"<Code>{code}</Code>".encode() in reply
    assert "wrong" not in door.shelf.objects


@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme", "sha1", "sha256", "sha512", "md5"])
def test_a_right_checksum_is_taken(door: Door, algorithm: str) -> None:
    checksum = new_checksum(algorithm)
    checksum.update(b"content")
    value = base64.b64encode(checksum.digest()).decode()
    assert put(door, b"content", {f"x-amz-checksum-{algorithm}": value})[0] == 200


def chunked(
    door: Door,
    chunks: list[bytes],
    trailer: tuple[str, str] | None = None,
    change: Any = lambda body: body,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send ``chunks`` as signed chunks, after ``change`` was made to the framed body."""
    mode = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
    length = sum(map(len, chunks))
    head = {
        "Content-Encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(length),
        **({"x-amz-trailer": trailer[0]} if trailer else {}),
        **(headers or {}),
    }

    class Streaming(S3SigV4Auth):
        def payload(self, request: Any) -> str:
            return mode

    sent = AWSRequest("PUT", f"{door.url}/bkt/chunked", head, b"")
    Streaming(Credentials(KEY_ID, SECRET), "s3", "eu-west-1").add_auth(sent)
    signature = sent.headers["Authorization"].rpartition("=")[2]
    timestamp = sent.context["timestamp"]
    scope = f"{timestamp[:8]}/eu-west-1/s3/aws4_request"
    key = signing_key(SECRET, timestamp[:8], "eu-west-1", "s3")
    empty = hashlib.sha256(b"").hexdigest()

    def sign(kind: str, *hashes: str) -> str:
        text = "\n".join([f"AWS4-HMAC-SHA256-{kind}", timestamp, scope, signature, *hashes])
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    body = b""
    for chunk in [*chunks, b""]:
        signature = sign("PAYLOAD", empty, hashlib.sha256(chunk).hexdigest())
        body += f"{len(chunk):x};chunk-signature={signature}\r\n".encode() + chunk
        body += b"\r\n" if chunk or not trailer else b""
    if trailer:
        line = f"{trailer[0]}:{trailer[1]}\n"
        signature = sign("TRAILER", hashlib.sha256(line.encode()).hexdigest())
        body += f"{trailer[0]}:{trailer[1]}\r\nx-amz-trailer-signature:{signature}\r\n\r\n".encode()
    door.shelf.objects.pop("chunked", None)
    status, _, reply = door.send("PUT", "/bkt/chunked", dict(sent.headers.items()), change(body))
    return status, reply


CHUNKS = [b"a" * 70_000, b"b" * 70_000, b"c"]


def crc32_trailer(content: bytes) -> tuple[str, str]:
    checksum = new_checksum("crc32")
    checksum.update(content)
    return "x-amz-checksum-crc32", base64.b64encode(checksum.digest()).decode()


def test_signed_chunks_are_verified_and_taken_out_of_their_frames(door: Door) -> None:
    assert chunked(door, CHUNKS)[0] == 200
    assert door.shelf.objects["chunked"] == b"".join(CHUNKS)
    assert chunked(door, [])[0] == 200
    assert door.shelf.objects["chunked"] == b""
    assert chunked(door, CHUNKS, crc32_trailer(b"".join(CHUNKS)))[0] == 200
    assert door.shelf.objects["chunked"] == b"".join(CHUNKS)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda body: body.replace(b"aaaa", b"aaab", 1), "SignatureDoesNotMatch"),
        (lambda body: body.replace(b"chunk-signature=", b"chunk-signature=0", 1), "SignatureDoesNotMatch"),
        (lambda body: body.replace(b";chunk-signature=", b";other=", 1), "SignatureDoesNotMatch"),
        (
            lambda body: body[: body.rindex(b"1;chunk")] + body[body.rindex(b"0;chunk") :],
            "SignatureDoesNotMatch",
        ),
        (lambda body: body[:80_000], "IncompleteBody"),
        (lambda body: body[: body.rindex(b"0;chunk")], "IncompleteBody"),
        (lambda body: b"zz" + body, "InvalidRequest"),
        (lambda body: b"-" + body, "InvalidRequest"),
        (lambda body: b"f" * 5000, "InvalidRequest"),
        (lambda body: b"ff" + body, "IncompleteBody"),
        (lambda body: body + b"more", "InvalidRequest"),
    ],
)
def test_chunks_that_were_changed_are_refused_and_not_kept(door: Door, change: Any, code: str) -> None:
    status, reply = chunked(door, CHUNKS, change=change)
    assert status in (400, 403)
    assert f"<Code>{code}</Code>".encode() in reply
    assert "chunked" not in door.shelf.objects


@pytest.mark.parametrize(
    ("trailer", "change", "code"),
    [
        (("x-amz-checksum-crc32", "AAAAAA=="), lambda body: body, "BadDigest"),
        (("x-amz-checksum-crc32", "nonsense"), lambda body: body, "InvalidRequest"),
        (("x-amz-checksum-crc1", "AAAA"), lambda body: body, "InvalidRequest"),
        (
            None,
            lambda body: body.replace(b"trailer-signature:", b"trailer-signature:0"),
            "SignatureDoesNotMatch",
        ),
        (
            None,
            lambda body: body.replace(b"x-amz-checksum-crc32:", b"x-amz-meta-a:"),
            "MalformedTrailerError",
        ),
        (None, lambda body: body[: body.index(b"x-amz-checksum")] + b"\r\n", "MalformedTrailerError"),
    ],
)
def test_a_wrong_trailer_is_refused_and_nothing_is_kept(
    door: Door, trailer: Any, change: Any, code: str
) -> None:
    right = crc32_trailer(b"".join(CHUNKS))
    status, reply = chunked(door, CHUNKS, trailer or right, change)
    assert status in (400, 403)
    assert f"<Code>{code}</Code>".encode() in reply
    assert "chunked" not in door.shelf.objects


def test_chunks_of_another_length_than_announced_are_refused(door: Door) -> None:
    for length in ("140000", "140002", "-1", "many"):
        status, _ = chunked(door, CHUNKS, headers={"x-amz-decoded-content-length": length})
        assert status == 400
        assert "chunked" not in door.shelf.objects


def test_a_body_without_a_length_is_taken_as_it_comes(door: Door) -> None:
    headers = door.signed("PUT", "/bkt/open", b"abcdef", {})
    connection = http.client.HTTPConnection("127.0.0.1", door.listening.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("PUT", "/bkt/open", iter([b"abc", b"def"]), headers, encode_chunked=True)
        assert connection.getresponse().status == 200
    assert door.shelf.objects["open"] == b"abcdef"


def read_head(reader: Any) -> tuple[int, dict[str, str]]:
    status = int(reader.readline().split()[1])
    headers = {}
    while line := reader.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers


def test_the_body_is_asked_for_only_when_the_signature_is_right(door: Door) -> None:
    content = b"x" * 100_000
    right = door.signed("PUT", "/bkt/expected", content, {})
    for headers, expected in ((right, 100), (right | {"X-Amz-Date": "20200101T000000Z"}, 403)):
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(
            [
                "PUT /bkt/expected HTTP/1.1",
                f"Host: 127.0.0.1:{door.listening.port}",
                *lines,
                f"Content-Length: {len(content)}",
                "Expect: 100-continue",
                "",
                "",
            ]
        )
        with socket.create_connection(("127.0.0.1", door.listening.port), 30) as connection:
            connection.sendall(head.encode())
            reader = connection.makefile("rb")
            status, reply = read_head(reader)
            assert status == expected or (status == 400 and expected == 403)
            if status == 100:
                connection.sendall(content)
                assert read_head(reader)[0] == 200
            else:
                assert reply["connection"] == "close"
    assert door.shelf.objects["expected"] == content


def test_a_connection_serves_on_after_a_refusal_whose_body_was_small(door: Door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.listening.port, timeout=30)
    with contextlib.closing(connection):
        for _ in range(3):
            connection.request("PUT", "/bkt/key", b"x" * 1000, {})
            reply = connection.getresponse()
            assert reply.status == 403
            assert reply.getheader("connection") is None
            reply.read()


def test_a_body_that_is_too_large_is_refused_before_it_is_read(door: Door) -> None:
    for service, target, status in (("logs", "Logs_20140328.DescribeLogGroups", 413),):
        headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
        signed = door.signed("POST", "/", b"{}", headers, service) | {"Content-Length": "999999999"}
        assert door.send("POST", "/", signed, b"")[0] == status
    too_large = door.signed("PUT", "/bkt/huge", b"", {}) | {"Content-Length": str(6 * 1024**3)}
    status, _, body = door.send("PUT", "/bkt/huge", too_large, b"")
    assert (status, b"<Code>EntityTooLarge</Code>" in body) == (400, True)


def test_gzip_bodies_are_unpacked_and_bombs_are_not(door: Door) -> None:
    client = door.client("cloudwatch", request_min_compression_size_bytes=1)
    client.put_metric_data(Namespace="n", MetricData=[{"MetricName": "m" * 50, "Value": 1.0}])
    assert door.shelf.members["Namespace"] == "n"
    bomb = gzip.compress(b" " * (60 * 1024**2))
    for body, status in ((bomb, 413), (b"no gzip", 400), (gzip.compress(b"{}")[:-4], 400)):
        headers = {
            "X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData",
            "Content-Type": "application/x-amz-json-1.0",
            "Content-Encoding": "gzip",
        }
        signed = door.signed("POST", "/", body, headers, "monitoring")
        assert door.send("POST", "/", signed, body)[0] == status


def test_delete_objects_needs_its_checksum_to_be_right(door: Door) -> None:
    door.client("s3").delete_objects(Bucket="bkt", Delete={"Objects": [{"Key": "a"}]})
    assert door.shelf.members["Delete"] == {"Objects": [{"Key": "a"}]}
    body = b"<Delete><Object><Key>b</Key></Object></Delete>"
    signed = door.signed("POST", "/bkt?delete", body, {"x-amz-checksum-crc32": "AAAAAA=="})
    assert door.send("POST", "/bkt?delete", signed, body)[0] == 400
    assert door.shelf.members["Delete"] == {"Objects": [{"Key": "a"}]}


def test_a_reply_that_breaks_off_is_not_taken_for_whole(door: Door) -> None:
    door.shelf.objects["breaks"] = b"x" * 200_000
    headers = door.signed("GET", "/bkt/breaks", b"", {})
    with pytest.raises(http.client.IncompleteRead):
        door.send("GET", "/bkt/breaks", headers)
    assert door.client("sts").get_caller_identity()["Account"]


def test_a_client_that_leaves_in_the_middle_of_its_request_harms_nobody(door: Door) -> None:
    headers = door.signed("PUT", "/bkt/left", b"x" * 1000, {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    host = f"127.0.0.1:{door.listening.port}"
    head = f"PUT /bkt/left HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.listening.port), 30) as connection:
        connection.sendall(head.encode() + b"x" * 500)
    assert door.client("sts").get_caller_identity()["Account"]
    assert "left" not in door.shelf.objects


def test_runtime_requests_go_to_the_gateway_unread(door: Door) -> None:
    reply = door.client("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"1,2")
    assert reply["Body"].read() == b"from the gateway"
    assert door.forwarded[-1] == "/endpoints/e/invocations"


def test_a_gateway_that_cannot_be_reached_is_told_in_the_words_of_the_protocol(door: Door) -> None:
    with pytest.raises(ClientError) as caught:
        door.client("sagemaker-runtime").invoke_endpoint(EndpointName="broken", Body=b"1,2")
    assert code_of(caught)[1] == 500
    assert caught.value.response["ResponseMetadata"]["RequestId"]


def test_mounts_health_and_unknown_own_paths(door: Door) -> None:
    assert door.send("GET", "/.clary/health", {})[::2] == (200, b'{"status": "ok"}')
    status, headers, body = door.send("GET", "/.clary/mounted/x", {})
    assert (status, body) == (200, b"/.clary/mounted/x")
    assert len(headers["x-amzn-requestid"]) == 36
    status, headers, _ = door.send("GET", "/.clary/other", {})
    assert (status, headers["content-type"]) == (404, "application/json")


def test_what_is_no_http_is_refused_in_plain_text(door: Door) -> None:
    too_much = b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000
    for sent in (b"\x16\x03\x01\x02\x00\x01", b"nonsense\r\n\r\n", too_much, b"GET /\xff HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", door.listening.port), 30) as connection:
            connection.sendall(sent)
            reply = connection.recv(65536)
            assert reply.startswith(b"HTTP/1.1 400 ")
            assert b"text/plain" in reply


def test_tls_is_trusted_by_the_bundle_and_by_nothing_else(door: Door) -> None:
    address = ("127.0.0.1", door.listening.tls_port)
    trusting = ssl.create_default_context(cafile=str(door.certificates.bundle))
    for name in ("localhost", "127.0.0.1", "sts.amazonaws.com", "sts.eu-west-1.amazonaws.com"):
        with (
            socket.create_connection(address, 30) as plain,
            trusting.wrap_socket(plain, server_hostname=name),
        ):
            pass
    with (
        socket.create_connection(address, 30) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
        trusting.wrap_socket(plain, server_hostname="example.com"),
    ):
        pass
    with (
        socket.create_connection(address, 30) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost"),
    ):
        pass


def test_a_port_can_be_taken_again_at_once(tmp_path: Path) -> None:
    async def twice() -> None:
        shelf = Shelf()
        app = Door(shelf, Certificates(tmp_path, tmp_path, tmp_path)).app()
        async with serve(app, "127.0.0.1", 0) as first:
            reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
            writer.write(b"GET /.clary/health HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {first.port}"):
                async with serve(app, "127.0.0.1", first.port):
                    pass
        async with serve(app, "127.0.0.1", first.port) as second:
            assert second.port == first.port
            assert second.tls_port == 0
        writer.close()

    asyncio.run(twice())


def test_more_requests_than_can_be_served_are_sent_away(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "MAX_REQUESTS_IN_FLIGHT", 0)
    with pytest.raises(ClientError) as caught:
        door.client("s3").list_buckets()
    assert code_of(caught) == ("SlowDown", 503)
    with pytest.raises(ClientError) as caught:
        door.client("logs").describe_log_groups()
    assert code_of(caught)[1] == 503


def ask(
    app: FrontDoor, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes
) -> Any:
    """One request at the application itself: anything can be sent that HTTP would not let through."""
    messages: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 1),
        "scheme": "http",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(app(scope, receive, send))
    assert messages[0]["type"] == "http.response.start"
    head = {name.decode(): value.decode("latin-1") for name, value in messages[0]["headers"]}
    return messages[0]["status"], head, b"".join(m.get("body", b"") for m in messages[1:])


TEXT = st.text(st.characters(max_codepoint=255), max_size=60)
SERVICE = st.sampled_from(["s3", "logs", "sts", "monitoring", "sagemaker", "iam", "kms", "nonsense"])


@pytest.fixture(scope="module")
def unverified(tmp_path_factory: pytest.TempPathFactory) -> FrontDoor:
    """A door that takes everybody, so that what is random reaches the codecs."""
    shelf = Shelf()
    handlers = {name: handler for name, handler in shelf.handlers().items() if name[1] != "delete_log_group"}
    return FrontDoor(
        models=ServiceModels(),
        authenticator=Authenticator(
            OneKey(), SystemClock(), default_account="1" * 12, default_region="r", verify=False
        ),
        handlers=handlers,
    )


QUERIES = ["delete", "uploads", "list-type=2", "Action=GetCallerIdentity&Version=2011-06-15"]
HEADER_NAMES = [
    "content-type",
    "x-amz-target",
    "x-amz-content-sha256",
    "content-encoding",
    "x-amz-trailer",
    "host",
    "content-md5",
    "x-amz-decoded-content-length",
    "smithy-protocol",
    "range",
    "expect",
]
HEADER_VALUES = [
    "Logs_20140328.DescribeLogGroups",
    "GraniteServiceVersion20100801.PutMetricData",
    "gzip",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "rpc-v2-cbor",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
]
BODIES = [
    b"{}",
    b"[]",
    b"null",
    b'{"a":',
    b"<Delete/>",
    b"0\r\n\r\n",
    b"Action=GetCallerIdentity",
    b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--',
]
KINDS = {"application/json", "application/xml", "text/xml", "application/cbor"}
KINDS |= {"application/x-amz-json-1.0", "application/x-amz-json-1.1"}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"]),
    TEXT,
    TEXT | st.sampled_from(QUERIES),
    SERVICE,
    st.dictionaries(st.sampled_from(HEADER_NAMES), TEXT | st.sampled_from(HEADER_VALUES)),
    st.binary(max_size=200) | st.sampled_from(BODIES),
)
def test_random_requests_get_modelled_replies_and_no_internal_error(
    unverified: FrontDoor,
    method: str,
    path: str,
    query: str,
    service: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    claim = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/r/{service}/aws4_request, Signature=0"
    sent = [("host", "127.0.0.1"), ("authorization", claim), *headers.items()]
    status, head, content = ask(unverified, method, "/" + path, query, sent, body)
    assert status != 500, content
    assert any(name in head for name in REQUEST_ID)
    assert not content.lstrip().lower().startswith((b"<html", b"<!doctype"))
    if status >= 400 and content:
        assert head["content-type"].split(";")[0] in KINDS
