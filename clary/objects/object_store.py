"""The contract of an object store: buckets and blobs behind the S3 operations.

`clary.testing.object_store_conformance` holds the facts every implementation must show.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MAX_KEY_BYTES = 1024
MAX_PARTS = 10_000
MAX_OBJECT_BYTES = 5 * 1024**4


@dataclass(frozen=True)
class Bucket:
    """A bucket; names are unique over all accounts and regions, as in S3."""

    name: str
    account: str
    region: str
    created_at: float


@dataclass(frozen=True)
class ObjectInfo:
    """An object without its bytes; ``checksums`` maps the algorithm (``CRC32``) to base64.

    ``part_count`` is how many parts it was made of, 0 for an object that was put at once.
    """

    bucket: str
    key: str
    size_bytes: int
    etag: str
    modified_at: float
    content_headers: Mapping[str, str] = field(default_factory=dict)  # content-type, cache-control, ...
    metadata: Mapping[str, str] = field(default_factory=dict)  # x-amz-meta-*, names in lower case
    tags: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    checksum_type: str = "FULL_OBJECT"
    part_count: int = 0


@dataclass(frozen=True)
class PutOptions:
    """What is stored with an object, and the conditions under which.

    ``checksums`` are what the caller promised (algorithm to base64); ``checksum_algorithm`` is computed
    and kept even when no value was promised. ``checksum_type`` of a multipart upload tells whether it is of
    the whole (``FULL_OBJECT``) or of the parts' own (``COMPOSITE``); ``None`` is the latter, except for
    CRC64NVME, which is always of the whole.
    ``if_match`` and ``if_none_match`` ("*") guard the write.
    """

    content_headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checksum_algorithm: str | None = None
    checksum_type: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)
    content_md5: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True)
class Listing:
    """A page of keys in UTF-8 byte order. ``next_marker`` is the last key or common prefix, if truncated."""

    objects: Sequence[ObjectInfo]
    common_prefixes: Sequence[str]
    next_marker: str | None


@dataclass(frozen=True)
class MultipartUpload:
    upload_id: str
    bucket: str
    key: str
    started_at: float
    options: PutOptions


@dataclass(frozen=True)
class Part:
    number: int
    size_bytes: int
    etag: str
    modified_at: float
    checksums: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """Keeps buckets and objects.

    Writes are atomic and durable: once a put returns, the object is on the disk whole; before, it is absent
    (or what it was). Nothing holds a whole object in memory. Missing things raise `NotFound` with S3's
    codes (``NoSuchBucket``, ``NoSuchKey``, ``NoSuchUpload``); broken promises `Invalid` (``BadDigest``),
    failed conditions `Conflict` (``PreconditionFailed``, status 412).
    """

    async def create_bucket(self, name: str, *, account: str, region: str) -> Bucket: ...
    async def find_bucket(self, name: str) -> Bucket | None: ...
    async def list_buckets(self, account: str) -> Sequence[Bucket]: ...
    async def delete_bucket(self, name: str) -> None: ...

    async def bucket_setting(self, bucket: str, name: str) -> str | None:
        """A stored sub-resource of the bucket (``policy``, ``cors`` ...), as text."""

    async def set_bucket_setting(self, bucket: str, name: str, value: str | None) -> None: ...

    async def put(
        self, bucket: str, key: str, body: AsyncIterator[bytes], options: PutOptions
    ) -> ObjectInfo: ...
    async def head(self, bucket: str, key: str) -> ObjectInfo: ...

    async def read(
        self, bucket: str, key: str, *, first: int = 0, last: int | None = None
    ) -> tuple[ObjectInfo, AsyncIterator[bytes]]:
        """The bytes ``first`` to ``last`` (inclusive) of one version, whatever is written meanwhile."""

    async def locate_part(self, bucket: str, key: str, number: int) -> tuple[ObjectInfo, int, int]:
        """Where part ``number`` of an object begins, and its size; an object that was put at once is part 1.

        Raises `Invalid` (``InvalidPartNumber``, status 416) for a part that it does not have.
        """

    async def delete(self, bucket: str, key: str, *, if_match: str | None = None) -> None:
        """Deleting what is not there is not an error, unless ``if_match`` demands a version of it."""

    async def copy(
        self, source_bucket: str, source_key: str, bucket: str, key: str, options: PutOptions | None
    ) -> ObjectInfo:
        """Copy; ``options`` ``None`` keeps the source's metadata."""

    async def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None: ...

    async def list(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing: ...

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> MultipartUpload: ...
    async def find_upload(self, bucket: str, key: str, upload_id: str) -> MultipartUpload: ...
    async def list_uploads(
        self, bucket: str, *, prefix: str = "", after_key: str = "", after_upload: str = "", limit: int = 1000
    ) -> Sequence[MultipartUpload]: ...
    async def put_part(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterator[bytes],
        options: PutOptions,
    ) -> Part: ...
    async def list_parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]: ...
    async def complete_upload(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[tuple[int, str]], options: PutOptions
    ) -> ObjectInfo:
        """Make the object of the named parts (number, ETag). A repeated call gives the same result.

        ``options`` holds conditions and promised checksums: of the whole, or, with ``-`` and the number of
        parts behind it, of the parts' own.
        """

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None: ...

    async def local_paths(self, objects: Sequence[ObjectInfo]) -> Sequence[str | None]:
        """For each version a file on this machine that holds exactly its bytes and never changes.

        ``None`` where there is no such file, or no longer. The file may go at any time, when the object is
        written anew or deleted: a hard link keeps its bytes. Whoever may not write it has to be kept from it.
        """

    async def close(self) -> None: ...
