"""A script's job folder as the platform lays it out, and the script run in it as a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

RUN = "import sys; from clary.frameworks.entrypoint import main; sys.exit(main(sys.argv[1:]))"


class ScriptFolder:
    """``/opt/ml`` of a test."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for folder in ("input/config", "input/data", "code"):
            (base / folder).mkdir(parents=True)
        self.hyperparameters: dict[str, object] = {}

    def script(self, text: str, name: str = "train.py") -> Path:
        path = self.base / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def write(self, name: str, document: object) -> None:
        (self.base / "input/config" / name).write_text(json.dumps(document))

    def start(
        self, program: str | None = "train.py", framework: str = "sagemaker-scikit-learn", **settings: str
    ) -> subprocess.Popen[str]:
        values = {name: json.dumps(value) for name, value in self.hyperparameters.items()}
        if program is not None:
            values["sagemaker_program"] = json.dumps(program)
        self.write("hyperparameters.json", values)
        return subprocess.Popen(
            [sys.executable, "-c", RUN, "train", framework, "1.2-1"],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "SAGEMAKER_BASE_DIR": str(self.base),
                **settings,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, program: str | None = "train.py", framework: str = "sagemaker-scikit-learn", **settings: str
    ) -> tuple[int, str, str]:
        process = self.start(program, framework, **settings)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def failure(self) -> str:
        path = self.base / "output/failure"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def folder(tmp_path: Path) -> ScriptFolder:
    return ScriptFolder(tmp_path / "ml")
