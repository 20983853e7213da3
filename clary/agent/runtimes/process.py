"""The runtime for what Clary manages itself: programs forked from the algorithm fork server.

The usual way is a connection to the machine's shared fork server. Where that cannot be had (no namespaces for
us on this machine; the server and its fork server were killed meanwhile), the agent starts a fork server for
this one program: slower by the imports, the same in all else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clary.agent.cgroups import Cgroup
from clary.agent.runtimes import sandbox
from clary.agent.runtimes.channel import ChannelBroken, receive_message, send_message
from clary.agent.runtimes.fork_server import ForkServerOrder, program_environment
from clary.agent.runtimes.program import Program
from clary.resources.task_folder import StartedProgram, task_folder

_CONNECT_SECONDS = 10.0  # a fork server that has just begun is busy with imports
_START_SECONDS = 120.0  # for a keeper to say that it is there, on a machine that is busy


class CannotRun(Exception):
    """The program could not be started; the message is fit for a FailureReason."""


@dataclass(frozen=True)
class ProcessRuntimeSettings:
    """How programs are run on this machine.

    ``fencing`` is ``namespaces`` (the shared fork server makes a sandbox for each program), ``bubblewrap``
    (each program gets a bubblewrap of its own) or ``none``. ``fork_server`` is the shared one's socket.
    """

    fencing: str
    fork_server: str
    folders: sandbox.Folders


@dataclass(frozen=True)
class Ending:
    """How a program ended: an exit code, or the number of the signal that ended it."""

    exit_code: int | None = None
    signal: int | None = None


class RunningProgram:
    """A program that was started. `output` and `fileno` are for a selector."""

    def __init__(
        self, channel: socket.socket, output: int, private: subprocess.Popen[bytes] | None, process_id: int
    ) -> None:
        self._channel = channel
        self._private = private
        self.process_id = process_id  # the process, as this one sees it, that the program's are all below
        self.output = output  # what it prints, standard output and error as one stream

    def fileno(self) -> int:
        """Readable when the program has ended: `ending` will not block then."""
        return self._channel.fileno()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and its process group; ``SIGKILL`` ends all of its descendants too."""
        with contextlib.suppress(ChannelBroken):
            send_message(self._channel, {"signal": int(number)})

    def ending(self) -> Ending:
        """Wait for the end. Raises `CannotRun` if the program never began."""
        try:
            reply, _ = receive_message(self._channel)
        except ChannelBroken:
            return Ending(signal=int(signal.SIGKILL))  # its keeper was killed, and it with that
        if "error" in reply:
            raise CannotRun(str(reply["error"]))
        return Ending(exit_code=reply.get("exit"), signal=reply.get("signal"))

    def close(self) -> None:
        """Free what is held; a program that still runs is killed."""
        self._channel.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1
        if self._private:
            self._private.wait()


