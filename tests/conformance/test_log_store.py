"""Every store of logs keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.clock import Clock
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.log_store import LogStore
from clary.telemetry.sqlite_logs import SqliteLogStore
from clary.testing.log_store_conformance import LogStoreConformance


class TestSqliteLogStore(LogStoreConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "telemetry.sqlite"

    @asynccontextmanager
    async def store(self, clock: Clock) -> AsyncIterator[LogStore]:
        store = SqliteLogStore(TelemetryDatabase(self.path), clock)
        yield store
        await store.close()
