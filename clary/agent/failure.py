"""The two ways in which an agent's work ends early."""

from __future__ import annotations

LONGEST_REASON = 1024  # of a FailureReason


class TaskFailed(Exception):
    """The task fails; the message is its FailureReason, prefix (``ClientError:``) included."""

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 3] + "..."
        self.exit_code = exit_code


class TaskStopped(Exception):
    """The task was told to stop while it did something that is not worth finishing."""
