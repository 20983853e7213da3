"""The hosts of one training job, from the first one's point of view and from every other's.

The first host listens on its own address; each other one keeps a connection to it as long as it trains. Over
it the hosts tell one another what they found and hand over bytes (`gather`), and by its end they learn that
one of them is gone, by name, within a moment, whatever a library is waiting for.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clary.algorithms.faults import ClientError, HostLost, NothingTrained
from clary.algorithms.job import Job, write_failure

# The addresses of a cluster are its own, so a port that is always the same is free.
PORT = 9099
# Hosts bring in their data before their program starts, some much more of it than others.
LONGEST_JOIN_SECONDS = 3600.0
LONGEST_BIND_SECONDS = 30.0
# How long a host that learns of a loss may take to end by itself, before it is ended.
LONGEST_END_SECONDS = 5.0
LONGEST_DOCUMENT_BYTES = 1 << 20
LARGEST_PAYLOAD_BYTES = 1 << 34
_LONGEST_REASON = 700
_LOOK_SECONDS = 0.5
_QUIET_SECONDS = 10.0  # of waiting, before it is worth a line in the log
_SMALL_BYTES = 65_536  # what is worth joining, to be sent at once
_HEAD = struct.Struct("!IQ")  # bytes of the document, bytes of the payload
# A machine that vanishes closes nothing: ask after silent ones.
_KEEP_ALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


@dataclass(frozen=True)
class Told:
    """What a host told the others."""

    document: Mapping[str, Any]
    payload: bytes = b""


@dataclass(frozen=True)
class _Loss:
    """``stopped``: it was told to stop, which is no fault."""

    host: str
    reason: str
    stopped: bool = False

    def told(self) -> Mapping[str, Any]:
        return {"kind": "left", "host": self.host, "reason": self.reason, "stopped": self.stopped}

    def message(self) -> str:
        cause, _, rest = self.reason.partition(": ")
        if cause in ("ClientError", "AlgorithmError"):
            return f"{cause}: {self.host}: {rest}"
        return f"AlgorithmError: {self.host}: {self.reason}"


@dataclass
class _Peer:
    host: str
    connection: socket.socket
    told: deque[Told] = field(default_factory=deque)  # what `gather` has not taken yet
    gone: bool = False
    sending: threading.Lock = field(default_factory=threading.Lock)


class Cluster:
    """The job's hosts, of which this program is one; a cluster of one host needs no network.

    `gather` is for the program's own thread, and every host must call it equally often. ``end`` is called
    with a message, from another thread, where a host is lost and this program does not end by itself; it must
    end the program.
    """

    def __init__(self, job: Job, end: Callable[[str], None]) -> None:
        self.hosts: Sequence[str] = sorted(job.hosts, key=_natural)
        self.host = job.current_host
        self._job = job
        self._end = end
        self._peers: dict[str, _Peer] = {}
        self._changed = threading.Condition()
        self._loss: _Loss | None = None
        self._leaving = False
        self._listener: socket.socket | None = None
        if self.host not in self.hosts:
            raise ClientError(
                f"resourceconfig.json names the hosts {', '.join(self.hosts)}, not {self.host}."
            )

    @property
    def is_first(self) -> bool:
        return self.host == self.hosts[0]

    def address(self, host: str) -> str:
        """Where ``host`` listens. Raises ``OSError`` for a name that cannot be resolved (yet)."""
        known = os.environ.get("CLARY_CLUSTER_ADDRESSES", "")
        if known:
            address = json.loads(known).get(host)
            if address:
                return str(address)
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
        return str(found[0][4][0])

    def join(self) -> None:
        """Find the other hosts. Raises `HostLost` and, if told to stop while waiting, `NothingTrained`."""
        if len(self.hosts) == 1:
            return
        if self.is_first:
            self._listener = self._listen()
            threading.Thread(target=self._welcome, name="cluster", daemon=True).start()
            self._wait(lambda: len(self._peers) == len(self.hosts) - 1, LONGEST_JOIN_SECONDS, self._missing)
        else:
            self._connect()
        self._job.log(f"The cluster is complete: {', '.join(self.hosts)}")

    def gather(
        self, document: Mapping[str, Any], payload: bytes = b"", *, stops: bool = True
    ) -> Sequence[Told]:
        """What every host gave to its own call, in the order of ``hosts``.

        Waits for the slowest. Raises `HostLost` and, if told to stop while waiting, `NothingTrained`; not
        if ``stops`` is false, where there is something to keep.
        """
        mine = Told(document, payload)
        if len(self.hosts) == 1:
            return [mine]
        if not self.is_first:
            first = self._peers[self.hosts[0]]
            self._send(first, *_messages([mine]))
            self._wait(lambda: len(first.told) >= len(self.hosts), stops=stops)
            return [first.told.popleft() for _ in self.hosts]
        self._wait(lambda: all(peer.told for peer in self._peers.values()), stops=stops)
        everyone = [mine if host == self.host else self._peers[host].told.popleft() for host in self.hosts]
        messages = list(_messages(everyone))
        for peer in self._peers.values():
            self._send(peer, *messages)
        return everyone

    def explain(self, error: BaseException) -> None:
        """Raise `HostLost` if ``error`` comes of a lost host, which may be known only a moment later."""
        if len(self.hosts) > 1:
            with self._changed:
                self._changed.wait_for(lambda: self._loss is not None, LONGEST_END_SECONDS / 2)
                if self._loss is not None:
                    raise self._fault() from error

    def leave(self, reason: str = "", *, stopped: bool = False) -> None:
        """Tell the others that this host is done, or with ``reason`` why it cannot go on; where that is the
        loss of another host, they are told of that one."""
        with self._changed:
            self._leaving = True
            loss = self._loss or _Loss(self.host, reason[:_LONGEST_REASON], stopped)
            if reason and self._listener is not None and not stopped:
                # Those that come late would look for this host in vain.
                self._changed.wait_for(lambda: not self._missing(), LONGEST_END_SECONDS)
            peers = list(self._peers.values())
        farewell = loss.told() if reason else {"kind": "bye"}
        for peer in peers:
            with contextlib.suppress(OSError):
                self._send(peer, *_message(farewell))
                peer.connection.shutdown(socket.SHUT_WR)
        if self._listener is not None:
            self._listener.close()

    def _listen(self) -> socket.socket:
        deadline = time.monotonic() + LONGEST_BIND_SECONDS
        while True:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self.address(self.host), PORT))
                listener.listen(len(self.hosts))
                return listener
            except OSError as error:
                listener.close()
                if time.monotonic() > deadline:
                    raise OSError(
                        error.errno, f"{self.host} cannot listen for the other hosts on port {PORT}: {error}"
                    ) from error
                self._pause()

    def _connect(self) -> None:
        first = self.hosts[0]
        began = time.monotonic()
        told = False
        while True:
            try:
                connection = socket.create_connection((self.address(first), PORT), timeout=_QUIET_SECONDS)
                break
            except OSError as error:
                waited = time.monotonic() - began
                if waited > LONGEST_JOIN_SECONDS:
                    raise HostLost(
                        f"AlgorithmError: {first}: it did not answer within {waited:.0f} s ({error})"
                    ) from error
                if waited > _QUIET_SECONDS and not told:
                    told = True
                    self._job.log(f"Waiting for {first}")
                self._pause()
        peer = self._admit(first, connection)
        self._send(peer, *_message({"kind": "hello", "host": self.host, "job": self._job.name}))
        threading.Thread(target=self._listen_to, args=(peer,), name=first, daemon=True).start()

    def _welcome(self) -> None:
        """Take in each other host once, and nobody else."""
        assert self._listener is not None
        while len(self._peers) < len(self.hosts) - 1:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # this host has left
            threading.Thread(target=self._meet, args=(connection,), name="cluster", daemon=True).start()

    def _meet(self, connection: socket.socket) -> None:
        connection.settimeout(_QUIET_SECONDS)
        try:
            document, _ = _receive(connection, largest_payload=0)
        except (OSError, ValueError):
            connection.close()
            return
        host = str(document.get("host"))
        if document.get("job") != self._job.name or host not in self.hosts or host == self.host:
            connection.close()
            return
        with self._changed:
            if host in self._peers:
                connection.close()
                return
            peer = self._admit(host, connection)
        self._listen_to(peer)

    def _admit(self, host: str, connection: socket.socket) -> _Peer:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        peer = _Peer(host, connection)
        with self._changed:
            self._peers[host] = peer
            self._changed.notify_all()
        return peer

    def _listen_to(self, peer: _Peer) -> None:
        """Hear a host out, on a thread of its own."""
        while True:
            try:
                document, payload = _receive(peer.connection)
            except (OSError, ValueError) as error:
                if not peer.gone:
                    cause = f" ({error})" if str(error) else ""
                    self._lose(_Loss(peer.host, f"the host ended in the middle of the training{cause}"))
                return
            kind = document.get("kind")
            if kind == "tell":
                with self._changed:
                    peer.told.append(Told(document.get("document") or {}, payload))
                    self._changed.notify_all()
            elif kind == "bye":
                peer.gone = True
            elif kind == "left":
                peer.gone = True
                lost = str(document.get("host") or peer.host)
                self._lose(_Loss(lost, str(document.get("reason")), bool(document.get("stopped"))))

    def _lose(self, loss: _Loss) -> None:
        with self._changed:
            if self._leaving or self._loss is not None:
                return
            self._loss = loss
            self._changed.notify_all()
            others = [peer for peer in self._peers.values() if peer.host != loss.host]
        if self.is_first:
            for peer in others:
                with contextlib.suppress(OSError):
                    self._send(peer, *_message(loss.told()))
        threading.Thread(target=self._end_late, name="cluster", daemon=True).start()

    def _end_late(self) -> None:
        time.sleep(LONGEST_END_SECONDS)
        assert self._loss is not None
        self._end(self._loss.message())

    def _send(self, peer: _Peer, *pieces: bytes) -> None:
        """Pieces of whole messages; see `_message`."""
        if sum(map(len, pieces)) <= _SMALL_BYTES:
            pieces = (b"".join(pieces),)
        try:
            with peer.sending:
                for piece in pieces:
                    peer.connection.sendall(piece)
        except OSError as error:
            self._lose(_Loss(peer.host, f"the host ended in the middle of the training ({error})"))

    def _wait(
        self,
        until: Callable[[], bool],
        limit_seconds: float | None = None,
        late: Callable[[], str] | None = None,
        *,
        stops: bool = True,
    ) -> None:
        """Raises `HostLost`, with the message of ``late`` if the limit passes, and `NothingTrained`."""
        began = time.monotonic()
        told = False
        with self._changed:
            while not until():
                if self._loss is not None:
                    raise self._fault()
                if stops and self._job.stop_requested:
                    raise NothingTrained
                waited = time.monotonic() - began
                if limit_seconds is not None and late is not None:
                    if waited > limit_seconds:
                        raise HostLost(f"AlgorithmError: {late()}: no answer within {waited:.0f} s")
                    if waited > _QUIET_SECONDS and not told:
                        told = True
                        self._job.log(f"Waiting for {late()}")
                self._changed.wait(_LOOK_SECONDS)  # a signal wakes no waiting thread

    def _fault(self) -> HostLost | NothingTrained:
        assert self._loss is not None
        if self._loss.stopped or self._job.stop_requested:
            return NothingTrained()
        return HostLost(self._loss.message())

    def _missing(self) -> str:
        return ", ".join(host for host in self.hosts if host != self.host and host not in self._peers)

    def _pause(self) -> None:
        if self._job.stop_requested:
            raise NothingTrained
        time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def joined(job: Job) -> Iterator[Cluster]:
    """The job's cluster, complete; what ends the block is told to the other hosts."""

    def end(message: str) -> None:
        print(message, file=sys.stderr, flush=True)
        write_failure(job.base, message)
        os._exit(1)

    cluster = Cluster(job, end)
    try:
        cluster.join()
        yield cluster
    except ClientError as error:
        cluster.leave(f"ClientError: {error}")
        raise
    except NothingTrained:
        cluster.leave("it was told to stop before anything was trained", stopped=True)
        raise
    except HostLost as error:
        cluster.leave(str(error))
        raise
    except BaseException as error:
        cluster.leave(f"AlgorithmError: {type(error).__name__}: {error}")
        raise
    cluster.leave()


