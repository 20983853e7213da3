"""Metric points that live in this process and die with it: for tests, and as a model of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clary.telemetry.metric_store import Point, Series


class MemoryMetricStore:
    """`clary.telemetry.metric_store.MetricStore` in a list."""

    def __init__(self) -> None:
        self._points: list[tuple[Series, Point]] = []

    async def put(self, points: Sequence[tuple[Series, Point]]) -> None:
        self._points.extend(points)

    async def points(self, series: Series, *, start: float, end: float) -> Sequence[Point]:
        found = [point for of, point in self._points if of == series and start <= point.at < end]
        return sorted(found, key=lambda point: point.at)

    async def last(
        self, account: str, region: str, namespace: str, dimensions: Mapping[str, str]
    ) -> Mapping[str, Point]:
        return {
            of.name: point
            for of, point in self._points
            if of == Series(account, region, namespace, of.name, dict(dimensions))
        }

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
        found: list[Series] = []
        for of, point in self._points:
            if (
                of not in found
                and (active_since is None or point.at >= active_since)
                and (of.account, of.region) == (account, region)
                and namespace in (None, of.namespace)
                and name in (None, of.name)
                and all(
                    dimension in of.dimensions and value in (None, of.dimensions[dimension])
                    for dimension, value in (dimensions or {}).items()
                )
            ):
                found.append(of)
        return sorted(found, key=lambda of: (of.namespace, of.name))

    async def close(self) -> None:
        pass
