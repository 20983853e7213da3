"""What a training algorithm finds under ``/opt/ml``, and how it speaks."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clary.algorithms.faults import ClientError

BASE_DIRECTORY = "/opt/ml"
DEFAULT_CHECKPOINTS = "/opt/ml/checkpoints"
LONGEST_FAILURE = 1024  # characters of a FailureReason


def base_directory() -> Path:
    return Path(os.environ.get("SAGEMAKER_BASE_DIR", BASE_DIRECTORY))


def processors() -> int:
    """How many processors the task may use."""
    for name in ("SM_NUM_CPUS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdecimal() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Job:
    """One training run. ``hyperparameters`` are text; ``input_config`` is by channel.

    ``checkpoints`` is where checkpoints go; ``None`` if the caller wants none. ``stop_requested`` becomes
    true when the job is told to end; an algorithm looks at it now and then. ``version`` is the image's, and
    ``name`` the job's; either may be unknown (""). ``ends_at_once`` is true while a library is in use that
    cannot be left in good order: a program that fails then ends without farewell.
    """

    base: Path
    hyperparameters: Mapping[str, str]
    input_config: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    hosts: list[str] = field(default_factory=lambda: ["algo-1"])
    current_host: str = "algo-1"
    checkpoints: Path | None = None
    stop_requested: bool = False
    version: str = ""
    name: str = ""
    ends_at_once: bool = False

    @property
    def model(self) -> Path:
        return self.base / "model"

    @property
    def output_data(self) -> Path:
        return self.base / "output" / "data"

    def channel(self, name: str) -> Path | None:
        """The folder of a channel; ``None`` if the job has no such channel."""
        return self.base / "input" / "data" / name if name in self.input_config else None

    def log(self, line: str) -> None:
        print(line, flush=True)

    def stop_on_sigterm(self) -> None:
        """From now on SIGTERM only sets ``stop_requested``: the algorithm ends in good order."""

        def ask(*_: object) -> None:
            self.stop_requested = True

        signal.signal(signal.SIGTERM, ask)


def read_job(base: Path) -> Job:
    """The job that the files of ``base/input/config`` describe. Raises `ClientError` naming a broken one."""
    config = base / "input" / "config"

    def load(name: str) -> dict[str, Any]:
        path = config / name
        try:
            document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError as error:
            raise ClientError(f"{path} is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise ClientError(f"{path} must hold a JSON object.")
        return document

    resources = load("resourceconfig.json")
    checkpoints = None
    if (config / "checkpointconfig.json").exists():
        local = str(load("checkpointconfig.json").get("LocalPath") or DEFAULT_CHECKPOINTS)
        # The contract's paths are those of a container: elsewhere they are below the base directory.
        inside = Path(local).is_relative_to(BASE_DIRECTORY)
        checkpoints = base / Path(local).relative_to(BASE_DIRECTORY) if inside else Path(local)
    return Job(
        base=base,
        hyperparameters={name: str(value) for name, value in load("hyperparameters.json").items()},
        input_config=load("inputdataconfig.json"),
        hosts=list(resources.get("hosts", ["algo-1"])),
        current_host=str(resources.get("current_host", "algo-1")),
        checkpoints=checkpoints,
        name=os.environ.get("TRAINING_JOB_NAME", ""),
    )


def write_failure(base: Path, message: str) -> None:
    """Leave the cause for the platform; a cause that is there already stays."""
    failure = base / "output" / "failure"
    try:
        failure.parent.mkdir(parents=True, exist_ok=True)
        with failure.open("x", encoding="utf-8") as file:
            file.write(message[:LONGEST_FAILURE])
    except FileExistsError:
        pass
    except OSError as error:
        print(f"{failure} cannot be written: {error}", file=sys.stderr)
