"""What every resource has: a key, what was asked for, and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Document: TypeAlias = "Mapping[str, JsonValue]"


@dataclass(frozen=True, order=True)
class Key:
    """The identity of a resource: unique among the living; ``name`` keeps the caller's case."""

    kind: str
    account: str
    region: str
    name: str


@dataclass(frozen=True)
class Resource:
    """A document with two halves: ``spec`` is the caller's, ``status`` is the controller's.

    ``uid`` is fresh at each creation, so that whatever derives from it (task ids) never meets what a
    deleted namesake left. ``generation`` counts the writes of ``spec``, from 1. ``phase`` is the AWS status
    word of the resource (``InProgress``), indexed by the store. ``labels`` are indexed pairs by which other
    resources are found (``{"TuningJob": "name"}``). ``due_at`` is when a controller should look next, in
    epoch seconds; ``None`` means settled. Timestamps inside ``spec`` and ``status`` are epoch seconds.
    """

    key: Key
    uid: str
    spec: Document
    status: Document
    phase: str
    generation: int
    created_at: float
    modified_at: float
    due_at: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
