"""Bodies on their way in: received, limited, unframed, and checked against what the request said of them.

Nothing here gathers a streamed body: hashes run along, and a mismatch raises at its end, so whoever stores
the pieces must let them count only once the iteration has ended well.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from clary.faults import Fault, Invalid, LimitExceeded
from clary.protocol.checksums import ALGORITHMS, Checksum, decode_digest, digest_size, new_checksum
from clary.protocol.chunked_body import Framing, decode_chunks
from clary.protocol.signature import (
    STREAMING_HASHES,
    STREAMING_UNSIGNED_TRAILER,
    UNSIGNED_PAYLOAD,
    Opened,
)
from clary.protocol.wire import Headers, HttpRequest

MAX_OBJECT_BYTES = 5 * 1024**3  # what S3 takes in one PutObject or UploadPart
RECEIVE_TIMEOUT_SECONDS = 120.0  # without a byte from the client
BIG_PIECE_BYTES = 1024**2  # hashed in a thread, off the event loop

CHECKSUM_PREFIX = "x-amz-checksum-"
_NOT_DIGESTS = frozenset({"x-amz-checksum-type", "x-amz-checksum-algorithm", "x-amz-checksum-mode"})

Message: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"


class ClientGone(Exception):
    """The client closed the connection, or fell silent, in the middle of its request."""


class ReceivedBody:
    """The raw body of one ASGI request, in the pieces in which it comes. Iterate it once."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.started = False
        self.finished = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while not self.finished:
            self.started = True
            try:
                message = await asyncio.wait_for(self._receive(), RECEIVE_TIMEOUT_SECONDS)
            except asyncio.TimeoutError:
                raise ClientGone(f"nothing came for {RECEIVE_TIMEOUT_SECONDS:g} s") from None
            if message["type"] == "http.disconnect":
                raise ClientGone("the client closed the connection")
            self.finished = not message.get("more_body", False)
            piece = message.get("body", b"")
            if piece:
                yield piece

    async def drain(self, limit_bytes: int) -> bool:
        """Read what is left and throw it away; whether the end came within ``limit_bytes``."""
        left = limit_bytes
        async for piece in self:
            left -= len(piece)
            if left < 0:
                return False
        return True


