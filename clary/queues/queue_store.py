"""The contract of message queues, standard and FIFO, as SQS has them.

Times are epoch seconds. `clary.testing.queue_store_conformance` holds the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clary.faults import Invalid
from clary.resources.arn import split_arn

MAX_QUEUES = 10_000  # of an account in a region
MAX_MESSAGES = 1_000_000  # of a queue
MAX_IN_FLIGHT = 120_000  # received from a standard queue and neither deleted nor visible again
MAX_IN_FLIGHT_FIFO = 20_000
DEDUPLICATION_SECONDS = 300.0
DEFAULT_VISIBILITY_SECONDS = 30
DEFAULT_RETENTION_SECONDS = 345_600


@dataclass(frozen=True, order=True)
class QueueName:
    """Where a queue is and what it is called. Names keep to case."""

    account: str
    region: str
    name: str

    @property
    def arn(self) -> str:
        return f"arn:aws:sqs:{self.region}:{self.account}:{self.name}"


def queue_of_arn(arn: str) -> QueueName | None:
    """The queue that ``arn`` means, ``None`` if it is not a queue's ARN."""
    try:
        parts = split_arn(arn)
    except Invalid:
        return None
    if parts.service != "sqs" or not parts.region or not parts.account or "/" in parts.resource:
        return None
    return QueueName(parts.account, parts.region, parts.resource)


@dataclass(frozen=True)
class RedrivePolicy:
    """Where messages go that were received ``most_receives`` times."""

    queue: QueueName
    most_receives: int


@dataclass(frozen=True)
class QueueSettings:
    """What a store heeds of a queue's attributes. Seconds are whole."""

    visibility_seconds: int = DEFAULT_VISIBILITY_SECONDS
    retention_seconds: int = DEFAULT_RETENTION_SECONDS
    delay_seconds: int = 0
    fifo: bool = False
    deduplicates_by_group: bool = False
    redrive: RedrivePolicy | None = None


@dataclass(frozen=True)
class Queue:
    """``attributes`` are those that callers have set, as texts, under SQS's names."""

    queue: QueueName
    settings: QueueSettings
    attributes: Mapping[str, str]
    tags: Mapping[str, str]
    created_at: float
    modified_at: float


@dataclass(frozen=True)
class Counts:
    """Messages of a queue: to be had, received and not deleted, and not yet to be had."""

    visible: int
    in_flight: int
    delayed: int


@dataclass(frozen=True)
class NewMessage:
    """``attributes`` is JSON; the caller knows its meaning. FIFO queues need a group and a deduplication id.

    ``delay_seconds`` ``None`` means the queue's.
    """

    body: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    sender: str = ""
    trace: str = ""
    delay_seconds: int | None = None
    group_id: str = ""
    deduplication_id: str = ""


@dataclass(frozen=True)
class Sent:
    message_id: str
    position: int  # rises in a queue


@dataclass(frozen=True)
class Message:
    """A message as received. ``receipt`` is the handle of this one reception."""

    message_id: str
    receipt: str
    body: str
    attributes: Mapping[str, Any]
    sender: str
    trace: str
    group_id: str
    deduplication_id: str
    source: str  # ARN of the queue that a redrive policy took it from
    sent_at: float
    first_received_at: float
    receive_count: int
    position: int


class QueueStore(Protocol):
    """What was acknowledged survives a loss of power, but for receptions: a message comes back sooner then.

    A queue that does not exist raises `NotFound` (``QueueDoesNotExist``). Messages older than their queue
    keeps them are gone.
    """

    async def create(
        self, name: QueueName, settings: QueueSettings, attributes: Mapping[str, str], tags: Mapping[str, str]
    ) -> Queue:
        """Raises `InUse` (``QueueAlreadyExists``) if the name is taken, `LimitExceeded`."""

    async def queue(self, name: QueueName) -> Queue:
        """The queue."""

    async def queues(
        self, account: str, region: str, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> Sequence[Queue]:
        """By name, those after ``after``."""

    async def change(
        self,
        name: QueueName,
        change: Callable[[Queue], tuple[QueueSettings, Mapping[str, str], Mapping[str, str]]],
    ) -> Queue:
        """Replace settings, attributes and tags, atomically; what ``change`` raises goes to the caller."""

    async def delete(self, name: QueueName) -> None:
        """With its messages."""

    async def purge(self, name: QueueName) -> None:
        """Drop its messages."""

    async def counts(self, name: QueueName) -> Counts:
        """How many messages there are."""

    async def send(self, name: QueueName, messages: Sequence[NewMessage]) -> Sequence[Sent]:
        """Append ``messages``, all or none.

        A FIFO queue that saw a deduplication id within `DEDUPLICATION_SECONDS` keeps the first message and
        tells of that one. Raises `LimitExceeded` (``OverLimit``) where the queue would hold too many.
        """

    async def receive(
        self,
        name: QueueName,
        *,
        limit: int = 1,
        visibility_seconds: int | None = None,
        wait_seconds: float = 0.0,
    ) -> Sequence[Message]:
        """Up to ``limit`` messages, hidden from others for ``visibility_seconds`` (the queue's by default).

        Waits up to ``wait_seconds`` (of real time) for the first. From FIFO queues messages of a group come
        in order, and none while an earlier one of the group is out. What was received as often as the
        redrive policy allows goes to its queue instead, if that exists. Raises `LimitExceeded`
        (``OverLimit``) if too many are in flight.
        """

    async def delete_message(self, name: QueueName, receipt: str) -> None:
        """Delete a received message; to do so twice does no harm, nor does a receipt that is not the last.

        Raises `Invalid`: ``ReceiptHandleIsInvalid`` for a receipt that no queue gave, and
        ``InvalidParameterValue`` for one of a FIFO queue that has expired.
        """

    async def change_visibility(self, name: QueueName, receipt: str, seconds: int) -> None:
        """Hide a received message for ``seconds`` from now.

        Raises `Invalid`: ``ReceiptHandleIsInvalid``, or ``MessageNotInflight`` if it is out no longer.
        """

    def stop_waiting(self) -> None:
        """The server stops: those who wait for messages get what there is, and nobody waits any more."""

    async def close(self) -> None:
        """Finish what is in flight and let go of files and threads."""
