"""The agent fork server: a warm process that agents are forked from, so that a job starts at once.

It speaks with the driver over one socket and ends with it; agents live on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from clary.agent import agent
from clary.agent.aws import clients_for, warm_up
from clary.agent.runtimes import docker
from clary.agent.runtimes.channel import ChannelBroken, receive_message, send_message
from clary.agent.surroundings import AgentSettings
from clary.algorithms import algorithm
from clary.resources.container_record import records_folder
from clary.resources.task_folder import TaskFolder, write_document


def main(arguments: list[str]) -> int:
    """``python -m clary.agent.fork_server SOCKET_DESCRIPTOR SETTINGS_JSON``: serve until the socket ends."""
    channel = socket.socket(fileno=int(arguments[0]))
    settings = AgentSettings(**json.loads(arguments[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_up()
    algorithm.specs()
    gc.collect()
    gc.freeze()
    _AgentForkServer(channel, settings).serve()
    return 0


class _AgentForkServer:
    def __init__(self, channel: socket.socket, settings: AgentSettings) -> None:
        self._channel, self._settings = channel, settings
        self._agents: dict[int, Path] = {}

    def serve(self) -> None:
        waker, wakes = socket.socketpair()
        waker.setblocking(False)
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake)
        with selectors.DefaultSelector() as selector, contextlib.suppress(ChannelBroken):
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(waker, selectors.EVENT_READ)
            send_message(self._channel, {"ready": True})
            while True:
                for key, _ in selector.select():
                    if key.fileobj is waker:
                        with contextlib.suppress(BlockingIOError):
                            waker.recv(4096)
                        self._reap()
                        self._prepare_for_containers()
                    else:
                        order, _ = receive_message(self._channel)
                        if "task" in order:
                            process_id = self._fork(Path(order["task"]), selector, (waker, wakes))
                            send_message(self._channel, {"task": order["task"], "process_id": process_id})
                        self._prepare(order)

    def _fork(
        self, task: Path, selector: selectors.BaseSelector, held: tuple[socket.socket, socket.socket]
    ) -> int:
        process_id = os.fork()
        if process_id == 0:
            selector.close()
            self._channel.close()
            for end in held:
                end.close()
            _become_agent(task, self._settings)
        self._agents[process_id] = task
        return process_id

    def _reap(self) -> None:
        """Keep how agents ended that ended badly: nobody else can know."""
        while True:
            try:
                process_id, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not process_id:
                return
            task = self._agents.pop(process_id, None)
            if task and status and task.is_dir():
                write_document(TaskFolder(task).path / "exit.json", {"wait_status": status})

    def _prepare(self, order: dict[str, str]) -> None:
        """Make clients for the server that the next agents will likely use."""
        with contextlib.suppress(Exception):
            clients_for(order["endpoint_url"], order["region"])
        self._prepare_for_containers()

    def _prepare_for_containers(self) -> None:
        """Load the engine's SDK, where containers are run at all, so that forked agents have it."""
        if records_folder(Path(self._settings.tasks)).is_dir():
            docker.load_sdk()


def _become_agent(task: Path, settings: AgentSettings) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        log = os.open(task / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        gc.enable()
        code = agent.run_agent(task, settings)
    except BaseException:  # noqa: BLE001 - nothing of the fork server may go on in the agent's process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wake(number: int, frame: FrameType | None) -> None:
    """Only there so that the signal is delivered and wakes the selector."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
