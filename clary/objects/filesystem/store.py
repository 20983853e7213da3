"""The embedded object store: what it promises, made of blobs and an index.

A write makes the blob first and the row after it, so a crash in between leaves a file that nothing refers to
and the next start sweeps away. A blob is removed after the row that named it: a reader that has opened it
reads on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clary.clock import Clock, SystemClock
from clary.faults import Conflict, Internal, Invalid
from clary.objects.filesystem import index as rows
from clary.objects.filesystem.blobs import BlobFolder, read_file
from clary.objects.filesystem.index import Index
from clary.objects.filesystem.to_the_end import to_the_end
from clary.objects.keys import (
    check_bucket_name,
    check_key,
    composite_checksum,
    multipart_etag,
)
from clary.objects.object_store import (
    MAX_OBJECT_BYTES,
    Bucket,
    Listing,
    MultipartUpload,
    ObjectInfo,
    Part,
    PutOptions,
)
from clary.objects.refusals import (
    bad_checksum,
    bucket_exists,
    check_part_number,
    check_promises,
    invalid_part,
    no_such_key,
    no_such_part,
    no_such_upload,
    precondition_failed,
)

SMALLEST_PART_BYTES = 5 * 1024 * 1024  # of all but the last
READ_ATTEMPTS = 20  # of finding a file that is replaced at the same time


class FilesystemObjectStore:
    """`clary.objects.object_store.ObjectStore` below the folder ``root``."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        """Opens the store; see `sweep`."""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._clock = clock or SystemClock()
        self._index = Index(root / "index.sqlite")
        self._blobs = BlobFolder(root / "blobs")
        # Held by whoever changes or joins an upload's parts: no part is removed while it is being read.
        self._uploads: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def sweep(self) -> int:
        """Remove files that nothing refers to. Only while nothing is being written."""
        return await self._index.read(lambda connection: self._blobs.sweep(rows.known_blobs(connection)))

    async def create_bucket(self, name: str, *, account: str, region: str) -> Bucket:
        check_bucket_name(name)
        bucket = Bucket(name, account, region, self._clock.now())

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    "INSERT INTO buckets VALUES (?, ?, ?, ?)", (name, account, region, bucket.created_at)
                )
            except sqlite3.IntegrityError:
                owner = rows.get_bucket(connection, name).account
                raise bucket_exists(name, is_callers=owner == account) from None

        await self._index.write(work)
        return bucket

    async def find_bucket(self, name: str) -> Bucket | None:
        def work(connection: sqlite3.Connection) -> Bucket | None:
            row = connection.execute(
                "SELECT name, account, region, created_at FROM buckets WHERE name = ?", (name,)
            ).fetchone()
            return Bucket(*row) if row else None

        return await self._index.read(work)

    async def list_buckets(self, account: str) -> Sequence[Bucket]:
        def work(connection: sqlite3.Connection) -> list[Bucket]:
            found = connection.execute(
                "SELECT name, account, region, created_at FROM buckets WHERE account = ? ORDER BY name",
                (account,),
            )
            return [Bucket(*row) for row in found]

        return await self._index.read(work)

    async def delete_bucket(self, name: str) -> None:
        def work(connection: sqlite3.Connection) -> list[str]:
            rows.get_bucket(connection, name)
            if connection.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (name,)).fetchone():
                raise Conflict(
                    "The bucket you tried to delete is not empty",
                    code="BucketNotEmpty",
                    status=409,
                    fields={"BucketName": name},
                )
            blobs = [
                row[0]
                for row in connection.execute(
                    "SELECT blob FROM parts JOIN uploads ON uploads.id = upload WHERE bucket = ?", (name,)
                )
            ]
            connection.execute(
                "DELETE FROM parts WHERE upload IN (SELECT id FROM uploads WHERE bucket = ?)", (name,)
            )
            for table in ("uploads", "settings"):
                connection.execute(f"DELETE FROM {table} WHERE bucket = ?", (name,))
            connection.execute("DELETE FROM buckets WHERE name = ?", (name,))
            return blobs

        await to_the_end(self._write_and_remove(work))

    async def _write_and_remove(self, work: Callable[[sqlite3.Connection], Sequence[str]]) -> None:
        """Run ``work`` in a transaction, then remove the blobs that it says nothing refers to any more."""
        await self._blobs.remove_all(await self._index.write(work))

    async def bucket_setting(self, bucket: str, name: str) -> str | None:
        def work(connection: sqlite3.Connection) -> str | None:
            rows.get_bucket(connection, bucket)
            row = connection.execute(
                "SELECT value FROM settings WHERE bucket = ? AND name = ?", (bucket, name)
            ).fetchone()
            return str(row[0]) if row else None

        return await self._index.read(work)

    async def set_bucket_setting(self, bucket: str, name: str, value: str | None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            rows.get_bucket(connection, bucket)
            if value is None:
                connection.execute("DELETE FROM settings WHERE bucket = ? AND name = ?", (bucket, name))
            else:
                connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", (bucket, name, value))

        await self._index.write(work)

    async def put(self, bucket: str, key: str, body: AsyncIterator[bytes], options: PutOptions) -> ObjectInfo:
        check_key(key)
        await self._index.read(lambda connection: rows.get_bucket(connection, bucket))
        blob = await self._blobs.write(body, _algorithms(options))
        try:
            check_promises(options.checksums, blob.checksums, options.content_md5, blob.md5)
            info = ObjectInfo(
                bucket=bucket,
                key=key,
                size_bytes=blob.size_bytes,
                etag=blob.md5,
                modified_at=self._clock.now(),
                content_headers=options.content_headers,
                metadata=options.metadata,
                tags=options.tags,
                checksums=blob.checksums,
            )
        except BaseException:
            self._blobs.remove(blob.name)
            raise
        await to_the_end(self._publish(info, blob.name, options))
        return info

    async def _publish(
        self,
        info: ObjectInfo,
        blob: str,
        options: PutOptions,
        *,
        upload: str | None = None,
        part_sizes: Sequence[int] = (),
    ) -> None:
        """Make ``blob`` the object's bytes, if the conditions hold; else remove it."""

        def work(connection: sqlite3.Connection) -> list[str]:
            rows.get_bucket(connection, info.bucket)
            found = rows.find_object(connection, info.bucket, info.key)
            _check_conditions(found[0] if found else None, info.key, options)
            rows.put_object(connection, info, blob, part_sizes)
            gone = [found[1]] if found else []
            if upload is not None:
                rows.get_upload(connection, info.bucket, info.key, upload)
                gone += [name for _, name in rows.parts_of(connection, upload).values()]
                rows.keep_completion(connection, upload, info)
            return gone

        try:
            gone = await self._index.write(work)
        except BaseException:
            self._blobs.remove(blob)
            raise
        await self._blobs.remove_all(gone)

    async def head(self, bucket: str, key: str) -> ObjectInfo:
        return (await self._found(bucket, key))[0]

    async def read(
        self, bucket: str, key: str, *, first: int = 0, last: int | None = None
    ) -> tuple[ObjectInfo, AsyncIterator[bytes]]:
        attempt = 0
        while True:
            info, blob = await self._found(bucket, key)
            try:
                return info, read_file(self._blobs.open(blob), first, last)
            except FileNotFoundError:
                # Replaced between the look at the row and at the file: the new row names a new file.
                attempt += 1
                if attempt == READ_ATTEMPTS:
                    raise Internal(
                        f"The bytes of {bucket}/{key} are not on the disk: a file named {blob} is missing."
                    ) from None

    async def _found(self, bucket: str, key: str) -> tuple[ObjectInfo, str]:
        return await self._index.read(lambda connection: rows.get_object(connection, bucket, key))

    async def locate_part(self, bucket: str, key: str, number: int) -> tuple[ObjectInfo, int, int]:
        check_part_number(number)

        def work(connection: sqlite3.Connection) -> tuple[ObjectInfo, list[int]]:
            info, _ = rows.get_object(connection, bucket, key)
            return info, rows.part_sizes(connection, bucket, key) or [info.size_bytes]

        info, sizes = await self._index.read(work)
        if number > len(sizes):
            raise no_such_part(number)
        return info, sum(sizes[: number - 1]), sizes[number - 1]

    async def delete(self, bucket: str, key: str, *, if_match: str | None = None) -> None:
        def work(connection: sqlite3.Connection) -> list[str]:
            rows.get_bucket(connection, bucket)
            found = rows.find_object(connection, bucket, key)
            _check_conditions(found[0] if found else None, key, PutOptions(if_match=if_match))
            if found is None:
                return []
            connection.execute(
                "DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, rows.encode_key(key))
            )
            return [found[1]]

        await to_the_end(self._write_and_remove(work))

    async def copy(
        self, source_bucket: str, source_key: str, bucket: str, key: str, options: PutOptions | None
    ) -> ObjectInfo:
        check_key(key)
        info, blob = await self._found(source_bucket, source_key)
        algorithm = next(iter(info.checksums), None)
        if options is None:
            options = PutOptions(
                content_headers=info.content_headers,
                metadata=info.metadata,
                tags=info.tags,
                checksum_algorithm=algorithm,
            )
        elif options.checksum_algorithm is None:
            options = replace(options, checksum_algorithm=algorithm)
        # A copy of parts gets another ETag, and a new checksum has to be computed: both need the bytes.
        same = info.part_count == 0 and options.checksum_algorithm == algorithm and not options.checksums
        link = await self._blobs.link(blob) if same else None
        if link is None:
            _, body = await self.read(source_bucket, source_key)
            return await self.put(bucket, key, body, options)
        copied = replace(
            info,
            bucket=bucket,
            key=key,
            modified_at=self._clock.now(),
            content_headers=options.content_headers,
            metadata=options.metadata,
            tags=options.tags,
        )
        await to_the_end(self._publish(copied, link, options))
        return copied

    async def set_tags(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        await self._index.write(lambda connection: rows.set_tags(connection, bucket, key, tags))

    async def list(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", limit: int = 1000
    ) -> Listing:
        return await self._index.read(
            lambda connection: rows.list_objects(connection, bucket, prefix, delimiter, after, limit)
        )

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> MultipartUpload:
        check_key(key)
        upload = MultipartUpload(secrets.token_hex(32), bucket, key, self._clock.now(), options)

        def work(connection: sqlite3.Connection) -> None:
            rows.get_bucket(connection, bucket)
            rows.put_upload(connection, upload)

        await self._index.write(work)
        return upload

    async def find_upload(self, bucket: str, key: str, upload_id: str) -> MultipartUpload:
        def work(connection: sqlite3.Connection) -> MultipartUpload:
            upload, completed = rows.get_upload(connection, bucket, key, upload_id)
            if completed is not None:
                raise no_such_upload(upload_id)
            return upload

        return await self._index.read(work)

    async def list_uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        after_key: str = "",
        after_upload: str = "",
        limit: int = 1000,
    ) -> Sequence[MultipartUpload]:
        return await self._index.read(
            lambda connection: rows.list_uploads(connection, bucket, prefix, after_key, after_upload, limit)
        )

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
        upload = await self.find_upload(bucket, key, upload_id)
        algorithms = {*_algorithms(options), *_algorithms(upload.options)}
        blob = await self._blobs.write(body, algorithms)
        part = Part(number, blob.size_bytes, blob.md5, self._clock.now(), blob.checksums)

        def work(connection: sqlite3.Connection) -> list[str]:
            if rows.get_upload(connection, bucket, key, upload_id)[1] is not None:
                raise no_such_upload(upload_id)
            old = connection.execute(
                "SELECT blob FROM parts WHERE upload = ? AND number = ?", (upload_id, number)
            ).fetchone()
            connection.execute(
                "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    upload_id,
                    number,
                    blob.name,
                    part.size_bytes,
                    part.etag,
                    part.modified_at,
                    json.dumps(part.checksums),
                ),
            )
            return [old[0]] if old else []

        async def publish() -> None:
            try:
                check_promises(options.checksums, blob.checksums, options.content_md5, blob.md5)
                async with self._lock(upload_id):
                    await self._write_and_remove(work)
            except BaseException:
                self._blobs.remove(blob.name)
                raise

        await to_the_end(publish())
        return part

    def _lock(self, upload_id: str) -> asyncio.Lock:
        lock = self._uploads.get(upload_id)
        if lock is None:
            lock = self._uploads[upload_id] = asyncio.Lock()
        return lock

    async def list_parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Part]:
        await self.find_upload(bucket, key, upload_id)
        found = await self._index.read(lambda connection: rows.parts_of(connection, upload_id))
        return [part for number, (part, _) in found.items() if number > after][:limit]

    async def complete_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        options: PutOptions,
    ) -> ObjectInfo:
        async with self._lock(upload_id):
            return await self._complete(bucket, key, upload_id, parts, options)

    async def _complete(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        options: PutOptions,
    ) -> ObjectInfo:
        upload, completed = await self._index.read(
            lambda connection: rows.get_upload(connection, bucket, key, upload_id)
        )
        if completed is not None:
            return completed
        there = await self._index.read(lambda connection: rows.parts_of(connection, upload_id))
        chosen = _chosen(parts, there)
        algorithm = upload.options.checksum_algorithm
        composite = {name: value for name, value in options.checksums.items() if "-" in value}
        whole = {name: value for name, value in options.checksums.items() if name not in composite}
        full = bool(whole) or algorithm == "CRC64NVME" or upload.options.checksum_type == "FULL_OBJECT"
        algorithms = set(whole) | ({algorithm} if algorithm and full else set())
        blob = await self._blobs.join([name for _, name in chosen], algorithms)
        try:
            check_promises(whole, blob.checksums, None, "")
            checksums = dict(blob.checksums)
            of_parts = [part.checksums for part, _ in chosen]
            for name, value in composite.items():
                if value != composite_checksum(name, of_parts):
                    raise bad_checksum(name)
            if algorithm and not full:
                computed = composite_checksum(algorithm, of_parts)
                checksums = {algorithm: computed} if computed else {}
            info = ObjectInfo(
                bucket=bucket,
                key=key,
                size_bytes=blob.size_bytes,
                etag=multipart_etag([part.etag for part, _ in chosen]),
                modified_at=self._clock.now(),
                content_headers=upload.options.content_headers,
                metadata=upload.options.metadata,
                tags=upload.options.tags,
                checksums=checksums,
                checksum_type="FULL_OBJECT" if full else "COMPOSITE",
                part_count=len(chosen),
            )
        except BaseException:
            self._blobs.remove(blob.name)
            raise
        sizes = [part.size_bytes for part, _ in chosen]
        await to_the_end(self._publish(info, blob.name, options, upload=upload_id, part_sizes=sizes))
        return info

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        def work(connection: sqlite3.Connection) -> list[str]:
            rows.get_upload(connection, bucket, key, upload_id)
            blobs = [name for _, name in rows.parts_of(connection, upload_id).values()]
            connection.execute("DELETE FROM parts WHERE upload = ?", (upload_id,))
            connection.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
            return blobs

        async with self._lock(upload_id):
            await to_the_end(self._write_and_remove(work))

    async def local_paths(self, objects: Sequence[ObjectInfo]) -> Sequence[str | None]:
        def work(connection: sqlite3.Connection) -> list[str | None]:
            paths: list[str | None] = []
            for info in objects:
                found = rows.find_object(connection, info.bucket, info.key)
                same = found and _version(found[0]) == _version(info)
                paths.append(str(self._blobs.path(found[1])) if found and same else None)
            return paths

        return await self._index.read(work)

    async def close(self) -> None:
        await self._index.close()


