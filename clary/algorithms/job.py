"""What a training algorithm finds under ``/opt/ml``, and how it speaks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASE_DIRECTORY = "/opt/ml"


def base_directory() -> Path:
    return Path(os.environ.get("SAGEMAKER_BASE_DIR", BASE_DIRECTORY))


@dataclass
class Job:
    """One training run. ``hyperparameters`` are text; ``input_config`` is by channel."""

    base: Path
    hyperparameters: Mapping[str, str]
    input_config: Mapping[str, Mapping[str, str]]
    hosts: list[str]
    current_host: str
    stop_requested: bool = field(default=False)

    @property
    def model(self) -> Path:
        return self.base / "model"

    @property
    def checkpoints(self) -> Path:
        return self.base / "checkpoints"

    @property
    def threads(self) -> int:
        """How many processors the job may use."""
        return max(1, int(os.environ.get("SM_NUM_CPUS") or len(os.sched_getaffinity(0))))

    def channel(self, name: str) -> Path | None:
        """The folder of a channel; ``None`` if the job has no such channel."""
        folder = self.base / "input" / "data" / name
        return folder if name in self.input_config else None

    def log(self, line: str) -> None:
        print(line, flush=True)

    def stop_on_sigterm(self) -> None:
        """From now on SIGTERM only sets ``stop_requested``: the algorithm ends in good order."""

        def ask(*_: object) -> None:
            self.stop_requested = True

        signal.signal(signal.SIGTERM, ask)


def read_job(base: Path) -> Job:
    """The job described by the files of ``base/input/config``. Raises ``OSError`` or ``ValueError``."""
    config = base / "input" / "config"

    def load(name: str) -> dict[str, Any]:
        path = config / name
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    resources = load("resourceconfig.json")
    return Job(
        base=base,
        hyperparameters={name: str(value) for name, value in load("hyperparameters.json").items()},
        input_config=load("inputdataconfig.json"),
        hosts=list(resources.get("hosts", ["algo-1"])),
        current_host=str(resources.get("current_host", "algo-1")),
    )
