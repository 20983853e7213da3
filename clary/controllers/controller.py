"""The contract of a controller: look at one resource, compare it with the world, act, say what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from clary.resources.resource import Document, Resource


@dataclass(frozen=True)
class Outcome:
    """What a reconcile found.

    ``due_at`` is when to look again; ``None`` means settled until the spec changes or a task moves.
    ``remove`` deletes the resource: all it held is free.
    """

    status: Document
    phase: str
    due_at: float | None = None
    remove: bool = False


class Controller(Protocol):
    """Moves resources of one kind."""

    kind: str

    async def reconcile(self, resource: Resource) -> Outcome:
        """One look and at most one step. May be called again after any crash, with the old status.

        What it raises is logged, and the resource is tried again with growing delay.
        """
