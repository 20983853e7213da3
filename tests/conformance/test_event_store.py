"""Every memory of the event bus keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.clock import Clock
from clary.event_bus.event_store import EventStore
from clary.event_bus.sqlite_events import SqliteEventStore
from clary.testing.event_store_conformance import BYTES_KEPT, EVENTS_KEPT, MAX_PENDING, EventStoreConformance


class TestSqliteEventStore(EventStoreConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "events.sqlite"

    @asynccontextmanager
    async def store(self, clock: Clock) -> AsyncIterator[EventStore]:
        store = SqliteEventStore(
            self.path, clock, events_kept=EVENTS_KEPT, bytes_kept=BYTES_KEPT, max_pending=MAX_PENDING
        )
        yield store
        await store.close()
