"""The log of a job or an endpoint, read through the public API: all its streams as one, in order of time.

Nothing is held that grows with the log: a page of each stream at most.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

PAGE_EVENTS = 1000


@dataclass(frozen=True)
class Line:
    """One log event. ``at`` is in milliseconds; ``stream`` is the part of its name that tells who speaks."""

    at: int
    stream: str
    text: str


@dataclass
class LogReader:
    """Reads the streams of ``group`` whose names begin with ``prefix``, each from where it stopped before.

    ``speaker`` gives the part of a stream's name to show, or ``None`` for a stream to leave out.
    """

    logs: Any
    group: str
    prefix: str
    speaker: Callable[[str], str | None]
    _tokens: dict[str, str | None] = field(default_factory=dict)

    def lines(self) -> Iterator[Line]:
        """What is there that was not read before, merged by time; the order within a stream stays."""
        yield from heapq.merge(*(self._read(name) for name in self._streams()), key=operator.attrgetter("at"))

    def speakers(self) -> list[str]:
        """Who has a stream, as far as it was seen."""
        return [self.speaker(name) or "" for name in self._tokens]

    def _streams(self) -> list[str]:
        question: dict[str, Any] = {"logGroupName": self.group}
        if self.prefix:
            question["logStreamNamePrefix"] = self.prefix
        while True:
            try:
                reply = self.logs.describe_log_streams(**question)
            except self.logs.exceptions.ResourceNotFoundException:
                return []  # nobody has said anything yet
            for stream in reply["logStreams"]:
                if self.speaker(stream["logStreamName"]) is not None:
                    self._tokens.setdefault(stream["logStreamName"], None)
            if not reply.get("nextToken"):
                return list(self._tokens)
            question["nextToken"] = reply["nextToken"]

    def _read(self, stream: str) -> Iterator[Line]:
        speaker = self.speaker(stream) or ""
        while True:
            token = self._tokens[stream]
            place: dict[str, Any] = {"nextToken": token} if token else {"startFromHead": True}
            reply = self.logs.get_log_events(
                logGroupName=self.group, logStreamName=stream, limit=PAGE_EVENTS, **place
            )
            for event in reply["events"]:
                yield Line(event["timestamp"], speaker, event["message"])
            # Only now: whoever stops in the middle of a page reads it again.
            self._tokens[stream] = reply["nextForwardToken"]
            if not reply["events"] or reply["nextForwardToken"] == token:
                return
