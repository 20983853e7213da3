"""The contract of metric points: CloudWatch's namespaces, names and dimensions, without its arithmetic.

Times are epoch seconds. `clary.testing.metric_store_conformance` holds the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

KEPT_SECONDS = 455 * 86_400.0  # CloudWatch's fifteen months


@dataclass(frozen=True)
class Series:
    """The identity of a metric."""

    account: str
    region: str
    namespace: str
    name: str
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One observation, or a statistic set (``count`` observations between ``minimum`` and ``maximum``)."""

    at: float
    total: float
    count: float = 1.0
    minimum: float | None = None  # None: equal to total / count
    maximum: float | None = None
    unit: str = "None"
    step: int | None = None  # training step, for metrics of jobs


class MetricStore(Protocol):
    """Keeps points at least `KEPT_SECONDS` long, as finely as they came."""

    async def put(self, points: Sequence[tuple[Series, Point]]) -> None:
        """Append, all or none. They outlive a crash of the process. Times may come in any order."""

    async def points(self, series: Series, *, start: float, end: float) -> Sequence[Point]:
        """Points with ``start`` <= at < ``end``, by time, then in the order they were put."""

    async def last(
        self, account: str, region: str, namespace: str, dimensions: Mapping[str, str]
    ) -> Mapping[str, Point]:
        """The point put last of each metric name that has exactly these dimensions."""

    async def series(
        self,
        account: str,
        region: str,
        *,
        namespace: str | None = None,
        name: str | None = None,
        dimensions: Mapping[str, str | None] | None = None,
        active_since: float | None = None,
    ) -> Sequence[Series]:
        """Series that match, by namespace and name; those with a point at or after ``active_since``.

        A dimension given with ``None`` must be there with any value.
        """

    async def close(self) -> None:
        """Finish what is in flight and let go of files and threads."""
