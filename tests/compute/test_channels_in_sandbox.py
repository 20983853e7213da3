"""Channels as programs in a sandbox see them: linked, piped, mounted, and safe from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from clary.compute.local import LocalDriver
from clary.compute.local.fencing import bubblewrap_works
from clary.resources.task import StopCause, TaskPhase, TaskStatus
from clary.testing.agent_world import LOG_GROUP, AgentWorld, channel, training_spec

LIMIT_SECONDS = 60.0
needs_sandbox = pytest.mark.skipif(bool(bubblewrap_works()), reason="bubblewrap does not work here")
pytestmark = pytest.mark.slow
FENCES = [pytest.param("auto", marks=needs_sandbox), pytest.param("bubblewrap", marks=needs_sandbox), "none"]
SANDBOXES = FENCES[:2]
PIPE_READER = """
import os, time
data = os.environ['SAGEMAKER_BASE_DIR'] + '/input/data'
def epoch(name, number):
    path = f'{data}/{name}_{number}'
    while not os.path.exists(path):
        time.sleep(0.01)
    return open(path, 'rb').read()
for number in range(3):
    print('train', number, epoch('train', number))
print('test', epoch('test', 0))
"""


@asynccontextmanager
async def local_driver(folder: Path, fence: str, **options: Any) -> AsyncIterator[LocalDriver]:
    """A driver; with the fence ``bubblewrap`` each program gets a sandbox of its own."""
    driver = LocalDriver(folder, sandbox="none" if fence == "none" else "auto", preload=False, **options)
    await driver.open()
    if fence == "bubblewrap":
        driver.fencing = "bubblewrap"
        await driver._start_agent_helper()
    try:
        yield driver
    finally:
        await driver.close(stop_tasks=True)


def run(
    world: AgentWorld, folder: Path, fence: str, script: str, *, stop: bool = False, **options: Any
) -> tuple[TaskStatus, list[str]]:
    """Run ``script`` as a training job: its last status, and its log. ``stop`` it once it says "ready"."""
    if fence == "auto":
        world.files = folder / "stored"
        world.files.mkdir(exist_ok=True)
    file_systems = options.pop("file_systems", None)

    async def within() -> TaskStatus:
        async with local_driver(folder / "data", fence, file_systems=file_systems) as driver:
            await driver.start(training_spec(world, "job", script, **options))
            asked = False
            deadline = time.monotonic() + LIMIT_SECONDS
            while True:
                status = await driver.inspect("job")
                assert status is not None
                if status.phase.final:
                    return status
                assert time.monotonic() < deadline, status
                if stop and not asked and "ready" in world.lines(LOG_GROUP, "job/algo-1-1"):
                    asked = True
                    await driver.stop("job", StopCause.REQUESTED)
                await asyncio.sleep(0.01)

    return asyncio.run(within()), world.lines(LOG_GROUP, "job/algo-1-1")


def piped(name: str, uri: str, **members: Any) -> dict[str, Any]:
    return {**channel(name, uri), "InputMode": "Pipe", **members}


def mounted(directory: str, access: str = "ro") -> dict[str, Any]:
    source = {
        "FileSystemId": "fs-0123abcd",
        "FileSystemAccessMode": access,
        "FileSystemType": "EFS",
        "DirectoryPath": directory,
    }
    return {"ChannelName": "training", "DataSource": {"FileSystemDataSource": source}}


@pytest.mark.parametrize("fence", FENCES)
def test_a_program_reads_epoch_after_epoch(tmp_path: Path, fence: str) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d/1": b"one", "d/2": b"two", "t": b"test"}
        channels = [piped("train", "s3://b/d/"), piped("test", "s3://b/t")]
        status, lines = run(world, tmp_path, fence, PIPE_READER, InputDataConfig=channels)
    assert status.phase is TaskPhase.SUCCEEDED, (status.reason, lines)
    for number in range(3):
        assert f"train {number} b'onetwo'" in lines
    assert "test b'test'" in lines


@pytest.mark.parametrize("fence", FENCES)
def test_a_fifo_nobody_reads_does_not_keep_the_job(tmp_path: Path, fence: str) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d": b"x" * 5_000_000}
        channels = [piped("train", "s3://b/d"), piped("half", "s3://b/d")]
        script = "import os\nopen(os.environ['SAGEMAKER_BASE_DIR'] + '/input/data/half_0', 'rb').read(10)\n"
        status, lines = run(world, tmp_path, fence, script, InputDataConfig=channels)
    assert status.phase is TaskPhase.SUCCEEDED, (status.reason, lines)


def test_a_program_that_waits_for_data_can_be_stopped(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d": b"x" * 5_000_000}
        script = (
            "import os, time\n"
            "fifo = open(os.environ['SAGEMAKER_BASE_DIR'] + '/input/data/train_0', 'rb')\n"
            "print('ready', flush=True)\ntime.sleep(600)\n"
        )
        status, _ = run(
            world, tmp_path, "auto", script, stop=True, InputDataConfig=[piped("train", "s3://b/d")]
        )
    assert status.phase is TaskPhase.STOPPED
    assert status.stop_cause is StopCause.REQUESTED


def test_data_that_cannot_be_had_ends_a_program_that_waits_for_it(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d/1": b"one", "d/2": b"two"}
        channels = [piped("train", "s3://b/d/", CompressionType="Gzip"), piped("test", "s3://b/d/")]
        status, _ = run(world, tmp_path, "auto", PIPE_READER, InputDataConfig=channels)
    assert status.phase is TaskPhase.FAILED
    assert status.reason.startswith(
        "ClientError: Data download failed:s3://b/d/1 (channel 'train') is not gzip, as its CompressionType"
    )


MEDDLER = """
import os, shutil
base = os.environ['SAGEMAKER_BASE_DIR']
path = base + '/input/data/training/rows.csv'
print('links', os.stat(path).st_nlink)
def attempt(name, action):
    try:
        action()
        print(name, 'done')
    except OSError as error:
        print(name, 'refused')
