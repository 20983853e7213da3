"""The work loop: what is due is looked at, once at a time, whatever controllers do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from clary.clock import ManualClock, SystemClock
from clary.controllers import work_loop as limits
from clary.controllers.controller import Outcome
from clary.controllers.work_loop import WorkLoop
from clary.resources.resource import Document, Key, Resource
from clary.store.memory import MemoryStore
from clary.store.sqlite import SqliteStore
from clary.store.store import Claim, Store

KIND = "Job"


class Scripted:
    """A controller that does what ``act`` does, and remembers what it looked at."""

    def __init__(self, act: Callable[[Resource], Awaitable[Outcome]], kind: str = KIND) -> None:
        self.kind = kind
        self.act = act
        self.seen: list[str] = []
        self.at_once = self.most_at_once = 0

    async def reconcile(self, resource: Resource) -> Outcome:
        self.seen.append(resource.key.name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.act(resource)
        finally:
            self.at_once -= 1


async def settle(resource: Resource) -> Outcome:
    return Outcome({"Seen": resource.generation}, "Done")


async def fail(resource: Resource) -> Outcome:
    raise OSError("the disk is away")


async def hang(resource: Resource) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError("never comes here")


def key(name: str) -> Key:
    return Key(KIND, "1", "r", name)


async def add(store: Store, *names: str, due_at: float = 0.0, kind: str = KIND) -> None:
    for name in names:
        await store.create(Key(kind, "1", "r", name), {}, {}, phase="New", due_at=due_at)


async def get(store: Store, name: str) -> Resource:
    resource = await store.find(key(name))
    assert resource is not None
    return resource


async def until(condition: Callable[[], bool]) -> None:
    """Let others run till ``condition`` holds; fail if that takes very long."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("It never came to be.")


async def spin() -> None:
    """Let everything that can run do so."""
    for _ in range(200):
        await asyncio.sleep(0)


def test_what_is_due_is_looked_at_and_the_outcome_written() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, controller = MemoryStore(clock), Scripted(settle)
        await add(store, "a", "b")
        await add(store, "later", due_at=clock.now() + 5)
        await add(store, "foreign", kind="Model")
        loop = WorkLoop(store, [controller], clock)
        assert await loop.step() == 2
        assert controller.seen == ["a", "b"]
        written = await get(store, "a")
        assert (written.status, written.phase, written.due_at) == ({"Seen": 1}, "Done", None)
        assert await loop.step() == 0
        await clock.advance(5)
        assert await loop.step() == 1
        await loop.nudge(key("a"))
        await loop.nudge(key("unknown"))
        assert await loop.step() == 1

    asyncio.run(facts())


def test_each_kind_goes_to_its_own_controller() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, jobs, models = MemoryStore(clock), Scripted(settle), Scripted(settle, "Model")
        await add(store, "job")
        await add(store, "model", kind="Model")
        await WorkLoop(store, [jobs, models], clock).step()
        assert (jobs.seen, models.seen) == (["job"], ["model"])

    asyncio.run(facts())


def test_a_wish_that_comes_while_a_controller_looks_is_looked_at_next() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store = MemoryStore(clock)

        async def overtaken(resource: Resource) -> Outcome:
            if resource.generation == 1:
                await store.write_spec(resource.key, lambda _: {"Stop": True}, due_at=clock.now())
            return Outcome({"Stopped": "Stop" in resource.spec}, "Done")

        controller = Scripted(overtaken)
        await add(store, "a")
        assert await WorkLoop(store, [controller], clock).step() == 2
        assert (await get(store, "a")).status == {"Stopped": True}

    asyncio.run(facts())


def test_an_outcome_can_remove_the_resource() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store = MemoryStore(clock)

        async def remove(resource: Resource) -> Outcome:
            return Outcome(resource.status, resource.phase, remove=True)

        await add(store, "a")
        await WorkLoop(store, [Scripted(remove)], clock).step()
        assert await store.find(key("a")) is None

    asyncio.run(facts())


def test_what_a_controller_raises_is_logged_with_the_resource_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def facts() -> None:
        clock = ManualClock()
        store = MemoryStore(clock)

        async def fail_one(resource: Resource) -> Outcome:
            return await (fail if resource.key.name == "bad" else settle)(resource)

        await add(store, "bad", "good")
        assert await WorkLoop(store, [Scripted(fail_one)], clock).step() == 2
        bad = await get(store, "bad")
        assert (bad.status, bad.phase) == ({}, "New")
        assert (await get(store, "good")).phase == "Done"

    with caplog.at_level(logging.ERROR, "clary"):
        asyncio.run(facts())
    assert "Job bad" in caplog.text
    assert "OSError: the disk is away" in caplog.text
    assert "good" not in caplog.text


