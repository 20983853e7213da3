"""Runs one script against a Clary of its own that is gone afterwards: what ``make demo`` does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clary.clients.environment import client_environment
from clary.running_server import RunningServer, find_running

_START_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 30.0


def main() -> int:
    """``python -m clary.clients.demo COMMAND ...``: start a server, run the command, stop the server."""
    if len(sys.argv) < 2:
        print("usage: python -m clary.clients.demo COMMAND ...", file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clary-demo-", ignore_cleanup_errors=True) as folder:
        data = Path(folder)
        log = data / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", "clary.cli", "up", "--data", folder, "--port", "0"],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            running = _wait_until_up(server, data)
            if running is None:
                print("Clary did not start. Its log:\n" + log.read_text(errors="replace"), file=sys.stderr)
                return 1
            print(f"Clary runs at {running.endpoint_url}, started in {time.monotonic() - started:.1f} s.\n")
            variables, unset = client_environment(data, running, os.environ)
            environment = {name: value for name, value in os.environ.items() if name not in unset}
            outcome = subprocess.run(sys.argv[1:], env=environment | variables, check=False)
        finally:
            server.terminate()
            try:
                server.wait(_STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
        if outcome.returncode != 0:
            print("\nThe script failed. The server's last words:", file=sys.stderr)
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)
    print(f"\nDone in {time.monotonic() - started:.1f} s.")
    return outcome.returncode


def _wait_until_up(server: subprocess.Popen[bytes], data: Path) -> RunningServer | None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        running = find_running(data)
        if running is not None:
            return running
        time.sleep(0.05)
    return None


if __name__ == "__main__":
    raise SystemExit(main())
