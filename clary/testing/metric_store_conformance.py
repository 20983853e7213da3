"""What every store of metric points must do. Subclass, say how to open a store, and collect."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from clary.clock import Clock, ManualClock
from clary.telemetry.metric_store import MetricStore, Point, Series

ACCOUNT, REGION = "123456789012", "us-east-1"


def series(name: str, namespace: str = "N", **dimensions: str) -> Series:
    return Series(ACCOUNT, REGION, namespace, name, dimensions)


class MetricStoreConformance:
    """The facts. `store` opens a fresh store."""

    def store(self, clock: Clock) -> AbstractAsyncContextManager[MetricStore]:
        raise NotImplementedError

    def run(self, facts: Callable[[MetricStore, float], Awaitable[None]]) -> None:
        async def within() -> None:
            clock = ManualClock()
            async with self.store(clock) as store:
                await facts(store, clock.now())

        asyncio.run(within())

    def test_points_come_back_as_they_were_put(self) -> None:
        async def facts(store: MetricStore, now: float) -> None:
            points = [
                Point(now, 0.1),
                Point(now + 0.001, 6.0, 3.0, 1.0, 3.0, "Count"),
                Point(now + 1, -1e300, unit="Bytes/Second", step=7),
                Point(now + 2, 5e-324, step=0),
            ]
            await store.put([(series("m", A="1"), point) for point in points])
            assert await everything(store, series("m", A="1")) == points
            assert await everything(store, series("m")) == []

        self.run(facts)

    def test_points_are_read_by_time_and_then_as_they_were_put(self) -> None:
        async def facts(store: MetricStore, now: float) -> None:
            for at, value in ((3, 1.0), (1, 2.0), (2, 3.0), (1, 4.0)):
                await store.put([(series("m"), Point(now + at, value))])
            found = await store.points(series("m"), start=now + 1, end=now + 3)
            assert [point.total for point in found] == [2.0, 4.0, 3.0]
            assert await store.points(series("m"), start=now + 4, end=now + 9) == []

        self.run(facts)

    def test_a_series_is_its_name_and_dimensions_in_any_order(self) -> None:
        async def facts(store: MetricStore, now: float) -> None:
            await store.put([(series("m", A="1", B="2"), Point(now, 1.0))])
            await store.put([(series("m", B="2", A="1"), Point(now, 2.0))])
            await store.put([(series("M", A="1", B="2"), Point(now, 3.0))])
            await store.put([(series("m", A="1", B="2", C="3"), Point(now, 4.0))])
            await store.put(
                [(Series("210987654321", REGION, "N", "m", {"A": "1", "B": "2"}), Point(now, 5.0))]
            )
            assert [point.total for point in await everything(store, series("m", A="1", B="2"))] == [1.0, 2.0]

        self.run(facts)

    def test_the_last_of_each_metric_is_the_one_put_last(self) -> None:
        async def facts(store: MetricStore, now: float) -> None:
            job = {"TrainingJobName": "job"}
            await store.put(
                [(series("loss", **job), Point(now + 9, 3.0)), (series("acc", **job), Point(now, 0.5))]
            )
            await store.put([(series("loss", **job), Point(now + 1, 2.0))])
            await store.put([(series("loss", **job, Host="algo-1"), Point(now + 2, 1.0))])
            await store.put([(series("loss", namespace="Other", **job), Point(now + 3, 0.0))])
            last = await store.last(ACCOUNT, REGION, "N", job)
            assert {name: point.total for name, point in last.items()} == {"loss": 2.0, "acc": 0.5}
            assert await store.last(ACCOUNT, "eu-west-1", "N", job) == {}

        self.run(facts)

    def test_series_are_found_by_what_they_are(self) -> None:
        async def facts(store: MetricStore, now: float) -> None:
            for each in (series("b", A="1"), series("a", A="2", B="1"), series("a", "M"), series("b", A="1")):
                await store.put([(each, Point(now, 1.0))])
            await store.put([(series("old", A="1"), Point(now - 100, 1.0))])

            async def found(**filters: Any) -> list[tuple[str, str, dict[str, str]]]:
                return [
                    (each.namespace, each.name, dict(each.dimensions))
                    for each in await store.series(ACCOUNT, REGION, **filters)
                ]

            m_a: tuple[str, str, dict[str, str]] = ("M", "a", {})
            n_a, n_b = ("N", "a", {"A": "2", "B": "1"}), ("N", "b", {"A": "1"})
            old = ("N", "old", {"A": "1"})
            assert await found() == [m_a, n_a, n_b, old]
            assert await found(namespace="M") == [m_a]
            assert await found(name="a") == [m_a, n_a]
            assert await found(dimensions={"A": None}) == [n_a, n_b, old]
            assert await found(dimensions={"A": "1"}) == [n_b, old]
            assert await found(dimensions={"A": "2", "B": None}) == [n_a]
            assert await found(dimensions={"C": None}) == []
            assert await found(active_since=now) == [m_a, n_a, n_b]
            assert await store.series("210987654321", REGION) == []

        self.run(facts)

    def test_nothing_put_is_nothing_there(self) -> None:
        async def facts(store: MetricStore, now: float) -> None:
            await store.put([])
            assert await store.series(ACCOUNT, REGION) == []

        self.run(facts)


async def everything(store: MetricStore, of: Series) -> list[Point]:
    return list(await store.points(of, start=-math.inf, end=math.inf))
