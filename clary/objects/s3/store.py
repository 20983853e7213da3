"""Objects in an external S3, at any endpoint: AWS's own, MinIO, Ceph, another Clary.

Every call goes through botocore in a thread. Bodies pass through a spooled temporary file on their way up,
since a signed request must know its length and hash before it starts; memory stays flat. The account that a
bucket belongs to in Clary is a tag of the bucket; a bucket without it is the ``account``'s.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode

import botocore.config
import botocore.session
from botocore.exceptions import BotoCoreError, ClientError

from clary.faults import AccessDenied, Conflict, Fault, InUse, Invalid, NotFound, Unavailable
from clary.objects.keys import ALGORITHMS, as_base64, check_bucket_name, check_key, new_checksum
from clary.objects.object_store import (
    MAX_PARTS,
    Bucket,
    Listing,
    MultipartUpload,
    ObjectInfo,
    Part,
    PutOptions,
)

THREADS = 16
SPOOL_BYTES = 8 * 1024 * 1024  # kept in memory of a body; the rest goes to a temporary file
PIECE_BYTES = 1024 * 1024
BUCKET_MEMORY_SECONDS = 30.0
COMPLETIONS_REMEMBERED = 1000
READ_ATTEMPTS = 5  # where an object is replaced between the look at it and the read
ACCOUNT_TAG = "clary:account"
_SETTINGS_TAG = "clary:settings:"
_LONGEST_TAG = 256
_HEADERS = {
    "content-type": "ContentType",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "content-disposition": "ContentDisposition",
    "cache-control": "CacheControl",
    "expires": "Expires",
}

Result = TypeVar("Result")


class S3ObjectStore:
    """`clary.objects.object_store.ObjectStore` over an external S3."""

    def __init__(
        self,
        *,
        endpoint_url: str | None,
        region: str,
        access_key_id: str,
        secret_access_key: str,
        account: str,
    ) -> None:
        session = botocore.session.Session()
        session.set_credentials(access_key_id, secret_access_key)
        self._client = session.create_client(
            "s3",
            region_name=region,
            endpoint_url=endpoint_url or None,
            config=botocore.config.Config(
                max_pool_connections=THREADS,
                retries={"total_max_attempts": 4, "mode": "standard"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._region = region
        self._account = account
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="external-s3")
        self._buckets: dict[str, tuple[float, Bucket]] = {}
        self._options: dict[str, PutOptions] = {}  # of uploads begun by this process
        self._completed: dict[str, ObjectInfo] = {}  # of uploads, so that a repeated call gets its answer

    async def _call(self, operation: str, **members: Any) -> dict[str, Any]:
        """Ask the external S3. Raises its refusals as faults with their codes."""
        given = {name: value for name, value in members.items() if value is not None}
        return await self._in_thread(partial(getattr(self._client, operation), **given))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ClientError as error:
            raise _fault(error) from None
        except BotoCoreError as error:
            raise Unavailable(
                f"The external S3 does not answer: {error}", code="ServiceUnavailable", status=503
            ) from error

    async def create_bucket(self, name: str, *, account: str, region: str) -> Bucket:
        check_bucket_name(name)
        found = await self.find_bucket(name)
        if found is not None:
            code = "BucketAlreadyOwnedByYou" if found.account == account else "BucketAlreadyExists"
            raise InUse(
                f"The bucket {name} exists already.", code=code, status=409, fields={"BucketName": name}
            )
        placed = None if self._region == "us-east-1" else {"LocationConstraint": self._region}
        await self._call("create_bucket", Bucket=name, CreateBucketConfiguration=placed)
        tags = {ACCOUNT_TAG: account, f"{_SETTINGS_TAG}region": region}
        await self._call("put_bucket_tagging", Bucket=name, Tagging=_tag_set(tags))
        created = await self.find_bucket(name)
        assert created is not None
        return created

    async def find_bucket(self, name: str) -> Bucket | None:
        remembered = self._buckets.get(name)
        if remembered and remembered[0] > time.monotonic():
            return remembered[1]
        self._buckets.pop(name, None)
        try:
            await self._call("head_bucket", Bucket=name)
            tags = await self._bucket_tags(name)
        except (NotFound, Invalid):
            return None
        except Fault as fault:
            if fault.status in (400, 404):
                return None
            raise
        created = next((b for b in await self._all_buckets() if b["Name"] == name), None)
        at = created["CreationDate"].timestamp() if created else 0.0
        bucket = Bucket(
            name, tags.get(ACCOUNT_TAG, self._account), tags.get(f"{_SETTINGS_TAG}region", self._region), at
        )
        self._buckets[name] = (time.monotonic() + BUCKET_MEMORY_SECONDS, bucket)
        return bucket

    async def _all_buckets(self) -> list[dict[str, Any]]:
        return list((await self._call("list_buckets")).get("Buckets", []))

    async def list_buckets(self, account: str) -> Sequence[Bucket]:
        found = [await self.find_bucket(each["Name"]) for each in await self._all_buckets()]
        return sorted(
            (bucket for bucket in found if bucket is not None and bucket.account == account),
            key=lambda bucket: bucket.name,
        )

    async def delete_bucket(self, name: str) -> None:
        self._buckets.pop(name, None)
        await self._call("delete_bucket", Bucket=name)

    async def _bucket_tags(self, bucket: str) -> dict[str, str]:
        try:
            found = await self._call("get_bucket_tagging", Bucket=bucket)
        except Fault as fault:
            if fault.code == "NoSuchTagSet":
                return {}
            raise
        return {tag["Key"]: tag["Value"] for tag in found["TagSet"]}

    async def bucket_setting(self, bucket: str, name: str) -> str | None:
        """Settings are kept as tags of the bucket, in pieces, since not every S3 has every setting."""
        tags = await self._bucket_tags(bucket)
        pieces = [tags[key] for key in sorted(k for k in tags if k.startswith(f"{_SETTINGS_TAG}{name}:"))]
        return base64.b64decode("".join(pieces)).decode() if pieces else None

    async def set_bucket_setting(self, bucket: str, name: str, value: str | None) -> None:
        tags = await self._bucket_tags(bucket)
        kept = {key: text for key, text in tags.items() if not key.startswith(f"{_SETTINGS_TAG}{name}:")}
        text = base64.b64encode(value.encode()).decode() if value is not None else ""
        for number, start in enumerate(range(0, len(text), _LONGEST_TAG)):
            kept[f"{_SETTINGS_TAG}{name}:{number:02d}"] = text[start : start + _LONGEST_TAG]
        await self._call("put_bucket_tagging", Bucket=bucket, Tagging=_tag_set(kept))

    async def put(self, bucket: str, key: str, body: AsyncIterator[bytes], options: PutOptions) -> ObjectInfo:
        check_key(key)
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
            await self._spool(body, file, options)
            await self._call(
                "put_object",
                Bucket=bucket,
                Key=key,
                Body=file,
                IfMatch=options.if_match,
                IfNoneMatch=options.if_none_match,
                **_object_members(options),
                **_checksum_members(options),
            )
        return await self.head(bucket, key)

    async def _spool(
        self, body: AsyncIterator[bytes], file: IO[bytes], options: PutOptions
    ) -> dict[str, str]:
        """Take the body whole and check it against what was promised; gives its checksums."""
        wanted = {*options.checksums, *([options.checksum_algorithm] if options.checksum_algorithm else [])}
        sums = {algorithm: new_checksum(algorithm) for algorithm in wanted}
        md5 = hashlib.md5(usedforsecurity=False)

        def take(piece: bytes) -> None:
            file.write(piece)
            for each in (md5, *sums.values()):
                each.update(piece)

        async for piece in body:
            await asyncio.to_thread(take, piece)
        file.seek(0)
        found = {algorithm: as_base64(each.digest()) for algorithm, each in sums.items()}
        for algorithm, promised in options.checksums.items():
            if found[algorithm] != promised:
                raise Invalid(
                    f"The {algorithm} you specified did not match the calculated checksum.",
                    code="BadDigest",
                    status=400,
                )
        if options.content_md5 is not None and options.content_md5 != as_base64(md5.digest()):
            valid = len(options.content_md5) == 24
            raise Invalid(
                "The Content-MD5 you specified did not match what we received."
                if valid
                else "The Content-MD5 you specified was invalid.",
                code="BadDigest" if valid else "InvalidDigest",
                status=400,
            )
        return found

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        return await self._info(bucket, key, await self._head(bucket, key))

    async def _head(self, bucket: str, key: str) -> dict[str, Any]:
        try:
            return await self._call("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except NotFound:
            # A HEAD has no body that would say whether it is the bucket or the key.
            await self._call("list_objects_v2", Bucket=bucket, MaxKeys=1)
            raise NotFound(
                "The specified key does not exist.", code="NoSuchKey", status=404, fields={"Key": key}
            ) from None

    async def _info(self, bucket: str, key: str, reply: Mapping[str, Any]) -> ObjectInfo:
        tags: dict[str, str] = {}
        if reply.get("TagCount"):
            found = await self._call("get_object_tagging", Bucket=bucket, Key=key)
            tags = {tag["Key"]: tag["Value"] for tag in found["TagSet"]}
        content = {header: reply[member] for header, member in _HEADERS.items() if reply.get(member)}
        if reply.get("ExpiresString"):
            content["expires"] = reply["ExpiresString"]
        checksums = {name: reply[f"Checksum{name}"] for name in ALGORITHMS if reply.get(f"Checksum{name}")}
        etag = reply["ETag"].strip('"')
        sizes: tuple[int, ...] = ()
        if "-" in etag:
            count = int(etag.rpartition("-")[2])
            sizes = tuple([await self._part_size(bucket, key, n) for n in range(1, count + 1)])
        return ObjectInfo(
            bucket=bucket,
            key=key,
            size_bytes=reply["ContentLength"],
            etag=etag,
            modified_at=reply["LastModified"].timestamp(),
            content_headers={name: str(value) for name, value in content.items()},
            metadata=reply.get("Metadata", {}),
            tags=tags,
            checksums=checksums,
            checksum_type=reply.get("ChecksumType", "FULL_OBJECT"),
            part_sizes=sizes,
        )

    async def _part_size(self, bucket: str, key: str, number: int) -> int:
        reply = await self._call("head_object", Bucket=bucket, Key=key, PartNumber=number)
        return int(reply["ContentLength"])

    async def read(
        self, bucket: str, key: str, *, first: int = 0, last: int | None = None
    ) -> tuple[ObjectInfo, AsyncIterator[bytes]]:
        whole = first == 0 and last is None
        span = None if whole else f"bytes={first}-{'' if last is None else last}"
        attempt = 0
        while True:
            attempt += 1
            info = await self.head(bucket, key)
            if not whole and first >= info.size_bytes:
                return info, _nothing()
            try:
                # The ETag holds the reader to the version that was looked at.
                reply = await self._call("get_object", Bucket=bucket, Key=key, Range=span, IfMatch=info.etag)
            except Conflict:
                if attempt < READ_ATTEMPTS:
                    continue
                raise
            return info, self._pieces(reply["Body"])

    async def _pieces(self, stream: Any) -> AsyncIterator[bytes]:
        try:
            while piece := await self._in_thread(partial(stream.read, PIECE_BYTES)):
                yield piece
        finally:
            stream.close()

    async def delete(self, bucket: str, key: str, *, if_match: str | None = None) -> None:
        await self._call("delete_object", Bucket=bucket, Key=key, IfMatch=if_match)

    async def copy(
        self, source_bucket: str, source_key: str, bucket: str, key: str, options: PutOptions | None
    ) -> ObjectInfo:
        info, body = await self.read(source_bucket, source_key)
        algorithm = next(iter(info.checksums), None)
        if options is None:
            options = PutOptions(info.content_headers, info.metadata, info.tags, algorithm)
        return await self.put(bucket, key, body, options)

    async def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        await self._call("put_object_tagging", Bucket=bucket, Key=key, Tagging=_tag_set(tags))

    async def list(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        reply = await self._call(
            "list_objects",
            Bucket=bucket,
            Prefix=prefix,
            Delimiter=delimiter or None,
            Marker=after,
            MaxKeys=limit,
        )
        objects = [
            ObjectInfo(
                bucket,
                item["Key"],
                item["Size"],
                item["ETag"].strip('"'),
                item["LastModified"].timestamp(),
            )
            for item in reply.get("Contents", [])
        ]
        prefixes = [each["Prefix"] for each in reply.get("CommonPrefixes", [])]
        marker = None
        if reply.get("IsTruncated"):
            marker = max(
                [*(each.key for each in objects[-1:]), *prefixes[-1:]], key=lambda text: text.encode()
            )
        return Listing(objects, prefixes, marker)

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> MultipartUpload:
        check_key(key)
        reply = await self._call(
            "create_multipart_upload",
            Bucket=bucket,
            Key=key,
            ChecksumAlgorithm=options.checksum_algorithm,
            ChecksumType=options.checksum_type,
            **_object_members(options),
        )
        self._options[reply["UploadId"]] = options
        return MultipartUpload(reply["UploadId"], bucket, key, time.time(), options)

    async def find_upload(self, bucket: str, key: str, upload_id: str) -> MultipartUpload:
        reply = await self._call("list_parts", Bucket=bucket, Key=key, UploadId=upload_id, MaxParts=1)
        options = self._options.get(upload_id) or PutOptions(
            checksum_algorithm=reply.get("ChecksumAlgorithm")
        )
        return MultipartUpload(upload_id, bucket, key, 0.0, options)

    async def list_uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        after_key: str = "",
        after_upload: str = "",
        limit: int = 1000,
    ) -> Sequence[MultipartUpload]:
        reply = await self._call(
            "list_multipart_uploads",
            Bucket=bucket,
            Prefix=prefix,
            KeyMarker=after_key or None,
            UploadIdMarker=after_upload or None,
            MaxUploads=limit,
        )
        return [
            MultipartUpload(
                each["UploadId"],
                bucket,
                each["Key"],
                each["Initiated"].timestamp(),
                self._options.get(each["UploadId"], PutOptions()),
            )
            for each in reply.get("Uploads", [])
        ]

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterator[bytes],
        options: PutOptions,
    ) -> Part:
        if not 1 <= number <= MAX_PARTS:
            raise Invalid(
                f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive",
                code="InvalidArgument",
                status=400,
                fields={"ArgumentName": "partNumber", "ArgumentValue": number},
            )
        upload = await self.find_upload(bucket, key, upload_id)
        algorithm = options.checksum_algorithm or upload.options.checksum_algorithm
        wanted = PutOptions(
            checksum_algorithm=algorithm, checksums=options.checksums, content_md5=options.content_md5
        )
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
            found = await self._spool(body, file, wanted)
            size = file.seek(0, 2)
            file.seek(0)
            reply = await self._call(
                "upload_part",
                Bucket=bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=file,
                **{f"Checksum{name}": value for name, value in list(found.items())[:1]},
            )
        return Part(number, size, reply["ETag"].strip('"'), time.time(), found)

    async def list_parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]:
        reply = await self._call(
            "list_parts",
            Bucket=bucket,
            Key=key,
            UploadId=upload_id,
            PartNumberMarker=after or None,
            MaxParts=limit,
        )
        return [
            Part(
                each["PartNumber"],
                each["Size"],
                each["ETag"].strip('"'),
                each["LastModified"].timestamp(),
                {name: each[f"Checksum{name}"] for name in ALGORITHMS if f"Checksum{name}" in each},
            )
            for each in reply.get("Parts", [])
        ]

    async def complete_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        options: PutOptions,
    ) -> ObjectInfo:
        if upload_id in self._completed:
            return self._completed[upload_id]
        named = [{"PartNumber": number, "ETag": f'"{etag.strip(chr(34))}"'} for number, etag in parts]
        await self._call(
            "complete_multipart_upload",
            Bucket=bucket,
            Key=key,
            UploadId=upload_id,
            MultipartUpload={"Parts": named},
            IfMatch=options.if_match,
            IfNoneMatch=options.if_none_match,
            **{f"Checksum{name}": value for name, value in options.checksums.items()},
        )
        self._options.pop(upload_id, None)
        info = await self.head(bucket, key)
        while len(self._completed) >= COMPLETIONS_REMEMBERED:
            self._completed.pop(next(iter(self._completed)))
        return self._completed.setdefault(upload_id, info)

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        await self._call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)
        self._options.pop(upload_id, None)

    async def local_path(self, bucket: str, key: str) -> str | None:
        return None

    async def close(self) -> None:
        self._threads.shutdown()
        self._client.close()


async def _nothing() -> AsyncIterator[bytes]:
    for piece in list[bytes]():
        yield piece


def _object_members(options: PutOptions) -> dict[str, Any]:
    members: dict[str, Any] = {
        _HEADERS[header]: value for header, value in options.content_headers.items() if header in _HEADERS
    }
    if options.metadata:
        members["Metadata"] = dict(options.metadata)
    if options.tags:
        members["Tagging"] = urlencode(dict(options.tags), quote_via=quote)
    return members


def _checksum_members(options: PutOptions) -> dict[str, Any]:
    if options.checksums:
        name, value = next(iter(options.checksums.items()))
        return {f"Checksum{name}": value}
    return {"ChecksumAlgorithm": options.checksum_algorithm} if options.checksum_algorithm else {}


def _tag_set(tags: Mapping[str, str]) -> dict[str, Any]:
    return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _fault(error: ClientError) -> Fault:
    """The external S3's refusal as ours."""
    reply: Mapping[str, Any] = error.response
    status = reply["ResponseMetadata"]["HTTPStatusCode"]
    code, message = reply["Error"]["Code"], reply["Error"].get("Message", "")
    known = ("Code", "Message", "RequestId", "HostId", "Type")
    fields = {name: value for name, value in reply["Error"].items() if name not in known}
    kinds: dict[int, type[Fault]] = {403: AccessDenied, 404: NotFound, 409: Conflict, 412: Conflict}
    kind = Unavailable if status >= 500 else kinds.get(status, Invalid)
    return kind(message or code, code=code, status=status, fields=fields)
