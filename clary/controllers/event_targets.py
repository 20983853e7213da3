"""What an event comes to: a message in a queue, a line in a log group, a request to an API destination."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from clary.clock import Clock
from clary.event_bus.envelope import event_time
from clary.event_bus.event_store import Delivery
from clary.event_bus.target_input import InputTooLarge, select, target_input
from clary.event_bus.webhook import BadRequest, WebhookFailed, WebReply, WebRequest, send
from clary.faults import Fault, InUse, LimitExceeded, NotFound
from clary.queues.queue_store import NewMessage, QueueStore, queue_of_arn
from clary.resources.arn import split_arn
from clary.resources.event_rule import (
    API_DESTINATION,
    CONNECTION,
    DEFAULT_RATE_PER_SECOND,
    api_destination_arn,
    connection_arn,
)
from clary.resources.resource import Key, Resource
from clary.store.store import Store
from clary.telemetry.log_store import LogStore

REPLY_TIMEOUT_SECONDS = 5.0  # EventBridge's
LONGEST_RETRY_AFTER_SECONDS = 3600.0
LONGEST_PACE_SECONDS = 60.0
TOKEN_MARGIN_SECONDS = 30.0
DEFAULT_TOKEN_SECONDS = 600.0
MOST_TOKENS = 1000
_TRIED_AGAIN = (401, 407, 408, 409, 429)  # and what begins with 5
_SENDER = "events.amazonaws.com"


class Undelivered(Exception):
    """A target did not take an event. ``again``: it may take it later, ``after_seconds`` if it said when.

    ``unreachable``: it would take no other event now either.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        again: bool = False,
        unreachable: bool = False,
        after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.again = again
        self.unreachable = unreachable
        self.after_seconds = after_seconds


