"""Matches events with rules and writes down what is to be delivered to whom.

It reads the log of events behind the place it came to; place and deliveries are written down together, so
that a crash neither loses an event nor routes one twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from clary.event_bus.event_pattern import Matcher, compile_pattern
from clary.event_bus.event_store import BusEvent, EventStore, NewDelivery
from clary.resources.event_rule import ENABLED, RULE, bus_of, rule_arn, targets_of
from clary.resources.resource import Resource
from clary.store.store import MAX_PAGE_SIZE, Query, Store

ROUTED_AT_ONCE = 100  # events
WAIT_SECONDS = 30.0
STORE_RETRY_SECONDS = 1.0
MOST_PATTERNS = 10_000  # kept compiled

log = logging.getLogger("clary.events")


class EventRouter:
    """From the log of events to deliveries; ``routed`` is told whenever there are new ones."""

    def __init__(self, store: Store, events: EventStore, routed: Callable[[], None]) -> None:
        self._store = store
        self._events = events
        self._routed = routed
        self._patterns: dict[tuple[str, int], Matcher | None] = {}  # by uid and generation of the rule

    async def run(self) -> None:
        """Route for ever; what fails is logged and tried again."""
        while True:
            try:
                routed = await self.step()
                await self._events.wait(after=routed, timeout_seconds=WAIT_SECONDS)
            except Exception:
                log.exception("events could not be matched with rules")
                await asyncio.sleep(STORE_RETRY_SECONDS)

    async def step(self) -> int:
        """Route all there is; up to which position that was."""
        routed = await self._events.routed()
        while batch := await self._events.events(after=routed, limit=ROUTED_AT_ONCE):
            rules = {place: await self._rules(*place) for place in {(e.account, e.region) for e in batch}}
            found = [
                delivery
                for event in batch
                for delivery in self._match(event, rules[event.account, event.region])
            ]
            routed = batch[-1].position
            await self._events.route(routed, found)
            if found:
                self._routed()
        return routed

    async def _rules(self, account: str, region: str) -> list[Resource]:
        """The rules that are on."""
        found: list[Resource] = []
        token: str | None = None
        while True:
            page = await self._store.list(
                Query(RULE, account, region, sort_by="name", page_size=MAX_PAGE_SIZE, page_token=token)
            )
            found += [rule for rule in page.resources if rule.spec.get("State") in ENABLED]
            token = page.next_token
            if token is None:
                return found

    def _match(self, event: BusEvent, rules: Sequence[Resource]) -> list[NewDelivery]:
        found: list[NewDelivery] = []
        for rule in rules:
            if bus_of(rule) != event.bus or not targets_of(rule):
                continue
            try:
                matches = self._pattern(rule)
                chosen = matches is not None and matches(event.envelope)
            except Exception:
                log.exception("the rule %s could not be held against an event", rule.key.name)
                continue
            if chosen:
                arn = rule_arn(rule.key)
                found += [
                    NewDelivery(event.position, str(target["Arn"]), arn, target)
                    for target in targets_of(rule).values()
                ]
        return found

    def _pattern(self, rule: Resource) -> Matcher | None:
        """The rule's pattern, ``None`` if it has but a schedule."""
        key = (rule.uid, rule.generation)
        if key not in self._patterns:
            if len(self._patterns) >= MOST_PATTERNS:
                self._patterns.clear()
            text = rule.spec.get("EventPattern")
            self._patterns[key] = compile_pattern(str(text)) if text else None
        return self._patterns[key]
