"""S3 as boto3 sees it: real clients, real sockets with and without TLS, the embedded object store."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import datetime
import hashlib
import io
import json
import random
import socket
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from awscrt import checksums as crt
from boto3.s3.transfer import TransferConfig
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from clary.clock import SystemClock
from clary.objects.filesystem.store import FilesystemObjectStore
from clary.protocol.certificate_authority import ensure_certificates
from clary.protocol.front_door import FrontDoor, Handler
from clary.protocol.listeners import serve
from clary.protocol.models import ServiceModels
from clary.protocol.signature import Authenticator
from clary.protocol.wire import Call, ReplyMembers
from clary.services.operation import Backends, RequestContext, load_operations
from clary.services.operation import Handler as Operation
from clary.services.sts.key_ring import ServerKeyRing
from clary.services.sts.secret_files import RootCredentials
from clary.store.memory import MemoryStore

ACCOUNT, STRANGER, REGION = "123456789012", "210987654321", "us-east-1"
ROOT = RootCredentials(ACCOUNT, "AKIAROOTROOTROOTROOT", "secret/of+the/root")
MEBIBYTE = 1024 * 1024
STRANGE_KEYS = [
    "../x",
    "a",
    "a/b",
    "a//b",
    "//",
    "dir/",
    "./.",
    "with space + plus % percent & ? # = ; , : @",
    "%2F%00",
    "quote'\"<&>",
    "é/😀",
    "x" * 1024,
    "é" * 512,
]
DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


@dataclass(frozen=True)
class Server:
    """Where the server under test listens, and whom its clients trust."""

    http: str
    https: str
    bundle: Path

    def client(
        self,
        *,
        tls: bool = False,
        access_key_id: str = ROOT.access_key_id,
        secret: str = ROOT.secret_access_key,
        region: str = REGION,
        **config: Any,
    ) -> Any:
        return boto3.session.Session(access_key_id, secret, region_name=region).client(
            "s3",
            endpoint_url=self.https if tls else self.http,
            verify=str(self.bundle),
            config=Config(retries={"total_max_attempts": 1}, **config),
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A front door with S3 behind it, in a thread of its own."""
    folder = tmp_path_factory.mktemp("s3")
    ready: concurrent.futures.Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]]
    ready = concurrent.futures.Future()

    async def run() -> None:
        clock = SystemClock()
        certificates = ensure_certificates(folder / "tls", ["127.0.0.1"], clock.now())
        store, objects = MemoryStore(clock), FilesystemObjectStore(folder / "objects", clock)
        nothing = cast(Any, None)  # S3's operations touch neither logs nor metrics nor the driver
        backends = Backends(
            store=store,
            objects=objects,
            logs=nothing,
            metrics=nothing,
            driver=nothing,
            clock=clock,
            secret=b"s" * 32,
            endpoint_url="http://127.0.0.1:8750",
            queues=nothing,
            events=nothing,
        )
        key_ring = ServerKeyRing(ROOT, backends.secret, store, account_from_access_key=True)

        def bound(operation: Operation) -> Handler:
            async def handle(call: Call) -> ReplyMembers:
                return await operation(RequestContext(backends, call), call.members)

            return handle

        door = FrontDoor(
            models=ServiceModels(),
            authenticator=Authenticator(key_ring, clock, default_account=ACCOUNT, default_region=REGION),
            handlers={name: bound(each) for name, each in load_operations().items() if name[0] == "s3"},
            own_names=["127.0.0.1"],
        )
        end = asyncio.Event()
        async with serve(door, "127.0.0.1", 0, certificate=certificates.server) as listening:
            made = Server(
                f"http://127.0.0.1:{listening.port}",
                f"https://127.0.0.1:{listening.tls_port}",
                certificates.bundle,
            )
            ready.set_result((made, asyncio.get_running_loop(), end))
            await end.wait()
        await objects.close()

    def run_in_thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 (the test must hear of it)
            if not ready.done():
                ready.set_exception(error)

    thread = threading.Thread(target=run_in_thread)
    thread.start()
    made, loop, end = ready.result(60)
    yield made
    loop.call_soon_threadsafe(end.set)
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def s3(server: Server) -> Any:
    return server.client()


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    s3.create_bucket(Bucket=f"test-{digest}")
    return f"test-{digest}"


@contextlib.contextmanager
def refused(code: str, status: int) -> Iterator[dict[str, Any]]:
    """The call within is refused; what the client read of it is filled in."""
    error: dict[str, Any] = {}
    with pytest.raises(ClientError) as caught:
        yield error
    error |= caught.value.response
    assert error["Error"]["Code"] == code, error
    assert error["ResponseMetadata"]["HTTPStatusCode"] == status


