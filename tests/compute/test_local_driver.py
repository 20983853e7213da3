"""The driver of this machine, with real agents and real algorithms: what survives, and what is left."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.compute.local import LocalDriver
from clary.compute.local.fencing import SandboxUnavailable, bubblewrap_works
from clary.resources.task import StopCause, TaskPhase, TaskSpec, TaskStatus
from clary.resources.task_folder import TaskFolder
from clary.testing.agent_world import LOG_GROUP, AgentWorld, training_spec

LIMIT_SECONDS = 60.0
SAVE = "import os\nopen(os.environ['SM_MODEL_DIR'] + '/weights', 'w').write('7')\n"
SAVE_AND_WAIT = SAVE + "import time\nprint('saved', flush=True)\ntime.sleep(600)\n"
needs_sandbox = pytest.mark.skipif(bool(bubblewrap_works()), reason="bubblewrap does not work here")
pytestmark = pytest.mark.slow


@asynccontextmanager
async def local_driver(data: Path, sandbox: str = "auto", **options: float) -> AsyncIterator[LocalDriver]:
    driver = LocalDriver(data, sandbox=sandbox, preload=False, **options)  # type: ignore[arg-type]
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close(stop_tasks=True)
        await eventually(lambda: not processes_of(data), "processes are left")


async def eventually(fact: Callable[[], object], complaint: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not fact():
        assert time.monotonic() < deadline, complaint
        await asyncio.sleep(0.01)


async def until(driver: LocalDriver, task_id: str, wanted: Callable[[TaskStatus], bool]) -> TaskStatus:
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        status = await driver.inspect(task_id)
        assert status is not None
        if wanted(status):
            return status
        assert not status.phase.final, status
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.01)


async def ended(driver: LocalDriver, task_id: str) -> TaskStatus:
    return await until(driver, task_id, lambda status: status.phase.final)


async def said(world: AgentWorld, task_id: str, line: str) -> None:
    await eventually(
        lambda: any(line in text for text in world.lines(LOG_GROUP, f"{task_id}/algo-1-1")),
        f"{task_id} never said {line!r}",
    )


def processes_of(data: Path) -> list[str]:
    """Command lines of processes that belong to this data folder, but for ours."""
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


def run(facts: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(facts())  # type: ignore[arg-type]


def model_files(world: AgentWorld, task_id: str) -> dict[str, bytes]:
    packed = world.objects["bucket"][f"out/{task_id}/output/model.tar.gz"]
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.isfile()
        }


def test_a_job_finds_the_container_contract_and_its_model_arrives(tmp_path: Path) -> None:
    script = (
        "import json, os, sys\n"
        "base = os.environ['SAGEMAKER_BASE_DIR']\n"
        "print('rows', open(base + '/input/data/training/rows.csv').read().strip())\n"
        "print('host', json.load(open(base + '/input/config/resourceconfig.json'))['current_host'])\n"
        "print('job', os.environ['TRAINING_JOB_NAME'], os.environ['AWS_REGION'], sys.argv[1:])\n"
        "print('metric auc=0.75;')\n"
        "os.makedirs(base + '/output/data', exist_ok=True)\n"
        "open(base + '/output/data/report.txt', 'w').write('fine')\n" + SAVE
    )

    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                spec = training_spec(
                    world,
                    "job",
                    script,
                    hyperparameters={"rounds": "3"},
                    AlgorithmSpecification={
                        "TrainingImage": "1.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-scikit-learn:1.2-1",
                        "TrainingInputMode": "File",
                        "MetricDefinitions": [{"Name": "auc", "Regex": "auc=([0-9.]+);"}],
                    },
                )
                await driver.start(spec)
                status = await ended(driver, "job")
                assert status.phase is TaskPhase.SUCCEEDED, status
                assert status.results == {
                    "model_artifacts": "s3://bucket/out/job/output/model.tar.gz",
                    "output_artifacts": "s3://bucket/out/job/output/output.tar.gz",
                }
                assert model_files(world, "job") == {"weights": b"7"}
                lines = world.lines(LOG_GROUP, "job/algo-1-1")
                for line in ("rows 1,2", "host algo-1", "job job us-east-1 ['--rounds', '3']"):
                    assert line in lines
                assert [(m["MetricName"], m["Value"]) for m in world.metrics] == [("auc", 0.75)]
                assert world.unauthorized == []
                assert (tmp_path / "tasks/job/spec.json").stat().st_mode & 0o077 == 0

    run(facts)


@needs_sandbox
def test_the_sandbox_hides_the_machine_and_protects_it(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do not read")
    script = f"""
