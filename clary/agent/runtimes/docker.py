"""The runtime for what the user brings: containers of a Docker engine, or of Podman, which speaks the same.

The only module, with `docker_network`, that knows the engine's SDK. That is loaded where a task has a
container and not before: it takes a tenth of a second and 20 MB.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import queue
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clary.agent.runtimes import sandbox
from clary.agent.runtimes.api_access import ApiAccess
from clary.agent.runtimes.container import (
    CannotContain,
    ContainerProgram,
    check_name,
    has_registry,
    local_names,
)
from clary.agent.runtimes.docker_network import JobNetwork, default_gateway, network_mode
from clary.agent.runtimes.mounts import Mount
from clary.agent.runtimes.ownership import chown_command, foreign
from clary.agent.runtimes.process import Ending
from clary.agent.runtimes.program import MOST_OPEN_FILES
from clary.agent.runtimes.pull_progress import PullProgress
from clary.resources.container_record import ContainerRecord
from clary.resources.task import Connection

TASK_LABEL = "ai.clary.task"
TASKS_LABEL = "ai.clary.tasks"  # the folder of tasks: which Clary it belongs to
LONGEST_PULL_SECONDS = 6 * 3600.0
_PING_SECONDS = 15.0  # for an engine to show that it is there
_ENGINE_SECONDS = 60.0  # for one answer of the engine
_SIGNAL_SECONDS = 10.0
_AWAY_SECONDS = 30.0  # how long an engine may be away while a container runs
_LOOK_SECONDS = 1.0
_REATTACH_SECONDS = 0.2
_END_SECONDS = 5.0  # for the last output, and for our threads
_REMOVE_ATTEMPTS = 5
_READ_BYTES = 1 << 16
_FRAME = struct.Struct(">BxxxL")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOW_TO_START = (
    "Start Docker or Podman (systemctl start docker), or name the engine's address in DOCKER_HOST or the "
    "setting 'docker_host'."
)


def load_sdk() -> None:
    """Load the SDK ahead of its use, if it is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("docker")


