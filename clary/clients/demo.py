"""Runs one script against a Clary of its own that is gone afterwards: what ``make demo`` does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from clary.clients.environment import client_environment
from clary.running_server import RunningServer, find_running

_START_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 30.0
_LAST_WORDS = 40  # lines of the server's log


class DidNotStart(Exception):
    """The server ended, or was not ready in time; the message is its log."""


@contextlib.contextmanager
def serving(data: Path) -> Iterator[RunningServer]:
    """A server of its own on ``data`` while the block runs; its log is ``data``'s sibling ``server.log``.

    Raises `DidNotStart`.
    """
    log = data.parent / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "clary.cli", "up", "--data", str(data), "--port", "0"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while (running := find_running(data)) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise DidNotStart(log.read_text(errors="replace"))
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """``python -m clary.clients.demo COMMAND ...``: start a server, run the command, stop the server."""
    if len(sys.argv) < 2:
        print("usage: python -m clary.clients.demo COMMAND ...", file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clary-demo-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        try:
            with serving(data) as running:
                print(
                    f"Clary runs at {running.endpoint_url}, started in {time.monotonic() - started:.1f} s.\n"
                )
                sys.stdout.flush()
                variables, unset = client_environment(data, running, os.environ)
                environment = {name: value for name, value in os.environ.items() if name not in unset}
                code = subprocess.run(sys.argv[1:], env=environment | variables, check=False).returncode
        except DidNotStart as error:
            print(f"Clary did not start. Its log:\n{error}", file=sys.stderr)
            return 1
        if code != 0:
            words = (Path(folder) / "server.log").read_text(errors="replace").splitlines()[-_LAST_WORDS:]
            print("\nThe script failed. The server's last words:\n" + "\n".join(words), file=sys.stderr)
    print(f"\nDone in {time.monotonic() - started:.1f} s.")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
