"""The index of the embedded store: which bucket holds which keys, and which blob each key's bytes are in.

A SQLite file of its own, flushed with every write. Keys are kept as UTF-8 bytes, so that their order is S3's.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from clary.faults import Unavailable
from clary.objects.object_store import Bucket, Listing, MultipartUpload, ObjectInfo, Part, PutOptions
from clary.objects.refusals import no_such_bucket, no_such_key, no_such_upload
from clary.sqlite_file import SqliteFile

KEPT_COMPLETIONS = 1000  # completed uploads remembered, so that a repeated call gets its answer
_DETAILS = ("content_headers", "metadata", "tags", "checksums", "checksum_type")
# What SQLite says when the disk, not the statement, is to blame.
_DISK_TROUBLE = (
    "database or disk is full",
    "disk i/o error",
    "attempt to write a readonly database",
    "unable to open database file",
    "database is locked",
)

Result = TypeVar("Result")


class Index:
    """The SQLite file: one thread writes, one reads beside it."""

    def __init__(self, path: Path) -> None:
        """Raises ``RuntimeError`` if a newer Clary made the file."""
        self._file = SqliteFile(path, "clary.objects.filesystem.migrations")

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work``, which sees every write that returned."""
        try:
            return await self._file.read(work)
        except sqlite3.OperationalError as error:
            raise _fault(error) from error

    async def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work``; it is on the disk, all of it, when this returns. What it raises undoes it.

        Raises `Unavailable` if the disk takes no more; nothing is changed then.
        """
        try:
            return await self._file.write(work)
        except sqlite3.OperationalError as error:
            raise _fault(error) from error

    async def close(self) -> None:
        await self._file.close()


def _fault(error: sqlite3.OperationalError) -> Exception:
    """The disk's trouble as a fault; anything else is a bug and stays what it is."""
    text = str(error).lower()
    if not any(trouble in text for trouble in _DISK_TROUBLE):
        return error
    full = "disk is full" in text
    said = (
        "The disk that holds the objects is full." if full else f"The objects' index cannot be used: {error}."
    )
    return Unavailable(said, code="ServiceUnavailable", status=503)


def encode_key(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


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


def put_object(
    connection: sqlite3.Connection, info: ObjectInfo, blob: str, part_sizes: Sequence[int] = ()
) -> None:
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
            json.dumps({**details, "part_sizes": list(part_sizes)}),
        ),
    )


def set_tags(connection: sqlite3.Connection, bucket: str, key: str, tags: Mapping[str, str]) -> None:
    """Raises `NotFound`."""
    details = {**_details(connection, bucket, key), "tags": dict(tags)}
    connection.execute(
        "UPDATE objects SET details = ? WHERE bucket = ? AND key = ?",
        (json.dumps(details), bucket, encode_key(key)),
    )


def part_sizes(connection: sqlite3.Connection, bucket: str, key: str) -> list[int]:
    """The sizes of the parts an object was made of, if it was. Raises `NotFound`."""
    return list(_details(connection, bucket, key)["part_sizes"])


def _details(connection: sqlite3.Connection, bucket: str, key: str) -> dict[str, Any]:
    get_bucket(connection, bucket)
    row = connection.execute(
        "SELECT details FROM objects WHERE bucket = ? AND key = ?", (bucket, encode_key(key))
    ).fetchone()
    if row is None:
        raise no_such_key(key)
    return dict(json.loads(row[0]))


def _object(bucket: str, row: Sequence[Any]) -> ObjectInfo:
    details = json.loads(row[5])
    parts = details.pop("part_sizes")
    return ObjectInfo(
        bucket=bucket,
        key=row[0].decode("utf-8", "surrogatepass"),
        size_bytes=row[2],
        etag=row[3],
        modified_at=row[4],
        part_count=len(parts),
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
            behind = _past(low)
            if behind is None:
                return Listing([], [], None)
            position, inclusive = behind, True
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    last = b""
    while True:
        beyond: bytes | None = None
        for row in _from(connection, bucket, position, inclusive, end):
            key = bytes(row[0])
            if len(objects) + len(prefixes) == limit:
                return Listing(objects, prefixes, last.decode("utf-8", "surrogatepass"))
            cut = key.find(mark, len(start)) if mark else -1
            if cut < 0:
                objects.append(_object(bucket, row))
                last = key
                continue
            last = key[: cut + len(mark)]
            prefixes.append(last.decode("utf-8", "surrogatepass"))
            beyond = _past(last)
            break  # one step over the prefix, however many keys it has
        if beyond is None:
            return Listing(objects, prefixes, None)
        position, inclusive = beyond, True


def _from(
    connection: sqlite3.Connection, bucket: str, position: bytes, inclusive: bool, end: bytes | None
) -> Iterator[Sequence[Any]]:
    """The rows of the keys from ``position`` up to ``end``, read as they are asked for."""
    bounds = " AND key < ?" if end is not None else ""
    rows = connection.execute(
        "SELECT key, blob, size, etag, modified_at, details FROM objects"
        f" WHERE bucket = ? AND key {'>=' if inclusive else '>'} ?{bounds} ORDER BY key",
        (bucket, position, *([end] if end is not None else [])),
    )
    try:
        yield from rows
    finally:
        rows.close()


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
        sizes = document.pop("part_sizes", None)  # what the first index kept instead of their number
        if sizes is not None:
            document["part_count"] = len(sizes)
        completed = ObjectInfo(**document)
    return _upload(row), completed


def keep_completion(connection: sqlite3.Connection, upload_id: str, info: ObjectInfo) -> None:
    """Let go of an upload's parts and remember what it became, as long as it is among the last so."""
    connection.execute("DELETE FROM parts WHERE upload = ?", (upload_id,))
    connection.execute("UPDATE uploads SET completed = ? WHERE id = ?", (json.dumps(asdict(info)), upload_id))
    connection.execute(
        "DELETE FROM uploads WHERE completed IS NOT NULL AND id NOT IN (SELECT id FROM uploads"
        " WHERE completed IS NOT NULL ORDER BY started_at DESC LIMIT ?)",
        (KEPT_COMPLETIONS,),
    )


def list_uploads(
    connection: sqlite3.Connection, bucket: str, prefix: str, after_key: str, after_upload: str, limit: int
) -> list[MultipartUpload]:
    get_bucket(connection, bucket)
    start = encode_key(prefix)
    end = _past(start)
    bounds = " AND key < ?" if end is not None else ""
    rows = connection.execute(
        "SELECT id, bucket, key, started_at, options FROM uploads WHERE bucket = ? AND completed IS NULL"
        f" AND (key, id) > (?, ?) AND key >= ?{bounds} ORDER BY key, id LIMIT ?",
        (bucket, encode_key(after_key), after_upload, start, *([end] if end is not None else []), limit),
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


def known_blobs(connection: sqlite3.Connection) -> Iterator[str]:
    """Every blob that something refers to, by name: a million of them need no memory."""
    for row in connection.execute("SELECT blob FROM objects UNION ALL SELECT blob FROM parts ORDER BY 1"):
        yield row[0]
