"""Where every component is there (``CLARY_TESTS_MUST_RUN``, as in CI), a skipped test is a failure."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("clary", deadline=None)
settings.load_profile("clary")

# Skipped because something is there, not because something is missing.
_FINE = "is installed"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "CLARY_TESTS_MUST_RUN" not in os.environ or reporter is None or hasattr(session.config, "workerinput"):
        return
    skipped = [r for r in reporter.stats.get("skipped", []) if _FINE not in str(r.longrepr)]
    for report in skipped:
        reporter.write_line(f"SKIPPED where it must run: {report.nodeid}: {report.longrepr}", red=True)
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
