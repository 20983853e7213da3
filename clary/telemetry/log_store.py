"""The contract of the users' logs: groups, streams and events, as CloudWatch Logs has them.

Times are integer milliseconds since the epoch. `clary.testing.log_store_conformance` holds the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

EVENT_OVERHEAD_BYTES = 26  # what an event counts beside its message in UTF-8
MAX_EVENTS_OF_A_PAGE = 10_000
MAX_BYTES_OF_A_PAGE = 1_048_576
MAX_EVENTS_SEARCHED = 100_000  # in one call; a search goes on in the next


@dataclass(frozen=True)
class LogGroup:
    account: str
    region: str
    name: str
    created_at: int
    retention_days: int | None
    stored_bytes: int
    log_class: str = "STANDARD"
    kms_key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


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
    position: int  # unique in the store; rises within a stream, in the order in which events were put


@dataclass(frozen=True)
class Found:
    """A piece of a search; ``place`` is where the next begins, ``None`` at the end."""

    events: Sequence[LogEvent]
    place: tuple[int, int] | None


class LogStore(Protocol):
    """Missing groups and streams raise `NotFound` with code ``ResourceNotFoundException``.

    Events older than their group keeps them are gone, some time after they expired.
    """

    async def create_group(
        self,
        account: str,
        region: str,
        group: str,
        *,
        tags: Mapping[str, str] | None = None,
        log_class: str = "STANDARD",
        kms_key_id: str | None = None,
    ) -> None:
        """Raises `InUse` (``ResourceAlreadyExistsException``)."""

    async def create_stream(self, account: str, region: str, group: str, stream: str) -> None:
        """Raises `InUse` (``ResourceAlreadyExistsException``)."""

    async def put(
        self, account: str, region: str, group: str, stream: str, events: Sequence[tuple[int, str]]
    ) -> None:
        """Append (timestamp, message) pairs, all or none. They outlive a crash of the process."""

    async def group(self, account: str, region: str, group: str) -> LogGroup:
        """The group, by its name."""

    async def groups(
        self,
        account: str,
        region: str,
        *,
        prefix: str = "",
        pattern: str = "",
        after: str = "",
        limit: int = 50,
    ) -> Sequence[LogGroup]:
        """By name, those after ``after``. ``prefix`` and ``pattern``, a part of the name, keep to case."""

    async def streams(
        self,
        account: str,
        region: str,
        group: str,
        *,
        prefix: str = "",
        by_last_event: bool = False,
        descending: bool = False,
        after: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> Sequence[LogStream]:
        """By name, or by the time of the last event (0 if there is none) and name.

        ``after`` is that time and the name of the last one of the page before.
        """

    async def read(
        self,
        account: str,
        region: str,
        group: str,
        stream: str,
        *,
        start: int | None = None,
        end: int | None = None,
        after_position: int | None = None,
        before_position: int | None = None,
        newest_first: bool = False,
        limit: int = MAX_EVENTS_OF_A_PAGE,
    ) -> Sequence[LogEvent]:
        """Events of a stream, ``start`` <= timestamp < ``end``, in the order of position.

        As many as fit in `MAX_BYTES_OF_A_PAGE`, but at least one. Reading on from the last position neither
        misses nor repeats an event, whenever it comes and whatever its timestamp is.
        """

    async def search(
        self,
        account: str,
        region: str,
        group: str,
        *,
        streams: Sequence[str] = (),
        prefix: str = "",
        start: int | None = None,
        end: int | None = None,
        after: tuple[int, int] | None = None,
        newest_first: bool = False,
        matches: Callable[[str], bool] | None = None,
        limit: int = MAX_EVENTS_OF_A_PAGE,
    ) -> Found:
        """Events whose message ``matches``, of the streams named, or else of all whose name has ``prefix``.

        ``start`` <= timestamp < ``end``, by timestamp, then in the order in which they were put. ``after`` is
        the place of the piece before. A piece ends at ``limit`` events, `MAX_BYTES_OF_A_PAGE` or
        `MAX_EVENTS_SEARCHED`, so that it may be empty and not the last. ``matches`` runs off the event loop.
        """

    async def delete_stream(self, account: str, region: str, group: str, stream: str) -> None:
        """With its events."""

    async def delete_group(self, account: str, region: str, group: str) -> None:
        """With its streams."""

    async def set_retention(self, account: str, region: str, group: str, days: int | None) -> None:
        """How long events are kept; ``None`` is for ever."""

    async def change_tags(
        self,
        account: str,
        region: str,
        group: str,
        change: Callable[[Mapping[str, str]], Mapping[str, str]],
    ) -> None:
        """Replace the tags by ``change(current)``, atomically; what it raises goes to the caller."""

    async def close(self) -> None:
        """Finish what is in flight and let go of files and threads."""
