"""How an agent learns that its task is to end: a signal, and the word left in the task's folder."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from types import FrameType

from clary.resources.task import StopCause
from clary.resources.task_folder import TaskFolder

_LOOK_SECONDS = 1.0  # how often the folder is looked at, should the signal have been lost


class StopRequests:
    """Whether, and why, the task is to end. Made in the main thread; any thread may look."""

    def __init__(self, folder: TaskFolder) -> None:
        self._folder = folder
        self._cause: StopCause | None = None
        self._looked_at = 0.0
        self.waker, self._wakes = socket.socketpair()  # the waker is readable when a signal came
        self.waker.setblocking(False)
        self._wakes.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def cause(self) -> StopCause | None:
        """The reason to end, if there is one."""
        now = time.monotonic()
        if self._cause is None and now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self._cause = self._folder.read_stop()
        return self._cause

    def wanted(self) -> bool:
        return self.cause() is not None

    def order(self, cause: StopCause) -> None:
        """End for a reason of the agent's own; one that was given before stays."""
        self._folder.write_stop(cause)
        self._cause = self._folder.read_stop()

    def drain(self) -> None:
        """Take the wake-ups that came."""
        with contextlib.suppress(BlockingIOError):
            self.waker.recv(4096)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A plain SIGTERM is what a machine that goes down sends to everybody.
        self._cause = self._folder.read_stop() or StopCause.SHUTDOWN