class Engine:
    """A connection to an engine of containers."""

    def __init__(self, api: Any, address: str) -> None:
        self._api = api
        self.address = address

    @classmethod
    def connect(cls, address: str) -> Engine:
        """Raises `CannotContain` with the cause and the remedy."""
        try:
            import docker
        except ImportError as error:
            raise CannotContain(
                "this Clary was installed without what it needs to run containers: "
                f"pip install 'clary[docker]' ({error})."
            ) from error
        _check_near(address)
        try:
            given = docker.utils.kwargs_from_env({**os.environ, "DOCKER_HOST": address})
            given["timeout"] = _ENGINE_SECONDS
            newest = docker.constants.DEFAULT_DOCKER_API_VERSION
            with contextlib.closing(docker.APIClient(**given, version=newest)) as any_version:
                # The SDK's own way of asking has the engine start other programs first.
                reply = any_version.get(f"{any_version.base_url}/_ping", timeout=_PING_SECONDS)
            version = reply.headers.get("Api-Version") if reply.ok else None
            return cls(docker.APIClient(**given, version=version or "auto"), address)
        except (docker.errors.DockerException, OSError, ValueError) as error:
            raise CannotContain(_no_engine(address, error)) from error

    def close(self) -> None:
        self._api.close()

    # Images.

    def find_image(
        self,
        image: str,
        *,
        pull: str,
        say: Callable[[str], None],
        abandoned: Callable[[], bool],
    ) -> str:
        """The id of ``image``: of the engine's own images, or pulled (see `local_names`, `PULL_POLICIES`).

        ``say`` is told how a pull gets on. Raises `CannotContain`, and ``InterruptedError`` if ``abandoned``.
        """
        check_name(image)
        names = local_names(image)
        if pull != "always":
            for name in names:
                found = self._local(name)
                if found:
                    return found
        looked_for = " and ".join(repr(name) for name in names)
        build = f"Build it on this machine: docker build -t {names[-1]} ."
        if pull == "never":
            raise CannotContain(
                f"the image {image} is not there: the engine at {self.address} has no {looked_for}, and the "
                f"setting 'docker_pull' forbids to pull it. {build}",
                callers=True,
            )
        complaint = self._pull(image, say, abandoned)
        found = "" if complaint else self._local(image)
        if not found:
            raise CannotContain(
                f"the image {image} is not there: the engine at {self.address} has no {looked_for}, and it "
                f"could not be pulled: {complaint or 'the engine does not have it afterwards'} {build} "
                "Or log in to its registry: docker login.",
                callers=True,
            )
        return found

    def _local(self, name: str) -> str:
        """The id of an image that the engine has, or ""."""
        import docker

        try:
            with contextlib.suppress(docker.errors.NotFound):
                return str(self._api.inspect_image(name)["Id"])
            # What Podman builds it calls so, and over its socket it does not look for it of its own accord.
            if not has_registry(name):
                with contextlib.suppress(docker.errors.NotFound):
                    return str(self._api.inspect_image(f"localhost/{name}")["Id"])
            return ""
        except docker.errors.APIError as error:
            raise CannotContain(f"the engine at {self.address} failed: {_said(error)}") from error
        except (docker.errors.DockerException, OSError) as error:
            raise CannotContain(_no_engine(self.address, error)) from error

    def _pull(self, image: str, say: Callable[[str], None], abandoned: Callable[[], bool]) -> str:
        """Pull with the logins that the engine's own command line has; why it did not work, or ""."""
        news: queue.Queue[Mapping[str, Any] | str] = queue.Queue(maxsize=1024)
        ended = threading.Event()

        def pull() -> None:
            last: Mapping[str, Any] | str = ""
            try:
                repository, tag = _repository_and_tag(image)
                for step in self._api.pull(repository, tag=tag, stream=True, decode=True):
                    if ended.is_set():
                        return
                    with contextlib.suppress(queue.Full):  # one step more or less is nothing
                        news.put_nowait(step)
                    if step.get("error"):
                        last = f"{step['error']}."
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller is told
                last = f"{_said(error)}."
            news.put(last)

        threading.Thread(target=pull, name="pull", daemon=True).start()
        progress = PullProgress(image)
        deadline = time.monotonic() + LONGEST_PULL_SECONDS
        try:
            while time.monotonic() < deadline:
                if abandoned():
                    raise InterruptedError
                try:
                    step = news.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(step, str):
                    return step
                line = progress.take(step, time.monotonic())
                if line:
                    say(line)
            return f"it took longer than {LONGEST_PULL_SECONDS:.0f} seconds."
        finally:
            ended.set()

    # Containers.

    def run(self, program: ContainerProgram, connection: Connection, tasks: Path) -> RunningContainer:
        """Start ``program``; ``tasks`` is the folder of this Clary's tasks. Raises `CannotContain`."""
        import docker

        cluster = program.cluster if len(program.hosts) > 1 else ""
        record = ContainerRecord(program.task_id, self.address, program.image_id, cluster)
        record.write(tasks)
        access: ApiAccess | None = None
        try:
            with contextlib.ExitStack() as undo:
                network: JobNetwork | None = None
                gateway = ""
                if len(program.hosts) > 1:
                    network = JobNetwork(self._api, program.cluster, tasks, labels={TASKS_LABEL: str(tasks)})
                    undo.enter_context(network.locked())
                    network.ensure(len(program.hosts), internal=not program.network)
                    gateway = network.gateway
                elif program.network:
                    gateway = default_gateway(self._api)
                if program.network and gateway:
                    access = ApiAccess(gateway, connection)
                binds = [undo.enter_context(_bind(mount)) for mount in program.mounts]
                return self._start(program, binds, tasks, record, network, access)
        except BaseException as error:
            if access:
                access.close()
            self._forget(record, tasks)
            if isinstance(error, docker.errors.APIError):
                raise _cannot_start(program, error) from error
            if isinstance(error, (docker.errors.DockerException, OSError)):
                raise CannotContain(_no_engine(self.address, error)) from error
            raise

    def _start(
        self,
        program: ContainerProgram,
        binds: list[str],
        tasks: Path,
        record: ContainerRecord,
        network: JobNetwork | None,
        access: ApiAccess | None,
    ) -> RunningContainer:
        environment = dict(program.environment)
        if access:
            environment |= access.environment()
        if network:
            environment["CLARY_CLUSTER_ADDRESSES"] = network.addresses_json(program.hosts)
        container = self._api.create_container(
            program.image_id,
            command=list(program.arguments) or None,
            entrypoint=list(program.entrypoint) or None,
            hostname=program.host,
            name=f"clary-{program.task_id}-{_digest(str(tasks))}",
            environment=environment,
            labels={TASK_LABEL: program.task_id, TASKS_LABEL: str(tasks)},
            host_config=self._api.create_host_config(**_host_config(program, binds, network)),
            networking_config=network.endpoint(self._api, program) if network else None,
        )["Id"]
        output = attach(self._api, container)
        try:
            self._api.start(container)
            if access:
                access.admit(self._address(container, network))
        except BaseException:
            output.close()
            raise
        return RunningContainer(
            self, self._api, container, output, access, lambda: self._forget(record, tasks)
        )

    def _address(self, container: str, network: JobNetwork | None) -> str:
        found = self._api.inspect_container(container)["NetworkSettings"]
        networks = found.get("Networks") or {}
        for name, settings in networks.items():
            if (network is None or name == network.name) and settings.get("IPAddress"):
                return str(settings["IPAddress"])
        return str(found.get("IPAddress") or "")

    def _forget(self, record: ContainerRecord, tasks: Path) -> None:
        """Remove what the task has in the engine, and then the record; if that fails, somebody will later."""
        if self.clean_up(record, tasks):
            record.forget(tasks)

    def clean_up(self, record: ContainerRecord, tasks: Path) -> bool:
        """Remove a task's containers and, if nobody uses it, its cluster's network; whether all is gone.

        Its files are ours afterwards.
        """
        try:
            for container in self._containers(record.task_id, tasks):
                self._remove(container)
            self.hand_over(record.image_id, tasks / record.task_id, tasks, record.task_id)
            if record.cluster:
                JobNetwork(self._api, record.cluster, tasks, labels={}).remove_unused()
            return not self._containers(record.task_id, tasks)
        except Exception as error:  # noqa: BLE001 - the SDK raises many; the record stays, and with it the task to do
            print(f"the container of {record.task_id} could not be removed yet: {_said(error)}", flush=True)
            return False

    def _containers(self, task_id: str, tasks: Path) -> list[str]:
        labels = [f"{TASK_LABEL}={task_id}", f"{TASKS_LABEL}={tasks}"]
        return [each["Id"] for each in self._api.containers(all=True, filters={"label": labels})]

    def _remove(self, container: str) -> None:
        """Kill and remove a container with its anonymous volumes."""
        import docker

        for attempt in range(_REMOVE_ATTEMPTS):
            try:
                self._api.remove_container(container, v=True, force=True)
                return
            except docker.errors.NotFound:
                return
            except docker.errors.APIError:  # somebody else removes it just now, or it does not die at once
                if attempt + 1 == _REMOVE_ATTEMPTS:
                    raise
                time.sleep(0.2 * (attempt + 1))

    def hand_over(self, image_id: str, folder: Path, tasks: Path, task_id: str) -> None:
        """Make everything in ``folder`` belong to the user that runs us, whoever made it in a container.

        Only where we are not root. It is done by this machine's own ``chown`` in a container of the same
        image, which is there already and need not have any program. Raises `CannotContain`.
        """
        import docker

        if os.geteuid() == 0 or not folder.is_dir() or not foreign(folder):
            return
        rootless = any("rootless" in option for option in self._api.info().get("SecurityOptions") or [])
        owner = "0:0" if rootless else f"{os.geteuid()}:{os.getegid()}"
        command, binds = chown_command(owner, "/clary-handed-over")
        try:
            container = self._api.create_container(
                image_id,
                entrypoint=command[:1],
                command=command[1:],
                user="0:0",
                labels={TASK_LABEL: task_id, TASKS_LABEL: str(tasks)},
                host_config=self._api.create_host_config(
                    binds=[*binds, f"{folder}:/clary-handed-over:rw"],
                    network_mode="none",
                    cap_drop=["ALL"],
                    cap_add=["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH"],
                    security_opt=_security_options(),
                ),
            )["Id"]
            try:
                self._api.start(container)
                code = self._api.wait(container, timeout=_ENGINE_SECONDS)["StatusCode"]
                if code:
                    said = self._api.logs(container, tail=5).decode(errors="replace").strip()
                    raise CannotContain(f"the job's files could not be taken over from its container: {said}")
            finally:
                self._remove(container)
        except (docker.errors.DockerException, OSError) as error:
            raise CannotContain(
                f"the job's files could not be taken over from its container: {_said(error)}"
            ) from error


