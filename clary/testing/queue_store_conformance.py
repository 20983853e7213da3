"""What every store of queues must do. Subclass, say how to open a store, and collect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from clary.clock import Clock, ManualClock
from clary.faults import InUse, Invalid, LimitExceeded, NotFound
from clary.queues.queue_store import (
    NewMessage,
    Queue,
    QueueName,
    QueueSettings,
    QueueStore,
    RedrivePolicy,
)

ACCOUNT, REGION = "123456789012", "us-east-1"
QUEUE = QueueName(ACCOUNT, REGION, "q")
FIFO = QueueName(ACCOUNT, REGION, "q.fifo")
DEAD = QueueName(ACCOUNT, REGION, "dead")
MAX_MESSAGES = 50  # of the stores that are tested
MAX_IN_FLIGHT = 5


def fifo_message(body: str, group: str = "g", identity: str = "") -> NewMessage:
    return NewMessage(body, group_id=group, deduplication_id=identity or body)


class QueueStoreConformance:
    """The facts.

    `store` opens the store of the test, made or as it was left, that holds `MAX_MESSAGES` in a queue and
    has `MAX_IN_FLIGHT` in flight at most.
    """

    def store(self, clock: Clock) -> AbstractAsyncContextManager[QueueStore]:
        raise NotImplementedError

    def run(self, facts: Callable[[QueueStore, ManualClock], Awaitable[None]]) -> None:
        async def within() -> None:
            clock = ManualClock()
            async with self.store(clock) as store:
                await facts(store, clock)

        asyncio.run(within())

    def test_a_queue_that_is_missing_is_told_by_sqs_code(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            attempts: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.queue(QUEUE),
                lambda: store.change(QUEUE, lambda queue: (queue.settings, {}, {})),
                lambda: store.delete(QUEUE),
                lambda: store.purge(QUEUE),
                lambda: store.counts(QUEUE),
                lambda: store.send(QUEUE, [NewMessage("x")]),
                lambda: store.receive(QUEUE),
                lambda: store.delete_message(QUEUE, "1.x"),
                lambda: store.change_visibility(QUEUE, "1.x", 1),
            ]
            for attempt in attempts:
                with pytest.raises(NotFound) as missing:
                    await attempt()
                assert missing.value.code == "QueueDoesNotExist"

        self.run(facts)

    def test_queues_are_made_once_changed_listed_and_deleted(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            settings = QueueSettings(visibility_seconds=7, redrive=RedrivePolicy(DEAD, 3))
            made = await store.create(QUEUE, settings, {"VisibilityTimeout": "7"}, {"a": "b"})
            assert made == Queue(
                QUEUE, settings, {"VisibilityTimeout": "7"}, {"a": "b"}, clock.now(), clock.now()
            )
            with pytest.raises(InUse):
                await store.create(QUEUE, QueueSettings(), {}, {})
            await store.create(DEAD, QueueSettings(), {}, {})
            await store.create(QueueName(ACCOUNT, "eu-west-1", "other"), QueueSettings(), {}, {})
            await clock.advance(5)
            changed = await store.change(
                QUEUE, lambda queue: (QueueSettings(delay_seconds=2), {"x": "y"}, queue.tags)
            )
            assert (changed.settings.delay_seconds, changed.attributes, changed.tags) == (
                2,
                {"x": "y"},
                {"a": "b"},
            )
            assert (changed.created_at, changed.modified_at) == (clock.now() - 5, clock.now())
            names = [each.queue.name for each in await store.queues(ACCOUNT, REGION)]
            assert names == ["dead", "q"]
            assert [q.queue.name for q in await store.queues(ACCOUNT, REGION, prefix="q")] == ["q"]
            assert [q.queue.name for q in await store.queues(ACCOUNT, REGION, after="dead")] == ["q"]
            assert [q.queue.name for q in await store.queues(ACCOUNT, REGION, limit=1)] == ["dead"]
            await store.delete(QUEUE)
            with pytest.raises(NotFound):
                await store.queue(QUEUE)

        self.run(facts)

    def test_a_received_message_is_hidden_and_comes_back_unless_deleted(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(QUEUE, QueueSettings(visibility_seconds=30), {}, {})
            (sent,) = await store.send(QUEUE, [NewMessage("körper", {"k": {"v": "1"}}, "me", "trace")])
            (message,) = await store.receive(QUEUE)
            assert (message.message_id, message.body, message.attributes) == (
                sent.message_id,
                "körper",
                {"k": {"v": "1"}},
            )
            assert (message.sender, message.trace, message.receive_count) == ("me", "trace", 1)
            assert message.sent_at == message.first_received_at == clock.now()
            assert await store.receive(QUEUE) == []
            counts = await store.counts(QUEUE)
            assert (counts.visible, counts.in_flight, counts.delayed) == (0, 1, 0)
            await clock.advance(30)
            (again,) = await store.receive(QUEUE)
            assert (again.receive_count, again.first_received_at) == (2, message.first_received_at)
            assert again.receipt != message.receipt
            await store.delete_message(QUEUE, message.receipt)  # an old receipt deletes nothing
            assert (await store.counts(QUEUE)).in_flight == 1
            await store.delete_message(QUEUE, again.receipt)
            await store.delete_message(QUEUE, again.receipt)
            await clock.advance(100)
            assert await store.receive(QUEUE) == []

        self.run(facts)

    def test_visibility_is_changed_while_a_message_is_out(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(QUEUE, QueueSettings(), {}, {})
            await store.send(QUEUE, [NewMessage("x")])
            (message,) = await store.receive(QUEUE, visibility_seconds=10)
            await store.change_visibility(QUEUE, message.receipt, 100)
            await clock.advance(50)
            assert await store.receive(QUEUE) == []
            await store.change_visibility(QUEUE, message.receipt, 0)
            (message,) = await store.receive(QUEUE, visibility_seconds=1)
            await clock.advance(2)
            with pytest.raises(Invalid) as late:
                await store.change_visibility(QUEUE, message.receipt, 5)
            assert late.value.code == "MessageNotInflight"
            for wrong in ("", "x", "1", ".x", "1.", "-1.x", "²." + "x", "9" * 40 + ".x"):
                for attempt in (
                    store.delete_message(QUEUE, wrong),
                    store.change_visibility(QUEUE, wrong, 1),
                ):
                    with pytest.raises(Invalid) as refused:
                        await attempt
                    assert refused.value.code == "ReceiptHandleIsInvalid"

        self.run(facts)

    def test_delays_keep_messages_back(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(QUEUE, QueueSettings(delay_seconds=10), {}, {})
            await store.send(QUEUE, [NewMessage("usual"), NewMessage("own", delay_seconds=0)])
            assert [m.body for m in await store.receive(QUEUE, limit=10)] == ["own"]
            counts = await store.counts(QUEUE)
            assert (counts.visible, counts.in_flight, counts.delayed) == (0, 1, 1)
            await clock.advance(10)
            assert [m.body for m in await store.receive(QUEUE, limit=10)] == ["usual"]

        self.run(facts)

    def test_old_messages_are_gone(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(QUEUE, QueueSettings(retention_seconds=60), {}, {})
            await store.send(QUEUE, [NewMessage("old")])
            await clock.advance(59)
            await store.send(QUEUE, [NewMessage("new")])
            await clock.advance(1)
            assert (await store.counts(QUEUE)).visible == 1
            assert [m.body for m in await store.receive(QUEUE, limit=10)] == ["new"]
            await store.change(QUEUE, lambda queue: (QueueSettings(retention_seconds=5000), {}, {}))
            await clock.advance(2000)
            assert [m.body for m in await store.receive(QUEUE)] == ["new"]

        self.run(facts)

    def test_messages_that_come_back_too_often_go_to_the_dead_letter_queue(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            redrive = RedrivePolicy(DEAD, 2)
            await store.create(QUEUE, QueueSettings(visibility_seconds=1, redrive=redrive), {}, {})
            await store.send(QUEUE, [NewMessage("bad")])
            for _ in range(4):
                # The queue for dead letters is not there: the message stays where it is.
                assert len(await store.receive(QUEUE)) == 1
                await clock.advance(1)
            await store.create(DEAD, QueueSettings(), {}, {})
            assert await store.receive(QUEUE) == []
            (dead,) = await store.receive(DEAD)
            assert (dead.body, dead.source) == ("bad", QUEUE.arn)
            assert await store.counts(QUEUE) == await store.counts(QueueName(ACCOUNT, REGION, "q"))
            assert (await store.counts(QUEUE)).visible == 0

        self.run(facts)

    def test_limits_hold(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(QUEUE, QueueSettings(), {}, {})
            await store.send(QUEUE, [NewMessage("x")] * MAX_MESSAGES)
            with pytest.raises(LimitExceeded) as full:
                await store.send(QUEUE, [NewMessage("x")])
            assert full.value.code == "OverLimit"
            received = await store.receive(QUEUE, limit=10)
            assert len(received) == MAX_IN_FLIGHT
            with pytest.raises(LimitExceeded) as busy:
                await store.receive(QUEUE)
            assert busy.value.code == "OverLimit"
            await store.delete_message(QUEUE, received[0].receipt)
            await store.send(QUEUE, [NewMessage("x")])
            await store.purge(QUEUE)
            assert await store.receive(QUEUE) == []
            await store.send(QUEUE, [NewMessage("x")] * MAX_MESSAGES)

        self.run(facts)

    def test_a_receiver_waits_for_a_message(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(QUEUE, QueueSettings(), {}, {})
            waiting = asyncio.create_task(store.receive(QUEUE, wait_seconds=60))
            await asyncio.sleep(0.05)
            await store.send(QUEUE, [NewMessage("x")])
            assert [m.body for m in await asyncio.wait_for(waiting, 30)] == ["x"]
            assert await store.receive(QUEUE, wait_seconds=0.05) == []
            waiting = asyncio.create_task(store.receive(QUEUE, wait_seconds=60))
            await asyncio.sleep(0.05)
            store.stop_waiting()
            assert await asyncio.wait_for(waiting, 30) == []
            assert await asyncio.wait_for(store.receive(QUEUE, wait_seconds=60), 30) == []

        self.run(facts)

    def test_many_receivers_get_each_message_once(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(QUEUE, QueueSettings(), {}, {})
            await store.send(QUEUE, [NewMessage(str(number)) for number in range(5)])
            found = await asyncio.gather(*(store.receive(QUEUE) for _ in range(5)))
            assert sorted(m.body for messages in found for m in messages) == list("01234")

        self.run(facts)

    def test_a_fifo_queue_keeps_the_order_of_each_group(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(FIFO, QueueSettings(fifo=True, visibility_seconds=10), {}, {})
            await store.send(
                FIFO, [fifo_message("a1", "a"), fifo_message("a2", "a"), fifo_message("b1", "b")]
            )
            (first,) = await store.receive(FIFO)
            assert first.body == "a1"
            (other,) = await store.receive(FIFO, limit=10)  # a2 waits for a1
            assert other.body == "b1"
            await clock.advance(10)
            found = await store.receive(FIFO, limit=10)
            assert [m.body for m in found] == ["a1", "a2", "b1"]
            with pytest.raises(Invalid):
                await clock.advance(11)
                await store.delete_message(FIFO, found[0].receipt)
            found = await store.receive(FIFO, limit=1)
            await store.delete_message(FIFO, found[0].receipt)
            assert [m.body for m in await store.receive(FIFO)] == ["a2"]

        self.run(facts)

    def test_a_fifo_queue_takes_a_message_once(self) -> None:
        async def facts(store: QueueStore, clock: ManualClock) -> None:
            await store.create(FIFO, QueueSettings(fifo=True), {}, {})
            (one,) = await store.send(FIFO, [fifo_message("x", "a", "id")])
            (same,) = await store.send(FIFO, [fifo_message("y", "b", "id")])
            assert same == one
            await clock.advance(301)
            (later,) = await store.send(FIFO, [fifo_message("z", "b", "id")])
            assert later != one and later.position > one.position
            assert [m.body for m in await store.receive(FIFO, limit=10)] == ["x", "z"]
            by_group = QueueName(ACCOUNT, REGION, "g.fifo")
            await store.create(by_group, QueueSettings(fifo=True, deduplicates_by_group=True), {}, {})
            await store.send(by_group, [fifo_message("x", "a", "id"), fifo_message("x", "b", "id")])
            assert len(await store.receive(by_group, limit=10)) == 2

        self.run(facts)

    def test_what_was_acknowledged_is_there_after_the_store_was_opened_again(self) -> None:
        clock = ManualClock()

        async def first() -> str:
            async with self.store(clock) as store:
                await store.create(QUEUE, QueueSettings(visibility_seconds=1000), {"a": "b"}, {})
                await store.send(QUEUE, [NewMessage("one"), NewMessage("two")])
                return (await store.receive(QUEUE))[0].receipt

        async def second(receipt: str) -> None:
            async with self.store(clock) as store:
                assert (await store.queue(QUEUE)).attributes == {"a": "b"}
                assert [m.body for m in await store.receive(QUEUE, limit=10)] == ["two"]
                await store.delete_message(QUEUE, receipt)
                assert (await store.counts(QUEUE)).in_flight == 1

        asyncio.run(second(asyncio.run(first())))
