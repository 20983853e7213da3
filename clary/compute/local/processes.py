"""The driver's two helper processes: the fork server of agents and the one of algorithms.

Both end when the socket that ties them to this process does, whatever way this process ends. When one of them
dies it is started again at the next need.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("!I")
READY_SECONDS = 60.0
ANSWER_SECONDS = 10.0
_BACKLOG = 256
_END_SECONDS = 5.0


class HelperFailed(Exception):
    """A helper process did not come up, or did not answer."""


class Helper:
    """One helper process and the socket that ties it to us. Not for use by two tasks at once."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        self._process = process
        self._ours = ours

    @classmethod
    def launch(
        cls, command: Sequence[str], tie: tuple[socket.socket, socket.socket], *passed: int, log: Path
    ) -> Helper:
        """Start ``command``, which has been told the descriptors of ``tie[1]`` and of ``passed``."""
        ours, theirs = tie
        ours.setblocking(False)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(), *passed),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,  # Ctrl-C at the terminal is for the server
                cwd="/",
            )
        finally:
            os.close(descriptor)
            theirs.close()
        return cls(process, ours)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def ask(self, document: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
        """Send ``document`` if there is one, and wait for the next message. Raises `HelperFailed`."""
        try:
            reply = await asyncio.wait_for(self._exchange(document), seconds)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise HelperFailed(f"a helper process did not answer: {error or type(error).__name__}") from error
        if not isinstance(reply, dict):
            raise HelperFailed(f"a helper process answered {reply!r}")
        return reply

    async def tell(self, document: Mapping[str, Any]) -> None:
        """Send ``document``; no answer comes. Raises `HelperFailed`."""
        body = json.dumps(document).encode()
        try:
            await asyncio.get_running_loop().sock_sendall(self._ours, _LENGTH.pack(len(body)) + body)
        except OSError as error:
            raise HelperFailed(f"a helper process is gone: {error}") from error

    async def _exchange(self, document: Mapping[str, Any] | None) -> Any:
        if document is not None:
            body = json.dumps(document).encode()
            await asyncio.get_running_loop().sock_sendall(self._ours, _LENGTH.pack(len(body)) + body)
        (size,) = _LENGTH.unpack(await self._exactly(_LENGTH.size))
        return json.loads(await self._exactly(size))

    async def _exactly(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        parts = b""
        while len(parts) < size:
            part = await loop.sock_recv(self._ours, size - len(parts))
            if not part:
                raise OSError("it ended")
            parts += part
        return parts

    async def end(self) -> None:
        """Let it go, and see it end."""
        self._ours.close()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await loop.run_in_executor(None, self._process.wait)

    def abandon(self) -> None:
        """Kill it now; nothing waits."""
        self._ours.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


def listen(path: Path) -> socket.socket:
    """A listening unix socket at ``path``, for our user only."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def launch_agent_fork_server(settings: Mapping[str, Any], log: Path) -> Helper:
    """Start the process that agents are forked from."""
    tie = socket.socketpair()
    command = [
        sys.executable,
        "-m",
        "clary.agent.fork_server",
        str(tie[1].fileno()),
        json.dumps(dict(settings)),
    ]
    return Helper.launch(command, tie, log=log)


def launch_algorithm_fork_server(
    path: Path,
    folders: Mapping[str, Path],
    *,
    file_systems: Mapping[str, str] | None = None,
    fencing: str,
    preload: bool,
    log: Path,
) -> Helper:
    """Start the process that algorithms are forked from; it listens at ``path``."""
    tie = socket.socketpair()
    with listen(path) as listener:
        command = [
            sys.executable,
            "-m",
            "clary.agent.runtimes.launch",
            json.dumps(
                {
                    "fencing": fencing,
                    "file_systems": dict(file_systems or {}),
                    **{name: str(folder) for name, folder in folders.items()},
                }
            ),
            json.dumps({"listener": listener.fileno(), "lifeline": tie[1].fileno(), "preload": preload}),
        ]
        return Helper.launch(command, tie, listener.fileno(), log=log)
