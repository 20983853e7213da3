"""Whose mistake it is when an algorithm cannot go on."""

from __future__ import annotations


class ClientError(Exception):
    """The caller's data or hyperparameters will not do; the message names what and where."""


class NothingTrained(Exception):
    """The job was told to stop before there was anything worth keeping."""


class HostLost(Exception):
    """Another host of the cluster cannot go on; the message begins with the kind of fault and the host."""


class PredictionRefused(Exception):
    """A request cannot be answered; ``status`` is the HTTP status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
