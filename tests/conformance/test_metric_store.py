"""Every store of metric points keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.clock import Clock
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.memory_metrics import MemoryMetricStore
from clary.telemetry.metric_store import MetricStore
from clary.telemetry.sqlite_metrics import SqliteMetricStore
from clary.testing.metric_store_conformance import MetricStoreConformance


class TestMemoryMetricStore(MetricStoreConformance):
    @asynccontextmanager
    async def store(self, clock: Clock) -> AsyncIterator[MetricStore]:
        store = MemoryMetricStore()
        yield store
        await store.close()


class TestSqliteMetricStore(MetricStoreConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "telemetry.sqlite"

    @asynccontextmanager
    async def store(self, clock: Clock) -> AsyncIterator[MetricStore]:
        store = SqliteMetricStore(TelemetryDatabase(self.path), clock)
        yield store
        await store.close()
