"""What clients may do to a server, and what it does to them."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from clary.serving import http_server
from clary.serving.http_server import Reply, Request, Server

Dialogue = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "_Echo"], Awaitable[None]]


class _Echo:
    """Answers with the body, or not at all when asked for ``/never``."""

    max_body_bytes = 100_000
    body_seconds = 0.3

    def __init__(self) -> None:
        self.left: list[bytes] = []

    def head(self, request: Request) -> Reply | None:
        return Reply(403, b"", b"no") if request.target == b"/secret" else None

    def answer(self, request: Request) -> None:
        if request.target != b"/never":
            request.connection.reply(request, Reply(200, b"x-path: %b\r\n" % request.target, request.body))

    def gone(self, request: Request) -> None:
        self.left.append(request.target)

    def refusal(self, status: int, message: str) -> Reply:
        return Reply(status, b"", message.encode())


def _talk(dialogue: Dialogue, *, max_connections: int = 8) -> None:
    async def facts() -> None:
        echo = _Echo()
        server = Server(echo, max_connections=max_connections)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        await server.listen(listener)
        try:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            await asyncio.wait_for(dialogue(reader, writer, echo), 20)
            writer.close()
        finally:
            await server.close(0.5)

    asyncio.run(facts())


_BOTH_FRAMINGS = (
    b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
)


async def _reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
    return int(head.split()[1]), await reader.readexactly(length)


def test_requests_of_one_connection_are_answered_in_order() -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        one = b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\n"
        writer.write(b"".join(one + b"%d" % number for number in range(9)))
        assert [(await _reply(reader))[1] for _ in range(9)] == [b"%d" % number for number in range(9)]

    _talk(dialogue)


def test_a_chunked_body_is_put_together() -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        writer.write(b"POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"2\r\nde\r\n0\r\n\r\n")
        assert await _reply(reader) == (200, b"abcde")

    _talk(dialogue)


def test_a_client_that_expects_it_is_told_to_go_on() -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        writer.write(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert await _reply(reader) == (200, b"hi")
        writer.write(b"POST /secret HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert await _reply(reader) == (403, b"no")
        assert await reader.read() == b""

    _talk(dialogue)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 100001\r\n\r\n", 413),
        (b"POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1adb0\r\n" + b"x" * 110_000, 413),
        (b"nonsense\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", 400),
        (_BOTH_FRAMINGS, 400),
        (b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_what_is_bad_or_too_large_is_refused_and_the_connection_closed(sent: bytes, status: int) -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        writer.write(sent)
        assert (await _reply(reader))[0] == status
        assert await reader.read() == b""

    _talk(dialogue)


def test_a_head_without_end_is_refused() -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        writer.write(b"POST /a HTTP/1.1\r\na: ")
        for _ in range(40):
            await asyncio.sleep(0.005)
            writer.write(b"x" * 8192)
        assert (await _reply(reader))[0] in (400, 431)

    _talk(dialogue)


@pytest.mark.parametrize(
    "sent", [b"POST /a HTTP/1.1\r\nhost:", b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nx"]
)
def test_a_client_that_dribbles_is_parted_with(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(http_server, "SWEEP_SECONDS", 0.05)

    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        async def dribble() -> None:
            writer.write(sent)
            while True:
                await asyncio.sleep(0.1)
                writer.write(b"x")

        dribbling = asyncio.create_task(dribble())
        assert (await _reply(reader))[0] == 408
        dribbling.cancel()

    _talk(dialogue)


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(http_server, "SWEEP_SECONDS", 0.05)

    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        assert await reader.read() == b""

    _talk(dialogue)


def test_the_application_is_told_when_a_client_leaves() -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        writer.write(b"POST /never HTTP/1.1\r\nhost: h\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.close()
        while not echo.left:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert echo.left == [b"/never"]

    _talk(dialogue)


def test_more_connections_than_there_is_room_for_are_refused() -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        more, other = await asyncio.open_connection(*writer.get_extra_info("peername"))
        assert (await _reply(more))[0] == 503
        other.close()
        writer.write(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx")
        assert await _reply(reader) == (200, b"x")

    _talk(dialogue, max_connections=1)


def test_an_upgrade_is_not_done_and_the_request_answered() -> None:
    async def dialogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echo: _Echo) -> None:
        writer.write(
            b"POST /a HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
            b"content-length: 2\r\n\r\nhi"
        )
        assert (await _reply(reader))[0] == 200
        assert await reader.read() == b""

    _talk(dialogue)


def test_closing_lets_what_was_begun_end() -> None:
    async def facts() -> None:
        class Slow(_Echo):
            def answer(self, request: Request) -> None:
                asyncio.get_running_loop().call_later(0.3, super().answer, request)

        with tempfile.TemporaryDirectory(prefix="clary-test-") as folder:
            path = Path(folder, "s")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            server = Server(Slow(), max_connections=8)
            await server.listen(listener)
            reader, writer = await asyncio.open_unix_connection(str(path))
            idle, other = await asyncio.open_unix_connection(str(path))
            writer.write(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
            await asyncio.sleep(0.1)
            closing = asyncio.create_task(server.close(5))
            assert await idle.read() == b""
            assert await _reply(reader) == (200, b"hi")
            assert await reader.read() == b""
            await closing
            writer.close()
            other.close()
            with pytest.raises(OSError):
                await asyncio.open_unix_connection(str(path))

    asyncio.run(facts())
