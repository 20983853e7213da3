"""The SQLite file that the users' logs and metric points share.

Its writes are not flushed one by one (``synchronous=NORMAL``): a crash of the process loses nothing; a loss
of power may lose the last moments of logs, which is worth the many small writes being cheap.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clary.sqlite_file import SqliteFile

Result = TypeVar("Result")


class TelemetryDatabase:
    """One file for several stores."""

    def __init__(self, path: Path) -> None:
        """Raises ``RuntimeError`` if a newer Clary made the file."""
        self._file = SqliteFile(path, "clary.telemetry.migrations")
        self._users = 0

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of ``work``, which only reads."""
        return await self._file.read(work)

    async def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of ``work``, once it is committed."""
        return await self._file.write(work, durable=False)

    def share(self) -> TelemetryDatabase:
        """Count one more user; the file is closed when the last has called `close`."""
        self._users += 1
        return self

    async def close(self) -> None:
        self._users -= 1
        if self._users == 0:
            await self._file.close()
