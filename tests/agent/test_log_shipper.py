"""Lines reach the log stream whole and in order, whatever the server does meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from clary.agent import log_shipper
from clary.agent.aws import Clients, Patience
from clary.agent.log_shipper import LogShipper
from clary.testing.agent_world import AgentWorld


def shipper(world: AgentWorld, spool: Path, seconds: float = 30.0) -> LogShipper:
    clients = Clients(world.connection.endpoint_url, world.connection.region)
    clients.credentials.bind(world.connection)
    return LogShipper(clients, Patience(clients.credentials, seconds), "group", "stream", spool)


def test_lines_arrive_in_order_and_once(tmp_path: Path) -> None:
    with AgentWorld() as world:
        logs = shipper(world, tmp_path / "spool")
        expected = [f"line {i} é" for i in range(25_000)]
        for line in expected:
            logs.add(line)
        assert logs.close(30.0)
        assert world.lines("group", "stream") == expected
        times = [event["timestamp"] for event in world.events["group", "stream"]]
        assert times == sorted(times)
        assert (tmp_path / "spool").stat().st_size == 0


def test_times_never_go_back_even_if_the_clock_does(tmp_path: Path) -> None:
    with AgentWorld() as world:
        logs = shipper(world, tmp_path / "spool")
        logs.add("later", 2_000_000_000.0)
        logs.add("earlier", 1_900_000_000.0)
        assert logs.close(30.0)
        first, second = world.events["group", "stream"]
        assert first["timestamp"] <= second["timestamp"]


def test_lines_wait_for_a_server_that_is_away(tmp_path: Path) -> None:
    with AgentWorld() as world:
        logs = shipper(world, tmp_path / "spool")
        world.vanish()
        for i in range(2000):
            logs.add(f"line {i}")
        assert not logs.close(0.2)
        world.appear()
        assert logs.close(30.0)
        assert world.lines("group", "stream") == [f"line {i}" for i in range(2000)]


def test_more_than_fits_is_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_shipper, "LARGEST_SPOOL_BYTES", 1000)
    with AgentWorld() as world:
        world.vanish()
        logs = shipper(world, tmp_path / "spool")
        for i in range(100):
            logs.add(f"line {i}")
        world.appear()
        assert logs.close(30.0)
        lines = world.lines("group", "stream")
        assert lines[0] == "line 0"
        assert "lines were left out here" in lines[-1]
        assert len(lines) < 100


def test_an_empty_line_is_kept_as_a_space(tmp_path: Path) -> None:
    with AgentWorld() as world:
        logs = shipper(world, tmp_path / "spool")
        logs.add("")
        assert logs.close(30.0)
        assert world.lines("group", "stream") == [" "]


def test_lines_are_delivered_although_the_disk_is_full() -> None:
    with AgentWorld() as world:
        logs = shipper(world, Path("/dev/full"))
        expected = [f"line {i}" for i in range(5000)]
        for line in expected:
            logs.add(line)
        assert logs.close(30.0)
        assert world.lines("group", "stream") == expected


def test_on_a_full_disk_too_many_lines_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_shipper, "_PENDING_BYTES", 1000)
    with AgentWorld() as world:
        world.vanish()
        logs = shipper(world, Path("/dev/full"))
        for i in range(200):
            logs.add(f"line {i}")
        world.appear()
        assert logs.close(30.0)
        lines = world.lines("group", "stream")
        assert lines[:-1] == [f"line {i}" for i in range(len(lines) - 1)]
        assert lines[-1].startswith(f"{200 - len(lines) + 1} lines were left out here")
