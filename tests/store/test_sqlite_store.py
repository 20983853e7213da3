"""What the SQLite store shows beyond the contract: files, upgrades, other processes, crashes."""

from __future__ import annotations

import asyncio
import importlib.resources
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clary.clock import ManualClock
from clary.faults import InUse
from clary.resources.resource import Key
from clary.store.sqlite import SqliteStore
from clary.store.store import Query

# Creates and changes resources, saying each one's name once it was acknowledged.
WRITER = """
import asyncio, sys
from pathlib import Path
from clary.resources.resource import Key
from clary.store.sqlite import SqliteStore

async def work(store, worker):
    number = 0
    while True:
        key = Key("Job", "1", "r", f"{sys.argv[2]}-{worker}-{number}")
        await store.create(key, {"Half": "x" * 2000}, {}, phase="", due_at=None, labels={"Worker": "w"})
        print("created", key.name, flush=True)
        await store.write_spec(key, lambda now: {**now.spec, "Other": "y" * 2000}, due_at=None)
        print("written", key.name, flush=True)
        number += 1

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await asyncio.gather(*(work(store, worker) for worker in range(4)))

asyncio.run(main())
"""


def key(name: str) -> Key:
    return Key("Job", "1", "r", name)


def test_what_was_written_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    async def facts() -> None:
        store = SqliteStore(tmp_path / "s.sqlite", ManualClock())
        made = await store.create(key("job"), {"A": 1}, {}, phase="P", due_at=5.0, labels={"L": "v"})
        await store.close()
        store = SqliteStore(tmp_path / "s.sqlite")
        assert await store.find(key("job")) == made
        assert [event.change for event in await store.events(after=0, limit=9)] == ["created"]
        await store.close()

    asyncio.run(facts())


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    found: dict[str, int] = {}

    def modes(folder: Path) -> dict[str, int]:
        return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}

    async def facts() -> None:
        store = SqliteStore(tmp_path / "s.sqlite")
        await store.create(key("job"), {}, {}, phase="", due_at=None)
        found.update(modes(tmp_path))
        await store.close()

    asyncio.run(facts())
    assert found == {"s.sqlite": 0o600, "s.sqlite-wal": 0o600, "s.sqlite-shm": 0o600}