def test_failures_in_a_row_are_tried_again_ever_later_and_a_success_starts_anew() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, controller = MemoryStore(clock), Scripted(fail)
        await add(store, "a")
        loop = WorkLoop(store, [controller], clock, seed=1)

        async def delay() -> float:
            assert await loop.step() == 1
            due = (await get(store, "a")).due_at
            assert due is not None
            waited = due - clock.now()
            await clock.advance(waited)
            return waited

        for failures in range(12):
            expected = min(limits.FIRST_RETRY_SECONDS * 2**failures, limits.LONGEST_RETRY_SECONDS)
            assert expected * 0.74 < await delay() < expected * 1.26
        controller.act = settle
        await loop.step()
        controller.act = fail
        await loop.nudge(key("a"))
        assert await delay() < limits.FIRST_RETRY_SECONDS * 1.26

    asyncio.run(facts())


def test_the_same_seed_retries_at_the_same_times() -> None:
    async def due(seed: int) -> float | None:
        clock = ManualClock()
        store = MemoryStore(clock)
        await add(store, "a")
        await WorkLoop(store, [Scripted(fail)], clock, seed=seed).step()
        return (await get(store, "a")).due_at

    assert asyncio.run(due(3)) == asyncio.run(due(3)) != asyncio.run(due(4))


def test_a_resource_that_goes_while_it_is_looked_at_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def facts() -> None:
        clock = ManualClock()
        store = MemoryStore(clock)

        async def deleted(resource: Resource) -> Outcome:
            await store.delete(resource.key)
            return await settle(resource)

        await add(store, "a")
        assert await WorkLoop(store, [Scripted(deleted)], clock).step() == 1
        assert await store.find(key("a")) is None

    with caplog.at_level(logging.WARNING, "clary"):
        asyncio.run(facts())
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_reconcile_that_hangs_is_broken_off_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, controller = MemoryStore(clock), Scripted(hang)
        await add(store, "a")
        loop = WorkLoop(store, [controller], clock, reconcile_timeout_seconds=0.01)
        assert await loop.step() == 1
        assert controller.at_once == 0
        controller.act = settle
        await clock.advance(limits.FIRST_RETRY_SECONDS * 2)
        assert await loop.step() == 1
        assert (await get(store, "a")).phase == "Done"

    asyncio.run(facts())
    assert "a reconcile may take 0.01 s" in caplog.text


def test_controllers_that_never_rest_are_told_of() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store = MemoryStore(clock)

        async def again(resource: Resource) -> Outcome:
            return Outcome({}, "New", due_at=clock.now())

        await add(store, "restless")
        with pytest.raises(RuntimeError, match="Job restless is still due"):
            await WorkLoop(store, [Scripted(again)], clock).step()

    asyncio.run(facts())


