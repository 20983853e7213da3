"""A real server for tests: started as a user would, killed as fate would, asked through botocore."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from clary.clients.connect import connect
from clary.clients.environment import client_environment
from clary.running_server import RunningServer, find_running

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 60.0


class ServerProcess:
    """``clary up`` on ``folder / "data"``; may be killed and started again, on the same ports."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.data = folder / "data"
        self.log = folder / "server.log"
        self._settings = {f"CLARY_{name.upper()}": value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self._port = "0"

    def start(self) -> RunningServer:
        """Start and wait until ready. Raises ``RuntimeError`` with the log if it does not come up."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clary.cli", "up", "--data", str(self.data), "--port", self._port],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self._settings,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while (running := find_running(self.data)) is None or running.process_id != self._process.pid:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    "The server did not start:\n" + self.log.read_text(errors="replace")[-20_000:]
                )
            time.sleep(0.02)
        self._port = str(running.port)
        return running

    def kill(self) -> None:
        """SIGKILL to the server process alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Ctrl-C, and wait. Raises ``TimeoutExpired`` if it does not end; does nothing if it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def environment(self) -> dict[str, str]:
        """The variables that `clary env` gives. The server must run."""
        running = find_running(self.data)
        assert running is not None, "the server does not run"
        return client_environment(self.data, running, {})[0]

    def client(self, service: str, *, attempts: int = 1, gateway: bool = False) -> Any:
        """A botocore client of ``service``; with ``gateway`` it talks to the gateway's own port."""
        running = find_running(self.data)
        assert running is not None, "the server does not run"
        url = running.gateway_url if gateway else running.endpoint_url
        return connect(self.data, running, service, attempts=attempts, endpoint_url=url)

    def processes(self) -> dict[int, str]:
        """Every live process that has to do with this server's folder, with its command line."""
        mark = bytes(self.data)
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                held = [bytes(link.readlink()) for link in [*(entry / "fd").iterdir(), entry / "cwd"]]
                held += [command, (entry / "environ").read_bytes()]
            except (OSError, PermissionError):
                continue
            if command and any(mark in text for text in held):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
