"""HTTP/1.1 for the two ends of the invocation path: the gateway and the model servers.

A protocol over httptools, without a framework: parsing one request and writing one reply costs a few
microseconds. Requests of a connection are answered one after the other. Everything a client can make us
hold or wait for has a limit: heads, bodies, connections, slow senders, slow readers, idle connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128
MAX_PIPELINED = 64  # requests that came before an earlier one was answered
HEAD_SECONDS = 10.0  # for a head to arrive whole
IDLE_SECONDS = 120.0  # without a request
WRITE_STALL_SECONDS = 60.0  # a client that does not read its reply
LINGER_SECONDS = 5.0  # to let a refused client read why
LINGER_BYTES = 64 * 1024**2
SWEEP_SECONDS = 1.0
BACKLOG = 2048

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus
}


class Request:
    """One request. Names of ``headers`` are in lower case; ``context`` is the application's own."""

    __slots__ = ("body", "connection", "context", "headers", "keep_alive", "method", "target")

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.method = b""
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.keep_alive = True
        self.context: object = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of ``name`` (lower case)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(frozen=True)
class Reply:
    """A whole reply; the content length is added. ``headers`` are ready lines, each ended by CRLF."""

    status: int
    headers: bytes = b""
    body: bytes = b""


class Application(Protocol):
    """What a `Server` serves."""

    max_body_bytes: int
    body_seconds: float  # for a body to arrive whole

    def head(self, request: Request) -> Reply | None:
        """The head has arrived: refuse the request now, or ``None`` to have its body read."""

    def answer(self, request: Request) -> None:
        """The request is whole: reply to it through its connection, now or later."""

    def gone(self, request: Request) -> None:
        """The client left before ``request`` was answered."""

    def refusal(self, status: int, message: str) -> Reply:
        """How this application says that a request is bad, too large or too slow."""


