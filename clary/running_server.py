"""The server that runs on a data folder: who it is, where it listens, and that there is only one.

``DATA/server.lock`` is locked while a server lives, whatever way it ends; ``DATA/server.json`` says where
to find it. Commands read both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class NotRunning(Exception):
    """There is no server where one is needed; the message says how to start it."""


class AlreadyRunning(Exception):
    """Another server holds the data folder."""


@dataclass(frozen=True)
class RunningServer:
    """Where the live server of a data folder listens. Ports are TCP ports on ``host``."""

    process_id: int
    host: str
    port: int
    tls_port: int
    gateway_port: int
    region: str
    account: str
    version: str
    started_at: float

    @property
    def endpoint_url(self) -> str:
        return f"http://{bracketed(reachable_host(self.host))}:{self.port}"

    @property
    def gateway_url(self) -> str:
        return f"http://{bracketed(reachable_host(self.host))}:{self.gateway_port}"


def reachable_host(host: str) -> str:
    """The address by which this machine reaches a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def bracketed(host: str) -> str:
    """``host`` as a URL writes it."""
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def hold_data_folder(data: Path) -> Iterator[None]:
    """Make ``data`` (mode 0700) and hold it for this process. Raises `AlreadyRunning`."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(data / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = find_running(data)
            where = f" at {running.endpoint_url} (process {running.process_id})" if running else ""
            raise AlreadyRunning(
                f"A Clary server already uses {data}{where}. Stop it, or choose another folder with --data."
            ) from None
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                (data / "server.json").unlink()
    finally:
        os.close(descriptor)


def announce(data: Path, server: RunningServer) -> None:
    """Write ``server.json`` for the commands to find."""
    temporary = data / "server.json.new"
    temporary.write_text(json.dumps(dataclasses.asdict(server), indent=2) + "\n", encoding="utf-8")
    temporary.replace(data / "server.json")


def running_server(data: Path) -> RunningServer:
    """The live server on ``data``. Raises `NotRunning`."""
    server = find_running(data)
    if server is None:
        raise NotRunning(f"no server runs on {data}. Start one with: clary up --data {data}")
    return server


def find_running(data: Path) -> RunningServer | None:
    """The live server on ``data``, or ``None``."""
    try:
        document = json.loads((data / "server.json").read_text(encoding="utf-8"))
        with (data / "server.lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return RunningServer(**document)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        pass
    return None
