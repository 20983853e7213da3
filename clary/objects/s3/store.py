"""Objects in an external S3, at any endpoint: AWS's own, MinIO, Ceph, another Clary.

Every call goes through botocore in a thread. Bodies pass through a spooled temporary file on their way up,
since a signed request must know its length and hash before it starts; memory stays flat. The account that a
bucket belongs to in Clary is a tag of the bucket; a bucket without it is the ``account``'s.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode

import botocore.config
import botocore.session
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from clary.faults import AccessDenied, Conflict, Fault, Invalid, NotFound, Unavailable
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
from clary.objects.refusals import (
    bucket_exists,
    check_part_number,
    check_promises,
    no_such_key,
    no_such_part,
)

THREADS = 16
SPOOL_BYTES = 1024 * 1024  # kept in memory of a body; the rest goes to a temporary file
PIECE_BYTES = 1024 * 1024
BUCKET_MEMORY_SECONDS = 30.0
UPLOADS_REMEMBERED = 1000
PAGE = 1000  # what an S3 lists at once
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
    "x-amz-storage-class": "StorageClass",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "x-amz-website-redirect-location": "WebsiteRedirectLocation",
}
_STORAGE = ("StorageClass", "ServerSideEncryption", "SSEKMSKeyId", "WebsiteRedirectLocation")
# What an S3 says of the credentials or the region that it is spoken to with: Clary's settings are to blame.
_SETTINGS_ARE_WRONG = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "PermanentRedirect",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
# What a HEAD's status means: it has no body that would say more.
_OF_STATUS = {"304": "NotModified", "403": "AccessDenied", "412": "PreconditionFailed", "416": "InvalidRange"}

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
        spool: Path | None = None,
    ) -> None:
        """Without an access key id botocore looks for credentials where it always does (the machine's role).

        ``spool`` is the folder of the temporary files; ``None`` is the system's.
        """
        session = botocore.session.Session()
        if access_key_id:
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
                ignore_configured_endpoint_urls=True,  # those in the environment may well be Clary's own
            ),
        )
        self._region = region
        self._account = account
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="external-s3")
        self._buckets: dict[str, tuple[float, Bucket]] = {}
        self._spool_folder = spool
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
        except ParamValidationError as error:
            raise Invalid(str(error), code="InvalidRequest", status=400) from None
        except BotoCoreError as error:
            raise Unavailable(
                f"The external S3 does not answer: {error}", code="ServiceUnavailable", status=503
            ) from error

    async def create_bucket(self, name: str, *, account: str, region: str) -> Bucket:
        check_bucket_name(name)
        try:
            found = await self.find_bucket(name)
        except AccessDenied:
            raise bucket_exists(name, is_callers=False) from None
        if found is not None:
            raise bucket_exists(name, is_callers=found.account == account)
        placed = None if self._region == "us-east-1" else {"LocationConstraint": self._region}
        try:
            await self._call("create_bucket", Bucket=name, CreateBucketConfiguration=placed)
        except Conflict as fault:
            if fault.code in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                raise bucket_exists(name, is_callers=False) from None  # somebody was faster
            raise
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
            check_bucket_name(name)
            await self._call("head_bucket", Bucket=name)
        except (NotFound, Invalid) as fault:
            if fault.code in ("404", "NoSuchBucket", "InvalidBucketName"):
                return None
            raise
        try:
            listed = (await self._call("list_buckets", Prefix=name)).get("Buckets", [])
        except AccessDenied:
            listed = []  # not every credential may; then the time of the bucket's making stays unknown
        return await self._with_tags(name, listed)

    async def _with_tags(self, name: str, listed: Sequence[Mapping[str, Any]]) -> Bucket:
        """The bucket ``name``, made when ``listed`` says so, and its owner's as its tags say."""
        made = next((each["CreationDate"].timestamp() for each in listed if each["Name"] == name), 0.0)
        tags = await self._bucket_tags(name)
        bucket = Bucket(
            name, tags.get(ACCOUNT_TAG, self._account), tags.get(f"{_SETTINGS_TAG}region", self._region), made
        )
        self._buckets[name] = (time.monotonic() + BUCKET_MEMORY_SECONDS, bucket)
        return bucket

    async def list_buckets(self, account: str) -> Sequence[Bucket]:
        listed = (await self._call("list_buckets")).get("Buckets", [])

        async def bucket(name: str) -> Bucket | None:
            until, known = self._buckets.get(name, (0.0, None))
            if until > time.monotonic():
                return known
            try:
                return await self._with_tags(name, listed)
            except (NotFound, AccessDenied):
                return None  # deleted meanwhile, or closed to Clary

        found = await asyncio.gather(*(bucket(each["Name"]) for each in listed))
        return sorted(
            (each for each in found if each is not None and each.account == account),
            key=lambda each: each.name,
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
        with self._temporary_file() as file:
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

    def _temporary_file(self) -> IO[bytes]:
        return tempfile.SpooledTemporaryFile(
            SPOOL_BYTES, dir=str(self._spool_folder) if self._spool_folder else None
        )

    async def _spool(
        self, body: AsyncIterator[bytes], file: IO[bytes], options: PutOptions
    ) -> dict[str, str]:
        """Take the body whole and check it against what was promised; gives its checksums."""
        wanted = {*options.checksums, *([options.checksum_algorithm] if options.checksum_algorithm else [])}
        sums = {algorithm: new_checksum(algorithm) for algorithm in wanted}
        md5 = hashlib.md5(usedforsecurity=False)

        def take(data: bytes) -> None:
            try:
                file.write(data)
            except OSError as error:
                raise Unavailable(
                    f"The body could not be kept until it is sent on: {error.strerror}.",
                    code="ServiceUnavailable",
                    status=503,
                ) from error
            for each in (md5, *sums.values()):
                each.update(data)

        buffered = bytearray()
        async for piece in body:
            buffered += piece
            if len(buffered) >= PIECE_BYTES:
                data, buffered = bytes(buffered), bytearray()
                await asyncio.to_thread(take, data)
        await asyncio.to_thread(take, bytes(buffered))
        file.seek(0)
        found = {algorithm: as_base64(each.digest()) for algorithm, each in sums.items()}
        check_promises(options.checksums, found, options.content_md5, md5.hexdigest())
        return found

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        return await self._info(bucket, key, await self._head(bucket, key))

    async def _head(self, bucket: str, key: str) -> dict[str, Any]:
        try:
            return await self._call("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except NotFound:
            # A HEAD has no body that would say whether it is the bucket or the key.
            await self._call("list_objects_v2", Bucket=bucket, MaxKeys=1)
            raise no_such_key(key) from None

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
        _, _, parts = etag.partition("-")
        # Of a part of an object the length is the part's.
        _, _, whole = str(reply.get("ContentRange", "")).partition("/")
        return ObjectInfo(
            bucket=bucket,
            key=key,
            size_bytes=int(whole or reply["ContentLength"]),
            etag=etag,
            modified_at=reply["LastModified"].timestamp(),
            content_headers={name: str(value) for name, value in content.items()},
            metadata=reply.get("Metadata", {}),
            tags=tags,
            checksums=checksums,
            checksum_type=reply.get("ChecksumType", "FULL_OBJECT"),
            part_count=int(parts or 0),
        )

    async def locate_part(self, bucket: str, key: str, number: int) -> tuple[ObjectInfo, int, int]:
        check_part_number(number)
        info = await self.head(bucket, key)
        if number > max(info.part_count, 1):
            raise no_such_part(number)
        if not info.part_count:
            return info, 0, info.size_bytes
        part = await self._call(
            "head_object", Bucket=bucket, Key=key, PartNumber=number, IfMatch=f'"{info.etag}"'
        )
        spans = re.match(r"bytes (\d+)-", part.get("ContentRange", ""))
        return info, int(spans[1]) if spans else 0, part["ContentLength"]

    async def read(
        self, bucket: str, key: str, *, first: int = 0, last: int | None = None
    ) -> tuple[ObjectInfo, AsyncIterator[bytes]]:
        whole = first == 0 and last is None
        span = None if whole else f"bytes={first}-{'' if last is None else last}"
        try:
            reply = await self._call("get_object", Bucket=bucket, Key=key, Range=span, ChecksumMode="ENABLED")
        except Invalid as fault:
            if fault.code != "InvalidRange":
                raise
            return await self.head(bucket, key), _nothing()
        return await self._info(bucket, key, reply), self._pieces(reply["Body"])

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
        check_key(key)
        source = await self.head(source_bucket, source_key)
        if options is None and (source_bucket, source_key) == (bucket, key):
            return source
        asked = options or PutOptions(content_headers=source.content_headers)
        members = _object_members(asked)
        if options is None:  # the S3 copies all but how the copy is stored
            members = {name: value for name, value in members.items() if name in _STORAGE}
        await self._call(
            "copy_object",
            Bucket=bucket,
            Key=key,
            CopySource={"Bucket": source_bucket, "Key": source_key},
            MetadataDirective="COPY" if options is None else "REPLACE",
            TaggingDirective="COPY" if options is None else "REPLACE",
            ChecksumAlgorithm=asked.checksum_algorithm or next(iter(source.checksums), None),
            IfMatch=asked.if_match,
            IfNoneMatch=asked.if_none_match,
            **members,
        )
        return await self.head(bucket, key)

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
                content_headers=_stored(item.get("StorageClass")),
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
        _remember(self._options, reply["UploadId"], options)
        return MultipartUpload(reply["UploadId"], bucket, key, time.time(), options)

    async def find_upload(self, bucket: str, key: str, upload_id: str) -> MultipartUpload:
        reply = await self._call("list_parts", Bucket=bucket, Key=key, UploadId=upload_id, MaxParts=1)
        options = self._options.get(upload_id) or PutOptions(
            content_headers=_stored(reply.get("StorageClass")),
            checksum_algorithm=reply.get("ChecksumAlgorithm"),
            checksum_type=reply.get("ChecksumType"),
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
        found: list[MultipartUpload] = []
        more = True
        while more and len(found) < limit:
            reply = await self._call(
                "list_multipart_uploads",
                Bucket=bucket,
                Prefix=prefix,
                KeyMarker=after_key or None,
                UploadIdMarker=after_upload or None,
                MaxUploads=min(limit - len(found), PAGE),
            )
            found += [
                MultipartUpload(
                    each["UploadId"],
                    bucket,
                    each["Key"],
                    each["Initiated"].timestamp(),
                    self._options.get(each["UploadId"])
                    or PutOptions(
                        content_headers=_stored(each.get("StorageClass")),
                        checksum_algorithm=each.get("ChecksumAlgorithm"),
                        checksum_type=each.get("ChecksumType"),
                    ),
                )
                for each in reply.get("Uploads", [])
            ]
            more = bool(reply.get("IsTruncated"))
            after_key, after_upload = reply.get("NextKeyMarker", ""), reply.get("NextUploadIdMarker", "")
        return found

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterator[bytes],
        options: PutOptions,
    ) -> Part:
        check_part_number(number)
        begun = self._options.get(upload_id) or (await self.find_upload(bucket, key, upload_id)).options
        algorithm = options.checksum_algorithm or begun.checksum_algorithm
        wanted = PutOptions(
            checksum_algorithm=algorithm, checksums=options.checksums, content_md5=options.content_md5
        )
        with self._temporary_file() as file:
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
        found: list[Part] = []
        more = True
        while more and len(found) < limit:
            reply = await self._call(
                "list_parts",
                Bucket=bucket,
                Key=key,
                UploadId=upload_id,
                PartNumberMarker=after or None,
                MaxParts=min(limit - len(found), PAGE),
            )
            found += [
                Part(
                    each["PartNumber"],
                    each["Size"],
                    each["ETag"].strip('"'),
                    each["LastModified"].timestamp(),
                    {name: each[f"Checksum{name}"] for name in ALGORITHMS if f"Checksum{name}" in each},
                )
                for each in reply.get("Parts", [])
            ]
            more = bool(reply.get("IsTruncated"))
            after = reply.get("NextPartNumberMarker", 0)
        return found

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
        # An S3 wants to be told the checksums that it computed of the parts.
        there = {
            (part.number, part.etag): part.checksums
            for part in await self.list_parts(bucket, key, upload_id, limit=MAX_PARTS)
        }
        named: list[dict[str, Any]] = []
        for number, quoted in parts:
            etag = quoted.strip('"')
            sums = {f"Checksum{name}": value for name, value in there.get((number, etag), {}).items()}
            named.append({"PartNumber": number, "ETag": f'"{etag}"', **sums})
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
        _remember(self._completed, upload_id, info)
        return info

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        await self._call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)
        self._options.pop(upload_id, None)

    async def local_paths(self, objects: Sequence[ObjectInfo]) -> Sequence[str | None]:
        return [None] * len(objects)

    async def close(self) -> None:
        self._threads.shutdown()
        self._client.close()


async def _nothing() -> AsyncIterator[bytes]:
    for piece in list[bytes]():
        yield piece


def _remember(known: dict[str, Result], upload_id: str, value: Result) -> None:
    """Keep what is known of the last uploads."""
    while len(known) >= UPLOADS_REMEMBERED:
        known.pop(next(iter(known)))
    known[upload_id] = value


def _stored(storage_class: str | None) -> dict[str, str]:
    return {} if storage_class in (None, "STANDARD") else {"x-amz-storage-class": str(storage_class)}


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
    code = _OF_STATUS.get(code, code)
    if code in _SETTINGS_ARE_WRONG or code in ("301", "400"):
        return Unavailable(
            f"The external S3 refuses to talk to Clary ({code}: {message}). Its operator should look at the "
            "settings objects_s3_endpoint, objects_s3_region, objects_s3_access_key_id and "
            "objects_s3_secret_access_key.",
            code="ServiceUnavailable",
            status=503,
        )
    known = ("Code", "Message", "RequestId", "HostId", "Type")
    fields = {name: value for name, value in reply["Error"].items() if name not in known}
    kinds: dict[int, type[Fault]] = {403: AccessDenied, 404: NotFound, 409: Conflict, 412: Conflict}
    kind = Unavailable if status >= 500 else kinds.get(status, Invalid)
    return kind(message or code, code=code, status=status, fields=fields)
