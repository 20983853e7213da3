"""The way of an invocation: signature, endpoint, variant, replica, reply.

Nothing here asks anybody: all that is needed is in memory, replaced from outside. A stranger is refused at
the head of the request, before the body is read; the signature over the body is checked when it is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar
from urllib.parse import unquote

from clary.clock import Clock
from clary.faults import AccessDenied, Fault, Invalid, LimitExceeded, Unavailable, UnknownOperation
from clary.protocol.codecs.event_stream import CONTENT_TYPE as EVENT_STREAM
from clary.protocol.codecs.event_stream import message
from clary.protocol.signature import Authenticator, Opened
from clary.protocol.wire import Headers, HttpRequest
from clary.resources.arn import PARTITION
from clary.serving.http_server import Reply, Request
from clary.serving.keys import GatewayKeyRing, GatewayKeys
from clary.serving.quick_signature import KnownKey, QuickClaim, QuickSignatures
from clary.serving.routing_table import EMPTY, EndpointKey, EndpointRecord, RoutingTable, VariantRecord
from clary.serving.upstream import UpstreamConnection

MAX_BODY_BYTES = 6 * 1024**2  # as the service model says
BODY_SECONDS = 60.0
INVOCATION_SECONDS = 60.0
PATIENCE_SECONDS = 3.0  # with an endpoint none of whose model servers can be reached: it may be back
STREAM_SECONDS = 480.0  # for a whole streamed reply
HASH_IN_THREAD_BYTES = 256 * 1024  # hashing more than this would stall the loop
LONGEST_HEADER = 1024
LONGEST_ORIGINAL_MESSAGE = 64 * 1024
STREAM_PIECE_BYTES = 256 * 1024

_PREFIX = b"/endpoints/"
_OPERATIONS = {
    b"invocations": "InvokeEndpoint",
    b"invocations-response-stream": "InvokeEndpointWithResponseStream",
    b"async-invocations": "InvokeEndpointAsync",
}
# What reaches a container of the request, and the caller of the reply.
_FORWARDED = frozenset(
    {
        b"content-type",
        b"accept",
        b"x-amzn-sagemaker-custom-attributes",
        b"x-amzn-sagemaker-inference-id",
        b"x-amzn-sagemaker-session-id",
    }
)
_RETURNED = frozenset(
    {
        b"x-amzn-sagemaker-custom-attributes",
        b"x-amzn-sagemaker-new-session-id",
        b"x-amzn-sagemaker-closed-session-id",
    }
)
_NOT_OFFERED = {
    b"x-amzn-sagemaker-target-model": "TargetModel needs a multi-model endpoint",
    b"x-amzn-sagemaker-target-container-hostname": "TargetContainerHostname needs several containers",
    b"x-amzn-sagemaker-inference-component": "InferenceComponentName needs inference components",
}
_STATUSES = {
    UnknownOperation: ("UnknownOperationException", 404),
    Unavailable: ("ServiceUnavailable", 503),
    LimitExceeded: ("ThrottlingException", 429),
    AccessDenied: ("AccessDeniedException", 403),
}
_T = TypeVar("_T")

log = logging.getLogger("clary.gateway")


class Invocation:
    """One request on its way; a `clary.serving.upstream.Ticket`."""

    __slots__ = (
        "_application",
        "_began",
        "_http",
        "_opened",
        "_quick",
        "_received",
        "_stream_status",
        "cancelled",
        "connection",
        "deadline",
        "done",
        "endpoint_name",
        "instances",
        "operation",
        "patient_until",
        "payload",
        "record",
        "request",
        "request_id",
        "sent_at",
        "streams",
        "variant",
    )

    def __init__(
        self, application: InvocationApplication, request: Request, endpoint_name: str, operation: str
    ) -> None:
        self._application = application
        self._began = time.perf_counter()
        self.request = request
        self.request_id = str(uuid.uuid4())
        self.endpoint_name = endpoint_name
        self.operation = operation
        self.streams = operation == "InvokeEndpointWithResponseStream"
        self.payload = b""
        self.connection: UpstreamConnection | None = None
        self.cancelled = False
        self.done = False
        self.record: EndpointRecord | None = None
        self.variant: VariantRecord | None = None
        self.instances = 1
        self.sent_at: float | None = None
        self._received = self._began
        self.deadline = 0.0
        self.patient_until = 0.0
        self._stream_status = 0
        self._http: HttpRequest | None = None
        self._opened: Opened | None = None
        self._quick: QuickClaim | None = None

    # In.

    def open(self, authenticator: Authenticator, quick: QuickSignatures) -> None:
        """Who claims to call. Raises `Fault`."""
        request = self.request
        self._quick = quick.open(request.method, request.target, request.headers)
        if self._quick is None:
            self._open_fully(authenticator)

    def check(self, digest: str, authenticator: Authenticator, quick: QuickSignatures) -> tuple[str, str]:
        """Compare the signature; the account and region it is for. Raises `Fault`."""
        if self._quick is not None and self._quick.check(digest):
            key = self._quick.claim.key
            return key.account, key.region
        if self._opened is None:
            self._open_fully(authenticator)
        assert self._opened is not None and self._http is not None
        opened = self._opened
        opened.check(self._http, digest)
        if opened.signature is not None and opened.key is not None and opened.key.secret is not None:
            known = KnownKey(opened.caller.account, opened.region, opened.key.secret, opened.key.expires_at)
            quick.learn(self.request.headers, known)
        return opened.caller.account, opened.region

    def _open_fully(self, authenticator: Authenticator) -> None:
        request = self.request
        path, _, query = request.target.decode("latin-1").partition("?")
        self._http = HttpRequest(
            method=request.method.decode("latin-1"),
            raw_path=path,
            query=query,
            headers=Headers([(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers]),
            body=_NO_BODY,
        )
        self._opened = at_once(authenticator.open(self._http, "rest-json", "sagemaker"))

    # The ticket's side.

    def sent(self) -> None:
        self.sent_at = time.perf_counter()

    def reply_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of a reply to be streamed; an error of the model is collected instead, to be explained."""
        self._stream_status = status
        if 200 <= status < 300 and not self.done:
            assert self.variant is not None
            kind = next((value for name, value in headers if name == b"content-type"), b"")
            self.request.connection.begin_stream(
                self.request,
                200,
                b"content-type: %b\r\nx-amzn-sagemaker-content-type: %b\r\n%b"
                % (EVENT_STREAM.encode(), kind, self._reply_headers(headers)),
            )
        else:
            self.streams = False  # the connection collects the body from here on

    def reply_piece(self, piece: bytes) -> None:
        for start in range(0, len(piece), STREAM_PIECE_BYTES):
            headers = {
                ":message-type": "event",
                ":event-type": "PayloadPart",
                ":content-type": "application/octet-stream",
            }
            part = message(dict(headers), piece[start : start + STREAM_PIECE_BYTES])
            self.request.connection.stream(self.request, part)

    def replied(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if self.done:
            return
        if self.streams:
            self._finish(200)
            self.request.connection.end_stream(self.request)
        elif 200 <= status < 300:
            kind = next((value for name, value in headers if name == b"content-type"), b"")
            lines = b"content-type: %b\r\n%b" % (kind, self._reply_headers(headers))
            self._finish(status)
            self.request.connection.reply(self.request, Reply(200, lines, body))
        else:
            text = body[:LONGEST_ORIGINAL_MESSAGE].decode("utf-8", "replace")
            self._model_error(status, text)

    def broke(self, why: str) -> None:
        self._model_error(503, why[:1].upper() + why[1:] + ".")

    def unavailable(self, why: str) -> None:
        if not self.done:
            self.refuse(
                Unavailable(f"The endpoint {self.endpoint_name} cannot answer now: {why}. Try again.")
            )

    def hopeless(self, now: float) -> bool:
        """Whether it waits for a replica, none is there, and it has been patient."""
        return (
            self.sent_at is None
            and self.patient_until <= now
            and self.variant is not None
            and not self.variant.pool.replicas
        )

    def expire(self) -> None:
        """The time is up."""
        if self.variant is not None:
            self.variant.pool.cancel(self)
        if self.sent_at is None:
            self.unavailable("no model server took the request in time")
        else:
            self._model_error(
                0,
                "Your invocation timed out while waiting for a response from container primary. Review the "
                "latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again.",
            )

    # Out.

    def refuse(self, fault: Fault) -> None:
        """Answer with ``fault``."""
        reply = self.refusal(fault)
        if self._finish(reply.status):
            self.request.connection.reply(self.request, reply)

    def refusal(self, fault: Fault) -> Reply:
        """``fault`` as the client reads it."""
        code, status = next(
            (words for kind, words in _STATUSES.items() if isinstance(fault, kind)), ("ValidationError", 400)
        )
        return _error_reply(
            fault.status or status, fault.code or code, fault.message, self.request_id, dict(fault.fields)
        )

    def _model_error(self, status: int, text: str) -> None:
        """The model's own error, in the words that SageMaker wraps it in."""
        if self.done:
            return
        assert self.record is not None and self.variant is not None
        self.variant.counters.model_errors += 1
        account, region, name = self.record.key
        side = "client" if 400 <= status < 500 else "server"
        group = f"/aws/sagemaker/Endpoints/{name}"
        failure = (
            f'Received {side} error ({status}) from primary with message "{text}". See the log group {group} '
            f"in account {account} for more information."
        )
        began_stream = self.streams and 200 <= self._stream_status < 300
        self._finish(status if 400 <= status < 600 else 500)
        if began_stream:
            headers = {
                ":message-type": "exception",
                ":exception-type": "ModelStreamError",
                ":content-type": "application/json",
            }
            document = json.dumps({"Message": failure, "ErrorCode": "ModelInvocationError"}).encode()
            self.request.connection.stream(self.request, message(dict(headers), document))
            self.request.connection.end_stream(self.request)
            return
        fields = {
            "OriginalStatusCode": status,
            "OriginalMessage": text,
            "LogStreamArn": f"arn:{PARTITION}:logs:{region}:{account}:log-group:{group}",
        }
        reply = _error_reply(424, "ModelError", failure, self.request_id, fields)
        self.request.connection.reply(self.request, reply)

    def _reply_headers(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        assert self.variant is not None
        lines = b"".join(b"%b: %b\r\n" % each for each in headers if each[0] in _RETURNED)
        return b"x-amzn-invoked-production-variant: %b\r\nx-amzn-requestid: %b\r\n%b" % (
            self.variant.name.encode(),
            self.request_id.encode(),
            lines,
        )

    def _finish(self, status: int) -> bool:
        """Count it; whether it was not over already."""
        if self.done:
            return False
        self.done = True
        self._application.running.discard(self)
        variant = self.variant
        if variant is not None:
            counters = variant.counters
            counters.count(status, self.instances)
            now = time.perf_counter()
            model_seconds = now - self.sent_at if self.sent_at is not None else 0.0
            if self.sent_at is not None:
                counters.model_latency.add(model_seconds * 1e6)
            counters.overhead.add((now - self._began - model_seconds) * 1e6)
        return True

    def leave(self) -> None:
        """The client is gone."""
        if not self.done:
            self._finish(499)
            if self.variant is not None:
                self.variant.pool.cancel(self)


class InvocationApplication:
    """The gateway's `clary.serving.http_server.Application`."""

    max_body_bytes = MAX_BODY_BYTES
    body_seconds = BODY_SECONDS

    def __init__(self, clock: Clock) -> None:
        self.table: RoutingTable = EMPTY
        self.running: set[Invocation] = set()
        self._clock = clock
        self._authenticator: Authenticator | None = None
        self._quick = QuickSignatures(clock)

    def take_keys(self, keys: GatewayKeys) -> None:
        """Check signatures against ``keys`` from now on."""
        self._quick = QuickSignatures(self._clock)  # what it knew may count no more
        self._authenticator = Authenticator(
            GatewayKeyRing(keys),
            self._clock,
            default_account=keys.account,
            default_region=keys.region,
            verify=keys.verify,
        )

    def head(self, request: Request) -> Reply | None:
        invocation: Invocation | None = None
        try:
            invocation = self._identify(request)
            if self._authenticator is None:
                raise Unavailable("The gateway is starting: try again.")
            invocation.open(self._authenticator, self._quick)
        except Fault as fault:
            invocation = invocation or Invocation(self, request, "", "")
            return invocation.refusal(fault)
        request.context = invocation
        return None

    def answer(self, request: Request) -> None:
        invocation = request.context
        assert isinstance(invocation, Invocation)
        if len(request.body) < HASH_IN_THREAD_BYTES:
            self._proceed(invocation, hashlib.sha256(request.body).hexdigest())
            return
        loop = asyncio.get_running_loop()
        hashing = loop.run_in_executor(None, lambda: hashlib.sha256(request.body).hexdigest())
        hashing.add_done_callback(lambda done: self._proceed(invocation, done.result()))

    def gone(self, request: Request) -> None:
        if isinstance(request.context, Invocation):
            request.context.leave()

    def refusal(self, status: int, message: str) -> Reply:
        code = "ValidationError" if status < 500 else "ServiceUnavailable"
        return _error_reply(status, code, message, str(uuid.uuid4()), {})

    def pause(self, request: Request, paused: bool) -> None:
        """The client of a streamed reply cannot take more, or can again."""
        if isinstance(request.context, Invocation) and request.context.connection is not None:
            request.context.connection.pause(paused)

    def expire(self, now: float) -> None:
        """End what has taken too long. ``now`` is of ``time.monotonic``."""
        for invocation in list(self.running):
            if invocation.deadline <= now or invocation.hopeless(now):
                invocation.expire()

    def _identify(self, request: Request) -> Invocation:
        path = request.target.partition(b"?")[0]
        name, _, tail = path[len(_PREFIX) :].partition(b"/")
        operation = _OPERATIONS.get(tail)
        if not path.startswith(_PREFIX) or operation is None or not name:
            raise UnknownOperation(
                "The gateway answers InvokeEndpoint: POST /endpoints/NAME/invocations, not "
                f"{request.method.decode('latin-1')} {path[:200].decode('latin-1')}."
            )
        if request.method != b"POST":
            raise UnknownOperation(f"{operation} is a POST, not a {request.method.decode('latin-1')}.")
        invocation = Invocation(self, request, unquote(name.decode("latin-1")), operation)
        if operation == "InvokeEndpointAsync":
            raise UnknownOperation(
                "The operation InvokeEndpointAsync of sagemaker-runtime is not offered by Clary yet: use "
                "InvokeEndpoint."
            )
        return invocation

    def _proceed(self, invocation: Invocation, digest: str) -> None:
        if invocation.done:
            return  # the client left while its body was hashed
        try:
            assert self._authenticator is not None
            account, region = invocation.check(digest, self._authenticator, self._quick)
            self._dispatch(invocation, (account, region, invocation.endpoint_name))
        except Fault as fault:
            invocation.refuse(fault)
        except Exception:
            log.exception("%s: a bug answered an invocation", invocation.request_id)
            reply = _error_reply(
                500,
                "InternalFailure",
                "An internal error occurred. The gateway's log tells more under request id "
                f"{invocation.request_id}.",
                invocation.request_id,
                {},
            )
            invocation.request.connection.reply(invocation.request, reply)

    def _dispatch(self, invocation: Invocation, key: EndpointKey) -> None:
        record = self.table.endpoints.get(key)
        if record is None:
            raise Invalid(f"Endpoint {key[2]} of account {key[0]} not found.", code="ValidationError")
        invocation.record = record
        target, payload = _payload(invocation)
        if target is not None:
            variant = record.variants.get(target)
            if variant is None:
                raise Invalid(
                    f"Variant {target} of endpoint {key[2]} of account {key[0]} not found.",
                    code="ValidationError",
                )
        else:
            variant = record.choose()
            if variant is None:
                raise Unavailable(f"No variant of the endpoint {key[2]} has a weight. Name one.")
        invocation.variant = variant
        invocation.payload = payload
        invocation.instances = len(variant.pool.replicas)
        seconds = STREAM_SECONDS if invocation.streams else INVOCATION_SECONDS
        now = time.monotonic()
        invocation.deadline = now + seconds
        invocation.patient_until = now + PATIENCE_SECONDS
        self.running.add(invocation)
        variant.pool.submit(invocation)


def _payload(invocation: Invocation) -> tuple[str | None, bytes]:
    """The target variant, if the caller names one, and the request as the model server gets it."""
    request = invocation.request
    lines = [b"POST /invocations HTTP/1.1\r\nhost: localhost\r\n"]
    target: str | None = None
    for name, value in request.headers:
        if name in _FORWARDED:
            if name == b"accept" and invocation.operation == "InvokeEndpointWithResponseStream":
                continue
        elif name == b"x-amzn-sagemaker-accept":
            name = b"accept"
        elif name == b"x-amzn-sagemaker-target-variant":
            target = value.decode("latin-1")
            continue
        elif name in _NOT_OFFERED and value:
            raise Invalid(f"{_NOT_OFFERED[name]}, which is not offered yet.", code="ValidationError")
        else:
            continue
        if len(value) > LONGEST_HEADER:
            raise Invalid(
                f"1 validation error detected: Value at '{name.decode()}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {LONGEST_HEADER}",
                code="ValidationError",
            )
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(b"content-length: %d\r\n\r\n" % len(request.body))
    lines.append(request.body)
    return target, b"".join(lines)


def _error_reply(status: int, code: str, message: str, request_id: str, fields: dict[str, Any]) -> Reply:
    member = "message" if status == 403 else "Message"
    document = json.dumps({member: message, **fields}).encode()
    lines = (
        f"content-type: application/json\r\nx-amzn-errortype: {code}\r\nx-amzn-requestid: {request_id}\r\n"
    )
    return Reply(status, lines.encode("latin-1", "replace"), document)


def at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that never waits: what it awaits is ready."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: _T = ended.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine waited where none may")


class _NoBody:
    """The body as far as signatures are concerned: they are given its hash."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


_NO_BODY = _NoBody()
