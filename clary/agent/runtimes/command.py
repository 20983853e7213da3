"""Becomes the command that a job brings in place of the toolkit, in a Python environment of the job's own."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from clary.agent.runtimes.environment_builder import (
    create_environment,
    write_command,
    write_pip_settings,
    write_start_hook,
)
from clary.frameworks.debugger import HOOK, debugger_wanted
from clary.frameworks.distribution import find_cluster
from clary.frameworks.framework import get_framework
from clary.frameworks.torchrun import TORCHRUN_COMMAND
from clary.frameworks.versions import FrameworkMissing, require, running_versions

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells have it
PIP_SETTINGS = "CLARY_PIP_SETTINGS"  # variable with the machine's settings for pip, as JSON; taken away


def main(arguments: list[str]) -> int:
    """``FRAMEWORK IMAGE COMMAND ...``; returns only if the command cannot be run."""
    name, asked, *command = arguments
    framework = get_framework(name)
    base = Path(os.environ["SAGEMAKER_BASE_DIR"])
    print(running_versions(framework, asked), flush=True)
    try:
        require(framework, asked)
    except FrameworkMissing as error:
        return _refuse(base, str(error), 1)
    own = Path(os.environ["CLARY_PYTHON_ENVIRONMENT"])
    create_environment(own)
    # In a file, not in variables: they may hold passwords, and scripts print their environment.
    write_pip_settings(own, json.loads(os.environ.pop(PIP_SETTINGS, "{}")))
    if debugger_wanted():
        write_start_hook(own, HOOK)
    os.environ["VIRTUAL_ENV"] = str(own)
    if framework.library == "torch":
        _let_torchrun_meet(own)
    print(f"Running the job's command in place of the toolkit: {shlex.join(command)}", flush=True)
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        return _refuse(base, f"the job's command {command[0]} is not there", _NOT_FOUND)
    except OSError as error:
        return _refuse(base, f"the job's command {command[0]} cannot be run: {error}", _NOT_EXECUTABLE)


def _let_torchrun_meet(own: Path) -> None:
    """Have ``torchrun`` meet where no other job on this machine does: their hosts share its network."""
    resources = json.loads(
        Path(os.environ["SAGEMAKER_BASE_DIR"], "input/config/resourceconfig.json").read_text(encoding="utf-8")
    )
    cluster = find_cluster(resources["hosts"], resources["current_host"], "")
    os.environ.setdefault("PET_MASTER_PORT", str(cluster.port))  # what torchrun takes where it is told none
    write_command(own / "bin", "torchrun", TORCHRUN_COMMAND)


def _refuse(base: Path, reason: str, exit_code: int) -> int:
    print(f"ClientError: {reason}", file=sys.stderr, flush=True)
    (base / "output/failure").write_text(f"ClientError: {reason}", encoding="utf-8")
    return exit_code
