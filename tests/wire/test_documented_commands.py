"""Every command in the README and the documentation's pages works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clary.testing.server import ServerProcess

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
TIMEOUT_SECONDS = 300
# What is not typed into the shell of a running server: it makes the checkout, or runs the server itself.
ELSEWHERE = ("git clone ", "make demo", "clary up", ".venv/bin/clary up")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clients")]


def commands(page: Path) -> list[str]:
    lines = [
        line.split(" # ")[0].strip()
        for block in BLOCK.findall(page.read_text())
        for line in block.splitlines()
    ]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("documented")) as running:
        yield running


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run(
    page: Path, server: ServerProcess, client_bin: Callable[[str], Path], tmp_path: Path
) -> None:
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    clary = bin_folder / "clary"
    clary.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m clary.cli "$@"\n')
    clary.chmod(0o755)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = [str(bin_folder), str(client_bin("sdk2")), str(client_bin("cli")), os.environ["PATH"]]
    outcome = subprocess.run(
        ["bash", "-euc", "\n".join(commands(page))],
        cwd=tmp_path,
        env=os.environ
        | {"PATH": os.pathsep.join(path), "CLARY_DATA": str(server.data), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]


def test_there_are_commands_to_run() -> None:
    assert ROOT / "README.md" in WITH_COMMANDS
    assert len(WITH_COMMANDS) >= 4
