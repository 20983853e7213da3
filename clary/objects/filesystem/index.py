"""The index of the embedded store: which bucket holds which keys, and which blob each key's bytes are in.

SQLite with ``synchronous=FULL``; keys are kept as UTF-8 bytes, so that their order is S3's.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from clary.faults import NotFound
from clary.objects.object_store import Bucket, Listing, MultipartUpload, ObjectInfo, Part, PutOptions

BUSY_TIMEOUT_SECONDS = 30.0
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE buckets (
  name TEXT PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, created_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE settings (
  bucket TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (bucket, name)
) WITHOUT ROWID;
CREATE TABLE objects (
  bucket TEXT NOT NULL, key BLOB NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  modified_at REAL NOT NULL, details TEXT NOT NULL, PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE uploads (
  id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key BLOB NOT NULL, started_at REAL NOT NULL,
  options TEXT NOT NULL, completed TEXT
) WITHOUT ROWID;
CREATE INDEX uploads_of_bucket ON uploads (bucket, key, id);
CREATE TABLE parts (
  upload TEXT NOT NULL, number INTEGER NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL,
  etag TEXT NOT NULL, modified_at REAL NOT NULL, checksums TEXT NOT NULL, PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""
_DETAILS = ("content_headers", "metadata", "tags", "checksums", "checksum_type", "part_sizes")

Result = TypeVar("Result")


class Index:
    """Runs statements in one thread, in the order they were asked for."""

    def __init__(self, path: Path) -> None:
        """Raises ``RuntimeError`` if a newer Clary made the file."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="objects")
        self._connection = self._thread.submit(_connect, path).result()

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work``. If the caller is cancelled it is done all the same, and the result is lost."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)

    async def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work`` in a transaction that is on the disk when this returns."""

        def transaction(connection: sqlite3.Connection) -> Result:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
                return result
            except BaseException:
                connection.execute("ROLLBACK")
                raise

        return await self.read(transaction)

    async def close(self) -> None:
        await self.read(lambda connection: connection.close())
        self._thread.shutdown()


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _SCHEMA_VERSION:
        connection.execute("ROLLBACK")
        raise RuntimeError(f"{path} was made by a newer Clary (schema {version}): upgrade.")
    if version == 0:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    connection.execute("COMMIT")
    return connection


def encode_key(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def no_such_bucket(name: str) -> NotFound:
    return NotFound(
        "The specified bucket does not exist", code="NoSuchBucket", status=404, fields={"BucketName": name}
    )


def no_such_key(key: str) -> NotFound:
    return NotFound("The specified key does not exist.", code="NoSuchKey", status=404, fields={"Key": key})


def no_such_upload(upload_id: str) -> NotFound:
    return NotFound(
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been "
        "aborted or completed.",
        code="NoSuchUpload",
        status=404,
        fields={"UploadId": upload_id},
    )


def get_bucket(connection: sqlite3.Connection, name: str) -> Bucket:
    """Raises `NotFound`."""
    row = connection.execute(
        "SELECT name, account, region, created_at FROM buckets WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        raise no_such_bucket(name)
    return Bucket(*row)


def find_object(connection: sqlite3.Connection, bucket: str, key: str) -> tuple[ObjectInfo, str] | None:
    """The object and the name of its blob."""
    row = connection.execute(
        "SELECT key, blob, size, etag, modified_at, details FROM objects WHERE bucket = ? AND key = ?",
        (bucket, encode_key(key)),
    ).fetchone()
    return (_object(bucket, row), row[1]) if row else None


def get_object(connection: sqlite3.Connection, bucket: str, key: str) -> tuple[ObjectInfo, str]:
    """Raises `NotFound`."""
    get_bucket(connection, bucket)
    found = find_object(connection, bucket, key)
    if found is None:
        raise no_such_key(key)
    return found


def put_object(connection: sqlite3.Connection, info: ObjectInfo, blob: str) -> None:
    details = {name: value for name, value in asdict(info).items() if name in _DETAILS}
    connection.execute(
        "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            info.bucket,
            encode_key(info.key),
            blob,
            info.size_bytes,
            info.etag,
            info.modified_at,
            json.dumps(details),
        ),
    )


def _object(bucket: str, row: Sequence[Any]) -> ObjectInfo:
    details = json.loads(row[5])
    details["part_sizes"] = tuple(details["part_sizes"])
    return ObjectInfo(
        bucket=bucket,
        key=row[0].decode("utf-8", "surrogatepass"),
        size_bytes=row[2],
        etag=row[3],
        modified_at=row[4],
        **details,
    )


def list_objects(
    connection: sqlite3.Connection, bucket: str, prefix: str, delimiter: str, after: str, limit: int
) -> Listing:
    """A page of keys; behind a common prefix the search goes on past all that begin with it."""
    get_bucket(connection, bucket)
    start, low = encode_key(prefix), encode_key(after)
    mark = encode_key(delimiter)
    end = _past(start)
    inclusive = low < start
    position = max(start, low)
    if mark and low.startswith(start):
        # A page may have ended with a common prefix: everything below it has been told.
        cut = low.find(mark, len(start))
        if cut >= 0 and low == low[: cut + len(mark)]:
            beyond = _past(low)
            if beyond is None:
                return Listing([], [], None)
            position, inclusive = beyond, True
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    last = b""
    while True:
        sign = ">=" if inclusive else ">"
        bounds = " AND key < ?" if end is not None else ""
        room = limit - len(objects) - len(prefixes) + 1
        rows = connection.execute(
            "SELECT key, blob, size, etag, modified_at, details FROM objects"
            f" WHERE bucket = ? AND key {sign} ?{bounds} ORDER BY key LIMIT ?",
            (bucket, position, *([end] if end is not None else []), room),
        ).fetchall()
        jumped = False
        for row in rows:
            key = bytes(row[0])
            if len(objects) + len(prefixes) == limit:
                return Listing(objects, prefixes, last.decode("utf-8", "surrogatepass"))
            cut = key.find(mark, len(start)) if mark else -1
            if cut < 0:
                objects.append(_object(bucket, row))
                last = position = key
                inclusive = False
                continue
            common = key[: cut + len(mark)]
            prefixes.append(common.decode("utf-8", "surrogatepass"))
            last = common
            beyond = _past(common)
            if beyond is None:
                return Listing(objects, prefixes, None)
            position, inclusive, jumped = beyond, True, True
            break
        if not jumped and len(rows) < room:
            return Listing(objects, prefixes, None)


def _past(prefix: bytes) -> bytes | None:
    """The first text that is behind everything that begins with ``prefix``; ``None`` if there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def put_upload(connection: sqlite3.Connection, upload: MultipartUpload) -> None:
    connection.execute(
        "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, NULL)",
        (
            upload.upload_id,
            upload.bucket,
            encode_key(upload.key),
            upload.started_at,
            json.dumps(asdict(upload.options)),
        ),
    )


