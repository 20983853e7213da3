"""Jobs that bring a requirements.txt get a Python environment, built once."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import zipfile
from pathlib import Path

import pytest

from clary.agent.runtimes.environments import make_room
from clary.compute.local import LocalDriver
from clary.resources.task import TaskPhase, TaskStatus
from clary.testing.agent_world import LOG_GROUP, AgentWorld, training_spec

LIMIT_SECONDS = 120.0
INSTALLING = "Installing the packages of requirements.txt"


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


@pytest.fixture(params=["auto", "none"])
def sandbox(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_jobs_that_want_the_same_packages_at_once_share_them(tmp_path: Path, sandbox: str) -> None:
    script = "import tinything, time\ntime.sleep(0.5)\nprint('tiny', tinything.VERSION)\n"

    async def facts() -> None:
        driver = LocalDriver(tmp_path, sandbox=sandbox, preload=False, cpu_count=4.0)
        try:
            with AgentWorld() as world:
                for task_id in ("one", "two"):
                    await driver.start(training_spec(world, task_id, script, files=files("1.0")))
                said = []
                for task_id in ("one", "two"):
                    status = await ended(driver, task_id)
                    lines = world.lines(LOG_GROUP, f"{task_id}/algo-1-1")
                    assert status.phase is TaskPhase.SUCCEEDED and "tiny 1.0" in lines, (status, lines)
                    said += lines
                assert said.count(INSTALLING) == 1
        finally:
            await driver.close(stop_tasks=True)

    asyncio.run(facts())


def test_environments_that_were_not_used_for_longest_go_unless_a_task_uses_them(tmp_path: Path) -> None:
    for age, name in enumerate(("newest", "used", "older", "oldest")):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "complete").touch()
        os.utime(tmp_path / name / "complete", (1_000_000 - age, 1_000_000 - age))
    (tmp_path / "unfinished").mkdir()
    with (tmp_path / "used.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        make_room(tmp_path, 1)
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {"newest", "used", "unfinished"}
    make_room(tmp_path, 1)
    assert not (tmp_path / "used").exists() and (tmp_path / "newest").exists()
