"""Jobs that bring a requirements.txt get a Python environment, built once."""

from __future__ import annotations

import asyncio
import io
import zipfile
from pathlib import Path

import pytest

from clary.compute.local import LocalDriver
from clary.resources.task import TaskPhase, TaskStatus
from clary.testing.agent_world import LOG_GROUP, AgentWorld, training_spec

LIMIT_SECONDS = 120.0
INSTALLING = "Installing the packages of requirements.txt"
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("sandbox", ["auto", "none"])]


def wheel(version: str) -> bytes:
    """A package of one module, as pip takes it without any network."""
    content = io.BytesIO()
    info = f"tinything-{version}.dist-info"
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr(zipfile.ZipInfo("tinything.py"), f"VERSION = {version!r}\n")
        packed.writestr(
            zipfile.ZipInfo(f"{info}/METADATA"),
            f"Metadata-Version: 2.1\nName: tinything\nVersion: {version}\n",
        )
        packed.writestr(
            zipfile.ZipInfo(f"{info}/WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "")
    return content.getvalue()


def files(version: str) -> dict[str, str | bytes]:
    name = f"tinything-{version}-py3-none-any.whl"
    return {"requirements.txt": f"./{name}\n", name: wheel(version)}


async def ended(driver: LocalDriver, task_id: str) -> TaskStatus:
    for _ in range(int(LIMIT_SECONDS / 0.02)):
        status = await driver.inspect(task_id)
        assert status
        if status.phase.final:
            return status
        await asyncio.sleep(0.02)
    raise AssertionError(f"{task_id} does not end")


def test_packages_are_installed_once_for_each_content(tmp_path: Path, sandbox: str) -> None:
    script = "import numpy, tinything\nprint('tiny', tinything.VERSION, numpy.ones(2).sum())\n"

    async def facts() -> None:
        driver = LocalDriver(tmp_path, sandbox=sandbox, preload=False)
        try:
            with AgentWorld() as world:
                for task_id, version in (("first", "1.0"), ("again", "1.0"), ("other", "2.0")):
                    await driver.start(training_spec(world, task_id, script, files=files(version)))
                    status = await ended(driver, task_id)
                    lines = world.lines(LOG_GROUP, f"{task_id}/algo-1-1")
                    assert status.phase is TaskPhase.SUCCEEDED, (status, lines)
                    assert f"tiny {version} 2.0" in lines
                    assert (INSTALLING in lines) == (task_id != "again")
                await driver.start(training_spec(world, "without", script))
                assert "No module named 'tinything'" in (await ended(driver, "without")).reason
        finally:
            await driver.close(stop_tasks=True)

    asyncio.run(facts())


def test_packages_that_cannot_be_installed_fail_the_job_with_pips_error(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        driver = LocalDriver(tmp_path, sandbox=sandbox, preload=False)
        try:
            with AgentWorld() as world:
                bad = {"requirements.txt": "./missing-1.0-py3-none-any.whl\n"}
                for task_id in ("one", "two"):
                    await driver.start(training_spec(world, task_id, "", files=bad))
                    status = await ended(driver, task_id)
                    assert status.phase is TaskPhase.FAILED
                    assert status.reason.startswith("ClientError: requirements.txt could not be installed: ")
                    assert "missing-1.0" in status.reason
        finally:
            await driver.close(stop_tasks=True)

    asyncio.run(facts())