def get_upload(
    connection: sqlite3.Connection, bucket: str, key: str, upload_id: str
) -> tuple[MultipartUpload, ObjectInfo | None]:
    """The upload, and the object it became if it was completed. Raises `NotFound`."""
    row = connection.execute(
        "SELECT id, bucket, key, started_at, options, completed FROM uploads WHERE id = ?", (upload_id,)
    ).fetchone()
    if row is None or row[1] != bucket or row[2] != encode_key(key):
        raise no_such_upload(upload_id)
    completed = None
    if row[5] is not None:
        document = json.loads(row[5])
        completed = ObjectInfo(**{**document, "part_sizes": tuple(document["part_sizes"])})
    return _upload(row), completed


def list_uploads(
    connection: sqlite3.Connection, bucket: str, prefix: str, after_key: str, after_upload: str, limit: int
) -> list[MultipartUpload]:
    get_bucket(connection, bucket)
    start = encode_key(prefix)
    rows = connection.execute(
        "SELECT id, bucket, key, started_at, options FROM uploads WHERE bucket = ? AND completed IS NULL"
        " AND (key, id) > (?, ?) AND substr(key, 1, ?) = ? ORDER BY key, id LIMIT ?",
        (bucket, encode_key(after_key), after_upload, len(start), start, limit),
    )
    return [_upload(row) for row in rows]


def _upload(row: Sequence[Any]) -> MultipartUpload:
    return MultipartUpload(
        row[0], row[1], row[2].decode("utf-8", "surrogatepass"), row[3], PutOptions(**json.loads(row[4]))
    )


def parts_of(connection: sqlite3.Connection, upload_id: str) -> dict[int, tuple[Part, str]]:
    """The parts of an upload and their blobs, by number."""
    rows = connection.execute(
        "SELECT number, size, etag, modified_at, checksums, blob FROM parts WHERE upload = ? ORDER BY number",
        (upload_id,),
    )
    return {row[0]: (Part(row[0], row[1], row[2], row[3], json.loads(row[4])), row[5]) for row in rows}


def known_blobs(connection: sqlite3.Connection) -> set[str]:
    """Every blob that something refers to."""
    rows = connection.execute("SELECT blob FROM objects UNION SELECT blob FROM parts")
    return {row[0] for row in rows}
