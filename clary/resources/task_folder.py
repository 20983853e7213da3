"""A task's folder: the files through which a driver and an agent on one machine speak with each other.

``DATA/tasks/<task id>/`` holds

- ``spec.json``    what was ordered, with credentials: mode 0600, written by the driver before anything else;
- ``status.json``  what the agent last said, replaced atomically;
- ``lock``         locked by the live agent, whatever way it ends: liveness that no process id can fake;
- ``stop.json``    that the task is to end, and why; the first one written counts;
- ``addresses.json``  task id -> network address of each task of its cluster, written before any is launched;
- ``program.json``  the program that was started last, with its environment, credentials included;
- ``exit.json``    the agent's wait status if it ended badly, written by the fork server that started it;
- ``ml/``          the algorithm's ``/opt/ml``;
- ``logs.spool``, ``agent.log``  the agent's own.

A machine's boot id tells an agent that died with the machine from one that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clary.resources.resource import JsonValue
from clary.resources.task import (
    StopCause,
    TaskSpec,
    TaskStatus,
    spec_from_json,
    spec_to_json,
    status_from_json,
    status_to_json,
)

_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}\Z")


@dataclass(frozen=True)
class StartedProgram:
    """What a task's program was started with: all as it sees it itself."""

    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str


@dataclass(frozen=True)
class TaskFolder:
    """The folder of one task. Nothing is created until it is written to."""

    path: Path

    @property
    def ml(self) -> Path:
        return self.path / "ml"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    def write_spec(self, spec: TaskSpec) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_document(self.path / "spec.json", spec_to_json(spec))

    def read_spec(self) -> TaskSpec | None:
        """The order, or ``None`` if there is none that can be read."""
        document = read_document(self.path / "spec.json")
        try:
            return spec_from_json(document) if document else None
        except (KeyError, TypeError):
            return None

    def ordered_at(self) -> float:
        """When the order was written, in epoch seconds."""
        return (self.path / "spec.json").stat().st_mtime

    def write_status(self, status: TaskStatus) -> None:
        write_document(self.path / "status.json", {**status_to_json(status), "boot_id": boot_id()})

    def read_status(self) -> tuple[TaskStatus, str] | None:
        """The agent's last word, and the boot id of the machine when it was said."""
        document = read_document(self.path / "status.json")
        if not document:
            return None
        try:
            boot = str(document.pop("boot_id"))
            return status_from_json(document), boot
        except (KeyError, TypeError, ValueError):
            return None

    def write_stop(self, cause: StopCause) -> None:
        """Leave word that the task is to end. A cause that is there already stays."""
        temporary = self.path / f"stop.json.{os.getpid()}"
        temporary.write_text(json.dumps({"cause": cause.value}), encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self.path / "stop.json")
        temporary.unlink()

    def read_stop(self) -> StopCause | None:
        document = read_document(self.path / "stop.json")
        try:
            return StopCause(document["cause"]) if document else None
        except (KeyError, ValueError):
            return StopCause.REQUESTED

    def write_addresses(self, addresses: Mapping[str, str]) -> None:
        write_document(self._addresses, dict(addresses))

    def read_addresses(self) -> dict[str, str]:
        """The addresses of the task's cluster by task id; empty for a task on its own."""
        return {name: str(address) for name, address in (read_document(self._addresses) or {}).items()}

    @property
    def _addresses(self) -> Path:
        return self.path / "addresses.json"

    def write_program(self, program: StartedProgram) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_document(self.path / "program.json", {**asdict(program), "arguments": [*program.arguments]})

    def read_program(self) -> StartedProgram | None:
        """The program that was started last, if there was one."""
        document = read_document(self.path / "program.json")
        if not document:
            return None
        try:
            return StartedProgram(**{**document, "arguments": tuple(document["arguments"])})
        except (KeyError, TypeError):
            return None

    def read_exit(self) -> int | None:
        """The wait status (as ``os.waitpid`` gives it) of an agent that ended badly, if anybody saw it."""
        document = read_document(self.path / "exit.json")
        return int(document["wait_status"]) if document else None

    def agent_lives(self) -> bool:
        """Whether an agent holds the lock."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def task_folder(tasks: Path, task_id: str) -> TaskFolder:
    """The folder of ``task_id`` below ``tasks``. Raises ``ValueError`` for an id that is no plain name."""
    if not _TASK_ID.match(task_id):
        raise ValueError(f"{task_id!r} cannot be the id of a task: letters, digits, '_', '.' and '-' only.")
    return TaskFolder(tasks / task_id)


def write_document(path: Path, document: JsonValue) -> None:
    """Replace ``path`` by ``document`` as JSON: whole or not at all, readable by the owner only."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, separators=(",", ":"))
    temporary.replace(path)


def read_document(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``; ``None`` if it is missing or broken."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def boot_id() -> str:
    """A name for the time since this machine was started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
