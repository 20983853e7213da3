"""Python environments of jobs that bring a ``requirements.txt`` or a package: built once for each content.

An environment lives in ``DATA/environments/<hash>`` and counts once its marker is there; a folder without one
is what a build left that was killed, and is built anew. A task that uses an environment holds its lock
shared; the ones that were not used for longest go when there are too many.
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
from dataclasses import replace
from pathlib import Path

from clary.agent.execute import execute
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.runtimes.environment_builder import package_arguments
from clary.agent.runtimes.process import CannotRun, ProcessRuntime
from clary.agent.runtimes.program import Program
from clary.agent.stopping import StopRequests
from clary.agent.volume import VolumeWatch
from clary.agent.watch import Confinement
from clary.frameworks.source import is_package

BUILD_SECONDS = 30 * 60.0
LARGEST_REQUIREMENTS_BYTES = 1 << 20
MOST_ENVIRONMENTS = 64
_MARKER = "complete"
_READ_BYTES = 1 << 20
_GRACE_SECONDS = 5.0
_LOCK_PAUSE_SECONDS = 0.2
_REFERENCE = re.compile(
    rb"^\s*(-r|-c|-e|--requirement|--constraint|--editable|\.|/|file:|[^#\s]+\s*@\s*file:)", re.M
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_PIP_SETTINGS_SECONDS = 60.0
_held: list[int] = []  # locks of the environments that this process uses
_INDEXES = ("index-url", "extra-index-url")
_NEVER_SHOWN = ("/", "/etc", "/home", "/root", "/var", "/opt", "/tmp")


def ensure_environment(
    code: Path,
    *,
    code_seen: str,
    environments: Path,
    runtime: ProcessRuntime,
    confine: Callable[[], Confinement],
    task_id: str,
    on_line: Callable[[str], None],
    stop: StopRequests,
) -> str:
    """The name of the environment that the source in ``code`` asks for, built now if there is none.

    "" if it asks for none. The environment stays for as long as this process lives. Raises `TaskFailed` with
    pip's error, and `TaskStopped`.
    """
    requirements, package = _requirements(code), is_package(code)
    if not requirements and not package:
        return ""
    name = _name(code, requirements, package, runtime)
    folder = environments / name
    environments.mkdir(parents=True, exist_ok=True)
    patient_until = time.monotonic() + BUILD_SECONDS
    while not _hold(environments, name):
        with _alone(environments, name) as alone:
            if not alone:  # another job builds it: as soon as it is complete, it is ours as well
                _pause(stop, patient_until)
                continue
            if (folder / _MARKER).exists():
                continue
            make_room(environments, MOST_ENVIRONMENTS - 1)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o755)
            what = [*(["the packages of requirements.txt"] if requirements else [])]
            what += ["the source's own package"] if package else []
            on_line(f"Installing {' and '.join(what)}")
            settings, paths = pip_settings()
            arguments = package_arguments("requirements.txt" if requirements else "", package=package)
            program = Program(
                task_id=task_id,
                module="clary.agent.runtimes.environment_builder",
                directory=code_seen,
                arguments=(runtime.environment_seen(name), *arguments),
                environment=settings,
                read_only_paths=paths,
                python_environment=name,
                environment_writable=True,
            )
            with confine() as confinement:
                complaint = _build(program, runtime, confinement, folder, on_line, stop)
            if complaint:
                source = "requirements.txt" if requirements else "the source's package"
                raise TaskFailed(f"ClientError: {source} could not be installed: {complaint}")
            (folder / _MARKER).touch()
    return name


def _build(
    program: Program,
    runtime: ProcessRuntime,
    confinement: Confinement,
    folder: Path,
    on_line: Callable[[str], None],
    stop: StopRequests,
) -> str:
    """Run the builder; pip's complaint, "" if there is none."""
    volume = VolumeWatch(replace(confinement.limits, volume_bytes=0), {folder: "the environment"})
    try:
        running = runtime.start(confinement.confined(program), confinement.cgroup)
        try:
            execution = execute(
                running,
                on_line,
                stop,
                grace_seconds=_GRACE_SECONDS,
                deadline=None,
                kill_deadline=time.monotonic() + BUILD_SECONDS,
                watch=confinement.watch(volume, running.process_id),
            )
        finally:
            running.close()
    except CannotRun as error:
        raise TaskFailed(f"InternalServerError: {error}") from error
    if execution.stop_cause:
        raise TaskStopped
    if execution.violation:
        raise TaskFailed(execution.violation.reason)
    return "" if execution.ending.exit_code == 0 else _complaint(execution.tail)