def content_length(headers: Headers) -> int | None:
    """The Content-Length. Raises `Invalid` if it is not a number."""
    text = headers.get("content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f"The Content-Length header must be a number, not {text[:40]!r}.", status=400)
    return int(text)


async def read_all(body: AsyncIterator[bytes], limit_bytes: int, too_large: Callable[[], Fault]) -> bytes:
    """The whole body. Raises what ``too_large`` makes once it is longer than ``limit_bytes``."""
    pieces = []
    size = 0
    async for piece in body:
        size += len(piece)
        if size > limit_bytes:
            raise too_large()
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def gunzip(data: bytes, limit_bytes: int, too_large: Callable[[], Fault]) -> bytes:
    """Unpack a gzip body, to no more than ``limit_bytes``. Raises `Invalid` if it is broken."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, limit_bytes + 1)
    except zlib.error as error:
        raise Invalid(f"The body is said to be gzip but cannot be unpacked: {error}.") from None
    if len(unpacked) > limit_bytes:
        raise too_large()
    if not unpacker.eof:
        raise Invalid("The gzip body ends too early.")
    return unpacked


def s3_body(
    raw: AsyncIterator[bytes],
    request: HttpRequest,
    opened: Opened,
    declared_hash: str,
    *,
    checksums_of_body: bool,
) -> AsyncIterator[bytes]:
    """The payload of an S3 request, checked against everything that the request says of it.

    ``declared_hash`` is the x-amz-content-sha256. ``checksums_of_body`` tells whether the x-amz-checksum
    headers speak of this body (those of CompleteMultipartUpload speak of the object). Trailing headers are
    added to the request's once they came, and aws-chunked is taken out of its Content-Encoding. Raises a
    `Fault` at once for what the head alone shows to be wrong, while iterating for the rest.
    """
    length = content_length(request.headers)
    checks = BodyChecks()
    checks.length = length
    framed = declared_hash in STREAMING_HASHES
    limit = MAX_OBJECT_BYTES
    if framed:
        decoded = _decoded_length(request.headers)
        trailers = _trailer_names(request.headers)
        signed = declared_hash != STREAMING_UNSIGNED_TRAILER
        framing = Framing(signed, opened.chunk_signer if signed else None, trailers, decoded)
        raw = decode_chunks(
            raw, framing, lambda name, value: _take_trailer(name, value, checks, request.headers)
        )
        checks.length = decoded
        for name in trailers:
            checks.expect(name)
        _unframe(request.headers)
    if checks.length is not None and checks.length > limit:
        raise _entity_too_large(checks.length)
    if declared_hash != UNSIGNED_PAYLOAD and not framed:
        checks.sha256 = declared_hash
    checks.take_headers(request.headers, checksums=checksums_of_body)
    return checks.follow(raw, limit)


def _decoded_length(headers: Headers) -> int | None:
    text = headers.get("x-amz-decoded-content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid("x-amz-decoded-content-length must be a number.", code="InvalidArgument", status=400)
    return int(text)


def _trailer_names(headers: Headers) -> tuple[str, ...]:
    text = headers.get("x-amz-trailer") or ""
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if len(names) > 1:
        raise _several_checksums()
    return names


def _unframe(headers: Headers) -> None:
    encodings = [part.strip() for part in (headers.get("content-encoding") or "").split(",")]
    kept = [part for part in encodings if part and part.lower() != "aws-chunked"]
    headers.remove("content-encoding")
    if kept:
        headers.set("content-encoding", ", ".join(kept))


def _take_trailer(name: str, value: str, checks: BodyChecks, headers: Headers) -> None:
    checks.give(name, value)
    headers.set(name, value)


class BodyChecks:
    """What a body must be, and the sums that run along to find out."""

    def __init__(self) -> None:
        self.length: int | None = None
        self.sha256: str | None = None
        self.md5: bytes | None = None
        self._algorithm = ""
        self._checksum: Checksum | None = None
        self._given: str | None = None

    def take_headers(self, headers: Headers, *, checksums: bool = True) -> None:
        """Heed the checksums in ``headers``: Content-MD5, and those of S3 if ``checksums``."""
        md5 = headers.get("content-md5")
        if md5 is not None:
            self.md5 = decode_digest(md5, 16)
            if self.md5 is None:
                raise Invalid("The Content-MD5 you specified was invalid.", code="InvalidDigest", status=400)
        for name, value in headers.items() if checksums else ():
            if name.startswith(CHECKSUM_PREFIX) and name not in _NOT_DIGESTS:
                self.expect(name)
                self.give(name, value)

    def expect(self, header: str) -> None:
        """A checksum is promised by ``header``: compute it along."""
        algorithm = header.removeprefix(CHECKSUM_PREFIX)
        if not header.startswith(CHECKSUM_PREFIX) or algorithm not in ALGORITHMS:
            known = ", ".join(sorted(ALGORITHMS))
            raise Invalid(
                f"The checksum {header[:60]} is not supported; those that are: {known}.",
                code="InvalidRequest",
                status=400,
            )
        if self._checksum is not None and self._algorithm != algorithm:
            raise _several_checksums()
        self._algorithm = algorithm
        self._checksum = new_checksum(algorithm)

    def give(self, header: str, value: str) -> None:
        """The promised value came."""
        if decode_digest(value, digest_size(header.removeprefix(CHECKSUM_PREFIX))) is None:
            raise Invalid(f"Value for {header} header is invalid.", code="InvalidRequest", status=400)
        self._given = value

    async def follow(self, body: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
        """Pass ``body`` on, and raise at its end if it is not what was said."""
        sha256 = hashlib.sha256() if self.sha256 is not None else None
        md5 = hashlib.md5(usedforsecurity=False) if self.md5 is not None else None
        sums: list[Checksum] = [s for s in (sha256, md5, self._checksum) if s is not None]
        size = 0
        async for piece in body:
            size += len(piece)
            if size > limit_bytes:
                raise _entity_too_large(size)
            if len(piece) >= BIG_PIECE_BYTES and sums:
                await asyncio.to_thread(_update, sums, piece)
            else:
                _update(sums, piece)
            yield piece
        if self.length is not None and size != self.length:
            raise Invalid(
                "You did not provide the number of bytes specified by the Content-Length HTTP header",
                code="IncompleteBody",
                status=400,
            )
        if sha256 is not None and sha256.hexdigest() != self.sha256:
            raise Invalid(
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
                code="XAmzContentSHA256Mismatch",
                status=400,
                fields={
                    "ClientComputedContentSHA256": self.sha256,
                    "S3ComputedContentSHA256": sha256.hexdigest(),
                },
            )
        if md5 is not None and md5.digest() != self.md5:
            raise Invalid(
                "The Content-MD5 you specified did not match what we received.", code="BadDigest", status=400
            )
        if self._checksum is not None and self._given is not None:
            computed = self._checksum.digest()
            if decode_digest(self._given, len(computed)) != computed:
                raise Invalid(
                    f"The {self._algorithm.upper()} you specified did not match the calculated checksum.",
                    code="BadDigest",
                    status=400,
                )


def _update(sums: list[Checksum], piece: bytes) -> None:
    for running in sums:
        running.update(piece)


def _several_checksums() -> Invalid:
    return Invalid(
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        code="InvalidRequest",
        status=400,
    )


def _entity_too_large(size: int) -> LimitExceeded:
    return LimitExceeded(
        "Your proposed upload exceeds the maximum allowed size",
        code="EntityTooLarge",
        status=400,
        fields={"ProposedSize": str(size), "MaxSizeAllowed": str(MAX_OBJECT_BYTES)},
    )
