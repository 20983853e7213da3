"""Metrics out of log lines: a job's regular expressions, and the way of their findings to the server."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from botocore.exceptions import ClientError

from clary.agent.aws import Clients, Patience
from clary.agent.failure import TaskFailed, TaskStopped

LONGEST_LINE = 4096  # characters of a line that expressions look at
EXPRESSION_SECONDS = 0.5  # for all expressions on one line
_MOST_IN_ONE_CALL = 10
_MOST_WAITING = 100_000
_PAUSE_SECONDS = 0.25


class _TooLong(Exception):
    """An expression took too much time."""


class MetricReader:
    """Applies expressions to lines. Only the main thread may use it: a timer guards against slow ones."""

    def __init__(self, definitions: Sequence[Mapping[str, Any]]) -> None:
        self._expressions: dict[str, re.Pattern[str]] = {}
        self.complaints: list[str] = []
        for definition in definitions:
            name = str(definition.get("Name"))
            try:
                expression = re.compile(str(definition.get("Regex")))
            except re.error as error:
                self.complaints.append(f"The regular expression of metric {name!r} is wrong: {error}")
                continue
            if expression.groups < 1:
                self.complaints.append(f"The regular expression of metric {name!r} has no group to capture.")
                continue
            self._expressions[name] = expression
        if self._expressions:
            signal.signal(signal.SIGALRM, _interrupt)

    def read(self, line: str) -> list[tuple[str, float]]:
        """(metric, value) pairs found in ``line``. An expression that takes too long is dropped for good."""
        if not self._expressions:
            return []
        found: list[tuple[str, float]] = []
        text = line[:LONGEST_LINE]
        name = ""
        try:
            signal.setitimer(signal.ITIMER_REAL, EXPRESSION_SECONDS)
            for name, expression in self._expressions.items():
                match = expression.search(text)
                if match and match.group(1) is not None:
                    try:
                        found.append((name, float(match.group(1))))
                    except ValueError:
                        continue  # it matched a word; AWS takes numbers only
            signal.setitimer(signal.ITIMER_REAL, 0)
        except _TooLong:
            self.complaints.append(
                f"The regular expression of metric {name!r} took over {EXPRESSION_SECONDS} s on one line; it "
                "is not applied any more."
            )
            del self._expressions[name]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return found


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise _TooLong


class MetricShipper:
    """Sends metric values of a job to the server from a thread; `close` waits until all are there."""

    def __init__(self, clients: Clients, patience: Patience, trial_component: str) -> None:
        self._metrics = clients.metrics
        self._patience = patience
        self._trial_component = trial_component
        self._waiting: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="metric-shipper", daemon=True)
        self._thread.start()

    def add(self, name: str, value: float, at: float) -> None:
        """Send one value; the oldest are given up if far too many wait."""
        with self._lock:
            if len(self._waiting) >= _MOST_WAITING:
                del self._waiting[: _MOST_WAITING // 10]
            self._waiting.append({"MetricName": name, "Timestamp": at, "Value": value})
        self._news.set()

    def close(self, seconds: float) -> bool:
        """Send what is left, for so long at most. Whether all went."""
        self._closing.set()
        self._news.set()
        self._thread.join(seconds)
        return not self._thread.is_alive() and not self._waiting

    def _work(self) -> None:
        try:
            while True:
                self._news.wait()
                closing = self._closing.is_set()
                self._news.clear()
                while True:
                    with self._lock:
                        batch = self._waiting[:_MOST_IN_ONE_CALL]
                    if not batch:
                        break
                    self._send(batch)
                    with self._lock:
                        del self._waiting[: len(batch)]
                if closing:
                    return
                self._closing.wait(_PAUSE_SECONDS)
        except (TaskFailed, TaskStopped) as error:
            print(f"metrics were not delivered: {error}", file=sys.stderr)

    def _send(self, batch: list[dict[str, Any]]) -> None:
        def put() -> Any:
            return self._metrics.batch_put_metrics(TrialComponentName=self._trial_component, MetricData=batch)

        try:
            reply = self._patience.call(put)
        except ClientError as error:
            print(f"metrics were refused: {error}", file=sys.stderr)
            return
        for problem in reply.get("Errors", []):
            print(f"a metric was refused: {problem}", file=sys.stderr)
