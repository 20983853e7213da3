"""Points at which a server may die: before and after each of its effects, in the parts it acts through."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from clary.resources.resource import Document, Key, Resource
from clary.resources.route import EndpointRoute
from clary.store.store import Claim, Event, Page, Query, Store
from clary.testing.control_plane import RememberingRouter

Result = TypeVar("Result")


class Killed(BaseException):
    """The server died here. No `Exception`, so that no code of the server can survive it."""


class CrashPoints:
    """Counts the points that a server passes, and kills it at some.

    ``at`` are the points (from 0) to die at; or, with ``seed``, it dies at each point with ``probability``,
    ``most`` times at most. ``passed`` names the points in order, ``died`` the numbers of those it died at.
    """

    def __init__(
        self,
        at: Collection[int] = (),
        *,
        seed: int | None = None,
        probability: float = 0.0,
        most: int = 0,
    ) -> None:
        self._at = frozenset(at)
        self._random = random.Random(seed)
        self._probability = probability
        self._most = most
        self.armed = True
        self.passed: list[str] = []
        self.died: list[int] = []

    def point(self, name: str) -> None:
        """Pass a point. Raises `Killed` if this is where the server dies."""
        if not self.armed:
            return
        number = len(self.passed)
        self.passed.append(name)
        by_chance = len(self.died) < self._most and self._random.random() < self._probability
        if number in self._at or by_chance:
            self.died.append(number)
            raise Killed(f"at point {number}, {name}")

    async def around(self, name: str, effect: Awaitable[Result]) -> Result:
        """``effect`` with a point before and one after it."""
        try:
            self.point(f"before {name}")
        except Killed:
            if hasattr(effect, "close"):
                effect.close()  # a coroutine that never runs would be complained of
            raise
        result = await effect
        self.point(f"after {name}")
        return result


class CrashingStore:
    """A store before and after each of whose writes the server may die.

    ``meanwhile`` is run before a status is written: what others do while a controller is at work.
    ``on_status`` is told of each status that was really written.
    """

    def __init__(
        self,
        store: Store,
        points: CrashPoints,
        *,
        meanwhile: Callable[[], Awaitable[None]],
        on_status: Callable[[Resource], None],
    ) -> None:
        self._store = store
        self._points = points
        self._meanwhile = meanwhile
        self._on_status = on_status

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
        creation = self._store.create(key, spec, status, phase=phase, due_at=due_at, labels=labels)
        return await self._points.around(f"create {key.name}", creation)

    async def find(self, key: Key) -> Resource | None:
        return await self._store.find(key)

    async def list(self, query: Query) -> Page:
        return await self._store.list(query)

    async def write_spec(
        self, key: Key, change: Callable[[Resource], Document], *, due_at: float | None
    ) -> Resource:
        return await self._points.around(
            f"write_spec {key.name}", self._store.write_spec(key, change, due_at=due_at)
        )

    async def claim(
        self, kinds: Sequence[str], *, now: float, lease_seconds: float, limit: int
    ) -> Sequence[Claim]:
        found = await self._store.claim(kinds, now=now, lease_seconds=lease_seconds, limit=limit)
        if found:
            self._points.point(f"after claim {found[0].resource.key.name}")
        return found

    async def write_status(
        self, claim: Claim, status: Document, *, phase: str, due_at: float | None, now: float
    ) -> Resource:
        name = f"write_status {claim.resource.key.name}"
        self._points.point(f"before {name}")
        await self._meanwhile()
        written = await self._store.write_status(claim, status, phase=phase, due_at=due_at, now=now)
        self._on_status(written)
        self._points.point(f"after {name}")
        return written

    async def release(self, claim: Claim, *, due_at: float) -> None:
        name = f"release {claim.resource.key.name}"
        await self._points.around(name, self._store.release(claim, due_at=due_at))

    async def forget_leases(self) -> None:
        await self._points.around("forget_leases", self._store.forget_leases())

    async def remove(self, claim: Claim) -> None:
        await self._points.around(f"remove {claim.resource.key.name}", self._store.remove(claim))

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        await self._points.around(f"delete {key.name}", self._store.delete(key, uid=uid))

    async def next_due_at(self, kinds: Sequence[str]) -> float | None:
        return await self._store.next_due_at(kinds)

    async def make_due(self, key: Key, *, at: float) -> None:
        await self._points.around(f"make_due {key.name}", self._store.make_due(key, at=at))

    async def events(self, *, after: int, limit: int) -> Sequence[Event]:
        return await self._store.events(after=after, limit=limit)

    async def wait(self, *, after: int, timeout_seconds: float) -> int:
        return await self._store.wait(after=after, timeout_seconds=timeout_seconds)

    async def close(self) -> None:
        await self._store.close()


class CrashingRouter(RememberingRouter):
    """A gateway that outlives the server, which may die before and after it tells it something."""

    def __init__(self, points: CrashPoints) -> None:
        super().__init__()
        self._points = points

    async def publish(self, route: EndpointRoute) -> None:
        await self._points.around(f"publish {route.name}", super().publish(route))

    async def withdraw(self, account: str, region: str, name: str) -> None:
        await self._points.around(f"withdraw {name}", super().withdraw(account, region, name))
