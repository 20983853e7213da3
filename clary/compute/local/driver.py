"""The driver for this machine: one agent process for each task.

Agents are processes of their own that live on when this process ends. What is known of a task is in its
folder (`clary.resources.task_folder`), so a new driver on the same data finds everything again, and nothing
here is remembered that could be wrong after a crash.

A task whose agent is gone without a word is `LOST`. If that is because Clary or the machine went down, its
stop cause is `SHUTDOWN`, and its owner starts a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clary.compute.driver import Capacity
from clary.compute.instance_types import machine_memory_bytes
from clary.compute.local.addresses import cluster_addresses
from clary.compute.local.containers import LeftContainers
from clary.compute.local.fencing import HOW_TO_INSTALL, SandboxUnavailable, bubblewrap_works
from clary.compute.local.processes import (
    ANSWER_SECONDS,
    READY_SECONDS,
    Helper,
    HelperFailed,
    launch_agent_fork_server,
    launch_algorithm_fork_server,
)
from clary.compute.local.queue import TaskQueue
from clary.resources.container_record import PULL_POLICIES
from clary.resources.task import (
    StopCause,
    TaskPhase,
    TaskSpec,
    TaskStatus,
    TaskTransition,
)
from clary.resources.task_folder import TaskFolder, boot_id, task_folder

_log = logging.getLogger(__name__)

LONGEST_SOCKET_PATH_BYTES = 100  # the kernel takes 107
LOOK_SECONDS = 2.0  # between looks at all tasks, for pokes that were lost and agents that died
EXIT_SECONDS = 1.0  # for the news of how an agent ended, after its lock is free
LAUNCH_SECONDS = 15.0  # for a forked agent to take its lock
SHUTDOWN_SECONDS = 8.0  # for agents to end before they are killed
_KILL_SECONDS = 5.0
_FORGOTTEN = ".removed-"
_POKE_BYTES = 256
_LONGEST_SOCKET_TAIL = "/sockets/0123456789abcdef/worker.sock"


class LocalDriver:
    """See the module.

    ``sandbox`` is ``auto``, ``bubblewrap`` (`open` raises `SandboxUnavailable` if there is none) or ``none``.
    ``cpu_count`` and ``memory_bytes`` limit what tasks may use, 0 meaning all of the machine. Training tasks
    for which there is no room wait as PENDING (see `queue`).
    """

    def __init__(
        self,
        data: Path,
        *,
        sandbox: str = "auto",
        cpu_count: float = 0.0,
        memory_bytes: int = 0,
        task_processes: int = 4096,
        cgroups: bool = True,
        preload: bool = True,
        file_systems: Mapping[str, str] | None = None,
        docker_host: str = "",
        docker_pull: str = "missing",
    ) -> None:
        """``file_systems`` are those that jobs may read, id to directory."""
        if sandbox not in ("auto", "bubblewrap", "none"):
            raise ValueError(f"'sandbox' must be auto, bubblewrap or none, not {sandbox!r}.")
        if task_processes < 1:
            raise ValueError(f"'task_processes' must be at least 1, not {task_processes}.")
        if docker_pull not in PULL_POLICIES:
            raise ValueError(f"'docker_pull' must be one of {', '.join(PULL_POLICIES)}, not {docker_pull!r}.")
        self._data = data.absolute()
        self._sandbox = sandbox
        self._cpu_count = cpu_count or float(os.cpu_count() or 1)
        self._memory_bytes = memory_bytes or machine_memory_bytes()
        self._task_processes, self._cgroups = task_processes, cgroups
        self._preload = preload
        self._file_systems = dict(file_systems or {})
        self._docker = {"docker_host": docker_host, "docker_pull": docker_pull}
        self._tasks = self._data / "tasks"
        self._containers = LeftContainers(self._tasks)
        self._environments = self._data / "environments"
        self._run = _runtime_folder(self._data)
        self.fencing = ""  # namespaces, bubblewrap or none, once it is open
        self._opening = asyncio.Lock()
        self._launching = asyncio.Lock()
        self._opened = False
        self._agents: Helper | None = None
        self._agents_ready = False
        self._algorithms: Helper | None = None
        self._ear: socket.socket | None = None
        self._looking: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[str], None]] = []
        self._queue = TaskQueue(self._cpu_count, self._memory_bytes)
        self._explained: dict[str, str] = {}  # what tasks that wait were told
        self._admitting = asyncio.Lock()
        self._gone: dict[str, float] = {}  # when agents were first seen to be gone without a word
        self._launched: dict[str, float] = {}  # forked agents that may not have their lock yet
        self._running: dict[str, TaskSpec] = {}  # tasks that are not over, as far as is known
        self._kept: dict[str, TaskSpec] = {}  # ended tasks that keep their room
        self._said: dict[str, tuple[TaskPhase, str | None]] = {}  # what callbacks were told last

    # The contract.

    async def open(self) -> None:
        """Start the helper processes and find the tasks there are. Other methods do so at first use."""
        async with self._opening:
            if self._opened:
                return
            for folder in (self._data, self._tasks, self._environments, self._run, self._run / "sockets"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_own(self._run)
            self._listen_for_pokes()
            await self._raise_fence()
            await self._start_agent_helper()
            self._find_tasks()
            self._opened = True
            self._looking = asyncio.get_running_loop().create_task(self._look_regularly())

    async def expect(self, endpoint_url: str, region: str) -> None:
        """Say which server tasks will talk to, so that the first one starts as fast as the others."""
        await self.open()
        async with self._launching:
            if self._agents:
                with contextlib.suppress(HelperFailed):
                    await self._agents.tell({"endpoint_url": endpoint_url, "region": region})

    async def start(self, spec: TaskSpec) -> TaskStatus:
        await self.open()
        folder = task_folder(self._tasks, spec.id)
        if folder.read_spec() is None:
            folder.write_spec(spec)
        known = self._status(folder)
        if known is None or known.phase is TaskPhase.PENDING:
            let_in = spec.id in self._running or spec.id in self._launched
            if not let_in and not folder.agent_lives():
                self._queue.add(spec, admitted=bool(folder.read_addresses()))
            await self._admit()
            known = self._status(folder)
        return known or _pending(spec, "")

    async def inspect(self, task_id: str) -> TaskStatus | None:
        await self.open()
        return self._status(task_folder(self._tasks, task_id))

    async def stop(self, task_id: str, cause: StopCause) -> None:
        await self.open()
        folder = task_folder(self._tasks, task_id)
        status = self._status(folder)
        if status is None or status.phase.final:
            return
        folder.write_stop(cause)
        if self._queue.remove(task_id):
            self._finish(folder, status, TaskPhase.STOPPED, stop_cause=folder.read_stop())
        else:
            _signal_agent(folder, status, signal.SIGTERM)

    async def remove(self, task_id: str) -> None:
        await self.open()
        folder = task_folder(self._tasks, task_id)
        self._queue.remove(task_id)
        self._explained.pop(task_id, None)
        await self._kill_agent(folder)
        await self._containers.remove(task_id)
        self._launched.pop(task_id, None)
        self._gone.pop(task_id, None)
        self._running.pop(task_id, None)
        self._kept.pop(task_id, None)
        self._said.pop(task_id, None)
        forgotten = self._tasks / f"{_FORGOTTEN}{task_id}-{time.time_ns()}"
        with contextlib.suppress(FileNotFoundError):
            folder.path.rename(forgotten)
        socket_folder = self._run / "sockets" / _socket_folder_name(task_id)
        await asyncio.get_running_loop().run_in_executor(None, _delete, forgotten, socket_folder)
        await self._admit()

    async def tasks(self) -> Sequence[TaskStatus]:
        await self.open()
        found = (self._status(folder) for folder in self._folders())
        return [status for status in found if status is not None]

    async def capacity(self) -> Capacity:
        free = shutil.disk_usage(self._data if self._data.exists() else Path("/")).free
        return Capacity(self._cpu_count, self._memory_bytes, 0, free)

    def on_change(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    async def close(self, *, stop_tasks: bool) -> None:
        async with self._opening:
            if self._looking:
                self._looking.cancel()
                await asyncio.gather(self._looking, return_exceptions=True)
            self._queue.clear()
            try:
                if stop_tasks and self._opened:
                    await self._shut_down_agents()
                    await self._containers.close(self._agent_lives)
            finally:
                await self._let_go(forget=stop_tasks)

    async def _let_go(self, *, forget: bool) -> None:
        """End what this process keeps for its tasks; with ``forget`` nobody will look for it again."""
        for helper in (self._agents, self._algorithms):
            if helper:
                await helper.end()
        self._agents = self._algorithms = None
        if self._ear:
            asyncio.get_running_loop().remove_reader(self._ear)
            self._ear.close()
            self._ear = None
            (self._run / "driver.sock").unlink(missing_ok=True)
        if forget:
            shutil.rmtree(self._run, ignore_errors=True)
        self._opened = False
        self._looking = None

    # Helper processes.

    async def _raise_fence(self) -> None:
        """Settle how user code is fenced in, and start the algorithms' fork server accordingly."""
        self.fencing, complaint = "none", ""
        if self._sandbox != "none":
            complaint = await asyncio.get_running_loop().run_in_executor(None, bubblewrap_works)
            self.fencing = "none" if complaint else "namespaces"
        if self._sandbox == "bubblewrap" and complaint:
            raise SandboxUnavailable(f"{complaint} {HOW_TO_INSTALL}")
        if complaint:
            _log.warning("user code runs without a sandbox: %s %s", complaint, HOW_TO_INSTALL)
        await self._start_algorithm_helper()

    async def _start_algorithm_helper(self) -> None:
        if self.fencing == "bubblewrap":
            return  # each program gets its own
        if self._algorithms:
            await self._algorithms.end()
        folders = {
            "tasks": self._tasks,
            "environments": self._environments,
            "sockets": self._run / "sockets",
        }
        self._algorithms = launch_algorithm_fork_server(
            self._run / "algorithms.sock",
            folders,
            file_systems=self._file_systems,
            fencing=self.fencing,
            preload=self._preload,
            log=self._data / "fork-servers.log",
        )
        try:
            report = await self._algorithms.ask(None, READY_SECONDS)
        except HelperFailed as error:
            report = {"ready": False, "reason": str(error)}
        if report["ready"]:
            return
        await self._algorithms.end()
        self._algorithms = None
        if self.fencing == "namespaces":
            _log.warning("each program gets a sandbox of its own, which takes longer: %s", report["reason"])
            self.fencing = "bubblewrap"
        else:
            _log.error("the fork server of algorithms did not start: %s", report["reason"])

    async def _start_agent_helper(self) -> None:
        if self._agents:
            await self._agents.end()
        self._agents_ready = False
        self._agents = launch_agent_fork_server(self._agent_settings(), self._data / "fork-servers.log")

    def _agent_settings(self) -> dict[str, Any]:
        return {
            "tasks": str(self._tasks),
            "environments": str(self._environments),
            "sockets": str(self._run / "sockets"),
            "fork_server": str(self._run / "algorithms.sock"),
            "driver_socket": str(self._run / "driver.sock"),
            "fencing": self.fencing,
            "file_systems": self._file_systems,
            "cpu_count": max(1, int(self._cpu_count)),
            "memory_bytes": self._memory_bytes,
            "task_processes": self._task_processes,
            "cgroups": self._cgroups,
            **self._docker,
        }

    async def _launch(self, spec: TaskSpec) -> None:
        """Have an agent forked for the task; without a fork server it is executed, which takes longer."""
        async with self._launching:
            folder = task_folder(self._tasks, spec.id)
            if self._algorithms and not self._algorithms.alive:
                await self._start_algorithm_helper()
            order = {
                "task": str(folder.path),
                "endpoint_url": spec.connection.endpoint_url,
                "region": spec.connection.region,
            }
            self._launched[spec.id] = time.monotonic()
            for _ in range(2):
                try:
                    if self._agents is None or not self._agents.alive:
                        await self._start_agent_helper()
                    if self._agents and not self._agents_ready:
                        await self._agents.ask(None, READY_SECONDS)
                        self._agents_ready = True
                    if self._agents:
                        await self._agents.ask(order, ANSWER_SECONDS)
                    return
                except HelperFailed as error:
                    _log.warning("the fork server of agents failed: %s", error)
                    if self._agents:
                        self._agents.abandon()
                        self._agents = None
            await self._execute_agent(folder)

    async def _execute_agent(self, folder: TaskFolder) -> None:
        # A shell's double fork: the agent must not be our child, since nobody would wait for it.
        settings = json.dumps(self._agent_settings())
        with (folder.path / "agent.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                '"$@" & ',
                "sh",
                sys.executable,
                "-m",
                "clary.agent.agent",
                str(folder.path),
                settings,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await process.wait()

    # Admission.

    async def _admit(self) -> None:
        """Start what there is room for, in order."""
        async with self._admitting:
            while group := self._queue.next(self._holders()):
                self._give_addresses(group)
                for spec in group:
                    self._explained.pop(spec.id, None)
                    self._running[spec.id] = spec
                for spec in group:
                    await self._launch(spec)
            self._explain_waiting()

    def _holders(self) -> list[TaskSpec]:
        """The tasks that have room on this machine."""
        return [*self._running.values(), *self._kept.values()]

    def _give_addresses(self, group: Sequence[TaskSpec]) -> None:
        """Tell each host of a cluster where the others are, before any of them runs."""
        gang = group[0].gang
        if not gang:
            return
        folders = [task_folder(self._tasks, task_id) for task_id in gang]
        addresses = next(filter(None, (folder.read_addresses() for folder in folders)), None)
        if addresses is None:
            running = (task_folder(self._tasks, task_id) for task_id in self._running)
            taken = [address for folder in running for address in folder.read_addresses().values()]
            addresses = cluster_addresses(gang, taken)
        for folder in folders:
            folder.write_addresses(addresses)

    def _explain_waiting(self) -> None:
        """Say in the status of each waiting task what it waits for, as often as that changes."""
        for spec, words in self._queue.explanations(self._holders()):
            if self._explained.get(spec.id) != words:
                self._explained[spec.id] = words
                task_folder(self._tasks, spec.id).write_status(_pending(spec, words))

    # What is known.

    def _status(self, folder: TaskFolder) -> TaskStatus | None:
        """What is known of the task; what was lost is found out and kept here."""
        task_id = folder.path.name
        lives = folder.agent_lives()  # before the status is read: an agent's last act is to write it
        said = folder.read_status()
        if said is None:
            spec = folder.read_spec()
            if spec is None:
                return None
            said = (_pending(spec, ""), boot_id())
        status, boot = said
        if status.phase.final:
            self._over(task_id)
            return status
        if lives:
            self._launched.pop(task_id, None)
            return status
        if status.phase is TaskPhase.PENDING and folder.read_exit() is None:
            launched = self._launched.get(task_id)
            if launched is None or time.monotonic() - launched < LAUNCH_SECONDS:
                return status
        return self._lost(folder, status, boot)

    def _lost(self, folder: TaskFolder, status: TaskStatus, boot: str) -> TaskStatus:
        if boot != boot_id() or folder.read_stop() is StopCause.SHUTDOWN:
            reason = "Clary or its machine went down while the task ran."
            return self._finish(folder, status, TaskPhase.LOST, reason=reason, stop_cause=StopCause.SHUTDOWN)
        wait_status = folder.read_exit()
        task_id = folder.path.name
        if wait_status is None and self._gone_seconds(task_id) < EXIT_SECONDS:
            return status  # who forked it may not have written down yet how it ended
        self._gone.pop(task_id, None)
        how = "ended without a word"
        if wait_status is not None and os.WIFSIGNALED(wait_status):
            how = f"was killed by {signal.Signals(os.WTERMSIG(wait_status)).name}"
            if os.WTERMSIG(wait_status) == signal.SIGKILL:
                how += ", by somebody or because the machine ran out of memory"
        elif wait_status is not None:
            how = f"ended with exit code {os.WEXITSTATUS(wait_status)}"
        reason = f"InternalServerError: the agent that ran the task {how}."
        return self._finish(folder, status, TaskPhase.LOST, reason=reason, stop_cause=folder.read_stop())

    def _gone_seconds(self, task_id: str) -> float:
        """How long the task's agent has been known to be gone."""
        now = time.monotonic()
        return now - self._gone.setdefault(task_id, now)

    def _finish(
        self,
        folder: TaskFolder,
        status: TaskStatus,
        phase: TaskPhase,
        *,
        reason: str = "",
        stop_cause: StopCause | None = None,
    ) -> TaskStatus:
        """Write the last status of a task whose agent cannot."""
        ended = dataclasses.replace(
            status,
            phase=phase,
            reason=reason,
            stop_cause=stop_cause,
            address=None,
            transitions=(*status.transitions, TaskTransition(phase, time.time(), reason)),
        )
        folder.write_status(ended)
        self._over(folder.path.name)
        return ended

    def _over(self, task_id: str) -> None:
        self._launched.pop(task_id, None)
        self._gone.pop(task_id, None)
        spec = self._running.pop(task_id, None)
        if spec and spec.keeps_room:
            self._kept[task_id] = spec

    def _folders(self) -> list[TaskFolder]:
        try:
            names = sorted(entry.name for entry in os.scandir(self._tasks) if entry.is_dir())
        except FileNotFoundError:
            return []  # somebody removed the data folder; there is nothing to look after any more
        return [task_folder(self._tasks, name) for name in names if not name.startswith(".")]

    def _find_tasks(self) -> None:
        """Take up what an earlier driver left: agents that live, tasks that wait, folders half removed."""
        waiting: list[tuple[float, TaskSpec]] = []
        for folder in self._folders():
            spec = folder.read_spec()
            status = self._status(folder)
            if spec is None or status is None:
                shutil.rmtree(folder.path, ignore_errors=True)  # its order was never written whole
                continue
            if status.phase.final:
                self._said[spec.id] = (status.phase, status.address)
                if spec.keeps_room:
                    self._kept[spec.id] = spec
            elif status.phase is TaskPhase.PENDING and not folder.agent_lives():
                waiting.append((folder.ordered_at(), spec))
            else:
                self._running[spec.id] = spec
        for _, spec in sorted(waiting, key=lambda item: item[0]):
            admitted = bool(task_folder(self._tasks, spec.id).read_addresses())
            self._queue.add(spec, admitted=admitted)
        for entry in list(self._tasks.glob(f"{_FORGOTTEN}*")):
            _delete(entry)

    # News.

    def _listen_for_pokes(self) -> None:
        path = self._run / "driver.sock"
        path.unlink(missing_ok=True)
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.setblocking(False)
        self._ear.bind(str(path))
        asyncio.get_running_loop().add_reader(self._ear, self._hear)

    def _hear(self) -> None:
        """An agent says that its task moved."""
        freed = False
        while self._ear:
            try:
                task_id = self._ear.recv(_POKE_BYTES).decode(errors="replace")
            except (BlockingIOError, InterruptedError):
                break
            with contextlib.suppress(ValueError):
                freed = self._tell(task_folder(self._tasks, task_id)) or freed
        if freed and self._queue and self._opened:
            self._admit_soon()

    def _admit_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._admit())
        task.add_done_callback(_complain)

    def _tell(self, folder: TaskFolder) -> bool:
        """Tell the callbacks if the task moved since they were told; whether it is over."""
        status = self._status(folder)
        if status is None:
            return True
        news = (status.phase, status.address)
        if self._said.get(status.id) != news:
            self._said[status.id] = news
            for callback in list(self._callbacks):
                callback(status.owner)
        return status.phase.final

    async def _look_regularly(self) -> None:
        while True:
            try:
                for task_id in list(self._running):
                    self._tell(task_folder(self._tasks, task_id))
                self._containers.sweep(self._agent_lives)
                await self._admit()
            except Exception:  # noqa: BLE001 - whatever it was, the next look may succeed
                _log.exception("looking after the tasks of this machine failed; it is tried again")
            await asyncio.sleep(LOOK_SECONDS)

    # Ends.

    async def _shut_down_agents(self) -> None:
        """End every agent, gently, then not."""
        living: list[TaskFolder] = []
        for folder in self._folders():
            status = self._status(folder)
            if (
                status is None
                or status.phase.final
                or not (folder.agent_lives() or folder.path.name in self._launched)
            ):
                continue
            living.append(folder)
            folder.write_stop(StopCause.SHUTDOWN)
            _signal_agent(folder, status, signal.SIGTERM)
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while time.monotonic() < deadline and any(folder.agent_lives() for folder in living):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # a file's lock offers nothing to await
        for folder in living:
            await self._kill_agent(folder)
            self._launched.pop(folder.path.name, None)
            self._status(folder)

    def _agent_lives(self, task_id: str) -> bool:
        return task_folder(self._tasks, task_id).agent_lives()

    async def _kill_agent(self, folder: TaskFolder) -> None:
        deadline = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < deadline:
            just_launched = folder.path.name in self._launched and folder.read_status() is None
            if not folder.agent_lives() and not just_launched:
                return
            said = folder.read_status()
            if said:
                _signal_agent(folder, said[0], signal.SIGKILL)
            await asyncio.sleep(0.01)


