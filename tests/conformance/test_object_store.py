"""Every object store keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.objects.filesystem.store import FilesystemObjectStore
from clary.objects.object_store import ObjectStore
from clary.testing.object_store_conformance import ObjectStoreConformance


class TestFilesystemObjectStore(ObjectStoreConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "objects"

    @asynccontextmanager
    async def store(self) -> AsyncIterator[ObjectStore]:
        store = FilesystemObjectStore(self.path)
        yield store
        await store.close()
        # Whatever the facts did, no file may be left that nothing refers to.
        store = FilesystemObjectStore(self.path)
        assert await store.sweep() == 0
        await store.close()
