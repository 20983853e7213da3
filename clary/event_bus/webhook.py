"""One HTTP request to somebody else's server: whole within a time, no redirects, little of the reply read."""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

MAX_REPLY_BYTES = 65_536  # read and heeded; the rest is not
MAX_HEAD_BYTES = 65_536
_CHUNK_BYTES = 16_384
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_TARGET = re.compile(r"[\x21-\x7e]+\Z")


class WebhookFailed(Exception):
    """No reply: ``kind`` is TIMEOUT, CONNECTION_FAILURE or INVALID_REPLY."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class BadRequest(Exception):
    """A URL or header that cannot be sent."""


@dataclass(frozen=True)
class WebRequest:
    """Header values are text of Latin-1; Host and Content-Length are added."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@dataclass
class WebReply:
    """Header names in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def send(request: WebRequest, *, timeout_seconds: float) -> WebReply:
    """The reply, whatever its status. Raises `WebhookFailed` for none, `BadRequest`."""
    host, port, secure, head = _head(request)
    where = f"{host}:{port}"
    try:
        return await asyncio.wait_for(_exchange(host, port, secure, head + request.body), timeout_seconds)
    except asyncio.TimeoutError:
        raise WebhookFailed(
            "TIMEOUT", f"{where} did not answer within {timeout_seconds:g} seconds."
        ) from None
    except httptools.HttpParserError as error:
        raise WebhookFailed("INVALID_REPLY", f"{where} did not answer in HTTP: {error}") from None
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise WebhookFailed("CONNECTION_FAILURE", f"{where}: {reason}") from None


def _head(request: WebRequest) -> tuple[str, int, bool, bytes]:
    """Where to connect, and everything of the request before its body. Raises `BadRequest`."""
    try:
        parts = urlsplit(request.url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadRequest(f"The URL cannot be read: {error}") from None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise BadRequest("The URL must be http:// or https://, with a host and without a user.")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    shown = f"[{host}]" if ":" in host else host
    shown += f":{port}" if port is not None else ""
    if not _TARGET.match(target) or not _TARGET.match(shown) or not _TOKEN.match(request.method):
        raise BadRequest("The URL holds characters that must be percent-encoded.")
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {shown}", "Connection: close"]
    for name, value in request.headers:
        if not _TOKEN.match(name) or not _VALUE.match(value):
            raise BadRequest(f"The header {name!r} holds characters that a header may not have.")
        lines.append(f"{name}: {value}")
    lines.append(f"Content-Length: {len(request.body)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return host, port or (443 if secure else 80), secure, head


async def _exchange(host: str, port: int, secure: bool, content: bytes) -> WebReply:
    context = await asyncio.to_thread(_trust) if secure else None
    reader, writer = await asyncio.open_connection(
        host, port, ssl=context, server_hostname=host if secure else None
    )
    try:
        writer.write(content)
        await writer.drain()
        return await _read(reader)
    finally:
        writer.transport.abort()


@functools.lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """The authorities that this machine trusts: reading them takes a moment."""
    return ssl.create_default_context()


async def _read(reader: asyncio.StreamReader) -> WebReply:
    receiver = _Receiver()
    parser = httptools.HttpResponseParser(receiver)
    read = 0
    while not receiver.complete:
        chunk = await reader.read(_CHUNK_BYTES)
        if not chunk:
            if not receiver.head_complete:
                raise ConnectionResetError("The connection was closed before the reply came.")
            break  # a body that ends with the connection
        read += len(chunk)
        parser.feed_data(chunk)
        if receiver.head_complete:
            receiver.reply.status = parser.get_status_code()
            if read > MAX_REPLY_BYTES + MAX_HEAD_BYTES:
                break
        elif read > MAX_HEAD_BYTES:
            raise httptools.HttpParserError("the head of the reply is too large")
    receiver.reply.body = bytes(receiver.body[:MAX_REPLY_BYTES])
    return receiver.reply


class _Receiver:
    """What the parser tells."""

    def __init__(self) -> None:
        self.reply = WebReply()
        self.body = bytearray()
        self.head_complete = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, body: bytes) -> None:
        if len(self.body) < MAX_REPLY_BYTES:
            self.body += body

    def on_message_complete(self) -> None:
        self.complete = True