import os
def attempt(what, action):
    try:
        print(what, 'went through', action())
    except (OSError, PermissionError) as error:
        print(what, 'refused')
attempt('secret', lambda: open({str(secret)!r}).read())
attempt('home', lambda: os.listdir('/home'))
attempt('shadow', lambda: open('/etc/shadow').read())
attempt('root', lambda: open('/file', 'w'))
attempt('usr', lambda: open('/usr/file', 'w'))
attempt('input', lambda: open('/opt/ml/input/data/training/rows.csv', 'w'))
attempt('kernel', lambda: open('/proc/sys/kernel/core_pattern', 'w'))
attempt('kill', lambda: os.kill({os.getpid()}, 0))
attempt('other tasks', lambda: os.listdir('/run/clary/tasks/job') and None)
print('processes', sum(name.isdigit() for name in os.listdir('/proc')) <= 3)
held = [line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapBnd'))]
print('capabilities', held)
open('/opt/ml/model/weights', 'w').write('7')
"""

    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path, "bubblewrap") as driver:
                await driver.start(training_spec(world, "job", script))
                assert (await ended(driver, "job")).phase is TaskPhase.SUCCEEDED
                lines = world.lines(LOG_GROUP, "job/algo-1-1")
                for what in (
                    "secret",
                    "home",
                    "shadow",
                    "root",
                    "usr",
                    "input",
                    "kernel",
                    "kill",
                    "other tasks",
                ):
                    assert f"{what} refused" in lines, what
                assert "processes True" in lines
                assert f"capabilities {['0' * 16, '0' * 16]}" in lines

    run(facts)


@needs_sandbox
def test_network_isolation_leaves_no_network(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            script = (
                "import socket\n"
                "try:\n"
                f"    socket.create_connection(('127.0.0.1', {world.port}), timeout=5); print('connected')\n"
                "except OSError: print('no network')\n"
            )
            async with local_driver(tmp_path) as driver:
                await driver.start(training_spec(world, "open", script))
                await driver.start(training_spec(world, "closed", script, EnableNetworkIsolation=True))
                await ended(driver, "open")
                await ended(driver, "closed")
                assert "connected" in world.lines(LOG_GROUP, "open/algo-1-1")
                assert "no network" in world.lines(LOG_GROUP, "closed/algo-1-1")

    run(facts)


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_a_failing_script_tells_exception_message_and_line(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path, sandbox) as driver:
                await driver.start(training_spec(world, "job", "x = 1\nraise ValueError('too few rows')\n"))
                status = await ended(driver, "job")
                assert status.phase is TaskPhase.FAILED
                assert "ValueError: too few rows" in status.reason
                assert "train.py:2" in status.reason
                assert status.reason.startswith("AlgorithmError: ")
                assert "exit code: 1" in status.reason

    run(facts)


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_a_killed_algorithm_says_so(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path, sandbox) as driver:
                script = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
                await driver.start(training_spec(world, "job", script))
                status = await ended(driver, "job")
                assert (status.phase, status.exit_code) == (TaskPhase.FAILED, None)
                assert "killed by SIGKILL" in status.reason

    run(facts)


@needs_sandbox
def test_where_namespaces_cannot_be_made_each_program_gets_a_bubblewrap_of_its_own(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "print('processes', sum(name.isdigit() for name in os.listdir('/proc')) <= 4)\n"
        "try: open('/opt/ml/input/data/training/rows.csv', 'w')\n"
        "except OSError: print('input refused')\n"
        "try: open('/proc/sys/kernel/core_pattern', 'w')\n"
        "except OSError: print('kernel refused')\n" + SAVE_AND_WAIT
    )

    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                driver.fencing = "bubblewrap"
                await driver._start_agent_helper()
                await driver.start(training_spec(world, "job", script))
                await said(world, "job", "saved")
                await driver.stop("job", StopCause.REQUESTED)
                assert (await ended(driver, "job")).phase is TaskPhase.STOPPED
                lines = world.lines(LOG_GROUP, "job/algo-1-1")
                for line in ("processes True", "input refused", "kernel refused"):
                    assert line in lines
                assert model_files(world, "job") == {"weights": b"7"}

    run(facts)


def test_the_time_limit_stops_a_job_and_uploads_what_it_saved(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                limit = {"MaxRuntimeInSeconds": 2}
                await driver.start(training_spec(world, "job", SAVE_AND_WAIT, StoppingCondition=limit))
                status = await ended(driver, "job")
                assert (status.phase, status.stop_cause) == (TaskPhase.STOPPED, StopCause.MAX_RUNTIME)
                assert model_files(world, "job") == {"weights": b"7"}

    run(facts)


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    script = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('not yet', flush=True))\n"

    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                await driver.start(training_spec(world, "job", script + SAVE_AND_WAIT, grace_seconds=1.0))
                await said(world, "job", "saved")
                await driver.stop("job", StopCause.REQUESTED)
                status = await ended(driver, "job")
                assert (status.phase, status.stop_cause) == (TaskPhase.STOPPED, StopCause.REQUESTED)
                assert model_files(world, "job") == {"weights": b"7"}
                assert "not yet" in world.lines(LOG_GROUP, "job/algo-1-1")

    run(facts)


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_a_killed_agent_is_a_lost_task_and_its_algorithm_dies(tmp_path: Path, sandbox: str) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path, sandbox) as driver:
                await driver.start(training_spec(world, "job", SAVE_AND_WAIT))
                await said(world, "job", "saved")
                status = await driver.inspect("job")
                assert status and status.process_id
                os.kill(status.process_id, signal.SIGKILL)
                status = await ended(driver, "job")
                assert (status.phase, status.stop_cause) == (TaskPhase.LOST, None)
                assert "killed by SIGKILL" in status.reason
                assert await driver.inspect("job") == status

    run(facts)


def test_killed_fork_servers_are_started_again_and_running_jobs_do_not_notice(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                script = SAVE + "import time\nprint('saved', flush=True)\ntime.sleep(2)\n"
                await driver.start(training_spec(world, "first", script))
                await said(world, "first", "saved")
                for helper in (driver._agents, driver._algorithms):
                    assert helper
                    os.kill(helper.process_id, signal.SIGKILL)
                await driver.start(training_spec(world, "second", SAVE))
                assert (await ended(driver, "second")).phase is TaskPhase.SUCCEEDED
                assert (await ended(driver, "first")).phase is TaskPhase.SUCCEEDED

    run(facts)


SERVER = """
import asyncio, sys
from pathlib import Path
from clary.compute.local import LocalDriver
from clary.resources.task_folder import TaskFolder

async def main():
    driver = LocalDriver(Path(sys.argv[1]), sandbox=sys.argv[3], preload=False)
    await driver.start(TaskFolder(Path(sys.argv[2])).read_spec())
    print("started", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("sandbox", ["auto", "none"])
@pytest.mark.parametrize("moment", ["at once", "while it trains"])
def test_a_job_outlives_a_killed_server_and_is_found_again(tmp_path: Path, sandbox: str, moment: str) -> None:
    data = tmp_path / "data"

    async def facts() -> None:
        with AgentWorld() as world:
            script = SAVE + "import time\nprint('saved', flush=True)\ntime.sleep(3)\nprint('done')\n"
            TaskFolder(tmp_path / "order").write_spec(training_spec(world, "job", script))
            server = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-c", SERVER, str(data), str(tmp_path / "order"), sandbox],
                stdout=subprocess.PIPE,
            )
            assert server.stdout
            try:
                assert server.stdout.readline() == b"started\n"
                if moment == "while it trains":
                    await said(world, "job", "saved")
            finally:
                server.kill()
                server.wait()
                server.stdout.close()
            async with local_driver(data, sandbox) as driver:
                assert [status.id for status in await driver.tasks()] == ["job"]
                status = await ended(driver, "job")
                assert status.phase is TaskPhase.SUCCEEDED, status
                assert world.lines(LOG_GROUP, "job/algo-1-1").count("saved") == 1
                assert "done" in world.lines(LOG_GROUP, "job/algo-1-1")
                assert model_files(world, "job") == {"weights": b"7"}

    run(facts)


def test_an_agent_waits_for_a_server_that_is_away(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                script = SAVE + "import time\nprint('saved', flush=True)\ntime.sleep(1)\nprint('late')\n"
                await driver.start(training_spec(world, "job", script))
                await said(world, "job", "saved")
                world.vanish()
                await until(driver, "job", lambda status: status.phase is TaskPhase.UPLOADING)
                await asyncio.sleep(0.5)
                status = await driver.inspect("job")
                assert status and status.phase is TaskPhase.UPLOADING
                world.appear()
                assert (await ended(driver, "job")).phase is TaskPhase.SUCCEEDED
                assert model_files(world, "job") == {"weights": b"7"}
                assert world.lines(LOG_GROUP, "job/algo-1-1").count("late") == 1

    run(facts)


def test_jobs_beyond_the_processors_wait_for_room(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path, cpu_count=2.0) as driver:
                await driver.start(training_spec(world, "first", SAVE_AND_WAIT, cpu_count=2.0))
                status = await driver.start(training_spec(world, "second", SAVE, cpu_count=1.0))
                assert status.phase is TaskPhase.PENDING
                assert "first" in status.transitions[-1].message
                await said(world, "first", "saved")
                status = await driver.start(training_spec(world, "second", SAVE, cpu_count=1.0))
                assert status.phase is TaskPhase.PENDING
                await driver.stop("first", StopCause.REQUESTED)
                assert (await ended(driver, "second")).phase is TaskPhase.SUCCEEDED

    run(facts)


def test_a_waiting_job_can_be_stopped_before_it_ever_ran(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path, cpu_count=1.0) as driver:
                await driver.start(training_spec(world, "first", SAVE_AND_WAIT, cpu_count=1.0))
                await driver.start(training_spec(world, "second", SAVE, cpu_count=1.0))
                await driver.stop("second", StopCause.REQUESTED)
                status = await driver.inspect("second")
                assert status
                assert (status.phase, status.stop_cause) == (TaskPhase.STOPPED, StopCause.REQUESTED)
                assert world.lines(LOG_GROUP, "second/algo-1-1") == []

    run(facts)


def test_what_a_machine_that_went_down_was_doing_is_to_be_started_again(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            folder = TaskFolder(tmp_path / "tasks" / "job")
            spec = training_spec(world, "job", SAVE)
            folder.write_spec(spec)
            folder.write_status(TaskStatus("job", spec.owner, TaskPhase.RUNNING, process_id=os.getpid()))
            path = folder.path / "status.json"
            path.write_text(path.read_text().replace('"boot_id":"', '"boot_id":"other'))
            async with local_driver(tmp_path) as driver:
                status = await driver.inspect("job")
                assert status
                assert (status.phase, status.stop_cause) == (TaskPhase.LOST, StopCause.SHUTDOWN)

    run(facts)


def test_a_long_data_path_does_not_break_sockets(tmp_path: Path) -> None:
    data = tmp_path / ("d" * 120)

    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(data) as driver:
                await driver.start(training_spec(world, "job", SAVE))
                assert (await ended(driver, "job")).phase is TaskPhase.SUCCEEDED

    run(facts)


def test_without_bubblewrap_a_demanded_sandbox_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    async def facts() -> None:
        driver = LocalDriver(tmp_path / "data", sandbox="bubblewrap")
        with pytest.raises(SandboxUnavailable, match="apt install bubblewrap"):
            await driver.open()
        await driver.close(stop_tasks=True)

    run(facts)


def test_ids_that_are_no_plain_names_are_refused(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                for task_id in ("../x", "a/b", "", ".hidden", "x" * 300):
                    spec: TaskSpec = training_spec(world, "job", SAVE)
                    with pytest.raises(ValueError, match="cannot be the id of a task"):
                        await driver.start(TaskSpec(**{**spec.__dict__, "id": task_id}))
                assert await driver.tasks() == []

    run(facts)


@pytest.mark.parametrize(
    ("request_part", "words"),
    [
        ({"InputDataConfig": [{"ChannelName": "a", "DataSource": {"S3DataSource": {
            "S3DataType": "S3Prefix", "S3Uri": "s3://nowhere/x"}}}]}, ["NoSuchBucket", "s3://nowhere/x"]),
        ({"InputDataConfig": [{"ChannelName": "a", "DataSource": {"S3DataSource": {
            "S3DataType": "S3Prefix", "S3Uri": "s3://bucket/none/"}}}]}, ["s3://bucket/none/", "no files"]),
        ({"OutputDataConfig": {"S3OutputPath": "s3://nowhere/out"}}, ["NoSuchBucket", "s3://nowhere/out"]),
    ],
)  # fmt: skip
def test_bad_requests_fail_when_the_job_runs_and_say_what_is_wrong(
    tmp_path: Path, request_part: dict[str, object], words: list[str]
) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                await driver.start(training_spec(world, "job", SAVE, **request_part))
                status = await ended(driver, "job")
                assert status.phase is TaskPhase.FAILED
                assert status.reason.startswith("ClientError: ")
                for word in words:
                    assert word in status.reason

    run(facts)


def test_an_agent_takes_its_lock_though_somebody_looks_at_it_all_the_time(tmp_path: Path) -> None:
    async def facts() -> None:
        with AgentWorld() as world:
            async with local_driver(tmp_path) as driver:
                folder = TaskFolder(tmp_path / "tasks" / "job")
                looking = threading.Event()

                def look() -> None:
                    while not looking.is_set():
                        folder.agent_lives()

                looker = threading.Thread(target=look)
                looker.start()
                try:
                    await driver.start(training_spec(world, "job", SAVE))
                    assert (await ended(driver, "job")).phase is TaskPhase.SUCCEEDED
                finally:
                    looking.set()
                    looker.join()

    run(facts)
