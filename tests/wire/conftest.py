"""Virtual environments of the real clients, built once and kept in ``.cache/environments``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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
