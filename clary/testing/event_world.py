"""`ApiWorld` with queues and an event bus behind it, on real files."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from clary.event_bus.sqlite_events import SqliteEventStore
from clary.queues.sqlite_queues import SqliteQueueStore
from clary.testing.api_world import ApiWorld


class EventApiWorld(ApiWorld):
    """Close it when done."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.queues = SqliteQueueStore(folder / "queues.sqlite", self.clock)
        self.events = SqliteEventStore(folder / "events.sqlite", self.clock)
        self.backends = dataclasses.replace(self.backends, queues=self.queues, events=self.events)

    def close(self) -> None:
        async def close() -> None:
            await self.queues.close()
            await self.events.close()

        asyncio.run(close())
