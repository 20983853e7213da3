"""What a variant's invocations add up to, counted in memory and collected every few seconds.

Latencies are kept as one statistic set for each power of two of microseconds, so that percentiles can be told
later from a handful of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Latencies:
    """Observations in microseconds."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[int, list[float]] = {}  # bit length -> count, total, smallest, largest

    def add(self, microseconds: float) -> None:
        bucket = self._buckets.get(int(microseconds).bit_length())
        if bucket is None:
            bucket = self._buckets[int(microseconds).bit_length()] = [0, 0.0, microseconds, microseconds]
        bucket[0] += 1
        bucket[1] += microseconds
        if microseconds < bucket[2]:
            bucket[2] = microseconds
        elif microseconds > bucket[3]:
            bucket[3] = microseconds

    def take(self) -> list[list[float]]:
        """(count, total, smallest, largest) of each bucket; counting begins anew."""
        taken = list(self._buckets.values())
        self._buckets = {}
        return taken


class VariantCounters:
    """The invocations of one variant since they were last taken."""

    __slots__ = (
        "errors_4xx",
        "errors_5xx",
        "invocations",
        "model_errors",
        "model_latency",
        "overhead",
        "per_instance",
    )

    def __init__(self) -> None:
        self.invocations = 0
        self.errors_4xx = 0
        self.errors_5xx = 0
        self.model_errors = 0
        self.per_instance = 0.0
        self.model_latency = Latencies()
        self.overhead = Latencies()

    def count(self, status: int, instances: int) -> None:
        """One invocation was answered with ``status`` while ``instances`` were active."""
        self.invocations += 1
        self.per_instance += 1.0 / max(1, instances)
        if status >= 500:
            self.errors_5xx += 1
        elif status >= 400:
            self.errors_4xx += 1

    def take(self) -> Mapping[str, Any] | None:
        """What was counted, as JSON; ``None`` if nothing was. Counting begins anew."""
        if not self.invocations:
            return None
        taken = {
            "Invocations": self.invocations,
            "Invocation4XXErrors": self.errors_4xx,
            "Invocation5XXErrors": self.errors_5xx,
            "InvocationModelErrors": self.model_errors,
            "InvocationsPerInstance": self.per_instance,
            "ModelLatency": self.model_latency.take(),
            "OverheadLatency": self.overhead.take(),
        }
        self.invocations = self.errors_4xx = self.errors_5xx = self.model_errors = 0
        self.per_instance = 0.0
        return taken
