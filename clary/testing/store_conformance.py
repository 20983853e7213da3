"""What every store of resources must do. Subclass, say how to open a store, and collect."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from clary.clock import Clock, ManualClock
from clary.faults import Conflict, InUse, Invalid, NotFound
from clary.resources.resource import Document, Key, Resource
from clary.store.store import Claim, Query, Store

KIND, ACCOUNT, REGION = "TrainingJob", "123456789012", "us-east-1"
ENOUGH_SECONDS = 30.0  # for what takes moments


def key(name: str, *, kind: str = KIND, account: str = ACCOUNT, region: str = REGION) -> Key:
    return Key(kind, account, region, name)


class StoreConformance:
    """The facts. `store` opens a fresh store that keeps ``events_kept`` events."""

    def store(self, clock: Clock, *, events_kept: int = 1000) -> AbstractAsyncContextManager[Store]:
        raise NotImplementedError

    def run(self, facts: Callable[[Store, ManualClock], Awaitable[None]], *, events_kept: int = 1000) -> None:
        async def within() -> None:
            clock = ManualClock()
            async with self.store(clock, events_kept=events_kept) as store:
                await facts(store, clock)

        asyncio.run(within())

    # -- Documents -----------------------------------------------------------------------------------------

    def test_what_was_created_is_found_as_it_was_given(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            spec: Document = {
                "Text": "é\ud800 \x00 😀",
                "Numbers": [1, 1.5, -(10**17), True, None],
                "Nested": {"": {}},
            }
            made = await store.create(
                key("Job-A"), spec, {"Seen": []}, phase="InProgress", due_at=5.0, labels={"Owner": "t"}
            )
            assert made == await store.find(key("Job-A"))
            assert made.spec == spec
            assert made.status == {"Seen": []}
            assert (made.phase, made.due_at, made.generation) == ("InProgress", 5.0, 1)
            assert made.created_at == made.modified_at == clock.now()
            assert made.labels == {"Owner": "t"}

        self.run(facts)

    def test_names_are_unique_among_the_living_and_keep_their_case(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            first = await create(store, "job")
            with pytest.raises(InUse):
                await create(store, "job")
            for other in (
                key("Job"),
                key("job", kind="Model"),
                key("job", account="210987654321"),
                key("job", region="eu-west-1"),
            ):
                assert await store.find(other) is None
                await store.create(other, {}, {}, phase="", due_at=None)
            assert (await found(store, "job")).uid == first.uid
            await store.delete(key("job"))
            assert (await create(store, "job")).uid != first.uid

        self.run(facts)

    def test_a_refused_creation_changes_nothing(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            before = await create(store, "job", labels={"Owner": "one"})
            with pytest.raises(InUse):
                await create(store, "job", labels={"Owner": "two"})
            assert await found(store, "job") == before
            assert len(await store.events(after=0, limit=10)) == 1
            assert await names(store, query(labels={"Owner": "two"})) == []

        self.run(facts)

    def test_what_a_caller_does_to_a_document_does_not_change_the_store(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            spec: dict[str, object] = {"List": [1]}
            made = await store.create(key("job"), spec, {}, phase="", due_at=None)  # type: ignore[arg-type]
            spec["More"] = 2
            made.spec["List"].append(3)  # type: ignore[union-attr]
            assert (await found(store, "job")).spec == {"List": [1]}

        self.run(facts)

    def test_writing_a_spec_bumps_the_generation_and_makes_it_due(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            made = await create(store, "job", spec={"Count": 1})
            await clock.advance(10)
            written = await store.write_spec(
                key("job"), lambda current: {**current.spec, "Stop": True}, due_at=clock.now()
            )
            assert written == await found(store, "job")
            assert written.spec == {"Count": 1, "Stop": True}
            assert (written.generation, written.due_at) == (2, clock.now())
            assert (written.created_at, written.modified_at) == (made.created_at, clock.now())

        self.run(facts)

    def test_a_spec_write_never_delays_what_is_due_sooner(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now - 5)
            assert (await store.write_spec(key("job"), _same, due_at=now)).due_at == now - 5
            assert (await store.write_spec(key("job"), _same, due_at=None)).due_at == now - 5
            await create(store, "settled")
            assert (await store.write_spec(key("settled"), _same, due_at=None)).due_at is None

        self.run(facts)

    def test_a_change_that_raises_writes_nothing(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            before = await create(store, "job")

            def refuse(current: Resource) -> Document:
                raise Invalid("no")

            with pytest.raises(Invalid, match="no"):
                await store.write_spec(key("job"), refuse, due_at=clock.now())
            assert await found(store, "job") == before
            assert len(await store.events(after=0, limit=10)) == 1
            with pytest.raises(NotFound):
                await store.write_spec(key("other"), _same, due_at=None)

        self.run(facts)

    def test_spec_writes_at_the_same_time_are_all_kept(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            await create(store, "job", spec={"Count": 0})

            def count(current: Resource) -> Document:
                return {"Count": int(str(current.spec["Count"])) + 1}

            await asyncio.gather(*(store.write_spec(key("job"), count, due_at=None) for _ in range(50)))
            after = await found(store, "job")
            assert (after.spec["Count"], after.generation) == (50, 51)

        self.run(facts)

    def test_deleting_asks_for_the_right_life_of_a_name(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            made = await create(store, "job", labels={"Owner": "t"})
            with pytest.raises(NotFound):
                await store.delete(key("job"), uid="another")
            await store.delete(key("job"), uid=made.uid)
            assert await store.find(key("job")) is None
            assert await names(store, query(labels={"Owner": "t"})) == []
            with pytest.raises(NotFound):
                await store.delete(key("job"))

        self.run(facts)

    # -- Listings ------------------------------------------------------------------------------------------

    def test_listings_filter(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            start = clock.now()
            for number, name in enumerate(["Red-1", "red-2", "Blue_1", "blue%2"]):
                await store.create(
                    key(name),
                    {},
                    {},
                    phase="Failed" if number == 1 else "Completed",
                    due_at=None,
                    labels={"Color": name[:3].lower(), "Odd": str(number % 2)},
                )
                await clock.advance(10)
            await store.create(key("red-3", account="210987654321"), {}, {}, phase="Failed", due_at=None)
            await store.create(key("red-3", kind="Model"), {}, {}, phase="Failed", due_at=None)
            await store.write_spec(key("Blue_1"), _same, due_at=None)
            for wanted, question in (
                (["Red-1", "red-2", "Blue_1", "blue%2"], query()),
                (["Red-1", "red-2"], query(name_contains="RED")),
                (["blue%2"], query(name_contains="%")),
                (["Blue_1"], query(name_contains="_")),
                (["red-2"], query(name_prefix="red")),
                (["Red-1"], query(name_equals="rEd-1")),
                ([], query(name_equals="red")),
                (["red-2"], query(phase="Failed")),
                (["Red-1", "red-2"], query(labels={"Color": "red"})),
                (["red-2"], query(labels={"Color": "red", "Odd": "1"})),
                ([], query(labels={"Colour": "red"})),
                (["Blue_1", "blue%2"], query(created_after=start + 10)),
                (["Red-1"], query(created_before=start + 10)),
                (["red-2"], query(created_after=start, created_before=start + 20)),
                (["Blue_1"], query(modified_after=start + 30)),
                (["Red-1", "red-2", "blue%2"], query(modified_before=start + 40)),
                (["Red-1", "red-2", "Blue_1", "blue%2", "red-3"], replace(query(), account="")),
                (["red-3"], replace(query(), kind="Model")),
                ([], replace(query(), region="eu-west-1")),
            ):
                assert await names(store, question) == wanted, question

        self.run(facts)

    def test_listings_sort_and_ties_are_broken_by_name(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            for name, phase in (("c", "Failed"), ("a", "Stopped"), ("B", "Completed"), ("b", "Failed")):
                await store.create(key(name), {}, {}, phase=phase, due_at=None)
                if name == "a":
                    await clock.advance(1)
            await clock.advance(1)
            await store.write_spec(key("a"), _same, due_at=None)
            for wanted, question in (
                ("Babc", query(sort_by="name")),
                ("acBb", query(sort_by="created_at")),
                ("cBba", query(sort_by="modified_at")),
                ("Bbca", query(sort_by="phase")),
            ):
                assert "".join(await names(store, question)) == wanted, question
                assert "".join(await names(store, replace(question, descending=True))) == wanted[::-1]

        self.run(facts)

    def test_pages_hold_each_resource_once(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            everything = [f"job-{number:02}" for number in range(23)]
            for name in everything:
                await create(store, name)
                if name.endswith("5"):
                    await clock.advance(1)
            for sort_by, descending, size in itertools.product(
                ("name", "created_at", "modified_at", "phase"), (False, True), (1, 7, 23, 100)
            ):
                question = query(sort_by=sort_by, descending=descending, page_size=size)
                pages = await all_pages(store, question)
                expected = everything[::-1] if descending else everything
                assert [name for page in pages for name in page] == expected
                assert all(len(page) == size for page in pages[:-1])
                assert len(pages) == -(-23 // size)

        self.run(facts)

    def test_what_comes_and_goes_between_pages_does_not_shift_them(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            for name in ("b", "d", "f", "h"):
                await create(store, name)
            question = query(sort_by="name", page_size=2)
            first = await store.list(question)
            await create(store, "a")
            await create(store, "e")
            await store.delete(key("b"))
            await store.delete(key("d"))  # the last of the page before
            second = await store.list(replace(question, page_token=first.next_token))
            assert [r.key.name for r in second.resources] == ["e", "f"]

        self.run(facts)

    def test_a_token_that_was_not_given_for_the_query_is_refused(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            for name in ("a", "b", "c"):
                await create(store, name)
            question = query(page_size=1)
            token = (await store.list(question)).next_token
            assert token
            foreign = [
                replace(question, page_token=token, sort_by="name"),
                replace(question, page_token=token, descending=True),
                replace(question, page_token=token, name_contains="a"),
                replace(question, page_token=token, region="eu-west-1"),
                replace(question, page_token=token, labels={"a": "b"}),
            ]
            garbled = [
                "",
                "x",
                token[1:],
                token[:-4],
                "é",
                "W10=",
                "bnVsbA==",
                "W1tbW1tb",
                "\ud800",
                "W1tb" * 9999,
            ]
            for bad in foreign + [replace(question, page_token=text) for text in garbled]:
                with pytest.raises(Invalid, match="Invalid NextToken"):
                    await store.list(bad)
            assert await store.list(replace(question, page_token=token, page_size=2))

        self.run(facts)

    # -- Leases --------------------------------------------------------------------------------------------

    def test_only_what_is_due_is_claimed_longest_due_first(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            for name, due_at in (("late", now - 1), ("later", now - 2), ("now", now), ("soon", now + 1)):
                await create(store, name, due_at=due_at)
            await create(store, "settled")
            await store.create(key("model", kind="Model"), {}, {}, phase="", due_at=now - 9)
            assert await claimed(store, now, limit=2) == ["later", "late"]
            assert await claimed(store, now) == ["now"]
            assert await claimed(store, now) == []
            assert await claimed(store, now + 1) == ["soon"]
            assert [c.resource.key.kind for c in await claim(store, now, kinds=["Model", KIND])] == ["Model"]
            assert await claim(store, now, kinds=[]) == []

        self.run(facts)

    def test_fifty_claimers_never_share_a_lease(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            wanted = sorted(f"job-{number}" for number in range(60))
            for name in wanted:
                await create(store, name, due_at=now)
            held = await asyncio.gather(*(claim(store, now, limit=3) for _ in range(50)))
            assert sorted(c.resource.key.name for claims in held for c in claims) == wanted
            assert len({c.lease for claims in held for c in claims}) == 60

        self.run(facts)

    def test_writing_a_status_gives_the_lease_back(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            made = await create(store, "job", due_at=now)
            (held,) = await claim(store, now)
            assert held.resource == made
            await clock.advance(3)
            written = await store.write_status(
                held, {"Seen": 1}, phase="Completed", due_at=now + 60, now=clock.now()
            )
            assert written == await found(store, "job")
            assert (written.status, written.phase, written.due_at) == ({"Seen": 1}, "Completed", now + 60)
            assert (written.modified_at, written.generation, written.uid) == (clock.now(), 1, made.uid)
            assert await claimed(store, now + 59) == []
            assert await claimed(store, now + 60) == ["job"]

        self.run(facts)

    def test_a_lease_that_ran_out_is_for_others_and_its_holder_may_not_write(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now)
            (stale,) = await claim(store, now, seconds=30)
            assert stale.expires_at == now + 30
            assert await claim(store, now + 29.9) == []
            await clock.advance(30)
            with pytest.raises(Conflict):  # nobody has it, but it is no longer held
                await store.write_status(stale, {}, phase="Stale", due_at=None, now=now + 30)
            (fresh,) = await claim(store, now + 30, seconds=30)
            with pytest.raises(Conflict):
                await store.write_status(stale, {}, phase="Stale", due_at=None, now=now + 31)
            with pytest.raises(Conflict):
                await store.remove(stale)
            await store.release(stale, due_at=now + 999)  # not an error, and without effect
            assert await claim(store, now + 31) == []
            written = await store.write_status(fresh, {}, phase="Fresh", due_at=None, now=now + 31)
            assert written.phase == "Fresh"
            with pytest.raises(Conflict):
                await store.write_status(fresh, {}, phase="Twice", due_at=None, now=now + 31)
            assert (await found(store, "job")).phase == "Fresh"

        self.run(facts)

    def test_a_lease_is_not_worth_anything_for_the_next_life_of_a_name(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now)
            (held,) = await claim(store, now)
            await store.delete(key("job"))
            with pytest.raises(NotFound):
                await store.write_status(held, {}, phase="Old", due_at=None, now=now)
            await create(store, "job", due_at=now)
            with pytest.raises(NotFound):
                await store.write_status(held, {}, phase="Old", due_at=None, now=now)
            with pytest.raises(NotFound):
                await store.remove(held)
            await store.release(held, due_at=now + 999)
            assert await claimed(store, now) == ["job"]

        self.run(facts)

    def test_a_spec_written_after_the_claim_stays_due(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now)
            (held,) = await claim(store, now)
            await store.write_spec(key("job"), lambda _: {"Stop": True}, due_at=now)
            written = await store.write_status(held, {"Seen": 1}, phase="Completed", due_at=None, now=now)
            assert (written.spec, written.status) == ({"Stop": True}, {"Seen": 1})
            (again,) = await claim(store, now)
            assert again.resource.generation == 2
            assert (
                await store.write_status(again, {"Seen": 2}, phase="Completed", due_at=None, now=now)
            ).due_at is None

        self.run(facts)

    def test_a_nudge_after_the_claim_stays_due(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now)
            (held,) = await claim(store, now)
            await store.make_due(key("job"), at=now)
            await store.write_status(held, {}, phase="Completed", due_at=now + 60, now=now)
            (held,) = await claim(store, now)
            await store.make_due(key("job"), at=now)
            await store.release(held, due_at=now + 60)
            assert await claimed(store, now) == ["job"]

        self.run(facts)

    def test_a_change_of_tags_after_the_claim_does_not_make_it_due(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now)
            (held,) = await claim(store, now)
            await store.write_spec(key("job"), lambda _: {"Tags": []}, due_at=None)
            written = await store.write_status(held, {}, phase="Completed", due_at=None, now=now)
            assert (written.spec, written.due_at) == ({"Tags": []}, None)

        self.run(facts)

    def test_a_released_resource_comes_again_when_it_was_said(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            before = await create(store, "job", due_at=now)
            (held,) = await claim(store, now)
            await store.release(held, due_at=now + 5)
            assert await claimed(store, now + 4) == []
            (again,) = await claim(store, now + 5)
            assert again.resource == replace(before, due_at=now + 5)
            assert len(await store.events(after=0, limit=10)) == 1

        self.run(facts)

    def test_forgotten_leases_can_be_claimed_at_once(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now)
            (held,) = await claim(store, now)
            await store.forget_leases()
            assert await claimed(store, now) == ["job"]
            with pytest.raises(Conflict):
                await store.write_status(held, {}, phase="Old", due_at=None, now=now)

        self.run(facts)

    def test_removing_takes_the_lease_and_the_resource(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now)
            (held,) = await claim(store, now)
            await store.remove(held)
            assert await store.find(key("job")) is None
            with pytest.raises(NotFound):
                await store.remove(held)

        self.run(facts)

    def test_the_next_due_time_knows_of_leases(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            assert await store.next_due_at([KIND]) is None
            await create(store, "settled")
            assert await store.next_due_at([KIND]) is None
            await create(store, "job", due_at=now - 5)
            await create(store, "later", due_at=now + 100)
            assert await store.next_due_at([KIND]) == now - 5
            assert await store.next_due_at(["Model"]) is None
            await claim(store, now, seconds=30)
            assert await store.next_due_at([KIND]) == now + 30
            assert await store.next_due_at([]) is None

        self.run(facts)

    def test_make_due_only_brings_forward(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            await create(store, "job", due_at=now + 10)
            await create(store, "settled")
            await store.make_due(key("job"), at=now + 20)
            await store.make_due(key("settled"), at=now + 20)
            await store.make_due(key("unknown"), at=now)
            assert (await found(store, "job")).due_at == now + 10
            assert (await found(store, "settled")).due_at == now + 20
            await store.make_due(key("job"), at=now)
            assert (await found(store, "job")).due_at == now

        self.run(facts)

    # -- Events --------------------------------------------------------------------------------------------

    def test_every_write_leaves_an_event(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            made = await create(store, "job", due_at=now, phase="InProgress")
            await store.write_spec(key("job"), _same, due_at=None)
            await clock.advance(2)
            (held,) = await claim(store, clock.now())
            await store.write_status(held, {"Seen": 1}, phase="Completed", due_at=now, now=clock.now())
            (held,) = await claim(store, clock.now())
            await store.remove(held)
            await create(store, "other")
            await store.delete(key("other"))
            events = await store.events(after=0, limit=100)
            assert [(e.change, e.phase, e.previous_phase, e.status) for e in events] == [
                ("created", "InProgress", "", {}),
                ("spec", "InProgress", "InProgress", {}),
                ("status", "Completed", "InProgress", {"Seen": 1}),
                ("deleted", "Completed", "Completed", {"Seen": 1}),
                ("created", "", "", {}),
                ("deleted", "", "", {}),
            ]
            assert {(e.key, e.uid) for e in events[:4]} == {(key("job"), made.uid)}
            assert [e.at for e in events[:4]] == [now, now, now + 2, now + 2]
            sequences = [e.sequence for e in events]
            assert sequences == sorted(set(sequences))
            assert await store.events(after=sequences[1], limit=2) == events[2:4]
            assert await store.events(after=sequences[-1], limit=2) == []

        self.run(facts)

    def test_a_status_that_says_nothing_new_leaves_no_event(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            now = clock.now()
            made = await create(store, "job", due_at=now, phase="InProgress")
            await clock.advance(5)
            (held,) = await claim(store, clock.now())
            written = await store.write_status(
                held, made.status, phase="InProgress", due_at=now + 60, now=clock.now()
            )
            assert (written.due_at, written.modified_at) == (now + 60, made.modified_at)
            assert len(await store.events(after=0, limit=10)) == 1

        self.run(facts)

    def test_old_events_go_and_sequences_are_not_used_again(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            for number in range(35):
                await create(store, f"job-{number}")
                assert len(await store.events(after=0, limit=100)) <= 10
            kept = await store.events(after=0, limit=100)
            assert kept[-1].key.name == "job-34"
            assert kept[-1].sequence - kept[0].sequence == len(kept) - 1
            assert len(kept) >= 5
            assert kept[-1].sequence >= 35

        self.run(facts, events_kept=10)

    def test_waiting_ends_with_a_write(self) -> None:
        async def facts(store: Store, clock: ManualClock) -> None:
            newest = await store.wait(after=0, timeout_seconds=0)
            assert newest == 0
            waiters = [
                asyncio.create_task(store.wait(after=newest, timeout_seconds=ENOUGH_SECONDS)) for _ in "abc"
            ]
            await asyncio.sleep(0.01)
            assert not any(waiter.done() for waiter in waiters)
            await create(store, "job")
            assert await asyncio.gather(*waiters) == [1, 1, 1]
            assert await store.wait(after=0, timeout_seconds=ENOUGH_SECONDS) == 1
            assert await store.wait(after=1, timeout_seconds=0.01) == 1

        self.run(facts)


async def create(
    store: Store,
    name: str,
    *,
    spec: Document | None = None,
    phase: str = "",
    due_at: float | None = None,
    labels: dict[str, str] | None = None,
) -> Resource:
    return await store.create(key(name), spec or {}, {}, phase=phase, due_at=due_at, labels=labels)


async def found(store: Store, name: str) -> Resource:
    resource = await store.find(key(name))
    assert resource is not None
    return resource


def query(**filters: object) -> Query:
    return Query(KIND, ACCOUNT, REGION, **filters)  # type: ignore[arg-type]


async def all_pages(store: Store, question: Query) -> list[list[str]]:
    pages, token = [], None
    while True:
        page = await store.list(replace(question, page_token=token))
        pages.append([resource.key.name for resource in page.resources])
        token = page.next_token
        if token is None:
            return pages


async def names(store: Store, question: Query) -> list[str]:
    return [name for page in await all_pages(store, question) for name in page]


async def claim(
    store: Store, now: float, *, kinds: Sequence[str] = (KIND,), seconds: float = 60.0, limit: int = 10
) -> Sequence[Claim]:
    return await store.claim(kinds, now=now, lease_seconds=seconds, limit=limit)


async def claimed(store: Store, now: float, *, limit: int = 10) -> list[str]:
    return [held.resource.key.name for held in await claim(store, now, limit=limit)]


def _same(current: Resource) -> Document:
    return current.spec