def test_a_file_of_a_newer_clary_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9999")
    with pytest.raises(RuntimeError, match=r"s\.sqlite was made by a newer Clary.*9999.*Upgrade"):
        SqliteStore(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_text("not a database, but long enough to be looked at" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        SqliteStore(path)


def test_a_file_of_the_first_schema_is_upgraded_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    first = importlib.resources.files("clary.store.migrations") / "0001_resources.sql"
    with sqlite3.connect(path) as connection:
        connection.executescript(first.read_text())
        connection.execute(
            "INSERT INTO resources (kind, account, region, name, uid, spec, status, phase, generation,"
            " created_at, modified_at, labels)"
            " VALUES ('Job', '1', 'r', 'Old', 'u', '{}', '{}', 'P', 1, 1, 1, '{}')"
        )
        connection.execute("PRAGMA user_version = 1")

    async def facts() -> None:
        store = SqliteStore(path)
        page = await store.list(Query("Job", "1", "r", name_equals="old"))
        assert [resource.key.name for resource in page.resources] == ["Old"]
        await store.close()

    asyncio.run(facts())
    with sqlite3.connect(path) as connection:
        steps = [
            file
            for file in importlib.resources.files("clary.store.migrations").iterdir()
            if file.name.endswith(".sql")
        ]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(steps),)


def test_a_refused_write_does_not_undo_those_it_shares_a_commit_with(tmp_path: Path) -> None:
    async def facts() -> None:
        store = SqliteStore(tmp_path / "s.sqlite")
        names = [f"job-{number % 10}" for number in range(300)]
        results = await asyncio.gather(
            *(store.create(key(name), {}, {}, phase="", due_at=None) for name in names),
            return_exceptions=True,
        )
        assert sum(isinstance(result, InUse) for result in results) == 290
        page = await store.list(Query("Job", "1", "r", sort_by="name"))
        assert [resource.key.name for resource in page.resources] == sorted(set(names))
        assert len(await store.events(after=0, limit=999)) == 10
        await store.close()

    asyncio.run(facts())


def test_two_processes_on_one_file_see_each_other_and_never_share_a_lease(tmp_path: Path) -> None:
    async def facts() -> None:
        one, other = SqliteStore(tmp_path / "s.sqlite"), SqliteStore(tmp_path / "s.sqlite")
        wait = asyncio.create_task(other.wait(after=0, timeout_seconds=30))
        for number in range(40):
            await one.create(key(f"job-{number}"), {}, {}, phase="", due_at=1.0)
        assert await wait >= 1
        held = await asyncio.gather(
            *(
                store.claim(["Job"], now=2.0, lease_seconds=9, limit=5)
                for _ in range(8)
                for store in (one, other)
            )
        )
        leased = [claim.resource.key.name for claims in held for claim in claims]
        assert sorted(leased) == sorted(f"job-{number}" for number in range(40))
        await one.close()
        await other.close()

    asyncio.run(facts())


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async def facts() -> None:
        store = SqliteStore(tmp_path / "s.sqlite")
        await store.close()
        with pytest.raises(RuntimeError):
            await store.find(key("job"))
        with pytest.raises(RuntimeError):
            await store.create(key("job"), {}, {}, phase="", due_at=None)

    asyncio.run(facts())


def test_a_full_disk_fails_the_write_and_loses_nothing(tmp_path: Path) -> None:
    async def facts() -> None:
        store = SqliteStore(tmp_path / "s.sqlite")
        await store.create(key("before"), {}, {}, phase="", due_at=None)
        pages = await store._file.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await store._file.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 3}"))
        results = await asyncio.gather(
            *(
                store.create(key(f"big-{number}"), {"Big": "x" * 9000}, {}, phase="", due_at=None)
                for number in range(3)
            ),
            return_exceptions=True,
        )
        failed = [number for number, result in enumerate(results) if isinstance(result, Exception)]
        assert failed
        for number in range(3):
            assert (await store.find(key(f"big-{number}")) is None) == (number in failed)
        assert await store.find(key("before"))
        await store._file.write(lambda c: c.execute("PRAGMA max_page_count = 100000"))
        await store.create(key("after"), {}, {}, phase="", due_at=None)
        await store.close()

    asyncio.run(facts())


@pytest.mark.slow
def test_killed_while_writing_it_keeps_what_it_acknowledged_and_no_halves(tmp_path: Path) -> None:
    path, chance = tmp_path / "s.sqlite", random.Random(5)
    said: list[list[str]] = []
    for life in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(life)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        said.append(writer.stdout.readline().split())
        time.sleep(chance.uniform(0, 0.2))
        os.kill(writer.pid, signal.SIGKILL)
        said += [line.split() for line in writer.stdout.read().splitlines() if line.count("-") == 2]
        writer.wait()

    async def facts() -> None:
        store = SqliteStore(path)
        written: dict[str, str] = {}
        for word, name in (line for line in said if len(line) == 2):
            written[name] = word
        assert len(written) > 20
        for name, word in written.items():
            resource = await store.find(key(name))
            assert resource is not None, name
            assert resource.generation == 2 or word == "created"
        changes: dict[str, list[str]] = {}
        for event in await store.events(after=0, limit=10**6):
            changes.setdefault(event.key.name, []).append(event.change)
        for name, seen in changes.items():
            resource = await store.find(key(name))
            assert resource is not None
            assert seen == ["created", "spec"][: resource.generation]
            assert set(resource.spec) == {1: {"Half"}, 2: {"Half", "Other"}}[resource.generation]
        token, listed = None, 0
        while True:
            page = await store.list(
                Query("Job", "1", "r", labels={"Worker": "w"}, page_size=100, page_token=token)
            )
            listed += len(page.resources)
            token = page.next_token
            if token is None:
                break
        assert listed == len(changes)
        await store.close()

    asyncio.run(facts())
