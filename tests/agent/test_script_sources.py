"""Where a script comes from and what it gets: packages, channels, and commands in place of the toolkit."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clary.compute.local import LocalDriver
from clary.resources.task import TaskPhase, TaskStatus
from clary.testing.agent_world import LOG_GROUP, AgentWorld, archive, channel, training_spec

LIMIT_SECONDS = 120.0
pytestmark = pytest.mark.slow
IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
# A build backend that lies in the source itself, so that pip needs no network.
BACKEND = """
import os, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = "trainer-1.0-py3-none-any.whl", "trainer-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as packed:
        packed.write("src/trainer/__init__.py", "trainer/__init__.py")
        packed.write("src/trainer/main.py", "trainer/main.py")
        packed.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: trainer\\nVersion: 1.0\\n")
        wheel = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        packed.writestr(f"{info}/WHEEL", wheel)
        packed.writestr(f"{info}/RECORD", "")
    return name
"""
PROJECT = {
    "pyproject.toml": (
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "trainer"\nversion = "1.0"\n'
    ),
    "backend.py": BACKEND,
    "src/trainer/__init__.py": "",
    "src/trainer/main.py": "import sys\nprint('TRAINER', __name__, sys.argv[1:])\n",
}


def wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr("tinything.py", "VERSION = '1.0'\n")
        info = "tinything-1.0.dist-info"
        packed.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")
    return content.getvalue()


WHEEL = "tinything-1.0-py3-none-any.whl"


async def ended(driver: LocalDriver, task_id: str) -> TaskStatus:
    for _ in range(int(LIMIT_SECONDS / 0.02)):
        status = await driver.inspect(task_id)
        assert status
        if status.phase.final:
            return status
        await asyncio.sleep(0.02)
    raise AssertionError(f"{task_id} does not end")


def run(
    folder: Path,
    objects: Mapping[str, str | bytes],
    *,
    sandbox: str = "auto",
    script: str = "",
    **request: Any,
) -> tuple[TaskStatus, list[str]]:
    """A task with these members of the request, and what the bucket holds; how it ended, and its log."""

    async def facts() -> tuple[TaskStatus, list[str]]:
        driver = LocalDriver(folder, sandbox=sandbox, preload=False)
        try:
            with AgentWorld() as world:
                files = request.pop("files", None)
                spec = training_spec(world, "task", script, files=files, **request)
                for key, content in objects.items():
                    data = content.encode() if isinstance(content, str) else content
                    world.objects["bucket"][key] = data
                await driver.start(spec)
                status = await ended(driver, "task")
                return status, world.lines(LOG_GROUP, "task/algo-1-1")
        finally:
            await driver.close(stop_tasks=True)

    return asyncio.run(facts())


def in_channels(program: str, **channels: str) -> dict[str, Any]:
    return {
        "hyperparameters": {"sagemaker_program": program, "sagemaker_submit_directory": ""},
        "InputDataConfig": [channel(name, uri) for name, uri in channels.items()],
    }


def command(*words: str, **channels: str) -> dict[str, Any]:
    return {
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": [words[0]],
            "ContainerArguments": list(words[1:]),
        },
        "InputDataConfig": [channel(name, uri) for name, uri in channels.items()],
    }


@pytest.mark.parametrize("sandbox", ["auto", "none"])
def test_a_package_is_installed_and_its_module_run(tmp_path: Path, sandbox: str) -> None:
    status, lines = run(
        tmp_path,
        {},
        sandbox=sandbox,
        files=PROJECT,
        hyperparameters={"sagemaker_program": "trainer.main", "depth": "3"},
    )
    assert status.phase is TaskPhase.SUCCEEDED, (status, lines)
    assert "TRAINER __main__ ['--depth', '3']" in lines
    assert "Installing the source's own package" in lines
    assert any("python -m trainer.main --depth 3" in line for line in lines)


def test_a_package_that_cannot_be_built_fails_with_pips_error(tmp_path: Path) -> None:
    files = {**PROJECT, "backend.py": "def build_wheel(*a, **k):\n    raise RuntimeError('no compiler')\n"}
    status, lines = run(tmp_path, {}, files=files)
    assert status.phase is TaskPhase.FAILED
    assert status.reason.startswith("ClientError: the source's package could not be installed: ")
    assert any("no compiler" in line for line in lines)


def test_a_channel_code_brings_the_source_with_its_requirements(tmp_path: Path) -> None:
    status, lines = run(
        tmp_path,
        {
            "source/train.py": "import tinything, helper\nprint('TINY', tinything.VERSION, helper.NAME)\n",
            "source/helper.py": "NAME = 'beside'\n",
            "source/requirements.txt": f"./{WHEEL}\n",
            f"source/{WHEEL}": wheel(),
        },
        **in_channels("train.py", code="s3://bucket/source/"),
    )
    assert status.phase is TaskPhase.SUCCEEDED, (status, lines)
    assert "TINY 1.0 beside" in lines


def test_a_channel_may_bring_an_archive_that_the_job_points_to(tmp_path: Path) -> None:
    status, lines = run(
        tmp_path,
        {"source/sourcedir.tar.gz": archive({"train.py": "print('RAN')\n"})},
        hyperparameters={
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": "/opt/ml/input/data/scripts",
        },
        InputDataConfig=[channel("scripts", "s3://bucket/source/")],
    )
    assert status.phase is TaskPhase.SUCCEEDED and "RAN" in lines, (status, lines)


def test_a_command_runs_in_place_of_the_toolkit_and_installs_what_it_wants(tmp_path: Path) -> None:
    driver = f"""
        set -e
        cd /opt/ml/input/data/code
        pip install --no-index ./{WHEEL} > /dev/null
        python train.py > written-beside-the-code.txt
        cat written-beside-the-code.txt
        echo 'export STEP=two' > /opt/ml/input/made-by-the-driver.env
        echo "input/config: $(touch /opt/ml/input/config/x 2>&1 || true)"
        echo "other channel: $(touch /opt/ml/input/data/training/rows.csv 2>&1 || true)"
        cp /opt/ml/input/data/training/rows.csv /opt/ml/model/
    """
    status, lines = run(
        tmp_path,
        {
            "drivers/sm_train.sh": "\n#!/bin/bash\n" + driver,
            "source/train.py": "import sys, tinything\nprint('TINY', tinything.VERSION, sys.executable)\n",
            f"source/{WHEEL}": wheel(),
        },
        **command(
            "/bin/bash",
            "-c",
            "chmod +x /opt/ml/input/data/sm_drivers/sm_train.sh && /opt/ml/input/data/sm_drivers/sm_train.sh",
            training="s3://bucket/data/",
            code="s3://bucket/source/",
            sm_drivers="s3://bucket/drivers/",
        ),
    )
    assert status.phase is TaskPhase.SUCCEEDED, (status, lines)
    assert "TINY 1.0 /tmp/python/bin/python" in lines
    assert next(line for line in lines if line.startswith("input/config: ")).endswith("Read-only file system")
    assert next(line for line in lines if line.startswith("other channel: ")).endswith(
        "Read-only file system"
    )
    assert any(line.startswith("Framework sagemaker-scikit-learn 1.2-1-cpu-py3 asked; ") for line in lines)
    assert str(status.results["model_artifacts"]).endswith("/model.tar.gz")


def test_what_a_command_finds_of_pips_settings_is_a_file_and_no_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:pass-word@packages.invalid/simple")
    status, lines = run(
        tmp_path, {}, **command("/bin/sh", "-c", "env; pip config list", training="s3://bucket/data/")
    )
    assert status.phase is TaskPhase.SUCCEEDED, (status, lines)
    environment = lines[: next(n for n, line in enumerate(lines) if line.startswith("global."))]
    assert not any("pass-word" in line for line in environment)
    assert any("packages.invalid" in line for line in lines)


def test_commands_that_cannot_run_say_so(tmp_path: Path) -> None:
    status, _ = run(tmp_path, {}, **command("/bin/absent", "x", training="s3://bucket/data/"))
    assert status.phase is TaskPhase.FAILED and status.exit_code == 127
    assert status.reason.startswith("ClientError: the job's command /bin/absent is not there")


def test_the_exit_code_of_a_command_is_the_jobs(tmp_path: Path) -> None:
    status, _ = run(tmp_path, {}, **command("/bin/bash", "-c", "exit 9", training="s3://bucket/data/"))
    assert status.phase is TaskPhase.FAILED and status.exit_code == 9


def test_a_command_that_names_files_of_the_container_needs_the_sandbox(tmp_path: Path) -> None:
    words = ("/bin/bash", "/opt/ml/input/data/code/run.sh")
    status, _ = run(tmp_path, {}, sandbox="none", **command(*words, training="s3://bucket/data/"))
    assert status.phase is TaskPhase.FAILED and "install bubblewrap" in status.reason


def test_a_built_in_algorithm_has_no_container_for_a_command(tmp_path: Path) -> None:
    request = command("/bin/bash", "-c", "true", training="s3://bucket/data/")
    request["AlgorithmSpecification"]["TrainingImage"] = "1.dkr.ecr.us-west-2.amazonaws.com/xgboost:1"
    status, _ = run(tmp_path, {}, **request)
    assert status.phase is TaskPhase.FAILED
    assert "built-in algorithm" in status.reason and "ContainerEntrypoint" in status.reason
