"""From the gateway to the model servers: kept connections, fair choice, bounded waiting.

A *ticket* is one request on its way. It waits in the queue of its variant until a replica has room, travels
over one connection alone, and ends exactly once: with the reply, or with the reason why there is none.
Whatever becomes of a connection, its place at the replica is given back when it is lost.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import Protocol, cast

import httptools

MAX_IN_FLIGHT_PER_REPLICA = 64
MAX_WAITING = 1024  # requests of one variant
MAX_IDLE_PER_REPLICA = 64
MAX_REPLY_BYTES = 25 * 1024**2
MAX_REPLY_HEADERS = 128
CONNECT_SECONDS = 5.0
SPARE_SECONDS = 0.2  # a replica that refused a connection is spared for so long


class Ticket(Protocol):
    """One request to a model server, and what its sender wants to hear."""

    payload: bytes  # head and body, ready to be written
    streams: bool  # pieces of the reply are wanted as they come
    connection: UpstreamConnection | None
    cancelled: bool
    patient_until: float  # of ``time.monotonic``: how long it may wait for a replica that can be reached

    def sent(self) -> None:
        """The request is being written."""

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The reply's head has come. Names are in lower case. Only for tickets that stream."""

    def reply_piece(self, piece: bytes) -> None:
        """A piece of the reply has come. Only for tickets that stream."""

    def replied(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """The reply is complete; ``body`` is empty for tickets that stream."""

    def broke(self, why: str) -> None:
        """The request was sent, and no whole reply came."""

    def unavailable(self, why: str) -> None:
        """The request was not sent to anybody."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to a replica. It takes one ticket at a time."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._ticket: Ticket | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._status = 0
        self._head_done = False
        self._until_end = False
        self._complete = False
        self._why = ""

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, ticket: Ticket) -> None:
        """Begin with ``ticket``; the connection must be `usable` and idle."""
        assert self._transport is not None and self._ticket is None
        self._ticket = ticket
        ticket.connection = self
        self._complete = False
        ticket.sent()
        self._transport.write(ticket.payload)

    def abandon(self) -> None:
        """Nobody wants the reply any more: the server learns it by losing the connection."""
        self._ticket = None
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause(self, paused: bool) -> None:
        """Read no more of the reply for now."""
        if self.usable and self._transport is not None:
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclasses

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._why = self._why or "the model server's reply is not proper HTTP/1.1"
            self.close()

    def eof_received(self) -> bool:
        if self._head_done and self._until_end and not self._why:
            self._complete = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        ticket, self._ticket = self._ticket, None
        self.replica.lost(self)
        if ticket is None:
            return
        if self._complete:
            ticket.replied(self._status, self._headers, b"".join(self._parts))
        else:
            ticket.broke(self._why or "the model server closed the connection before it had replied")

    # The parser's side.

    def on_message_begin(self) -> None:
        self._headers = []
        self._parts = []
        self._size = 0
        self._head_done = self._until_end = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            self._headers.append((name.lower(), value))
            if len(self._headers) > MAX_REPLY_HEADERS:
                self._fail(f"the model server's reply has more than {MAX_REPLY_HEADERS} headers")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200:
            return
        self._head_done = True
        framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)
        self._until_end = not framed and self._status not in (204, 304)
        ticket = self._ticket
        if ticket is None:
            self.close()  # nobody asked
        elif ticket.streams:
            ticket.reply_head(self._status, self._headers)

    def on_body(self, body: bytes) -> None:
        ticket = self._ticket
        if ticket is None:
            return
        if ticket.streams:
            ticket.reply_piece(body)
            return
        self._size += len(body)
        if self._size > MAX_REPLY_BYTES:
            self._fail(f"the model server's reply is larger than {MAX_REPLY_BYTES} bytes")
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._status < 200 or not self._head_done:
            return
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        parts, headers, status = self._parts, self._headers, self._status
        self._parts, self._headers = [], []
        ticket.connection = None
        if self._parser.should_keep_alive() and self.usable:
            self.replica.free(self)
        else:
            self.close()
        ticket.replied(status, headers, parts[0] if len(parts) == 1 else b"".join(parts))

    def _fail(self, why: str) -> None:
        self._why = why
        self._parts = []
        self.close()


class Replica:
    """One model server. ``in_flight`` counts connections that are busy or being made."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.in_flight = 0
        self.spare_until = 0.0
        self.retired = False
        self._idle: list[UpstreamConnection] = []
        self._busy: dict[UpstreamConnection, VariantPool] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def take(self, ticket: Ticket, pool: VariantPool) -> None:
        """Send ``ticket``, over a kept connection or a new one."""
        self.in_flight += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._busy[connection] = pool
                connection.send(ticket)
                return
        task = asyncio.get_running_loop().create_task(self._connect(ticket, pool))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def free(self, connection: UpstreamConnection) -> None:
        """``connection`` has its reply and can take another ticket."""
        pool = self._busy.pop(connection, None)
        if pool is None:
            return
        self.in_flight -= 1
        if self.retired or len(self._idle) >= MAX_IDLE_PER_REPLICA:
            connection.close()
        else:
            self._idle.append(connection)
        if pool.waiting:
            pool.pump()

    def lost(self, connection: UpstreamConnection) -> None:
        """``connection`` is gone, whatever it was doing."""
        pool = self._busy.pop(connection, None)
        if pool is not None:
            self.in_flight -= 1
            if pool.waiting:
                # Not at once: the lost ticket is told first, and a failing replica is not hammered.
                asyncio.get_running_loop().call_soon(pool.pump)
        elif connection in self._idle:
            self._idle.remove(connection)

    def retire(self) -> None:
        """No more tickets come: keep no idle connections."""
        self.retired = True
        for connection in self._idle[:]:
            connection.close()

    async def _connect(self, ticket: Ticket, pool: VariantPool) -> None:
        loop = asyncio.get_running_loop()
        kind, _, place = self.address.partition(":")
        connection = UpstreamConnection(self)
        try:
            if kind == "unix":
                connecting = loop.create_unix_connection(lambda: connection, place)
            else:
                host, _, port = place.rpartition(":")
                connecting = loop.create_connection(lambda: connection, host, int(port))
            await asyncio.wait_for(connecting, CONNECT_SECONDS)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            self.in_flight -= 1
            self.spare_until = time.monotonic() + SPARE_SECONDS
            if ticket.cancelled:
                pass
            elif time.monotonic() < ticket.patient_until:
                # Nothing was sent: another replica may take it, or this one when it is back.
                later = 0.0 if pool.has_other(self) else SPARE_SECONDS
                loop.call_later(later, pool.submit, ticket)
            else:
                ticket.unavailable(f"no model server could be reached: {error or type(error).__name__}")
            pool.pump()
            return
        except BaseException:
            self.in_flight -= 1
            raise
        self._busy[connection] = pool
        if ticket.cancelled:
            self.free(connection)
        elif connection.usable:
            connection.send(ticket)
        else:
            self.lost(connection)
            ticket.unavailable("the model server closed the connection at once")


class VariantPool:
    """The replicas of one variant, and the requests that wait for one of them."""

    def __init__(self) -> None:
        self.replicas: tuple[Replica, ...] = ()
        self.waiting: deque[Ticket] = deque()

    def submit(self, ticket: Ticket) -> None:
        """Send ``ticket`` to the replica with the fewest requests in flight, or let it wait its turn.

        While no replica is healthy it waits for one; whoever sent it says for how long.
        """
        if ticket.cancelled:
            return
        replica = None if self.waiting else self._free_replica()
        if replica is not None:
            replica.take(ticket, self)
        elif len(self.waiting) >= MAX_WAITING:
            ticket.unavailable(f"{MAX_WAITING} requests wait already")
        else:
            self.waiting.append(ticket)

    def pump(self) -> None:
        """Send what waits, as far as there is room."""
        while self.waiting:
            if self.waiting[0].cancelled:
                self.waiting.popleft()
                continue
            replica = self._free_replica()
            if replica is None:
                return
            replica.take(self.waiting.popleft(), self)

    def has_other(self, replica: Replica) -> bool:
        """Whether a request may be sent to another replica than ``replica``, which failed."""
        now = time.monotonic()
        return any(each is not replica and each.spare_until <= now for each in self.replicas)

    def cancel(self, ticket: Ticket) -> None:
        """Nobody wants the reply any more."""
        ticket.cancelled = True
        connection, ticket.connection = ticket.connection, None
        if connection is not None:
            connection.abandon()
        elif ticket in self.waiting:
            self.waiting.remove(ticket)

    def abandon(self) -> None:
        """Nobody will serve what waits."""
        while self.waiting:
            ticket = self.waiting.popleft()
            if not ticket.cancelled:
                ticket.unavailable("no instance of the variant is healthy")

    def _free_replica(self) -> Replica | None:
        replicas = self.replicas
        if len(replicas) == 1:
            return replicas[0] if replicas[0].in_flight < MAX_IN_FLIGHT_PER_REPLICA else None
        best: Replica | None = None
        fewest = MAX_IN_FLIGHT_PER_REPLICA
        now = time.monotonic()
        start = random.randrange(len(replicas)) if replicas else 0
        for number in range(len(replicas)):
            replica = replicas[(start + number) % len(replicas)]
            in_flight = replica.in_flight
            if replica.spare_until > now:
                in_flight += MAX_IN_FLIGHT_PER_REPLICA // 2  # only if the others are busy
            if in_flight < fewest:
                best, fewest = replica, in_flight
        return best
