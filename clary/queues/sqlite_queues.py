"""Queues in one SQLite file, for one machine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import secrets
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from clary.clock import Clock, SystemClock
from clary.faults import InUse, Invalid, LimitExceeded, NotFound
from clary.queues.queue_store import (
    DEDUPLICATION_SECONDS,
    MAX_IN_FLIGHT,
    MAX_IN_FLIGHT_FIFO,
    MAX_MESSAGES,
    MAX_QUEUES,
    Counts,
    Message,
    NewMessage,
    Queue,
    QueueName,
    QueueSettings,
    RedrivePolicy,
    Sent,
)
from clary.sqlite_file import SqliteFile

LONGEST_NAP_SECONDS = 5.0  # of a receiver, between looks
SHORTEST_NAP_SECONDS = 0.005
EXPIRE_AT_ONCE = 1000
REDRIVE_AT_ONCE = 1000
_COLUMNS = "name, account, region, attributes, tags, created_at, modified_at, id"
_MESSAGE = tuple(field.name for field in dataclasses.fields(Message))  # columns of the same names

Result = TypeVar("Result")


class SqliteQueueStore:
    """`clary.queues.queue_store.QueueStore` in the file ``path``."""

    def __init__(
        self,
        path: Path,
        clock: Clock | None = None,
        *,
        max_messages: int = MAX_MESSAGES,
        max_in_flight: int | None = None,
    ) -> None:
        """Opens the file, making or upgrading it. Raises ``RuntimeError`` if a newer Clary made it."""
        self._clock = clock or SystemClock()
        self._file = SqliteFile(path, "clary.queues.migrations")
        self._max_messages = max_messages
        self._max_in_flight = max_in_flight
        self._changed = asyncio.Event()  # a new one whenever there may be something to receive
        self._stopping = False

    async def create(
        self, name: QueueName, settings: QueueSettings, attributes: Mapping[str, str], tags: Mapping[str, str]
    ) -> Queue:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> Queue:
            count = connection.execute(
                "SELECT count(*) FROM queues WHERE account = ? AND region = ?", (name.account, name.region)
            ).fetchone()[0]
            try:
                connection.execute(
                    "INSERT INTO queues (account, region, name, attributes, tags, created_at, modified_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*_key(name), _write(settings, attributes), json.dumps(dict(tags)), now, now),
                )
            except sqlite3.IntegrityError:
                raise InUse(
                    f"A queue already exists with the name {name.name}.", code="QueueAlreadyExists"
                ) from None
            if count >= MAX_QUEUES:
                raise LimitExceeded(
                    f"There may be {MAX_QUEUES} queues in an account and region at most.", code="OverLimit"
                )
            return _find(connection, name)[1]

        return await self._file.write(work)

    async def queue(self, name: QueueName) -> Queue:
        return await self._file.read(lambda connection: _find(connection, name)[1])

    async def queues(
        self, account: str, region: str, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> Sequence[Queue]:
        def work(connection: sqlite3.Connection) -> list[Queue]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM queues WHERE account = ? AND region = ? AND name > ?"
                " AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?",
                (account, region, after, len(prefix), prefix, limit),
            )
            return [_queue(row) for row in rows]

        return await self._file.read(work)

    async def change(
        self,
        name: QueueName,
        change: Callable[[Queue], tuple[QueueSettings, Mapping[str, str], Mapping[str, str]]],
    ) -> Queue:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> Queue:
            queue_id, current = _find(connection, name)
            settings, attributes, tags = change(current)
            connection.execute(
                "UPDATE queues SET attributes = ?, tags = ?, modified_at = ? WHERE id = ?",
                (_write(settings, attributes), json.dumps(dict(tags)), now, queue_id),
            )
            if settings.retention_seconds != current.settings.retention_seconds:
                connection.execute(
                    "UPDATE messages SET expires_at = sent_at + ? WHERE queue_id = ?",
                    (settings.retention_seconds, queue_id),
                )
            return _find(connection, name)[1]

        return await self._file.write(work)

    async def delete(self, name: QueueName) -> None:
        def work(connection: sqlite3.Connection) -> None:
            queue_id, _ = _find(connection, name)
            _empty(connection, queue_id)
            connection.execute("DELETE FROM queues WHERE id = ?", (queue_id,))

        await self._file.write(work)
        self._wake()

    async def purge(self, name: QueueName) -> None:
        await self._file.write(lambda connection: _empty(connection, _find(connection, name)[0]))

    async def counts(self, name: QueueName) -> Counts:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> Counts:
            queue_id, _ = _find(connection, name)
            row = connection.execute(
                "SELECT coalesce(sum(visible_at <= ?1), 0),"
                " coalesce(sum(visible_at > ?1 AND receipt != ''), 0),"
                " coalesce(sum(visible_at > ?1 AND receipt = ''), 0)"
                " FROM messages WHERE queue_id = ?2 AND expires_at > ?1",
                (now, queue_id),
            ).fetchone()
            return Counts(*row)

        return await self._file.read(work)

    async def send(self, name: QueueName, messages: Sequence[NewMessage]) -> Sequence[Sent]:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> list[Sent]:
            queue_id, queue = _find(connection, name)
            _expire(connection, queue_id, now)
            held = connection.execute("SELECT messages FROM queues WHERE id = ?", (queue_id,)).fetchone()[0]
            if held + len(messages) > self._max_messages:
                raise LimitExceeded(
                    f"The queue {name.name} holds {held} messages of {self._max_messages} at most: "
                    "receive and delete some, or purge it.",
                    code="OverLimit",
                )
            return [_append(connection, queue_id, queue.settings, message, now) for message in messages]

        sent = await self._file.write(work)
        self._wake()
        return sent

    async def receive(
        self,
        name: QueueName,
        *,
        limit: int = 1,
        visibility_seconds: int | None = None,
        wait_seconds: float = 0.0,
    ) -> Sequence[Message]:
        deadline = time.monotonic() + wait_seconds
        while True:
            changed = self._changed  # taken before looking, so that no message is missed
            now = self._clock.now()
            some, due = await self._file.read(partial(_look, name=name, now=now))
            if some:
                received = await self._file.write(
                    lambda connection: self._take(connection, name, limit, visibility_seconds),
                    durable=False,
                )
                if received:
                    return received
            left = deadline - time.monotonic()
            if left <= 0 or self._stopping:
                return []
            nap = min(left, LONGEST_NAP_SECONDS, left if due is None else due - now + SHORTEST_NAP_SECONDS)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), nap)

    def _take(
        self, connection: sqlite3.Connection, name: QueueName, limit: int, visibility_seconds: int | None
    ) -> list[Message]:
        now = self._clock.now()
        queue_id, queue = _find(connection, name)
        settings = queue.settings
        _expire(connection, queue_id, now)
        _redrive(connection, queue_id, queue, now)
        allowed = self._max_in_flight or (MAX_IN_FLIGHT_FIFO if settings.fifo else MAX_IN_FLIGHT)
        in_flight = connection.execute(
            "SELECT count(*) FROM messages WHERE queue_id = ? AND visible_at > ? AND receipt != ''",
            (queue_id, now),
        ).fetchone()[0]
        if in_flight >= allowed:
            raise LimitExceeded(
                f"The queue {name.name} has {in_flight} messages in flight, the most there may be: delete "
                "those that are done.",
                code="OverLimit",
            )
        first_of_group = (
            " AND NOT EXISTS (SELECT 1 FROM messages e WHERE e.queue_id = m.queue_id"
            " AND e.group_id = m.group_id AND e.position < m.position AND e.visible_at > ?2)"
            if settings.fifo
            else ""
        )
        rows = connection.execute(
            "SELECT position FROM messages m WHERE queue_id = ?1 AND visible_at <= ?2"
            f"{first_of_group} ORDER BY position LIMIT ?3",
            (queue_id, now, min(limit, allowed - in_flight)),
        ).fetchall()
        hidden = settings.visibility_seconds if visibility_seconds is None else visibility_seconds
        return [_receive(connection, row[0], now, now + hidden) for row in rows]

    async def delete_message(self, name: QueueName, receipt: str) -> None:
        position, now = _read_receipt(receipt), self._clock.now()

        def work(connection: sqlite3.Connection) -> None:
            queue_id, queue = _find(connection, name)
            row = connection.execute(
                "SELECT visible_at FROM messages WHERE position = ? AND queue_id = ? AND receipt = ?",
                (position, queue_id, receipt),
            ).fetchone()
            if row is None:
                return
            if queue.settings.fifo and row[0] <= now:
                raise Invalid(
                    f"Value {receipt} for parameter ReceiptHandle is invalid. Reason: The receipt handle has "
                    "expired.",
                    code="InvalidParameterValue",
                )
            connection.execute("DELETE FROM messages WHERE position = ?", (position,))
            connection.execute("UPDATE queues SET messages = messages - 1 WHERE id = ?", (queue_id,))

        await self._file.write(work)
        self._wake()  # the next of its group may be had

    async def change_visibility(self, name: QueueName, receipt: str, seconds: int) -> None:
        position, now = _read_receipt(receipt), self._clock.now()

        def work(connection: sqlite3.Connection) -> None:
            queue_id, _ = _find(connection, name)
            changed = connection.execute(
                "UPDATE messages SET visible_at = ? WHERE position = ? AND queue_id = ? AND receipt = ?"
                " AND visible_at > ?",
                (now + seconds, position, queue_id, receipt, now),
            )
            if changed.rowcount == 0:
                raise Invalid(
                    f"Value {receipt} for parameter ReceiptHandle is invalid. Reason: Message does not exist "
                    "or is not available for visibility timeout change.",
                    code="MessageNotInflight",
                )

        await self._file.write(work)
        self._wake()

    def stop_waiting(self) -> None:
        self._stopping = True
        self._wake()

    async def close(self) -> None:
        await self._file.close()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _key(name: QueueName) -> tuple[str, str, str]:
    return (name.account, name.region, name.name)


def _write(settings: QueueSettings, attributes: Mapping[str, str]) -> str:
    return json.dumps([dataclasses.asdict(settings), dict(attributes)])


def _queue(row: Sequence[Any]) -> Queue:
    name, account, region, attributes, tags, created_at, modified_at, _ = row
    settings, texts = json.loads(attributes)
    redrive = settings["redrive"]
    if redrive is not None:
        redrive = RedrivePolicy(QueueName(**redrive["queue"]), redrive["most_receives"])
    return Queue(
        QueueName(account, region, name),
        QueueSettings(**{**settings, "redrive": redrive}),
        texts,
        json.loads(tags),
        created_at,
        modified_at,
    )


def _find(connection: sqlite3.Connection, name: QueueName) -> tuple[int, Queue]:
    """The id of the queue and the queue. Raises `NotFound`."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM queues WHERE account = ? AND region = ? AND name = ?", _key(name)
    ).fetchone()
    if row is None:
        raise NotFound("The specified queue does not exist.", code="QueueDoesNotExist")
    return int(row[-1]), _queue(row)


