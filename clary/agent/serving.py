"""One replica of a production variant: the model on disk, a worker that answers, a watch over it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.agent.archives import BadArchive, unpack
from clary.agent.code import bring_code, in_environment
from clary.agent.execute import LineReader
from clary.agent.explain import explain_traceback
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.images import BuiltIn, Container, resolve_image
from clary.agent.limits import task_limits
from clary.agent.runtimes.process import CannotRun, Ending, RunningProgram
from clary.agent.runtimes.program import Program
from clary.agent.s3_transfer import Download, S3Transfer, s3_location
from clary.agent.surroundings import Surroundings
from clary.agent.watch import Confinement, Watch, volume_watch
from clary.resources.task import ServingWork, StopCause, TaskPhase

SOCKET_NAME = "worker.sock"
STOP_GRACE_SECONDS = 30.0
SHUTDOWN_GRACE_SECONDS = 3.0
MOST_RESTARTS_IN_A_ROW = 5  # a worker that was healthy for a while starts counting anew
HEALTHY_FOR_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_FIRST_LOOK_SECONDS, _LOOK_SECONDS = 0.02, 0.25  # at /ping while the worker starts
_PING_SECONDS = 2.0
_HEALTH_SECONDS = 10.0  # between looks at a healthy worker
_LIMITS_SECONDS = 1.0  # between looks at what the worker uses
_MOST_FAILED_LOOKS = 3
_FLUSH_SECONDS = 3.0
_TAIL_LINES = 400


def run_serving(around: Surroundings, work: ServingWork, incoming: S3Transfer) -> None:
    """Serve until told to stop; ``incoming`` gives up then. Raises `TaskFailed` and `TaskStopped`."""
    around.report.phase(TaskPhase.PREPARING, "Downloading the model")
    ml = around.folder.ml
    for folder in ("model", "code", "input", "output"):
        (ml / folder).mkdir(parents=True, exist_ok=True)
    container = container_of(work.model)
    program = _program(around, work, container)
    around.runtime.reserve()
    _bring_model(around, incoming, str(container.get("ModelDataUrl") or _model_source(container) or ""), work)
    environment = _environment(container)
    bring_code(ml, environment.get("SAGEMAKER_SUBMIT_DIRECTORY", ""), incoming)
    for code in ("code", "model/code"):
        program = in_environment(around, program, ml / code, f"{program.directory}/{code}")
    _Replica(around, work, program).serve()


def container_of(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one container of a model."""
    primary = model.get("PrimaryContainer")
    if isinstance(primary, dict):
        return primary
    several = model.get("Containers")
    if isinstance(several, list) and len(several) == 1:
        return dict(several[0])
    raise TaskFailed("ClientError: a model of several containers (an inference pipeline) is not offered yet.")


