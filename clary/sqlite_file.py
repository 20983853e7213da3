"""One SQLite file and the two threads that use it: one writes, one reads.

Write-ahead log: readers never wait for the writer. Writes that wait together share one commit, so their
number is not bound by how often the disk can be flushed. A durable write is flushed (``synchronous=FULL``)
before it is acknowledged: it survives a loss of power. Several processes may open the same file.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import os
import re
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

BUSY_TIMEOUT_SECONDS = 30.0
MOST_WRITES_OF_A_COMMIT = 200

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Write:
    """``start`` says whether the caller still waits; ``attempt`` does the write inside the open transaction
    and gives what tells the caller; ``fail`` tells the caller why nothing of the commit came to be.
    """

    start: Callable[[], bool]
    attempt: Callable[[sqlite3.Connection], Callable[[], None]]
    fail: Callable[[BaseException], None]
    durable: bool


class SqliteFile:
    """The file ``path``, with the schema of the SQL files in the package ``migrations``."""

    def __init__(self, path: Path, migrations: str) -> None:
        """Opens the file, making or upgrading it. Raises ``RuntimeError`` if a newer Clary made it."""
        self._pending: deque[_Write] = deque()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-reader")
        try:
            self._write_connection = self._writer.submit(_open, path, migrations).result()
            self._read_connection = self._reader.submit(_open_for_reading, path).result()
        except BaseException:
            self._writer.shutdown()
            self._reader.shutdown()
            raise

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of ``work``, which only reads. It sees every write that was acknowledged before."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, work, self._read_connection)

    async def write(self, work: Callable[[sqlite3.Connection], Result], *, durable: bool = True) -> Result:
        """The result of ``work``, once it is committed; what it raises undoes it and nothing else.

        A write that is not ``durable`` survives a crash of the process but not a loss of power.
        """
        future: Future[Result] = Future()

        def attempt(connection: sqlite3.Connection) -> Callable[[], None]:
            connection.execute("SAVEPOINT write_of_one")
            try:
                result = work(connection)
            except BaseException as error:
                if not connection.in_transaction:
                    raise  # a full or broken disk: SQLite has undone the writes of the others too
                connection.execute("ROLLBACK TO write_of_one")
                connection.execute("RELEASE write_of_one")
                return partial(future.set_exception, error)
            connection.execute("RELEASE write_of_one")
            return partial(future.set_result, result)

        self._pending.append(
            _Write(future.set_running_or_notify_cancel, attempt, future.set_exception, durable)
        )
        self._writer.submit(self._commit_pending)
        return await asyncio.wrap_future(future)

    def _commit_pending(self) -> None:
        """Commit what has gathered; there may be nothing left to do."""
        waiting = [self._pending.popleft() for _ in range(min(len(self._pending), MOST_WRITES_OF_A_COMMIT))]
        writes = [write for write in waiting if write.start()]
        if not writes:
            return
        connection = self._write_connection
        try:
            flush = "FULL" if any(write.durable for write in writes) else "NORMAL"
            connection.execute(f"PRAGMA synchronous = {flush}")
            connection.execute("BEGIN IMMEDIATE")
            replies = [write.attempt(connection) for write in writes]
            connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - each caller gets it
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            replies = [partial(write.fail, error) for write in writes]
        for reply in replies:
            reply()

    async def close(self) -> None:
        """Finish what is in flight and close the file."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reader, self._read_connection.close)
        await loop.run_in_executor(self._writer, self._write_connection.close)
        self._reader.shutdown()
        self._writer.shutdown()


def _open(path: Path, migrations: str) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = _connect(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        _upgrade(connection, path, _steps(migrations))
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _open_for_reading(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)


def _steps(migrations: str) -> list[tuple[int, str]]:
    """(version, SQL) of the files of the package ``migrations``, in order."""
    files = importlib.resources.files(migrations).iterdir()
    named = [(re.fullmatch(r"(\d{4})_\w+\.sql", file.name), file) for file in files]
    return sorted((int(match[1]), file.read_text(encoding="utf-8")) for match, file in named if match)


def _upgrade(connection: sqlite3.Connection, path: Path, steps: list[tuple[int, str]]) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    newest = steps[-1][0]
    if version > newest:
        raise RuntimeError(
            f"{path} was made by a newer Clary: its schema is {version}, this Clary knows {newest}. "
            "Upgrade Clary, or choose another data folder."
        )
    for number, text in steps:
        if number > version:
            statement = ""
            for piece in text.split(";"):
                statement += piece + ";"
                if sqlite3.complete_statement(statement):
                    connection.execute(statement)
                    statement = ""
            connection.execute(f"PRAGMA user_version = {number}")
