"""The loop that gives due resources to their controllers and writes down what these saw.

It sleeps until something is due, a spec is written or somebody nudges; any number of loops may work on one
store, since each resource is leased to one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence

from clary.clock import Clock
from clary.controllers.controller import Controller, Outcome
from clary.faults import Conflict, NotFound
from clary.resources.resource import Key
from clary.store.store import Claim, Store

CONCURRENCY = 16
LEASE_SECONDS = 120.0
RECONCILE_TIMEOUT_SECONDS = 60.0  # well below the lease, which is not renewed
LONGEST_SLEEP_SECONDS = 5.0
SHORTEST_SLEEP_SECONDS = 0.001
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0
CANCEL_TIMEOUT_SECONDS = 1.0
MOST_RECONCILES_OF_A_STEP = 10_000
MOST_FAILURES_REMEMBERED = 10_000

log = logging.getLogger("clary.work_loop")


class WorkLoop:
    """Runs ``controllers`` over ``store``.

    Servers call `run`; tests and the simulation, which turn the clock themselves, call `step`.
    """

    def __init__(
        self,
        store: Store,
        controllers: Sequence[Controller],
        clock: Clock,
        *,
        concurrency: int = CONCURRENCY,
        reconcile_timeout_seconds: float = RECONCILE_TIMEOUT_SECONDS,
        stop_timeout_seconds: float = STOP_TIMEOUT_SECONDS,
        seed: int | None = None,
    ) -> None:
        """``seed`` makes the jitter of retries the same each time. Both timeouts are of real time."""
        self._store = store
        self._controllers: Mapping[str, Controller] = {c.kind: c for c in controllers}
        self._kinds = sorted(self._controllers)
        self._clock = clock
        self._concurrency = concurrency
        self._reconcile_timeout_seconds = reconcile_timeout_seconds
        self._stop_timeout_seconds = stop_timeout_seconds
        self._wake = asyncio.Event()
        self._stopping = False
        self._running: dict[asyncio.Task[None], Claim] = {}
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
                    pause = await self._start_due()
                except Exception:
                    log.exception("The store could not be asked for work")
                    pause = FIRST_RETRY_SECONDS
                await self._sleep(pause)
        finally:
            watcher.cancel()
            await self._drain()

    async def stop(self) -> None:
        """Take no more work; `run` returns when what is in hand is done, or after a limit."""
        self._stopping = True
        self._wake.set()

    async def step(self) -> int:
        """Reconcile everything that is due now, one after the other, and return how many that was.

        Raises ``RuntimeError`` if the controllers do not come to rest.
        """
        count = 0
        while claims := await self._claim(1):
            if count == MOST_RECONCILES_OF_A_STEP:
                key = claims[0].resource.key
                raise RuntimeError(f"After {count} reconciles, {key.kind} {key.name} is still due.")
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

    async def _sleep(self, seconds: float) -> None:
        """Return when something wakes the loop, or after ``seconds`` of the clock."""
        waits = [
            asyncio.ensure_future(self._wake.wait()),
            asyncio.ensure_future(self._clock.sleep(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _claim(self, limit: int) -> Sequence[Claim]:
        return await self._store.claim(
            self._kinds, now=self._clock.now(), lease_seconds=LEASE_SECONDS, limit=limit
        )

    async def _start_due(self) -> float:
        """Begin what is due and there is room for; how long nothing will be to do but when woken."""
        room = self._concurrency - len(self._running)
        claims = await self._claim(room) if room > 0 else []
        for claim in claims:
            task = asyncio.create_task(self._reconcile(claim))
            self._running[task] = claim
            task.add_done_callback(self._finished)
        if len(claims) == room or room <= 0:
            return LONGEST_SLEEP_SECONDS  # the next that finishes wakes the loop
        due = await self._store.next_due_at(self._kinds)
        if due is None:
            return LONGEST_SLEEP_SECONDS
        return min(max(due - self._clock.now(), SHORTEST_SLEEP_SECONDS), LONGEST_SLEEP_SECONDS)

    def _finished(self, task: asyncio.Task[None]) -> None:
        claim = self._running.pop(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            # Not even the lease could be given back: the resource comes again when that runs out.
            key = claim.resource.key
            log.error("%s %s: nothing could be written down", key.kind, key.name, exc_info=task.exception())

    async def _reconcile(self, claim: Claim) -> None:
        key = claim.resource.key
        controller = self._controllers[key.kind]
        try:
            outcome = await asyncio.wait_for(
                controller.reconcile(claim.resource), self._reconcile_timeout_seconds
            )
        except Exception as error:  # noqa: BLE001 - logged there
            await self._retry_later(claim, "reconcile failed", error)
            return
        try:
            await self._write(claim, outcome)
        except (Conflict, NotFound) as lost:
            # Another loop has it, or it is gone: what was done may be done twice, so nothing is lost.
            log.warning("%s %s: %s", key.kind, key.name, lost.message)
        except Exception as error:  # noqa: BLE001 - logged there
            await self._retry_later(claim, "the status could not be written", error)
        else:
            self._failures.pop(claim.resource.uid, None)

    async def _write(self, claim: Claim, outcome: Outcome) -> None:
        if outcome.remove:
            await self._store.remove(claim)
        else:
            await self._store.write_status(
                claim, outcome.status, phase=outcome.phase, due_at=outcome.due_at, now=self._clock.now()
            )

    async def _retry_later(self, claim: Claim, what: str, error: Exception) -> None:
        """Give the lease back for a while that grows with each failure in a row."""
        key, uid = claim.resource.key, claim.resource.uid
        failures = self._failures.pop(uid, 0) + 1
        if len(self._failures) >= MOST_FAILURES_REMEMBERED:
            del self._failures[next(iter(self._failures))]
        self._failures[uid] = failures
        # The exponent is bounded: a float is not, and a resource may fail for years.
        delay = min(FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 30), LONGEST_RETRY_SECONDS)
        delay *= self._random.uniform(0.75, 1.25)
        if isinstance(error, asyncio.TimeoutError):
            what += f" (a reconcile may take {self._reconcile_timeout_seconds:g} s)"
        log.error(
            "%s %s: %s, the time no. %d in a row; again in %.1f s",
            key.kind,
            key.name,
            what,
            failures,
            delay,
            exc_info=error,
        )
        await self._store.release(claim, due_at=self._clock.now() + delay)

    async def _drain(self) -> None:
        """Let what is in hand end; what does not is broken off, and its leases given back."""
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=self._stop_timeout_seconds)
        abandoned = {task: self._running[task] for task in late}
        for task in abandoned:
            task.cancel()
        if abandoned:
            await asyncio.wait(abandoned, timeout=CANCEL_TIMEOUT_SECONDS)
        for claim in abandoned.values():
            key = claim.resource.key
            log.warning("%s %s: broken off, since the server stops", key.kind, key.name)
            try:
                await self._store.release(claim, due_at=self._clock.now())
            except Exception:
                log.exception("%s %s: the lease could not be given back", key.kind, key.name)
