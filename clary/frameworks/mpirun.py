"""A script under ``mpirun``, on one host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clary.frameworks.distribution import Mpirun
from clary.frameworks.script import Ended
from clary.frameworks.worker import run_launcher

_VERSION_SECONDS = 30.0


def mpirun_command(launch: Mpirun, program: str, arguments: Sequence[str]) -> list[str]:
    """What AWS's toolkit would run, but for the options that only several hosts need."""
    return ["mpirun", *_options(launch), "python", program, *arguments]


def run_mpirun(launch: Mpirun, script: Path, arguments: Sequence[str], code: Path) -> Ended:
    """Run ``script`` in several processes; the first of them to fail says why."""
    command = [launch.path, *_own_options(launch), *_options(launch), sys.executable]
    return run_launcher(command, script, arguments, code, processes=launch.processes, variables={})


def _options(launch: Mpirun) -> list[str]:
    return ["-np", str(launch.processes), *launch.options]


def _own_options(launch: Mpirun) -> list[str]:
    """What Open MPI wants to be told in a container, where it sees one processor and the user root."""
    said = subprocess.run(
        [launch.path, "--version"],
        capture_output=True,
        text=True,
        timeout=_VERSION_SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    ).stdout
    return ["--allow-run-as-root", "--oversubscribe"] if "Open MPI" in said else []