def _requirements(code: Path) -> bytes:
    """What ``requirements.txt`` holds; nothing if there is none. Raises `TaskFailed`."""
    path = code / "requirements.txt"
    if not path.is_file() or path.is_symlink():
        return b""
    if path.stat().st_size > LARGEST_REQUIREMENTS_BYTES:
        raise TaskFailed(f"ClientError: requirements.txt is larger than {LARGEST_REQUIREMENTS_BYTES} bytes.")
    return path.read_bytes().strip()


def _hold(environments: Path, name: str) -> bool:
    """Keep a complete environment from being removed while this process lives; whether there is one."""
    descriptor = os.open(environments / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        (environments / name / _MARKER).stat()
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return False
    os.utime(environments / name / _MARKER)
    _held.append(descriptor)
    return True


def make_room(environments: Path, most: int) -> None:
    """Leave ``most`` environments: the ones that were not used for longest go, unless a task uses them."""
    markers = sorted(environments.glob(f"*/{_MARKER}"), key=lambda path: path.stat().st_mtime)
    for marker in markers[: max(0, len(markers) - most)]:
        name = marker.parent.name
        descriptor = os.open(environments / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            marker.unlink()
            shutil.rmtree(marker.parent, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError):
            continue
        finally:
            os.close(descriptor)


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
            path = os.path.normpath(word.removeprefix("file://"))
            if path.startswith("/") and Path(path).exists() and path not in _NEVER_SHOWN:
                beside = str(Path(path).parent)  # where the pages of an index lead to
                paths.add(beside if key in _INDEXES and beside not in _NEVER_SHOWN else path)
    return found, tuple(sorted(paths))


def _name(code: Path, requirements: bytes, package: bool, runtime: ProcessRuntime) -> str:
    """Everything the environment depends on, as a short name."""
    digest = hashlib.sha256(
        "\0".join((sys.version, sys.executable, sys.prefix, str(runtime.fenced), str(package))).encode()
    )
    digest.update(b"\0" + requirements)
    if package or _REFERENCE.search(requirements):  # it installs from files beside it, which count as well
        for path in sorted(code.rglob("*")):
            if path.is_file() and not path.is_symlink():
                digest.update(b"\0" + str(path.relative_to(code)).encode() + b"\0")
                with path.open("rb") as file:
                    while part := file.read(_READ_BYTES):
                        digest.update(part)
    return digest.hexdigest()[:32]


@contextmanager
def _alone(environments: Path, name: str) -> Iterator[bool]:
    """Hold an environment's lock alone, so that two jobs do not build it at once; whether it could be had."""
    descriptor = os.open(environments / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        alone = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def _pause(stop: StopRequests, patient_until: float) -> None:
    if stop.wanted():
        raise TaskStopped
    if time.monotonic() > patient_until:
        raise TaskFailed("InternalServerError: another job has been building this environment for too long.")
    time.sleep(_LOCK_PAUSE_SECONDS)


def _complaint(tail: tuple[str, ...]) -> str:
    errors = [line.strip() for line in tail if line.startswith("ERROR:")]
    if errors:
        return " ".join(error.removeprefix("ERROR:").strip() for error in errors[:3])
    said = [line.strip() for line in tail if line.strip()]
    return said[-1] if said else "pip ended without a word"
