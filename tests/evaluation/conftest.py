"""The real runs that the fit doctor is measured by, made once for all tests of a process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # test folders are no packages

from fit_runs import Run, make_runs


@pytest.fixture(scope="session")
def runs() -> Sequence[Run]:
    return make_runs()
