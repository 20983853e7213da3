"""Every store of queues keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.clock import Clock
from clary.queues.queue_store import QueueStore
from clary.queues.sqlite_queues import SqliteQueueStore
from clary.testing.queue_store_conformance import MAX_IN_FLIGHT, MAX_MESSAGES, QueueStoreConformance


class TestSqliteQueueStore(QueueStoreConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "queues.sqlite"

    @asynccontextmanager
    async def store(self, clock: Clock) -> AsyncIterator[QueueStore]:
        store = SqliteQueueStore(self.path, clock, max_messages=MAX_MESSAGES, max_in_flight=MAX_IN_FLIGHT)
        yield store
        await store.close()
