"""The SDK's Estimator trains in an image of the caller's own, on a real engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clary.testing.container_images import Images, engine_here
from clary.testing.server import ServerProcess

SCRIPT = Path(__file__).parent / "scripts/estimator_sdk2.py"
ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
TRAIN = """#!/usr/bin/python3
import json, os
print("rows:", open("/opt/ml/input/data/train/rows.csv").read().count(","))
hyperparameters = json.load(open("/opt/ml/input/config/hyperparameters.json"))
found = {"depth": hyperparameters["depth"], "mine": os.environ["MINE"]}
json.dump(found, open("/opt/ml/model/model.json", "w"))
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clients")]


def test_an_estimator_with_its_own_image_trains(tmp_path: Path, client_bin: Callable[[str], Path]) -> None:
    complaint = engine_here()
    if complaint:
        pytest.skip(complaint)
    images = Images()
    report = tmp_path / "report.json"
    try:
        image = images.make({"/usr/local/bin/train": TRAIN})
        with ServerProcess(tmp_path) as server:
            own = {"IMAGE": image, "ROLE": ROLE, "CLARY_TEST_REPORT": str(report), "HOME": str(tmp_path)}
            outcome = subprocess.run(
                [client_bin("sdk2") / "python", SCRIPT],
                env=os.environ | server.environment() | own,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=400,
            )
        assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]
        assert json.loads(report.read_text()) == {"depth": "3", "mine": "yes"}
        assert "rows: 2" in outcome.stdout, "fit shows the job's log"
    finally:
        images.close()
