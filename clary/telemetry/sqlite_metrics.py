"""Metric points in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence

from clary.clock import Clock, SystemClock
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.metric_store import KEPT_SECONDS, Point, Series

_SERIES = "account = ? AND region = ? AND namespace = ? AND dimensions = ? AND name = ?"
_POINT = "at, total, count, minimum, maximum, unit, step"


class SqliteMetricStore:
    """`clary.telemetry.metric_store.MetricStore` in a `TelemetryDatabase`."""

    def __init__(self, database: TelemetryDatabase, clock: Clock | None = None) -> None:
        self._database = database.share()
        self._clock = clock or SystemClock()

    async def put(self, points: Sequence[tuple[Series, Point]]) -> None:
        expired = self._clock.now() - KEPT_SECONDS

        def work(connection: sqlite3.Connection) -> None:
            ids: dict[tuple[str, ...], int] = {}
            rows = []
            for series, point in points:
                identity = _identity(series)
                if identity not in ids:
                    ids[identity] = _series_id(connection, identity)
                rows.append(
                    (
                        ids[identity],
                        point.at,
                        point.total,
                        point.count,
                        point.minimum,
                        point.maximum,
                        point.unit,
                        point.step,
                    )
                )
            connection.executemany(
                f"INSERT INTO points (series_id, {_POINT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            connection.executemany(
                "DELETE FROM points WHERE series_id = ? AND at < ?", [(id, expired) for id in ids.values()]
            )

        await self._database.write(work)

    async def points(self, series: Series, *, start: float, end: float) -> Sequence[Point]:
        rows = await self._database.read(
            lambda connection: connection.execute(
                f"SELECT {_POINT} FROM points WHERE at >= ? AND at < ? AND series_id ="
                f" (SELECT id FROM series WHERE {_SERIES}) ORDER BY at, id",
                (start, end, *_identity(series)),
            ).fetchall()
        )
        return [Point(*row) for row in rows]

    async def last(
        self, account: str, region: str, namespace: str, dimensions: Mapping[str, str]
    ) -> Mapping[str, Point]:
        rows = await self._database.read(
            lambda connection: connection.execute(
                f"SELECT series.name, {_POINT} FROM series JOIN points ON points.id ="
                " (SELECT max(id) FROM points WHERE series_id = series.id)"
                " WHERE account = ? AND region = ? AND namespace = ? AND dimensions = ? ORDER BY series.id",
                (account, region, namespace, _text(dimensions)),
            ).fetchall()
        )
        return {row[0]: Point(*row[1:]) for row in rows}

    async def series(
        self,
        account: str,
        region: str,
        *,
        namespace: str | None = None,
        name: str | None = None,
        dimensions: Mapping[str, str | None] | None = None,
        active_since: float | None = None,
    ) -> Sequence[Series]:
        rows = await self._database.read(
            lambda connection: connection.execute(
                "SELECT namespace, name, dimensions FROM series WHERE account = ? AND region = ?"
                " AND (? IS NULL OR namespace = ?) AND (? IS NULL OR name = ?) AND (? IS NULL OR EXISTS"
                " (SELECT 1 FROM points WHERE series_id = series.id AND at >= ?))"
                " ORDER BY namespace, name, id",
                (account, region, namespace, namespace, name, name, active_since, active_since),
            ).fetchall()
        )
        found = [Series(account, region, row[0], row[1], json.loads(row[2])) for row in rows]
        wanted = (dimensions or {}).items()
        return [
            series
            for series in found
            if all(
                dimension in series.dimensions and value in (None, series.dimensions[dimension])
                for dimension, value in wanted
            )
        ]

    async def close(self) -> None:
        await self._database.close()


def _text(dimensions: Mapping[str, str]) -> str:
    return json.dumps(dict(dimensions), sort_keys=True)


def _identity(series: Series) -> tuple[str, str, str, str, str]:
    return (series.account, series.region, series.namespace, _text(series.dimensions), series.name)


def _series_id(connection: sqlite3.Connection, identity: tuple[str, str, str, str, str]) -> int:
    columns = "account, region, namespace, dimensions, name"
    connection.execute(f"INSERT OR IGNORE INTO series ({columns}) VALUES (?, ?, ?, ?, ?)", identity)
    row = connection.execute(f"SELECT id FROM series WHERE {_SERIES}", identity).fetchone()
    return int(row[0])
