"""A store in one SQLite file, for one machine.

What was acknowledged survives a loss of power, but for leases, which need not. Reads do not wait for writes.
Several processes may open the same file; each sees the others' writes within `OTHER_PROCESSES_POLL_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from clary.clock import Clock, SystemClock
from clary.faults import Conflict, InUse, NotFound
from clary.resources.resource import Document, Key, Resource
from clary.sqlite_file import SqliteFile
from clary.store.paging import read_token, token_after
from clary.store.store import MAX_EVENTS_KEPT, Claim, Event, Page, Query

OTHER_PROCESSES_POLL_SECONDS = 0.1
_PRUNE_EVERY = 1000  # events between two looks at how many are kept

_COLUMNS = (
    "kind, account, region, name, uid, spec, status, phase, generation,"
    " created_at, modified_at, due_at, labels"
)
_KEY = "kind = ? AND account = ? AND region = ? AND name = ?"

Result = TypeVar("Result")


class SqliteStore:
    """`clary.store.store.Store` in the file ``path``. ``clock`` stamps creations and changes."""

    def __init__(self, path: Path, clock: Clock | None = None, *, events_kept: int = MAX_EVENTS_KEPT) -> None:
        """Opens the file, making or upgrading it. Raises ``RuntimeError`` if a newer Clary made it."""
        self._clock = clock or SystemClock()
        self._file = SqliteFile(path, "clary.store.migrations")
        self._prune_every = max(1, min(_PRUNE_EVERY, events_kept // 2))
        self._events_kept = events_kept
        self._written = asyncio.Event()  # a new one after each write

    async def _write(self, work: Callable[[sqlite3.Connection], Result], *, durable: bool = True) -> Result:
        """Run ``work`` in a transaction and wake those who wait for events."""
        result = await self._file.write(work, durable=durable)
        self._written.set()
        self._written = asyncio.Event()
        return result

    async def create(
        self,
        key: Key,
        spec: Document,
        status: Document,
        *,
        phase: str,
        due_at: float | None,
        labels: Mapping[str, str] | None = None,
    ) -> Resource:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> Resource:
            try:
                connection.execute(
                    f"INSERT INTO resources ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?)",
                    (
                        *_identity(key),
                        secrets.token_hex(8),
                        json.dumps(spec),
                        json.dumps(status),
                        phase,
                        now,
                        now,
                        due_at,
                        json.dumps(labels or {}),
                    ),
                )
            except sqlite3.IntegrityError:
                raise InUse(f"{key.kind} {key.name} already exists.") from None
            connection.executemany(
                "INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?)",
                [(name, value, *_identity(key)) for name, value in (labels or {}).items()],
            )
            resource = _find(connection, key)
            assert resource is not None
            self._record(connection, resource, "created", "", now)
            return resource

        return await self._write(work)

    async def find(self, key: Key) -> Resource | None:
        return await self._file.read(lambda connection: _find(connection, key))

    async def list(self, query: Query) -> Page:
        start = read_token(query)
        sql, values = _select(query, start)

        def work(connection: sqlite3.Connection) -> Page:
            rows = connection.execute(sql, values).fetchall()
            resources = [_resource(row) for row in rows[: query.page_size]]
            more = len(rows) > query.page_size and resources
            return Page(resources, token_after(resources[-1], query) if more else None)

        return await self._file.read(work)

    async def write_spec(
        self, key: Key, change: Callable[[Resource], Document], *, due_at: float | None
    ) -> Resource:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> Resource:
            current = _get(connection, key)
            due = [time for time in (current.due_at, due_at) if time is not None]
            connection.execute(
                "UPDATE resources SET spec = ?, generation = generation + 1, modified_at = ?, due_at = ?,"
                f" touches = touches + ? WHERE {_KEY}",
                (
                    json.dumps(change(current)),
                    now,
                    min(due) if due else None,
                    due_at is not None,
                    *_identity(key),
                ),
            )
            written = _get(connection, key)
            self._record(connection, written, "spec", written.phase, now)
            return written

        return await self._write(work)

    async def claim(
        self, kinds: Sequence[str], *, now: float, lease_seconds: float, limit: int
    ) -> Sequence[Claim]:
        marks = ", ".join("?" * len(kinds))
        due = f"kind IN ({marks}) AND due_at IS NOT NULL AND due_at <= ? AND lease_expires_at <= ?"

        def work(connection: sqlite3.Connection) -> Sequence[Claim]:
            rows = connection.execute(
                f"SELECT {_COLUMNS}, touches FROM resources WHERE {due}"
                " ORDER BY due_at, kind, account, region, name LIMIT ?",
                (*kinds, now, now, limit),
            ).fetchall()
            claims = []
            for row in rows:
                claim = Claim(_resource(row), secrets.token_hex(8), now + lease_seconds, row[-1])
                connection.execute(
                    f"UPDATE resources SET lease = ?, lease_expires_at = ? WHERE {_KEY}",
                    (claim.lease, claim.expires_at, *_identity(claim.resource.key)),
                )
                claims.append(claim)
            return claims

        found = await self._file.read(
            lambda connection: connection.execute(
                f"SELECT 1 FROM resources WHERE {due} LIMIT 1", (*kinds, now, now)
            ).fetchone()
        )
        return await self._write(work, durable=False) if found else []

    async def write_status(
        self, claim: Claim, status: Document, *, phase: str, due_at: float | None, now: float
    ) -> Resource:
        key = claim.resource.key

        def work(connection: sqlite3.Connection) -> Resource:
            before, touches = _claimed(connection, claim, now)
            changed = before.phase != phase or before.status != status
            touched = touches != claim.touches
            due = (now if due_at is None else min(now, due_at)) if touched else due_at
            connection.execute(
                "UPDATE resources SET status = ?, phase = ?, modified_at = ?, due_at = ?, lease = '',"
                f" lease_expires_at = 0 WHERE {_KEY}",
                (
                    json.dumps(status),
                    phase,
                    now if changed else before.modified_at,
                    due,
                    *_identity(key),
                ),
            )
            written = _get(connection, key)
            if changed:
                self._record(connection, written, "status", before.phase, now)
            return written

        return await self._write(work)

    async def release(self, claim: Claim, *, due_at: float) -> None:
        now = self._clock.now()
        await self._write(
            lambda connection: connection.execute(
                "UPDATE resources SET due_at = CASE WHEN touches = ? THEN ? ELSE ? END, lease = '',"
                f" lease_expires_at = 0 WHERE {_KEY} AND lease = ?",
                (claim.touches, due_at, now, *_identity(claim.resource.key), claim.lease),
            ),
            durable=False,
        )

    async def forget_leases(self) -> None:
        await self._write(
            lambda connection: connection.execute(
                "UPDATE resources SET lease = '', lease_expires_at = 0 WHERE lease != ''"
            ),
            durable=False,
        )

    async def remove(self, claim: Claim) -> None:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> None:
            self._delete(connection, _claimed(connection, claim, now)[0], now)

        await self._write(work)

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> None:
            current = _get(connection, key)
            if uid is not None and current.uid != uid:
                raise NotFound(f"{key.kind} {key.name} does not exist.")
            self._delete(connection, current, now)

        await self._write(work)

    async def next_due_at(self, kinds: Sequence[str]) -> float | None:
        marks = ", ".join("?" * len(kinds))
        row = await self._file.read(
            lambda connection: connection.execute(
                "SELECT min(max(due_at, lease_expires_at)) FROM resources"
                f" WHERE kind IN ({marks}) AND due_at IS NOT NULL",
                tuple(kinds),
            ).fetchone()
        )
        return None if row[0] is None else float(row[0])

    async def make_due(self, key: Key, *, at: float) -> None:
        await self._write(
            lambda connection: connection.execute(
                "UPDATE resources SET due_at = CASE WHEN due_at IS NULL THEN ? ELSE min(due_at, ?) END,"
                f" touches = touches + 1 WHERE {_KEY}",
                (at, at, *_identity(key)),
            )
        )

    async def events(self, *, after: int, limit: int) -> Sequence[Event]:
        rows = await self._file.read(
            lambda connection: connection.execute(
                "SELECT sequence, at, kind, account, region, name, uid, change, phase, previous_phase, status"
                " FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (after, limit),
            ).fetchall()
        )
        return [
            Event(
                sequence=row[0],
                at=row[1],
                key=Key(*row[2:6]),
                uid=row[6],
                change=row[7],
                phase=row[8],
                previous_phase=row[9],
                status=json.loads(row[10]),
            )
            for row in rows
        ]

    async def wait(self, *, after: int, timeout_seconds: float) -> int:
        deadline = time.monotonic() + timeout_seconds
        while True:
            written = self._written  # taken before asking, so that no write is missed
            newest = await self._newest()
            left = deadline - time.monotonic()
            if newest > after or left <= 0:
                return newest
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(written.wait(), min(left, OTHER_PROCESSES_POLL_SECONDS))

    async def _newest(self) -> int:
        row = await self._file.read(
            lambda connection: connection.execute("SELECT coalesce(max(sequence), 0) FROM events").fetchone()
        )
        return int(row[0])

    async def close(self) -> None:
        await self._file.close()

    def _delete(self, connection: sqlite3.Connection, resource: Resource, now: float) -> None:
        identity = _identity(resource.key)
        connection.execute(f"DELETE FROM resources WHERE {_KEY}", identity)
        connection.execute(
            "DELETE FROM labels WHERE kind = ? AND account = ? AND region = ? AND resource = ?", identity
        )
        self._record(connection, resource, "deleted", resource.phase, now)

    def _record(
        self,
        connection: sqlite3.Connection,
        resource: Resource,
        change: str,
        previous_phase: str,
        now: float,
    ) -> None:
        status = json.dumps(resource.status)
        cursor = connection.execute(
            "INSERT INTO events (at, kind, account, region, name, uid, change, phase, previous_phase, status)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (now, *_identity(resource.key), resource.uid, change, resource.phase, previous_phase, status),
        )
        sequence = cursor.lastrowid or 0
        if sequence % self._prune_every == 0:
            # So many that no more than are to be kept gather until the next time.
            kept = self._events_kept - self._prune_every
            connection.execute("DELETE FROM events WHERE sequence <= ?", (sequence - kept,))


def _identity(key: Key) -> tuple[str, str, str, str]:
    return (key.kind, key.account, key.region, key.name)


def _resource(row: Sequence[object]) -> Resource:
    kind, account, region, name, uid, spec, status, phase, generation, created, modified, due, labels = row[
        :13
    ]
    return Resource(
        key=Key(str(kind), str(account), str(region), str(name)),
        uid=str(uid),
        spec=json.loads(str(spec)),
        status=json.loads(str(status)),
        phase=str(phase),
        generation=int(str(generation)),
        created_at=float(str(created)),
        modified_at=float(str(modified)),
        due_at=None if due is None else float(str(due)),
        labels=json.loads(str(labels)),
    )


def _find(connection: sqlite3.Connection, key: Key) -> Resource | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM resources WHERE {_KEY}", _identity(key)).fetchone()
    return _resource(row) if row else None


def _get(connection: sqlite3.Connection, key: Key) -> Resource:
    resource = _find(connection, key)
    if resource is None:
        raise NotFound(f"{key.kind} {key.name} does not exist.")
    return resource


def _claimed(connection: sqlite3.Connection, claim: Claim, now: float) -> tuple[Resource, int]:
    key = claim.resource.key
    resource = _get(connection, key)
    if resource.uid != claim.resource.uid:
        raise NotFound(f"{key.kind} {key.name} does not exist.")
    lease, expires_at, touches = connection.execute(
        f"SELECT lease, lease_expires_at, touches FROM resources WHERE {_KEY}", _identity(key)
    ).fetchone()
    if lease != claim.lease or expires_at <= now:
        raise Conflict(f"The lease of {key.kind} {key.name} is lost.")
    return resource, int(touches)


def _select(query: Query, start: tuple[float | str, str, str, str] | None) -> tuple[str, list[object]]:
    """The statement that finds one row more than the page of ``query``."""
    conditions, values = ["kind = ?"], [query.kind]  # type: list[str], list[object]

    def add(condition: str, *more: object) -> None:
        conditions.append(condition)
        values.extend(more)

    for column, value in (("account", query.account), ("region", query.region), ("phase", query.phase)):
        if value:
            add(f"{column} = ?", value)
    if query.name_equals:
        add("name = ? COLLATE NOCASE", query.name_equals)
    if query.name_contains:
        add("instr(lower(name), lower(?)) > 0", query.name_contains)
    if query.name_prefix:
        add("substr(name, 1, ?) = ?", len(query.name_prefix), query.name_prefix)
    for column, after, before in (
        ("created_at", query.created_after, query.created_before),
        ("modified_at", query.modified_after, query.modified_before),
    ):
        if after is not None:
            add(f"{column} > ?", after)
        if before is not None:
            add(f"{column} < ?", before)
    for name, value in query.labels.items():
        add(
            "EXISTS (SELECT 1 FROM labels l WHERE l.name = ? AND l.value = ? AND l.kind = resources.kind AND"
            " l.account = resources.account AND l.region = resources.region AND l.resource = resources.name)",
            name,
            value,
        )
    if start is not None:
        sign = "<" if query.descending else ">"
        add(f"({query.sort_by}, name, account, region) {sign} (?, ?, ?, ?)", *start)
    order = "DESC" if query.descending else "ASC"
    by = ", ".join(f"{column} {order}" for column in (query.sort_by, "name", "account", "region"))
    return (
        f"SELECT {_COLUMNS} FROM resources WHERE {' AND '.join(conditions)} ORDER BY {by} LIMIT ?",
        [*values, query.page_size + 1],
    )