class Forgetful(MemoryStore):
    """A store on a bad disk: each operation named in ``broken`` fails once for each time it is named."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.broken: list[str] = []
        self.claims = 0

    def _use(self, operation: str) -> None:
        if operation in self.broken:
            self.broken.remove(operation)
            raise OSError(f"{operation}: the disk is away")

    async def claim(
        self, kinds: Sequence[str], *, now: float, lease_seconds: float, limit: int
    ) -> Sequence[Claim]:
        self.claims += 1
        self._use("claim")
        return await super().claim(kinds, now=now, lease_seconds=lease_seconds, limit=limit)

    async def write_status(
        self, claim: Claim, status: Document, *, phase: str, due_at: float | None, now: float
    ) -> Resource:
        self._use("write_status")
        return await super().write_status(claim, status, phase=phase, due_at=due_at, now=now)

    async def release(self, claim: Claim, *, due_at: float) -> None:
        self._use("release")
        await super().release(claim, due_at=due_at)


def test_a_status_that_could_not_be_written_is_found_again() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, controller = Forgetful(clock), Scripted(settle)
        store.broken = ["write_status"]
        await add(store, "a")
        loop = WorkLoop(store, [controller], clock)
        await loop.step()
        assert (await get(store, "a")).phase == "New"
        await clock.advance(limits.FIRST_RETRY_SECONDS * 2)
        await loop.step()
        assert (await get(store, "a")).phase == "Done"
        assert controller.seen == ["a", "a"]

    asyncio.run(facts())


def test_the_running_loop_outlives_a_store_that_fails_for_a_while() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, controller = Forgetful(clock), Scripted(settle)
        store.broken = ["claim", "claim", "write_status", "release"]
        await add(store, "a")
        loop = WorkLoop(store, [controller], clock)
        running = asyncio.create_task(loop.run())
        for _ in range(60):  # the lease of the failed write has to run out
            await spin()
            await clock.advance(limits.LEASE_SECONDS / 50)
        assert (await get(store, "a")).phase == "Done"
        await loop.stop()
        await running

    asyncio.run(facts())


@pytest.mark.parametrize("kept", ["memory", "sqlite"])
def test_a_creation_wakes_the_running_loop(kept: str, tmp_path: Path) -> None:
    async def facts() -> None:
        store: Store = MemoryStore() if kept == "memory" else SqliteStore(tmp_path / "s.sqlite")
        controller = Scripted(settle)
        loop = WorkLoop(store, [controller], SystemClock())
        running = asyncio.create_task(loop.run())
        await asyncio.sleep(0.05)  # it has found nothing, and sleeps
        await add(store, "a")
        await until(lambda: controller.seen == ["a"])
        await store.write_spec(key("a"), lambda _: {"Stop": True}, due_at=1.0)
        await until(lambda: controller.seen == ["a", "a"])
        await loop.nudge(key("a"))
        await until(lambda: controller.seen == ["a", "a", "a"])
        await loop.stop()
        await running
        assert (await get(store, "a")).status == {"Seen": 2}
        await store.close()

    asyncio.run(facts())


def test_the_running_loop_sleeps_until_something_is_due() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, controller = Forgetful(clock), Scripted(settle)
        await add(store, "soon", due_at=clock.now() + 2)
        running = asyncio.create_task((loop := WorkLoop(store, [controller], clock)).run())
        await spin()
        claims = store.claims
        await spin()
        assert store.claims == claims  # nothing to do: nothing is done
        await clock.advance(1.9)
        await spin()
        assert controller.seen == []
        await clock.advance(0.2)
        await spin()
        assert controller.seen == ["soon"]
        await loop.stop()
        await running

    asyncio.run(facts())


def test_no_more_than_so_many_are_looked_at_at_once_and_a_full_loop_rests() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, opened = Forgetful(clock), asyncio.Semaphore(0)

        async def wait(resource: Resource) -> Outcome:
            await opened.acquire()
            return await settle(resource)

        controller = Scripted(wait)
        names = [f"job-{number}" for number in range(10)]
        await add(store, *names)
        running = asyncio.create_task((loop := WorkLoop(store, [controller], clock, concurrency=3)).run())
        await spin()
        assert len(controller.seen) == 3
        claims = store.claims
        await spin()
        assert store.claims == claims
        opened.release()
        await spin()
        assert len(controller.seen) == 4
        for _ in names:
            opened.release()
        await until(lambda: len(controller.seen) == 10 and controller.at_once == 0)
        assert controller.most_at_once == 3
        assert sorted(controller.seen) == names
        await loop.stop()
        await running

    asyncio.run(facts())


def test_stopping_waits_for_what_is_in_hand_and_takes_nothing_new() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, opened = MemoryStore(clock), asyncio.Event()

        async def wait(resource: Resource) -> Outcome:
            await opened.wait()
            return await settle(resource)

        controller = Scripted(wait)
        await add(store, "in-hand")
        running = asyncio.create_task((loop := WorkLoop(store, [controller], clock)).run())
        await spin()
        await loop.stop()
        await add(store, "too-late")
        await spin()
        assert not running.done()
        opened.set()
        await running
        assert controller.seen == ["in-hand"]
        assert (await get(store, "in-hand")).phase == "Done"

    asyncio.run(facts())


def test_stopping_breaks_off_what_does_not_end_and_gives_its_lease_back() -> None:
    async def facts() -> None:
        clock = ManualClock()
        store, controller = MemoryStore(clock), Scripted(hang)
        await add(store, "a")
        loop = WorkLoop(store, [controller], clock, stop_timeout_seconds=0.01)
        running = asyncio.create_task(loop.run())
        await spin()
        await loop.stop()
        await running
        assert controller.at_once == 0
        after = Scripted(settle)
        assert await WorkLoop(store, [after], clock).step() == 1
        assert (await get(store, "a")).phase == "Done"

    asyncio.run(facts())


def test_two_loops_share_the_work_of_one_file(tmp_path: Path) -> None:
    async def facts() -> None:
        stores = [SqliteStore(tmp_path / "s.sqlite") for _ in range(2)]
        controllers = [Scripted(settle) for _ in stores]
        loops = [
            WorkLoop(store, [controller], SystemClock(), concurrency=4)
            for store, controller in zip(stores, controllers, strict=True)
        ]
        running = [asyncio.create_task(loop.run()) for loop in loops]
        names = [f"job-{number}" for number in range(40)]
        await add(stores[0], *names)
        await until(lambda: sum(len(controller.seen) for controller in controllers) >= len(names))
        for loop, task in zip(loops, running, strict=True):
            await loop.stop()
            await task
        assert sorted(controllers[0].seen + controllers[1].seen) == sorted(names)
        for store in stores:
            await store.close()

    asyncio.run(facts())
