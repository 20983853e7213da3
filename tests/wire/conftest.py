"""The real clients: environments of theirs, kept in ``.cache/environments``, and how a script runs in one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
TIMEOUT_SECONDS = 400

RunClient = Callable[..., dict[str, Any]]

# Steps are installed one after the other: torch must be there before what would bring a CUDA build of it.
CLIENTS = {
    "sdk1": [["sagemaker==1.72.1", "protobuf<3.21", "scikit-learn"]],
    "sdk2": [["sagemaker>=2.257.1,<3", "scikit-learn"]],
    "sdk3": [["torch==2.13.0"], ["sagemaker>=3.20,<4", "torch==2.13.0", "scikit-learn"]],
    "cli": [["awscli"]],
}


def build_client(name: str) -> Path:
    """The ``bin`` folder of the client ``name``, built if it is not there yet."""
    steps = CLIENTS[name]
    digest = hashlib.sha256(repr((steps, sys.version_info[:2])).encode()).hexdigest()[:12]
    folder = Path(os.environ.get("CLARY_TEST_CACHE", ROOT / ".cache")) / "environments" / f"{name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "venv"], check=True)
            for requirements in steps:
                pip = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet"]
                subprocess.run([*pip, "--disable-pip-version-check", *requirements], check=True)
            (folder / "ready").touch()
    return folder / "venv" / "bin"


@pytest.fixture
def client_bin() -> Callable[[str], Path]:
    """Gives the ``bin`` folder of a client's environment; skips where the network cannot be closed."""
    if shutil.which("bwrap") is None:
        assert "CLARY_TESTS_MUST_RUN" not in os.environ, "bubblewrap must be installed here"
        pytest.skip("needs bubblewrap, to close the network: apt-get install bubblewrap")
    return build_client


@pytest.fixture
def run_client(tmp_path: Path, client_bin: Callable[[str], Path]) -> RunClient:
    """Runs a command with a client's environment first on the path, on a Clary of its own."""
    for script in SCRIPTS.iterdir():
        shutil.copy(script, tmp_path)
    (tmp_path / "home").mkdir()

    def run(client: str, *command: str) -> dict[str, Any]:
        environment = os.environ | {
            "PATH": f"{client_bin(client)}{os.pathsep}{os.environ['PATH']}",
            "CLARY_TEST_REPORT": str(tmp_path / "report.json"),
            "HOME": str(tmp_path / "home"),
            "AWS_ACCESS_KEY_ID": "AKIAREALAWSACCOUNT00",  # what a user's shell may hold must not win
            "AWS_SECRET_ACCESS_KEY": "of-another-account",
        }
        fenced = ["bwrap", "--dev-bind", "/", "/", "--unshare-net", "--die-with-parent"]
        demo = [sys.executable, "-m", "clary.clients.demo", *command]
        outcome = subprocess.run(
            [*fenced, *demo],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        assert outcome.returncode == 0, outcome.stdout[-8000:] + outcome.stderr[-8000:]
        report = tmp_path / "report.json"
        return dict(json.loads(report.read_text())) if report.exists() else {}

    return run
