"""Metric points in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence

from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.metric_store import Point, Series

_SERIES = "account = ? AND region = ? AND namespace = ? AND dimensions = ? AND name = ?"
_POINT = "at, total, count, minimum, maximum, unit, step"


class SqliteMetricStore:
    """`clary.telemetry.metric_store.MetricStore` in a `TelemetryDatabase`."""

    def __init__(self, database: TelemetryDatabase) -> None:
        self._database = database.share()

    async def put(self, points: Sequence[tuple[Series, Point]]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for series, point in points:
                connection.execute(
                    f"INSERT INTO points (series_id, {_POINT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        _series_id(connection, series),
                        point.at,
                        point.total,
                        point.count,
                        point.minimum,
                        point.maximum,
                        point.unit,
                        point.step,
                    ),
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
    ) -> Sequence[Series]:
        rows = await self._database.read(
            lambda connection: connection.execute(
                "SELECT namespace, name, dimensions FROM series WHERE account = ? AND region = ?"
                " AND (? IS NULL OR namespace = ?) AND (? IS NULL OR name = ?) ORDER BY namespace, name, id",
                (account, region, namespace, namespace, name, name),
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


def _series_id(connection: sqlite3.Connection, series: Series) -> int:
    identity = _identity(series)
    columns = "account, region, namespace, dimensions, name"
    connection.execute(f"INSERT OR IGNORE INTO series ({columns}) VALUES (?, ?, ?, ?, ?)", identity)
    row = connection.execute(f"SELECT id FROM series WHERE {_SERIES}", identity).fetchone()
    return int(row[0])
