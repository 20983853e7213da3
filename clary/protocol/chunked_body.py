"""Taking a body out of ``aws-chunked`` framing, as it arrives.

A chunk is ``size[;chunk-signature=hex] CRLF data CRLF``; the chunk of size 0 ends the data, and trailing
headers follow it. Nothing is gathered: a piece of a chunk is passed on as it comes, and a wrong signature
raises when its chunk has passed, before the next one begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from clary.faults import AccessDenied, Invalid
from clary.protocol import refusals
from clary.protocol.signature import ChunkSigner

MAX_LINE_BYTES = 4096
MAX_TRAILERS = 32
MAX_SIZE_DIGITS = 12


@dataclass(frozen=True)
class Framing:
    """What the head of the request said of the framed body.

    ``signed`` demands chunk signatures; ``signer`` verifies them (``None`` where signatures are not checked).
    ``trailers`` are the names of headers that must follow the data, in lower case. ``decoded_length`` is how
    many bytes the data has, ``None`` if the client did not say.
    """

    signed: bool
    signer: ChunkSigner | None
    trailers: tuple[str, ...]
    decoded_length: int | None


async def decode_chunks(
    body: AsyncIterator[bytes], framing: Framing, on_trailer: Callable[[str, str], None]
) -> AsyncIterator[bytes]:
    """The data inside ``body``. ``on_trailer`` is called with each trailing header, before the end.

    Raises `Invalid` for broken framing and `AccessDenied` for a wrong chunk signature.
    """
    reader = _Reader(body)
    total = 0
    while True:
        size, signature = _read_chunk_head(await reader.line(), framing)
        total += size
        if framing.decoded_length is not None and total > framing.decoded_length:
            raise _wrong_length()
        digest = hashlib.sha256()
        async for piece in reader.take(size):
            if framing.signer is not None:
                digest.update(piece)
            yield piece
        if framing.signer is not None and not framing.signer.check_chunk(digest.hexdigest(), signature):
            raise refusals.signature_mismatch("s3")
        if size == 0:
            break
        if await reader.line() != b"":
            raise _malformed("a chunk is longer than it says")
    if framing.decoded_length is not None and total != framing.decoded_length:
        raise _wrong_length()
    await _read_trailers(reader, framing, on_trailer)


async def _read_trailers(reader: _Reader, framing: Framing, on_trailer: Callable[[str, str], None]) -> None:
    seen: set[str] = set()
    text = b""
    signature = ""
    while True:
        line = await reader.line(or_end=True)
        if not line:
            break
        if len(seen) >= MAX_TRAILERS:
            raise _malformed_trailer()
        name_bytes, mark, value_bytes = line.partition(b":")
        name = name_bytes.decode("latin-1").strip().lower()
        value = value_bytes.decode("latin-1").strip()
        if not mark or name in seen:
            raise _malformed_trailer()
        seen.add(name)
        if name == "x-amz-trailer-signature":
            signature = value
            continue
        if name not in framing.trailers:
            raise _malformed_trailer()
        text += f"{name}:{value}\n".encode("latin-1")
        on_trailer(name, value)
    if any(name not in seen for name in framing.trailers):
        raise _malformed_trailer()
    if (
        framing.trailers
        and framing.signer is not None
        and not framing.signer.check_trailer(hashlib.sha256(text).hexdigest(), signature)
    ):
        raise refusals.signature_mismatch("s3")
    await reader.expect_end()


def _read_chunk_head(line: bytes, framing: Framing) -> tuple[int, str]:
    size_text, _, extension = line.partition(b";")
    digits = size_text.strip()
    if not digits or len(digits) > MAX_SIZE_DIGITS or digits.strip(b"0123456789abcdefABCDEF"):
        raise _malformed("the size of a chunk is no hexadecimal number")
    name, _, signature = extension.strip().partition(b"=")
    if framing.signed and (name != b"chunk-signature" or not signature):
        raise AccessDenied(
            "A chunk of the body has no chunk-signature.", code="SignatureDoesNotMatch", status=403
        )
    return int(digits, 16), signature.decode("latin-1").strip()


class _Reader:
    """Lines and lengths out of a stream of pieces."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._buffer = b""
        self._ended = False

    async def _more(self) -> bool:
        """Add the next piece to the buffer; false at the end of the body."""
        if self._ended:
            return False
        try:
            self._buffer += await self._body.__anext__()
        except StopAsyncIteration:
            self._ended = True
        return not self._ended

    async def line(self, *, or_end: bool = False) -> bytes:
        """The next line without its end; with ``or_end`` the body may end instead (an empty line)."""
        while (end := self._buffer.find(b"\n", 0, MAX_LINE_BYTES)) < 0:
            if len(self._buffer) >= MAX_LINE_BYTES:
                raise _malformed(f"a line is longer than {MAX_LINE_BYTES} bytes")
            if not await self._more():
                if or_end and not self._buffer:
                    return b""
                raise _incomplete()
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.removesuffix(b"\r")

    async def take(self, size: int) -> AsyncIterator[bytes]:
        """Exactly ``size`` bytes, in the pieces in which they come."""
        while size > 0:
            if not self._buffer and not await self._more():
                raise _incomplete()
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            if piece:
                yield piece

    async def expect_end(self) -> None:
        """Refuse anything but line ends in what is left."""
        while True:
            if self._buffer.strip(b"\r\n"):
                raise _malformed("there is something after its end")
            self._buffer = b""
            if not await self._more():
                return


def _malformed(why: str) -> Invalid:
    return Invalid(f"The aws-chunked body is malformed: {why}.", code="InvalidRequest", status=400)


def _malformed_trailer() -> Invalid:
    return Invalid(
        "The request contained trailing data that was not well-formed or did not conform to our published "
        "schema.",
        code="MalformedTrailerError",
        status=400,
    )


def _incomplete() -> Invalid:
    return Invalid(
        "The request body terminated unexpectedly",
        code="IncompleteBody",
        status=400,
    )


def _wrong_length() -> Invalid:
    return Invalid(
        "You did not provide the number of bytes specified by the x-amz-decoded-content-length HTTP header",
        code="IncompleteBody",
        status=400,
    )
