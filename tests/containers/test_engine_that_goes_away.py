"""An engine that goes away while a container runs, for a while or for good."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clary.resources.task import TaskPhase
from clary.testing.container_images import Images

if TYPE_CHECKING:
    from conftest import Yard

pytestmark = pytest.mark.slow
TALK = """#!/usr/bin/python3
import os, time
print("ready", flush=True)
while not os.path.exists("/opt/ml/checkpoints/go"):
    time.sleep(0.05)
for number in range(20):
    print("later", number, flush=True)
    time.sleep(0.1)
open("/opt/ml/model/weights", "w").write("1")
"""


class Door:
    """A socket behind which the engine is, and that can be closed."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path, self._engine = path, engine
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        assert self._listener
        self.path.unlink()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(self._engine)
            with self._lock:
                self._open += [caller, engine]
            for source, target in ((caller, engine), (engine, caller)):
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def door(tmp_path: Path, images: Images) -> Iterator[Door]:
    made = Door(tmp_path / "door.sock", images.address.removeprefix("unix://"))
    yield made
    if made.path.exists():
        made.close()


def test_a_job_goes_on_after_an_engine_that_was_away(yard: Yard, door: Door) -> None:
    image = yard.images.make({"/usr/local/bin/train": TALK})

    async def story() -> None:
        async with yard.open(docker_host=f"unix://{door.path}") as driver:
            await driver.start(yard.spec("job", image))
            await yard.said("job", "ready")
            door.close()
            await asyncio.sleep(1.5)
            door.open()
            await asyncio.sleep(1.5)
            (yard.data / "tasks/job/ml/checkpoints/go").touch()
            status = await yard.ended("job")
            assert status.phase is TaskPhase.SUCCEEDED, status
            assert "later 19" in yard.lines("job")

    asyncio.run(story())


def test_a_job_fails_whose_engine_stays_away_and_nothing_is_left_when_it_is_back(
    yard: Yard, door: Door
) -> None:
    image = yard.images.make({"/usr/local/bin/train": TALK})

    async def story() -> None:
        async with yard.open(docker_host=f"unix://{door.path}") as driver:
            await driver.start(yard.spec("job", image))
            await yard.said("job", "ready")
            door.close()
            status = await yard.ended("job")
            assert status.phase is TaskPhase.FAILED
            assert f"no container engine answers at unix://{door.path}" in status.reason
            assert len(yard.containers()) == 1
            door.open()
            await driver.remove("job")
            assert yard.containers() == []

    asyncio.run(story())
