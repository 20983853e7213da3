"""A store that lives in this process and dies with it: for tests, and as a model of the others."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from clary.clock import Clock, SystemClock
from clary.faults import Conflict, InUse, NotFound
from clary.resources.resource import Document, Key, Resource
from clary.store.paging import position, read_token, token_after
from clary.store.store import MAX_EVENTS_KEPT, Claim, Event, Page, Query


@dataclass
class _Row:
    resource: Resource
    lease: str = ""
    lease_expires_at: float = 0.0
    touches: int = 0


class MemoryStore:
    """`clary.store.store.Store` in a dictionary. ``clock`` stamps creations and changes."""

    def __init__(self, clock: Clock | None = None, *, events_kept: int = MAX_EVENTS_KEPT) -> None:
        self._clock = clock or SystemClock()
        self._rows: dict[Key, _Row] = {}
        self._events: deque[Event] = deque(maxlen=events_kept)
        self._sequence = 0
        self._written = asyncio.Event()  # a new one after each write

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
        if key in self._rows:
            raise InUse(f"{key.kind} {key.name} already exists.")
        now = self._clock.now()
        resource = Resource(
            key=key,
            uid=secrets.token_hex(8),
            spec=copy.deepcopy(dict(spec)),
            status=copy.deepcopy(dict(status)),
            phase=phase,
            generation=1,
            created_at=now,
            modified_at=now,
            due_at=due_at,
            labels=dict(labels or {}),
        )
        self._rows[key] = _Row(resource)
        self._record(resource, "created", "")
        return copy.deepcopy(resource)

    async def find(self, key: Key) -> Resource | None:
        row = self._rows.get(key)
        return copy.deepcopy(row.resource) if row else None

    async def list(self, query: Query) -> Page:
        start = read_token(query)
        found = sorted(
            (row.resource for row in self._rows.values() if _matches(row.resource, query)),
            key=lambda resource: position(resource, query),
            reverse=query.descending,
        )
        if start is not None:
            found = [
                resource
                for resource in found
                if (
                    position(resource, query) < start
                    if query.descending
                    else position(resource, query) > start
                )
            ]
        page = found[: query.page_size]
        more = len(found) > len(page)
        return Page(copy.deepcopy(page), token_after(page[-1], query) if more and page else None)

    async def write_spec(
        self, key: Key, change: Callable[[Resource], Document], *, due_at: float | None
    ) -> Resource:
        row = self._row(key)
        spec = change(copy.deepcopy(row.resource))
        row.touches += due_at is not None
        row.resource = replace(
            row.resource,
            spec=copy.deepcopy(dict(spec)),
            generation=row.resource.generation + 1,
            modified_at=self._clock.now(),
            due_at=_earlier(row.resource.due_at, due_at),
        )
        self._record(row.resource, "spec", row.resource.phase)
        return copy.deepcopy(row.resource)

    async def claim(
        self, kinds: Sequence[str], *, now: float, lease_seconds: float, limit: int
    ) -> Sequence[Claim]:
        due = sorted(
            (
                row
                for row in self._rows.values()
                if row.resource.key.kind in kinds
                and row.resource.due_at is not None
                and row.resource.due_at <= now
                and row.lease_expires_at <= now
            ),
            key=lambda row: (row.resource.due_at or 0.0, row.resource.key),
        )
        claims = []
        for row in due[:limit]:
            row.lease, row.lease_expires_at = secrets.token_hex(8), now + lease_seconds
            claims.append(Claim(copy.deepcopy(row.resource), row.lease, row.lease_expires_at, row.touches))
        return claims

    async def write_status(
        self, claim: Claim, status: Document, *, phase: str, due_at: float | None, now: float
    ) -> Resource:
        row = self._claimed(claim, now)
        before = row.resource
        changed = before.phase != phase or before.status != status
        touched = row.touches != claim.touches
        row.resource = replace(
            before,
            status=copy.deepcopy(dict(status)),
            phase=phase,
            modified_at=now if changed else before.modified_at,
            due_at=_earlier(now, due_at) if touched else due_at,
        )
        row.lease, row.lease_expires_at = "", 0.0
        if changed:
            self._record(row.resource, "status", before.phase)
        return copy.deepcopy(row.resource)

    async def release(self, claim: Claim, *, due_at: float) -> None:
        row = self._rows.get(claim.resource.key)
        if row and row.lease == claim.lease:
            touched = row.touches != claim.touches
            row.resource = replace(row.resource, due_at=self._clock.now() if touched else due_at)
            row.lease, row.lease_expires_at = "", 0.0

    async def forget_leases(self) -> None:
        for row in self._rows.values():
            row.lease, row.lease_expires_at = "", 0.0

    async def remove(self, claim: Claim) -> None:
        row = self._claimed(claim, self._clock.now())
        del self._rows[claim.resource.key]
        self._record(row.resource, "deleted", row.resource.phase)

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        row = self._row(key)
        if uid is not None and row.resource.uid != uid:
            raise NotFound(f"{key.kind} {key.name} does not exist.")
        del self._rows[key]
        self._record(row.resource, "deleted", row.resource.phase)

    async def next_due_at(self, kinds: Sequence[str]) -> float | None:
        return min(
            (
                max(row.resource.due_at, row.lease_expires_at)
                for row in self._rows.values()
                if row.resource.key.kind in kinds and row.resource.due_at is not None
            ),
            default=None,
        )

    async def make_due(self, key: Key, *, at: float) -> None:
        row = self._rows.get(key)
        if row:
            row.touches += 1
            row.resource = replace(row.resource, due_at=_earlier(row.resource.due_at, at))
            self._wake()

    async def events(self, *, after: int, limit: int) -> Sequence[Event]:
        return [event for event in self._events if event.sequence > after][:limit]

    async def wait(self, *, after: int, timeout_seconds: float) -> int:
        deadline = time.monotonic() + timeout_seconds
        while self._sequence <= after and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._written.wait(), left)
        return self._sequence

    def _wake(self) -> None:
        self._written.set()
        self._written = asyncio.Event()

    async def close(self) -> None:
        pass

    def _row(self, key: Key) -> _Row:
        if key not in self._rows:
            raise NotFound(f"{key.kind} {key.name} does not exist.")
        return self._rows[key]

    def _claimed(self, claim: Claim, now: float) -> _Row:
        row = self._row(claim.resource.key)
        if row.resource.uid != claim.resource.uid:
            raise NotFound(f"{claim.resource.key.kind} {claim.resource.key.name} does not exist.")
        if row.lease != claim.lease or row.lease_expires_at <= now:
            raise Conflict(f"The lease of {claim.resource.key.kind} {claim.resource.key.name} is lost.")
        return row

    def _record(self, resource: Resource, change: str, previous_phase: str) -> None:
        self._sequence += 1
        self._events.append(
            Event(
                sequence=self._sequence,
                at=self._clock.now(),
                key=resource.key,
                uid=resource.uid,
                change=change,  # type: ignore[arg-type]
                phase=resource.phase,
                previous_phase=previous_phase,
                status=copy.deepcopy(resource.status),
            )
        )
        self._wake()


def _earlier(one: float | None, other: float | None) -> float | None:
    times = [time for time in (one, other) if time is not None]
    return min(times) if times else None


def _matches(resource: Resource, query: Query) -> bool:
    key = resource.key
    return (
        key.kind == query.kind
        and query.account in ("", key.account)
        and query.region in ("", key.region)
        and query.name_equals.lower() in ("", key.name.lower())
        and query.name_contains.lower() in key.name.lower()
        and key.name.startswith(query.name_prefix)
        and query.phase in ("", resource.phase)
        and (query.created_after is None or resource.created_at > query.created_after)
        and (query.created_before is None or resource.created_at < query.created_before)
        and (query.modified_after is None or resource.modified_at > query.modified_after)
        and (query.modified_before is None or resource.modified_at < query.modified_before)
        and all(resource.labels.get(name) == value for name, value in query.labels.items())
    )
