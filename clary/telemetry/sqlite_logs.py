"""Users' logs in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from clary.clock import Clock, SystemClock
from clary.faults import InUse, NotFound
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.log_store import LogEvent, LogGroup, LogStream

_PRUNE_BATCH = 10_000


class SqliteLogStore:
    """`clary.telemetry.log_store.LogStore` in a `TelemetryDatabase`."""

    def __init__(self, database: TelemetryDatabase, clock: Clock | None = None) -> None:
        self._database = database.share()
        self._clock = clock or SystemClock()

    def _now(self) -> int:
        return int(self._clock.now() * 1000)

    async def create_group(self, account: str, region: str, group: str) -> None:
        now = self._now()

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    "INSERT INTO groups (account, region, name, created_at) VALUES (?, ?, ?, ?)",
                    (account, region, group, now),
                )
            except sqlite3.IntegrityError:
                raise InUse(
                    "The specified log group already exists", code="ResourceAlreadyExistsException"
                ) from None

        await self._database.write(work)

    async def create_stream(self, account: str, region: str, group: str, stream: str) -> None:
        now = self._now()

        def work(connection: sqlite3.Connection) -> None:
            group_id = _group(connection, account, region, group)
            try:
                connection.execute(
                    "INSERT INTO streams (group_id, name, created_at) VALUES (?, ?, ?)",
                    (group_id, stream, now),
                )
            except sqlite3.IntegrityError:
                raise InUse(
                    "The specified log stream already exists", code="ResourceAlreadyExistsException"
                ) from None

        await self._database.write(work)

    async def put(
        self, account: str, region: str, group: str, stream: str, events: Sequence[tuple[int, str]]
    ) -> None:
        now = self._now()

        def work(connection: sqlite3.Connection) -> None:
            group_id = _group(connection, account, region, group)
            stream_id = _stream(connection, group_id, stream)
            connection.executemany(
                "INSERT INTO events (stream_id, timestamp, ingested_at, message) VALUES (?, ?, ?, ?)",
                [(stream_id, timestamp, now, message) for timestamp, message in events],
            )
            times = [timestamp for timestamp, _ in events]
            if times:
                connection.execute(
                    "UPDATE streams SET first_event_at = min(coalesce(first_event_at, ?), ?),"
                    " last_event_at = max(coalesce(last_event_at, ?), ?), last_ingestion_at = ?,"
                    " bytes = bytes + ? WHERE id = ?",
                    (
                        min(times),
                        min(times),
                        max(times),
                        max(times),
                        now,
                        sum(len(message.encode("utf-8", "replace")) + 26 for _, message in events),
                        stream_id,
                    ),
                )
            _prune(connection, group_id, stream_id, now)

        await self._database.write(work)

    async def groups(
        self,
        account: str,
        region: str,
        *,
        prefix: str = "",
        pattern: str = "",
        after: str = "",
        limit: int = 50,
    ) -> Sequence[LogGroup]:
        rows = await self._database.read(
            lambda connection: connection.execute(
                "SELECT name, created_at, retention_days,"
                " (SELECT coalesce(sum(bytes), 0) FROM streams WHERE group_id = groups.id) FROM groups"
                " WHERE account = ? AND region = ? AND name > ? AND substr(name, 1, ?) = ?"
                " AND instr(lower(name), ?) > 0 ORDER BY name LIMIT ?",
                (account, region, after, len(prefix), prefix, pattern.lower(), limit),
            ).fetchall()
        )
        return [LogGroup(account, region, *row) for row in rows]

    async def streams(
        self,
        account: str,
        region: str,
        group: str,
        *,
        prefix: str = "",
        by_last_event: bool = False,
        descending: bool = False,
        offset: int = 0,
        limit: int = 50,
    ) -> Sequence[LogStream]:
        order = "DESC" if descending else "ASC"
        column = "coalesce(last_event_at, 0)" if by_last_event else "name"

        def work(connection: sqlite3.Connection) -> list[LogStream]:
            rows = connection.execute(
                "SELECT name, created_at, first_event_at, last_event_at, last_ingestion_at FROM streams"
                f" WHERE group_id = ? AND substr(name, 1, ?) = ? ORDER BY {column} {order}, name {order}"
                " LIMIT ? OFFSET ?",
                (_group(connection, account, region, group), len(prefix), prefix, limit, offset),
            )
            return [LogStream(group, *row) for row in rows]

        return await self._database.read(work)

    async def read(
        self,
        account: str,
        region: str,
        group: str,
        streams: Sequence[str],
        *,
        start: int | None = None,
        end: int | None = None,
        after_position: int | None = None,
        before_position: int | None = None,
        newest_first: bool = False,
        limit: int = 10_000,
    ) -> Sequence[LogEvent]:
        def work(connection: sqlite3.Connection) -> list[LogEvent]:
            group_id = _group(connection, account, region, group)
            conditions, values = ["streams.group_id = ?"], [group_id]  # type: list[str], list[object]
            if streams:
                ids = [_stream(connection, group_id, name) for name in streams]
                conditions.append(f"stream_id IN ({', '.join('?' * len(ids))})")
                values += ids
            for condition, value in (
                ("timestamp >= ?", start),
                ("timestamp < ?", end),
                ("position > ?", after_position),
                ("position < ?", before_position),
            ):
                if value is not None:
                    conditions.append(condition)
                    values.append(value)
            order = "DESC" if newest_first else "ASC"
            rows = connection.execute(
                "SELECT streams.name, timestamp, message, ingested_at, position FROM events"
                " JOIN streams ON streams.id = stream_id"
                f" WHERE {' AND '.join(conditions)} ORDER BY position {order} LIMIT ?",
                (*values, limit),
            )
            return [LogEvent(*row) for row in rows]

        return await self._database.read(work)

    async def delete_stream(self, account: str, region: str, group: str, stream: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            group_id = _group(connection, account, region, group)
            stream_id = _stream(connection, group_id, stream)
            connection.execute("DELETE FROM events WHERE stream_id = ?", (stream_id,))
            connection.execute("DELETE FROM streams WHERE id = ?", (stream_id,))

        await self._database.write(work)

    async def delete_group(self, account: str, region: str, group: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            group_id = _group(connection, account, region, group)
            connection.execute(
                "DELETE FROM events WHERE stream_id IN (SELECT id FROM streams WHERE group_id = ?)",
                (group_id,),
            )
            connection.execute("DELETE FROM streams WHERE group_id = ?", (group_id,))
            connection.execute("DELETE FROM groups WHERE id = ?", (group_id,))

        await self._database.write(work)

    async def set_retention(self, account: str, region: str, group: str, days: int | None) -> None:
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE groups SET retention_days = ? WHERE id = ?",
                (days, _group(connection, account, region, group)),
            )
        )

    async def close(self) -> None:
        await self._database.close()


def _group(connection: sqlite3.Connection, account: str, region: str, group: str) -> int:
    row = connection.execute(
        "SELECT id FROM groups WHERE account = ? AND region = ? AND name = ?", (account, region, group)
    ).fetchone()
    if row is None:
        raise NotFound("The specified log group does not exist.", code="ResourceNotFoundException")
    return int(row[0])


def _stream(connection: sqlite3.Connection, group_id: int, stream: str) -> int:
    row = connection.execute(
        "SELECT id FROM streams WHERE group_id = ? AND name = ?", (group_id, stream)
    ).fetchone()
    if row is None:
        raise NotFound("The specified log stream does not exist.", code="ResourceNotFoundException")
    return int(row[0])


def _prune(connection: sqlite3.Connection, group_id: int, stream_id: int, now: int) -> None:
    """Drop what is older than the group keeps, a bounded piece at each write."""
    days = connection.execute("SELECT retention_days FROM groups WHERE id = ?", (group_id,)).fetchone()[0]
    if days is not None:
        connection.execute(
            "DELETE FROM events WHERE position IN (SELECT position FROM events WHERE stream_id = ?"
            " AND timestamp < ? ORDER BY position LIMIT ?)",
            (stream_id, now - days * 86_400_000, _PRUNE_BATCH),
        )
