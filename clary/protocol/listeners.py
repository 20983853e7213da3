"""The HTTP and HTTPS listeners: uvicorn inside the running event loop, with limits it lacks by itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024  # request line and headers; session tokens are long
FIRST_HEAD_SECONDS = 60.0  # for a new connection to send its first request
KEEP_ALIVE_SECONDS = 300  # clients keep connections in pools; closing under them costs them a retry
GRACE_SECONDS = 5  # for replies under way when the listeners close
BACKLOG = 2048


@dataclass(frozen=True)
class Listening:
    """The ports that were bound; ``tls_port`` is 0 without TLS."""

    port: int
    tls_port: int


@contextlib.asynccontextmanager
async def serve(
    app: Any, host: str, port: int, *, tls_port: int = 0, certificate: Path | None = None
) -> AsyncIterator[Listening]:
    """Serve ``app`` while the context lasts; with ``certificate`` (PEM, key included) over TLS too.

    Port 0 picks a free one. A port whose last server was killed can be bound at once. Raises ``OSError``
    naming the address if a port is taken. Signals are left to the caller.
    """
    plain = bind(host, port)
    sockets = [plain]
    try:
        servers = [_server(app, None)]
        if certificate is not None:
            sockets.append(bind(host, tls_port))
            servers.append(_server(app, certificate))
        listening = Listening(plain.getsockname()[1], sockets[1].getsockname()[1] if len(sockets) > 1 else 0)
        tasks = [
            asyncio.create_task(server.serve(sockets=[bound]))
            for server, bound in zip(servers, sockets, strict=True)
        ]
        try:
            await _until_started(servers, tasks)
            yield listening
        finally:
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*tasks)
    finally:
        for bound in sockets:
            bound.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket's address taken, for TCP. Raises ``OSError`` naming the address."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    return bound


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a limit on the size of heads, and on the wait for the first one."""

    _head_bytes = 0
    _in_head = True
    _first_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.access_log = False  # it would write the queries of presigned URLs; the front door has its own
        self._first_head = self.loop.call_later(FIRST_HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._first_head is not None:
            self._first_head.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of a request may have {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._first_head is not None:
            self._first_head.cancel()
            self._first_head = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; the client's protocol cannot be known."""
        body = msg.encode("ascii", "replace")
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\n"
            f"x-amzn-requestid: {uuid.uuid4()}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()


def _server(app: Any, certificate: Path | None) -> _Server:
    config = uvicorn.Config(
        app,
        http=_LimitedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=BACKLOG,
        ssl_certfile=str(certificate) if certificate else None,
    )
    return _Server(config)


async def _until_started(servers: list[_Server], tasks: list[asyncio.Task[None]]) -> None:
    while not all(server.started for server in servers):
        for task in tasks:
            if task.done():
                task.result()
                raise RuntimeError("a listener ended before it began")
        await asyncio.sleep(0.005)
