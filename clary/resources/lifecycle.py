"""Which status may follow which: the one gate through which statuses move."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


class IllegalMove(Exception):
    """A status was about to move where it may not: a bug in a controller."""


@dataclass(frozen=True)
class Lifecycle:
    """The statuses of a kind: ``moves`` maps each to those that may follow it."""

    kind: str
    moves: Mapping[str, Collection[str]]

    def move(self, current: str, following: str) -> str:
        """``following``, if it may follow ``current`` (staying is always allowed). Raises `IllegalMove`."""
        if following != current and following not in self.moves.get(current, ()):
            raise IllegalMove(f"A {self.kind} cannot move from {current} to {following}.")
        return following

    def final(self, status: str) -> bool:
        """Whether nothing may follow ``status``."""
        return not self.moves.get(status)
