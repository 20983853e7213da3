"""The contract of a store of resources: where the roles meet.

Every write appends an event in the same transaction. All methods are coroutines; none blocks the event
loop on the disk. `clary.testing.store_conformance` holds the facts every implementation must show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from clary.resources.resource import Document, Key, Resource

MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 10  # SageMaker's List operations
MAX_EVENTS_KEPT = 100_000


@dataclass(frozen=True)
class Query:
    """Which resources to list, in which order. Absent filters do not filter.

    ``name_contains`` and ``name_equals`` compare without (ASCII) case, the latter for names out of ARNs;
    ``name_prefix`` compares with case. ``labels`` must all be equal. Time bounds are exclusive, in epoch
    seconds, as SageMaker's ``CreationTimeAfter`` and its like. Ties in the sort order are broken by name.
    ``kind`` is one kind; ``account`` or ``region`` "" mean any.
    """

    kind: str
    account: str
    region: str
    name_contains: str = ""
    name_equals: str = ""
    name_prefix: str = ""
    phase: str = ""
    created_after: float | None = None
    created_before: float | None = None
    modified_after: float | None = None
    modified_before: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    sort_by: Literal["name", "created_at", "modified_at", "phase"] = "created_at"
    descending: bool = False
    page_size: int = DEFAULT_PAGE_SIZE  # 1 to MAX_PAGE_SIZE
    page_token: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.page_size <= MAX_PAGE_SIZE:
            raise ValueError(f"A page has 1 to {MAX_PAGE_SIZE} resources, not {self.page_size}.")


@dataclass(frozen=True)
class Page:
    """A piece of a listing; ``next_token`` is opaque, ``None`` at the end."""

    resources: Sequence[Resource]
    next_token: str | None


@dataclass(frozen=True)
class Claim:
    """A resource held by one worker until the lease runs out.

    ``touches`` counts the wishes to look at it (spec writes and `Store.make_due`) up to the claim: one that
    comes later keeps the resource due, whatever the worker finds.
    """

    resource: Resource
    lease: str
    expires_at: float
    touches: int


@dataclass(frozen=True)
class Event:
    """One write, in the store's order. ``sequence`` rises by at least one per write, without reuse."""

    sequence: int
    at: float
    key: Key
    uid: str
    change: Literal["created", "spec", "status", "deleted"]
    phase: str
    previous_phase: str
    status: Document


class Store(Protocol):
    """Keeps resources and hands them to controllers when they are due."""

    async def create(
        self,
        key: Key,
        spec: Document,
        status: Document,
        *,
        phase: str,
        due_at: float | None,
        labels: Mapping[str, str] | None = None,
    ) -> Resource:
        """Add a resource at generation 1 with a fresh uid. Raises `InUse` if the key is taken."""

    async def find(self, key: Key) -> Resource | None:
        """The resource, or ``None``."""

    async def list(self, query: Query) -> Page:
        """A page of what matches. Raises `Invalid` for a token this store did not give for this query."""

    async def write_spec(
        self, key: Key, change: Callable[[Resource], Document], *, due_at: float | None
    ) -> Resource:
        """Replace the spec by ``change(current)``, atomically; bump the generation and make it due.

        ``change`` must be quick and free of effects; what it raises goes to the caller and nothing is
        written. ``due_at`` ``None`` leaves the due time as it is: no controller cares for this change (tags).
        Raises `NotFound`.
        """

    async def claim(
        self, kinds: Sequence[str], *, now: float, lease_seconds: float, limit: int
    ) -> Sequence[Claim]:
        """Lease up to ``limit`` resources that are due and not leased, longest due first."""

    async def write_status(
        self, claim: Claim, status: Document, *, phase: str, due_at: float | None, now: float
    ) -> Resource:
        """Write the status, set the next due time and give the lease back.

        If a spec write or `make_due` asked for a look since the claim, the resource stays due at once,
        whatever ``due_at`` says.
        Writes no event and leaves ``modified_at`` when status and phase are what they were. Raises
        `Conflict` if the lease ran out or was taken, `NotFound` if the resource is gone.
        """

    async def release(self, claim: Claim, *, due_at: float) -> None:
        """Give the lease back without a status (a failed reconcile). A lost lease is not an error."""

    async def forget_leases(self) -> None:
        """Give every lease back: for a server that knows no other to be alive, since it holds the data."""

    async def remove(self, claim: Claim) -> None:
        """Delete a claimed resource (its controller has freed all it held). Raises as `write_status`."""

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete a resource no controller holds things for. Raises `NotFound`."""

    async def next_due_at(self, kinds: Sequence[str]) -> float | None:
        """The earliest due time among resources that are not leased (or lease expiry, if sooner)."""

    async def make_due(self, key: Key, *, at: float) -> None:
        """Look at it no later than ``at``: something in the world moved. Unknown keys are ignored."""

    async def events(self, *, after: int, limit: int) -> Sequence[Event]:
        """Events with a sequence above ``after``, oldest first; at most `MAX_EVENTS_KEPT` are kept."""

    async def wait(self, *, after: int, timeout_seconds: float) -> int:
        """Return the newest sequence once it is above ``after``, or after the timeout (of real time).

        Writes of this process wake at once, those of others within a moment.
        """

    async def close(self) -> None:
        """Finish what is in flight and let go of files and threads."""