class EventTargets:
    """Delivers one event to one target, once."""

    def __init__(self, store: Store, queues: QueueStore, logs: LogStore, clock: Clock) -> None:
        self._store = store
        self._queues = queues
        self._logs = logs
        self._clock = clock
        self._next_request: dict[str, float] = {}  # by destination, of the monotonic clock
        self._tokens: OrderedDict[tuple[str, float], tuple[str, float]] = OrderedDict()

    async def deliver(self, delivery: Delivery) -> None:
        """Raises `Undelivered`."""
        text = self._text(delivery)
        service = split_arn(delivery.destination).service
        if service == "sqs":
            await self._to_queue(delivery, text)
        elif service == "logs":
            await self._to_log_group(delivery, text)
        else:
            await self._to_api_destination(delivery, text)

    async def bury(self, delivery: Delivery) -> bool:
        """Put the event into the dead-letter queue of its target; whether there was one that took it.

        Raises what the queues' store raises when it cannot be asked.
        """
        arn = (delivery.target.get("DeadLetterConfig") or {}).get("Arn")
        queue = queue_of_arn(arn) if arn else None
        if queue is None:
            return False
        code, _, message = delivery.error.partition(": ")
        told = {
            "RULE_ARN": delivery.rule,
            "TARGET_ARN": delivery.destination,
            "ERROR_CODE": code,
            "ERROR_MESSAGE": message,
            "RETRY_ATTEMPTS": str(max(delivery.attempts - 1, 0)),
            "EXHAUSTED_RETRY_CONDITION": delivery.given_up,
        }
        attributes = {
            name: {"DataType": "String", "StringValue": value} for name, value in told.items() if value
        }
        body = json.dumps(delivery.event.envelope, ensure_ascii=False, separators=(",", ":"))
        try:
            await self._queues.send(queue, [NewMessage(body, attributes, sender=_SENDER)])
        except (NotFound, LimitExceeded):
            return False
        return True

    def _text(self, delivery: Delivery) -> str:
        """What the target is sent."""
        event = delivery.event
        ingested = event_time(event.at)
        try:
            return target_input(delivery.target, event.envelope, rule_arn=delivery.rule, ingested=ingested)
        except InputTooLarge as error:
            raise Undelivered("EVENT_TOO_LARGE", str(error)) from None

    async def _to_queue(self, delivery: Delivery, text: str) -> None:
        queue = queue_of_arn(delivery.destination)
        if queue is None:
            raise Undelivered("INVALID_PARAMETER", f"{delivery.destination} is not the ARN of a queue.")
        group = (delivery.target.get("SqsParameters") or {}).get("MessageGroupId", "")
        fifo = queue.name.endswith(".fifo")
        message = NewMessage(
            text,
            sender=_SENDER,
            group_id=group,
            deduplication_id=str(delivery.event.envelope["id"]) if fifo else "",
        )
        try:
            await self._queues.send(queue, [message])
        except NotFound as fault:
            raise Undelivered("NO_RESOURCE", fault.message) from None
        except LimitExceeded as fault:
            raise Undelivered("THROTTLING", fault.message, again=True, unreachable=True) from None

    async def _to_log_group(self, delivery: Delivery, text: str) -> None:
        parts = split_arn(delivery.destination)
        group = parts.resource.removeprefix("log-group:").removesuffix(":*")
        stream = delivery.rule.rpartition(":rule/")[2]
        entry = _log_entry(text, int(delivery.event.at * 1000))
        place = (parts.account, parts.region, group)
        try:
            await self._logs.group(*place)
            try:
                await self._logs.put(*place, stream, [entry])
            except NotFound:
                await self._make_stream(place, stream)
                await self._logs.put(*place, stream, [entry])
        except NotFound as fault:
            raise Undelivered("NO_RESOURCE", fault.message) from None

    async def _make_stream(self, place: tuple[str, str, str], stream: str) -> None:
        try:
            await self._logs.create_stream(*place, stream)
        except InUse:
            return  # made meanwhile

    async def _to_api_destination(self, delivery: Delivery, text: str) -> None:
        destination, connection = await self._find_destination(delivery.destination)
        await self._keep_pace(delivery.destination, destination)
        try:
            authorization = await self._authorization(connection)
            request = _request(delivery, destination, connection, authorization, text)
            reply = await send(request, timeout_seconds=REPLY_TIMEOUT_SECONDS)
        except BadRequest as bad:
            raise Undelivered("INVALID_PARAMETER", str(bad)) from None
        except WebhookFailed as failed:
            raise Undelivered(failed.kind, failed.message, again=True, unreachable=True) from None
        if 200 <= reply.status < 300:
            return
        if reply.status == 401:
            self._tokens.pop((connection.uid, connection.modified_at), None)
        again = reply.status in _TRIED_AGAIN or reply.status >= 500
        raise Undelivered(
            "THROTTLING" if reply.status == 429 else "SDK_CLIENT_ERROR",
            f"The endpoint answered with HTTP status {reply.status}.",
            again=again,
            after_seconds=_retry_after(reply) if again else None,
        )

    async def _find_destination(self, arn: str) -> tuple[Resource, Resource]:
        """The API destination and its connection, as they are now."""
        parts = split_arn(arn)
        destination = await self._named(API_DESTINATION, parts.account, parts.region, parts.resource)
        if destination is None or api_destination_arn(destination) != arn:
            raise Undelivered("NO_RESOURCE", f"The API destination {arn} does not exist.")
        connection_name = str(destination.spec["ConnectionArn"])
        named = split_arn(connection_name)
        connection = await self._named(CONNECTION, parts.account, parts.region, named.resource)
        if connection is None or connection_arn(connection) != connection_name:
            raise Undelivered("NO_RESOURCE", f"The connection {connection_name} does not exist.")
        if not connection.spec["AuthParameters"]:
            raise Undelivered("NO_PERMISSIONS", f"The connection {connection_name} is not authorized.")
        return destination, connection

    async def _named(self, kind: str, account: str, region: str, resource: str) -> Resource | None:
        pieces = resource.split("/")
        if len(pieces) < 2:
            return None
        return await self._store.find(Key(kind, account, region, pieces[1]))

    async def _keep_pace(self, arn: str, destination: Resource) -> None:
        """Wait until the destination's InvocationRateLimitPerSecond allows one more request."""
        rate: Any = destination.spec.get("InvocationRateLimitPerSecond") or DEFAULT_RATE_PER_SECOND
        now = time.monotonic()
        self._next_request = {each: at for each, at in self._next_request.items() if at > now or each == arn}
        at = max(now, self._next_request.get(arn, 0.0))
        self._next_request[arn] = at + 1 / float(rate)
        await asyncio.sleep(min(at - now, LONGEST_PACE_SECONDS))

    async def _authorization(self, connection: Resource) -> tuple[str, str]:
        """The header that tells who calls. Raises `WebhookFailed`, `BadRequest`, `Undelivered`."""
        parameters: Any = connection.spec["AuthParameters"]
        if "BasicAuthParameters" in parameters:
            basic = parameters["BasicAuthParameters"]
            pair = f"{basic['Username']}:{basic['Password']}".encode()
            return "Authorization", f"Basic {base64.b64encode(pair).decode()}"
        if "ApiKeyAuthParameters" in parameters:
            key = parameters["ApiKeyAuthParameters"]
            return key["ApiKeyName"], key["ApiKeyValue"]
        # The same connection, changed, has other tokens.
        known = (connection.uid, connection.modified_at)
        token, until = self._tokens.get(known, ("", 0.0))
        if until <= self._clock.now():
            token, seconds = await _fetch_token(parameters["OAuthParameters"])
            self._tokens[known] = (token, self._clock.now() + seconds - TOKEN_MARGIN_SECONDS)
            while len(self._tokens) > MOST_TOKENS:
                self._tokens.popitem(last=False)
        return "Authorization", f"Bearer {token}"