class _Replica:
    """The worker of this replica, started again when it fails."""

    def __init__(self, around: Surroundings, work: ServingWork, program: Program) -> None:
        self._around, self._work, self._program = around, work, program
        self._limits = task_limits(around.spec, around.settings)
        self._directory = Path(around.settings.sockets) / program.socket_directory
        self._socket = self._directory / SOCKET_NAME
        self._tail: list[str] = []
        self._reader = LineReader(self._take)

    def serve(self) -> None:
        for remark in self._limits.remarks():
            self._around.say(remark)
        restarts = 0
        pause = _FIRST_PAUSE_SECONDS
        was_healthy = False
        while True:
            began = time.monotonic()
            cause = self._run(first=not was_healthy)
            if cause is None:
                raise TaskStopped
            was_healthy = was_healthy or cause.was_healthy
            if not was_healthy:
                raise TaskFailed(cause.reason)  # a model that cannot be loaded will not load the next time
            if cause.was_healthy and time.monotonic() - began >= HEALTHY_FOR_SECONDS:
                restarts, pause = 0, _FIRST_PAUSE_SECONDS
            restarts += 1
            if restarts > MOST_RESTARTS_IN_A_ROW:
                raise TaskFailed(
                    f"The model server ended {restarts} times in a row; the last time: {cause.reason}"
                )
            self._around.say(f"The model server is started again in {pause:.1f} s: {cause.reason}")
            self._around.report.phase(TaskPhase.PREPARING, f"Starting the model server again: {cause.reason}")
            wake_at = time.monotonic() + pause
            while time.monotonic() < wake_at and not self._around.stop.wanted():
                time.sleep(min(0.2, pause))
            if self._around.stop.wanted():
                raise TaskStopped
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _run(self, *, first: bool) -> _WorkerEnd | None:
        """One life of the worker; ``None`` if it was told to stop."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True)
        self._tail.clear()
        if not (self._around.folder.ml / "output").is_symlink():
            (self._around.folder.ml / "output/failure").unlink(missing_ok=True)
        around = self._around
        with Confinement(self._limits, around.settings) as confinement:
            try:
                running = around.runtime.start(confinement.confined(self._program), confinement.cgroup)
            except CannotRun as error:
                raise TaskFailed(f"InternalServerError: {error}") from error
            try:
                volume = volume_watch(self._limits, around.folder, self._program.directory)
                return self._watch(running, confinement.watch(volume, running.process_id))
            finally:
                running.close()
                self._reader.end()

    def _watch(self, running: RunningProgram, limits: Watch) -> _WorkerEnd | None:
        stop, work = self._around.stop, self._work
        os.set_blocking(running.output, False)
        deadline = time.monotonic() + work.startup_timeout_seconds
        look = _FIRST_LOOK_SECONDS
        next_look = time.monotonic() + look
        limits_at = time.monotonic() + _LIMITS_SECONDS
        healthy = False
        failed_looks = 0
        kill_at: float | None = None
        reason = ""
        with selectors.DefaultSelector() as selector:
            for source in (running.output, running, stop.waker):
                selector.register(source, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                until = next_look if kill_at is None else kill_at
                for key, _ in selector.select(max(0.0, min(until - now, 1.0))):
                    if key.fileobj is stop.waker:
                        stop.drain()
                    elif key.fileobj is running:
                        ending = running.ending()
                        self._pump(running.output)
                        if stop.wanted():
                            return None
                        violation = limits.last_look(succeeded=False)
                        reason = reason or (violation.reason if violation else self._explain(ending))
                        return _WorkerEnd(reason, healthy)
                    elif not self._pump(running.output):
                        selector.unregister(running.output)
                now = time.monotonic()
                self._reader.tick()
                violation = None
                if kill_at is None and now >= limits_at:
                    violation, limits_at = limits.look(), now + _LIMITS_SECONDS
                if kill_at is not None:
                    if now >= kill_at:
                        running.signal(signal.SIGKILL)
                        kill_at = now + 1.0
                elif stop.wanted():
                    running.signal(signal.SIGTERM)
                    shutdown = stop.cause() is StopCause.SHUTDOWN
                    kill_at = now + (SHUTDOWN_GRACE_SECONDS if shutdown else STOP_GRACE_SECONDS)
                elif violation:
                    reason = violation.reason
                    running.signal(signal.SIGKILL)
                    kill_at = now + 1.0
                elif now >= next_look:
                    well = ping(self._socket)
                    if healthy:
                        failed_looks = 0 if well else failed_looks + 1
                        if failed_looks >= _MOST_FAILED_LOOKS:
                            reason = f"/ping failed {failed_looks} times in a row"
                            running.signal(signal.SIGKILL)
                            kill_at = now + 1.0
                        next_look = now + _HEALTH_SECONDS
                    elif well:
                        healthy = True
                        self._around.report.phase(
                            TaskPhase.RUNNING, "The model server is healthy", address=f"unix:{self._socket}"
                        )
                        next_look = now + _HEALTH_SECONDS
                    elif now >= deadline:
                        reason = (
                            "the model server did not pass the ping health check within "
                            f"{work.startup_timeout_seconds:.0f} seconds of its start"
                        )
                        running.signal(signal.SIGKILL)
                        kill_at = now + 1.0
                    else:
                        look = min(look * 1.3, _LOOK_SECONDS)
                        next_look = now + look

    def _pump(self, descriptor: int) -> bool:
        try:
            while data := os.read(descriptor, 1 << 16):
                self._reader.feed(data)
        except BlockingIOError:
            return True
        return False

    def _take(self, line: str) -> None:
        self._around.logs.add(line)
        self._tail.append(line)
        if len(self._tail) > 2 * _TAIL_LINES:
            del self._tail[:_TAIL_LINES]

    def _explain(self, ending: Ending) -> str:
        if ending.signal is not None:
            try:
                how = f"killed by {signal.Signals(ending.signal).name}"
            except ValueError:
                how = f"killed by signal {ending.signal}"
        else:
            how = f"exit code: {ending.exit_code}"
        written = ""
        with contextlib.suppress(OSError):
            path = self._around.folder.ml / "output/failure"
            if path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
                written = path.read_text(encoding="utf-8", errors="replace")[:1024].strip()
        said = next((line.strip() for line in reversed(self._tail) if line.strip()), "the model server ended")
        return f"{written or explain_traceback(self._tail) or said}, {how}"


class _WorkerEnd:
    """Why a worker ended, and whether it had answered /ping before."""

    def __init__(self, reason: str, was_healthy: bool) -> None:
        self.reason, self.was_healthy = reason, was_healthy


def ping(path: Path) -> bool:
    """Whether a server on the unix socket ``path`` answers GET /ping with 200 in time."""
    connection = http.client.HTTPConnection("localhost", timeout=_PING_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(_PING_SECONDS)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def socket_directory_name(task_id: str) -> str:
    """A short name for the task's socket folder: paths of sockets are limited to about a hundred bytes."""
    return hashlib.sha256(task_id.encode()).hexdigest()[:16]


