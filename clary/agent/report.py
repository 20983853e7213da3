"""What the agent says of its task: the status file, and a poke to whoever waits for news."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Mapping

from clary.resources.resource import JsonValue
from clary.resources.task import StopCause, TaskPhase, TaskSpec, TaskStatus, TaskTransition
from clary.resources.task_folder import TaskFolder

RESERVE_BYTES = 1 << 20


class Report:
    """The task's status, on disk after every change; some room is kept for it, should the disk be full."""

    def __init__(self, folder: TaskFolder, spec: TaskSpec, driver_socket: str) -> None:
        self._folder = folder
        self._driver_socket = driver_socket
        self._reserve = folder.path / "reserve"
        with contextlib.suppress(OSError, AttributeError), self._reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        known = folder.read_status()
        self.status = TaskStatus(
            id=spec.id,
            owner=spec.owner,
            phase=TaskPhase.PENDING,
            transitions=known[0].transitions if known else (),
            process_id=os.getpid(),
        )

    def phase(self, phase: TaskPhase, message: str = "", *, address: str | None = None) -> None:
        """The task entered ``phase``."""
        self._publish(phase, message, address=address)

    def progress(self, message: str) -> None:
        """How far the present phase is; replaces what was said of it before."""
        *earlier, last = self.status.transitions
        transitions = (*earlier, dataclasses.replace(last, message=message))
        self.status = dataclasses.replace(self.status, transitions=transitions)
        self._write()

    def finish(
        self,
        phase: TaskPhase,
        *,
        reason: str = "",
        exit_code: int | None = None,
        stop_cause: StopCause | None = None,
        results: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """The task ended."""
        self._publish(
            phase,
            "",
            reason=reason,
            exit_code=exit_code,
            stop_cause=stop_cause,
            address=None,
            results=dict(results or {}),
        )

    def _publish(self, phase: TaskPhase, message: str, **changes: object) -> None:
        at = max([time.time(), *(transition.at for transition in self.status.transitions[-1:])])
        transition = TaskTransition(phase, at, message)
        self.status = dataclasses.replace(
            self.status,
            phase=phase,
            transitions=(*self.status.transitions, transition),
            **changes,  # type: ignore[arg-type]
        )
        self._write()

    def _write(self) -> None:
        try:
            self._folder.write_status(self.status)
        except OSError:
            self._reserve.unlink(missing_ok=True)  # the disk is full, perhaps of what the task wrote
            self._folder.write_status(self.status)
        self._poke()

    def _poke(self) -> None:
        # Lost pokes do no harm: the driver looks at the file as well.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as poker,
        ):
            poker.setblocking(False)
            poker.sendto(self.status.id.encode(), self._driver_socket)
