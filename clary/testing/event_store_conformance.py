"""What the event bus's memory must do. Subclass, say how to open a store, and collect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from clary.clock import Clock, ManualClock
from clary.event_bus.event_store import EventStore, NewDelivery, NewEvent, Progress

ACCOUNT, REGION = "123456789012", "us-east-1"
EVENTS_KEPT = 20  # by the stores that are tested
BYTES_KEPT = 1_000_000
MAX_PENDING = 5


def event(name: str, *, region: str = REGION, bus: str = "default") -> NewEvent:
    return NewEvent(ACCOUNT, region, {"id": name, "detail": {"ä": [1, None]}}, bus)


def delivery(position: int, destination: str = "d", target: str = "t") -> NewDelivery:
    return NewDelivery(position, destination, "rule", {"Id": target, "Arn": destination})


class EventStoreConformance:
    """The facts.

    `store` opens the store of the test, made or as it was left, that keeps `EVENTS_KEPT` events of
    `BYTES_KEPT` bytes, and has `MAX_PENDING` deliveries a destination at most.
    """

    def store(self, clock: Clock) -> AbstractAsyncContextManager[EventStore]:
        raise NotImplementedError

    def run(self, facts: Callable[[EventStore, ManualClock], Awaitable[None]]) -> None:
        async def within() -> None:
            clock = ManualClock()
            async with self.store(clock) as store:
                await facts(store, clock)

        asyncio.run(within())

    def test_events_come_in_order_by_place(self) -> None:
        async def facts(store: EventStore, clock: ManualClock) -> None:
            assert await store.newest() == 0
            newest = await store.publish([event("1"), event("2", region="eu-west-1"), event("3", bus="own")])
            assert newest == await store.newest()
            found = await store.events(after=0, limit=10)
            assert [(e.envelope["id"], e.region, e.bus) for e in found] == [
                ("1", REGION, "default"),
                ("2", "eu-west-1", "default"),
                ("3", REGION, "own"),
            ]
            assert found[0].envelope == event("1").envelope and found[0].at == clock.now()
            here = await store.events(after=0, limit=10, account=ACCOUNT, region=REGION)
            assert [e.envelope["id"] for e in here] == ["1", "3"]
            assert [e.envelope["id"] for e in await store.events(after=found[0].position, limit=1)] == ["2"]
            assert await store.events(after=newest, limit=10) == []

        self.run(facts)

    def test_progress_and_marks_are_written_with_the_events(self) -> None:
        async def facts(store: EventStore, clock: ManualClock) -> None:
            assert await store.progress("f") is None
            await store.publish([event("1")], Progress("f", 7, {"a": "1", "b": "2"}))
            await store.publish([], Progress("f", 9, {"a": None, "b": "3"}))
            assert await store.progress("f") == 9
            assert await store.marks(["a", "b", "c"]) == {"b": "3"}
            assert await store.newest() == 1

        self.run(facts)

    def test_a_waiter_wakes_when_something_is_published(self) -> None:
        async def facts(store: EventStore, clock: ManualClock) -> None:
            waiting = asyncio.create_task(store.wait(after=0, timeout_seconds=60))
            await asyncio.sleep(0.05)
            newest = await store.publish([event("1")])
            assert await asyncio.wait_for(waiting, 30) == newest
            assert await store.wait(after=newest, timeout_seconds=0.05) == newest
            waiting = asyncio.create_task(store.wait(after=newest, timeout_seconds=60))
            await asyncio.sleep(0.05)
            store.stop_waiting()
            assert await asyncio.wait_for(waiting, 30) == newest

        self.run(facts)

    def test_deliveries_are_due_until_settled(self) -> None:
        async def facts(store: EventStore, clock: ManualClock) -> None:
            newest = await store.publish([event("1"), event("2")])
            assert await store.routed() == 0
            await store.route(newest, [delivery(1, "a"), delivery(2, "a"), delivery(2, "b", "u")])
            assert await store.routed() == newest
            now = clock.now()
            assert await store.destinations(now=now, busy=[], limit=10) == ["a", "b"]
            assert await store.destinations(now=now, busy=["a"], limit=10) == ["b"]
            assert await store.destinations(now=now, busy=[], limit=1) == ["a"]
            first, second = await store.due("a", now=now, limit=10)
            assert [d.event.envelope["id"] for d in (first, second)] == ["1", "2"]
            assert (first.rule, first.target["Id"], first.attempts, first.given_up) == ("rule", "t", 0, "")
            assert len(await store.due("a", now=now, limit=1)) == 1
            await store.retry(first, due_at=now + 60, error="away")
            assert [d.id for d in await store.due("a", now=now, limit=10)] == [second.id]
            await store.settle(second)
            assert await store.next_due_at(busy=["b"]) == now + 60
            (again,) = await store.due("a", now=now + 60, limit=10)
            assert (again.attempts, again.error) == (1, "away")
            await store.give_up(again, reason="Why", error="gone", attempts=2)
            (given_up,) = await store.due("a", now=now + 60, limit=10)
            assert (given_up.given_up, given_up.error, given_up.attempts) == ("Why", "gone", 2)
            await store.settle(given_up)
            assert await store.next_due_at(busy=["b"]) is None

        self.run(facts)

    def test_what_a_destination_does_not_get_rid_of_is_given_up(self) -> None:
        async def facts(store: EventStore, clock: ManualClock) -> None:
            newest = await store.publish([event("1")])
            await store.route(newest, [delivery(1)] * (MAX_PENDING + 2) + [delivery(1, "other")])
            found = await store.due("d", now=clock.now(), limit=100)
            assert [bool(each.given_up) for each in found] == [False] * MAX_PENDING + [True] * 2
            assert not (await store.due("other", now=clock.now(), limit=1))[0].given_up

        self.run(facts)

    def test_old_events_go_but_for_those_that_are_still_to_be_routed_or_delivered(self) -> None:
        async def facts(store: EventStore, clock: ManualClock) -> None:
            await store.publish([event(str(number)) for number in range(EVENTS_KEPT * 3)])
            assert len(await store.events(after=0, limit=1000)) == EVENTS_KEPT * 3  # nothing was routed
            await store.route(EVENTS_KEPT * 3, [delivery(2)])
            await store.publish([event("more")] * EVENTS_KEPT)
            kept = [each.position for each in await store.events(after=0, limit=1000)]
            assert kept[0] == 2 and kept[1] > EVENTS_KEPT and len(kept) <= EVENTS_KEPT + 1
            (waiting,) = await store.due("d", now=clock.now(), limit=10)
            assert waiting.event.envelope["id"] == "1"

        self.run(facts)

    def test_large_events_are_kept_as_long_as_there_is_room(self) -> None:
        async def facts(store: EventStore, clock: ManualClock) -> None:
            large = NewEvent(ACCOUNT, REGION, {"id": "x" * (BYTES_KEPT // 5)})
            for _ in range(10):
                await store.route(await store.publish([large]), [])
            kept = await store.events(after=0, limit=100)
            assert 1 <= len(kept) <= 5 and kept[-1].position == await store.newest()

        self.run(facts)

    def test_everything_is_there_after_the_store_was_opened_again(self) -> None:
        clock = ManualClock()

        async def first() -> None:
            async with self.store(clock) as store:
                newest = await store.publish([event("1")], Progress("f", 3, {"a": "m"}))
                await store.route(newest, [delivery(1)])

        async def second() -> None:
            async with self.store(clock) as store:
                assert (await store.progress("f"), await store.routed()) == (3, 1)
                assert await store.marks(["a"]) == {"a": "m"}
                assert len(await store.due("d", now=clock.now(), limit=10)) == 1
                assert await store.publish([event("2")]) == 2

        asyncio.run(first())
        asyncio.run(second())