def _log_entry(text: str, now: int) -> tuple[int, str]:
    """Timestamp and message: a transformer may give both, as JSON."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return now, text
    if isinstance(document, dict) and set(document) == {"timestamp", "message"}:
        timestamp, message = document["timestamp"], document["message"]
        if isinstance(timestamp, int) and not isinstance(timestamp, bool) and 0 < timestamp < 2**63:
            now = timestamp
        return now, message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    return now, text


def _request(
    delivery: Delivery,
    destination: Resource,
    connection: Resource,
    authorization: tuple[str, str],
    text: str,
) -> WebRequest:
    """The request, with what target and connection add to it; the connection's word counts more."""
    event = delivery.event.envelope
    of_target: Any = delivery.target.get("HttpParameters") or {}
    parameters: Any = connection.spec["AuthParameters"]
    of_connection: Any = parameters.get("InvocationHttpParameters") or {}
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Amazon/EventBridge/ApiDestinations",
    }
    query: dict[str, str] = {}
    for name, value in (of_target.get("HeaderParameters") or {}).items():
        _set_header(headers, name, _filled(value, event))
    for name, value in (of_target.get("QueryStringParameters") or {}).items():
        query[name] = _filled(value, event)
    for name, value in _pairs(of_connection.get("HeaderParameters")):
        _set_header(headers, name, value)
    query |= dict(_pairs(of_connection.get("QueryStringParameters")))
    _set_header(headers, *authorization)
    url = str(destination.spec["InvocationEndpoint"])
    for value in of_target.get("PathParameterValues") or ():
        url = url.replace("*", quote(_filled(value, event), safe=""), 1)
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query)
    body = _with_members(text, _pairs(of_connection.get("BodyParameters")))
    return WebRequest(
        str(destination.spec["HttpMethod"]), url, list(headers.items()), body.encode("utf-8", "replace")
    )


def _set_header(headers: dict[str, str], name: str, value: str) -> None:
    """Replace a header, whose name has no case."""
    for present in [each for each in headers if each.lower() == name.lower()]:
        del headers[present]
    headers[name] = value


def _filled(value: str, event: Mapping[str, Any]) -> str:
    """A value that is a JSON path stands for what it leads to in the event."""
    if not value.startswith("$."):
        return value
    try:
        found = select(event, value)
    except Fault:
        return value
    return found if isinstance(found, str) else json.dumps(found)


def _pairs(given: Sequence[Mapping[str, Any]] | None) -> list[tuple[str, str]]:
    return [(each["Key"], each["Value"]) for each in given or ()]


def _with_members(text: str, members: Sequence[tuple[str, str]]) -> str:
    """``text`` with further members, where it is a JSON object."""
    if not members:
        return text
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps({**document, **dict(members)}) if isinstance(document, dict) else text


async def _fetch_token(parameters: Mapping[str, Any]) -> tuple[str, float]:
    """A token by OAuth's client credentials, and for how many seconds it holds."""
    client = parameters["ClientParameters"]
    http = parameters.get("OAuthHttpParameters") or {}
    form = {
        "grant_type": "client_credentials",
        "client_id": client["ClientID"],
        "client_secret": client["ClientSecret"],
        **dict(_pairs(http.get("BodyParameters"))),
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    for name, value in _pairs(http.get("HeaderParameters")):
        _set_header(headers, name, value)
    query = dict(_pairs(http.get("QueryStringParameters")))
    url = str(parameters["AuthorizationEndpoint"])
    if parameters["HttpMethod"] == "GET":
        query |= form
        form = {}
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query)
    request = WebRequest(str(parameters["HttpMethod"]), url, list(headers.items()), urlencode(form).encode())
    reply = await send(request, timeout_seconds=REPLY_TIMEOUT_SECONDS)
    try:
        document = json.loads(reply.body)
        token, seconds = document["access_token"], float(document.get("expires_in", DEFAULT_TOKEN_SECONDS))
        if reply.status != 200 or not isinstance(token, str):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Undelivered(
            "NO_PERMISSIONS",
            f"The authorization endpoint gave no token; it answered with HTTP status {reply.status}.",
            again=True,
            unreachable=True,
        ) from None
    return token, seconds


def _retry_after(reply: WebReply) -> float | None:
    text = reply.headers.get("retry-after", "")
    if not (text.isascii() and text.isdecimal()):
        return None
    return min(float(text[:9]), LONGEST_RETRY_AFTER_SECONDS)
