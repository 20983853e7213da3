"""What S3 asks of names, and the small arithmetic of its ETags and checksums."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from awscrt import checksums as crt

from clary.faults import Invalid
from clary.objects.object_store import MAX_KEY_BYTES

_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def check_bucket_name(name: str) -> None:
    """Raises `Invalid` (``InvalidBucketName``)."""
    if not _BUCKET.fullmatch(name) or ".." in name or name.startswith("xn--") or name.endswith("-s3alias"):
        raise Invalid(
            "The specified bucket is not valid.",
            code="InvalidBucketName",
            status=400,
            fields={"BucketName": name},
        )


def check_key(key: str) -> None:
    """Raises `Invalid` (``KeyTooLongError``)."""
    size = len(key.encode("utf-8", "surrogatepass"))
    if size > MAX_KEY_BYTES:
        raise Invalid(
            "Your key is too long",
            code="KeyTooLongError",
            status=400,
            fields={"MaxSizeAllowed": MAX_KEY_BYTES, "Size": size},
        )
    if not key:
        raise Invalid("An object's key must not be empty.", code="InvalidArgument", status=400)


class Hash(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def digest(self) -> bytes: ...


class _Crc:
    """A CRC of awscrt or zlib with hashlib's manner."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._value = 0

    def update(self, data: bytes) -> None:
        if self._name == "CRC32":
            self._value = zlib.crc32(data, self._value)
        elif self._name == "CRC32C":
            self._value = crt.crc32c(data, self._value)
        else:
            self._value = crt.crc64nvme(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(8 if self._name == "CRC64NVME" else 4, "big")


ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")


def new_checksum(algorithm: str) -> Hash:
    """A running checksum. Raises `Invalid` for an algorithm that S3 does not know."""
    if algorithm == "SHA1":
        return hashlib.sha1(usedforsecurity=False)
    if algorithm == "SHA256":
        return hashlib.sha256()
    if algorithm in ALGORITHMS:
        return _Crc(algorithm)
    raise Invalid(
        f"The checksum algorithm {algorithm} is none of {', '.join(ALGORITHMS)}.",
        code="InvalidRequest",
        status=400,
    )


def as_base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def multipart_etag(etags: Sequence[str]) -> str:
    """The MD5 of the parts' MD5s, and how many there were."""
    joined = b"".join(bytes.fromhex(etag) for etag in etags)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"


def composite_checksum(algorithm: str, parts: Sequence[Mapping[str, str]]) -> str | None:
    """The checksum of the parts' checksums, with their number; ``None`` if a part lacks its own."""
    values = [part.get(algorithm) for part in parts]
    if not values or any(value is None for value in values):
        return None
    whole = new_checksum(algorithm)
    for value in values:
        whole.update(base64.b64decode(value or ""))
    return f"{as_base64(whole.digest())}-{len(values)}"