def _empty(connection: sqlite3.Connection, queue_id: int) -> None:
    connection.execute("DELETE FROM messages WHERE queue_id = ?", (queue_id,))
    connection.execute("DELETE FROM deduplications WHERE queue_id = ?", (queue_id,))
    connection.execute("UPDATE queues SET messages = 0 WHERE id = ?", (queue_id,))


def _expire(connection: sqlite3.Connection, queue_id: int, now: float) -> None:
    """Drop what the queue keeps no longer: at most `EXPIRE_AT_ONCE`, what is left with the next call."""
    gone = connection.execute(
        "DELETE FROM messages WHERE position IN"
        " (SELECT position FROM messages WHERE queue_id = ? AND expires_at <= ? LIMIT ?)",
        (queue_id, now, EXPIRE_AT_ONCE),
    ).rowcount
    if gone:
        connection.execute("UPDATE queues SET messages = messages - ? WHERE id = ?", (gone, queue_id))


def _append(
    connection: sqlite3.Connection, queue_id: int, settings: QueueSettings, message: NewMessage, now: float
) -> Sent:
    scope = message.group_id if settings.deduplicates_by_group else ""
    if settings.fifo:
        connection.execute("DELETE FROM deduplications WHERE queue_id = ? AND until <= ?", (queue_id, now))
        seen = connection.execute(
            "SELECT message_id, position FROM deduplications"
            " WHERE queue_id = ? AND scope = ? AND deduplication_id = ?",
            (queue_id, scope, message.deduplication_id),
        ).fetchone()
        if seen:
            return Sent(*seen)
    delay = settings.delay_seconds if message.delay_seconds is None else message.delay_seconds
    message_id = str(uuid.uuid4())
    cursor = connection.execute(
        "INSERT INTO messages (queue_id, message_id, body, attributes, sender, trace, group_id,"
        " deduplication_id, sent_at, visible_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            queue_id,
            message_id,
            message.body,
            json.dumps(dict(message.attributes)),
            message.sender,
            message.trace,
            message.group_id,
            message.deduplication_id,
            now,
            now + delay,
            now + settings.retention_seconds,
        ),
    )
    position = cursor.lastrowid or 0
    connection.execute("UPDATE queues SET messages = messages + 1 WHERE id = ?", (queue_id,))
    if settings.fifo:
        connection.execute(
            "INSERT INTO deduplications VALUES (?, ?, ?, ?, ?, ?)",
            (queue_id, scope, message.deduplication_id, now + DEDUPLICATION_SECONDS, message_id, position),
        )
    return Sent(message_id, position)


