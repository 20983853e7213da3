"""A task's output on its way to CloudWatch Logs.

Lines go through a file, the spool, so that neither a talkative program nor a server that is away fills the
memory; a thread sends them in batches, at most about half a second later.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from clary.agent.aws import Clients, Patience
from clary.agent.failure import TaskFailed, TaskStopped

LARGEST_SPOOL_BYTES = 1 << 30
_MOST_EVENTS = 10_000  # of one PutLogEvents, as are the next two
_LARGEST_BATCH_BYTES = 1_000_000
_EVENT_OVERHEAD_BYTES = 26
_PAUSE_SECONDS = 0.25
_PENDING_BYTES = 1 << 20
_LONGEST_SPAN_MILLISECONDS = 23 * 3_600_000


class LogShipper:
    """Sends lines to one log stream; `close` waits until all are there."""

    def __init__(self, clients: Clients, patience: Patience, group: str, stream: str, spool: Path) -> None:
        self._logs = clients.logs
        self._patience = patience
        self._group, self._stream = group, stream
        self._file = spool.open("w+b", buffering=0)
        self._pending = bytearray()  # not yet in the file, or for want of room on the disk never
        self._written = 0  # bytes in the file
        self._acknowledged = 0
        self._dropped = 0
        self._last_time = 0
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log-shipper", daemon=True)
        self._thread.start()

    def add(self, line: str, at: float | None = None) -> None:
        """Send ``line``, said ``at`` (epoch seconds, now if not given)."""
        timestamp = max(self._last_time, int((time.time() if at is None else at) * 1000))
        self._last_time = timestamp
        entry = json.dumps([timestamp, line]).encode() + b"\n"
        with self._lock:
            full = len(self._pending) > _PENDING_BYTES and not self._spill()
            if full or self._written + len(self._pending) + len(entry) > LARGEST_SPOOL_BYTES:
                self._dropped += 1
                return
            self._pending += entry
        self._news.set()

    def close(self, seconds: float) -> bool:
        """Send what is left, for so long at most. Whether all went."""
        self._closing.set()
        self._news.set()
        self._thread.join(seconds)
        with self._lock:
            return not self._thread.is_alive() and self._acknowledged == self._written and not self._pending

    def _spill(self) -> bool:
        """Write pending entries to the file, if the disk has room; whether it had. The lock is held."""
        try:
            self._file.seek(self._written)
            whole = self._file.write(self._pending) == len(self._pending)
        except OSError:
            whole = False
        if whole:
            self._written += len(self._pending)
            self._pending.clear()
        return whole

    def _work(self) -> None:
        try:
            self._send(self._create)
            while True:
                self._news.wait()
                closing = self._closing.is_set()
                self._news.clear()
                while batch := self._next_batch():
                    events, size, spooled = batch
                    self._send(partial(self._put, events))
                    with self._lock:
                        if not spooled:
                            del self._pending[:size]
                            continue
                        self._acknowledged += size
                        if self._acknowledged == self._written:
                            self._file.truncate(0)
                            self._written = self._acknowledged = 0
                if closing:
                    return
                self._closing.wait(_PAUSE_SECONDS)
        except (TaskFailed, TaskStopped) as error:
            print(f"log events were not delivered: {error}", file=sys.stderr)

    def _send(self, call: Callable[[], object]) -> None:
        try:
            self._patience.call(call)
        except ClientError as error:
            print(f"log events were refused: {error}", file=sys.stderr)

    def _next_batch(self) -> tuple[list[dict[str, Any]], int, bool] | None:
        """Events, how many bytes they are and whether of the spool; ``None`` if there is nothing to send."""
        with self._lock:
            if self._pending:
                self._spill()
            if self._dropped and self._acknowledged == self._written:
                note = (
                    f"{self._dropped} lines were left out here: too many to keep while the server was away "
                    "or the disk was full."
                )
                self._pending += json.dumps([self._last_time, note]).encode() + b"\n"
                self._dropped = 0
                self._spill()
            spooled = self._acknowledged < self._written
            if spooled:
                self._file.seek(self._acknowledged)
                block = self._file.read(min(_LARGEST_BATCH_BYTES, self._written - self._acknowledged))
            else:
                block = bytes(self._pending[:_LARGEST_BATCH_BYTES])
        events: list[dict[str, Any]] = []
        size = cost = 0
        for entry in block.splitlines(keepends=True):
            if not entry.endswith(b"\n") or len(events) == _MOST_EVENTS:
                break
            timestamp, message = json.loads(entry)
            cost += len(message.encode()) + _EVENT_OVERHEAD_BYTES
            if events and (
                cost > _LARGEST_BATCH_BYTES or timestamp - events[0]["timestamp"] > _LONGEST_SPAN_MILLISECONDS
            ):
                break
            size += len(entry)
            # CloudWatch refuses empty messages; an empty line is part of what was said.
            events.append({"timestamp": timestamp, "message": message or " "})
        return (events, size, spooled) if events else None

    def _create(self) -> None:
        with contextlib.suppress(self._logs.exceptions.ResourceAlreadyExistsException):
            self._logs.create_log_group(logGroupName=self._group)
        with contextlib.suppress(self._logs.exceptions.ResourceAlreadyExistsException):
            self._logs.create_log_stream(logGroupName=self._group, logStreamName=self._stream)

    def _put(self, events: list[dict[str, Any]]) -> None:
        try:
            self._logs.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=events)
        except self._logs.exceptions.ResourceNotFoundException:
            self._create()  # somebody deleted it meanwhile
            self._logs.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=events)
