"""Follows what is written to the store and puts changes of state on the event bus.

What was put there and how far the following came are written down together: after a crash it goes on where
it was, and tells nothing twice and leaves nothing out.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Sequence
from types import ModuleType

from clary import registry
from clary.controllers.state_change import bus_event
from clary.event_bus.event_store import EventStore, NewEvent, Progress
from clary.protocol.models import ServiceModels
from clary.resources.resource import Resource
from clary.store.store import Event, Store

FOLLOWER = "store"
BATCH = 500
WAIT_SECONDS = 30.0
RETRY_SECONDS = 1.0
MOST_REMEMBERED = 500  # resources, for those that are deleted before their last change was told
NOTE_PROGRESS_EVERY = 1000  # writes that are none of ours

log = logging.getLogger("clary.events")


class StateChangeFeed:
    """See the module."""

    def __init__(self, store: Store, events: EventStore, models: ServiceModels) -> None:
        self._store = store
        self._events = events
        self._models = models
        self._kinds: dict[str, ModuleType] = {
            module.KIND: module for module in registry.modules("clary.controllers.state_changes")
        }
        self._remembered: OrderedDict[str, Resource] = OrderedDict()  # by uid
        self._sequence: int | None = None
        self._noted = 0

    async def run(self) -> None:
        """Follow for ever; what fails is logged and tried again."""
        while True:
            try:
                await self.catch_up()
                assert self._sequence is not None
                await self._store.wait(after=self._sequence, timeout_seconds=WAIT_SECONDS)
            except Exception:
                log.exception("changes of state could not be put on the event bus")
                await asyncio.sleep(RETRY_SECONDS)

    async def catch_up(self) -> None:
        """Tell of everything that was written up to now."""
        if self._sequence is None:
            self._sequence = self._noted = await self._start()
        while batch := await self._store.events(after=self._sequence, limit=BATCH):
            await self._tell(batch)
            self._sequence = batch[-1].sequence

    async def _start(self) -> int:
        """Where to begin: what happened before there was a bus is history, and tells nobody anything."""
        newest = await self._store.wait(after=-1, timeout_seconds=0)
        noted = await self._events.progress(FOLLOWER)
        if noted is not None and noted <= newest:
            return noted
        # A store that is younger than the bus begins again; one that is older is taken as it is.
        begin = newest if noted is None else 0
        await self._events.publish([], Progress(FOLLOWER, begin))
        return begin

    async def _tell(self, batch: Sequence[Event]) -> None:
        ours = [event for event in batch if event.key.kind in self._kinds]
        sequence = batch[-1].sequence
        if not ours:
            if sequence - self._noted >= NOTE_PROGRESS_EVERY:
                await self._events.publish([], Progress(FOLLOWER, sequence))
                self._noted = sequence
            return
        marks: dict[str, str | None] = dict(await self._events.marks({event.uid for event in ours}))
        found: list[NewEvent] = []
        for uid in {event.uid for event in ours}:
            await self._remember(next(event for event in ours if event.uid == uid))
        for event in ours:
            if event.change == "deleted":
                marks[event.uid] = None
                self._remembered.pop(event.uid, None)
            elif event.change in ("created", "status"):
                try:
                    self._add(event, found, marks)
                except Exception:
                    log.exception("%s %s: its change of state cannot be told", event.key.kind, event.key.name)
        await self._events.publish(found, Progress(FOLLOWER, sequence, marks))
        self._noted = sequence

    async def _remember(self, event: Event) -> None:
        """Keep the resource as it is now: events hold no specs."""
        resource = await self._store.find(event.key)
        if resource is not None and resource.uid == event.uid:
            self._remembered[event.uid] = resource
            self._remembered.move_to_end(event.uid)
            while len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)

    def _add(self, event: Event, found: list[NewEvent], marks: dict[str, str | None]) -> None:
        kind = self._kinds[event.key.kind]
        known = self._remembered.get(event.uid)
        resource = dataclasses.replace(
            known or Resource(event.key, event.uid, {}, {}, "", 0, event.at, event.at),
            status=event.status,
            phase=event.phase,
            modified_at=event.at,
        )
        changes, mark = kind.changes(resource, marks.get(event.uid))
        shape = self._models["sagemaker"].operation_model(kind.DESCRIBE).output_shape
        for place, change in enumerate(changes):
            left = len(changes) - 1 - place
            found.append(
                bus_event(resource, kind.DETAIL_TYPE, shape, change, f"{mark} {left} {event.sequence}")
            )
        marks[event.uid] = mark