class RunningContainer:
    """A container that was started; `clary.agent.execute.execute` drives it like a process.

    `output` is what it prints, standard output and error as one stream.
    """

    def __init__(
        self,
        engine: Engine,
        api: Any,
        container: str,
        stream: Any,
        access: ApiAccess | None,
        forget: Callable[[], None],
    ) -> None:
        self._engine, self._api, self.container = engine, api, container
        self._stream = stream
        self._access = access
        self._forget = forget
        self._ended, self._end = socket.socketpair()
        self._state: Mapping[str, Any] | None = None
        self._complaint = ""
        self._killed_by_us = False
        self._over = threading.Event()
        self.output, self._writer = os.pipe()
        self._threads = [
            threading.Thread(target=self._copy_output, name="container-output", daemon=True),
            threading.Thread(target=self._await_end, name="container-end", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def fileno(self) -> int:
        """Readable when the container has ended: `ending` will not block then."""
        return self._ended.fileno()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the container's first process; ``SIGKILL`` ends all of them."""
        import docker

        self._killed_by_us = self._killed_by_us or number == signal.SIGKILL
        try:
            self._api.kill(self.container, signal=number.name)
        except (docker.errors.DockerException, OSError) as error:
            # One that has just ended cannot be signalled; an engine that is away is noticed by the watch.
            print(f"{number.name} did not reach the container: {_said(error)}", flush=True)

    def ending(self) -> Ending:
        """Wait for the end."""
        self._ended.recv(1)
        if self._state is None:
            raise CannotContain(self._complaint)
        return Ending(exit_code=int(self._state.get("ExitCode") or 0))

    @property
    def reaches_api(self) -> bool:
        """Whether programs in the container have a way to Clary's API."""
        return self._access is not None and self._access.at_hand

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed anything in the container for using more memory than its limit."""
        return bool(self._state and self._state.get("OOMKilled"))

    @property
    def died_of_kill(self) -> bool:
        """Whether a SIGKILL ended it that was not ours."""
        code = int((self._state or {}).get("ExitCode") or 0)
        return code == 128 + signal.SIGKILL and not self._killed_by_us

    def close(self) -> None:
        """Remove the container, killing it if it runs, make its files ours, and free what is held."""
        self._forget()
        if self._access:
            self._access.close()
            self._access = None
        if self.output >= 0:
            os.close(self.output)  # first, for the thread that may be waiting to write to it
            self.output = -1
        for thread in self._threads:
            thread.join(_END_SECONDS)
        with contextlib.suppress(OSError):
            self._stream.close()
        self._ended.close()

    def _copy_output(self) -> None:
        """Pass on what is printed, and go on with that after an engine that was away."""
        try:
            self._unwrap(self._stream)
            while not self._over.wait(_REATTACH_SECONDS):
                with contextlib.suppress(Exception):  # as in `_await_end`, which sees to it that this ends
                    if not self._api.inspect_container(self.container)["State"].get("Running"):
                        return
                    again = attach(self._api, self.container)
                    try:
                        self._unwrap(again)
                    finally:
                        again.close()
        finally:
            os.close(self._writer)

    def _unwrap(self, stream: Any) -> None:
        """Write what comes to our pipe, without the engine's frames: a stream's number and a size each."""
        raw = getattr(stream, "_sock", stream)  # the SDK gives a file with a socket in it, or the socket
        rest, held = 0, b""
        with contextlib.suppress(OSError):  # nobody reads any more, or the engine is gone
            while data := raw.recv(_READ_BYTES):
                held += data
                while held:
                    if not rest:
                        if len(held) < _FRAME.size:
                            break
                        _, rest = _FRAME.unpack_from(held)
                        held = held[_FRAME.size :]
                    piece, held = held[:rest], held[rest:]
                    rest -= len(piece)
                    _write_all(self._writer, piece)

    def _await_end(self) -> None:
        """See the container end, be the engine away for a while or not."""
        away_since: float | None = None
        try:
            while True:
                try:
                    self._api.wait(self.container, timeout=None)
                    state = self._api.inspect_container(self.container)["State"]
                    if not state.get("Running"):
                        self._state = state
                        return
                    away_since = None
                except Exception as error:  # noqa: BLE001 - of the SDK, of requests, of urllib3
                    now = time.monotonic()
                    away_since = away_since or now
                    if getattr(getattr(error, "response", None), "status_code", 0) == 404:
                        self._complaint = "the container was removed by somebody while it ran."
                        return
                    if now - away_since > _AWAY_SECONDS:
                        self._complaint = _no_engine(self._engine.address, error)
                        return
                    time.sleep(_LOOK_SECONDS)
        finally:
            self._over.set()
            with contextlib.suppress(OSError):
                self._end.send(b"x")
                self._end.close()


def attach(api: Any, container: str) -> Any:
    """A stream of what the container prints from now on."""
    return api.attach_socket(container, params={"stdout": 1, "stderr": 1, "stream": 1, "stdin": 0, "logs": 0})


def _host_config(program: ContainerProgram, binds: list[str], network: JobNetwork | None) -> dict[str, Any]:
    """What the machine gives the container and keeps from it."""
    limits = program.limits
    given: dict[str, Any] = {
        # The input may be hard links to stored objects: whatever runs in there must not write to it.
        "binds": [
            f"{program.ml}:/opt/ml:rw",
            f"{program.ml}/input:/opt/ml/input:ro",
            # Its temporary files count as what it writes to its volume.
            *(f"{own}:{seen}:rw" for seen, own in sandbox.scratch_folders(program.ml).items()),
            *binds,
        ],
        "network_mode": network.name if network else network_mode(program.network),
        "extra_hosts": network.addresses(program.hosts) if network else None,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,  # no swap beside it
        "nano_cpus": int(limits.cpu_count * 1e9),
        "pids_limit": limits.processes,
        "ulimits": [{"Name": "nofile", "Soft": _open_files(), "Hard": _open_files()}],
        "shm_size": limits.shared_memory_bytes,
        "cap_drop": ["NET_RAW", "MKNOD"],
        "security_opt": _security_options(),
        "log_config": {"Type": "none"},  # the agent reads what it prints; nothing is kept twice
        "restart_policy": {"Name": "no"},
    }
    if limits.gpu_count:
        given["device_requests"] = [{"Count": limits.gpu_count, "Capabilities": [["gpu"]]}]
    return given


@contextlib.contextmanager
def _bind(mount: Mount) -> Iterator[str]:
    """How a directory is bound, by a descriptor of ours: no link can take its place meanwhile."""
    with mount.opened() as descriptor:
        mode = "ro" if mount.read_only else "rw"
        yield f"/proc/{os.getpid()}/fd/{descriptor}:/opt/ml/{mount.target}:{mode}"


def _open_files() -> int:
    """How many files a process may have open: as for programs in the sandbox."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)


def _security_options() -> list[str]:
    # Where SELinux rules, a container may not enter folders that are not labelled for it.
    return ["label=disable"] if Path("/sys/fs/selinux/enforce").exists() else []


def _cannot_start(program: ContainerProgram, error: Exception) -> CannotContain:
    """What the engine says of a container that did not start, in words that help."""
    said = _said(error)
    command = (program.entrypoint or program.arguments or ("train",))[0]
    missing = "executable file not found" in said or "no such file or directory" in said
    if missing and not program.entrypoint and "train" in program.arguments[:1]:
        return CannotContain(
            f"the image {program.image} has no program 'train': SageMaker runs `docker run IMAGE train`. Put "
            "an executable file named train on the image's PATH, set an ENTRYPOINT that takes the argument, "
            f"or give ContainerEntrypoint. The engine said: {said}",
            callers=True,
        )
    if missing:
        return CannotContain(
            f"the image {program.image} cannot run {command!r}: there is no such program in it, or the "
            f"interpreter that its first line names is missing. The engine said: {said}",
            callers=True,
        )
    if "exec format error" in said:
        return CannotContain(
            f"the image {program.image} is built for another kind of processor, or {command!r} is a script "
            f"without a first line that names its interpreter (#!/bin/sh). The engine said: {said}",
            callers=True,
        )
    if "permission denied" in said and "exec" in said:
        return CannotContain(
            f"the image {program.image} has a file {command!r} that is not executable: chmod +x it. The "
            f"engine said: {said}",
            callers=True,
        )
    return CannotContain(f"the container of the image {program.image} did not start: {said}")


def _no_engine(address: str, error: Exception) -> str:
    """Why the engine at ``address`` is not to be had, and what to do."""
    text = _said(error)
    if "Permission denied" in text or "PermissionError" in text:
        return (
            f"the engine at {address} does not let Clary's user in: permission denied. Add the user to the "
            "group that owns the socket (usermod -aG docker USER, then log in anew), or use Podman or a "
            "rootless Docker."
        )
    return f"no container engine answers at {address}: {text}. {_HOW_TO_START}"


def _check_near(address: str) -> None:
    """Raises `CannotContain` for an engine on another machine: it would not see the job's files."""
    parts = urlsplit(address)
    remote = parts.scheme in ("tcp", "http", "https") and parts.hostname not in _LOOPBACK
    if remote or parts.scheme == "ssh":
        raise CannotContain(
            f"the container engine at {address} is on another machine, which does not see the job's files. "
            "Use one on this machine: unset DOCKER_HOST, or set 'docker_host'."
        )


def _said(error: Exception) -> str:
    """The message of the engine or of the SDK, without the SDK's wrappings."""
    explanation = getattr(error, "explanation", None)
    if explanation:
        text = explanation.decode(errors="replace") if isinstance(explanation, bytes) else str(explanation)
    else:
        cause: BaseException = error
        while not isinstance(cause, OSError) or cause.errno is None:
            below = cause.__cause__ or cause.__context__
            if below is None:
                break
            cause = below
        text = str(cause.strerror if isinstance(cause, OSError) and cause.strerror else error)
    return " ".join(text.split()).rstrip(".")[:2000]


def _repository_and_tag(image: str) -> tuple[str, str | None]:
    """As the SDK wants them; a digest stays with the repository."""
    if "@" in image:
        return image, None
    repository, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        return image, "latest"
    return repository, tag


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def clean_up_records(records: Iterator[ContainerRecord], tasks: Path) -> bool:
    """Remove what engines have of the tasks in ``records``, and then the records; whether all went well."""
    engines: dict[str, Engine | None] = {}
    well = True
    try:
        for record in records:
            if record.engine not in engines:
                try:
                    engines[record.engine] = Engine.connect(record.engine)
                except CannotContain as error:
                    print(f"the containers of {record.engine} cannot be looked after: {error}", flush=True)
                    engines[record.engine] = None
            engine = engines[record.engine]
            if engine and engine.clean_up(record, tasks):
                record.forget(tasks)
            else:
                well = False
    finally:
        for engine in engines.values():
            if engine:
                engine.close()
    return well
