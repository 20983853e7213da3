"""Every store keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.clock import Clock
from clary.store.memory import MemoryStore
from clary.store.sqlite import SqliteStore
from clary.store.store import Store
from clary.testing.store_conformance import StoreConformance


class TestMemoryStore(StoreConformance):
    @asynccontextmanager
    async def store(self, clock: Clock, *, events_kept: int = 1000) -> AsyncIterator[Store]:
        store = MemoryStore(clock, events_kept=events_kept)
        yield store
        await store.close()


class TestSqliteStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store.sqlite"

    @asynccontextmanager
    async def store(self, clock: Clock, *, events_kept: int = 1000) -> AsyncIterator[Store]:
        store = SqliteStore(self.path, clock, events_kept=events_kept)
        yield store
        await store.close()