def _look(connection: sqlite3.Connection, name: QueueName, now: float) -> tuple[bool, float | None]:
    """Whether some message is visible, and when the next that is not will be."""
    queue_id, _ = _find(connection, name)
    some = connection.execute(
        "SELECT 1 FROM messages WHERE queue_id = ? AND visible_at <= ? LIMIT 1", (queue_id, now)
    ).fetchone()
    row = connection.execute(
        "SELECT min(visible_at) FROM messages WHERE queue_id = ? AND visible_at > ?", (queue_id, now)
    ).fetchone()
    return some is not None, row[0]


def _redrive(connection: sqlite3.Connection, queue_id: int, queue: Queue, now: float) -> None:
    """Move what was received as often as the policy allows and came back."""
    policy = queue.settings.redrive
    if policy is None:
        return
    try:
        target_id, target = _find(connection, policy.queue)
    except NotFound:
        return  # messages stay rather than vanish
    rows = connection.execute(
        "SELECT position FROM messages WHERE queue_id = ? AND visible_at <= ? AND receive_count >= ? LIMIT ?",
        (queue_id, now, policy.most_receives, REDRIVE_AT_ONCE),
    ).fetchall()
    for (position,) in rows:
        connection.execute(
            "UPDATE messages SET queue_id = ?, receipt = '', visible_at = ?, source = ?,"
            " expires_at = (CASE WHEN group_id = '' THEN sent_at ELSE ? END) + ? WHERE position = ?",
            (target_id, now, queue.queue.arn, now, target.settings.retention_seconds, position),
        )
    if rows:
        connection.execute("UPDATE queues SET messages = messages - ? WHERE id = ?", (len(rows), queue_id))
        connection.execute("UPDATE queues SET messages = messages + ? WHERE id = ?", (len(rows), target_id))


def _receive(connection: sqlite3.Connection, position: int, now: float, visible_at: float) -> Message:
    receipt = f"{position}.{secrets.token_urlsafe(24)}"
    connection.execute(
        "UPDATE messages SET receipt = ?, visible_at = ?, receive_count = receive_count + 1,"
        " first_received_at = coalesce(first_received_at, ?) WHERE position = ?",
        (receipt, visible_at, now, position),
    )
    row = connection.execute(
        f"SELECT {', '.join(_MESSAGE)} FROM messages WHERE position = ?", (position,)
    ).fetchone()
    members: dict[str, Any] = dict(zip(_MESSAGE, row, strict=True))
    return Message(**{**members, "attributes": json.loads(members["attributes"])})


def _read_receipt(receipt: str) -> int:
    """The position of the message. Raises `Invalid`."""
    position, dot, token = receipt.partition(".")
    if not (dot and token and position.isascii() and position.isdecimal() and len(position) < 19):
        raise Invalid(
            f'The input receipt handle "{receipt[:100]}" is not a valid receipt handle.',
            code="ReceiptHandleIsInvalid",
        )
    return int(position)
