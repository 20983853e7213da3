"""What the embedded store shows beyond the contract: its files, crashes, full disks, upgrades."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clary.faults import Internal
from clary.objects.filesystem import index as rows
from clary.objects.filesystem.store import FilesystemObjectStore
from clary.objects.object_store import PutOptions
from clary.testing.object_store_conformance import STRANGE_KEYS

BUCKET = "bucket"

# Puts, overwrites, deletes and assembles objects, saying what was acknowledged.
WRITER = """
import asyncio, os, sys
from pathlib import Path
from clary.objects.filesystem.store import FilesystemObjectStore
from clary.objects.object_store import PutOptions

async def pieces(data):
    for start in range(0, len(data), 100_000):
        yield data[start:start + 100_000]

async def work(store, worker):
    number = 0
    while True:
        key = f"{sys.argv[2]}/{worker}/{number}"
        data = os.urandom(1) * (number % 7 * 150_000 + 10)
        print("begin", key, flush=True)
        if number % 3:
            made = await store.put("bucket", key, pieces(data), PutOptions())
        else:
            upload = (await store.create_upload("bucket", key, PutOptions())).upload_id
            part = await store.put_part("bucket", key, upload, 1, pieces(data), PutOptions())
            made = await store.complete_upload("bucket", key, upload, [(1, part.etag)], PutOptions())
        print("put", key, len(data), data[0], flush=True)
        if number % 5 == 4:
            print("deleting", key, flush=True)
            await store.delete("bucket", key)
            print("deleted", key, flush=True)
        number += 1

async def main():
    store = FilesystemObjectStore(Path(sys.argv[1]))
    await asyncio.gather(*(work(store, worker) for worker in range(4)))

