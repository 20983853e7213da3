"""The loop that gives due resources to their controllers and writes down what these saw.

It sleeps until something is due, a spec is written or somebody nudges; any number of loops may work on one
store, since each resource is leased to one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping, Sequence

from clary.clock import Clock
from clary.controllers.controller import Controller
from clary.faults import Conflict, NotFound
from clary.resources.resource import Key
from clary.store.store import Claim, Store

CONCURRENCY = 16
LEASE_SECONDS = 120.0
RECONCILE_TIMEOUT_SECONDS = 60.0  # well below the lease, which is not renewed
LONGEST_SLEEP_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0

log = logging.getLogger("clary.work_loop")


class WorkLoop:
    """Runs ``controllers`` over ``store``."""

    def __init__(
        self,
        store: Store,
        controllers: Sequence[Controller],
        clock: Clock,
        *,
        concurrency: int = CONCURRENCY,
        seed: int | None = None,
    ) -> None:
        self._store = store
        self._controllers: Mapping[str, Controller] = {c.kind: c for c in controllers}
        self._kinds = sorted(self._controllers)
        self._clock = clock
        self._concurrency = concurrency
        self._wake = asyncio.Event()
        self._stopping = False
        self._running: set[asyncio.Task[None]] = set()
        self._failures: dict[str, int] = {}  # by uid, of resources whose last reconcile raised
        self._random = random.Random(seed)

    async def nudge(self, key: Key) -> None:
        """Something moved in the world of ``key``: look at it now."""
        await self._store.make_due(key, at=self._clock.now())
        self._wake.set()

    def wake(self) -> None:
        """Look for due resources now: a spec was written."""
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`. Never raises for what a controller or the store raised."""
        watcher = asyncio.create_task(self._watch())
        try:
            while not self._stopping:
                self._wake.clear()
                try:
                    started = await self._start_due()
                    pause = 0.0 if started else await self._pause()
                except Exception:
                    log.exception("The store could not be asked for work")
                    pause = FIRST_RETRY_SECONDS
                if pause > 0 or len(self._running) >= self._concurrency:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), max(pause, 0.001))
        finally:
            watcher.cancel()
            await self._drain()

    async def stop(self) -> None:
        """Take no more work; `run` returns when what is in hand is done, or after a limit."""
        self._stopping = True
        self._wake.set()

    async def step(self) -> int:
        """Reconcile everything that is due now, one after the other, and return how many that was."""
        count = 0
        while claims := await self._claim(1):
            await self._reconcile(claims[0])
            count += 1
        return count

    async def _watch(self) -> None:
        """Wake when anyone writes to the store."""
        newest = 0
        while True:
            try:
                seen = await self._store.wait(after=newest, timeout_seconds=LONGEST_SLEEP_SECONDS)
                if seen > newest:
                    newest = seen
                    self._wake.set()
            except Exception:
                log.exception("The store's events could not be awaited")
                await asyncio.sleep(FIRST_RETRY_SECONDS)

    async def _pause(self) -> float:
        due = await self._store.next_due_at(self._kinds)
        if due is None:
            return LONGEST_SLEEP_SECONDS
        return min(max(due - self._clock.now(), 0.001), LONGEST_SLEEP_SECONDS)

    async def _claim(self, limit: int) -> Sequence[Claim]:
        return await self._store.claim(
            self._kinds, now=self._clock.now(), lease_seconds=LEASE_SECONDS, limit=limit
        )

    async def _start_due(self) -> int:
        room = self._concurrency - len(self._running)
        if room <= 0:
            return 0
        claims = await self._claim(room)
        for claim in claims:
            task = asyncio.create_task(self._reconcile(claim))
            self._running.add(task)
            task.add_done_callback(self._finished)
        return len(claims)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("A reconcile could not be written down", exc_info=task.exception())

    async def _reconcile(self, claim: Claim) -> None:
        resource = claim.resource
        key, uid = resource.key, resource.uid
        controller = self._controllers[key.kind]
        try:
            outcome = await asyncio.wait_for(controller.reconcile(resource), RECONCILE_TIMEOUT_SECONDS)
        except Exception:
            failures = self._failures[uid] = self._failures.get(uid, 0) + 1
            delay = min(FIRST_RETRY_SECONDS * 2 ** (failures - 1), LONGEST_RETRY_SECONDS)
            delay *= self._random.uniform(0.75, 1.25)
            log.exception(
                "%s %s: reconcile failed %d times; again in %.1f s", key.kind, key.name, failures, delay
            )
            await self._store.release(claim, due_at=self._clock.now() + delay)
            return
        self._failures.pop(uid, None)
        try:
            if outcome.remove:
                await self._store.remove(claim)
            else:
                await self._store.write_status(
                    claim,
                    outcome.status,
                    phase=outcome.phase,
                    due_at=outcome.due_at,
                    now=self._clock.now(),
                )
        except (Conflict, NotFound) as lost:
            # Another loop has it, or it is gone: what was done may be done twice, so nothing is lost.
            log.warning("%s %s: %s", key.kind, key.name, lost.message)

    async def _drain(self) -> None:
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=STOP_TIMEOUT_SECONDS)
            for task in late:
                task.cancel()
