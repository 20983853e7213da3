"""The server's side of the gateway: start it or find it, keep it told, pass invocations on to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httptools

from clary import __version__
from clary.protocol.wire import Caller
from clary.resources.route import EndpointRoute, route_from_json, route_to_json
from clary.serving.control import (
    ControlBroken,
    GatewayPlaces,
    gateway_lives,
    gateway_places,
    read_message,
    write_message,
)
from clary.serving.gateway import ALREADY_RUNNING, listen
from clary.serving.invocations import MAX_BODY_BYTES
from clary.serving.keys import GatewayKeys, keys_to_json

START_SECONDS = 30.0
ANSWER_SECONDS = 10.0
STOP_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0
PIECE_BYTES = 256 * 1024
FORWARD_SECONDS = 600.0  # for one passed-on request in all; the gateway's own limits are much tighter
_DROPPED = frozenset({b"transfer-encoding", b"content-length", b"connection", b"expect", b"keep-alive"})

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

log = logging.getLogger("clary.gateway")


class GatewayFailed(Exception):
    """The gateway does not come up, or does not answer."""


class Gateway:
    """A running gateway. Methods are for one event loop; `start_or_find` makes it.

    It is the `clary.controllers.endpoints.Router` of a server. A gateway that dies is started again and told
    everything anew.
    """

    def __init__(self, data: Path, *, host: str, port: int, keys: GatewayKeys) -> None:
        self._places: GatewayPlaces = gateway_places(data.absolute())
        self._data = data.absolute()
        self._host = host
        self._asked_port = port
        self._keys = keys
        self.port = 0
        self.process_id = 0
        self._routes: dict[tuple[str, str, str], EndpointRoute] = {}
        self._acknowledged: dict[tuple[str, str, str], EndpointRoute] = {}
        self._connected_before = False
        self._process: subprocess.Popen[bytes] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._talking = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()

    @classmethod
    async def start_or_find(
        cls, data: Path, *, host: str = "127.0.0.1", port: int = 0, keys: GatewayKeys
    ) -> Gateway:
        """The gateway of ``data``: the one that lives, or a new one on ``port`` (0: the last one, or any).

        One of another version, or on another address, is stopped first. Raises `GatewayFailed`.
        """
        gateway = cls(data, host=host, port=port, keys=keys)
        await gateway._connect()
        gateway._watching = asyncio.get_running_loop().create_task(gateway._watch())
        return gateway

    # What a server tells it.

    async def publish(self, route: EndpointRoute) -> None:
        """Let invocations go this way from now on; returns when they do. Raises `GatewayFailed`."""
        key = (route.account, route.region, route.name)
        self._routes[key] = route
        if self._acknowledged.get(key) != route:
            await self._ask({"do": "route", "route": route_to_json(route)})
            self._acknowledged[key] = route

    async def withdraw(self, account: str, region: str, name: str) -> None:
        """Take no more invocations for an endpoint. Raises `GatewayFailed`."""
        key = (account, region, name)
        self._routes.pop(key, None)
        if key in self._acknowledged:
            await self._ask({"do": "withdraw", "account": account, "region": region, "name": name})
            self._acknowledged.pop(key, None)

    async def busy(self) -> frozenset[str]:
        """Addresses of replicas that answer invocations now. Raises `GatewayFailed`."""
        return frozenset((await self._ask({"do": "busy"}))["busy"])

    async def stats(self) -> list[dict[str, Any]]:
        """What was counted since the last call, by variant. Raises `GatewayFailed`."""
        variants: list[dict[str, Any]] = (await self._ask({"do": "stats"}))["variants"]
        return variants

    async def set_users(self, users: Mapping[str, Caller]) -> None:
        """The callers behind the active access keys of users, by access key id. Raises `GatewayFailed`."""
        if users != self._keys.users:
            self._keys = replace(self._keys, users=dict(users))
            await self._ask({"do": "keys", "keys": keys_to_json(self._keys)})

    @property
    def routes(self) -> Mapping[tuple[str, str, str], EndpointRoute]:
        """What it was told last, by account, region and name."""
        return dict(self._routes)

    async def stop(self) -> None:
        """End the gateway, gently, then not. Never raises."""
        await self._leave()
        with contextlib.suppress(GatewayFailed, ControlBroken, OSError):
            await self._tell_to_stop()
        await self._see_it_end()

    async def close(self) -> None:
        """Let go of the gateway, which serves on."""
        await self._leave()

    # Forwarding.

    async def forward(self, scope: Any, receive: Receive, send: Send) -> None:
        """The ASGI application that passes an invocation on as it came, and the reply back."""
        try:
            body = await _whole_body(receive)
        except ConnectionError:
            return
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._places.invocations))
        except OSError:
            await _answer_unavailable(send)
            return
        leaving = asyncio.ensure_future(_left(receive))
        passing = asyncio.ensure_future(_pass_on(scope, body, reader, writer, send))
        try:
            await asyncio.wait(
                {leaving, passing}, timeout=FORWARD_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if passing.done():
                await passing
        except _Broken:
            await _answer_unavailable(send)
        finally:
            for task in (leaving, passing):
                task.cancel()
            await asyncio.gather(leaving, passing, return_exceptions=True)
            writer.close()

    # Inside.

    async def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        async with self._talking:
            return await self._exchange(order)

    async def _exchange(self, order: Mapping[str, Any]) -> dict[str, Any]:
        if self._streams is None:
            raise GatewayFailed("the gateway is being started again")
        reader, writer = self._streams
        try:
            await write_message(writer, order)
            reply = await asyncio.wait_for(read_message(reader), ANSWER_SECONDS)
        except BaseException as error:
            # An answer that comes late, to somebody who was cancelled as well, must not be taken for the
            # next one's: this conversation is over.
            self._streams = None
            writer.close()
            self._lost.set()
            if isinstance(error, (ControlBroken, asyncio.TimeoutError)):
                reason = str(error) or "it took too long"
                raise GatewayFailed(f"the gateway does not answer: {reason}") from error
            raise
        if "error" in reply:
            raise GatewayFailed(f"the gateway did not take an order: {reply['error']}")
        return reply

    async def _connect(self) -> None:
        """Find the gateway or start one, and tell it all. Raises `GatewayFailed`."""
        self._places.make()
        async with self._talking:
            deadline = time.monotonic() + START_SECONDS
            while True:
                hello = await self._greet()
                if hello is not None:
                    self.port, self.process_id = hello["port"], hello["process_id"]
                if hello is not None and not self._fits(hello):
                    log.info("the gateway of another version or address is replaced")
                    with contextlib.suppress(GatewayFailed):
                        await self._exchange({"do": "stop"})
                    await self._see_it_end()
                    self._streams = None
                elif hello is not None:
                    break
                elif not gateway_lives(self._places) and (
                    self._process is None or self._process.poll() is not None
                ):
                    self._check_start()
                    self._start()
                if time.monotonic() > deadline:
                    raise GatewayFailed(
                        f"The gateway did not come up within {START_SECONDS:.0f} seconds: see "
                        f"{self._places.log}."
                    )
                await asyncio.sleep(0.02)
            await self._exchange({"do": "keys", "keys": keys_to_json(self._keys)})
            if self._connected_before:
                told = dict(self._routes)
                routes = [route_to_json(route) for route in told.values()]
                await self._exchange({"do": "routes", "routes": routes})
                self._acknowledged = told
            else:  # a new server: what the gateway has counts till the controllers say otherwise
                found = [route_from_json(each) for each in hello["routes"]]
                self._routes = {(route.account, route.region, route.name): route for route in found}
                self._acknowledged = dict(self._routes)
                self._connected_before = True
            self._lost.clear()

    async def _greet(self) -> dict[str, Any] | None:
        """Open the control connection; ``None`` if nobody answers there."""
        try:
            self._streams = await asyncio.open_unix_connection(str(self._places.control))
            return await self._exchange({"do": "hello"})
        except (OSError, GatewayFailed):
            self._streams = None
            return None

    def _fits(self, hello: Mapping[str, Any]) -> bool:
        return (
            hello["version"] == __version__
            and hello["host"] == self._host
            and self._asked_port in (0, hello["port"])
        )

    def _check_start(self) -> None:
        """Raises `GatewayFailed` if the gateway that was started has given up with words of its own."""
        process, self._process = self._process, None
        code = process.poll() if process is not None else None
        if code is None or code <= 0 or code == ALREADY_RUNNING:
            return
        said = ""
        with contextlib.suppress(OSError):
            said = self._places.log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise GatewayFailed(f"The gateway ended with exit code {code}: {said}")

    def _start(self) -> None:
        port = self._asked_port or self._last_port()
        command = [sys.executable, "-m", "clary.serving.gateway", "--data", str(self._data)]
        command += ["--host", self._host, "--port", str(port), "--version", __version__]
        descriptor = os.open(self._places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,  # Ctrl-C at the terminal is for the server
            )
        finally:
            os.close(descriptor)

    def _last_port(self) -> int:
        """The port of the gateway before, if nobody else has taken it."""
        port = self.port
        with contextlib.suppress(OSError, ValueError, KeyError):
            port = port or int(json.loads(self._places.document.read_text(encoding="utf-8"))["port"])
        return port if port and _is_free(self._host, port) else 0

    async def _watch(self) -> None:
        """Start the gateway again when it is gone."""
        pause = FIRST_PAUSE_SECONDS
        while True:  # till it is cancelled
            await self._lost_or_dead()
            log.warning("the gateway is gone; it is started again")
            try:
                await self._connect()
                pause = FIRST_PAUSE_SECONDS
            except (GatewayFailed, OSError) as error:
                log.error("%s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _lost_or_dead(self) -> None:
        """Return once the control connection is gone. It is at its end when the gateway's process is."""
        while not self._lost.is_set():
            streams = self._streams
            if streams is None or streams[0].at_eof():
                self._streams = None
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._lost.wait(), FIRST_PAUSE_SECONDS)

    async def _leave(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _tell_to_stop(self) -> None:
        self._streams = await asyncio.open_unix_connection(str(self._places.control))
        try:
            await self._ask({"do": "stop"})
        finally:
            if self._streams is not None:
                self._streams[1].close()
                self._streams = None

    async def _see_it_end(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while gateway_lives(self._places) and time.monotonic() < deadline:  # noqa: ASYNC110 - a file's lock
            await asyncio.sleep(0.02)
        if gateway_lives(self._places) and self.process_id:
            log.warning("the gateway did not stop in time and is killed")
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process_id, signal.SIGKILL)
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.get_running_loop().run_in_executor(None, process.wait, STOP_SECONDS)


class _Broken(Exception):
    """The gateway went away before it had begun to reply."""


async def _whole_body(receive: Receive) -> bytes:
    """The body of an ASGI request; more than the gateway takes is cut, for it to refuse."""
    parts, size = [], 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        piece = event.get("body", b"")
        size += len(piece)
        if size <= MAX_BODY_BYTES + 1:
            parts.append(piece)
        if not event.get("more_body"):
            break
    return b"".join(parts) if size <= MAX_BODY_BYTES else b"\0" * (MAX_BODY_BYTES + 1)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _ReplyParser:
    """Collects what httptools finds in a reply."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.head_done = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.complete = True


async def _pass_on(
    scope: Any, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, send: Send
) -> None:
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    target = path + (b"?" + query if query else b"")
    headers = [each for each in scope["headers"] if each[0].lower() not in _DROPPED]
    head = b"".join(b"%b: %b\r\n" % (name, value) for name, value in headers)
    writer.write(
        b"%b %b HTTP/1.1\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n"
        % (scope["method"].encode(), target, head, len(body))
    )
    writer.write(body)
    found = _ReplyParser()
    parser = httptools.HttpResponseParser(found)
    begun = False
    try:
        while not found.complete:
            data = await reader.read(PIECE_BYTES)
            if not data:
                break
            parser.feed_data(data)
            if found.head_done and not begun:
                begun = True
                kept = [
                    each for each in found.headers if each[0].lower() not in _DROPPED - {b"content-length"}
                ]
                await send(
                    {"type": "http.response.start", "status": parser.get_status_code(), "headers": kept}
                )
            while found.pieces:
                await send({"type": "http.response.body", "body": found.pieces.pop(0), "more_body": True})
    except (OSError, httptools.HttpParserError) as error:
        if not begun:
            raise _Broken from error
        raise
    if not found.complete and not begun:
        raise _Broken
    if found.complete:
        await send({"type": "http.response.body", "body": b""})


async def _answer_unavailable(send: Send) -> None:
    body = json.dumps({"Message": "The gateway is being started: try again."}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"x-amzn-errortype", b"ServiceUnavailable"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_free(host: str, port: int) -> bool:
    try:
        listen(host, port).close()
    except OSError:
        return False
    return True
