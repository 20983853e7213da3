"""The contract of the event bus's memory: a log of events, deliveries that are due, and feeders' progress.

Times are epoch seconds. `clary.testing.event_store_conformance` holds the facts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

DEFAULT_BUS = "default"
MAX_EVENTS_KEPT = 20_000  # that nothing waits for
MAX_BYTES_KEPT = 1024**3  # of such events
MAX_PENDING = 100_000  # deliveries to one destination


@dataclass(frozen=True)
class NewEvent:
    """An event as it goes onto the bus ``bus``; ``envelope`` is the whole, as targets get it."""

    account: str
    region: str
    envelope: Mapping[str, Any]
    bus: str = DEFAULT_BUS


@dataclass(frozen=True)
class BusEvent:
    """An event in the log. ``position`` rises; ``at`` is when the bus took it."""

    position: int
    at: float
    account: str
    region: str
    bus: str
    envelope: Mapping[str, Any]


@dataclass(frozen=True)
class NewDelivery:
    """``destination`` is what deliveries share that must not hold up others: the target's ARN.

    ``target`` is the target as it stood in the rule ``rule`` (its ARN) when the event came.
    """

    position: int
    destination: str
    rule: str
    target: Mapping[str, Any]


@dataclass(frozen=True)
class Delivery:
    """``attempts`` failed, the last with ``error``; ``given_up`` says why there will be no more."""

    id: int
    event: BusEvent
    destination: str
    rule: str
    target: Mapping[str, Any]
    attempts: int
    given_up: str
    error: str


@dataclass(frozen=True)
class Progress:
    """How far a feeder has come, and what it knows of resources by uid (``None`` to forget one)."""

    follower: str
    sequence: int
    marks: Mapping[str, str | None] = field(default_factory=dict)


class EventStore(Protocol):
    """What was acknowledged survives a loss of power."""

    async def publish(self, events: Sequence[NewEvent], progress: Progress | None = None) -> int:
        """Append ``events`` and write ``progress`` down, all or none; the newest position.

        The oldest events are dropped beyond `MAX_EVENTS_KEPT` and `MAX_BYTES_KEPT`, but for those that are
        still to be routed or delivered.
        """

    async def progress(self, follower: str) -> int | None:
        """How far ``follower`` had come, ``None`` if it never wrote that down."""

    async def marks(self, uids: Collection[str]) -> Mapping[str, str]:
        """What was noted of those resources that anything was noted of."""

    async def newest(self) -> int:
        """The newest position; 0 if there never was an event."""

    async def events(
        self, *, after: int, limit: int, account: str = "", region: str = ""
    ) -> Sequence[BusEvent]:
        """Events behind the position ``after``, oldest first; "" means any."""

    async def wait(self, *, after: int, timeout_seconds: float) -> int:
        """The newest position, once it is above ``after`` or after the timeout (of real time)."""

    async def route(self, up_to: int, deliveries: Sequence[NewDelivery]) -> None:
        """Add ``deliveries``, due at once, and note that all events up to ``up_to`` were looked at.

        Where a destination has `MAX_PENDING` deliveries, more are given up as they come.
        """

    async def routed(self) -> int:
        """Up to which position events were looked at."""

    async def destinations(self, *, now: float, busy: Collection[str], limit: int) -> Sequence[str]:
        """Destinations with deliveries due, but for the ``busy``, the longest due first."""

    async def due(self, destination: str, *, now: float, limit: int) -> Sequence[Delivery]:
        """Deliveries to ``destination`` that are due, the oldest first."""

    async def next_due_at(self, *, busy: Collection[str]) -> float | None:
        """When the next delivery is due, but for those to the ``busy``."""

    async def retry(self, delivery: Delivery, *, due_at: float, error: str) -> None:
        """An attempt failed: one more at ``due_at``."""

    async def give_up(self, delivery: Delivery, *, reason: str, error: str, attempts: int) -> None:
        """There will be no more attempts: what is left is to tell the dead-letter queue, if there is one."""

    async def settle(self, delivery: Delivery) -> None:
        """It is done with, in whatever way."""

    def stop_waiting(self) -> None:
        """The server stops: those who wait get what there is, and nobody waits any more."""

    async def close(self) -> None:
        """Finish what is in flight and let go of files and threads."""
