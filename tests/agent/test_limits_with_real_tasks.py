"""Tasks that use more than they may: each ends with its reason and leaves nothing behind."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clary.agent.cgroups import NAME_PREFIX, find_places
from clary.compute.local import LocalDriver
from clary.compute.local.fencing import bubblewrap_works
from clary.resources.task import TaskPhase, TaskStatus
from clary.testing.agent_world import LOG_GROUP, AgentWorld, serving_spec, training_spec

pytestmark = pytest.mark.slow
LIMIT_SECONDS = 90.0
MIB = 1024**2
WITH_GROUPS = [
    *([pytest.param(True, id="counted-by-the-kernel")] if find_places() else []),
    pytest.param(False, id="watched"),
]
needs_sandbox = pytest.mark.skipif(bool(bubblewrap_works()), reason="bubblewrap does not work here")

HOG = """
import time
kept = []
while True:
    kept.append(bytearray(b"x" * (8 << 20)))
    time.sleep(0.01)
"""
TOGETHER = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        kept = bytearray(b"x" * (60 << 20))
        time.sleep(600)
time.sleep(600)
"""
BOMB = """
import os, time
for _ in range(400):  # a bomb that cannot hurt
    try:
        if os.fork() == 0:
            time.sleep(600)
    except OSError:
        time.sleep(600)
time.sleep(600)
"""
RESTLESS_BOMB = """
import os, time
end = time.monotonic() + 60  # whatever happens
while time.monotonic() < end:
    try:
        os.fork()
    except OSError:
        pass
"""
FILL = """
import os, time
os.makedirs({folder!r}, exist_ok=True)
for number in range(20):
    with open({folder!r} + "/part-%d" % number, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64 << 20)
time.sleep(600)
"""
ONE_FILE = """
with open("/opt/ml/model/huge", "wb", buffering=0) as file:
    file.seek(1 << 30)
    file.write(b"more")
"""
WITHIN = """
import os
kept = bytearray(b"x" * (64 << 20))
with open(os.environ["SM_MODEL_DIR"] + "/weights", "wb") as file:
    file.write(kept[: 1 << 20])
for number in range(20):
    if os.fork() == 0:
        os._exit(0)
    os.wait()
print("done")
"""


@pytest.fixture
def world() -> Iterator[AgentWorld]:
    with AgentWorld() as made:
        yield made


