"""A real container engine, images made of this machine's files, and a driver whose tasks run in them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clary.agent.runtimes.docker import TASKS_LABEL
from clary.compute.local import LocalDriver
from clary.resources.task import TaskSpec, TaskStatus
from clary.testing.agent_world import LOG_GROUP, AgentWorld, training_spec
from clary.testing.container_images import Images, engine_here

LIMIT_SECONDS = 90.0
GIB = 1024**3


@pytest.fixture(scope="session")
def images() -> Iterator[Images]:
    complaint = engine_here()
    if complaint:
        pytest.skip(complaint)
    made = Images()
    made.base()
    yield made
    made.close()


class Yard:
    """One Clary's tasks: a world they talk to, a driver, and the engine."""

    def __init__(self, data: Path, world: AgentWorld, images: Images) -> None:
        self.data, self.world, self.images = data, world, images
        self.driver: LocalDriver

    def spec(
        self,
        task_id: str,
        image: str,
        *,
        hyperparameters: dict[str, str] | None = None,
        algorithm: dict[str, Any] | None = None,
        memory_bytes: int = GIB,
        grace_seconds: float = 20.0,
        **request: Any,
    ) -> TaskSpec:
        spec = training_spec(
            self.world,
            task_id,
            grace_seconds=grace_seconds,
            **{
                "HyperParameters": hyperparameters or {},
                "AlgorithmSpecification": {
                    "TrainingImage": image,
                    "TrainingInputMode": "File",
                    **(algorithm or {}),
                },
                **request,
            },
        )
        return replace(spec, memory_bytes=memory_bytes)

    async def run(self, task_id: str, image: str, **options: Any) -> TaskStatus:
        await self.driver.start(self.spec(task_id, image, **options))
        return await self.ended(task_id)

    async def ended(self, task_id: str) -> TaskStatus:
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            status = await self.driver.inspect(task_id)
            assert status is not None
            if status.phase.final:
                return status
            assert time.monotonic() < deadline, (status, self.lines(task_id))
            await asyncio.sleep(0.02)

    def lines(self, task_id: str) -> list[str]:
        return self.world.lines(LOG_GROUP, f"{task_id}/algo-1-1")

    async def said(self, task_id: str, text: str) -> None:
        await self.eventually(
            lambda: any(text in line for line in self.lines(task_id)), f"{task_id} never said {text!r}"
        )

    async def eventually(self, fact: Callable[[], object], complaint: str) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not fact():
            assert time.monotonic() < deadline, complaint
            await asyncio.sleep(0.05)

    def containers(self) -> list[dict[str, Any]]:
        """Those of this Clary."""
        label = f"{TASKS_LABEL}={self.data / 'tasks'}"
        return list(self.images.api.containers(all=True, filters={"label": label}))

    def networks(self) -> list[dict[str, Any]]:
        return list(self.images.api.networks(filters={"label": f"{TASKS_LABEL}={self.data / 'tasks'}"}))

    def left(self) -> list[Any]:
        """What the engine, or Clary's own records, have of tasks of this Clary."""
        records = self.data / "containers"
        return [*self.containers(), *self.networks(), *(records.iterdir() if records.is_dir() else ())]

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[LocalDriver]:
        self.driver = LocalDriver(self.data, preload=False, **options)
        await self.driver.open()
        try:
            yield self.driver
        finally:
            await self.driver.close(stop_tasks=True)


@pytest.fixture
def yard(tmp_path: Path, images: Images) -> Iterator[Yard]:
    with AgentWorld() as world:
        made = Yard(tmp_path / "data", world, images)
        yield made
        assert made.left() == []
