"""Replicas: a model from S3 that answers on a socket, watched over by its agent."""

from __future__ import annotations

import asyncio
import http.client
import io
import os
import signal
import socket
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.compute.local import LocalDriver
from clary.resources.task import StopCause, TaskPhase, TaskSpec, TaskStatus
from clary.testing.agent_world import LOG_GROUP, AgentWorld, serving_spec

LIMIT_SECONDS = 60.0
ECHO = """
import os
def model_fn(folder):
    print('loading', sorted(os.listdir(folder)))
    return open(folder + '/weights.txt').read()
def input_fn(body, content_type):
    return body
def predict_fn(data, model):
    if data == 'die':
        os._exit(9)
    return [model, data]
def output_fn(prediction, accept):
    return str(prediction), 'text/plain'
"""
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("sandbox", ["auto", "none"])]


@asynccontextmanager
async def local_driver(data: Path, sandbox: str) -> AsyncIterator[LocalDriver]:
    driver = LocalDriver(data, sandbox=sandbox, preload=False)
    try:
        yield driver
    finally:
        await driver.close(stop_tasks=True)


async def until(driver: LocalDriver, spec: TaskSpec, wanted: Callable[[TaskStatus], bool]) -> TaskStatus:
    for _ in range(int(LIMIT_SECONDS / 0.02)):
        status = await driver.inspect(spec.id)
        assert status
        if wanted(status):
            return status
        assert not status.phase.final, status
        await asyncio.sleep(0.02)
    raise AssertionError(f"{spec.id} stays at {status}")


async def ended(driver: LocalDriver, spec: TaskSpec) -> TaskStatus:
    return await until(driver, spec, lambda status: status.phase.final)


async def healthy(driver: LocalDriver, spec: TaskSpec) -> TaskStatus:
    return await until(driver, spec, lambda status: bool(status.address))


def invoke(address: str | None, body: str) -> tuple[int, str]:
    assert address
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(address.removeprefix("unix:"))
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": "text/csv"})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def run(facts: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(facts())  # type: ignore[arg-type]


def test_a_replica_answers_until_it_is_stopped(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            spec = serving_spec(world, "replica", ECHO)
            async with local_driver(tmp_path, sandbox) as driver:
                await driver.start(spec)
                status = await healthy(driver, spec)
                assert status.phase is TaskPhase.RUNNING
                assert invoke(status.address, "1,2") == (200, "['7', '1,2']")
                await driver.stop("replica", StopCause.SUPERSEDED)
                assert (await ended(driver, spec)).phase is TaskPhase.STOPPED
                assert "loading ['code', 'weights.txt']" in world.lines(LOG_GROUP, "replica/i-1")
                await driver.remove("replica")
                assert not Path(str(status.address).removeprefix("unix:")).parent.exists()

    run(facts)


def test_a_broken_model_fails_with_its_cause(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            script = "def model_fn(folder):\n    raise KeyError('no such layer')\n"
            spec = serving_spec(world, "replica", script)
            async with local_driver(tmp_path, sandbox) as driver:
                await driver.start(spec)
                status = await ended(driver, spec)
                assert status.phase is TaskPhase.FAILED
                assert "KeyError: 'no such layer'" in status.reason
                assert "inference.py:2" in status.reason

    run(facts)


def test_a_model_that_never_answers_fails_in_time(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            script = "import time\ndef model_fn(folder):\n    time.sleep(600)\n"
            spec = serving_spec(world, "replica", script, startup_timeout_seconds=1.0)
            async with local_driver(tmp_path, sandbox) as driver:
                await driver.start(spec)
                status = await ended(driver, spec)
                assert status.phase is TaskPhase.FAILED
                assert "did not pass the ping health check within 1 seconds" in status.reason

    run(facts)


def test_a_worker_that_dies_is_started_again(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            spec = serving_spec(world, "replica", ECHO)
            async with local_driver(tmp_path, sandbox) as driver:
                await driver.start(spec)
                status = await healthy(driver, spec)
                with pytest.raises((ConnectionError, http.client.HTTPException)):
                    invoke(status.address, "die")
                await until(driver, spec, lambda status: status.phase is TaskPhase.PREPARING)
                status = await healthy(driver, spec)
                assert invoke(status.address, "3") == (200, "['7', '3']")

    run(facts)


def test_a_killed_agent_takes_its_worker_along(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            spec = serving_spec(world, "replica", ECHO)
            async with local_driver(tmp_path, sandbox) as driver:
                await driver.start(spec)
                status = await healthy(driver, spec)
                assert status.process_id
                os.kill(status.process_id, signal.SIGKILL)
                assert (await ended(driver, spec)).phase is TaskPhase.LOST
                for _ in range(500):
                    try:
                        invoke(status.address, "1")
                    except OSError:
                        return
                    await asyncio.sleep(0.01)
                raise AssertionError("the worker still answers")

    run(facts)


def evil_archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as packed:
        member = tarfile.TarInfo("../../../escaped")
        member.size = 4
        packed.addfile(member, io.BytesIO(b"evil"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["s3://bucket/models/replica.tar.gz", "404"]),
        (b"no archive", ["s3://bucket/models/replica.tar.gz", "no readable tar archive"]),
        (evil_archive(), ["s3://bucket/models/replica.tar.gz", "leads outside"]),
    ],
)
def test_bad_model_data_fails_with_its_address(
    tmp_path: Path, sandbox: str, content: bytes | None, words: list[str]
) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            spec = serving_spec(world, "replica", ECHO)
            del world.objects["bucket"]["models/replica.tar.gz"]
            if content is not None:
                world.objects["bucket"]["models/replica.tar.gz"] = content
            async with local_driver(tmp_path, sandbox) as driver:
                await driver.start(spec)
                status = await ended(driver, spec)
                assert status.phase is TaskPhase.FAILED
                for word in words:
                    assert word in status.reason
                assert not list(tmp_path.rglob("escaped"))  # noqa: ASYNC240

    run(facts)
