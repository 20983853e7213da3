"""The contract of the users' logs: groups, streams and events, as CloudWatch Logs has them.

Times are integer milliseconds since the epoch. `clary.testing.log_store_conformance` holds the facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class LogGroup:
    account: str
    region: str
    name: str
    created_at: int
    retention_days: int | None
    stored_bytes: int


@dataclass(frozen=True)
class LogStream:
    group: str
    name: str
    created_at: int
    first_event_at: int | None
    last_event_at: int | None
    last_ingestion_at: int | None


@dataclass(frozen=True)
class LogEvent:
    stream: str
    timestamp: int
    message: str
    ingested_at: int
    position: int  # rises within a stream; the order in which events were put


class LogStore(Protocol):
    """Missing groups and streams raise `NotFound` with code ``ResourceNotFoundException``."""

    async def create_group(self, account: str, region: str, group: str) -> None:
        """Raises `InUse` (``ResourceAlreadyExistsException``)."""

    async def create_stream(self, account: str, region: str, group: str, stream: str) -> None:
        """Raises `InUse` (``ResourceAlreadyExistsException``)."""

    async def put(
        self, account: str, region: str, group: str, stream: str, events: Sequence[tuple[int, str]]
    ) -> None:
        """Append (timestamp, message) pairs, durably."""

    async def groups(
        self,
        account: str,
        region: str,
        *,
        prefix: str = "",
        pattern: str = "",
        after: str = "",
        limit: int = 50,
    ) -> Sequence[LogGroup]: ...

    async def streams(
        self,
        account: str,
        region: str,
        group: str,
        *,
        prefix: str = "",
        by_last_event: bool = False,
        descending: bool = False,
        offset: int = 0,
        limit: int = 50,
    ) -> Sequence[LogStream]: ...

    async def read(
        self,
        account: str,
        region: str,
        group: str,
        streams: Sequence[str],
        *,
        start: int | None = None,
        end: int | None = None,
        after_position: int | None = None,
        before_position: int | None = None,
        newest_first: bool = False,
        limit: int = 10_000,
    ) -> Sequence[LogEvent]:
        """Events of the streams (all if empty), ``start`` <= timestamp < ``end``, in order of position."""

    async def delete_stream(self, account: str, region: str, group: str, stream: str) -> None: ...
    async def delete_group(self, account: str, region: str, group: str) -> None: ...
    async def set_retention(self, account: str, region: str, group: str, days: int | None) -> None: ...
    async def close(self) -> None: ...
