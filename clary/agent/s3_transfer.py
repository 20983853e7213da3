"""S3 to and from files: bounded, ranged, parallel, patient."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from clary.agent.aws import Clients, Patience
from clary.agent.failure import TaskFailed, TaskStopped

PART_BYTES = 16 * 1024 * 1024
MOST_PARTS = 10_000
_THREADS = 8
_READ_BYTES = 1 << 20


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
    parts = urlsplit(uri, allow_fragments=False)
    if parts.scheme != "s3" or not parts.netloc:
        raise TaskFailed(f"ClientError: {uri!r} is not an S3 URI: it must look like s3://bucket/key.")
    key = uri[len("s3://") + len(parts.netloc) + 1 :]
    return S3Location(parts.netloc, key)


class S3Transfer:
    """See the module. ``abandoned`` says that the work is pointless now: `TaskStopped` is raised."""

    def __init__(self, clients: Clients, patience: Patience, abandoned: Callable[[], bool]) -> None:
        self._s3 = clients.s3
        self._patience = patience
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

    def download(self, downloads: Sequence[Download]) -> None:
        """Bring all of ``downloads``; folders of the targets must exist."""
        pieces: list[Callable[[], None]] = []
        for download in downloads:
            pieces += self._pieces(download)
        if len(pieces) <= 1:
            for piece in pieces:
                piece()
            return
        with ThreadPoolExecutor(max_workers=min(_THREADS, len(pieces))) as pool:
            futures = [pool.submit(piece) for piece in pieces]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def put(self, target: S3Location, body: bytes) -> None:
        self._call(target, self._s3.put_object, Bucket=target.bucket, Key=target.key, Body=body)

    def upload(self, target: S3Location) -> Upload:
        """A sink whose content becomes the object ``target`` when it is finished."""
        return Upload(target, self._s3, self._call)

    def _pieces(self, download: Download) -> list[Callable[[], None]]:
        # A range for each part, so that one large file uses all threads and a lost connection costs one part.
        descriptor = os.open(
            download.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        os.close(descriptor)
        return [
            partial(self._bring, download, start, min(start + PART_BYTES, download.size_bytes))
            for start in range(0, download.size_bytes, PART_BYTES)
        ]

    def _bring(self, download: Download, start: int, end: int) -> None:
        source = download.source
        whole = start == 0 and end == download.size_bytes
        condition: dict[str, str] = {"IfMatch": download.etag} if download.etag else {}
        if not whole:
            condition["Range"] = f"bytes={start}-{end - 1}"

        def bring() -> None:
            if self._abandoned():
                raise TaskStopped
            reply = self._s3.get_object(Bucket=source.bucket, Key=source.key, **condition)
            with reply["Body"] as body, download.target.open("r+b") as file:
                file.seek(start)
                while block := body.read(_READ_BYTES):
                    file.write(block)
                if file.tell() != end:
                    raise OSError(f"{source.uri}: {file.tell() - start} bytes came of {end - start}")

        self._call(source, bring)

    def _call(self, location: S3Location, operation: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return self._patience.call(lambda: operation(**arguments))
        except ClientError as error:
            raise TaskFailed(f"ClientError: {describe(error)} (S3 URI {location.uri})") from error


def describe(error: ClientError) -> str:
    """``NoSuchBucket (404): The specified bucket does not exist``."""
    found = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
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
