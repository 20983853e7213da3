"""What every store of logs must do. Subclass, say how to open a store, and collect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from clary.clock import Clock, ManualClock
from clary.faults import InUse, Invalid, NotFound
from clary.telemetry.log_store import MAX_BYTES_OF_A_PAGE, MAX_EVENTS_SEARCHED, LogStore

ACCOUNT, REGION = "123456789012", "us-east-1"
HOME = (ACCOUNT, REGION)
DAY_MILLISECONDS = 86_400_000


class LogStoreConformance:
    """The facts. `store` opens a fresh store."""

    def store(self, clock: Clock) -> AbstractAsyncContextManager[LogStore]:
        raise NotImplementedError

    def run(self, facts: Callable[[LogStore, ManualClock], Awaitable[None]]) -> None:
        async def within() -> None:
            clock = ManualClock()
            async with self.store(clock) as store:
                await facts(store, clock)

        asyncio.run(within())

    def test_what_is_missing_or_there_already_is_told_by_aws_codes(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            attempts: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.create_stream(*HOME, "g", "s"),
                lambda: store.put(*HOME, "g", "s", [(1, "m")]),
                lambda: store.group(*HOME, "g"),
                lambda: store.streams(*HOME, "g"),
                lambda: store.read(*HOME, "g", "s"),
                lambda: store.search(*HOME, "g"),
                lambda: store.delete_stream(*HOME, "g", "s"),
                lambda: store.delete_group(*HOME, "g"),
                lambda: store.set_retention(*HOME, "g", 1),
                lambda: store.change_tags(*HOME, "g", lambda tags: tags),
            ]
            for attempt in attempts:
                with pytest.raises(NotFound, match="log group does not exist") as missing:
                    await attempt()
                assert missing.value.code == "ResourceNotFoundException"
            await store.create_group(*HOME, "g")
            for attempt in (attempts[1], attempts[4], attempts[6]):
                with pytest.raises(NotFound, match="log stream does not exist") as missing:
                    await attempt()
                assert missing.value.code == "ResourceNotFoundException"
            with pytest.raises(NotFound, match="log stream"):
                await store.search(*HOME, "g", streams=["s"])
            await store.create_stream(*HOME, "g", "s")
            again_attempts: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.create_group(*HOME, "g"),
                lambda: store.create_stream(*HOME, "g", "s"),
            ]
            for again in again_attempts:
                with pytest.raises(InUse) as taken:
                    await again()
                assert taken.value.code == "ResourceAlreadyExistsException"

        self.run(facts)

    def test_accounts_and_regions_see_only_their_own(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await filled(store, "g", {"s": [(1, "mine")]})
            for other in (("210987654321", REGION), (ACCOUNT, "eu-west-1")):
                assert await store.groups(*other) == []
                with pytest.raises(NotFound):
                    await store.read(*other, "g", "s")
                await store.create_group(*other, "g")
                assert await store.streams(*other, "g") == []
            assert await texts(store, "g", "s") == ["mine"]

        self.run(facts)

    def test_groups_are_listed_by_name(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            names = ["/aws/B", "/aws/a", "/aws/a_1", "x"]
            for name in reversed(names):
                await store.create_group(*HOME, name)

            async def listed(**filters: Any) -> list[str]:
                return [group.name for group in await store.groups(*HOME, **filters)]

            assert await listed() == names
            assert await listed(prefix="/aws/a") == ["/aws/a", "/aws/a_1"]
            assert await listed(prefix="/AWS") == []
            assert await listed(pattern="s/B") == ["/aws/B"]
            assert await listed(pattern="s/b") == []
            assert await listed(pattern="_") == ["/aws/a_1"]
            assert await listed(limit=2) == names[:2]
            assert await listed(limit=2, after=names[1]) == names[2:]

        self.run(facts)

    def test_a_group_keeps_what_it_was_created_with(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await store.create_group(
                *HOME, "g", tags={"Team": "é"}, log_class="INFREQUENT_ACCESS", kms_key_id="k"
            )
            group = await store.group(*HOME, "g")
            assert (group.log_class, group.kms_key_id, group.tags) == (
                "INFREQUENT_ACCESS",
                "k",
                {"Team": "é"},
            )
            assert (group.created_at, group.retention_days) == (int(clock.now() * 1000), None)
            await store.set_retention(*HOME, "g", 7)
            assert [group.retention_days for group in await store.groups(*HOME)] == [7]
            await store.set_retention(*HOME, "g", None)
            assert (await store.group(*HOME, "g")).retention_days is None

        self.run(facts)

    def test_tags_change_in_one_piece(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await store.create_group(*HOME, "g")

            def adding(number: int) -> Callable[[Mapping[str, str]], Mapping[str, str]]:
                return lambda tags: {**tags, str(number): "v"}

            await asyncio.gather(*(store.change_tags(*HOME, "g", adding(number)) for number in range(20)))
            assert len((await store.group(*HOME, "g")).tags) == 20

            def refuse(tags: Mapping[str, str]) -> Mapping[str, str]:
                raise Invalid("no")

            with pytest.raises(Invalid):
                await store.change_tags(*HOME, "g", refuse)
            assert len((await store.group(*HOME, "g")).tags) == 20

        self.run(facts)

    def test_streams_are_listed_by_name_or_last_event_either_way(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            times = {"a": 30, "b": 10, "c": None, "d": 20, "job/1": 20}
            await filled(store, "g", {n: [(t, "m")] if t else [] for n, t in times.items()})
            for by_last_event, order in (
                (False, ["a", "b", "c", "d", "job/1"]),
                (True, ["c", "b", "d", "job/1", "a"]),
            ):
                for descending in (False, True):
                    wanted = order[::-1] if descending else order
                    for size in (1, 2, 5):
                        found: list[str] = []
                        after = None
                        while True:
                            page = await store.streams(
                                *HOME,
                                "g",
                                by_last_event=by_last_event,
                                descending=descending,
                                after=after,
                                limit=size,
                            )
                            if not page:
                                break
                            found += [stream.name for stream in page]
                            after = (page[-1].last_event_at or 0, page[-1].name)
                        assert found == wanted
            (job,) = await store.streams(*HOME, "g", prefix="job/")
            assert (job.first_event_at, job.last_event_at) == (20, 20)
            assert job.last_ingestion_at == job.created_at == int(clock.now() * 1000)

        self.run(facts)

    def test_a_growing_stream_is_followed_without_missing_or_repeating(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await filled(store, "g", {"s": [], "other": [(1, "not mine")]})
            put: list[str] = []
            got: list[str] = []
            position = None
            for round_ in range(12):
                # Times go back and forth, as those of several writers do.
                batch = [(1000 - round_ * 7 + n, f"line {round_}.{n}") for n in range(round_ % 4)]
                await store.put(*HOME, "g", "s", batch)
                await store.put(*HOME, "g", "other", [(1, "not mine")])
                put += [message for _, message in batch]
                while events := await store.read(*HOME, "g", "s", after_position=position, limit=2):
                    got += [event.message for event in events]
                    position = events[-1].position
            assert got == put

        self.run(facts)

    def test_a_stream_is_read_from_both_ends_and_between_times(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await filled(store, "g", {"s": [(n, f"m{n}") for n in range(10)]})
            assert await texts(store, "g", "s", limit=3) == ["m0", "m1", "m2"]
            newest = await store.read(*HOME, "g", "s", newest_first=True, limit=3)
            assert [event.message for event in newest] == ["m9", "m8", "m7"]
            before = newest[-1].position
            assert await texts(store, "g", "s", newest_first=True, before_position=before, limit=2) == [
                "m6",
                "m5",
            ]
            assert await texts(store, "g", "s", start=3, end=6) == ["m3", "m4", "m5"]
            assert await texts(store, "g", "s", start=6, end=6) == []

        self.run(facts)

    def test_messages_come_back_as_they_were_put(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            messages = ["", " a\tb\r\n", "é 😀 \x00 end", "x" * 100_000, '{"a": 1}']
            await filled(store, "g", {"s": [(1, message) for message in messages]})
            assert await texts(store, "g", "s") == messages
            await store.put(*HOME, "g", "s", [(2, "lone \ud800 surrogate")])
            assert (await texts(store, "g", "s"))[-1] == "lone ? surrogate"

        self.run(facts)

    def test_a_page_has_a_limit_in_bytes(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            big = "é" * (MAX_BYTES_OF_A_PAGE // 5)
            await filled(store, "g", {"s": [(n, big) for n in range(5)]})
            events = await store.read(*HOME, "g", "s")
            assert len(events) == 2
            found = await store.search(*HOME, "g")
            assert len(found.events) == 2
            rest = await store.search(*HOME, "g", after=found.place)
            assert [event.timestamp for event in rest.events] == [2, 3]
            huge = "x" * (MAX_BYTES_OF_A_PAGE + 5)
            await filled(store, "h", {"s": [(1, huge), (2, huge)]})
            assert len(await store.read(*HOME, "h", "s")) == 1
            assert len((await store.search(*HOME, "h")).events) == 1

        self.run(facts)

    def test_a_search_goes_through_all_streams_in_the_order_of_time(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await filled(
                store,
                "g",
                {
                    "a": [(1, "a1"), (5, "a5"), (9, "a9")],
                    "b": [(2, "b2"), (5, "b5"), (6, "b6")],
                    "late": [(8, "l8"), (3, "l3")],
                    "empty": [],
                },
            )
            await filled(store, "foreign", {"a": [(4, "foreign")]})
            everything = ["a1", "b2", "l3", "a5", "b5", "b6", "l8", "a9"]
            assert await searched(store, "g") == everything
            assert await searched(store, "g", newest_first=True) == everything[::-1]
            for size in (1, 3, 7, 8):
                assert await searched(store, "g", limit=size) == everything
                assert await searched(store, "g", limit=size, newest_first=True) == everything[::-1]
            assert await searched(store, "g", streams=["late", "b"]) == ["b2", "l3", "b5", "b6", "l8"]
            assert await searched(store, "g", prefix="l") == ["l3", "l8"]
            assert await searched(store, "g", prefix="none") == []
            assert await searched(store, "g", start=3, end=6) == ["l3", "a5", "b5"]
            assert await searched(store, "g", matches=lambda message: "5" in message, limit=1) == ["a5", "b5"]

        self.run(facts)

    def test_a_page_that_is_just_full_is_the_last_one(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await filled(store, "g", {"s": [(n, f"m{n}") for n in range(3)]})
            assert (await store.search(*HOME, "g", limit=3)).place is None
            assert (await store.search(*HOME, "g", limit=2)).place is not None

        self.run(facts)

    def test_a_search_that_finds_little_ends_and_goes_on(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            count = MAX_EVENTS_SEARCHED + 10
            await filled(
                store, "g", {"s": [(n, "needle" if n == count - 1 else "hay") for n in range(count)]}
            )
            first = await store.search(*HOME, "g", matches=lambda message: message == "needle")
            assert first.events == []
            assert first.place is not None
            second = await store.search(
                *HOME, "g", matches=lambda message: message == "needle", after=first.place
            )
            assert [event.timestamp for event in second.events] == [count - 1]
            assert second.place is None

        self.run(facts)

    def test_what_is_deleted_is_gone_and_its_name_is_free(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await filled(store, "g", {"a": [(1, "a")], "b": [(1, "b")]})
            await store.delete_stream(*HOME, "g", "a")
            assert await searched(store, "g") == ["b"]
            await store.create_stream(*HOME, "g", "a")
            assert await texts(store, "g", "a") == []
            await store.delete_group(*HOME, "g")
            await store.create_group(*HOME, "g")
            assert await store.streams(*HOME, "g") == []
            assert (await store.group(*HOME, "g")).stored_bytes == 0

        self.run(facts)

    def test_stored_bytes_count_as_cloudwatch_does(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await filled(store, "g", {"a": [(1, "é")], "b": [(1, "xyz"), (2, "")]})
            assert (await store.group(*HOME, "g")).stored_bytes == 3 * 26 + 2 + 3

        self.run(facts)

    def test_events_go_when_their_time_is_over(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            now = int(clock.now() * 1000)
            await filled(store, "kept", {"s": [(now, "old")]})
            await filled(
                store, "short", {"quiet": [(now, "old")], "busy": [(now, "old"), (now + 1, "older")]}
            )
            await store.set_retention(*HOME, "short", 3)
            await clock.advance(2 * 86_400)
            await store.put(*HOME, "short", "busy", [(now + 2 * DAY_MILLISECONDS, "new")])
            assert await searched(store, "short") == ["old", "old", "older", "new"]
            await clock.advance(1.5 * 86_400)
            await store.put(*HOME, "short", "busy", [(now + 3 * DAY_MILLISECONDS, "newer")])
            assert await searched(store, "short") == ["new", "newer"]
            assert await searched(store, "kept") == ["old"]
            assert (await store.group(*HOME, "short")).stored_bytes == 2 * 26 + len("newnewer")

        self.run(facts)

    def test_a_batch_is_put_whole(self) -> None:
        async def facts(store: LogStore, clock: ManualClock) -> None:
            await filled(store, "g", {"s": []})
            await asyncio.gather(
                *(store.put(*HOME, "g", "s", [(n, f"{n}.{m}") for m in range(5)]) for n in range(40))
            )
            read = await texts(store, "g", "s")
            batches = [read[at : at + 5] for at in range(0, 200, 5)]
            assert sorted(batches) == sorted([f"{n}.{m}" for m in range(5)] for n in range(40))

        self.run(facts)


async def filled(store: LogStore, group: str, streams: Mapping[str, Sequence[tuple[int, str]]]) -> None:
    await store.create_group(*HOME, group)
    for stream, events in streams.items():
        await store.create_stream(*HOME, group, stream)
        await store.put(*HOME, group, stream, events)


async def texts(store: LogStore, group: str, stream: str, **bounds: Any) -> list[str]:
    return [event.message for event in await store.read(*HOME, group, stream, **bounds)]


async def searched(store: LogStore, group: str, **filters: Any) -> list[str]:
    """The messages of all pages."""
    messages: list[str] = []
    place = None
    while True:
        found = await store.search(*HOME, group, after=place, **filters)
        messages += [event.message for event in found.events]
        place = found.place
        if place is None:
            return messages