asyncio.run(main())
"""


async def body(data: bytes) -> AsyncIterator[bytes]:
    yield data


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blobs").rglob("*") if path.is_file()}


async def opened(folder: Path) -> FilesystemObjectStore:
    store = FilesystemObjectStore(folder)
    if await store.find_bucket(BUCKET) is None:
        await store.create_bucket(BUCKET, account="1", region="r")
    return store


def test_what_was_put_is_there_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    async def facts() -> None:
        store = await opened(tmp_path)
        made = await store.put(BUCKET, "k", body(b"data"), PutOptions(metadata={"m": "1"}, tags={"t": "2"}))
        upload = await store.create_upload(BUCKET, "u", PutOptions(checksum_algorithm="CRC32"))
        part = await store.put_part(BUCKET, "u", upload.upload_id, 1, body(b"part"), PutOptions())
        await store.close()
        store = await opened(tmp_path)
        assert await store.sweep() == 0
        assert await store.head(BUCKET, "k") == made
        assert list(await store.list_parts(BUCKET, "u", upload.upload_id)) == [part]
        info = await store.complete_upload(BUCKET, "u", upload.upload_id, [(1, part.etag)], PutOptions())
        assert info.checksum_type == "COMPOSITE"
        await store.close()

    asyncio.run(facts())


def test_no_key_leads_out_of_the_folder_or_into_a_file_s_name(tmp_path: Path) -> None:
    folder = tmp_path / "objects"

    async def facts() -> None:
        store = await opened(folder)
        for key in STRANGE_KEYS:
            await store.put(BUCKET, key, body(b"x"), PutOptions())
        await store.close()

    asyncio.run(facts())
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]
    assert {path.name for path in folder.iterdir()} <= {
        "blobs",
        "index.sqlite",
        "index.sqlite-wal",
        "index.sqlite-shm",
    }
    names = files(folder)
    assert len(names) == len(STRANGE_KEYS)
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in names)


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "objects"

    async def facts() -> None:
        store = await opened(folder)
        await store.put(BUCKET, "k", body(b"x"), PutOptions())
        for path in folder.rglob("*"):
            # Bytes are never changed; that nobody else reads them is what their folders are for.
            allowed = 0o700 if path.is_dir() else 0o444 if "blobs" in path.parts else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == allowed, path
        await store.close()

    asyncio.run(facts())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_replaced_deleted_aborted_or_refused_leaves_no_file(tmp_path: Path) -> None:
    async def facts() -> None:
        store = await opened(tmp_path)
        await store.put(BUCKET, "k", body(b"1"), PutOptions())
        await store.put(BUCKET, "k", body(b"2"), PutOptions())
        upload = (await store.create_upload(BUCKET, "u", PutOptions())).upload_id
        await store.put_part(BUCKET, "u", upload, 1, body(b"1"), PutOptions())
        await store.put_part(BUCKET, "u", upload, 1, body(b"2"), PutOptions())
        assert len(files(tmp_path)) == 2
        await store.abort_upload(BUCKET, "u", upload)
        await store.delete(BUCKET, "k")
        for refused in (PutOptions(content_md5="###"), PutOptions(if_match="x")):
            with pytest.raises(Exception, match=r"MD5|key"):
                await store.put(BUCKET, "k", body(b"1"), refused)
        assert files(tmp_path) == set()
        await store.close()

    asyncio.run(facts())


def test_a_sweep_removes_what_a_crash_left_and_nothing_else(tmp_path: Path) -> None:
    async def facts() -> None:
        store = await opened(tmp_path)
        await store.put(BUCKET, "k", body(b"1"), PutOptions())
        kept = files(tmp_path)
        for name in ("ab" * 16, "cd" * 16 + ".new"):
            (tmp_path / "blobs" / name[:2] / name).write_bytes(b"left")
        await store.close()
        store = await opened(tmp_path)
        assert await store.sweep() == 2
        assert files(tmp_path) == kept
        await store.close()

    asyncio.run(facts())


def test_a_folder_of_a_newer_clary_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("PRAGMA user_version = 9999")
    with pytest.raises(RuntimeError, match=r"newer Clary"):
        FilesystemObjectStore(tmp_path)


def test_an_index_of_the_first_schema_is_read(tmp_path: Path) -> None:
    """Its completions and objects name the sizes of their parts, where later ones count them."""

    async def facts() -> None:
        store = await opened(tmp_path)
        upload = (await store.create_upload(BUCKET, "k", PutOptions())).upload_id
        part = await store.put_part(BUCKET, "k", upload, 1, body(b"data"), PutOptions())
        made = await store.complete_upload(BUCKET, "k", upload, [(1, part.etag)], PutOptions())
        await store.close()
        with sqlite3.connect(tmp_path / "index.sqlite") as index:
            (text,) = index.execute("SELECT completed FROM uploads").fetchone()
            document = json.loads(text)
            del document["part_count"]
            index.execute("UPDATE uploads SET completed = ?", (json.dumps({**document, "part_sizes": [4]}),))
            assert index.execute("PRAGMA user_version").fetchone() == (1,)
        store = await opened(tmp_path)
        assert await store.complete_upload(BUCKET, "k", upload, [(1, part.etag)], PutOptions()) == made
        assert await store.head(BUCKET, "k") == made
        await store.close()

    asyncio.run(facts())


def test_an_index_that_cannot_grow_says_so_and_changes_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk; the bytes still fit, the row does not."""
    script = (
        "import asyncio, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from clary.faults import Unavailable\n"
        "from clary.objects.filesystem.store import FilesystemObjectStore\n"
        "from clary.objects.object_store import PutOptions\n"
        "async def body(data):\n"
        "    yield data\n"
        "async def main():\n"
        "    store = FilesystemObjectStore(Path(sys.argv[1]))\n"
        "    await store.put('bucket', 'k', body(b'old'), PutOptions())\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        await store.put('bucket', 'k', body(b'newer'), PutOptions())\n"
        "    except Unavailable as fault:\n"
        "        print('refused:', fault.message)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    print('size', (await store.head('bucket', 'k')).size_bytes)\n"
        "    await store.put('bucket', 'again', body(b'1'), PutOptions())\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )

    async def check() -> None:
        store = await opened(tmp_path)
        assert await store.sweep() == 0
        await store.close()

    asyncio.run(check())
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "refused:" in ended.stdout
    assert "size 3" in ended.stdout
    asyncio.run(check())


def test_a_copy_costs_no_second_file_of_bytes_and_outlives_its_source(tmp_path: Path) -> None:
    async def facts() -> None:
        store = await opened(tmp_path)
        await store.put(BUCKET, "k", body(b"data"), PutOptions(checksum_algorithm="CRC32"))
        await store.copy(BUCKET, "k", BUCKET, "copy", None)
        one, two = await store.local_paths([await store.head(BUCKET, key) for key in ("k", "copy")])
        assert one != two
        assert Path(str(one)).samefile(str(two))  # noqa: ASYNC240
        await store.delete(BUCKET, "k")
        assert Path(str(two)).read_bytes() == b"data"  # noqa: ASYNC240
        await store.close()
        store = await opened(tmp_path)
        assert await store.sweep() == 0
        await store.close()

    asyncio.run(facts())


def test_bytes_that_vanished_from_the_disk_are_named(tmp_path: Path) -> None:
    async def facts() -> None:
        store = await opened(tmp_path)
        info = await store.put(BUCKET, "k", body(b"data"), PutOptions())
        [path] = await store.local_paths([info])
        Path(str(path)).unlink()  # noqa: ASYNC240
        with pytest.raises(Internal, match="bucket/k are not on the disk"):
            await store.read(BUCKET, "k")
        await store.close()

    asyncio.run(facts())


def test_a_step_over_a_common_prefix_does_not_read_its_keys(tmp_path: Path) -> None:
    """Counted in SQLite's own instructions: a prefix of many keys costs what one of a few costs."""

    async def steps(store: FilesystemObjectStore) -> int:
        count = 0

        def work(connection: sqlite3.Connection) -> int:
            def tick() -> int:
                nonlocal count
                count += 1
                return 0

            connection.set_progress_handler(tick, 1)
            listing = rows.list_objects(connection, BUCKET, "", "/", "", 1000)
            connection.set_progress_handler(None, 0)
            assert listing.common_prefixes == ["a/", "b/"]
            return count

        return await store._index.read(work)

    async def facts() -> None:
        store = await opened(tmp_path)
        for key in ("a/1", "b/1"):
            await store.put(BUCKET, key, body(b""), PutOptions())
        few = await steps(store)

        def fill(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO objects SELECT bucket, ?, blob, size, etag, modified_at, details FROM objects"
                " WHERE key = CAST('a/1' AS BLOB)",
                [(f"a/1/{number}".encode(),) for number in range(5000)],
            )

        await store._index.write(fill)
        assert await steps(store) <= few + 10
        await store.close()

    asyncio.run(facts())


def test_a_disk_that_refuses_more_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails with the operating system's error."""
    script = (
        "import asyncio, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from clary.faults import Unavailable\n"
        "from clary.objects.filesystem.store import FilesystemObjectStore\n"
        "from clary.objects.object_store import PutOptions\n"
        "async def body(data):\n"
        "    yield data\n"
        "async def main():\n"
        "    store = FilesystemObjectStore(Path(sys.argv[1]))\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    await store.put('bucket', 'k', body(b'old'), PutOptions())\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        await store.put('bucket', 'k', body(b'n' * 5_000_000), PutOptions())\n"
        "    except Unavailable as fault:\n"
        "        print(fault.message)\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )

    async def before() -> None:
        await (await opened(tmp_path)).close()

    asyncio.run(before())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] in (resource.RLIM_INFINITY, -1)
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "could not be written" in ended.stdout

    async def after() -> None:
        store = await opened(tmp_path)
        assert await store.sweep() == 0
        assert (await store.head(BUCKET, "k")).size_bytes == 3
        await store.close()

    asyncio.run(after())


@pytest.mark.slow
def test_killed_in_the_middle_of_puts_objects_are_whole_or_absent(tmp_path: Path) -> None:
    asyncio.run(_closed(tmp_path))
    chance = random.Random(11)
    for turn in range(6):
        output = tmp_path / f"output-{turn}"
        with output.open("wb") as file:
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path), str(turn)],
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while output.stat().st_size < 400 and time.monotonic() < deadline and writer.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.6)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        lines = output.read_text().splitlines()
        assert not [line for line in lines if "Traceback" in line], "\n".join(lines[-30:])
        asyncio.run(_check(tmp_path, lines, f"{turn}/"))


