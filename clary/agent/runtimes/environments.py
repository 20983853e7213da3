"""Python environments of jobs that bring a ``requirements.txt``: built once for each content, then shared.

An environment lives in ``DATA/environments/<hash>`` and counts once its marker is there; a folder without one
is what a build left that was killed, and is built anew.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clary.agent.execute import execute
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.runtimes.process import CannotRun, ProcessRuntime
from clary.agent.runtimes.program import Program
from clary.agent.stopping import StopRequests

BUILD_SECONDS = 30 * 60.0
LARGEST_REQUIREMENTS_BYTES = 1 << 20
_MARKER = "complete"
_GRACE_SECONDS = 5.0
_LOCK_PAUSE_SECONDS = 0.2
_REFERENCE = re.compile(
    rb"^\s*(-r|-c|-e|--requirement|--constraint|--editable|\.|/|file:|[^#\s]+\s*@\s*file:)", re.M
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_PIP_SETTINGS_SECONDS = 60.0
_NEVER_SHOWN = ("/", "/etc", "/home", "/root", "/var", "/opt", "/tmp")


def ensure_environment(
    requirements: Path,
    *,
    requirements_seen: str,
    environments: Path,
    runtime: ProcessRuntime,
    task_id: str,
    directory_seen: str,
    on_line: Callable[[str], None],
    stop: StopRequests,
) -> str:
    """The name of the environment for ``requirements``, built now if there is none.

    Raises `TaskFailed` with pip's error, and `TaskStopped`.
    """
    name = _name(requirements, runtime)
    folder = environments / name
    if (folder / _MARKER).exists():
        return name
    environments.mkdir(parents=True, exist_ok=True)
    with _only_builder(environments / f"{name}.lock", stop):
        if (folder / _MARKER).exists():
            return name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o755)
        on_line("Installing the packages of requirements.txt")
        settings, paths = pip_settings()
        program = Program(
            task_id=task_id,
            module="clary.agent.runtimes.environment_builder",
            directory=directory_seen,
            arguments=(runtime.environment_seen(name), requirements_seen),
            environment=settings,
            read_only_paths=paths,
            python_environment=name,
            environment_writable=True,
        )
        try:
            running = runtime.start(program)
            try:
                execution = execute(
                    running,
                    on_line,
                    stop,
                    grace_seconds=_GRACE_SECONDS,
                    deadline=None,
                    kill_deadline=time.monotonic() + BUILD_SECONDS,
                )
            finally:
                running.close()
        except CannotRun as error:
            raise TaskFailed(f"InternalServerError: {error}") from error
        if execution.stop_cause:
            raise TaskStopped
        if execution.ending.exit_code != 0:
            raise TaskFailed(
                f"ClientError: requirements.txt could not be installed: {_complaint(execution.tail)}"
            )
        (folder / _MARKER).touch()
    return name


def pip_settings() -> tuple[dict[str, str], tuple[str, ...]]:
    """What this machine's owner has set for pip, as variables, and the files and folders that it names.

    So the sandbox, which shows little of the machine, reaches the same packages.
    """
    found = {name: os.environ[name] for name in _PROXIES if name in os.environ}
    paths: set[str] = set()
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        timeout=_PIP_SETTINGS_SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    ).stdout
    settings: dict[str, str] = {}
    for wanted in ("global.", "install.", ":env:."):  # the later wins
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(wanted):
                try:
                    settings[key[len(wanted) :]] = str(ast.literal_eval(value))
                except (ValueError, SyntaxError):
                    continue
    for key, value in settings.items():
        found["PIP_" + key.upper().replace("-", "_")] = value
        for word in value.split():
            path = word.removeprefix("file://")
            if path.startswith("/") and Path(path).exists() and os.path.normpath(path) not in _NEVER_SHOWN:
                paths.add(os.path.normpath(path))
    return found, tuple(sorted(paths))


def _name(requirements: Path, runtime: ProcessRuntime) -> str:
    """Everything the environment depends on, as a short name."""
    if requirements.stat().st_size > LARGEST_REQUIREMENTS_BYTES:
        raise TaskFailed(f"ClientError: requirements.txt is larger than {LARGEST_REQUIREMENTS_BYTES} bytes.")
    content = requirements.read_bytes()
    digest = hashlib.sha256(
        "\0".join((sys.version, sys.executable, sys.prefix, str(runtime.fenced))).encode()
    )
    digest.update(b"\0" + content)
    if _REFERENCE.search(content):  # it installs from files beside it, which count as well
        for path in sorted(requirements.parent.rglob("*")):
            if path.is_file() and not path.is_symlink():
                digest.update(b"\0" + str(path.relative_to(requirements.parent)).encode() + b"\0")
                digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


@contextmanager
def _only_builder(lock: Path, stop: StopRequests) -> Iterator[None]:
    """Hold ``lock``, so that two jobs do not build the same environment at once."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + BUILD_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop.wanted():
                    raise TaskStopped from None
                if time.monotonic() > deadline:
                    raise TaskFailed(
                        "InternalServerError: another job has been building this environment for too long."
                    ) from None
                time.sleep(_LOCK_PAUSE_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _complaint(tail: tuple[str, ...]) -> str:
    errors = [line.strip() for line in tail if line.startswith("ERROR:")]
    if errors:
        return " ".join(error.removeprefix("ERROR:").strip() for error in errors[:3])
    said = [line.strip() for line in tail if line.strip()]
    return said[-1] if said else "pip ended without a word"
