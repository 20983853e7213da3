"""What `clary doctor` finds out about this machine."""

from __future__ import annotations

from pathlib import Path

from clary.agent.cgroups import find_places
from clary.clients.doctor import examine
from clary.settings import Settings


def test_how_limits_are_enforced_is_told(tmp_path: Path) -> None:
    found = {finding.subject: finding for finding in examine(Settings(data=tmp_path, control_groups=False))}
    assert found["Limits"].verdict == "limited"
    assert "control groups are switched off: tasks are looked at every second" in found["Limits"].detail
    found = {finding.subject: finding for finding in examine(Settings(data=tmp_path))}
    places = find_places()
    assert found["Limits"].verdict == ("ok" if places else "limited")
    assert (f"version {places.version}" if places else "no control groups") in found["Limits"].detail