def _signal_agent(folder: TaskFolder, status: TaskStatus, number: signal.Signals) -> None:
    """Signal the agent, if there is one: the lock says that the process id is still its own."""
    if status.process_id and folder.agent_lives():
        with contextlib.suppress(ProcessLookupError):
            os.kill(status.process_id, number)


def _pending(spec: TaskSpec, message: str) -> TaskStatus:
    transitions = (TaskTransition(TaskPhase.PENDING, time.time(), message),)
    return TaskStatus(id=spec.id, owner=spec.owner, phase=TaskPhase.PENDING, transitions=transitions)


def _runtime_folder(data: Path) -> Path:
    """Where sockets live: in the data folder if its path is short enough for one."""
    inside = data / "run"
    if len(os.fsencode(str(inside) + _LONGEST_SOCKET_TAIL)) <= LONGEST_SOCKET_PATH_BYTES:
        return inside
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path(tempfile.gettempdir(), f"clary-{os.getuid()}-{digest}")


def _check_own(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder that only this user can enter; remove it.")


def _socket_folder_name(task_id: str) -> str:
    return hashlib.sha256(task_id.encode()).hexdigest()[:16]


def _delete(*folders: Path) -> None:
    """Delete folders, also what a job has closed to its owner."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            for root, names, _ in os.walk(folder):
                for name in names:
                    with contextlib.suppress(OSError):
                        Path(root, name).chmod(0o700)
            shutil.rmtree(folder, ignore_errors=True)


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        _log.error("starting a waiting task failed", exc_info=task.exception())