def _program(around: Surroundings, work: ServingWork, container: Mapping[str, Any]) -> Program:
    image = str(container.get("Image") or "")
    environment = _environment(container)
    meaning = resolve_image(image, has_program=_has_program(environment))
    if isinstance(meaning, Container):
        raise TaskFailed(
            f"ClientError: the image {image!r} is none of Clary's built-in algorithms or frameworks, and "
            "running other containers is not offered yet."
        )
    handler = (
        f"algorithm:{meaning.algorithm}" if isinstance(meaning, BuiltIn) else f"framework:{meaning.name}"
    )
    name = socket_directory_name(around.spec.id)
    seen = around.runtime.socket_seen(name)
    return Program(
        task_id=around.spec.id,
        module="clary.serving.model_worker",
        directory=around.runtime.ml_seen(around.spec.id),
        arguments=("--socket", f"{seen}/{SOCKET_NAME}", "--handler", handler),
        environment={**environment, **around.algorithm_environment()},
        network=not work.model.get("EnableNetworkIsolation"),
        threads=around.threads,
        socket_directory=name,
    )


def _has_program(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("SAGEMAKER_PROGRAM"))


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    given = container.get("Environment")
    return {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {}


def _model_source(container: Mapping[str, Any]) -> str:
    """``ModelDataSource.S3DataSource.S3Uri``, the newer way to name the model's data."""
    source = container.get("ModelDataSource")
    inner = source.get("S3DataSource") if isinstance(source, dict) else None
    return str(inner.get("S3Uri", "")) if isinstance(inner, dict) else ""


def _bring_model(around: Surroundings, incoming: S3Transfer, uri: str, work: ServingWork) -> None:
    """Download and unpack the model's archive into ``ml/model``."""
    folder = around.folder.ml / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if not uri:
        return  # a script may need no data
    location = s3_location(uri)
    try:
        if uri.endswith("/"):
            _bring_files(incoming, uri, folder)
            return
        size, etag = incoming.size(location)
        with tempfile.TemporaryDirectory(dir=around.folder.path, prefix="model-") as holding:
            archive = Path(holding, "model.tar.gz")
            incoming.download([Download(location, size, etag, archive)])
            with archive.open("rb") as file:
                unpack(file, folder, size)
    except BadArchive as error:
        raise TaskFailed(f"ClientError: the model data {uri} cannot be unpacked: {error}") from error
    except TaskFailed as error:
        raise TaskFailed(
            f"Failed to download model data for variant {work.variant_name} from {uri}: {error.reason}"
        ) from error


def _bring_files(incoming: S3Transfer, uri: str, folder: Path) -> None:
    prefix = s3_location(uri)
    downloads = []
    for key, size, etag in incoming.objects(prefix):
        relative = key[len(prefix.key) :]
        if not relative or relative.endswith("/"):
            continue
        if any(part in ("", ".", "..") or "\0" in part for part in relative.split("/")):
            raise TaskFailed(f"ClientError: the key s3://{prefix.bucket}/{key} cannot be a file name.")
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        downloads.append(Download(s3_location(f"s3://{prefix.bucket}/{key}"), size, etag, target))
    if not downloads:
        raise TaskFailed(f"ClientError: {uri} matched no files on s3.")
    incoming.download(downloads)
