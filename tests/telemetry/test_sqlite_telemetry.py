"""What the file of logs and metrics shows beyond the contracts: upgrades, sharing, what expires."""

from __future__ import annotations

import asyncio
import importlib.resources
import sqlite3
import stat
from pathlib import Path

import pytest

from clary.clock import ManualClock
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.metric_store import KEPT_SECONDS, Point, Series
from clary.telemetry.sqlite_logs import SqliteLogStore
from clary.telemetry.sqlite_metrics import SqliteMetricStore

HOME = ("1", "r")


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    logs = SqliteLogStore(TelemetryDatabase(tmp_path / "t.sqlite"))
    assert stat.S_IMODE((tmp_path / "t.sqlite").stat().st_mode) == 0o600
    asyncio.run(logs.close())


def test_a_file_of_a_newer_clary_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "t.sqlite") as connection:
        connection.execute("PRAGMA user_version = 9999")
    with pytest.raises(RuntimeError, match="newer Clary"):
        TelemetryDatabase(tmp_path / "t.sqlite")


def test_a_file_of_the_first_schema_is_upgraded_with_what_it_holds(tmp_path: Path) -> None:
    first = importlib.resources.files("clary.telemetry.migrations") / "0001_telemetry.sql"
    with sqlite3.connect(tmp_path / "t.sqlite") as connection:
        connection.executescript(first.read_text())
        connection.execute("INSERT INTO groups (account, region, name, created_at) VALUES ('1', 'r', 'g', 5)")
        connection.execute(
            "INSERT INTO streams (group_id, name, created_at, first_event_at, last_event_at)"
            " VALUES (1, 's', 5, 7, 7)"
        )
        connection.execute(
            "INSERT INTO events (stream_id, timestamp, ingested_at, message) VALUES (1, 7, 8, 'kept')"
        )
        connection.execute("PRAGMA user_version = 1")

    async def facts() -> None:
        logs = SqliteLogStore(TelemetryDatabase(tmp_path / "t.sqlite"))
        assert (await logs.group(*HOME, "g")).tags == {}
        assert [event.message for event in (await logs.search(*HOME, "g")).events] == ["kept"]
        await logs.close()

    asyncio.run(facts())


def test_the_file_is_open_until_its_last_user_is_done(tmp_path: Path) -> None:
    async def facts() -> None:
        database = TelemetryDatabase(tmp_path / "t.sqlite")
        logs, metrics = SqliteLogStore(database), SqliteMetricStore(database)
        await logs.close()
        assert await metrics.series(*HOME) == []
        await metrics.close()
        with pytest.raises(RuntimeError):
            await metrics.series(*HOME)

    asyncio.run(facts())


def test_points_go_when_their_time_is_over(tmp_path: Path) -> None:
    async def facts() -> None:
        clock = ManualClock()
        metrics = SqliteMetricStore(TelemetryDatabase(tmp_path / "t.sqlite"), clock)
        series, start = Series(*HOME, "N", "m"), clock.now()
        await metrics.put([(series, Point(start, 1.0)), (series, Point(start + 60, 2.0))])
        await clock.advance(KEPT_SECONDS + 30)
        await metrics.put([(series, Point(clock.now(), 3.0))])
        found = await metrics.points(series, start=0, end=clock.now() + 1)
        assert [point.total for point in found] == [2.0, 3.0]
        await metrics.close()

    asyncio.run(facts())
