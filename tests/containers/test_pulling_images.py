"""Images that the engine does not have come from their registries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from clary.resources.task import StopCause, TaskPhase
from clary.testing.container_images import Images
from clary.testing.image_registry import ImageRegistry

if TYPE_CHECKING:
    from conftest import Yard

pytestmark = pytest.mark.slow
TRAIN = "#!/bin/sh\necho pulled > /opt/ml/model/how\n"


@pytest.fixture
def registry(images: Images) -> Iterator[ImageRegistry]:
    image = images.make({"/usr/local/bin/train": TRAIN})
    with ImageRegistry(images.api, image) as made:
        images.api.remove_image(image)
        yield made


def forget(images: Images, image: str) -> None:
    with contextlib.suppress(Exception):
        images.api.remove_image(image, force=True)


def test_an_image_that_is_not_there_is_pulled_once(yard: Yard, registry: ImageRegistry) -> None:
    image = f"{registry.address}/team/algo:3"

    async def story() -> None:
        async with yard.open():
            status = await yard.run("first", image)
            assert status.phase is TaskPhase.SUCCEEDED, status
            asked = len(registry.requests)
            assert asked
            assert (await yard.run("second", image)).phase is TaskPhase.SUCCEEDED
            assert len(registry.requests) == asked
        async with yard.open(docker_pull="always"):
            assert (await yard.run("third", image)).phase is TaskPhase.SUCCEEDED
            assert len(registry.requests) > asked

    try:
        asyncio.run(story())
    finally:
        forget(yard.images, image)
    assert "out/first/output/model.tar.gz" in yard.world.objects["bucket"]


def test_a_job_is_stopped_while_its_image_is_pulled(yard: Yard, registry: ImageRegistry) -> None:
    registry.silent = True
    image = f"{registry.address}/team/algo:3"

    async def story() -> None:
        async with yard.open() as driver:
            await driver.start(yard.spec("job", image))
            await yard.eventually(lambda: registry.requests, "nobody asks the registry")
            await driver.stop("job", StopCause.REQUESTED)
            assert (await yard.ended("job")).phase is TaskPhase.STOPPED

    asyncio.run(story())


def test_a_pull_that_fails_says_why(yard: Yard, registry: ImageRegistry) -> None:
    registry.lose_parts()

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", f"{registry.address}/team/algo:4")
            assert status.phase is TaskPhase.FAILED
            assert "could not be pulled" in status.reason and "docker login" in status.reason

    asyncio.run(story())
