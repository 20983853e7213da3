"""What every object store must do. Subclass, say how to open a store, and collect."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from awscrt import checksums as crt

from clary.faults import Conflict, Fault, InUse, Invalid, NotFound
from clary.objects.object_store import Listing, ObjectInfo, ObjectStore, PutOptions

ACCOUNT, REGION, BUCKET = "123456789012", "us-east-1", "bucket"
PART_BYTES = 5 * 1024 * 1024  # the least of all parts but the last

STRANGE_KEYS = (
    "../x",
    "../../etc/passwd",
    "/absolute",
    "a",
    "a/b",
    "a//b",
    "a/",
    "//",
    ".",
    "..",
    "with space + plus % percent & ? #",
    "line\nend",
    "quote'\"<>",
    "a\\b",
    "index.sqlite",
    "é" * 512,
    "😀" * 256,
    "x" * 1024,
)

DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "CRC64NVME": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "SHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


def checksum(algorithm: str, data: bytes) -> str:
    return base64.b64encode(DIGESTS[algorithm](data)).decode()


def etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


async def body(data: bytes, *, piece_bytes: int = 300_000) -> AsyncIterator[bytes]:
    """``data`` as it would come from a client."""
    for start in range(0, len(data), piece_bytes):
        yield data[start : start + piece_bytes]


async def broken_body(data: bytes, error: BaseException) -> AsyncIterator[bytes]:
    """``data``, and then ``error`` where more was to come."""
    yield data
    raise error


async def content(
    store: ObjectStore, key: str, *, bucket: str = BUCKET, first: int = 0, last: int | None = None
) -> bytes:
    _, pieces = await store.read(bucket, key, first=first, last=last)
    return b"".join([piece async for piece in pieces])


async def put(store: ObjectStore, key: str, data: bytes = b"", **options: object) -> ObjectInfo:
    return await store.put(BUCKET, key, body(data), PutOptions(**options))  # type: ignore[arg-type]


def keys(listing: Listing) -> list[str]:
    return [info.key for info in listing.objects]


class ObjectStoreConformance:
    """The facts. `store` opens a fresh store."""

    def store(self) -> AbstractAsyncContextManager[ObjectStore]:
        raise NotImplementedError

    def run(self, facts: Callable[[ObjectStore], Awaitable[None]]) -> None:
        async def within() -> None:
            async with self.store() as store:
                await store.create_bucket(BUCKET, account=ACCOUNT, region=REGION)
                await facts(store)

        asyncio.run(within())

    # -- Buckets -------------------------------------------------------------------------------------------

    def test_a_bucket_is_found_by_its_name_and_listed_for_its_account(self) -> None:
        async def facts(store: ObjectStore) -> None:
            made = await store.create_bucket("another", account=ACCOUNT, region="eu-west-1")
            assert (made.name, made.account, made.region) == ("another", ACCOUNT, "eu-west-1")
            assert await store.find_bucket("another") == made
            assert await store.find_bucket("nothing") is None
            assert [each.name for each in await store.list_buckets(ACCOUNT)] == ["another", BUCKET]
            assert await store.list_buckets("210987654321") == []

        self.run(facts)

    @pytest.mark.parametrize(
        "name", ["ab", "A-Bucket", "a_b", "a..b", "1.2.3.4", "-ab", "x" * 64, "../a", ""]
    )
    def test_a_bucket_needs_a_proper_name(self, name: str) -> None:
        async def facts(store: ObjectStore) -> None:
            with pytest.raises(Invalid) as refused:
                await store.create_bucket(name, account=ACCOUNT, region=REGION)
            assert refused.value.code == "InvalidBucketName"

        self.run(facts)

    def test_a_bucket_is_made_once(self) -> None:
        async def facts(store: ObjectStore) -> None:
            with pytest.raises(InUse) as mine:
                await store.create_bucket(BUCKET, account=ACCOUNT, region=REGION)
            assert mine.value.code == "BucketAlreadyOwnedByYou"

        self.run(facts)

    def test_a_bucket_is_deleted_only_when_it_is_empty(self) -> None:
        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"x")
            with pytest.raises(Conflict) as full:
                await store.delete_bucket(BUCKET)
            assert full.value.code == "BucketNotEmpty"
            await store.delete(BUCKET, "k")
            await store.delete_bucket(BUCKET)
            assert await store.find_bucket(BUCKET) is None

        self.run(facts)

    def test_what_names_a_bucket_that_is_not_there_is_refused(self) -> None:
        async def facts(store: ObjectStore) -> None:
            calls: list[Awaitable[object]] = [
                store.delete_bucket("nothing"),
                store.put("nothing", "k", body(b"x"), PutOptions()),
                store.head("nothing", "k"),
                store.read("nothing", "k"),
                store.delete("nothing", "k"),
                store.list("nothing"),
                store.set_tags("nothing", "k", {}),
                store.create_upload("nothing", "k", PutOptions()),
                store.list_uploads("nothing"),
                store.bucket_setting("nothing", "policy"),
                store.set_bucket_setting("nothing", "policy", "{}"),
            ]
            for call in calls:
                with pytest.raises(NotFound) as missing:
                    await call
                assert missing.value.code == "NoSuchBucket"

        self.run(facts)

    def test_settings_are_kept_with_their_bucket(self) -> None:
        async def facts(store: ObjectStore) -> None:
            assert await store.bucket_setting(BUCKET, "policy") is None
            await store.set_bucket_setting(BUCKET, "policy", '{"é": 1}')
            await store.set_bucket_setting(BUCKET, "cors", "one")
            await store.set_bucket_setting(BUCKET, "cors", "two")
            assert await store.bucket_setting(BUCKET, "policy") == '{"é": 1}'
            assert await store.bucket_setting(BUCKET, "cors") == "two"
            await store.set_bucket_setting(BUCKET, "cors", None)
            assert await store.bucket_setting(BUCKET, "cors") is None
            await store.delete_bucket(BUCKET)
            await store.create_bucket(BUCKET, account=ACCOUNT, region=REGION)
            assert await store.bucket_setting(BUCKET, "policy") is None

        self.run(facts)

    # -- Objects -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3 * 1024 * 1024 + 7])
    def test_what_was_put_is_read(self, size: int) -> None:
        data = random.Random(size).randbytes(size)

        async def facts(store: ObjectStore) -> None:
            made = await store.put(
                BUCKET,
                "k",
                body(data),
                PutOptions(
                    content_headers={"content-type": "text/csv", "cache-control": "no-store"},
                    metadata={"colour": "blue"},
                    tags={"team": "a b"},
                ),
            )
            assert (made.bucket, made.key, made.size_bytes, made.etag) == (BUCKET, "k", size, etag(data))
            found = await store.head(BUCKET, "k")
            assert found.content_headers == {"content-type": "text/csv", "cache-control": "no-store"}
            assert (found.metadata, found.tags) == ({"colour": "blue"}, {"team": "a b"})
            assert (found.size_bytes, found.etag) == (size, etag(data))
            assert await content(store, "k") == data

        self.run(facts)

    def test_any_range_is_read(self) -> None:
        data = random.Random(7).randbytes(2_500_000)

        async def facts(store: ObjectStore) -> None:
            await put(store, "k", data)
            for first, last in [
                (0, 0),
                (5, 9),
                (1_048_575, 1_048_577),
                (2_499_999, 2_499_999),
                (70_000, None),
            ]:
                end = len(data) if last is None else last + 1
                assert await content(store, "k", first=first, last=last) == data[first:end]

        self.run(facts)

    def test_keys_that_are_strange_as_file_names_are_as_good_as_others(self) -> None:
        async def facts(store: ObjectStore) -> None:
            for key in STRANGE_KEYS:
                await put(store, key, key.encode())
            for key in STRANGE_KEYS:
                assert await content(store, key) == key.encode()
            listed = keys(await store.list(BUCKET))
            assert listed == sorted(STRANGE_KEYS, key=lambda key: key.encode())

        self.run(facts)

    def test_a_key_has_at_most_1024_bytes_and_one_at_least(self) -> None:
        async def facts(store: ObjectStore) -> None:
            for key in ("x" * 1025, "é" * 513):
                with pytest.raises(Invalid) as refused:
                    await put(store, key, b"x")
                assert refused.value.code == "KeyTooLongError"
                with pytest.raises(Invalid):
                    await store.create_upload(BUCKET, key, PutOptions())
            with pytest.raises(Invalid):
                await put(store, "", b"x")

        self.run(facts)

    def test_what_is_not_there_is_named_so(self) -> None:
        async def facts(store: ObjectStore) -> None:
            for call in (store.head(BUCKET, "k"), store.read(BUCKET, "k"), store.set_tags(BUCKET, "k", {})):
                with pytest.raises(NotFound) as missing:
                    await call
                assert missing.value.code == "NoSuchKey"
            with pytest.raises(NotFound):
                await store.copy(BUCKET, "k", BUCKET, "other", None)
            await store.delete(BUCKET, "k")

        self.run(facts)

    def test_a_put_replaces_all_of_what_was_there(self) -> None:
        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"old", metadata={"a": "1"}, tags={"t": "1"})
            await put(store, "k", b"new")
            found = await store.head(BUCKET, "k")
            assert (found.metadata, found.tags) == ({}, {})
            assert await content(store, "k") == b"new"

        self.run(facts)

    def test_a_put_that_breaks_off_leaves_what_was_there(self) -> None:
        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"old")
            with pytest.raises(Invalid):
                await store.put(BUCKET, "k", broken_body(b"new", Invalid("IncompleteBody")), PutOptions())
            with pytest.raises(Invalid):
                await store.put(BUCKET, "n", broken_body(b"new", Invalid("IncompleteBody")), PutOptions())
            assert await content(store, "k") == b"old"
            assert keys(await store.list(BUCKET)) == ["k"]

        self.run(facts)

    def test_a_put_that_is_cancelled_at_any_moment_leaves_the_object_whole(self) -> None:
        old, new = b"o" * 400_000, b"n" * 700_000

        async def facts(store: ObjectStore) -> None:
            chance = random.Random(3)
            await put(store, "k", old)
            for _ in range(60):
                task = asyncio.create_task(put(store, "k", new))
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(chance.random() / 2000)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert await content(store, "k") in (old, new)
                await put(store, "k", old)

        self.run(facts)

    def test_a_reader_keeps_its_version_whatever_is_written(self) -> None:
        data = b"1" * 3_000_000

        async def facts(store: ObjectStore) -> None:
            await put(store, "k", data)
            info, pieces = await store.read(BUCKET, "k")
            first = await pieces.__anext__()
            await put(store, "k", b"2" * 3_000_000)
            await store.delete(BUCKET, "k")
            assert info.etag == etag(data)
            assert first + b"".join([piece async for piece in pieces]) == data

        self.run(facts)

    def test_many_writers_of_one_key_leave_one_of_theirs(self) -> None:
        async def facts(store: ObjectStore) -> None:
            bodies = [bytes([number]) * 100_000 for number in range(12)]
            await asyncio.gather(*(put(store, "k", each) for each in bodies))
            found = await content(store, "k")
            assert found in bodies
            assert (await store.head(BUCKET, "k")).etag == etag(found)

        self.run(facts)

    def test_tags_change_without_the_object(self) -> None:
        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"x", tags={"a": "1"}, metadata={"m": "1"})
            before = await store.head(BUCKET, "k")
            await store.set_tags(BUCKET, "k", {"b": "2"})
            after = await store.head(BUCKET, "k")
            assert after.tags == {"b": "2"}
            assert (after.etag, after.modified_at, after.metadata) == (
                before.etag,
                before.modified_at,
                before.metadata,
            )

        self.run(facts)

    def test_a_copy_has_the_bytes_and_either_its_own_words_or_its_source_s(self) -> None:
        data = b"d" * 100_000

        async def facts(store: ObjectStore) -> None:
            await store.create_bucket("another", account=ACCOUNT, region=REGION)
            await put(store, "k", data, metadata={"m": "1"}, tags={"t": "1"}, checksum_algorithm="SHA256")
            same = await store.copy(BUCKET, "k", "another", "same", None)
            assert (same.metadata, same.tags, same.etag) == ({"m": "1"}, {"t": "1"}, etag(data))
            assert same.checksums == {"SHA256": checksum("SHA256", data)}
            other = await store.copy(BUCKET, "k", "another", "other", PutOptions(metadata={"n": "2"}))
            assert (other.metadata, other.tags) == ({"n": "2"}, {})
            await store.delete(BUCKET, "k")
            assert await content(store, "same", bucket="another") == data
            again = await store.copy("another", "same", "another", "same", PutOptions(metadata={"p": "3"}))
            assert again.metadata == {"p": "3"}
            assert await content(store, "same", bucket="another") == data

        self.run(facts)

    def test_a_local_path_holds_the_bytes_of_its_version(self) -> None:
        async def facts(store: ObjectStore) -> None:
            old = await put(store, "k", b"bytes")
            [path] = await store.local_paths([old])
            if path is not None:
                assert Path(path).read_bytes() == b"bytes"  # noqa: ASYNC240
                assert Path(path).stat().st_mode & 0o222 == 0  # noqa: ASYNC240
            new = await put(store, "k", b"other bytes")
            stale, fresh, missing = await store.local_paths([old, new, replace(new, key="nothing")])
            assert (stale, missing) == (None, None)
            if fresh is not None:
                assert Path(fresh).read_bytes() == b"other bytes"  # noqa: ASYNC240

        self.run(facts)

    # -- Promises and conditions ---------------------------------------------------------------------------

    @pytest.mark.parametrize("algorithm", DIGESTS)
    def test_a_checksum_is_kept_whether_promised_or_asked_for(self, algorithm: str) -> None:
        data = random.Random(1).randbytes(150_000)

        async def facts(store: ObjectStore) -> None:
            expected = {algorithm: checksum(algorithm, data)}
            await put(store, "promised", data, checksums=expected)
            await put(store, "asked", data, checksum_algorithm=algorithm)
            for key in ("promised", "asked"):
                found = await store.head(BUCKET, key)
                assert (found.checksums, found.checksum_type) == (expected, "FULL_OBJECT")

        self.run(facts)

    @pytest.mark.parametrize("algorithm", DIGESTS)
    def test_bytes_that_are_not_as_promised_are_refused(self, algorithm: str) -> None:
        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"old")
            with pytest.raises(Invalid) as refused:
                await put(store, "k", b"new", checksums={algorithm: checksum(algorithm, b"other")})
            assert refused.value.code == "BadDigest"
            assert await content(store, "k") == b"old"

        self.run(facts)

    def test_a_content_md5_is_compared(self) -> None:
        def md5(data: bytes) -> str:
            return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()

        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"x", content_md5=md5(b"x"))
            for wrong, code in (
                (md5(b"y"), "BadDigest"),
                ("###", "InvalidDigest"),
                ("YQ==", "InvalidDigest"),
            ):
                with pytest.raises(Invalid) as refused:
                    await put(store, "k", b"x", content_md5=wrong)
                assert refused.value.code == code

        self.run(facts)

    def test_an_algorithm_that_does_not_exist_is_refused(self) -> None:
        async def facts(store: ObjectStore) -> None:
            with pytest.raises(Invalid):
                await put(store, "k", b"x", checksum_algorithm="CRC7")

        self.run(facts)

    def test_conditions_guard_a_put(self) -> None:
        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"1", if_none_match="*")
            with pytest.raises(Conflict) as there:
                await put(store, "k", b"2", if_none_match="*")
            assert (there.value.code, there.value.status) == ("PreconditionFailed", 412)
            with pytest.raises(Conflict):
                await put(store, "k", b"2", if_match=etag(b"other"))
            with pytest.raises(NotFound):
                await put(store, "nothing", b"2", if_match=etag(b"other"))
            assert await content(store, "k") == b"1"
            await put(store, "k", b"2", if_match=f'"{etag(b"1")}"')
            assert await content(store, "k") == b"2"

        self.run(facts)

    def test_a_condition_guards_a_delete(self) -> None:
        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"1")
            with pytest.raises(Conflict):
                await store.delete(BUCKET, "k", if_match=etag(b"other"))
            assert await content(store, "k") == b"1"
            await store.delete(BUCKET, "k", if_match=etag(b"1"))
            with pytest.raises(NotFound):
                await store.delete(BUCKET, "k", if_match=etag(b"1"))

        self.run(facts)

    def test_of_many_that_want_to_be_first_one_is(self) -> None:
        async def facts(store: ObjectStore) -> None:
            results = await asyncio.gather(
                *(put(store, "k", bytes([number]), if_none_match="*") for number in range(10)),
                return_exceptions=True,
            )
            won = [number for number, result in enumerate(results) if isinstance(result, ObjectInfo)]
            assert len(won) == 1
            assert await content(store, "k") == bytes(won)
            assert sum(isinstance(result, Conflict) for result in results) == len(results) - 1

        self.run(facts)

    # -- Listings ------------------------------------------------------------------------------------------

    def test_keys_are_listed_in_the_order_of_their_bytes(self) -> None:
        names = ["b", "a", "B", "é", "a/b", "a.b", "a-b", "ａ", "😀", "a0"]

        async def facts(store: ObjectStore) -> None:
            for name in names:
                await put(store, name)
            assert keys(await store.list(BUCKET)) == sorted(names, key=lambda name: name.encode())

        self.run(facts)

    def test_a_delimiter_folds_what_is_below_it(self) -> None:
        async def facts(store: ObjectStore) -> None:
            for name in ("a", "a/1", "a/2", "a/b/3", "b/", "c"):
                await put(store, name)
            top = await store.list(BUCKET, delimiter="/")
            assert (keys(top), list(top.common_prefixes)) == (["a", "c"], ["a/", "b/"])
            below = await store.list(BUCKET, prefix="a/", delimiter="/")
            assert (keys(below), list(below.common_prefixes)) == (["a/1", "a/2"], ["a/b/"])
            assert keys(await store.list(BUCKET, prefix="a/")) == ["a/1", "a/2", "a/b/3"]
            nothing = await store.list(BUCKET, prefix="zz", delimiter="/")
            assert (keys(nothing), list(nothing.common_prefixes), nothing.next_marker) == ([], [], None)

        self.run(facts)

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    def test_pages_lose_and_repeat_nothing(self, limit: int) -> None:
        async def facts(store: ObjectStore) -> None:
            for name in ("a", "a/1", "a/2", "b", "c/1", "c/2", "d"):
                await put(store, name)
            seen: list[str] = []
            after: str | None = ""
            while after is not None:
                page = await store.list(BUCKET, delimiter="/", after=after, limit=limit)
                assert len(page.objects) + len(page.common_prefixes) <= limit
                seen += sorted([*keys(page), *page.common_prefixes])
                after = page.next_marker
            assert seen == ["a", "a/", "b", "c/", "d"]

        self.run(facts)

    # -- Multipart uploads ---------------------------------------------------------------------------------

    def test_parts_become_one_object_in_the_order_of_their_numbers(self) -> None:
        chance = random.Random(9)
        parts = {3: chance.randbytes(PART_BYTES), 7: chance.randbytes(PART_BYTES + 1), 9: b"end"}

        async def facts(store: ObjectStore) -> None:
            upload = await store.create_upload(
                BUCKET, "k", PutOptions(metadata={"m": "1"}, content_headers={"content-type": "a/b"})
            )
            made = {}
            for number in (9, 3, 7):
                made[number] = await store.put_part(
                    BUCKET, "k", upload.upload_id, number, body(parts[number]), PutOptions()
                )
                assert made[number].etag == etag(parts[number])
            assert keys(await store.list(BUCKET)) == []
            listed = await store.list_parts(BUCKET, "k", upload.upload_id)
            assert [(part.number, part.size_bytes) for part in listed] == [
                (number, len(parts[number])) for number in (3, 7, 9)
            ]
            assert [
                part.number for part in await store.list_parts(BUCKET, "k", upload.upload_id, after=3)
            ] == [
                7,
                9,
            ]
            named = [(number, made[number].etag) for number in (3, 7, 9)]
            info = await store.complete_upload(BUCKET, "k", upload.upload_id, named, PutOptions())
            digests = b"".join(bytes.fromhex(made[number].etag) for number in (3, 7, 9))
            assert info.etag == f"{etag(digests)}-3"
            assert info.part_count == 3
            assert (info.metadata, info.content_headers) == ({"m": "1"}, {"content-type": "a/b"})
            assert await store.head(BUCKET, "k") == info
            assert await content(store, "k") == parts[3] + parts[7] + parts[9]

        self.run(facts)

    def test_a_part_of_an_object_is_located(self) -> None:
        parts = [b"a" * PART_BYTES, b"b" * (PART_BYTES + 3), b"end"]

        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            named = []
            for number, each in zip((2, 5, 6), parts, strict=True):
                part = await store.put_part(BUCKET, "k", upload, number, body(each), PutOptions())
                named.append((number, part.etag))
            info = await store.complete_upload(BUCKET, "k", upload, named, PutOptions())
            first = 0
            for number, each in enumerate(parts, 1):  # counted anew, whatever their numbers were
                assert await store.locate_part(BUCKET, "k", number) == (info, first, len(each))
                first += len(each)
            await put(store, "whole", b"data")
            assert (await store.locate_part(BUCKET, "whole", 1))[1:] == (0, 4)
            for key, number, code in (
                ("k", 4, "InvalidPartNumber"),
                ("whole", 2, "InvalidPartNumber"),
                ("k", 0, "InvalidArgument"),
            ):
                with pytest.raises(Invalid) as refused:
                    await store.locate_part(BUCKET, key, number)
                assert refused.value.code == code
            with pytest.raises(NotFound):
                await store.locate_part(BUCKET, "nothing", 1)

        self.run(facts)

    def test_a_copy_of_parts_is_one_object(self) -> None:
        data = [b"a" * PART_BYTES, b"b"]

        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            named = []
            for number, each in enumerate(data, 1):
                part = await store.put_part(BUCKET, "k", upload, number, body(each), PutOptions())
                named.append((number, part.etag))
            await store.complete_upload(BUCKET, "k", upload, named, PutOptions())
            copied = await store.copy(BUCKET, "k", BUCKET, "copy", None)
            assert (copied.etag, copied.part_count) == (etag(b"".join(data)), 0)
            assert await content(store, "copy") == b"".join(data)

        self.run(facts)

    def test_conditions_guard_a_copy(self) -> None:
        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"new")
            await put(store, "there", b"old")
            with pytest.raises(Conflict):
                await store.copy(BUCKET, "k", BUCKET, "there", PutOptions(if_none_match="*"))
            assert await content(store, "there") == b"old"
            await store.copy(BUCKET, "k", BUCKET, "there", PutOptions(if_match=etag(b"old")))
            assert await content(store, "there") == b"new"

        self.run(facts)

    def test_how_an_object_is_to_be_stored_is_kept(self) -> None:
        headers = {"content-type": "a/b", "x-amz-storage-class": "STANDARD_IA"}

        async def facts(store: ObjectStore) -> None:
            await put(store, "k", b"x", content_headers=headers)
            assert (await store.head(BUCKET, "k")).content_headers == headers
            copied = await store.copy(BUCKET, "k", BUCKET, "copy", None)
            assert copied.content_headers == headers

        self.run(facts)

    def test_a_part_may_be_sent_again_and_the_last_one_counts(self) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            await store.put_part(BUCKET, "k", upload, 1, body(b"old"), PutOptions())
            part = await store.put_part(BUCKET, "k", upload, 1, body(b"new"), PutOptions())
            await store.complete_upload(BUCKET, "k", upload, [(1, f'"{part.etag}"')], PutOptions())
            assert await content(store, "k") == b"new"

        self.run(facts)

    def test_an_upload_is_completed_once_and_says_so_again(self) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            part = await store.put_part(BUCKET, "k", upload, 1, body(b"data"), PutOptions())
            calls = [
                store.complete_upload(BUCKET, "k", upload, [(1, part.etag)], PutOptions()) for _ in range(4)
            ]
            infos = await asyncio.gather(*calls)
            assert all(info == infos[0] for info in infos)
            await put(store, "k", b"newer")
            again = await store.complete_upload(BUCKET, "k", upload, [(1, part.etag)], PutOptions())
            assert again == infos[0]
            assert await content(store, "k") == b"newer"
            with pytest.raises(NotFound):
                await store.put_part(BUCKET, "k", upload, 2, body(b"late"), PutOptions())

        self.run(facts)

    def test_a_completion_must_name_what_is_there(self) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            one = await store.put_part(BUCKET, "k", upload, 1, body(b"small"), PutOptions())
            two = await store.put_part(BUCKET, "k", upload, 2, body(b"end"), PutOptions())
            wrong: dict[str, list[tuple[int, str]]] = {
                "InvalidPart": [(1, etag(b"other"))],
                "InvalidPartOrder": [(2, two.etag), (1, one.etag)],
                "EntityTooSmall": [(1, one.etag), (2, two.etag)],
                "MalformedXML": [],
            }
            for code, named in wrong.items():
                with pytest.raises(Invalid) as refused:
                    await store.complete_upload(BUCKET, "k", upload, named, PutOptions())
                assert refused.value.code == code
            with pytest.raises(Invalid):
                await store.complete_upload(BUCKET, "k", upload, [(3, one.etag)], PutOptions())
            assert len(await store.list_parts(BUCKET, "k", upload)) == 2

        self.run(facts)

    @pytest.mark.parametrize("number", [0, -1, 10_001])
    def test_a_part_s_number_has_its_bounds(self, number: int) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            with pytest.raises(Invalid):
                await store.put_part(BUCKET, "k", upload, number, body(b"x"), PutOptions())

        self.run(facts)

    @pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "SHA1", "SHA256"])
    def test_the_checksum_of_parts_is_made_of_theirs(self, algorithm: str) -> None:
        data = [b"a" * PART_BYTES, b"b"]

        async def facts(store: ObjectStore) -> None:
            upload = await store.create_upload(BUCKET, "k", PutOptions(checksum_algorithm=algorithm))
            named = []
            for number, each in enumerate(data, 1):
                part = await store.put_part(BUCKET, "k", upload.upload_id, number, body(each), PutOptions())
                assert part.checksums == {algorithm: checksum(algorithm, each)}
                named.append((number, part.etag))
            info = await store.complete_upload(BUCKET, "k", upload.upload_id, named, PutOptions())
            joined = b"".join(DIGESTS[algorithm](each) for each in data)
            assert info.checksums == {algorithm: f"{checksum(algorithm, joined)}-2"}
            assert info.checksum_type == "COMPOSITE"

        self.run(facts)

    def test_a_promised_checksum_of_parts_is_compared(self) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = await store.create_upload(BUCKET, "k", PutOptions(checksum_algorithm="SHA256"))
            part = await store.put_part(BUCKET, "k", upload.upload_id, 1, body(b"data"), PutOptions())
            right = {"SHA256": f"{checksum('SHA256', DIGESTS['SHA256'](b'data'))}-1"}
            wrong = {"SHA256": f"{checksum('SHA256', b'other')}-1"}
            named = [(1, part.etag)]
            with pytest.raises(Invalid) as refused:
                await store.complete_upload(BUCKET, "k", upload.upload_id, named, PutOptions(checksums=wrong))
            assert refused.value.code == "BadDigest"
            assert keys(await store.list(BUCKET)) == []
            info = await store.complete_upload(
                BUCKET, "k", upload.upload_id, named, PutOptions(checksums=right)
            )
            assert (info.checksums, info.checksum_type) == (right, "COMPOSITE")

        self.run(facts)

    @pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
    def test_the_checksum_of_the_whole_is_compared_where_it_is_promised(self, algorithm: str) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = await store.create_upload(BUCKET, "k", PutOptions(checksum_algorithm=algorithm))
            part = await store.put_part(BUCKET, "k", upload.upload_id, 1, body(b"data"), PutOptions())
            named = [(1, part.etag)]
            with pytest.raises(Invalid) as refused:
                await store.complete_upload(
                    BUCKET,
                    "k",
                    upload.upload_id,
                    named,
                    PutOptions(checksums={algorithm: checksum(algorithm, b"other")}),
                )
            assert refused.value.code == "BadDigest"
            right = {algorithm: checksum(algorithm, b"data")}
            info = await store.complete_upload(
                BUCKET, "k", upload.upload_id, named, PutOptions(checksums=right)
            )
            assert (info.checksums, info.checksum_type) == (right, "FULL_OBJECT")

        self.run(facts)

    def test_the_checksum_of_the_whole_is_made_where_the_upload_began_with_that(self) -> None:
        data = [b"a" * PART_BYTES, b"b"]

        async def facts(store: ObjectStore) -> None:
            options = PutOptions(checksum_algorithm="CRC32", checksum_type="FULL_OBJECT")
            upload = (await store.create_upload(BUCKET, "k", options)).upload_id
            named = []
            for number, each in enumerate(data, 1):
                part = await store.put_part(BUCKET, "k", upload, number, body(each), PutOptions())
                named.append((number, part.etag))
            info = await store.complete_upload(BUCKET, "k", upload, named, PutOptions())
            assert info.checksums == {"CRC32": checksum("CRC32", b"".join(data))}
            assert info.checksum_type == "FULL_OBJECT"

        self.run(facts)

    def test_conditions_guard_a_completion(self) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            part = await store.put_part(BUCKET, "k", upload, 1, body(b"data"), PutOptions())
            await put(store, "k", b"first")
            named = [(1, part.etag)]
            with pytest.raises(Conflict):
                await store.complete_upload(BUCKET, "k", upload, named, PutOptions(if_none_match="*"))
            assert await content(store, "k") == b"first"
            await store.complete_upload(BUCKET, "k", upload, named, PutOptions(if_match=etag(b"first")))
            assert await content(store, "k") == b"data"

        self.run(facts)

    def test_an_aborted_upload_is_gone(self) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            part = await store.put_part(BUCKET, "k", upload, 1, body(b"data"), PutOptions())
            await store.abort_upload(BUCKET, "k", upload)
            calls: list[Awaitable[object]] = [
                store.find_upload(BUCKET, "k", upload),
                store.list_parts(BUCKET, "k", upload),
                store.put_part(BUCKET, "k", upload, 1, body(b"data"), PutOptions()),
                store.complete_upload(BUCKET, "k", upload, [(1, part.etag)], PutOptions()),
                store.abort_upload(BUCKET, "k", upload),
                store.find_upload(BUCKET, "k", "no-such-id"),
            ]
            for call in calls:
                with pytest.raises(NotFound) as missing:
                    await call
                assert missing.value.code == "NoSuchUpload"
            assert keys(await store.list(BUCKET)) == []

        self.run(facts)

    def test_an_abort_in_the_middle_of_a_completion_leaves_all_or_nothing(self) -> None:
        data = b"d" * (2 * 1024 * 1024)

        async def facts(store: ObjectStore) -> None:
            for _ in range(10):
                upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
                part = await store.put_part(BUCKET, "k", upload, 1, body(data), PutOptions())
                completed, _ = await asyncio.gather(
                    store.complete_upload(BUCKET, "k", upload, [(1, part.etag)], PutOptions()),
                    store.abort_upload(BUCKET, "k", upload),
                    return_exceptions=True,
                )
                if isinstance(completed, BaseException):
                    assert isinstance(completed, Fault)
                    assert keys(await store.list(BUCKET)) == []
                else:
                    assert await content(store, "k") == data
                    await store.delete(BUCKET, "k")

        self.run(facts)

    def test_uploads_are_listed_by_key_and_page(self) -> None:
        async def facts(store: ObjectStore) -> None:
            made = [await store.create_upload(BUCKET, key, PutOptions()) for key in ("b", "a", "b", "c/1")]
            expected = sorted((upload.key, upload.upload_id) for upload in made)
            seen: list[tuple[str, str]] = []
            after_key = after_upload = ""
            while True:
                page = await store.list_uploads(
                    BUCKET, after_key=after_key, after_upload=after_upload, limit=2
                )
                if not page:
                    break
                seen += [(upload.key, upload.upload_id) for upload in page]
                after_key, after_upload = seen[-1]
            assert seen == expected
            below = await store.list_uploads(BUCKET, prefix="c/")
            assert [upload.key for upload in below] == ["c/1"]

        self.run(facts)

    def test_a_bucket_with_nothing_but_uploads_may_be_deleted(self) -> None:
        async def facts(store: ObjectStore) -> None:
            upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
            await store.put_part(BUCKET, "k", upload, 1, body(b"data"), PutOptions())
            await store.delete_bucket(BUCKET)
            await store.create_bucket(BUCKET, account=ACCOUNT, region=REGION)
            assert list(await store.list_uploads(BUCKET)) == []

        self.run(facts)
