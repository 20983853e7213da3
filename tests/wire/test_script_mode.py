"""Script mode, as unmodified SDKs ask for it: sources, packages, PyTorch, several hosts."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

RunClient = Callable[..., dict[str, Any]]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clients")]


@pytest.fixture(autouse=True)
def torch_is_there() -> None:
    if importlib.util.find_spec("torch") is None:
        assert "CLARY_TESTS_MUST_RUN" not in os.environ, "the extra 'pytorch' must be installed here"
        pytest.skip("needs PyTorch: pip install 'clary[pytorch]'")


def weights(lines: list[str]) -> list[str]:
    return sorted(line for line in lines if line.startswith("rank="))


def test_sdk_2_runs_scripts_of_git_pytorch_and_shells(run_client: RunClient) -> None:
    if shutil.which("git") is None:
        assert "CLARY_TESTS_MUST_RUN" not in os.environ, "git must be installed here"
        pytest.skip("needs git")
    seen = run_client("sdk2", "python", "script_mode_sdk2.py")
    assert "GIT beside dependency" in seen["git"]
    assert weights(seen["together"]) == ["rank=0 world=2 weight=3.000", "rank=1 world=2 weight=3.000"]
    assert any("torchrun --nnodes=2 --nproc_per_node=1" in line for line in seen["together"])
    assert seen["metrics"]["train:loss"] < 0.001
    assert "SHELL --depth 3 --name a b 3 hello" in seen["shell"]


def test_sdk_1_runs_scripts_of_every_framework(run_client: RunClient) -> None:
    seen = run_client("sdk1", "python", "script_mode_sdk1.py")
    assert any(line.startswith("train_accuracy=0.9") for line in seen["sklearn"])
    assert "ROUNDS 7" in seen["xgboost"]
    assert "TORCH sagemaker_pytorch_container.training:main 2.0" in seen["pytorch"]


def test_sdk_3_runs_its_own_drivers_alone_and_on_two_hosts(
    run_client: RunClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        info = "tinything-1.0.dist-info"
        packed.writestr("tinything.py", "VERSION = '1.0'\n")
        packed.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("CLARY_TEST_WHEEL", base64.b64encode(content.getvalue()).decode())
    seen = run_client("sdk3", "python", "script_mode_sdk3.py")
    assert seen["statuses"] == ["Completed"] * 3, seen
    assert "TINY 1.0 3 a b" in seen["plain"]
    for lines in seen["together"]:
        assert weights(lines) == ["rank=0 world=2 weight=3.000", "rank=1 world=2 weight=3.000"], lines
    assert all(place.endswith("/output/model.tar.gz") for place in seen["artifacts"])
