"""Queues: made, found, listed, changed and deleted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from clary.faults import Conflict, InUse, Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.queues.queue_store import Queue, QueueName, QueueSettings
from clary.services.operation import RequestContext, operation
from clary.services.page_token import page_token, read_page_token
from clary.services.sqs.queue_attributes import READABLE, check_attributes, show_attributes

MAX_PAGE = 1000
MAX_TAGS = 50
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
_FIFO_SUFFIX = ".fifo"
_ACCOUNT = re.compile(r"\d{12}\Z")


@operation("sqs")
async def create_queue(context: RequestContext, request: Members) -> ReplyMembers:
    """To create a queue that is there with the same attributes does nothing."""
    name = QueueName(context.account, context.region, request["QueueName"])
    given = dict(request.get("Attributes") or {})
    fifo = given.get("FifoQueue") == "true"
    _check_name(name.name, fifo=fifo)
    tags = _check_tags(request.get("tags") or {})
    settings, attributes = check_attributes(name, given, fifo=fifo)
    store = context.backends.queues
    try:
        await store.create(name, settings, attributes, tags)
    except InUse:
        present = await store.queue(name)
        shown = show_attributes(present, await store.counts(name))
        other = next((each for each, value in attributes.items() if shown.get(each) != value), None)
        if other is not None:
            raise InUse(
                f"A queue already exists with the same name and a different value for attribute {other}",
                code="QueueNameExists",
            ) from None
    return {"QueueUrl": queue_url(context, name)}


@operation("sqs")
async def get_queue_url(context: RequestContext, request: Members) -> ReplyMembers:
    owner = request.get("QueueOwnerAWSAccountId") or context.account
    if owner != context.account:
        raise no_such_queue()
    name = QueueName(context.account, context.region, request["QueueName"])
    await context.backends.queues.queue(name)
    return {"QueueUrl": queue_url(context, name)}


@operation("sqs")
async def list_queues(context: RequestContext, request: Members) -> ReplyMembers:
    prefix, limit = request.get("QueueNamePrefix", ""), request.get("MaxResults")
    if limit is not None and not 1 <= limit <= MAX_PAGE:
        raise Invalid(
            f"Value {limit} for parameter MaxResults is invalid. Reason: Must be an integer from "
            f"1 to {MAX_PAGE}.",
            code="InvalidParameterValue",
        )
    after = ""
    if request.get("NextToken"):
        place = read_page_token(request["NextToken"], ["queues", prefix], str)
        if place is None:
            raise Invalid("Invalid or expired next token.", code="InvalidParameterValue")
        after = str(place[0])
    size = limit or MAX_PAGE
    queues = await context.backends.queues.queues(
        context.account, context.region, prefix=prefix, after=after, limit=size + 1
    )
    more = len(queues) > size and limit is not None  # without MaxResults there are no pages
    token = page_token([queues[size - 1].queue.name], ["queues", prefix]) if more else None
    return {
        "QueueUrls": [queue_url(context, each.queue) for each in queues[:size]] or None,
        "NextToken": token,
    }


@operation("sqs")
async def get_queue_attributes(context: RequestContext, request: Members) -> ReplyMembers:
    name = queue_of(context, request)
    wanted = request.get("AttributeNames") or []
    unknown = next((each for each in wanted if each not in READABLE), None)
    if unknown is not None:
        raise Invalid(f"Unknown Attribute {unknown}.", code="InvalidAttributeName")
    store = context.backends.queues
    shown = show_attributes(await store.queue(name), await store.counts(name))
    if "All" not in wanted:
        shown = {each: value for each, value in shown.items() if each in wanted}
    return {"Attributes": shown or None}


@operation("sqs")
async def set_queue_attributes(context: RequestContext, request: Members) -> ReplyMembers:
    name = queue_of(context, request)

    def change(queue: Queue) -> tuple[QueueSettings, Mapping[str, str], Mapping[str, str]]:
        given = dict(request["Attributes"])
        fifo = queue.settings.fifo
        if "FifoQueue" in given and (given["FifoQueue"] == "true") != fifo:
            raise Invalid("Invalid value for the parameter FifoQueue.", code="InvalidAttributeValue")
        settings, attributes = check_attributes(name, {**queue.attributes, **given}, fifo=fifo)
        return settings, attributes, queue.tags

    await context.backends.queues.change(name, change)
    return {}


@operation("sqs")
async def delete_queue(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.queues.delete(queue_of(context, request))
    return {}


@operation("sqs")
async def purge_queue(context: RequestContext, request: Members) -> ReplyMembers:
    await context.backends.queues.purge(queue_of(context, request))
    return {}


@operation("sqs")
async def list_dead_letter_source_queues(context: RequestContext, request: Members) -> ReplyMembers:
    """The queues whose redrive policy names this one."""
    name = queue_of(context, request)
    await context.backends.queues.queue(name)
    found: list[str] = []
    after = ""
    while True:
        queues = await context.backends.queues.queues(
            context.account, context.region, after=after, limit=MAX_PAGE
        )
        found += [
            queue_url(context, each.queue)
            for each in queues
            if each.settings.redrive and each.settings.redrive.queue == name
        ]
        if len(queues) < MAX_PAGE:
            return {"queueUrls": found}
        after = queues[-1].queue.name


@operation("sqs")
async def tag_queue(context: RequestContext, request: Members) -> ReplyMembers:
    added = dict(request["Tags"])
    await context.backends.queues.change(
        queue_of(context, request),
        lambda queue: (queue.settings, queue.attributes, _check_tags({**queue.tags, **added})),
    )
    return {}


@operation("sqs")
async def untag_queue(context: RequestContext, request: Members) -> ReplyMembers:
    gone = set(request["TagKeys"])
    await context.backends.queues.change(
        queue_of(context, request),
        lambda queue: (
            queue.settings,
            queue.attributes,
            {key: value for key, value in queue.tags.items() if key not in gone},
        ),
    )
    return {}


@operation("sqs")
async def list_queue_tags(context: RequestContext, request: Members) -> ReplyMembers:
    queue = await context.backends.queues.queue(queue_of(context, request))
    return {"Tags": dict(queue.tags) or None}


def queue_url(context: RequestContext, name: QueueName) -> str:
    """Where clients send what is for the queue: the address that this one used, for it works there."""
    http = context.call.http
    host = http.headers.get("host")
    start = f"{http.scheme}://{host}" if host else context.backends.endpoint_url
    return f"{start}/{name.account}/{name.name}"


def queue_of(context: RequestContext, request: Members) -> QueueName:
    """The queue that ``QueueUrl`` means; its host does not matter. Raises `NotFound`, `Invalid`."""
    url: Any = request["QueueUrl"]
    try:
        parts = urlsplit(url).path.strip("/").split("/")
    except ValueError:
        parts = []
    if len(parts) < 2 or not _ACCOUNT.match(parts[-2]):
        raise Invalid(f"The address {url} is not valid for this endpoint.", code="InvalidAddress")
    if parts[-2] != context.account:
        raise no_such_queue()
    return QueueName(context.account, context.region, parts[-1])


def no_such_queue() -> NotFound:
    return NotFound("The specified queue does not exist.", code="QueueDoesNotExist")


def _check_name(name: str, *, fifo: bool) -> None:
    bare = name.removesuffix(_FIFO_SUFFIX)
    if fifo != name.endswith(_FIFO_SUFFIX) or not _NAME.match(bare) or len(name) > 80:
        rule = (
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, "
            "must end with .fifo suffix and be 1 to 80 in length."
            if fifo
            else "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
        )
        raise Invalid(rule, code="InvalidParameterValue")


def _check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    if len(tags) > MAX_TAGS:
        raise Conflict(f"Too many tags: {len(tags)}, of {MAX_TAGS} at most.", code="InvalidParameterValue")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise Invalid(
                f"Tag '{key[:128]}': a key has 1 to 128 characters, a value up to 256.",
                code="InvalidParameterValue",
            )
    return tags
