"""``CLARY_DEBUGPY``: a debugger attaches to a script in its sandbox, by the protocol that editors speak."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from clary.compute.local import LocalDriver
from clary.resources.task import StopCause, TaskPhase, TaskStatus
from clary.testing.agent_world import LOG_GROUP, SCRIPT_IMAGE, AgentWorld, channel, training_spec

LIMIT_SECONDS = 120.0
SCRIPT = "rows = 40 + 2\nprint('ROWS', rows)\n"
SEEN = "/opt/ml/code/train.py"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def debugpy_is_there() -> None:
    if importlib.util.find_spec("debugpy") is None:
        assert "CLARY_TESTS_MUST_RUN" not in os.environ, "the extra 'debug' must be installed here"
        pytest.skip("needs debugpy: pip install 'clary[debug]'")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Editor:
    """A client of the Debug Adapter Protocol: a few requests, and the events that come in between."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._file = self._socket.makefile("rb")
        self._sent = 0
        self._read: list[dict[str, Any]] = []

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, command: str, **arguments: Any) -> int:
        self._sent += 1
        request = {"seq": self._sent, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(request).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self._sent

    def event(self, name: str) -> dict[str, Any]:
        return self._next(lambda message: message.get("event") == name)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        number = self.send(command, **arguments)
        reply = self._next(lambda message: message.get("request_seq") == number)
        assert reply["success"], reply
        return dict(reply.get("body") or {})

    def _next(self, wanted: Any) -> dict[str, Any]:
        while True:
            for place, message in enumerate(self._read):
                if wanted(message):
                    return self._read.pop(place)
            self._read.append(self._message())

    def _message(self) -> dict[str, Any]:
        length = 0
        while (line := self._file.readline()) != b"\r\n":
            assert line, "the debugger closed the connection"
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return dict(json.loads(self._file.read(length)))


def look_at_rows(port: int) -> str:
    """Attach, stop in line 2, read a variable, let the script go on."""
    editor = Editor(port)
    try:
        editor.ask("initialize", adapterID="clary", linesStartAt1=True, pathFormat="path")
        editor.send("attach", justMyCode=False)
        editor.event("initialized")
        editor.ask("setBreakpoints", source={"path": SEEN}, breakpoints=[{"line": 2}])
        editor.ask("configurationDone")
        thread = editor.event("stopped")["body"]["threadId"]
        [frame, *_] = editor.ask("stackTrace", threadId=thread)["stackFrames"]
        assert (frame["source"]["path"], frame["line"]) == (SEEN, 2)
        value = str(editor.ask("evaluate", expression="rows", frameId=frame["id"])["result"])
        editor.ask("continue", threadId=thread)
        return value
    finally:
        editor.close()


async def ended(driver: LocalDriver, task_id: str) -> TaskStatus:
    for _ in range(int(LIMIT_SECONDS / 0.02)):
        status = await driver.inspect(task_id)
        assert status
        if status.phase.final:
            return status
        await asyncio.sleep(0.02)
    raise AssertionError(f"{task_id} does not end")


def test_a_script_waits_for_its_debugger_which_sees_it_through_the_sandbox(tmp_path: Path) -> None:
    async def facts() -> None:
        driver = LocalDriver(tmp_path, preload=False)
        port = free_port()
        try:
            with AgentWorld() as world:
                environment = {"CLARY_DEBUGPY": str(port)}
                await driver.start(training_spec(world, "task", SCRIPT, Environment=environment))
                log = (LOG_GROUP, "task/algo-1-1")
                for _ in range(int(LIMIT_SECONDS / 0.05)):
                    if any(line.startswith("Waiting for a debugger on ") for line in world.lines(*log)):
                        break
                    await asyncio.sleep(0.05)
                status = await driver.inspect("task")
                assert status and status.phase is TaskPhase.RUNNING
                assert await asyncio.to_thread(look_at_rows, port) == "42"
                status = await ended(driver, "task")
                lines = world.lines(*log)
                assert status.phase is TaskPhase.SUCCEEDED, (status, lines)
                [waiting] = [line for line in lines if line.startswith("Waiting for a debugger")]
                assert f"127.0.0.1:{port}" in waiting and '"remoteRoot": "/opt/ml/code"' in waiting
                assert lines.index("A debugger is attached.") < lines.index("ROWS 42")
        finally:
            await driver.close(stop_tasks=True)

    asyncio.run(facts())


def test_a_script_that_waits_for_a_debugger_can_be_stopped(tmp_path: Path) -> None:
    async def facts() -> None:
        driver = LocalDriver(tmp_path, preload=False)
        try:
            with AgentWorld() as world:
                environment = {"CLARY_DEBUGPY": str(free_port())}
                await driver.start(training_spec(world, "task", SCRIPT, Environment=environment))
                for _ in range(int(LIMIT_SECONDS / 0.05)):
                    if any(
                        "Waiting for a debugger" in line for line in world.lines(LOG_GROUP, "task/algo-1-1")
                    ):
                        break
                    await asyncio.sleep(0.05)
                await driver.stop("task", StopCause.REQUESTED)
                assert (await ended(driver, "task")).phase is TaskPhase.STOPPED
        finally:
            await driver.close(stop_tasks=True)

    asyncio.run(facts())


def test_the_entry_script_of_a_command_waits_and_what_starts_it_does_not(tmp_path: Path) -> None:
    starter = "import os, subprocess, sys\nsubprocess.run([sys.executable, 'train.py', 'x'], check=True)\n"

    async def facts() -> None:
        driver = LocalDriver(tmp_path, preload=False)
        port = free_port()
        words = "cp -r /opt/ml/input/data/code /opt/ml && cd /opt/ml/code && exec python starter.py"
        request = {
            "AlgorithmSpecification": {
                "TrainingImage": SCRIPT_IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["/bin/bash", "-c", f"export SM_ENTRY_SCRIPT=train.py; {words}"],
            },
            "InputDataConfig": [channel("code", "s3://bucket/source/")],
            "Environment": {"CLARY_DEBUGPY": str(port)},
        }
        try:
            with AgentWorld() as world:
                spec = training_spec(world, "task", **request)
                world.objects["bucket"]["source/train.py"] = SCRIPT.encode()
                world.objects["bucket"]["source/starter.py"] = starter.encode()
                await driver.start(spec)
                log = (LOG_GROUP, "task/algo-1-1")
                for _ in range(int(LIMIT_SECONDS / 0.05)):
                    if any(line.startswith("Waiting for a debugger on ") for line in world.lines(*log)):
                        break
                    await asyncio.sleep(0.05)
                assert await asyncio.to_thread(look_at_rows, port) == "42"
                status = await ended(driver, "task")
                assert status.phase is TaskPhase.SUCCEEDED, (status, world.lines(*log))
                assert "ROWS 42" in world.lines(*log)
        finally:
            await driver.close(stop_tasks=True)

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("value", "words"),
    [("soon", "must be a port or host:port"), ("192.0.2.1:5678", "cannot listen on 192.0.2.1:5678")],
)
def test_a_debugger_that_cannot_listen_fails_the_job(tmp_path: Path, value: str, words: str) -> None:
    async def facts() -> None:
        driver = LocalDriver(tmp_path, preload=False)
        try:
            with AgentWorld() as world:
                spec = training_spec(world, "task", SCRIPT, Environment={"CLARY_DEBUGPY": value})
                await driver.start(spec)
                status = await ended(driver, "task")
                assert status.phase is TaskPhase.FAILED
                assert status.reason.startswith("ClientError: CLARY_DEBUGPY") and words in status.reason
        finally:
            await driver.close(stop_tasks=True)

    asyncio.run(facts())
