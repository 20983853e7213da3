"""The SQLite file that the users' logs and metric points share, and the thread that owns it.

Write-ahead log with ``synchronous=NORMAL``: a crash of the process loses nothing; a loss of power may lose
the last moments of logs, which is worth the many small writes being cheap.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

BUSY_TIMEOUT_SECONDS = 30.0
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE groups (
  id INTEGER PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
  created_at INTEGER NOT NULL, retention_days INTEGER,
  UNIQUE (account, region, name)
);
CREATE TABLE streams (
  id INTEGER PRIMARY KEY, group_id INTEGER NOT NULL, name TEXT NOT NULL, created_at INTEGER NOT NULL,
  first_event_at INTEGER, last_event_at INTEGER, last_ingestion_at INTEGER,
  bytes INTEGER NOT NULL DEFAULT 0,
  UNIQUE (group_id, name)
);
CREATE TABLE events (
  position INTEGER PRIMARY KEY AUTOINCREMENT, stream_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
  ingested_at INTEGER NOT NULL, message TEXT NOT NULL
);
CREATE INDEX events_of_stream ON events (stream_id, position);
CREATE TABLE series (
  id INTEGER PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, namespace TEXT NOT NULL,
  name TEXT NOT NULL, dimensions TEXT NOT NULL,
  UNIQUE (account, region, namespace, dimensions, name)
);
CREATE TABLE points (
  id INTEGER PRIMARY KEY, series_id INTEGER NOT NULL, at REAL NOT NULL, total REAL NOT NULL,
  count REAL NOT NULL, minimum REAL, maximum REAL, unit TEXT NOT NULL, step INTEGER
);
CREATE INDEX points_of_series ON points (series_id, at);
"""

Result = TypeVar("Result")


class TelemetryDatabase:
    """Runs statements in one thread, in order, off the event loop."""

    def __init__(self, path: Path) -> None:
        """Raises ``RuntimeError`` if a newer Clary made the file."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="telemetry")
        self._connection = self._thread.submit(_connect, path).result()
        self._users = 0

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of ``work``, which only reads."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)

    async def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of ``work``, run in a transaction."""

        def transaction(connection: sqlite3.Connection) -> Result:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
                return result
            except BaseException:
                connection.execute("ROLLBACK")
                raise

        return await self.read(transaction)

    def share(self) -> TelemetryDatabase:
        """Count one more user; the file is closed when the last has called `close`."""
        self._users += 1
        return self

    async def close(self) -> None:
        self._users -= 1
        if self._users <= 0:
            await self.read(lambda connection: connection.close())
            self._thread.shutdown()


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _SCHEMA_VERSION:
        connection.execute("ROLLBACK")
        raise RuntimeError(f"{path} was made by a newer Clary (schema {version}): upgrade.")
    if version == 0:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    connection.execute("COMMIT")
    return connection
