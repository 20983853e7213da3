"""The event bus's memory in one SQLite file, for one machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from clary.clock import Clock, SystemClock
from clary.event_bus.event_store import (
    MAX_BYTES_KEPT,
    MAX_EVENTS_KEPT,
    MAX_PENDING,
    BusEvent,
    Delivery,
    NewDelivery,
    NewEvent,
    Progress,
)
from clary.sqlite_file import SqliteFile

TOO_MANY_PENDING = "TooManyPendingDeliveries"
_PRUNE_EVERY = 1000  # events
_PRUNE_EVERY_BYTES = 64 * 1024**2
_ROUTER = "router"
_EVENT = "position, at, account, region, bus, event"


class SqliteEventStore:
    """`clary.event_bus.event_store.EventStore` in the file ``path``."""

    def __init__(
        self,
        path: Path,
        clock: Clock | None = None,
        *,
        events_kept: int = MAX_EVENTS_KEPT,
        bytes_kept: int = MAX_BYTES_KEPT,
        max_pending: int = MAX_PENDING,
    ) -> None:
        """Opens the file, making or upgrading it. Raises ``RuntimeError`` if a newer Clary made it."""
        self._clock = clock or SystemClock()
        self._file = SqliteFile(path, "clary.event_bus.migrations")
        self._events_kept = events_kept
        self._max_pending = max_pending
        self._prune_every = max(1, min(_PRUNE_EVERY, events_kept // 2))
        self._bytes_kept = bytes_kept
        self._prune_every_bytes = min(_PRUNE_EVERY_BYTES, bytes_kept // 2)
        self._unpruned_bytes = 0
        self._published = asyncio.Event()  # a new one after each
        self._stopping = False

    async def publish(self, events: Sequence[NewEvent], progress: Progress | None = None) -> int:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> int:
            position = 0
            for event in events:
                text = json.dumps(event.envelope)
                cursor = connection.execute(
                    "INSERT INTO events (at, account, region, bus, event) VALUES (?, ?, ?, ?, ?)",
                    (now, event.account, event.region, event.bus, text),
                )
                position = cursor.lastrowid or 0
                self._unpruned_bytes += len(text)
                if position % self._prune_every == 0 or self._unpruned_bytes > self._prune_every_bytes:
                    self._prune(connection, position)
            if progress is not None:
                _note(connection, progress)
            return position or _newest(connection)

        newest = await self._file.write(work)
        if events:
            self._published.set()
            self._published = asyncio.Event()
        return newest

    def _prune(self, connection: sqlite3.Connection, position: int) -> None:
        self._unpruned_bytes = 0
        before = position - (self._events_kept - self._prune_every)
        room = self._bytes_kept - self._prune_every_bytes
        sizes = connection.execute(
            "SELECT position, length(CAST(event AS BLOB)) FROM events WHERE position > ?"
            " ORDER BY position DESC",
            (before,),
        )
        for place, size in sizes:
            room -= size
            if room < 0:
                before = place
                break
        connection.execute(
            "DELETE FROM events WHERE position <= ? AND position <= ?"
            " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.position = events.position)",
            (before, _progress(connection, _ROUTER) or 0),
        )

    async def progress(self, follower: str) -> int | None:
        return await self._file.read(lambda connection: _progress(connection, follower))

    async def marks(self, uids: Collection[str]) -> Mapping[str, str]:
        def work(connection: sqlite3.Connection) -> dict[str, str]:
            return {
                uid: row[0]
                for uid in uids
                if (row := connection.execute("SELECT mark FROM marks WHERE uid = ?", (uid,)).fetchone())
            }

        return await self._file.read(work)

    async def newest(self) -> int:
        return await self._file.read(_newest)

    async def events(
        self, *, after: int, limit: int, account: str = "", region: str = ""
    ) -> Sequence[BusEvent]:
        where = "".join(
            f" AND {name} = ?" for name, value in (("account", account), ("region", region)) if value
        )
        values = [value for value in (account, region) if value]

        def work(connection: sqlite3.Connection) -> list[BusEvent]:
            rows = connection.execute(
                f"SELECT {_EVENT} FROM events WHERE position > ?{where} ORDER BY position LIMIT ?",
                (after, *values, limit),
            )
            return [_event(row) for row in rows]

        return await self._file.read(work)

    async def wait(self, *, after: int, timeout_seconds: float) -> int:
        deadline = time.monotonic() + timeout_seconds
        while True:
            published = self._published  # taken before asking, so that no event is missed
            newest = await self.newest()
            left = deadline - time.monotonic()
            if newest > after or left <= 0 or self._stopping:
                return newest
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(published.wait(), left)

    async def route(self, up_to: int, deliveries: Sequence[NewDelivery]) -> None:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> None:
            pending: Counter[str] = Counter()
            for delivery in deliveries:
                if delivery.destination not in pending:
                    pending[delivery.destination] = connection.execute(
                        "SELECT count(*) FROM deliveries WHERE destination = ?", (delivery.destination,)
                    ).fetchone()[0]
                full = pending[delivery.destination] >= self._max_pending
                connection.execute(
                    "INSERT INTO deliveries (position, destination, rule, target, due_at, given_up)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        delivery.position,
                        delivery.destination,
                        delivery.rule,
                        json.dumps(delivery.target),
                        now,
                        TOO_MANY_PENDING if full else "",
                    ),
                )
                pending[delivery.destination] += 1
            _note(connection, Progress(_ROUTER, up_to))

        # Events that go nowhere may be looked at once more.
        await self._file.write(work, durable=bool(deliveries))

    async def routed(self) -> int:
        return await self.progress(_ROUTER) or 0

    async def destinations(self, *, now: float, busy: Collection[str], limit: int) -> Sequence[str]:
        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                "SELECT destination, min(due_at) AS first FROM deliveries WHERE due_at <= ?"
                f" AND destination NOT IN ({_marks(busy)}) GROUP BY destination ORDER BY first LIMIT ?",
                (now, *busy, limit),
            )
            return [row[0] for row in rows]

        return await self._file.read(work)

    async def due(self, destination: str, *, now: float, limit: int) -> Sequence[Delivery]:
        def work(connection: sqlite3.Connection) -> list[Delivery]:
            rows = connection.execute(
                "SELECT id, destination, rule, target, attempts, given_up, error,"
                " events.position, at, account, region, bus, event"
                " FROM deliveries JOIN events ON events.position = deliveries.position"
                " WHERE destination = ? AND due_at <= ? ORDER BY id LIMIT ?",
                (destination, now, limit),
            )
            return [
                Delivery(row[0], _event(row[7:]), row[1], row[2], json.loads(row[3]), *row[4:7])
                for row in rows
            ]

        return await self._file.read(work)

    async def next_due_at(self, *, busy: Collection[str]) -> float | None:
        def work(connection: sqlite3.Connection) -> float | None:
            row = connection.execute(
                f"SELECT min(due_at) FROM deliveries WHERE destination NOT IN ({_marks(busy)})", (*busy,)
            ).fetchone()
            return None if row[0] is None else float(row[0])

        return await self._file.read(work)

    async def retry(self, delivery: Delivery, *, due_at: float, error: str) -> None:
        await self._file.write(
            lambda connection: connection.execute(
                "UPDATE deliveries SET attempts = attempts + 1, due_at = ?, error = ? WHERE id = ?",
                (due_at, error, delivery.id),
            )
        )

    async def give_up(self, delivery: Delivery, *, reason: str, error: str, attempts: int) -> None:
        await self._file.write(
            lambda connection: connection.execute(
                "UPDATE deliveries SET attempts = ?, given_up = ?, error = ? WHERE id = ?",
                (attempts, reason, error, delivery.id),
            )
        )

    async def settle(self, delivery: Delivery) -> None:
        await self._file.write(
            lambda connection: connection.execute("DELETE FROM deliveries WHERE id = ?", (delivery.id,))
        )

    def stop_waiting(self) -> None:
        self._stopping = True
        self._published.set()

    async def close(self) -> None:
        await self._file.close()


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


def _newest(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0


def _progress(connection: sqlite3.Connection, follower: str) -> int | None:
    row = connection.execute("SELECT sequence FROM progress WHERE follower = ?", (follower,)).fetchone()
    return int(row[0]) if row else None


def _note(connection: sqlite3.Connection, progress: Progress) -> None:
    connection.execute(
        "INSERT INTO progress VALUES (?, ?)"
        " ON CONFLICT (follower) DO UPDATE SET sequence = excluded.sequence",
        (progress.follower, progress.sequence),
    )
    for uid, mark in progress.marks.items():
        if mark is None:
            connection.execute("DELETE FROM marks WHERE uid = ?", (uid,))
        else:
            connection.execute(
                "INSERT INTO marks VALUES (?, ?) ON CONFLICT (uid) DO UPDATE SET mark = excluded.mark",
                (uid, mark),
            )


def _event(row: Sequence[Any]) -> BusEvent:
    position, at, account, region, bus, event = row
    return BusEvent(position, at, account, region, bus, json.loads(event))