def _messages(told: Sequence[Told]) -> Iterator[bytes]:
    for each in told:
        yield from _message({"kind": "tell", "document": each.document}, each.payload)


def _message(document: Mapping[str, Any], payload: bytes = b"") -> tuple[bytes, bytes]:
    """A message, in two pieces. Raises ``ValueError`` for one that is too long."""
    text = json.dumps(document).encode()
    if len(text) > LONGEST_DOCUMENT_BYTES or len(payload) > LARGEST_PAYLOAD_BYTES:
        raise ValueError(f"{len(text)} and {len(payload)} bytes are too much to tell another host")
    return _HEAD.pack(len(text), len(payload)) + text, payload


def _receive(connection: socket.socket, largest_payload: int = LARGEST_PAYLOAD_BYTES) -> tuple[Any, bytes]:
    """One message. Raises ``OSError`` at the connection's end, ``ValueError`` for what is no message."""
    length, size = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if length > LONGEST_DOCUMENT_BYTES or size > largest_payload:
        raise ValueError(f"a message of {length} and {size} bytes")
    document = json.loads(_exactly(connection, length))
    if not isinstance(document, dict):
        raise ValueError("a message that is no JSON object")
    return document, bytes(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytearray:
    found = bytearray(size)
    view = memoryview(found)
    filled = 0
    while filled < size:
        count = connection.recv_into(view[filled:])
        if not count:
            raise ConnectionResetError("")
        filled += count
    return found


def _natural(host: str) -> tuple[str, int]:
    """``algo-10`` comes after ``algo-2``."""
    name, dash, number = host.rpartition("-")
    return (name, int(number)) if dash and number.isdecimal() else (host, -1)