def fetch(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of a plain HTTP request."""
    asked = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


# -- Buckets -----------------------------------------------------------------------------------------------


def test_buckets_are_made_found_listed_and_deleted(s3: Any) -> None:
    s3.create_bucket(Bucket="a-bucket")
    s3.create_bucket(Bucket="in-ireland", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    listed = {each["Name"]: each for each in s3.list_buckets()["Buckets"]}
    assert {"a-bucket", "in-ireland"} <= set(listed)
    assert isinstance(listed["a-bucket"]["CreationDate"], datetime.datetime)
    assert s3.head_bucket(Bucket="in-ireland")["BucketRegion"] == "eu-west-1"
    assert s3.get_bucket_location(Bucket="in-ireland")["LocationConstraint"] == "eu-west-1"
    assert s3.get_bucket_location(Bucket="a-bucket").get("LocationConstraint") is None
    for name in ("a-bucket", "in-ireland"):
        s3.delete_bucket(Bucket=name)
    with refused("404", 404):
        s3.head_bucket(Bucket="a-bucket")


def test_pages_of_buckets_lose_none(s3: Any) -> None:
    names = [f"paged-{number}" for number in range(5)]
    for name in names:
        s3.create_bucket(Bucket=name)
    pages = s3.get_paginator("list_buckets").paginate(Prefix="paged-", PaginationConfig={"PageSize": 2})
    assert [[each["Name"] for each in page["Buckets"]] for page in pages] == [
        names[:2],
        names[2:4],
        names[4:],
    ]


def test_a_missing_bucket_has_s3_s_words(s3: Any) -> None:
    """A HEAD has no body, so its error is the status; the SDKs look at these texts."""
    with refused("404", 404) as error:
        s3.head_bucket(Bucket="there-is-none")
    assert error["Error"]["Message"] == "Not Found"
    for call in (
        lambda: s3.list_objects_v2(Bucket="there-is-none"),
        lambda: s3.put_object(Bucket="there-is-none", Key="k", Body=b"x"),
        lambda: s3.get_object(Bucket="there-is-none", Key="k"),
        lambda: s3.delete_bucket(Bucket="there-is-none"),
    ):
        with refused("NoSuchBucket", 404) as error:
            call()
        assert error["Error"]["Message"] == "The specified bucket does not exist"
        assert error["Error"]["BucketName"] == "there-is-none"


def test_a_bucket_of_somebody_else_is_closed(server: Server, s3: Any, bucket: str) -> None:
    with refused("BucketAlreadyOwnedByYou", 409):
        s3.create_bucket(Bucket=bucket)
    stranger = server.client(access_key_id=STRANGER, secret="any")
    with refused("BucketAlreadyExists", 409):
        stranger.create_bucket(Bucket=bucket)
    with refused("AccessDenied", 403):
        stranger.list_objects_v2(Bucket=bucket)
    with refused("403", 403):
        stranger.head_bucket(Bucket=bucket)
    with refused("403", 403):
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=STRANGER)


def test_a_bucket_that_is_not_empty_stays(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)


def test_a_region_must_be_said_outside_of_us_east_1(server: Server) -> None:
    ireland = server.client(region="eu-west-1")
    with refused("IllegalLocationConstraintException", 400):
        ireland.create_bucket(Bucket="nowhere")
    with refused("IllegalLocationConstraintException", 400):
        ireland.create_bucket(
            Bucket="nowhere", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )


def test_settings_of_a_bucket_are_given_back(s3: Any, bucket: str) -> None:
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=bucket)
    with refused("NoSuchCORSConfiguration", 404):
        s3.get_bucket_cors(Bucket=bucket)
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)
    with refused("MalformedPolicy", 400):
        s3.put_bucket_policy(Bucket=bucket, Policy="{")
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == policy
    rules = [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"], "MaxAgeSeconds": 5}]
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    tags = [{"Key": "team", "Value": "a&b"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)


# -- Objects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("size", [0, 1, 100_000, 3 * MEBIBYTE + 1])
def test_what_was_put_is_got(server: Server, bucket: str, tls: bool, size: int) -> None:
    s3 = server.client(tls=tls)
    data = random.Random(size).randbytes(size)
    made = s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=data,
        ContentType="text/csv",
        CacheControl="no-store",
        ContentDisposition="attachment",
        ContentLanguage="de",
        Metadata={"Colour": "blue", "empty": ""},
        Tagging="team=a%20b&x=1",
    )
    etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    assert made["ETag"] == etag
    for found in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert (found["ContentLength"], found["ETag"]) == (size, etag)
        assert found["ContentType"] == "text/csv"
        assert (found["CacheControl"], found["ContentDisposition"]) == ("no-store", "attachment")
        assert (found["ContentLanguage"], found["AcceptRanges"]) == ("de", "bytes")
        assert found["Metadata"] == {"colour": "blue", "empty": ""}
        assert found.get("TagCount", 2) == 2
        assert "ContentEncoding" not in found
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data


def test_a_body_that_can_be_read_but_once_is_stored(server: Server, bucket: str) -> None:
    s3 = server.client(tls=True)
    data = b"z" * 300_000
    s3.upload_fileobj(io.BytesIO(data), bucket, "k", ExtraArgs={"ContentEncoding": "gzip"})
    found = s3.head_object(Bucket=bucket, Key="k")
    assert (found["ContentLength"], found["ContentEncoding"]) == (300_000, "gzip")


def test_ranges_answer_206_with_their_bytes(s3: Any, bucket: str) -> None:
    data = random.Random(2).randbytes(2 * MEBIBYTE + 5)
    size = len(data)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    for asked, first, last in [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=1048570-1048585", 1048570, 1048585),
        (f"bytes={size - 3}-", size - 3, size - 1),
        ("bytes=-7", size - 7, size - 1),
        (f"bytes=5-{size * 2}", 5, size - 1),
        (f"bytes=-{size * 2}", 0, size - 1),
    ]:
        found = s3.get_object(Bucket=bucket, Key="k", Range=asked)
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert found["ContentRange"] == f"bytes {first}-{last}/{size}"
        assert found["ContentLength"] == last - first + 1
        assert found["Body"].read() == data[first : last + 1]
        head = s3.head_object(Bucket=bucket, Key="k", Range=asked)
        assert head["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert head["ContentLength"] == last - first + 1
    whole = s3.get_object(Bucket=bucket, Key="k", Range="lines=1-2")
    assert whole["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert whole["Body"].read() == data
    with refused("InvalidRange", 416):
        s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={size}-")
    with refused("416", 416):
        s3.head_object(Bucket=bucket, Key="k", Range=f"bytes={size}-")
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    with refused("InvalidRange", 416):
        s3.get_object(Bucket=bucket, Key="empty", Range="bytes=0-")
    assert s3.get_object(Bucket=bucket, Key="empty", PartNumber=1)["ContentLength"] == 0


def test_conditions_of_a_read(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    hour = datetime.timedelta(hours=1)
    for conditions in (
        {"IfMatch": etag},
        {"IfNoneMatch": '"other"'},
        {"IfModifiedSince": modified - hour},
        {"IfUnmodifiedSince": modified},
        {"IfMatch": etag, "IfUnmodifiedSince": modified - hour},
    ):
        assert s3.get_object(Bucket=bucket, Key="k", **conditions)["Body"].read() == b"x"
    for conditions in ({"IfMatch": '"other"'}, {"IfUnmodifiedSince": modified - hour}):
        with refused("PreconditionFailed", 412):
            s3.get_object(Bucket=bucket, Key="k", **conditions)
        with refused("412", 412):
            s3.head_object(Bucket=bucket, Key="k", **conditions)
    for conditions in (
        {"IfNoneMatch": etag},
        {"IfModifiedSince": modified},
        {"IfNoneMatch": etag, "IfModifiedSince": modified - hour},
    ):
        with refused("304", 304):
            s3.get_object(Bucket=bucket, Key="k", **conditions)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"  # the connection is still good


def test_conditions_of_a_write(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch='"other"')
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="none", Body=b"2", IfMatch=etag)
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"


def test_a_missing_key_has_s3_s_words(s3: Any, bucket: str) -> None:
    with refused("NoSuchKey", 404) as error:
        s3.get_object(Bucket=bucket, Key="none/é")
    assert error["Error"]["Message"] == "The specified key does not exist."
    assert error["Error"]["Key"] == "none/é"
    with refused("404", 404) as error:
        s3.head_object(Bucket=bucket, Key="none")
    assert error["Error"]["Message"] == "Not Found"
    assert s3.delete_object(Bucket=bucket, Key="none")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_headers_of_a_reply_may_be_chosen(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="a/b")
    found = s3.get_object(
        Bucket=bucket, Key="k", ResponseContentType="text/plain", ResponseContentDisposition="inline"
    )
    assert (found["ContentType"], found["ContentDisposition"]) == ("text/plain", "inline")


@pytest.mark.parametrize("key", STRANGE_KEYS, ids=range(len(STRANGE_KEYS)))
def test_a_strange_key_goes_through(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    assert s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"] == 1
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key})
    assert fetch(url) == (200, key.encode())
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == key.encode()
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}, {"Key": "copy"}]})
    assert [each["Key"] for each in answer["Deleted"]] == [key, "copy"]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_key_that_is_too_long_is_refused(s3: Any, bucket: str) -> None:
    with refused("KeyTooLongError", 400):
        s3.put_object(Bucket=bucket, Key="x" * 1025, Body=b"")


def test_copies_keep_or_replace(s3: Any, bucket: str) -> None:
    made = s3.put_object(
        Bucket=bucket, Key="k", Body=b"data", ContentType="a/b", Metadata={"m": "1"}, Tagging="t=1"
    )
    source = {"Bucket": bucket, "Key": "k"}
    copied = s3.copy_object(Bucket=bucket, Key="same", CopySource=source)
    assert copied["CopyObjectResult"]["ETag"] == made["ETag"]
    found = s3.head_object(Bucket=bucket, Key="same")
    assert (found["ContentType"], found["Metadata"]) == ("a/b", {"m": "1"})
    assert s3.get_object_tagging(Bucket=bucket, Key="same")["TagSet"] == [{"Key": "t", "Value": "1"}]
    s3.copy_object(
        Bucket=bucket,
        Key="other",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"n": "2"},
        ContentType="c/d",
    )
    found = s3.head_object(Bucket=bucket, Key="other")
    assert (found["ContentType"], found["Metadata"]) == ("c/d", {"n": "2"})
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=bucket, Key="k", CopySource=source)
    with refused("PreconditionFailed", 412):
        s3.copy_object(Bucket=bucket, Key="x", CopySource=source, CopySourceIfMatch='"other"')
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "none"})
    with refused("NoSuchBucket", 404):
        s3.copy_object(Bucket=bucket, Key="x", CopySource={"Bucket": "there-is-none", "Key": "k"})


def test_tags_of_objects(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b&", "Value": ""}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    many = [{"Key": f"k{number}", "Value": "v"} for number in range(11)]
    with refused("BadRequest", 400):
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": many})
    with refused("InvalidTag", 400):
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [tags[0], tags[0]]})


def test_many_objects_are_deleted_at_once(s3: Any, bucket: str) -> None:
    names = [f"k{number}" for number in range(30)]
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=b"")
    asked = [{"Key": name} for name in [*names, "none"]]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": asked})
    assert [each["Key"] for each in answer["Deleted"]] == [*names, "none"]
    assert "Errors" not in answer
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert "Deleted" not in s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "k"}], "Quiet": True}
    )
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"{n}"} for n in range(1001)]})


def test_attributes_of_an_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"data", ChecksumAlgorithm="SHA256")
    found = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["ETag", "ObjectSize", "Checksum", "StorageClass"]
    )
    assert (found["ObjectSize"], found["StorageClass"]) == (4, "STANDARD")
    assert found["ETag"] == hashlib.md5(b"data", usedforsecurity=False).hexdigest()
    assert found["Checksum"]["ChecksumSHA256"] == base64.b64encode(DIGESTS["SHA256"](b"data")).decode()


def test_a_reader_of_an_object_that_changes_gets_one_version(s3: Any, bucket: str, server: Server) -> None:
    versions = [bytes([65 + number]) * (400_000 + number * 50_000) for number in range(4)]
    s3.put_object(Bucket=bucket, Key="k", Body=versions[0])
    end = threading.Event()

    def write() -> None:
        client, number = server.client(), 0
        while not end.is_set():
            number += 1
            client.put_object(Bucket=bucket, Key="k", Body=versions[number % 4])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            found = s3.get_object(Bucket=bucket, Key="k")
            data = found["Body"].read()
            assert data in versions
            assert found["ContentLength"] == len(data)
            assert found["ETag"] == f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    finally:
        end.set()
        writer.join()


# -- Listings ----------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(s3: Any, bucket: str) -> str:
    for key in ("a", "a/1", "a/2", "a/b/3", "b & c/x", "é/1", "line\nend", "z"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    return bucket


@pytest.mark.parametrize("name", ["list_objects_v2", "list_objects"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_listings_fold_and_page(s3: Any, shelf: str, name: str, size: int) -> None:
    def listed(**options: Any) -> tuple[list[str], list[str]]:
        keys, prefixes = [], []
        pages = s3.get_paginator(name).paginate(Bucket=shelf, PaginationConfig={"PageSize": size}, **options)
        for page in pages:
            keys += [each["Key"] for each in page.get("Contents", [])]
            prefixes += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
        return keys, prefixes

    assert listed() == (["a", "a/1", "a/2", "a/b/3", "b & c/x", "line\nend", "z", "é/1"], [])
    assert listed(Delimiter="/") == (["a", "line\nend", "z"], ["a/", "b & c/", "é/"])
    assert listed(Prefix="a/", Delimiter="/") == (["a/1", "a/2"], ["a/b/"])
    assert listed(Prefix="none") == ([], [])


def test_a_listing_says_what_it_was_asked(s3: Any, shelf: str) -> None:
    page = s3.list_objects_v2(Bucket=shelf, Prefix="a", MaxKeys=2, StartAfter="a", FetchOwner=True)
    assert (page["Name"], page["Prefix"], page["MaxKeys"], page["KeyCount"]) == (shelf, "a", 2, 2)
    assert (page["StartAfter"], page["IsTruncated"]) == ("a", True)
    first = page["Contents"][0]
    assert (first["Key"], first["Size"], first["StorageClass"]) == ("a/1", 1, "STANDARD")
    assert first["Owner"]["ID"] == ACCOUNT
    rest = s3.list_objects_v2(Bucket=shelf, Prefix="a", ContinuationToken=page["NextContinuationToken"])
    assert [each["Key"] for each in rest["Contents"]] == ["a/b/3"]
    none = s3.list_objects_v2(Bucket=shelf, MaxKeys=0)
    assert (none["KeyCount"], none["IsTruncated"]) == (0, False)
    for token in ("%%%", "é", "AAA", "/////w=="):
        with refused("InvalidArgument", 400):
            s3.list_objects_v2(Bucket=shelf, ContinuationToken=token)
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=shelf, MaxKeys=-1)


def test_every_object_has_one_version(s3: Any, shelf: str) -> None:
    found = s3.list_object_versions(Bucket=shelf, Prefix="a/")
    assert [(each["Key"], each["VersionId"], each["IsLatest"]) for each in found["Versions"]] == [
        (key, "null", True) for key in ("a/1", "a/2", "a/b/3")
    ]


# -- Checksums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("algorithm", DIGESTS)
def test_a_checksum_travels_both_ways(server: Server, bucket: str, algorithm: str, tls: bool) -> None:
    s3 = server.client(tls=tls)
    data = random.Random(5).randbytes(200_000)
    expected = base64.b64encode(DIGESTS[algorithm](data)).decode()
    made = s3.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(data), ChecksumAlgorithm=algorithm)
    assert made[f"Checksum{algorithm}"] == expected
    found = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (found[f"Checksum{algorithm}"], found["ChecksumType"]) == (expected, "FULL_OBJECT")
    assert found["Body"].read() == data
    assert "ContentEncoding" not in found
    promised = {f"Checksum{algorithm}": expected}
    assert s3.put_object(Bucket=bucket, Key="k", Body=data, **promised)[f"Checksum{algorithm}"] == expected
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"other", **promised)
    with refused("InvalidRequest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"other", **{f"Checksum{algorithm}": "abc"})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data


def test_a_wrong_content_md5_is_refused(s3: Any, bucket: str) -> None:
    with refused("BadDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5=base64.b64encode(b"1" * 16).decode())
    with refused("InvalidDigest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5="abc")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


# -- Multipart uploads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_large_file_goes_up_in_parts_and_down_in_ranges(
    server: Server, bucket: str, tls: bool, tmp_path: Path
) -> None:
    s3 = server.client(tls=tls)
    data = random.Random(6).randbytes(17 * MEBIBYTE + 3)
    (tmp_path / "up").write_bytes(data)
    config = TransferConfig(multipart_threshold=5 * MEBIBYTE, multipart_chunksize=5 * MEBIBYTE)
    s3.upload_file(str(tmp_path / "up"), bucket, "k", Config=config, ExtraArgs={"Metadata": {"m": "1"}})
    found = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert found["ETag"].endswith('-4"')
    assert (found["ContentLength"], found["Metadata"]) == (len(data), {"m": "1"})
    s3.download_file(bucket, "k", str(tmp_path / "down"), Config=config)
    assert (tmp_path / "down").read_bytes() == data
    part = s3.get_object(Bucket=bucket, Key="k", PartNumber=2)
    assert (part["PartsCount"], part["ContentLength"]) == (4, 5 * MEBIBYTE)
    assert part["ContentRange"] == f"bytes {5 * MEBIBYTE}-{10 * MEBIBYTE - 1}/{len(data)}"
    assert part["Body"].read() == data[5 * MEBIBYTE : 10 * MEBIBYTE]
    s3.copy({"Bucket": bucket, "Key": "k"}, bucket, "copied", Config=config)
    assert s3.get_object(Bucket=bucket, Key="copied")["Body"].read() == data


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_parts_with_checksums_make_an_object_with_one(s3: Any, bucket: str, algorithm: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm)
    assert upload["ChecksumAlgorithm"] == algorithm
    names = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"]}
    data = [b"a" * (5 * MEBIBYTE), b"b"]
    parts = []
    for number, each in enumerate(data, 1):
        made = s3.upload_part(**names, PartNumber=number, Body=each, ChecksumAlgorithm=algorithm)
        member = f"Checksum{algorithm}"
        assert made[member] == base64.b64encode(DIGESTS[algorithm](each)).decode()
        parts.append({"PartNumber": number, "ETag": made["ETag"], member: made[member]})
    assert [each["PartNumber"] for each in s3.list_parts(**names)["Parts"]] == [1, 2]
    wrong = {**parts[1], f"Checksum{algorithm}": parts[0][f"Checksum{algorithm}"]}
    with refused("InvalidPart", 400):
        s3.complete_multipart_upload(**names, MultipartUpload={"Parts": [parts[0], wrong]})
    made = s3.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
    if algorithm == "CRC64NVME":
        expected = base64.b64encode(DIGESTS[algorithm](b"".join(data))).decode()
    else:
        joined = b"".join(DIGESTS[algorithm](each) for each in data)
        expected = base64.b64encode(DIGESTS[algorithm](joined)).decode() + "-2"
    assert made[f"Checksum{algorithm}"] == expected
    found = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert found[f"Checksum{algorithm}"] == expected
    assert found["ChecksumType"] == ("FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE")


def test_a_full_object_checksum_is_made_where_it_was_asked_for(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(
        Bucket=bucket, Key="k", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
    )
    assert upload["ChecksumType"] == "FULL_OBJECT"
    names = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"]}
    part = s3.upload_part(**names, PartNumber=1, Body=b"data")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    made = s3.complete_multipart_upload(**names, MultipartUpload=parts)
    assert made["ChecksumCRC32"] == base64.b64encode(DIGESTS["CRC32"](b"data")).decode()
    assert made["ChecksumType"] == "FULL_OBJECT"
    for algorithm, wrong in (("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")):
        with refused("InvalidRequest", 400):
            s3.create_multipart_upload(
                Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=wrong
            )


def test_what_is_wrong_with_an_upload_is_said(s3: Any, bucket: str) -> None:
    names = {"Bucket": bucket, "Key": "k"}
    names["UploadId"] = s3.create_multipart_upload(**names)["UploadId"]
    one = s3.upload_part(**names, PartNumber=1, Body=b"1")["ETag"]
    two = s3.upload_part(**names, PartNumber=2, Body=b"2")["ETag"]

    def complete(*parts: tuple[int, str]) -> Any:
        named = [{"PartNumber": number, "ETag": etag} for number, etag in parts]
        return s3.complete_multipart_upload(**names, MultipartUpload={"Parts": named})

    with refused("InvalidPart", 400):
        complete((1, two))
    with refused("InvalidPartOrder", 400):
        complete((2, two), (1, one))
    with refused("EntityTooSmall", 400):
        complete((1, one), (2, two))
    with refused("MalformedXML", 400):
        complete()
    with refused("InvalidArgument", 400):
        s3.upload_part(**names, PartNumber=10_001, Body=b"x")
    assert complete((2, two))["Location"].endswith(f"/{bucket}/k")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"
    with refused("NoSuchUpload", 404):
        s3.upload_part(**names, PartNumber=1, Body=b"x")
    other = {"Bucket": bucket, "Key": "k", "UploadId": "nonsense"}
    for call in (s3.list_parts, s3.abort_multipart_upload):
        with refused("NoSuchUpload", 404):
            call(**other)


def test_uploads_are_listed_until_they_end(s3: Any, bucket: str) -> None:
    ids = {key: s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"] for key in ("a", "b", "c é")}
    pages = s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 1}
    )
    seen = {each["Key"]: each["UploadId"] for page in pages for each in page.get("Uploads", [])}
    assert seen == ids
    s3.abort_multipart_upload(Bucket=bucket, Key="a", UploadId=ids["a"])
    assert len(s3.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 2


def test_a_part_may_be_a_range_of_another_object(s3: Any, bucket: str) -> None:
    data = random.Random(8).randbytes(6 * MEBIBYTE)
    s3.put_object(Bucket=bucket, Key="source", Body=data)
    names = {"Bucket": bucket, "Key": "k"}
    names["UploadId"] = s3.create_multipart_upload(**names)["UploadId"]
    source = {"Bucket": bucket, "Key": "source"}
    parts = []
    for number, asked in enumerate([f"bytes=0-{5 * MEBIBYTE - 1}", "bytes=10-19"], 1):
        made = s3.upload_part_copy(**names, PartNumber=number, CopySource=source, CopySourceRange=asked)
        parts.append({"PartNumber": number, "ETag": made["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == data[: 5 * MEBIBYTE] + data[10:20]
    names["UploadId"] = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for wrong in (f"bytes=0-{len(data)}", "bytes=5-", "5-6"):
        with refused("InvalidArgument", 400):
            s3.upload_part_copy(**names, PartNumber=1, CopySource=source, CopySourceRange=wrong)


# -- Who may -----------------------------------------------------------------------------------------------


def test_strangers_are_refused(server: Server, bucket: str) -> None:
    with refused("SignatureDoesNotMatch", 403):
        server.client(secret="wrong").list_objects_v2(Bucket=bucket)
    with refused("InvalidAccessKeyId", 403):
        server.client(access_key_id="AKIAUNKNOWNUNKNOWNUN").list_objects_v2(Bucket=bucket)
    status, body = fetch(f"{server.http}/{bucket}/k")
    assert status == 403
    assert b"<Code>AccessDenied</Code>" in body


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls_get_and_put(server: Server, bucket: str, version: str) -> None:
    s3 = server.client(signature_version=version)
    names = {"Bucket": bucket, "Key": "a b/é"}
    put = s3.generate_presigned_url("put_object", {**names, "ContentType": "text/plain"}, ExpiresIn=60)
    assert fetch(put, "PUT", b"data", **{"Content-Type": "text/plain"})[0] == 200
    get = s3.generate_presigned_url("get_object", names, ExpiresIn=60)
    assert fetch(get) == (200, b"data")
    assert fetch(get, Range="bytes=1-2") == (206, b"at")
    assert server.client().head_object(**names)["ContentType"] == "text/plain"
    status, body = fetch(get.replace("a%20b", "other"))
    assert (status, b"<Code>SignatureDoesNotMatch</Code>" in body) == (403, True)
    past = s3.generate_presigned_url("get_object", names, ExpiresIn=1)
    time.sleep(2.1)
    status, body = fetch(past)
    assert (status, b"Request has expired" in body) == (403, True)


def post(
    url: str, fields: dict[str, str], data: bytes, file_name: str = "f.txt"
) -> tuple[int, dict[str, str], bytes]:
    """What a browser sends for a form with a file."""
    boundary = "----boundary7MA4YWxk"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
    )
    parts += [data, f"\r\n--{boundary}--\r\n".encode()]
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    response = URLLib3Session().send(AWSPreparedRequest("POST", url, headers, b"".join(parts), False))
    return response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_form_uploads_what_its_policy_allows(server: Server, bucket: str, version: str) -> None:
    s3, signer = server.client(), server.client(signature_version=version)
    data = b"\r\n--" + random.Random(4).randbytes(2 * MEBIBYTE) + b"\r\n------boundary"

    def form(**more: Any) -> tuple[str, dict[str, str]]:
        made = signer.generate_presigned_post(
            bucket,
            "up/${filename}",
            Fields={"Content-Type": "text/csv", "x-amz-meta-colour": "blue", **more.get("fields", {})},
            Conditions=[
                {"Content-Type": "text/csv"},
                ["starts-with", "$x-amz-meta-colour", "b"],
                ["content-length-range", 2, len(data)],
                *more.get("conditions", []),
            ],
            ExpiresIn=more.get("expires", 60),
        )
        return made["url"], made["fields"]

    url, fields = form()
    status, headers, _ = post(url, fields, data, "a b.csv")
    assert status == 204
    found = s3.get_object(Bucket=bucket, Key="up/a b.csv")
    assert found["Body"].read() == data
    assert (found["ContentType"], found["Metadata"]) == ("text/csv", {"colour": "blue"})
    assert headers["etag"] == found["ETag"]
    told = {"success_action_status": "201"}
    url, more = form(fields=told, conditions=[told])
    status, _, body = post(url, more, b"12")
    assert status == 201
    assert b"<Key>up/f.txt</Key>" in body
    wrong: list[tuple[dict[str, str], bytes, int, bytes]] = [
        ({**fields, "x-amz-meta-colour": "red"}, b"12", 403, b"AccessDenied"),
        ({**fields, "Content-Type": "text/html"}, b"12", 403, b"AccessDenied"),
        ({**fields, "x-amz-meta-extra": "1"}, b"12", 403, b"AccessDenied"),
        ({**fields, "key": "elsewhere"}, b"12", 403, b"AccessDenied"),
        ({**fields, "policy": fields["policy"][:-8] + "AAAAAAA="}, b"12", 403, b"SignatureDoesNotMatch"),
        (fields, b"1", 400, b"EntityTooSmall"),
        (fields, data + b"1", 400, b"EntityTooLarge"),
        ({}, b"12", 403, b"AccessDenied"),
    ]
    for sent, content, expected, code in wrong:
        status, _, body = post(url, sent, content, "wrong")
        assert (status, code in body) == (expected, True), body
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="up/wrong")
    url, fields = form(expires=-5)
    status, _, body = post(url, fields, b"12")
    assert (status, b"Policy expired" in body) == (403, True)


# -- What clients should not send --------------------------------------------------------------------------


def talk(server: Server, head: str, content: bytes = b"", *, hang_up: bool = False) -> bytes:
    """Say something over a bare socket; what comes back until the other end closes."""
    host, _, port = server.http.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + content)
        if hang_up:
            return b""
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def presigned(server: Server, name: str, **members: Any) -> str:
    """Path and query of a presigned URL."""
    url: str = server.client(signature_version="s3v4").generate_presigned_url(name, members)
    return url.removeprefix(server.http)


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(server: Server, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    for key in ("k", "n"):
        path = presigned(server, "put_object", Bucket=bucket, Key=key)
        head = f"PUT {path} HTTP/1.1\nHost: {server.http[7:]}\nContent-Length: 3000000\n\n"
        talk(server, head, b"x" * 1_500_000, hang_up=True)
    # The server may hear of it only after these calls: whenever it does, nothing changes.
    for _ in range(10):
        assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
        time.sleep(0.05)


def test_a_bucket_may_be_named_by_the_host(server: Server, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b", Body=b"data")
    port = server.http.rpartition(":")[2]
    named = boto3.session.Session(ROOT.access_key_id, ROOT.secret_access_key, region_name=REGION).client(
        "s3",
        endpoint_url=f"http://localhost:{port}",
        config=Config(s3={"addressing_style": "virtual"}, signature_version="s3v4"),
    )
    url = named.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b"})
    host, _, path = url.removeprefix("http://").partition("/")
    assert host == f"{bucket}.localhost:{port}"
    answer = talk(server, f"GET /{path} HTTP/1.1\nHost: {host}\nConnection: close\n\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\ndata")


DOCUMENTS = [b"<Delete", b"<Other/>", b"", b"\xff\xfe", b'<!DOCTYPE a [<!ENTITY b "c">]><Delete>&b;</Delete>']


@pytest.mark.parametrize("content", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_documents_that_cannot_be_read_are_refused(s3: Any, bucket: str, content: bytes) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.meta.events.register(
        "before-call.s3.DeleteObjects", lambda params, **_: params.__setitem__("body", content)
    )
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_what_clary_does_not_offer_is_named(s3: Any, bucket: str) -> None:
    with refused("NotImplemented", 501):
        s3.get_bucket_website(Bucket=bucket)
    with refused("NotImplemented", 501):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def test_metadata_has_a_limit(s3: Any, bucket: str) -> None:
    with refused("MetadataTooLarge", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"", Metadata={"m": "x" * 2048})


def test_a_version_that_cannot_be_is_refused(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"x"
    with refused("InvalidArgument", 400):
        s3.get_object(Bucket=bucket, Key="k", VersionId="other")
    with refused("InvalidArgument", 400):
        s3.copy_object(
            Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "k", "VersionId": "other"}
        )
    with refused("InvalidArgument", 400):
        s3.copy_object(Bucket=bucket, Key="c", CopySource="no-key")
    for number in (0, 2):
        with refused("InvalidPartNumber" if number else "InvalidArgument", 416 if number else 400):
            s3.get_object(Bucket=bucket, Key="k", PartNumber=number)


def test_deleting_a_version_that_cannot_be_deletes_nothing(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused("InvalidArgument", 400):
        s3.delete_object(Bucket=bucket, Key="k", VersionId="other")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": "other"}]})
    assert [each["Code"] for each in answer["Errors"]] == ["NoSuchVersion"]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_conditions_of_a_delete(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=bucket, Key="k", IfMatch='"other"')
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_conditions_of_a_copy_s_target(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_object(Bucket=bucket, Key="there", Body=b"old")
    source = {"Bucket": bucket, "Key": "k"}
    with refused("PreconditionFailed", 412):
        s3.copy_object(Bucket=bucket, Key="there", CopySource=source, IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="there")["Body"].read() == b"old"


# -- How things are stored, and who may ask for what ---------------------------------------------------------


def test_how_an_object_is_stored_is_given_back(s3: Any, bucket: str) -> None:
    key_id = "arn:aws:kms:us-east-1:123456789012:key/1"
    made = s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"x",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=key_id,
        StorageClass="STANDARD_IA",
    )
    assert (made["ServerSideEncryption"], made["SSEKMSKeyId"]) == ("aws:kms", key_id)
    found = s3.head_object(Bucket=bucket, Key="k")
    assert (found["StorageClass"], found["SSEKMSKeyId"]) == ("STANDARD_IA", key_id)
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == "STANDARD_IA"
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"})
    assert "StorageClass" not in s3.head_object(Bucket=bucket, Key="copy")  # a copy is stored as it asks


def test_what_would_open_or_hide_an_object_in_vain_is_refused(s3: Any, bucket: str) -> None:
    for members in (
        {"ACL": "public-read"},
        {"GrantRead": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
    ):
        with refused("AccessControlListNotSupported", 400):
            s3.put_object(Bucket=bucket, Key="k", Body=b"x", **members)
    with refused("NotImplemented", 501):
        s3.put_object(
            Bucket=bucket, Key="k", Body=b"x", SSECustomerAlgorithm="AES256", SSECustomerKey="k" * 32
        )
    with refused("InvalidRequest", 400):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockLegalHoldStatus="ON")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="bucket-owner-full-control")


def test_ownership_controls_have_a_default_and_may_be_absent(s3: Any, bucket: str) -> None:
    def ownership() -> str:
        rules = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
        return str(rules[0]["ObjectOwnership"])

    assert ownership() == "BucketOwnerEnforced"
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    )
    assert ownership() == "BucketOwnerPreferred"
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    with refused("OwnershipControlsNotFoundError", 404):
        s3.get_bucket_ownership_controls(Bucket=bucket)


def test_settings_of_a_bucket_have_limits(s3: Any, bucket: str) -> None:
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
    with refused("InvalidRequest", 400):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule] * 101})
    with refused("BadRequest", 400):
        tags = [{"Key": str(number), "Value": ""} for number in range(51)]
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    with refused("MalformedPolicy", 400):
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Statement": ["x" * 20_480]}))


def test_uploads_fold_at_a_delimiter(s3: Any, bucket: str) -> None:
    for key in ("a/1", "a/2", "b", "c d/1"):
        s3.create_multipart_upload(Bucket=bucket, Key=key)
    seen: list[str] = []
    marker: dict[str, str] = {}
    for _ in range(3):
        page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", MaxUploads=1, **marker)
        seen += [each["Key"] for each in page.get("Uploads", [])]
        seen += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
        marker = {
            "KeyMarker": page.get("NextKeyMarker", ""),
            "UploadIdMarker": page.get("NextUploadIdMarker", ""),
        }
    assert (seen, page["IsTruncated"]) == (["a/", "b", "c d/"], False)
    encoded = s3.list_multipart_uploads(Bucket=bucket, Prefix="c", EncodingType="url")
    assert encoded["Uploads"][0]["Key"] == "c%20d/1"


def test_a_part_keeps_the_checksum_that_came_behind_it(server: Server, bucket: str) -> None:
    s3 = server.client(tls=True)  # where boto3 sends checksums in a trailer
    names = {"Bucket": bucket, "Key": "k"}
    names["UploadId"] = s3.create_multipart_upload(**names)["UploadId"]
    part = s3.upload_part(**names, PartNumber=1, Body=b"data", ChecksumAlgorithm="SHA256")
    expected = base64.b64encode(DIGESTS["SHA256"](b"data")).decode()
    assert part["ChecksumSHA256"] == expected
    assert s3.list_parts(**names)["Parts"][0]["ChecksumSHA256"] == expected


def test_a_completion_must_be_of_the_size_it_says(s3: Any, bucket: str) -> None:
    names = {"Bucket": bucket, "Key": "a b"}
    names["UploadId"] = s3.create_multipart_upload(**names)["UploadId"]
    part = s3.upload_part(**names, PartNumber=1, Body=b"data")
    named = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    with refused("InvalidRequest", 400):
        s3.complete_multipart_upload(**names, MultipartUpload=named, MpuObjectSize=5)
    made = s3.complete_multipart_upload(**names, MultipartUpload=named, MpuObjectSize=4)
    assert made["Location"].endswith("/a%20b")


def test_a_read_asks_for_a_range_or_for_a_part(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"data")
    with refused("InvalidRequest", 400):
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=0-1", PartNumber=1)


def test_a_write_cannot_depend_on_an_etag_that_is_not_there(s3: Any, bucket: str) -> None:
    with refused("NotImplemented", 501):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", IfNoneMatch='"abc"')


def test_a_thousand_objects_are_deleted_at_once(s3: Any, bucket: str) -> None:
    names = [{"Key": f"{number:04d}"} for number in range(1000)]
    for each in names[::10]:
        s3.put_object(Bucket=bucket, Key=each["Key"], Body=b"")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": names})
    assert [each["Key"] for each in answer["Deleted"]] == [each["Key"] for each in names]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