attempt('write', lambda: open(path, 'r+').write('x'))
attempt('append', lambda: open(path, 'a').write('x'))
attempt('truncate', lambda: os.truncate(path, 0))
attempt('chmod', lambda: os.chmod(path, 0o777))
attempt('touch', lambda: os.utime(path, (0, 0)))
attempt('unlink', lambda: os.unlink(path))
attempt('rename', lambda: os.rename(path, base + '/model/rows.csv'))
attempt('link', lambda: os.link(path, base + '/model/rows.csv'))
attempt('move', lambda: os.rename(base + '/input/data', base + '/input/elsewhere'))
attempt('through', lambda: open(f'/proc/self/fd/{os.open(path, os.O_RDONLY)}', 'r+').write('x'))
attempt('read', lambda: print('rows', open(path).read()))
try:
    os.rename(base + '/input', base + '/model/input')
except OSError:
    pass
else:
    path = base + '/model/input/data/training/rows.csv'
attempt('write elsewhere', lambda: open(path, 'r+').write('x'))
attempt('chmod elsewhere', lambda: os.chmod(path, 0o777))
"""


@pytest.mark.parametrize("fence", SANDBOXES)
def test_a_linked_object_is_out_of_a_program_s_reach(tmp_path: Path, fence: str) -> None:
    with AgentWorld() as world:
        world.files = tmp_path / "stored"
        world.files.mkdir()
        status, lines = run(world, tmp_path, fence, MEDDLER)
        assert status.phase is TaskPhase.SUCCEEDED, (status.reason, lines)
        [stored] = [file for file in world.files.iterdir() if file.read_bytes() == b"1,2\n"]
        assert stored.stat().st_mode & 0o777 == 0o444
        assert stored.stat().st_mtime > 1
    assert "links 2" in lines
    assert [line for line in lines if line.endswith(" done")] == ["read done"]
    assert sum(line.endswith(" refused") for line in lines) == 12
    message = next(each.message for each in status.transitions if each.phase is TaskPhase.PREPARING)
    assert message == "Downloading input data: 4 bytes linked from the object store"


def test_without_a_sandbox_a_program_gets_a_copy(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.files = tmp_path / "stored"
        world.files.mkdir()
        status, lines = run(world, tmp_path, "none", MEDDLER)
        assert status.phase is TaskPhase.SUCCEEDED, (status.reason, lines)
        assert [file.read_bytes() for file in world.files.iterdir()] == [b"1,2\n"]
        assert not any(request.startswith("GET /bucket/data/") for request in world.requests)
    assert "links 1" in lines
    assert "write done" in lines


@pytest.mark.parametrize("fence", FENCES)
@pytest.mark.parametrize("access", ["ro", "rw"])
def test_a_directory_of_the_machine_is_a_channel(tmp_path: Path, fence: str, access: str) -> None:
    shared = tmp_path / "shared"
    (shared / "data/train").mkdir(parents=True)
    (shared / "data/train/rows.csv").write_text("1,2")
    (shared / "data/train/out").symlink_to("/etc")
    (shared / "secret").write_text("no")
    script = (
        "import os\n"
        "folder = os.environ['SM_CHANNEL_TRAINING']\n"
        "print('rows', open(folder + '/rows.csv').read())\n"
        "print('there', sorted(os.listdir(folder)))\n"
        "try:\n    open(folder + '/new', 'w').write('new')\n    print('written')\n"
        "except OSError as error:\n    print('not written', error.strerror)\n"
    )
    if fence != "none":
        hidden = "/run/clary/file_systems/fs-0123abcd"
        script += f"print('around', os.path.exists({str(shared)!r}), os.path.exists({hidden!r}))\n"
    with AgentWorld() as world:
        status, lines = run(
            world,
            tmp_path,
            fence,
            script,
            InputDataConfig=[mounted("/data/train", access)],
            file_systems={"fs-0123abcd": str(shared)},
        )
    assert status.phase is TaskPhase.SUCCEEDED, (status.reason, lines)
    assert "rows 1,2" in lines
    assert "there ['out', 'rows.csv']" in lines
    if fence != "none":
        assert "around False False" in lines
        assert ("not written Read-only file system" in lines) == (access == "ro")
    if access == "rw":
        assert (shared / "data/train/new").read_text() == "new"


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ("/missing", "fs-0123abcd:/missing cannot be used: [Errno 2]"),
        ("/link", "not by way of a symbolic link"),
        ("/data/../..", "may not contain '.' or '..'"),
        ("/rows.csv", "cannot be used: [Errno 20]"),
    ],
)
def test_a_way_out_of_the_directory_is_refused(tmp_path: Path, directory: str, words: str) -> None:
    shared = tmp_path / "shared"
    (shared / "data").mkdir(parents=True)
    (shared / "rows.csv").write_text("1")
    (shared / "link").symlink_to(tmp_path)
    with AgentWorld() as world:
        status, _ = run(
            world,
            tmp_path,
            "none",
            "",
            InputDataConfig=[mounted(directory)],
            file_systems={"fs-0123abcd": str(shared)},
        )
    assert status.phase is TaskPhase.FAILED
    assert status.reason.startswith("ClientError: Data download failed:channel 'training'")
    assert words in status.reason


def test_a_file_system_that_the_operator_did_not_name_is_told(tmp_path: Path) -> None:
    with AgentWorld() as world:
        status, _ = run(world, tmp_path, "none", "", InputDataConfig=[mounted("/data")])
    assert status.phase is TaskPhase.FAILED
    assert "there is no file system fs-0123abcd here. Name its directory" in status.reason


@needs_sandbox
def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    """What another job writes to a shared directory cannot show a later job what it should not see."""
    shared = tmp_path / "shared"
    (shared / "data").mkdir(parents=True)
    script = "import os\nprint(os.listdir(os.environ['SM_CHANNEL_TRAINING']))\n"
    with AgentWorld() as world:
        (shared / "data").rmdir()
        (shared / "data").symlink_to("/run/clary/tasks")
        status, _ = run(
            world,
            tmp_path,
            "auto",
            script,
            InputDataConfig=[mounted("/data")],
            file_systems={"fs-0123abcd": str(shared)},
        )
    assert status.phase is TaskPhase.FAILED
