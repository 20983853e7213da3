"""Users' logs in SQLite."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from clary.clock import Clock, SystemClock
from clary.faults import InUse, NotFound
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.log_store import (
    EVENT_OVERHEAD_BYTES,
    MAX_BYTES_OF_A_PAGE,
    MAX_EVENTS_OF_A_PAGE,
    MAX_EVENTS_SEARCHED,
    Found,
    LogEvent,
    LogGroup,
    LogStream,
)

EXPIRE_EVERY_MILLISECONDS = 3_600_000
EXPIRE_AT_ONCE = 10_000  # events that one write may have to drop
_DAY_MILLISECONDS = 86_400_000
_GROUP_COLUMNS = (
    "name, created_at, retention_days,"
    " (SELECT coalesce(sum(bytes), 0) FROM streams WHERE group_id = groups.id), class, kms_key_id, tags"
)
# The size of an event as CloudWatch counts it.
_SIZE = f"length(CAST(message AS BLOB)) + {EVENT_OVERHEAD_BYTES}"


class SqliteLogStore:
    """`clary.telemetry.log_store.LogStore` in a `TelemetryDatabase`."""

    def __init__(self, database: TelemetryDatabase, clock: Clock | None = None) -> None:
        self._database = database.share()
        self._clock = clock or SystemClock()
        self._expire_next = 0  # when to look for events to drop

    def _now(self) -> int:
        return int(self._clock.now() * 1000)

    async def create_group(
        self,
        account: str,
        region: str,
        group: str,
        *,
        tags: Mapping[str, str] | None = None,
        log_class: str = "STANDARD",
        kms_key_id: str | None = None,
    ) -> None:
        values = (account, region, group, self._now(), json.dumps(dict(tags or {})), log_class, kms_key_id)

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    "INSERT INTO groups (account, region, name, created_at, tags, class, kms_key_id)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    values,
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
        # A lone surrogate, which JSON can carry, has no UTF-8.
        rows = [(timestamp, message.encode("utf-8", "replace").decode()) for timestamp, message in events]

        def work(connection: sqlite3.Connection) -> None:
            stream_id = _stream(connection, _group(connection, account, region, group), stream)
            connection.executemany(
                "INSERT INTO events (stream_id, timestamp, ingested_at, message) VALUES (?, ?, ?, ?)",
                [(stream_id, timestamp, now, message) for timestamp, message in rows],
            )
            if rows:
                first, last = min(rows)[0], max(rows)[0]
                size = sum(len(message.encode()) + EVENT_OVERHEAD_BYTES for _, message in rows)
                connection.execute(
                    "UPDATE streams SET first_event_at = min(coalesce(first_event_at, ?), ?),"
                    " last_event_at = max(coalesce(last_event_at, ?), ?), last_ingestion_at = ?,"
                    " bytes = bytes + ? WHERE id = ?",
                    (first, first, last, last, now, size, stream_id),
                )
            if now >= self._expire_next:
                dropped = _expire(connection, now)
                self._expire_next = now if dropped == EXPIRE_AT_ONCE else now + EXPIRE_EVERY_MILLISECONDS

        await self._database.write(work)

    async def group(self, account: str, region: str, group: str) -> LogGroup:
        row = await self._database.read(
            lambda connection: connection.execute(
                f"SELECT {_GROUP_COLUMNS} FROM groups WHERE id = ?",
                (_group(connection, account, region, group),),
            ).fetchone()
        )
        return _log_group(account, region, row)

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
                f"SELECT {_GROUP_COLUMNS} FROM groups WHERE account = ? AND region = ? AND name > ?"
                " AND substr(name, 1, ?) = ? AND instr(name, ?) > 0 ORDER BY name LIMIT ?",
                (account, region, after, len(prefix), prefix, pattern, limit),
            ).fetchall()
        )
        return [_log_group(account, region, row) for row in rows]

    async def streams(
        self,
        account: str,
        region: str,
        group: str,
        *,
        prefix: str = "",
        by_last_event: bool = False,
        descending: bool = False,
        after: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> Sequence[LogStream]:
        order, sign = ("DESC", "<") if descending else ("ASC", ">")
        columns = ["coalesce(last_event_at, 0)", "name"] if by_last_event else ["name"]
        place: tuple[object, ...] = () if after is None else after[-len(columns) :]
        marks = ", ".join("?" * len(columns))
        beyond = f"AND ({', '.join(columns)}) {sign} ({marks})" if place else ""
        by = ", ".join(f"{column} {order}" for column in columns)

        def work(connection: sqlite3.Connection) -> list[LogStream]:
            rows = connection.execute(
                "SELECT name, created_at, first_event_at, last_event_at, last_ingestion_at FROM streams"
                f" WHERE group_id = ? AND substr(name, 1, ?) = ? {beyond} ORDER BY {by} LIMIT ?",
                (_group(connection, account, region, group), len(prefix), prefix, *place, limit),
            )
            return [LogStream(group, *row) for row in rows]

        return await self._database.read(work)

    async def read(
        self,
        account: str,
        region: str,
        group: str,
        stream: str,
        *,
        start: int | None = None,
        end: int | None = None,
        after_position: int | None = None,
        before_position: int | None = None,
        newest_first: bool = False,
        limit: int = MAX_EVENTS_OF_A_PAGE,
    ) -> Sequence[LogEvent]:
        where, values = _conditions(
            ("timestamp >= ?", start),
            ("timestamp < ?", end),
            ("position > ?", after_position),
            ("position < ?", before_position),
        )

        def work(connection: sqlite3.Connection) -> list[LogEvent]:
            stream_id = _stream(connection, _group(connection, account, region, group), stream)
            rows = connection.execute(
                "SELECT timestamp, message, ingested_at, position FROM events INDEXED BY events_of_stream"
                f" WHERE stream_id = ?{where} ORDER BY position {'DESC' if newest_first else 'ASC'} LIMIT ?",
                (stream_id, *values, limit),
            )
            events: list[LogEvent] = []
            room = MAX_BYTES_OF_A_PAGE
            for row in rows:
                event = LogEvent(stream, *row)
                room -= _size(event)
                if room < 0 and events:
                    break
                events.append(event)
            return events

        return await self._database.read(work)

    async def search(
        self,
        account: str,
        region: str,
        group: str,
        *,
        streams: Sequence[str] = (),
        prefix: str = "",
        start: int | None = None,
        end: int | None = None,
        after: tuple[int, int] | None = None,
        newest_first: bool = False,
        matches: Callable[[str], bool] | None = None,
        limit: int = MAX_EVENTS_OF_A_PAGE,
    ) -> Found:
        def work(connection: sqlite3.Connection) -> Found:
            group_id = _group(connection, account, region, group)
            for name in streams:
                _stream(connection, group_id, name)
            found: list[LogEvent] = []
            room, place = MAX_BYTES_OF_A_PAGE, after
            merged = _by_time(connection, group_id, streams, prefix, start, end, after, newest_first)
            for looked_at, event in enumerate(merged):
                chosen = matches is None or matches(event.message)
                if looked_at == MAX_EVENTS_SEARCHED or (
                    chosen and (len(found) == limit or (found and room < _size(event)))
                ):
                    return Found(found, place)
                if chosen:
                    found.append(event)
                    room -= _size(event)
                place = (event.timestamp, event.position)
            return Found(found, None)

        return await self._database.read(lambda connection: _of_one_moment(connection, work))

    async def delete_stream(self, account: str, region: str, group: str, stream: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            stream_id = _stream(connection, _group(connection, account, region, group), stream)
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
        self._expire_next = 0

    async def change_tags(
        self,
        account: str,
        region: str,
        group: str,
        change: Callable[[Mapping[str, str]], Mapping[str, str]],
    ) -> None:
        def work(connection: sqlite3.Connection) -> None:
            group_id = _group(connection, account, region, group)
            row = connection.execute("SELECT tags FROM groups WHERE id = ?", (group_id,)).fetchone()
            tags = json.dumps(dict(change(json.loads(row[0]))))
            connection.execute("UPDATE groups SET tags = ? WHERE id = ?", (tags, group_id))

        await self._database.write(work)

    async def close(self) -> None:
        await self._database.close()


def _log_group(account: str, region: str, row: Sequence[Any]) -> LogGroup:
    name, created_at, retention_days, stored_bytes, log_class, kms_key_id, tags = row
    return LogGroup(
        account,
        region,
        name,
        created_at,
        retention_days,
        stored_bytes,
        log_class,
        kms_key_id,
        json.loads(tags),
    )


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


def _size(event: LogEvent) -> int:
    return len(event.message.encode()) + EVENT_OVERHEAD_BYTES


def _conditions(*conditions: tuple[str, int | None]) -> tuple[str, list[int]]:
    """SQL and values of those conditions that have a value."""
    return (
        "".join(f" AND {text}" for text, value in conditions if value is not None),
        [value for _, value in conditions if value is not None],
    )


def _of_one_moment(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Found]) -> Found:
    """The result of ``work``, all of whose statements see the same state."""
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        connection.execute("ROLLBACK")


def _by_time(
    connection: sqlite3.Connection,
    group_id: int,
    names: Sequence[str],
    prefix: str,
    start: int | None,
    end: int | None,
    after: tuple[int, int] | None,
    newest_first: bool,
) -> Iterator[LogEvent]:
    """Events of many streams by time and position.

    Each stream is read through its index; it is opened when its first event comes up, and the merge holds
    one event of each that is open, so that neither the number of streams nor that of events matters.
    """
    sign = -1 if newest_first else 1
    order, beyond = ("DESC", "<") if newest_first else ("ASC", ">")
    where, values = _conditions(("timestamp >= ?", start), ("timestamp < ?", end))
    if after is not None:
        where += f" AND timestamp {beyond}= ? AND (timestamp, position) {beyond} (?, ?)"
        values += [after[0], *after]
    select = (
        "SELECT timestamp, message, ingested_at, position FROM events INDEXED BY events_by_time"
        f" WHERE stream_id = ?{where} ORDER BY timestamp {order}, position {order}"
    )
    begin = "last_event_at" if newest_first else "first_event_at"
    streams = connection.execute(
        f"SELECT {begin}, id, name FROM streams WHERE group_id = ? AND substr(name, 1, ?) = ?"
        f" AND {begin} IS NOT NULL AND first_event_at < ? AND last_event_at >= ? ORDER BY {begin} {order}",
        (
            group_id,
            len(prefix),
            prefix,
            2**63 - 1 if end is None else end,
            -(2**63) if start is None else start,
        ),
    ).fetchall()
    wanted = set(names)
    waiting = [row for row in reversed(streams) if not wanted or row[2] in wanted]
    heap: list[tuple[int, int, LogEvent, str, sqlite3.Cursor]] = []

    def advance(name: str, cursor: sqlite3.Cursor) -> None:
        row = cursor.fetchone()
        if row is not None:
            event = LogEvent(name, *row)
            heapq.heappush(heap, (sign * event.timestamp, sign * event.position, event, name, cursor))

    while heap or waiting:
        while waiting and (not heap or sign * waiting[-1][0] <= heap[0][0]):
            _, stream_id, name = waiting.pop()
            advance(name, connection.execute(select, (stream_id, *values)))
        if heap:
            _, _, event, name, cursor = heapq.heappop(heap)
            yield event
            advance(name, cursor)


def _expire(connection: sqlite3.Connection, now: int) -> int:
    """Drop events older than their groups keep them, and count them: at most `EXPIRE_AT_ONCE`."""
    dropped = 0
    streams = connection.execute(
        "SELECT streams.id, ? - retention_days * ? FROM streams JOIN groups ON groups.id = group_id"
        " WHERE retention_days IS NOT NULL AND first_event_at < ? - retention_days * ?",
        (now, _DAY_MILLISECONDS, now, _DAY_MILLISECONDS),
    ).fetchall()
    for stream_id, before in streams:
        old = connection.execute(
            f"SELECT position, {_SIZE} FROM events INDEXED BY events_by_time"
            " WHERE stream_id = ? AND timestamp < ? ORDER BY timestamp LIMIT ?",
            (stream_id, before, EXPIRE_AT_ONCE - dropped),
        ).fetchall()
        connection.executemany("DELETE FROM events WHERE position = ?", [(row[0],) for row in old])
        connection.execute(
            "UPDATE streams SET bytes = bytes - ?,"
            " first_event_at = (SELECT min(timestamp) FROM events WHERE stream_id = streams.id)"
            " WHERE id = ?",
            (sum(row[1] for row in old), stream_id),
        )
        dropped += len(old)
        if dropped == EXPIRE_AT_ONCE:
            break
    return dropped