async def _closed(folder: Path) -> None:
    await (await opened(folder)).close()


async def _check(folder: Path, lines: list[str], prefix: str) -> None:
    """Whatever was acknowledged is there; whatever is there is whole; no file is left over."""
    put: dict[str, tuple[int, int]] = {}
    began: set[str] = set()
    gone: set[str] = set()
    maybe: set[str] = set()
    for line in lines[:-1] if lines and not lines[-1].endswith(tuple("0123456789")) else lines:
        word, key, *rest = line.split()
        if word == "begin":
            began.add(key)
        elif word == "put" and len(rest) == 2:
            put[key] = (int(rest[0]), int(rest[1]))
        elif word == "deleting":
            maybe.add(key)
        elif word == "deleted":
            gone.add(key)
    store = await opened(folder)
    await store.sweep()
    listed = (await store.list(BUCKET, prefix=prefix)).objects
    there = {info.key: info for info in listed}
    assert put, "the writer was killed before it had done anything"
    for key in put:
        assert key in there or key in maybe, f"{key} was acknowledged and is lost"
    for key in gone:
        assert key not in there, f"{key} was deleted and is back"
    for key, info in there.items():
        assert key in began
        _, pieces = await store.read(BUCKET, key)
        data = b"".join([piece async for piece in pieces])
        assert len(data) == info.size_bytes
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        if info.part_count:
            digest = hashlib.md5(digest, usedforsecurity=False).digest()
        assert info.etag.startswith(digest.hex())
        if key in put:
            assert (len(data), data[0]) == put[key]
    await store.close()
    with sqlite3.connect(folder / "index.sqlite") as index:
        known = {row[0] for row in index.execute("SELECT blob FROM objects UNION SELECT blob FROM parts")}
    assert files(folder) == known
