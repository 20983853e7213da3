"""Messages: sent, received, deleted, hidden again; one at a time or in batches of ten."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from clary.faults import Fault, Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.queues.queue_store import Message, NewMessage, Queue, Sent
from clary.services.operation import RequestContext, operation
from clary.services.sqs.message_attributes import (
    attributes_size,
    check_message_attributes,
    digest_of_attributes,
    digest_of_body,
    shown_attributes,
)
from clary.services.sqs.queue_attributes import LARGEST_MESSAGE_BYTES, READABLE, number_of
from clary.services.sqs.queues import queue_of

MAX_BATCH = 10
MAX_RECEIVED = 10
MAX_WAIT_SECONDS = 20
MAX_VISIBILITY_SECONDS = 43_200
MAX_DELAY_SECONDS = 900
_SYSTEM_ATTRIBUTES = (
    "All",
    "SenderId",
    "SentTimestamp",
    "ApproximateReceiveCount",
    "ApproximateFirstReceiveTimestamp",
    "SequenceNumber",
    "MessageDeduplicationId",
    "MessageGroupId",
    "AWSTraceHeader",
    "DeadLetterQueueSourceArn",
)
_BATCH_ID = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
_GROUP = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}\Z")
# What XML 1.0 holds, which is what a message may be made of.
_NOT_ALLOWED = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@operation("sqs")
async def send_message(context: RequestContext, request: Members) -> ReplyMembers:
    name = queue_of(context, request)
    queue = await context.backends.queues.queue(name)
    message = _new_message(context, queue, request)
    (sent,) = await context.backends.queues.send(name, [message])
    return _show_sent(queue, message, sent)


@operation("sqs")
async def send_message_batch(context: RequestContext, request: Members) -> ReplyMembers:
    """Each entry succeeds or fails for itself; the batch as a whole may be too large."""
    name, entries = queue_of(context, request), request["Entries"]
    _check_batch(entries)
    queue = await context.backends.queues.queue(name)
    size = sum(len(entry["MessageBody"].encode("utf-8", "replace")) for entry in entries)
    if size > LARGEST_MESSAGE_BYTES:
        raise Invalid(
            f"Batch requests cannot be longer than {LARGEST_MESSAGE_BYTES} bytes. "
            f"You have sent {size} bytes.",
            code="BatchRequestTooLong",
        )
    good: list[tuple[str, NewMessage]] = []
    failed: list[Members] = []
    for entry in entries:
        try:
            good.append((entry["Id"], _new_message(context, queue, entry)))
        except Fault as fault:
            failed.append(_show_failed(entry["Id"], fault))
    sent = await context.backends.queues.send(name, [message for _, message in good]) if good else []
    done = [
        {"Id": identity, **_show_sent(queue, message, each)}
        for (identity, message), each in zip(good, sent, strict=True)
    ]
    return {"Successful": done, "Failed": failed}


@operation("sqs")
async def receive_message(context: RequestContext, request: Members) -> ReplyMembers:
    """``ReceiveRequestAttemptId`` is taken and not needed: a reply that got lost is received again, later."""
    name = queue_of(context, request)
    queue = await context.backends.queues.queue(name)
    limit = _within(request, "MaxNumberOfMessages", 1, 1, MAX_RECEIVED)
    usual_wait = number_of(queue, "ReceiveMessageWaitTimeSeconds")
    wait = _within(request, "WaitTimeSeconds", usual_wait, 0, MAX_WAIT_SECONDS)
    visibility = _within(
        request, "VisibilityTimeout", queue.settings.visibility_seconds, 0, MAX_VISIBILITY_SECONDS
    )
    wanted = {*(request.get("AttributeNames") or ()), *(request.get("MessageSystemAttributeNames") or ())}
    unknown = sorted(wanted - set(_SYSTEM_ATTRIBUTES) - set(READABLE))
    if unknown:
        raise Invalid(f"Unknown Attribute {unknown[0]}.", code="InvalidAttributeName")
    received = await context.backends.queues.receive(
        name, limit=limit, visibility_seconds=visibility, wait_seconds=wait
    )
    names = request.get("MessageAttributeNames") or ()
    return {"Messages": [_show(queue, message, wanted, names) for message in received] or None}


@operation("sqs")
async def delete_message(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.queues.delete_message(queue_of(context, request), request["ReceiptHandle"])
    return {}


@operation("sqs")
async def delete_message_batch(context: RequestContext, request: Members) -> ReplyMembers:
    name, entries = queue_of(context, request), request["Entries"]
    store = context.backends.queues
    return await _each(entries, lambda entry: store.delete_message(name, entry["ReceiptHandle"]))


@operation("sqs")
async def change_message_visibility(context: RequestContext, request: Members) -> ReplyMembers:
    seconds = _within(request, "VisibilityTimeout", 0, 0, MAX_VISIBILITY_SECONDS)
    await context.backends.queues.change_visibility(
        queue_of(context, request), request["ReceiptHandle"], seconds
    )
    return {}


@operation("sqs")
async def change_message_visibility_batch(context: RequestContext, request: Members) -> ReplyMembers:
    name, entries = queue_of(context, request), request["Entries"]

    async def change(entry: Members) -> None:
        seconds = _within(entry, "VisibilityTimeout", 0, 0, MAX_VISIBILITY_SECONDS)
        await context.backends.queues.change_visibility(name, entry["ReceiptHandle"], seconds)

    return await _each(entries, change)


async def _each(entries: Sequence[Members], act: Callable[[Members], Awaitable[None]]) -> ReplyMembers:
    """Let ``act`` do the entries of a batch, each for itself."""
    _check_batch(entries)
    done: list[Members] = []
    failed: list[Members] = []
    for entry in entries:
        try:
            await act(entry)
        except Invalid as fault:
            failed.append(_show_failed(entry["Id"], fault))
        else:
            done.append({"Id": entry["Id"]})
    return {"Successful": done, "Failed": failed}


def _check_batch(entries: Sequence[Members]) -> None:
    if not entries:
        raise Invalid("There should be at least one entry in the batch request.", code="EmptyBatchRequest")
    if len(entries) > MAX_BATCH:
        raise Invalid(
            f"Maximum number of entries per request are {MAX_BATCH}. You have sent {len(entries)}.",
            code="TooManyEntriesInBatchRequest",
        )
    seen: set[str] = set()
    for entry in entries:
        if not _BATCH_ID.match(entry["Id"]):
            raise Invalid(
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can "
                "be at most 80 letters long.",
                code="InvalidBatchEntryId",
            )
        if entry["Id"] in seen:
            raise Invalid(f"Id {entry['Id']} repeated.", code="BatchEntryIdsNotDistinct")
        seen.add(entry["Id"])


def _new_message(context: RequestContext, queue: Queue, members: Mapping[str, Any]) -> NewMessage:
    body: str = members["MessageBody"]
    if not body:
        raise Invalid("The request must contain the parameter MessageBody.", code="MissingParameter")
    if _NOT_ALLOWED.search(body):
        raise Invalid(
            "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | "
            "#xE000 to #xFFFD | #x10000 to #x10FFFF.",
            code="InvalidMessageContents",
        )
    attributes = check_message_attributes(members.get("MessageAttributes") or {})
    largest = number_of(queue, "MaximumMessageSize")
    if len(body.encode()) + attributes_size(attributes) > largest:
        raise Invalid(
            f"One or more parameters are invalid. Reason: Message must be shorter than {largest} bytes.",
            code="InvalidParameterValue",
        )
    group = members.get("MessageGroupId") or ""
    deduplication = members.get("MessageDeduplicationId") or ""
    for name, value in (("MessageGroupId", group), ("MessageDeduplicationId", deduplication)):
        if value and not _GROUP.match(value):
            raise Invalid(
                f"Value {value[:128]} for parameter {name} is invalid. Reason: {name} can only include "
                "alphanumeric and punctuation characters. 1 to 128 in length.",
                code="InvalidParameterValue",
            )
    delay = members.get("DelaySeconds")
    if queue.settings.fifo:
        if delay:
            raise Invalid(
                f"Value {delay} for parameter DelaySeconds is invalid. Reason: The request include "
                "parameter that is not valid for this queue type.",
                code="InvalidParameterValue",
            )
        delay = None
        if not group:
            raise Invalid("The request must contain the parameter MessageGroupId.", code="MissingParameter")
        if not deduplication:
            if queue.attributes.get("ContentBasedDeduplication") != "true":
                raise Invalid(
                    "The queue should either have ContentBasedDeduplication enabled or "
                    "MessageDeduplicationId provided explicitly",
                    code="InvalidParameterValue",
                )
            deduplication = hashlib.sha256(body.encode()).hexdigest()
    elif deduplication:
        raise Invalid(
            f"Value {deduplication} for parameter MessageDeduplicationId is invalid. Reason: The request "
            "includes a parameter that is not valid for this queue type.",
            code="InvalidParameterValue",
        )
    elif delay is not None:
        delay = _within(members, "DelaySeconds", 0, 0, MAX_DELAY_SECONDS)
    trace = (members.get("MessageSystemAttributes") or {}).get("AWSTraceHeader", {}).get("StringValue") or ""
    return NewMessage(
        body,
        attributes,
        sender=context.caller.user_id,
        trace=trace,
        delay_seconds=delay,
        group_id=group,
        deduplication_id=deduplication,
    )


def _within(members: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = members.get(name)
    if value is None:
        return default
    if not least <= value <= most:
        raise Invalid(
            f"Value {value} for parameter {name} is invalid. Reason: Must be >= {least} and "
            f"<= {most}, if provided.",
            code="InvalidParameterValue",
        )
    return int(value)


def _sequence_number(position: int) -> str:
    return f"{position:020d}"


def _show_sent(queue: Queue, message: NewMessage, sent: Sent) -> Members:
    return {
        "MessageId": sent.message_id,
        "MD5OfMessageBody": digest_of_body(message.body),
        "MD5OfMessageAttributes": digest_of_attributes(message.attributes),
        "MD5OfMessageSystemAttributes": (
            digest_of_attributes({"AWSTraceHeader": {"DataType": "String", "StringValue": message.trace}})
            if message.trace
            else None
        ),
        "SequenceNumber": _sequence_number(sent.position) if queue.settings.fifo else None,
    }


def _show_failed(identity: str, fault: Fault) -> Members:
    return {
        "Id": identity,
        "SenderFault": True,
        "Code": fault.code or "InvalidParameterValue",
        "Message": fault.message,
    }


def _show(queue: Queue, message: Message, wanted: set[str], names: Sequence[str]) -> Members:
    system = {
        "SenderId": message.sender,
        "SentTimestamp": _milliseconds(message.sent_at),
        "ApproximateReceiveCount": str(message.receive_count),
        "ApproximateFirstReceiveTimestamp": _milliseconds(message.first_received_at),
        "MessageGroupId": message.group_id,
        "AWSTraceHeader": message.trace,
        "DeadLetterQueueSourceArn": message.source,
    }
    if queue.settings.fifo:
        system["MessageDeduplicationId"] = message.deduplication_id
        system["SequenceNumber"] = _sequence_number(message.position)
    shown = {key: value for key, value in system.items() if value and ("All" in wanted or key in wanted)}
    attributes = {key: value for key, value in message.attributes.items() if _is_named(key, names)}
    return {
        "MessageId": message.message_id,
        "ReceiptHandle": message.receipt,
        "MD5OfBody": digest_of_body(message.body),
        "Body": message.body,
        "Attributes": shown or None,
        "MD5OfMessageAttributes": digest_of_attributes(attributes),
        "MessageAttributes": shown_attributes(attributes) or None,
    }


def _is_named(name: str, wanted: Sequence[str]) -> bool:
    return any(
        each in ("All", ".*", name) or (each.endswith(".*") and name.startswith(each[:-1])) for each in wanted
    )


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
