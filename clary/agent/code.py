"""The caller's script: from S3, or a channel, to ``/opt/ml/code``, with the packages that it asks for."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clary.agent.archives import BadArchive, unpack
from clary.agent.failure import TaskFailed
from clary.agent.limits import task_limits
from clary.agent.runtimes.environments import ensure_environment
from clary.agent.runtimes.program import Program
from clary.agent.s3_transfer import S3Transfer, s3_location
from clary.agent.surroundings import Surroundings
from clary.agent.watch import Confinement
from clary.resources.task import TrainingWork

LARGEST_SOURCE_BYTES = 1 << 30
CODE_CHANNEL = "code"
SCRIPT_MODULE = "clary.frameworks.entrypoint"
COMMAND_MODULE = "clary.agent.runtimes.command"
_CONTAINER_BASE = "/opt/ml/"
_ARCHIVE = "sourcedir.tar.gz"


def prepare_script(
    around: Surroundings, work: TrainingWork, program: Program, transfer: S3Transfer
) -> Program:
    """Bring what a job of a framework's image needs to run; ``program`` with the packages it asks for.

    Channels are there already. Raises `TaskFailed` and `TaskStopped`.
    """
    ml = around.folder.ml
    if program.module == COMMAND_MODULE:
        make_own(ml, program.own_channels)
        return program
    if program.module != SCRIPT_MODULE:
        return program
    given = work.request.get("HyperParameters")
    submitted = plain(given if isinstance(given, dict) else {}, "sagemaker_submit_directory")
    bring_code(ml, submitted or program.environment.get("SAGEMAKER_SUBMIT_DIRECTORY", ""), transfer)
    return in_environment(around, program, ml / "code", f"{program.directory}/code")


def in_environment(around: Surroundings, program: Program, code: Path, code_seen: str) -> Program:
    """``program`` with the packages that the source in ``code`` asks for; itself if it asks for none."""
    name = ensure_environment(
        code,
        code_seen=code_seen,
        environments=Path(around.settings.environments),
        runtime=around.runtime,
        confine=lambda: Confinement(task_limits(around.spec, around.settings), around.settings),
        task_id=around.spec.id,
        on_line=around.say,
        stop=around.stop,
    )
    if not name:
        return program
    return replace(
        program,
        environment={
            **program.environment,
            "CLARY_PYTHON_ENVIRONMENT": around.runtime.environment_seen(name),
        },
        python_environment=name,
        run_with_own_python=True,
    )


def bring_code(ml: Path, submit_directory: str, transfer: S3Transfer) -> None:
    """Bring the source to ``ml/code``: an archive in S3, or a folder or archive that a channel brought.

    What ``submit_directory`` names elsewhere is left to the program, which may see it or not. Raises
    `TaskFailed`.
    """
    if submit_directory.startswith("s3://"):
        location = s3_location(submit_directory)
        content = transfer.read(location, LARGEST_SOURCE_BYTES)
        _unpack(content, _emptied(ml / "code"), location.uri)
        return
    given = os.path.normpath(submit_directory.removeprefix("file://")) if submit_directory else ""
    if given.startswith(f"{_CONTAINER_BASE}input/data/"):
        _bring(ml / given.removeprefix(_CONTAINER_BASE), ml / "code", given)
    elif not given:
        channel = f"input/data/{CODE_CHANNEL}"
        _bring(ml / channel, ml / "code", _CONTAINER_BASE + channel)


def _bring(source: Path, code: Path, name: str) -> None:
    """Copy or unpack what the agent itself brought to the folder of a channel."""
    if source.is_symlink():  # it leads to a directory of the operator's: the program finds it itself
        return
    archive = source / _ARCHIVE if (source / _ARCHIVE).is_file() else source
    if archive.is_file() and not archive.is_symlink():
        if archive.stat().st_size > LARGEST_SOURCE_BYTES:
            raise TaskFailed(
                f"ClientError: the source archive {name} is larger than {LARGEST_SOURCE_BYTES} bytes."
            )
        _unpack(archive.read_bytes(), _emptied(code), name)
    elif source.is_dir():
        shutil.copytree(source, _emptied(code), symlinks=True, dirs_exist_ok=True)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _unpack(content: bytes, folder: Path, name: str) -> None:
    try:
        unpack(io.BytesIO(content), folder, len(content))
    except BadArchive as error:
        raise TaskFailed(f"ClientError: the source archive {name} cannot be unpacked: {error}") from error


def make_own(ml: Path, channels: Sequence[str]) -> None:
    """Give the program copies of these channels' files that it may change.

    What a channel brings may be the object store's own files, which nobody may write to.
    """
    for channel in channels:
        folder = ml / "input/data" / channel
        if folder.is_symlink() or not folder.is_dir():  # a link leads to a directory of the operator's
            continue
        for parent, _, files in os.walk(folder):
            for name in files:
                path = Path(parent, name)
                found = path.lstat()
                if not stat.S_ISREG(found.st_mode):
                    continue
                if found.st_nlink > 1:
                    copy = path.with_name(f".{os.getpid()}.copy")
                    shutil.copyfile(path, copy)
                    copy.replace(path)
                path.chmod(0o644)


def plain(values: Mapping[str, object], name: str) -> str:
    """A hyperparameter as text: the SDK sends the values of framework jobs as JSON (``"\\"train.py\\""``)."""
    value = values.get(name)
    if not isinstance(value, str):
        return ""
    try:
        decoded = json.loads(value)
    except ValueError:
        return value
    return decoded if isinstance(decoded, str) else value
