"""The attributes of queues: which may be set, to what, and how all of them are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping

from clary.faults import Invalid
from clary.queues.queue_store import Counts, Queue, QueueName, QueueSettings, RedrivePolicy, queue_of_arn

LARGEST_MESSAGE_BYTES = 1_048_576
MAX_RECEIVES_OF_POLICY = 1000

# Whole numbers: the least, the most, and what holds where nothing is set.
_NUMBERS: Mapping[str, tuple[int, int, int]] = {
    "DelaySeconds": (0, 900, 0),
    "MaximumMessageSize": (1024, LARGEST_MESSAGE_BYTES, LARGEST_MESSAGE_BYTES),
    "MessageRetentionPeriod": (60, 1_209_600, 345_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20, 0),
    "VisibilityTimeout": (0, 43_200, 30),
}
_KEPT = ("Policy", "RedriveAllowPolicy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds")
_FIFO = ("FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit")
_BOOLEANS = ("FifoQueue", "ContentBasedDeduplication", "SqsManagedSseEnabled")
_WORDS: Mapping[str, tuple[str, ...]] = {
    "DeduplicationScope": ("messageGroup", "queue"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
_COUNTED = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
_FOUND = ("CreatedTimestamp", "LastModifiedTimestamp", "QueueArn")
SETTABLE = (*_NUMBERS, *_KEPT, *_FIFO, "RedrivePolicy", "SqsManagedSseEnabled")
READABLE = ("All", *SETTABLE, *_COUNTED, *_FOUND)


def check_attributes(
    name: QueueName, given: Mapping[str, str], *, fifo: bool
) -> tuple[QueueSettings, dict[str, str]]:
    """What the store heeds of ``given``, all the attributes of a queue, and the texts to keep.

    Raises `Invalid` (``InvalidAttributeName``, ``InvalidAttributeValue``).
    """
    unknown = next((each for each in given if each not in SETTABLE), None)
    if unknown is not None:
        raise Invalid(f"Unknown Attribute {unknown}.", code="InvalidAttributeName")
    for attribute, value in given.items():
        _check_value(attribute, value)
    if not fifo:
        wrong = next((each for each in given if each in _FIFO), None)
        if wrong is not None:
            raise Invalid(f"Unknown Attribute {wrong}.", code="InvalidAttributeName")
    numbers = {each: int(given.get(each, default)) for each, (_, _, default) in _NUMBERS.items()}
    settings = QueueSettings(
        visibility_seconds=numbers["VisibilityTimeout"],
        retention_seconds=numbers["MessageRetentionPeriod"],
        delay_seconds=numbers["DelaySeconds"],
        fifo=fifo,
        deduplicates_by_group=given.get("DeduplicationScope") == "messageGroup",
        redrive=_redrive_policy(name, given.get("RedrivePolicy", ""), fifo=fifo),
    )
    return settings, {each: value for each, value in given.items() if value != "" or each not in _KEPT}


def number_of(queue: Queue, attribute: str) -> int:
    """A number among the attributes of ``queue``."""
    return int(queue.attributes.get(attribute, _NUMBERS[attribute][2]))


def show_attributes(queue: Queue, counts: Counts) -> dict[str, str]:
    """All attributes of ``queue``."""
    shown = {each: str(default) for each, (_, _, default) in _NUMBERS.items()}
    shown |= {"SqsManagedSseEnabled": "false", **queue.attributes}
    shown |= {
        "QueueArn": queue.queue.arn,
        "CreatedTimestamp": str(int(queue.created_at)),
        "LastModifiedTimestamp": str(int(queue.modified_at)),
        "ApproximateNumberOfMessages": str(counts.visible),
        "ApproximateNumberOfMessagesNotVisible": str(counts.in_flight),
        "ApproximateNumberOfMessagesDelayed": str(counts.delayed),
    }
    if queue.settings.fifo:
        usual = {"ContentBasedDeduplication": "false", "DeduplicationScope": "queue"}
        shown = {**usual, "FifoThroughputLimit": "perQueue", **shown, "FifoQueue": "true"}
    return shown


def _check_value(attribute: str, value: str) -> None:
    fits = True
    if attribute in _NUMBERS:
        least, most, _ = _NUMBERS[attribute]
        fits = value.isascii() and value.isdecimal() and len(value) < 10 and least <= int(value) <= most
    elif attribute in _BOOLEANS:
        fits = value in ("true", "false")
    elif attribute in _WORDS:
        fits = value in _WORDS[attribute]
    elif attribute in ("Policy", "RedriveAllowPolicy") and value:
        fits = isinstance(_document(value), dict)
    if not fits:
        raise Invalid(f"Invalid value for the parameter {attribute}.", code="InvalidAttributeValue")


def _document(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _redrive_policy(name: QueueName, text: str, *, fifo: bool) -> RedrivePolicy | None:
    if not text:
        return None

    def wrong(why: str) -> Invalid:
        return Invalid(
            f"Value {text} for parameter RedrivePolicy is invalid. Reason: {why}.",
            code="InvalidParameterValue",
        )

    document = _document(text)
    if not isinstance(document, dict) or not {"deadLetterTargetArn", "maxReceiveCount"} <= set(document):
        raise wrong("Redrive policy must be JSON with deadLetterTargetArn and maxReceiveCount")
    count, arn = document["maxReceiveCount"], document["deadLetterTargetArn"]
    if isinstance(count, str) and count.isascii() and count.isdecimal() and len(count) < 6:
        count = int(count)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_RECEIVES_OF_POLICY:
        raise wrong(f"Invalid value for maxReceiveCount: it must be 1 to {MAX_RECEIVES_OF_POLICY}")
    target = queue_of_arn(arn) if isinstance(arn, str) else None
    if target is None:
        raise wrong("Invalid value for deadLetterTargetArn")
    if (target.account, target.region) != (name.account, name.region):
        raise wrong("Dead letter target must be owned by the same account and region as the source")
    if target == name:
        raise wrong("Dead letter target must not be the queue itself")
    if target.name.endswith(".fifo") != fifo:
        raise wrong("Dead letter target must be of same type of queue as the source")
    return RedrivePolicy(target, count)