def _version(info: ObjectInfo) -> tuple[str, int, float]:
    return info.etag, info.size_bytes, info.modified_at


def _algorithms(options: PutOptions) -> set[str]:
    return {*options.checksums, *([options.checksum_algorithm] if options.checksum_algorithm else [])}


def _check_conditions(current: ObjectInfo | None, key: str, options: PutOptions) -> None:
    """Raises what S3 answers when a conditional write does not find what it asked for."""
    if options.if_none_match is not None and current is not None:
        raise precondition_failed("If-None-Match")
    if options.if_match is not None:
        if current is None:
            raise no_such_key(key)
        if options.if_match.strip('"') not in (current.etag, "*"):
            raise precondition_failed("If-Match")


def _chosen(
    wanted: Sequence[tuple[int, str]], there: Mapping[int, tuple[Part, str]]
) -> list[tuple[Part, str]]:
    """The parts a completion names. Raises `Invalid` for wrong order or size, or parts not there."""
    if not wanted:
        raise Invalid("You must specify at least one part", code="MalformedXML", status=400)
    numbers = [number for number, _ in wanted]
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise Invalid(
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
            code="InvalidPartOrder",
            status=400,
        )
    chosen = []
    for number, etag in wanted:
        found = there.get(number)
        if found is None or found[0].etag != etag.strip('"'):
            raise invalid_part(number)
        chosen.append(found)
    size = sum(part.size_bytes for part, _ in chosen)
    if size > MAX_OBJECT_BYTES:
        raise Invalid(
            "Your proposed upload exceeds the maximum allowed object size.",
            code="EntityTooLarge",
            status=400,
            fields={"ProposedSize": size, "MaxSizeAllowed": MAX_OBJECT_BYTES},
        )
    for part, _ in chosen[:-1]:
        if part.size_bytes < SMALLEST_PART_BYTES:
            raise Invalid(
                "Your proposed upload is smaller than the minimum allowed size",
                code="EntityTooSmall",
                status=400,
                fields={"PartNumber": part.number, "ProposedSize": part.size_bytes},
            )
    return chosen
