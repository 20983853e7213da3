"""How a container reaches Clary's API: the agent listens for it at the gateway of the container's network.

The server listens on loopback, which a container does not see. So the agent takes connections at the
gateway's address, from its own container alone, and passes them on. AWS's SDKs take credentials by the
container protocol from loopback addresses only; a second listener speaks the protocol of EC2's instance
metadata instead, which they all know and whose address can be told to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from clary.resources.task import Connection

MOST_CONNECTIONS = 512
_BACKLOG = 256
_ADMIT_SECONDS = 30.0  # how long a connection waits until it is known whose container it comes from
_CONNECT_SECONDS = 10.0
_BLOCK_BYTES = 1 << 16
_LARGEST_HEAD_BYTES = 1 << 14
_HEAD_SECONDS = 10.0
_CREDENTIALS_SECONDS = 5.0
_START_SECONDS = 10.0
_IP_FREEBIND = 15  # Linux: an address that will be there only when the first container is
_TOKEN_SECONDS = "21600"
_ROLE = "clary-task"
_CREDENTIALS = "/latest/meta-data/iam/security-credentials"

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ApiAccess:
    """See the module. Listens from its making on; answers once `admit` has named the container's address.

    Raises ``OSError`` if there can be no listener at ``gateway``.
    """

    def __init__(self, gateway: str, connection: Connection) -> None:
        self._connection = connection
        self._gateway = gateway
        parts = urlsplit(connection.endpoint_url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._peer = ""
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._admitted = asyncio.Event()
        self._api = _listener(gateway)
        try:
            self._metadata = _listener(gateway)
        except OSError:
            self._api.close()
            raise
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="api-access", daemon=True)
        self._thread.start()
        self._ready.wait(_START_SECONDS)

    def environment(self) -> dict[str, str]:
        """Variables by which AWS's SDKs find the API and their credentials."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self._gateway}:{self._api.getsockname()[1]}",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{self._gateway}:{self._metadata.getsockname()[1]}/",
            "AWS_METADATA_SERVICE_TIMEOUT": "5",
            "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "5",
        }

    @property
    def at_hand(self) -> bool:
        """Whether the gateway, now that a container runs, is this machine; it may be a virtual one."""
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            try:
                probe.bind((self._gateway, 0))
            except OSError:
                return False
        return True

    def admit(self, address: str) -> None:
        """Only connections from ``address`` are served, from now on."""
        self._peer = address
        self._loop.call_soon_threadsafe(self._admitted.set)

    def close(self) -> None:
        """End every connection and the listeners."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            servers = [
                self._loop.run_until_complete(asyncio.start_server(handler, sock=listener, backlog=_BACKLOG))
                for handler, listener in ((self._pass_on, self._api), (self._tell, self._metadata))
            ]
            self._ready.set()
            self._loop.run_forever()
            for server in servers:
                server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(self._settle())
        finally:
            self._ready.set()
            self._api.close()
            self._metadata.close()
            self._loop.close()

    async def _settle(self) -> None:
        """Let what was cancelled end."""
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    async def _is_ours(self, writer: asyncio.StreamWriter) -> bool:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._admitted.wait(), _ADMIT_SECONDS)
        peer = writer.get_extra_info("peername")
        return bool(self._peer) and peer is not None and peer[0] == self._peer

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to the API."""
        if self._connections >= MOST_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            if not await self._is_ours(writer):
                return
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                there, back = await asyncio.wait_for(asyncio.open_connection(*self._target), _CONNECT_SECONDS)
                try:
                    await asyncio.gather(_pump(reader, back), _pump(there, writer))
                finally:
                    back.close()
        finally:
            self._connections -= 1
            writer.close()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for metadata."""
        try:
            if not await self._is_ours(writer):
                return
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
            method, path, *_ = *head.decode("latin-1").split(" ", 2), "", ""
            status, body = await self._answer(method, path)
            reply = (
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                f"X-aws-ec2-metadata-token-ttl-seconds: {_TOKEN_SECONDS}\r\nConnection: close\r\n\r\n"
            )
            writer.write(reply.encode() + body)
            await writer.drain()
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the container's side went away, or never said what it wants
        finally:
            writer.close()

    async def _answer(self, method: str, path: str) -> tuple[str, bytes]:
        if (method, path) == ("PUT", "/latest/api/token"):
            return "200 OK", _ROLE.encode()
        if method != "GET":
            return "405 Method Not Allowed", b""
        if path.rstrip("/") == _CREDENTIALS:
            return "200 OK", _ROLE.encode()
        if path == "/latest/meta-data/placement/region":
            return "200 OK", self._connection.region.encode()
        if path != f"{_CREDENTIALS}/{_ROLE}":
            return "404 Not Found", b""
        try:
            document = await self._loop.run_in_executor(None, self._credentials)
        except (OSError, ValueError) as error:
            return "503 Service Unavailable", str(error).encode()
        return "200 OK", json.dumps(document).encode()

    def _credentials(self) -> dict[str, Any]:
        request = urllib.request.Request(
            self._connection.credentials_url, headers={"Authorization": self._connection.credentials_token}
        )
        with _direct.open(request, timeout=_CREDENTIALS_SECONDS) as reply:
            document = json.loads(reply.read(1 << 16))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {**document, "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": now}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of ``reader``, and say so to the other side."""
    try:
        while block := await reader.read(_BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()  # nothing more can go this way, and so nothing should come the other


def _listener(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listener.bind((address, 0))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
