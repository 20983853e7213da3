"""What a runtime gives for a program that it started, whatever kind of runtime it is."""

from __future__ import annotations

import signal
from typing import Protocol

from clary.agent.runtimes.process import Ending


class Running(Protocol):
    """A program that runs. `fileno` is for a selector, and so is `output`."""

    @property
    def output(self) -> int:
        """A descriptor with what it prints, standard output and error as one stream."""

    def fileno(self) -> int:
        """Readable when the program has ended: `ending` will not block then."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program; ``SIGKILL`` ends all that it started too."""

    def ending(self) -> Ending:
        """Wait for the end."""

    def close(self) -> None:
        """Free what is held; a program that still runs is killed."""
