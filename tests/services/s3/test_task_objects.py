"""A task is told of its account's objects, with the files that hold them, and nobody else is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from clary.clock import ManualClock
from clary.compute.scripted import ScriptedDriver
from clary.objects.filesystem.store import FilesystemObjectStore
from clary.objects.object_store import PutOptions
from clary.protocol.wire import Headers, HttpRequest
from clary.resources.task import Connection, ServingWork, TaskSpec
from clary.resources.task_token import TaskIdentity, issue_task_token
from clary.services.s3 import task_objects as module
from clary.services.s3.task_objects import MOST_KEYS, PATH, task_objects

ACCOUNT, OTHER_ACCOUNT = "123456789012", "210987654321"
SECRET = b"s" * 32
KEYS = ("test/a", "train/a", "train/b", "train/ünïcode \x01")


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


class World:
    """A store with a few objects, and a driver."""

    def __init__(self, folder: Path) -> None:
        clock = ManualClock(0.0)
        self.driver = ScriptedDriver(clock)
        self.objects = FilesystemObjectStore(folder / "objects", clock)
        self._answer = task_objects(SECRET, self.driver, self.objects)

    async def fill(self) -> None:
        await self.objects.create_bucket("data", account=ACCOUNT, region="us-east-1")
        for key in KEYS:
            await self.objects.put("data", key, pieces(key.encode()), PutOptions())

    async def started(self, account: str = ACCOUNT) -> str:
        """Run a task of ``account``; its token."""
        token = issue_task_token(SECRET, TaskIdentity("task-1", account, ""))
        work = ServingWork("e", "v", {}, "ml.m5.large", "g", "s", 60.0, 60.0)
        connection = Connection("http://127.0.0.1:8750", "us-east-1", "", token)
        await self.driver.start(TaskSpec("task-1", "owner", work, connection, 1.0, 1024, 0, 1.0))
        return token

    async def ask(
        self, token: str, question: object, task_id: str = "task-1", method: str = "POST"
    ) -> tuple[int, Any]:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        headers = Headers([("authorization", token)])
        reply = await self._answer(HttpRequest(method, PATH + task_id, "", headers, pieces(body)))
        assert isinstance(reply.body, bytes)
        assert reply.headers.get("cache-control") == "no-store"
        return reply.status, json.loads(reply.body)


def run(folder: Path, facts: Callable[[World], Awaitable[None]]) -> None:
    async def within() -> None:
        world = World(folder)
        await world.fill()
        try:
            await facts(world)
        finally:
            await world.objects.close()

    asyncio.run(within())


def test_objects_below_a_prefix_come_with_the_files_that_hold_them(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        status, reply = await world.ask(await world.started(), {"bucket": "data", "prefix": "train/"})
        assert (status, reply["next"]) == (200, None)
        assert [key for key, _, _, _ in reply["objects"]] == list(KEYS[1:])
        for key, size, etag, path in reply["objects"]:
            assert Path(path).read_bytes() == key.encode()  # noqa: ASYNC240
            info = await world.objects.head("data", key)
            assert (size, etag) == (len(key.encode()), f'"{info.etag}"')

    run(tmp_path, facts)


def test_pages_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_OBJECTS", 3)

    async def facts(world: World) -> None:
        token = await world.started()
        _, first = await world.ask(token, {"bucket": "data", "prefix": ""})
        _, second = await world.ask(token, {"bucket": "data", "prefix": "", "after": first["next"]})
        assert [found[0] for found in first["objects"] + second["objects"]] == list(KEYS)
        assert second["next"] is None

    run(tmp_path, facts)


def test_single_keys_are_found_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        question = {"bucket": "data", "keys": ["test/a", "nothing", "train/b"]}
        _, reply = await world.ask(await world.started(), question)
        assert [found[0] for found in reply["objects"]] == ["test/a", "train/b"]

    run(tmp_path, facts)


def test_another_account_s_bucket_is_told_nothing_of(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        token = await world.started(OTHER_ACCOUNT)
        for question in ({"bucket": "data", "prefix": ""}, {"bucket": "data", "keys": ["test/a"]}):
            status, reply = await world.ask(token, question)
            assert (status, reply["code"]) == (403, "AccessDenied")
            assert "objects" not in reply

    run(tmp_path, facts)


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ({"bucket": "missing", "prefix": ""}, 404),
        ({"prefix": ""}, 400),
        ({"bucket": "data"}, 400),
        ({"bucket": "data", "keys": ["k"] * (MOST_KEYS + 1)}, 400),
        ({"bucket": "data", "keys": 7}, 400),
        ([], 400),
        (b"{", 400),
        (b"x" * (8 * 1024 * 1024 + 1), 413),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(tmp_path: Path, question: object, status: int) -> None:
    async def facts(world: World) -> None:
        assert (await world.ask(await world.started(), question))[0] == status

    run(tmp_path, facts)


def test_strangers_and_tasks_that_do_not_run_get_nothing(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        question = {"bucket": "data", "prefix": ""}
        idle = issue_task_token(SECRET, TaskIdentity("task-1", ACCOUNT, ""))
        assert (await world.ask(idle, question))[0] == 403
        token = await world.started()
        assert (await world.ask("forged", question))[0] == 403
        assert (await world.ask(token, question, task_id="task-2"))[0] == 403
        assert (await world.ask(token, question, method="GET"))[0] == 405
        assert (await world.ask(token, question))[0] == 200

    run(tmp_path, facts)
