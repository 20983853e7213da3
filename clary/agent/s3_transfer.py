"""S3 to and from files: bounded, ranged, parallel, patient."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from botocore.exceptions import ClientError

from clary.agent.aws import Clients, Patience
from clary.agent.failure import TaskFailed, TaskStopped

PART_BYTES = 16 * 1024 * 1024
MOST_PARTS = 10_000
_THREADS = 8
_READ_BYTES = 1 << 20
_PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class S3Location:
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Download:
    """An object and the file it becomes."""

    source: S3Location
    size_bytes: int
    etag: str
    target: Path


def s3_location(uri: str) -> S3Location:
    """Bucket and key of ``s3://bucket/key``. Raises `TaskFailed` if it is no such URI."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise TaskFailed(f"ClientError: {uri!r} is not an S3 URI: it must look like s3://bucket/key.")
    return S3Location(bucket, key)


class S3Transfer:
    """See the module. ``abandoned`` says that the work is pointless now: `TaskStopped` is raised."""

    def __init__(self, clients: Clients, patience: Patience, abandoned: Callable[[], bool]) -> None:
        self._s3 = clients.s3
        self.patience = patience
        self._abandoned = abandoned

    def objects(self, prefix: S3Location) -> Iterator[tuple[str, int, str]]:
        """(key, size, ETag) of the objects whose keys begin with the prefix, in key order."""
        token: dict[str, str] = {}
        while True:
            if self._abandoned():
                raise TaskStopped
            page = self._call(
                prefix, self._s3.list_objects_v2, Bucket=prefix.bucket, Prefix=prefix.key, **token
            )
            for found in page.get("Contents", []):
                yield found["Key"], found["Size"], found.get("ETag", "")
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def size(self, source: S3Location) -> tuple[int, str]:
        """Size and ETag of one object."""
        head = self._call(source, self._s3.head_object, Bucket=source.bucket, Key=source.key)
        return head["ContentLength"], head.get("ETag", "")

    def read(self, source: S3Location, limit_bytes: int) -> bytes:
        """A small object's content."""

        def get() -> bytes:
            reply = self._s3.get_object(Bucket=source.bucket, Key=source.key)
            with reply["Body"] as body:
                content: bytes = body.read(limit_bytes + 1)
            return content

        data: bytes = self._call(source, get)
        if len(data) > limit_bytes:
            raise TaskFailed(
                f"ClientError: {source.uri} is larger than the {limit_bytes} bytes allowed for it."
            )
        return data

    def get(self, source: S3Location, start: int, end: int, etag: str) -> bytes:
        """The bytes from ``start`` up to ``end`` of one version."""
        received = bytearray()
        self._receive(source, start, end, etag, received.extend)
        return bytes(received)

    def get_beginning(self, source: S3Location, most_bytes: int) -> tuple[bytes, int, str]:
        """The first bytes of an object, its size, and its ETag."""

        def get() -> tuple[bytes, int, str]:
            if self._abandoned():
                raise TaskStopped
            reply = self._s3.get_object(Bucket=source.bucket, Key=source.key)
            size: int = reply["ContentLength"]
            wanted = min(size, most_bytes)
            with reply["Body"] as body:
                content: bytes = body.read(wanted)
            if len(content) != wanted:
                raise OSError(f"{source.uri}: {len(content)} bytes came of {wanted}")
            return content, size, reply.get("ETag", "")

        found: tuple[bytes, int, str] = self._call(source, get)
        return found

    def download(self, downloads: Iterable[Download], progress: Callable[[int], None] | None = None) -> None:
        """Bring all of ``downloads``; folders of the targets must exist.

        ``progress`` is told about once a second, in this thread, how many bytes are there.
        """
        coming = _pieces(downloads)
        ahead = list(itertools.islice(coming, 2))
        if len(ahead) <= 1:
            for piece in ahead:
                self._bring(*piece)
            return
        pieces = _Shared(itertools.chain(ahead, coming))
        crew = [threading.Thread(target=self._bring_all, args=[pieces], daemon=True) for _ in range(_THREADS)]
        for thread in crew:
            thread.start()
        for thread in crew:
            while thread.is_alive():
                thread.join(_PROGRESS_SECONDS)
                if progress:
                    progress(pieces.done_bytes)
        if pieces.failure:
            raise pieces.failure

    def _bring_all(self, pieces: _Shared) -> None:
        try:
            while piece := pieces.take():
                self._bring(*piece)
                pieces.add(piece[2] - piece[1])
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            pieces.fail(error)

    def _bring(self, download: Download, start: int, end: int) -> None:
        descriptor = os.open(download.target, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        position = start

        def take(block: bytes) -> None:
            nonlocal position
            with disk_trouble(download.target):
                left = memoryview(block)
                while left:
                    written = os.pwrite(descriptor, left, position)
                    left, position = left[written:], position + written

        try:
            self._receive(download.source, start, end, download.etag, take)
        finally:
            os.close(descriptor)

    def _receive(
        self, source: S3Location, start: int, end: int, etag: str, take: Callable[[bytes], None]
    ) -> None:
        """Give ``take`` the bytes of a range; after a connection that broke, those that were not there."""
        position = start

        def receive() -> None:
            nonlocal position
            if self._abandoned():
                raise TaskStopped
            if position == end:
                return
            condition: dict[str, str] = {"IfMatch": etag} if etag else {}
            reply = self._s3.get_object(
                Bucket=source.bucket, Key=source.key, Range=f"bytes={position}-{end - 1}", **condition
            )
            with reply["Body"] as body:
                while block := body.read(_READ_BYTES):
                    take(block)
                    position += len(block)
                    if self._abandoned():
                        raise TaskStopped
            if position < end:
                raise OSError(f"{source.uri}: it broke off at byte {position} of {end}")
            if position > end:
                raise TaskFailed(f"InternalServerError: {source.uri}: more came than was asked for.")

        self._call(source, receive)

    def put(self, target: S3Location, body: bytes) -> None:
        self._call(target, self._s3.put_object, Bucket=target.bucket, Key=target.key, Body=body)

    def upload(self, target: S3Location) -> Upload:
        """A sink whose content becomes the object ``target`` when it is finished."""
        return Upload(target, self._s3, self._call)

    def _call(self, location: S3Location, operation: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return self.patience.call(lambda: operation(**arguments))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("PreconditionFailed", "412"):
                raise TaskFailed(
                    f"ClientError: the object {location.uri} was written anew while the job read it. Start "
                    "the job again, and keep new versions under other keys while jobs run."
                ) from error
            raise TaskFailed(f"ClientError: {describe(error)} (S3 URI {location.uri})") from error


@contextlib.contextmanager
def disk_trouble(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into `TaskFailed`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = (
            "this machine's disk is full" if full else f"{path.name} could not be written: {error.strerror}"
        )
        raise TaskFailed(f"ClientError: Data download failed:{what}.") from error


_Piece: TypeAlias = "tuple[Download, int, int]"  # and the range of bytes


class _Shared:
    """Pieces of work that threads take, and what came of them."""

    def __init__(self, pieces: Iterator[_Piece]) -> None:
        self._pieces = pieces
        self._lock = threading.Lock()
        self.done_bytes = 0
        self.failure: BaseException | None = None

    def take(self) -> _Piece | None:
        """The next piece; ``None`` if there is none, or no point in it."""
        with self._lock:
            return None if self.failure else next(self._pieces, None)

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self.done_bytes += size_bytes

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.failure = self.failure or error


def _pieces(downloads: Iterable[Download]) -> Iterator[_Piece]:
    """A range for each part, so that one large file uses all threads. The files are made on the way."""
    for download in downloads:
        with disk_trouble(download.target):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(download.target, flags, 0o644))
        for start in range(0, download.size_bytes, PART_BYTES):
            yield download, start, min(start + PART_BYTES, download.size_bytes)


def describe(error: ClientError) -> str:
    """``NoSuchBucket (404): The specified bucket does not exist``."""
    found = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    if found.get("Code") == "404":  # a HEAD request's reply has no body that says more
        return "NoSuchKey (404): The object, or its bucket, does not exist"
    return f"{found.get('Code', 'Unknown')} ({status}): {found.get('Message', '')}"


class Upload:
    """Collects bytes and sends them in parts; a small object goes in one request when it is finished."""

    def __init__(self, target: S3Location, s3: Any, call: Callable[..., Any]) -> None:
        self._target, self._s3, self._call = target, s3, call
        self._buffer = bytearray()
        self._part_bytes = PART_BYTES
        self._upload_id = ""
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes) -> int:
        self._buffer += data
        while len(self._buffer) >= self._part_bytes:
            self._send(bytes(self._buffer[: self._part_bytes]))
            del self._buffer[: self._part_bytes]
        return len(data)

    def finish(self) -> None:
        """Make the object appear, whole."""
        where = {"Bucket": self._target.bucket, "Key": self._target.key}
        if not self._upload_id:
            self._call(self._target, self._s3.put_object, **where, Body=bytes(self._buffer))
            return
        if self._buffer:
            self._send(bytes(self._buffer))
        self._call(
            self._target,
            self._s3.complete_multipart_upload,
            **where,
            UploadId=self._upload_id,
            MultipartUpload={"Parts": self._parts},
        )

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._upload_id:
            where = {"Bucket": self._target.bucket, "Key": self._target.key}
            self._call(self._target, self._s3.abort_multipart_upload, **where, UploadId=self._upload_id)

    def _send(self, part: bytes) -> None:
        where = {"Bucket": self._target.bucket, "Key": self._target.key}
        if not self._upload_id:
            reply = self._call(self._target, self._s3.create_multipart_upload, **where)
            self._upload_id = reply["UploadId"]
        number = len(self._parts) + 1
        reply = self._call(
            self._target,
            self._s3.upload_part,
            **where,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=part,
        )
        self._parts.append({"PartNumber": number, "ETag": reply["ETag"]})
        if number % 1000 == 0:
            self._part_bytes *= 2  # so that the largest object fits into the parts S3 allows
