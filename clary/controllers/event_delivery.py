"""Brings what is due to the targets of rules, at least once.

One destination beside another: one that is slow, broken or away holds up its own events and nobody else's.
What fails is tried again with growing delay, as often and as long as the target's retry policy says, and
then goes to its dead-letter queue. The server may be killed at any instruction.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections import OrderedDict
from functools import partial
from typing import Any

from clary.clock import Clock
from clary.controllers.event_targets import EventTargets, Undelivered
from clary.event_bus.event_store import Delivery, EventStore
from clary.resources.arn import split_arn
from clary.resources.event_rule import DEFAULT_EVENT_AGE_SECONDS, DEFAULT_RETRY_ATTEMPTS

DELIVERED_AT_ONCE = 8  # to one destination
DESTINATIONS_AT_ONCE = 32
WAIT_SECONDS = 30.0
SHORTEST_SLEEP_SECONDS = 0.001
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 900.0
FIRST_PAUSE_SECONDS = 0.5  # of a destination that cannot be reached
LONGEST_PAUSE_SECONDS = 30.0
MOST_PAUSED = 500
STORE_RETRY_SECONDS = 1.0
MAX_ERROR_CHARACTERS = 500

log = logging.getLogger("clary.events")


class EventDelivery:
    """See the module."""

    def __init__(
        self, events: EventStore, targets: EventTargets, clock: Clock, *, seed: int | None = None
    ) -> None:
        """``seed`` makes the jitter of retries the same each time."""
        self._events = events
        self._targets = targets
        self._clock = clock
        self._random = random.Random(seed)
        self._busy: dict[str, asyncio.Task[None]] = {}  # by destination
        # Until when a destination is left alone, and after how many failures in a row.
        self._pauses: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Deliver for ever; what fails is logged and tried again."""
        try:
            while True:
                self._wake.clear()
                try:
                    pause = await self._start_due()
                except Exception:
                    log.exception("the event store could not be asked what to deliver")
                    pause = STORE_RETRY_SECONDS
                await self._sleep(pause)
        finally:
            tasks = list(self._busy.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def step(self) -> None:
        """Deliver everything that is due now, and wait for the outcome; for those who turn the clock."""
        while True:
            await self._start_due()
            if not self._busy:
                return
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def wake(self) -> None:
        """Something may be due."""
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        """Return when something wakes, or after ``seconds`` of the clock."""
        waits = [
            asyncio.ensure_future(self._wake.wait()),
            asyncio.ensure_future(self._clock.sleep(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _start_due(self) -> float:
        """Begin with destinations that something is due for; how long there will be nothing to do."""
        room = DESTINATIONS_AT_ONCE - len(self._busy)
        if room <= 0:
            return WAIT_SECONDS  # one that finishes wakes
        now = self._clock.now()
        paused = {each: until for each, (until, _) in self._pauses.items() if until > now}
        away = {*self._busy, *paused}
        found = await self._events.destinations(now=now, busy=away, limit=room)
        for destination in found:
            task = asyncio.create_task(self._serve(destination))
            self._busy[destination] = task
            task.add_done_callback(partial(self._finished, destination))
        if len(found) == room:
            return WAIT_SECONDS
        due = await self._events.next_due_at(busy={*away, *found})
        soonest = min([*paused.values(), *([] if due is None else [due])], default=now + WAIT_SECONDS)
        return min(max(soonest - now, SHORTEST_SLEEP_SECONDS), WAIT_SECONDS)

    def _finished(self, destination: str, task: asyncio.Task[None]) -> None:
        del self._busy[destination]
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("%s: deliveries broke off", destination, exc_info=task.exception())
            self._pause(destination)

    async def _serve(self, destination: str) -> None:
        """Deliver the next few events to one destination: to queues and logs in order, to others at once."""
        due = await self._events.due(destination, now=self._clock.now(), limit=DELIVERED_AT_ONCE)
        if split_arn(destination).service == "events":
            reached = await asyncio.gather(*(self._attempt(delivery) for delivery in due))
        else:
            reached = []
            for delivery in due:
                reached.append(await self._attempt(delivery))
                if not reached[-1]:
                    break
        if reached and all(reached):
            self._pauses.pop(destination, None)
        else:
            self._pause(destination)

    async def _attempt(self, delivery: Delivery) -> bool:
        """Try once, and write down what came of it; whether the destination could be reached."""
        if delivery.given_up:
            await self._bury(delivery)
            return True
        try:
            await self._targets.deliver(delivery)
        except Undelivered as failure:
            await self._failed(delivery, failure)
            return not failure.unreachable
        except Exception as bug:
            log.exception("an event could not be sent to %s", delivery.destination)
            await self._failed(
                delivery, Undelivered("INTERNAL_ERROR", f"{type(bug).__name__}: {bug}", again=True)
            )
            return True
        await self._events.settle(delivery)
        return True

    async def _failed(self, delivery: Delivery, failure: Undelivered) -> None:
        """One more attempt later, or none."""
        policy: Any = delivery.target.get("RetryPolicy") or {}
        most = policy.get("MaximumRetryAttempts", DEFAULT_RETRY_ATTEMPTS)
        oldest = policy.get("MaximumEventAgeInSeconds", DEFAULT_EVENT_AGE_SECONDS)
        now = self._clock.now()
        error = f"{failure.code}: {failure.message}"[:MAX_ERROR_CHARACTERS]
        attempts = delivery.attempts + 1
        delay = min(FIRST_RETRY_SECONDS * 2 ** min(attempts - 1, 20), LONGEST_RETRY_SECONDS)
        delay *= self._random.uniform(0.75, 1.25)
        due_at = now + max(delay, failure.after_seconds or 0.0)
        if not failure.again:
            reason = "NotRetryable"
        elif attempts > most:
            reason = "MaximumRetryAttempts"
        elif due_at - delivery.event.at > oldest:
            reason = "MaximumEventAgeInSeconds"
        else:
            log.info("%s: %s; again in %.1f s", delivery.destination, error, due_at - now)
            await self._events.retry(delivery, due_at=due_at, error=error)
            return
        await self._events.give_up(delivery, reason=reason, error=error, attempts=attempts)
        await self._bury(dataclasses.replace(delivery, given_up=reason, error=error, attempts=attempts))

    async def _bury(self, delivery: Delivery) -> None:
        """The end of an event that was not delivered: its dead-letter queue, or the log of the server."""
        event = delivery.event.envelope["id"]
        if await self._targets.bury(delivery):
            log.warning(
                "%s: the event %s went to the dead-letter queue (%s, %s)",
                delivery.destination,
                event,
                delivery.given_up,
                delivery.error,
            )
        else:
            log.warning(
                "%s: the event %s of the rule %s was given up (%s, %s), and no dead-letter queue took it",
                delivery.destination,
                event,
                delivery.rule,
                delivery.given_up,
                delivery.error,
            )
        await self._events.settle(delivery)

    def _pause(self, destination: str) -> None:
        """Leave a destination alone, the longer the more often it could not be reached."""
        _, failures = self._pauses.pop(destination, (0.0, 0))
        seconds = min(FIRST_PAUSE_SECONDS * 2 ** min(failures, 20), LONGEST_PAUSE_SECONDS)
        self._pauses[destination] = (self._clock.now() + seconds, failures + 1)
        while len(self._pauses) > MOST_PAUSED:
            self._pauses.popitem(last=False)
