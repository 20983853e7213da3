"""The example of a container of one's own, on a real server, with an image of this machine's files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clary.testing.container_images import Images
from clary.testing.server import ServerProcess

EXAMPLE = Path(__file__).parents[2] / "examples/byo_container"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("containers")]


def test_the_example_trains_and_finds_its_image_by_the_name_it_has_in_ecr(
    tmp_path: Path, images: Images
) -> None:
    program = (EXAMPLE / "train").read_text()
    interpreter = "#!/usr/bin/env python3\n"
    assert program.startswith(interpreter)
    # The tests' images have no /usr/bin/env.
    image = images.make({"/usr/local/bin/train": program.replace(interpreter, "#!/usr/bin/python3\n", 1)})
    with ServerProcess(tmp_path) as server:
        outcome = subprocess.run(
            [
                sys.executable,
                str(EXAMPLE / "run.py"),
                f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{image}",
            ],
            env=os.environ | server.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        log = server.log.read_text()
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr + log
    assert "y = 2.00 x + 1.00\nmean squared error: 0.0000" in outcome.stdout
    dockerfile = (EXAMPLE / "Dockerfile").read_text()
    assert "COPY --chmod=755 train /usr/local/bin/train" in dockerfile