def processes_naming(data: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                links = [str(link.readlink()) for link in (entry / "fd").iterdir()]
            except OSError:
                continue
            if str(data) in command or any(link.startswith(str(data)) for link in links):
                found.append(f"{entry.name}: {command}")
    return found


def groups_of(processes: set[str]) -> list[Path]:
    """Control groups that agents of ``processes`` made and that are left."""
    places = find_places()
    left = [] if places is None else [group for p in places.folders for group in p.glob(f"{NAME_PREFIX}*")]
    return [group for group in left if group.name.split("-")[2] in processes]


def outcome(
    tmp_path: Path,
    world: AgentWorld,
    script: str,
    *,
    sandbox: str = "auto",
    memory_bytes: int = 8 * 1024 * MIB,
    volume: int = 30,
    driver_memory_bytes: int = 0,
    **options: Any,
) -> TaskStatus:
    """How a task with ``script`` ends, after which nothing of it may be left."""

    async def facts() -> TaskStatus:
        driver = LocalDriver(
            tmp_path / "data", sandbox=sandbox, preload=False, memory_bytes=driver_memory_bytes, **options
        )
        await driver.open()
        try:
            resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": volume}
            spec = training_spec(world, "task-1", script, ResourceConfig=resources)
            await driver.start(dataclasses.replace(spec, memory_bytes=memory_bytes, cpu_count=1.0))
            deadline = time.monotonic() + LIMIT_SECONDS
            while True:
                status = await driver.inspect("task-1")
                assert status is not None
                if status.phase.final:
                    break
                assert time.monotonic() < deadline, status
                await asyncio.sleep(0.02)
            while groups_of({str(status.process_id)}):
                assert time.monotonic() < deadline, "a control group is left"
                await asyncio.sleep(0.02)
            return status
        finally:
            await driver.close(stop_tasks=True)
            deadline = time.monotonic() + LIMIT_SECONDS
            while processes_naming(tmp_path / "data"):
                assert time.monotonic() < deadline, processes_naming(tmp_path / "data")
                await asyncio.sleep(0.02)

    return asyncio.run(facts())


@pytest.mark.parametrize("cgroups", WITH_GROUPS)
@pytest.mark.parametrize("script", [HOG, TOGETHER], ids=["one-hog", "many-children"])
def test_too_much_memory_ends_a_job_with_figure_limit_and_remedy(
    tmp_path: Path, world: AgentWorld, script: str, cgroups: bool
) -> None:
    status = outcome(tmp_path, world, script, memory_bytes=256 * MIB, cgroups=cgroups)
    assert status.phase is TaskPhase.FAILED
    assert status.reason.startswith("ClientError: OutOfMemoryError: the algorithm "), status.reason
    assert "ml.m5.large has 256 MiB" in status.reason
    assert "Choose an instance type with more memory" in status.reason


@pytest.mark.parametrize("cgroups", WITH_GROUPS)
@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_a_fork_bomb_ends_with_its_reason(
    tmp_path: Path, world: AgentWorld, cgroups: bool, sandbox: str
) -> None:
    status = outcome(tmp_path, world, BOMB, task_processes=100, cgroups=cgroups, sandbox=sandbox)
    assert status.phase is TaskPhase.FAILED
    assert "ProcessLimitExceeded: the algorithm has more than 100 processes and threads" in status.reason


if find_places():

    def test_a_fork_bomb_that_goes_on_is_ended_without_a_sandbox_too(
        tmp_path: Path, world: AgentWorld
    ) -> None:
        status = outcome(tmp_path, world, RESTLESS_BOMB, task_processes=60, sandbox="none")
        assert status.phase is TaskPhase.FAILED
        assert "ProcessLimitExceeded" in status.reason


@needs_sandbox
@pytest.mark.parametrize("folder", ["/opt/ml/model", "/tmp/cache"])
def test_more_than_the_volume_holds_ends_a_job_wherever_it_was_written(
    tmp_path: Path, world: AgentWorld, folder: str
) -> None:
    status = outcome(tmp_path, world, FILL.format(folder=folder), volume=1)
    assert status.phase is TaskPhase.FAILED
    assert "VolumeSizeInGB is 1. Most of it is in " + folder in status.reason
    assert status.reason.startswith("ClientError: DiskQuotaExceeded: the algorithm wrote 1.")


@needs_sandbox
def test_one_file_cannot_be_larger_than_the_volume(tmp_path: Path, world: AgentWorld) -> None:
    status = outcome(tmp_path, world, ONE_FILE, volume=1)
    assert status.phase is TaskPhase.FAILED
    assert "OSError: [Errno 27] File too large (/opt/ml/code/train.py:4)" in status.reason
    assert status.reason.endswith(
        "a file cannot be larger than the volume of 1 GiB: ask for a larger VolumeSizeInGB, exit code: 1"
    )


@pytest.mark.parametrize("cgroups", WITH_GROUPS)
def test_a_job_within_its_limits_is_untouched(tmp_path: Path, world: AgentWorld, cgroups: bool) -> None:
    status = outcome(tmp_path, world, WITHIN, memory_bytes=512 * MIB, volume=1, cgroups=cgroups)
    assert status.phase is TaskPhase.SUCCEEDED, status.reason
    lines = world.lines(LOG_GROUP, "task-1/algo-1-1")
    assert "done" in lines
    assert not any("this machine gives" in line for line in lines)


def test_a_task_whose_agent_is_killed_leaves_no_group(tmp_path: Path, world: AgentWorld) -> None:
    async def facts() -> None:
        driver = LocalDriver(tmp_path / "data", preload=False)
        await driver.open()
        try:
            await driver.start(training_spec(world, "task-1", "import time\ntime.sleep(600)\n"))
            deadline = time.monotonic() + LIMIT_SECONDS
            while True:
                status = await driver.inspect("task-1")
                assert status is not None
                if status.phase is TaskPhase.RUNNING:
                    break
                assert time.monotonic() < deadline, status
                await asyncio.sleep(0.02)
            while find_places() and not groups_of({str(status.process_id)}):
                assert time.monotonic() < deadline, "no control group was made"
                await asyncio.sleep(0.02)
            assert status.process_id
            os.kill(status.process_id, signal.SIGKILL)
            while groups_of({str(status.process_id)}):
                assert time.monotonic() < deadline, "a control group is left"
                await asyncio.sleep(0.02)
        finally:
            await driver.close(stop_tasks=True)

    asyncio.run(facts())


@pytest.mark.parametrize("cgroups", WITH_GROUPS)
def test_a_model_that_needs_too_much_memory_says_so(tmp_path: Path, world: AgentWorld, cgroups: bool) -> None:
    script = f"def model_fn(folder):\n{textwrap.indent(HOG, '    ')}"
    spec = dataclasses.replace(serving_spec(world, "model-1", script), memory_bytes=256 * MIB)

    async def facts() -> TaskStatus:
        driver = LocalDriver(tmp_path / "data", preload=False, cgroups=cgroups)
        await driver.open()
        try:
            await driver.start(spec)
            deadline = time.monotonic() + LIMIT_SECONDS
            while True:
                status = await driver.inspect("model-1")
                assert status is not None
                if status.phase.final:
                    return status
                assert time.monotonic() < deadline, status
                await asyncio.sleep(0.02)
        finally:
            await driver.close(stop_tasks=True)

    status = asyncio.run(facts())
    assert status.phase is TaskPhase.FAILED
    assert "OutOfMemoryError: the algorithm " in status.reason, status.reason
    assert "ml.m5.large has 256 MiB" in status.reason


def test_the_log_says_what_a_smaller_machine_gives(tmp_path: Path, world: AgentWorld) -> None:
    outcome(tmp_path, world, WITHIN, driver_memory_bytes=1024 * MIB)
    assert "ml.m5.large has 1 processor and 8 GiB; this machine gives 1 and 1 GiB." in world.lines(
        LOG_GROUP, "task-1/algo-1-1"
    )