def status_line(status: int) -> bytes:
    """The first line of a reply."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


class ServerConnection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._application = server.application
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._reading: Request | None = None  # whose message has begun and is not whole
        self._current: Request | None = None  # being answered
        self._pending: deque[Request] = deque()
        self._parts: list[bytes] = []
        self._size = 0
        self._head_bytes = 0
        self._head_done = False
        self._since = time.monotonic()  # when the connection fell idle, or the message began
        self._stalled_since: float | None = None
        self._linger_until: float | None = None
        self._lingered = 0
        self._streaming = False

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclasses
        if not self._server.admit(self):
            self._refuse(503, "Too many connections at once: try again.")

    def connection_lost(self, error: Exception | None) -> None:
        self._server.forget(self)
        self._transport = None
        current, self._current = self._current, None
        self._pending.clear()
        if current is not None:
            self._application.gone(current)

    def data_received(self, data: bytes) -> None:
        if self._linger_until is not None:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES and self._transport:
                self._transport.abort()
            return
        began_before = self._reading is not None
        if not began_before:
            self._since = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._take_no_more()  # the request itself is whole, and answered as plain HTTP/1.1
        except httptools.HttpParserError:
            if self._linger_until is None:  # not a refusal of our own, made while parsing
                self._refuse(400, "The request is not proper HTTP/1.1.")
        if self._reading is not None and not self._head_done and began_before:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")

    def eof_received(self) -> bool:
        return False  # a client that sends no more is taken to be gone

    def pause_writing(self) -> None:
        self._stalled_since = time.monotonic()
        if self._current is not None and self._streaming:
            self._server.application_pause(self._current, True)

    def resume_writing(self) -> None:
        self._stalled_since = None
        if self._current is not None and self._streaming:
            self._server.application_pause(self._current, False)

    # The parser's side.

    def on_message_begin(self) -> None:
        self._reading = Request(self)
        self._parts.clear()
        self._size = self._head_bytes = 0
        self._head_done = False

    def on_url(self, url: bytes) -> None:
        if self._reading is not None:
            self._reading.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._reading
        if request is None:
            return
        if self._head_done:
            return  # a trailer of a chunked body: nobody asked for it
        request.headers.append((name.lower(), value))
        if len(request.headers) > MAX_HEADERS:
            self._refuse(431, f"The request has more than {MAX_HEADERS} headers.")

    def on_headers_complete(self) -> None:
        request = self._reading
        if request is None or self._linger_until is not None:
            return
        self._head_done = True
        request.method = self._parser.get_method()
        refused = self._application.head(request)
        if refused is not None:
            self._refuse_with(refused)
            return
        length = request.header(b"content-length")
        if length is not None and length.isdigit() and int(length[:20]) > self._application.max_body_bytes:
            self._refuse_size()
            return
        expected = request.header(b"expect")
        if expected is not None and self._transport is not None:
            if expected.lower() != b"100-continue":
                self._refuse(417, "Only 'Expect: 100-continue' is known here.")
            elif self._current is None:
                self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        if self._linger_until is not None:
            return
        self._size += len(body)
        if self._size > self._application.max_body_bytes:
            self._refuse_size()
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        request, self._reading = self._reading, None
        if request is None or self._linger_until is not None:
            return
        request.keep_alive = bool(self._parser.should_keep_alive()) and not self._server.closing
        parts = self._parts
        request.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        if self._current is None:
            self._current = request
            self._application.answer(request)
            return
        self._pending.append(request)
        if self._transport is not None:
            self._transport.pause_reading()
        if len(self._pending) > MAX_PIPELINED:
            self.abort()

    # The application's side.

    def reply(self, request: Request, reply: Reply) -> None:
        """Answer ``request``; one whose client is gone is let go."""
        transport = self._transport
        if request is not self._current or transport is None or transport.is_closing():
            return
        keep = request.keep_alive and not self._server.closing
        head = b"%bcontent-length: %d\r\n%b%b\r\n" % (
            status_line(reply.status),
            len(reply.body),
            b"" if keep else b"connection: close\r\n",
            reply.headers,
        )
        transport.write(head + reply.body if len(reply.body) < 65536 else head)
        if len(reply.body) >= 65536:
            transport.write(reply.body)
        self._answered(keep)

    def begin_stream(self, request: Request, status: int, headers: bytes) -> None:
        """Begin a reply of unknown length."""
        transport = self._transport
        if request is not self._current or transport is None or transport.is_closing():
            return
        self._streaming = True
        transport.write(status_line(status) + b"transfer-encoding: chunked\r\n" + headers + b"\r\n")

    def stream(self, request: Request, piece: bytes) -> None:
        """A piece of the reply that was begun."""
        transport = self._transport
        if request is self._current and piece and transport is not None and not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end_stream(self, request: Request) -> None:
        """The end of the reply that was begun."""
        transport = self._transport
        if request is not self._current or transport is None or transport.is_closing():
            return
        self._streaming = False
        transport.write(b"0\r\n\r\n")
        self._answered(request.keep_alive and not self._server.closing)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    # Upkeep.

    @property
    def idle(self) -> bool:
        """Whether no request has begun or waits for its answer."""
        return self._current is None and self._reading is None and self._linger_until is None

    def close_if_idle(self) -> None:
        if self.idle and self._transport is not None:
            self._transport.close()

    def check(self, now: float) -> None:
        """Part with a client that takes too long."""
        transport = self._transport
        if transport is None:
            return
        if self._linger_until is not None:
            if now >= self._linger_until:
                transport.abort()
        elif self._stalled_since is not None and now - self._stalled_since > WRITE_STALL_SECONDS:
            transport.abort()
        elif self._reading is not None:
            waited = now - self._since
            if not self._head_done and waited > HEAD_SECONDS:
                self._refuse(408, f"The request's head did not arrive within {HEAD_SECONDS:.0f} seconds.")
            elif self._head_done and waited > self._application.body_seconds:
                seconds = self._application.body_seconds
                self._refuse(408, f"The request's body did not arrive within {seconds:.0f} seconds.")
        elif self._current is None and now - self._since > IDLE_SECONDS:
            transport.close()

    def _answered(self, keep: bool) -> None:
        self._current = None
        self._since = time.monotonic()
        transport = self._transport
        if transport is None:
            return
        if not keep:
            if self._reading is None and not self._pending:
                transport.close()
            else:
                self._linger()
        elif self._pending:
            self._current = self._pending.popleft()
            if not self._pending:
                transport.resume_reading()
            asyncio.get_running_loop().call_soon(self._application.answer, self._current)

    def _take_no_more(self) -> None:
        if self._current is not None and self._transport is not None:
            self._current.keep_alive = False
            self._transport.pause_reading()
        elif self._linger_until is None:
            self._linger()

    def _refuse_size(self) -> None:
        limit = self._application.max_body_bytes
        self._refuse(413, f"The request's body is larger than {limit} bytes.")

    def _refuse(self, status: int, message: str) -> None:
        self._refuse_with(self._application.refusal(status, message))

    def _refuse_with(self, reply: Reply) -> None:
        """Say no, and take nothing more from this connection: what follows may be the rest of a body."""
        transport = self._transport
        if transport is None or self._linger_until is not None:
            return
        if self._current is not None:
            self.abort()  # an earlier request still waits: its answer cannot be told from this one
            return
        transport.write(
            b"%bcontent-length: %d\r\nconnection: close\r\n%b\r\n%b"
            % (status_line(reply.status), len(reply.body), reply.headers, reply.body)
        )
        self._linger()

    def _linger(self) -> None:
        """Close once the client has read the reply: closing at once with input unread would destroy it."""
        self._reading = None
        self._parts.clear()
        self._linger_until = time.monotonic() + LINGER_SECONDS
        if self._transport is not None and self._transport.can_write_eof():
            with contextlib.suppress(OSError):
                self._transport.write_eof()


class Server:
    """The connections of one application, on any number of listening sockets."""

    def __init__(
        self,
        application: Application,
        *,
        max_connections: int,
        pause: Callable[[Request, bool], None] | None = None,
    ) -> None:
        """``pause`` is told when the client of a streamed reply cannot take more, and when it can again."""
        self.application = application
        self.closing = False
        self._max_connections = max_connections
        self._connections: set[ServerConnection] = set()
        self._listeners: list[asyncio.AbstractServer] = []
        self._sweeping: asyncio.Task[None] | None = None
        self._pause = pause

    async def listen(self, *sockets: socket.socket) -> None:
        """Take connections from ``sockets``, which are bound."""
        loop = asyncio.get_running_loop()
        for each in sockets:
            make = lambda: ServerConnection(self)  # noqa: E731
            if each.family == socket.AF_UNIX:
                listener = await loop.create_unix_server(make, sock=each, backlog=BACKLOG)
            else:
                listener = await loop.create_server(make, sock=each, backlog=BACKLOG)
            self._listeners.append(listener)
        if self._sweeping is None:
            self._sweeping = loop.create_task(self._sweep())

    async def close(self, seconds: float) -> None:
        """Take no new connections, let what was begun end within ``seconds``, then cut the rest."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        deadline = time.monotonic() + seconds
        while self._connections and time.monotonic() < deadline:
            for connection in list(self._connections):
                connection.close_if_idle()
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
            self._sweeping = None

    @property
    def connections(self) -> Sequence[ServerConnection]:
        return list(self._connections)

    def admit(self, connection: ServerConnection) -> bool:
        """Whether there is room for ``connection``; it is counted either way, till `forget`."""
        self._connections.add(connection)
        return len(self._connections) <= self._max_connections

    def forget(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)

    def application_pause(self, request: Request, paused: bool) -> None:
        if self._pause is not None:
            self._pause(request, paused)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.check(now)
