"""Running the algorithm: its output line by line, its end, and everything that may end it."""

from __future__ import annotations

import math
import os
import re
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clary.agent.limits import Violation
from clary.agent.runtimes.process import Ending
from clary.agent.runtimes.running import Running
from clary.agent.stopping import StopRequests
from clary.agent.watch import Watch
from clary.resources.task import StopCause

LONGEST_LINE_BYTES = 200_000  # longer ones are cut; CloudWatch takes 256 KB
LONGEST_GRACE_SECONDS = 120.0
SHUTDOWN_GRACE_SECONDS = 3.0
_FIRST_LOOK_SECONDS, _LOOK_SECONDS = 0.25, 1.0  # at what the program uses
_PROGRESS_SECONDS = 1.0  # how often a line that overwrites itself (a progress bar) is passed on
_TAIL_LINES = 400
_READ_BYTES = 1 << 16
_DRAIN_SECONDS = 2.0
_LINE_ENDS = re.compile(rb"\r\n|\r|\n")


class LineReader:
    """Cuts bytes into lines, as a terminal would show them: after a bare ``\\r`` a line is written anew."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._rest = b""
        self._progress: bytes | None = None
        self._progress_at = 0.0

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        start = 0
        for end in _LINE_ENDS.finditer(data):
            if end.group() == b"\r" and end.end() == len(data):
                break  # its "\n" may be about to come
            line = data[start : end.start()]
            start = end.end()
            if end.group() == b"\r":
                self._progress = line or self._progress
            else:
                self._finish(line)
        self._rest = data[start:]
        while len(self._rest) > LONGEST_LINE_BYTES:
            self._finish(self._rest[:LONGEST_LINE_BYTES])
            self._rest = self._rest[LONGEST_LINE_BYTES:]
        self.tick()

    def tick(self) -> None:
        """Pass on a progress line that is due."""
        if self._progress is not None and time.monotonic() - self._progress_at >= _PROGRESS_SECONDS:
            self._progress_at = time.monotonic()
            line, self._progress = self._progress, None
            self._say(line)

    def end(self) -> None:
        """Pass on what has no line end."""
        rest, self._rest = self._rest.rstrip(b"\r"), b""
        if rest or self._progress is not None:
            self._finish(rest)

    def _finish(self, line: bytes) -> None:
        if not line and self._progress is not None:
            line = self._progress
        self._progress = None
        self._say(line)

    def _say(self, line: bytes) -> None:
        for start in range(0, max(1, len(line)), LONGEST_LINE_BYTES):
            self._emit(line[start : start + LONGEST_LINE_BYTES].decode("utf-8", errors="replace"))


@dataclass(frozen=True)
class Execution:
    """How a run ended. ``tail`` is the end of what was printed."""

    ending: Ending
    stop_cause: StopCause | None
    out_of_memory: bool
    tail: tuple[str, ...]
    violation: Violation | None = None  # of a limit, which ended the run or was found at its end
    remark: str = ""  # what the last words of a run that failed mean in terms of limits


def execute(
    running: Running,
    on_line: Callable[[str], None],
    stop: StopRequests,
    *,
    grace_seconds: float,
    deadline: float | None,
    kill_deadline: float | None = None,
    watch: Watch | None = None,
) -> Execution:
    """See a program through to its end; deadlines are of `time.monotonic`.

    Told to stop, or at the deadline, it gets SIGTERM and, after the grace, SIGKILL. At the ``kill_deadline``
    it is killed, and nothing is said of a stop. One that exceeds a limit, as ``watch`` sees it, is killed at
    once. Raises `CannotRun`.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def take(line: str) -> None:
        tail.append(line)
        on_line(line)

    reader = LineReader(take)
    killed_before = out_of_memory_kills()
    kill_at: float | None = None
    killed = False
    violation: Violation | None = None
    next_look = time.monotonic() + _FIRST_LOOK_SECONDS if watch else math.inf
    os.set_blocking(running.output, False)
    with selectors.DefaultSelector() as selector:
        selector.register(running.output, selectors.EVENT_READ)
        selector.register(running, selectors.EVENT_READ)
        selector.register(stop.waker, selectors.EVENT_READ)
        ended = False
        while not ended:
            for key, _ in selector.select(max(0.0, min(next_look - time.monotonic(), _PROGRESS_SECONDS))):
                if key.fileobj is stop.waker:
                    stop.drain()
                elif key.fileobj is running:
                    ended = True
                elif not _pump(running.output, reader):
                    selector.unregister(running.output)
            reader.tick()
            now = time.monotonic()
            if deadline is not None and now >= deadline and not stop.wanted() and not ended:
                stop.order(StopCause.MAX_RUNTIME)
            if kill_at is None and stop.wanted() and not ended:
                kill_at = now + _grace(stop.cause(), grace_seconds)
                running.signal(signal.SIGTERM)
            due = kill_at if kill_at is not None else kill_deadline
            if watch and not ended and now >= next_look:
                violation = watch.look()
                next_look = math.inf if violation else time.monotonic() + _LOOK_SECONDS
            if (violation or (due is not None and now >= due)) and not killed and not ended:
                killed = True
                running.signal(signal.SIGKILL)
    ending = running.ending()
    drained_by = time.monotonic() + _DRAIN_SECONDS
    while _pump(running.output, reader) and time.monotonic() < drained_by:
        time.sleep(0.002)
    reader.end()
    remark = ""
    if watch:
        succeeded = ending.exit_code == 0
        violation = violation or watch.last_look(succeeded=succeeded)
        remark = "" if succeeded else watch.remark("\n".join(tail))
    return Execution(
        ending=ending,
        stop_cause=stop.cause() if kill_at is not None else None,
        out_of_memory=out_of_memory_kills() > killed_before,
        tail=tuple(tail),
        violation=violation,
        remark=remark,
    )


def _pump(descriptor: int, reader: LineReader) -> bool:
    """Read what is there; whether more may come."""
    try:
        for _ in range(16):
            data = os.read(descriptor, _READ_BYTES)
            if not data:
                return False
            reader.feed(data)
    except BlockingIOError:
        pass
    return True


def _grace(cause: StopCause | None, grace_seconds: float) -> float:
    longest = SHUTDOWN_GRACE_SECONDS if cause is StopCause.SHUTDOWN else LONGEST_GRACE_SECONDS
    return min(grace_seconds, longest)


def out_of_memory_kills() -> int:
    """How many processes this machine's kernel has killed for want of memory."""
    try:
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except OSError:
        pass
    return 0