class ProcessRuntime:
    """See the module."""

    def __init__(self, settings: ProcessRuntimeSettings) -> None:
        self._settings = settings
        self._reserved: socket.socket | None = None

    def reserve(self) -> None:
        """Make sure of the shared fork server, so that it serves us even if it is told to end meanwhile."""
        if self._settings.fencing == "bubblewrap" or self._reserved:
            return
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(_CONNECT_SECONDS)
        try:
            channel.connect(self._settings.fork_server)
            receive_message(channel)
        except (OSError, ChannelBroken):
            channel.close()
        else:
            channel.settimeout(None)
            self._reserved = channel

    def release(self) -> None:
        """Give up what `reserve` got."""
        if self._reserved:
            self._reserved.close()
            self._reserved = None

    @property
    def fenced(self) -> bool:
        """Whether programs run in a sandbox."""
        return self._settings.fencing != "none"

    def ml_seen(self, task_id: str) -> str:
        """The task's ``ml`` folder as its programs see it."""
        return sandbox.ML if self.fenced else str(self._ml(task_id))

    def scratch_seen(self, task_id: str) -> str:
        """A folder of the task's own for what it keeps only while it runs, as its programs see it."""
        return "/tmp" if self.fenced else str(sandbox.scratch_folders(self._ml(task_id))["/tmp"])

    def socket_seen(self, socket_directory: str) -> str:
        """The folder for a server's socket as programs see it."""
        return (
            sandbox.SOCKET_DIRECTORY
            if self.fenced
            else str(self._settings.folders.sockets / socket_directory)
        )

    def environment_seen(self, name: str) -> str:
        """The Python environment of ``name`` as programs see it."""
        if self.fenced:
            return sandbox.PYTHON_ENVIRONMENT
        return str(self._settings.folders.environments / name)

    def start(self, program: Program, cgroup: Cgroup | None = None) -> RunningProgram:
        """Start ``program``, which enters ``cgroup`` before it runs. Raises `CannotRun`."""
        reader, writer = os.pipe()
        passed = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), writer]
        try:
            sandbox.make_scratch_folders(self._ml(program.task_id))
            self._record(program)
            for folder in cgroup.parents() if cgroup else ():
                passed.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            channel, private, keeper = self._order(program, passed)
        except (ChannelBroken, OSError) as error:
            os.close(reader)
            raise CannotRun(f"the program could not be started: {error}") from error
        finally:
            for descriptor in passed:
                os.close(descriptor)
        return RunningProgram(channel, reader, private, private.pid if private else keeper)

    def _order(
        self, program: Program, descriptors: list[int]
    ) -> tuple[socket.socket, subprocess.Popen[bytes] | None, int]:
        """Have a keeper run the program: its channel, and its process id."""
        apart = program.environment_writable or bool(program.read_only_paths)  # it sees what no other does
        if not apart:
            self.reserve()
        if self._reserved and not apart:
            channel, self._reserved = self._reserved, None
            try:
                send_message(channel, program.to_json(), descriptors)
                keeper = _keeper(channel)
            except ChannelBroken:
                channel.close()
            else:
                return channel, None, keeper
        if program.cluster and not program.network and self.fenced:
            raise OSError(
                "the hosts of a cluster with EnableNetworkIsolation share a network that only the machine's "
                "fork server can make, and it cannot be had"
            )
        ours, theirs = socket.socketpair()
        try:
            with theirs, contextlib.ExitStack() as opened:
                directories = [opened.enter_context(mount.opened()) for mount in program.mounts]
                private = subprocess.Popen(
                    self._private_command(program, ForkServerOrder(connection=theirs.fileno()), directories),
                    pass_fds=[theirs.fileno(), *directories],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            send_message(ours, program.to_json(), descriptors)
            keeper = _keeper(ours)
        except BaseException:
            ours.close()
            raise
        return ours, private, keeper

    def _private_command(
        self, program: Program, order: ForkServerOrder, directories: Sequence[int]
    ) -> list[str]:
        """``directories`` are descriptors of what ``program.mounts`` name."""
        python = [sys.executable, "-m", "clary.agent.runtimes.fork_server", order.to_argument()]
        if not self.fenced:
            return python
        bubblewrap = sandbox.bubblewrap_path()
        if bubblewrap is None:
            raise OSError("bubblewrap is no longer installed on this machine")
        folders = self._settings.folders
        view = sandbox.single_sandbox(
            bubblewrap,
            self._ml(program.task_id),
            socket_directory=folders.sockets / program.socket_directory if program.socket_directory else None,
            environment=folders.environments / program.python_environment
            if program.python_environment
            else None,
            environment_writable=program.environment_writable,
            network=program.network,
            read_only_paths=program.read_only_paths,
            own_channels=program.own_channels,
            host_name=program.host_name,
            mounts=[
                (f"/proc/self/fd/{directory}", mount.target, mount.read_only)
                for mount, directory in zip(program.mounts, directories, strict=True)
            ],
        )
        return [*view, *python]

    def _record(self, program: Program) -> None:
        """Leave word of what runs: for those who want to look, see `clary.agent.runtimes.enter`."""
        started = StartedProgram(
            program.module, program.arguments, program_environment(program), program.directory
        )
        task_folder(self._settings.folders.tasks, program.task_id).write_program(started)

    def _ml(self, task_id: str) -> Path:
        return self._settings.folders.tasks / task_id / "ml"


def _keeper(channel: socket.socket) -> int:
    """The process id of the keeper that the other side of ``channel`` became. Raises `ChannelBroken`."""
    channel.settimeout(_START_SECONDS)
    reply, _ = receive_message(channel)
    channel.settimeout(None)
    if "process_id" not in reply:
        raise ChannelBroken(str(reply.get("error", "it answered something else")))
    return int(reply["process_id"])
