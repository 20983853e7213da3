"""What the gateway counts becomes CloudWatch's metrics of endpoints."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from clary.clock import ManualClock
from clary.serving.metric_collector import NAMESPACE, MetricCollector
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.metric_store import Series
from clary.telemetry.sqlite_metrics import SqliteMetricStore
from clary.testing.serving_world import ACCOUNT, REGION, invoke, serving_world


def test_invocations_become_points_of_their_variant(tmp_path: Path) -> None:
    async def facts() -> None:
        clock = ManualClock(time.time())
        metrics = SqliteMetricStore(TelemetryDatabase(tmp_path / "telemetry.db"))
        async with serving_world(tmp_path / "data") as world:
            address = await world.serve("a", lambda body, *_: (int(body), b"", "a/b"))
            await world.publish(("AllTraffic", 1.0, [address]))
            for status in (b"200", b"200", b"200", b"404"):
                await asyncio.to_thread(invoke, world.client(), status, {})
            collector = MetricCollector(world.gateway, metrics, clock)
            await collector.collect()
            await collector.collect()  # nothing is counted twice

        async def totals(name: str) -> tuple[float, float]:
            series = Series(
                ACCOUNT, REGION, NAMESPACE, name, {"EndpointName": "endpoint", "VariantName": "AllTraffic"}
            )
            points = await metrics.points(series, start=0, end=clock.now() + 1)
            assert all(point.at == clock.now() for point in points)
            return sum(point.total for point in points), sum(point.count for point in points)

        assert await totals("Invocations") == await totals("InvocationsPerInstance") == (4.0, 4.0)
        assert await totals("Invocation4XXErrors") == await totals("InvocationModelErrors") == (1.0, 4.0)
        assert await totals("Invocation5XXErrors") == (0.0, 4.0)
        microseconds, count = await totals("ModelLatency")
        assert count == 4 and microseconds > 0
        await metrics.close()

    asyncio.run(facts())


def test_a_gateway_that_is_gone_is_no_bug(tmp_path: Path) -> None:
    async def facts() -> None:
        metrics = SqliteMetricStore(TelemetryDatabase(tmp_path / "telemetry.db"))
        async with serving_world(tmp_path / "data") as world:
            collector = MetricCollector(world.gateway, metrics, ManualClock())
        await collector.collect()
        await metrics.close()

    asyncio.run(facts())
