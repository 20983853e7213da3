"""The ASGI application that every AWS request goes through.

`CHAIN` is the way of a request, a step a line (`FORM_CHAIN` that of S3's uploads by HTML form). What a step
learns it writes on the `Exchange`; a step that raises a `Fault` ends the way, and the client reads the fault
in the words of its service's protocol. Anything else that is raised is a bug: it is logged with the request
id, and the id is all that the client sees of it.

Beside the chain there are mounts (paths that are no AWS service, such as ``/.clary/health``) and the
forwarding of invocations to the gateway, which verifies them itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from botocore import xform_name
from botocore.model import OperationModel, ServiceModel

from clary.faults import Fault, Internal, LimitExceeded, Unavailable
from clary.protocol import browser_upload
from clary.protocol.browser_upload import Upload
from clary.protocol.codecs import Codec, codec_for
from clary.protocol.faults import to_wire
from clary.protocol.identify import Destination, find_operation, find_service, unknown_operation
from clary.protocol.models import ServiceModels
from clary.protocol.request_body import (
    ClientGone,
    Message,
    Receive,
    ReceivedBody,
    content_length,
    gunzip,
    read_all,
    s3_body,
)
from clary.protocol.signature import Authenticator, Opened, declared_payload_hash, signed_payload_hash
from clary.protocol.validation import validate
from clary.protocol.wire import Call, Headers, HttpRequest, HttpResponse, Members, ReplyMembers

MAX_REQUESTS_IN_FLIGHT = 1000
MAX_BUFFERED_BYTES = 512 * 1024**2  # of all bodies that are being read whole
DRAIN_BYTES = 256 * 1024  # read and dropped of a refused request, so that its client sees the refusal
DRAIN_TIMEOUT_SECONDS = 5.0
DEFAULT_BODY_BYTES = 6 * 1024**2
MAX_BODY_BYTES: Mapping[str, int] = {
    "s3": 8 * 1024**2,  # the XML documents, not the objects
    "logs": 8 * 1024**2,  # a batch of 1 MiB of events, as JSON
    "sts": 1024**2,
    "iam": 1024**2,
}

Scope: TypeAlias = "Mapping[str, Any]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
Application: TypeAlias = "Callable[[Any, Receive, Send], Awaitable[None]]"
Handler: TypeAlias = "Callable[[Call], Awaitable[ReplyMembers]]"
Mount: TypeAlias = "Callable[[HttpRequest], Awaitable[HttpResponse]]"

log = logging.getLogger("clary.front_door")
access_log = logging.getLogger("clary.access")


@dataclass
class Exchange:
    """One request on its way through the chain; each step fills in what it found."""

    request_id: str
    request: HttpRequest
    received: ReceivedBody
    destination: Destination | None = None
    model: ServiceModel | None = None
    codec: Codec | None = None
    opened: Opened | None = None
    operation: OperationModel | None = None
    path_parameters: dict[str, str] = field(default_factory=dict)
    payload: bytes = b""
    streams: bool = False
    members: Members = field(default_factory=dict)
    upload: Upload | None = None
    call: Call | None = None
    reply: ReplyMembers = field(default_factory=dict)
    response: HttpResponse | None = None


class FrontDoor:
    """The application. `clary.assembly` makes it; `clary.protocol.listeners` serves it."""

    def __init__(
        self,
        *,
        models: ServiceModels,
        authenticator: Authenticator,
        handlers: Mapping[tuple[str, str], Handler],
        mounts: Mapping[str, Mount] | None = None,
        forward: Application | None = None,
        own_names: Collection[str] = (),
    ) -> None:
        """``handlers`` by (service, snake-case operation); ``mounts`` by path prefix, the longest wins;
        ``forward`` takes the requests of sagemaker-runtime, unread; ``own_names`` are this server's host
        names, so that a bucket's name in front of one can be told."""
        self._models = models
        self._authenticator = authenticator
        self._handlers = handlers
        self._mounts = sorted((mounts or {}).items(), key=lambda mount: -len(mount[0]))
        self._forward = forward
        self._own_names = frozenset(name.lower() for name in own_names) | {"localhost"}
        self._in_flight = 0
        self._buffered_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the front door speaks HTTP only, not {scope['type']}")
        began = time.perf_counter()
        received = ReceivedBody(receive)
        exchange = Exchange(str(uuid.uuid4()), _read_head(scope, received), received)
        self._in_flight += 1
        status = 499
        try:
            if self._forwards(exchange):
                status = await self._pass_on(exchange, scope, receive, send)
                return
            response = await self._answer(exchange)
            status = response.status
            await _send(exchange, response, receive, send)
        except ClientGone as gone:
            log.debug("%s: %s", exchange.request_id, gone)
            status = 499
        finally:
            self._in_flight -= 1
            _log_access(exchange, status, time.perf_counter() - began)

    def _forwards(self, exchange: Exchange) -> bool:
        if self._forward is None or _reserved(exchange.request.raw_path):
            return False
        exchange.destination = find_service(exchange.request, self._own_names)
        return exchange.destination.service == "sagemaker-runtime"

    async def _pass_on(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> int:
        """Let the gateway answer; the status it answered with."""
        assert self._forward is not None
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._forward(scope, receive, noting)
        except Exception:
            log.exception("%s: forwarding %s failed", exchange.request_id, exchange.request.raw_path)
            if status:
                return status  # the head is out: returning without an end breaks the connection off
            await self.find_model(exchange)
            fault = Internal(f"The gateway could not be reached. Request id: {exchange.request_id}.")
            response = self._refuse(exchange, fault)
            status = response.status
            await _send(exchange, response, receive, send)
        return status

    async def _answer(self, exchange: Exchange) -> HttpResponse:
        try:
            for prefix, mount in self._mounts:
                if exchange.request.raw_path.startswith(prefix):
                    return _with_request_id(await mount(exchange.request), exchange.request_id)
            if _reserved(exchange.request.raw_path):
                return _reserved_reply(exchange)
            for step in self._chain(exchange):
                await step(self, exchange)
            assert exchange.response is not None
            return exchange.response
        except ClientGone:
            raise
        except Fault as fault:
            if isinstance(fault, Internal):
                log.error("%s: %s", exchange.request_id, fault.message)
            return self._refuse(exchange, fault)
        except Exception:
            log.exception("%s: a bug answered %s", exchange.request_id, _title(exchange))
            return self._refuse(
                exchange,
                Internal(
                    f"An internal error occurred. The server's log tells more under request id "
                    f"{exchange.request_id}."
                ),
            )

    def _chain(self, exchange: Exchange) -> tuple[Step, ...]:
        exchange.destination = exchange.destination or find_service(exchange.request, self._own_names)
        form = browser_upload.is_browser_upload(exchange.destination, exchange.request)
        return FORM_CHAIN if form else CHAIN

    def _refuse(self, exchange: Exchange, fault: Fault) -> HttpResponse:
        """The fault as the client's protocol writes it."""
        if exchange.model is None or exchange.codec is None:
            if exchange.request.raw_path.startswith("/.clary/"):
                return _plain_refusal(exchange, fault)
            exchange.model = self._models["sagemaker"]
            exchange.codec = codec_for("json")
        wire = to_wire(fault, exchange.model, exchange.operation)
        return exchange.codec.serialize_fault(exchange.model, exchange.operation, wire, exchange.request_id)

    # The steps of the chain.

    async def limit(self, exchange: Exchange) -> None:
        """Take no more than can be served."""
        if self._in_flight > MAX_REQUESTS_IN_FLIGHT:
            raise Unavailable("Please reduce your request rate: the server has its hands full.")

    async def find_model(self, exchange: Exchange) -> None:
        """The service's model, and how it is spoken to."""
        assert exchange.destination is not None
        destination = exchange.destination
        exchange.model = self._models.spoken(destination.service, destination.protocol)
        exchange.codec = codec_for(destination.protocol)

    async def open_claim(self, exchange: Exchange) -> None:
        """Who claims to call: strangers are refused before their body is read."""
        assert exchange.destination is not None
        destination = exchange.destination
        exchange.opened = await self._authenticator.open(
            exchange.request, destination.dialect, destination.scope, destination.bucket
        )

    async def find_operation(self, exchange: Exchange) -> None:
        """Which operation, where the head of the request tells."""
        assert exchange.destination is not None
        if not exchange.destination.form:
            self._identify(exchange)

    async def take_body(self, exchange: Exchange) -> None:
        """Check the signature and take the body: whole, or as a stream if the operation wants one.

        Of S3 the head says what the body's hash is, so its signature is checked before a byte is read.
        """
        assert exchange.destination is not None and exchange.opened is not None
        request = exchange.request
        limit = MAX_BODY_BYTES.get(exchange.destination.service, DEFAULT_BODY_BYTES)
        too_large = _too_large(exchange.destination, limit)
        if exchange.destination.service == "s3":
            assert exchange.operation is not None and exchange.codec is not None
            declared = declared_payload_hash(request, exchange.opened)
            exchange.opened.check(request, signed_payload_hash(request, exchange.opened, declared))
            request.body = s3_body(
                aiter_of(exchange.received),
                request,
                exchange.opened,
                declared,
                checksums_of_body=bool(exchange.operation.http_checksum),
            )
            exchange.streams = exchange.codec.has_streaming_payload(exchange.operation)
            if not exchange.streams:
                exchange.payload = await self._read_whole(exchange, limit, too_large)
            return
        raw = await self._read_whole(exchange, limit, too_large)
        digest = hashlib.sha256(raw).hexdigest()
        exchange.opened.check(request, digest)
        if (request.headers.get("content-encoding") or "").strip().lower() == "gzip":
            raw = await asyncio.to_thread(gunzip, raw, limit, too_large)
        exchange.payload = raw

    async def find_form_operation(self, exchange: Exchange) -> None:
        """Which operation, where the body tells."""
        assert exchange.destination is not None
        if exchange.destination.form:
            self._identify(exchange)

    async def parse(self, exchange: Exchange) -> None:
        """Bytes to members."""
        assert exchange.codec is not None and exchange.operation is not None
        exchange.members = exchange.codec.parse_request(
            exchange.operation, exchange.request, exchange.payload, exchange.path_parameters
        )

    async def validate(self, exchange: Exchange) -> None:
        """Members against the input shape."""
        assert exchange.operation is not None
        if exchange.operation.input_shape is not None:
            validate(exchange.operation.input_shape, exchange.members)

    async def dispatch(self, exchange: Exchange) -> None:
        """Let the operation do its work."""
        assert exchange.operation is not None and exchange.destination is not None
        assert exchange.opened is not None and exchange.model is not None
        handler = self._handlers[exchange.destination.service, xform_name(exchange.operation.name)]
        exchange.call = Call(
            service=exchange.model,
            operation=exchange.operation,
            members=exchange.members,
            caller=exchange.opened.caller,
            region=exchange.opened.region,
            request_id=exchange.request_id,
            http=exchange.upload.request if exchange.upload else exchange.request,
        )
        exchange.reply = await handler(exchange.call)

    async def serialize(self, exchange: Exchange) -> None:
        """Members to bytes."""
        assert exchange.codec is not None and exchange.operation is not None and exchange.call is not None
        response = exchange.codec.serialize_reply(exchange.operation, exchange.reply, exchange.request_id)
        response.status = exchange.call.reply_status or response.status
        for name, value in exchange.call.reply_headers.items():
            response.headers.set(name, value)
        exchange.response = response

    async def accept_form(self, exchange: Exchange) -> None:
        """Hold a form against its signed policy, and take it for the PutObject that it stands for."""
        assert exchange.destination is not None and exchange.model is not None and exchange.codec is not None
        if ("s3", "put_object") not in self._handlers:
            raise unknown_operation(exchange.destination, "PostObject")
        upload = await browser_upload.accept(exchange.request, exchange.destination, self._authenticator)
        exchange.upload = upload
        exchange.opened = Opened(upload.caller, upload.region, None, None, "s3")
        exchange.operation = exchange.model.operation_model("PutObject")
        exchange.members = exchange.codec.parse_request(
            exchange.operation, upload.request, b"", upload.path_parameters
        )

    async def answer_form(self, exchange: Exchange) -> None:
        """Answer as the form asked."""
        assert exchange.upload is not None
        host = exchange.request.headers.get("host") or "localhost"
        exchange.response = browser_upload.reply(exchange.upload, exchange.reply, exchange.request_id, host)

    def _identify(self, exchange: Exchange) -> None:
        assert exchange.destination is not None and exchange.model is not None
        destination = exchange.destination
        operation, exchange.path_parameters = find_operation(
            destination, exchange.request, exchange.model, exchange.payload
        )
        if (destination.service, xform_name(operation.name)) not in self._handlers:
            raise unknown_operation(destination, operation.name)
        exchange.operation = operation

    async def _read_whole(
        self, exchange: Exchange, limit_bytes: int, too_large: Callable[[], Fault]
    ) -> bytes:
        length = content_length(exchange.request.headers)
        if length is not None and length > limit_bytes:
            raise too_large()
        reserved = limit_bytes if length is None else length
        if self._buffered_bytes + reserved > MAX_BUFFERED_BYTES:
            raise Unavailable("Please reduce your request rate: too many large requests at once.")
        self._buffered_bytes += reserved
        try:
            return await read_all(exchange.request.body, limit_bytes, too_large)
        finally:
            self._buffered_bytes -= reserved


Step: TypeAlias = "Callable[[FrontDoor, Exchange], Awaitable[None]]"

CHAIN: tuple[Step, ...] = (
    FrontDoor.find_model,
    FrontDoor.limit,
    FrontDoor.open_claim,
    FrontDoor.find_operation,
    FrontDoor.take_body,
    FrontDoor.find_form_operation,
    FrontDoor.parse,
    FrontDoor.validate,
    FrontDoor.dispatch,
    FrontDoor.serialize,
)
FORM_CHAIN: tuple[Step, ...] = (
    FrontDoor.find_model,
    FrontDoor.limit,
    FrontDoor.accept_form,
    FrontDoor.validate,
    FrontDoor.dispatch,
    FrontDoor.answer_form,
)


def _read_head(scope: Scope, received: ReceivedBody) -> HttpRequest:
    client = scope.get("client")
    return HttpRequest(
        method=scope["method"],
        raw_path=(scope.get("raw_path") or scope["path"].encode()).decode("latin-1") or "/",
        query=scope["query_string"].decode("latin-1"),
        headers=Headers(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        ),
        body=aiter_of(received),
        scheme=scope.get("scheme", "http"),
        client=client[0] if client else "",
    )


async def aiter_of(received: ReceivedBody) -> AsyncIterator[bytes]:
    """The pieces of ``received``, as a plain iterator."""
    async for piece in received:
        yield piece


def _reserved(raw_path: str) -> bool:
    """Whether the path is Clary's own and never an AWS service's (no bucket's name begins with a dot)."""
    return raw_path.startswith("/.clary/") or raw_path == "/.clary"


def _reserved_reply(exchange: Exchange) -> HttpResponse:
    if exchange.request.raw_path == "/.clary/health":
        return _json(200, {"status": "ok"}, exchange.request_id)
    return _json(404, {"message": f"There is nothing at {exchange.request.raw_path}."}, exchange.request_id)


def _plain_refusal(exchange: Exchange, fault: Fault) -> HttpResponse:
    status = fault.status or (500 if isinstance(fault, Internal) else 400)
    document = {"code": fault.code or type(fault).__name__, "message": fault.message}
    return _json(status, document, exchange.request_id)


def _json(status: int, document: Mapping[str, str], request_id: str) -> HttpResponse:
    headers = Headers([("content-type", "application/json"), ("x-amzn-requestid", request_id)])
    return HttpResponse(status, headers, json.dumps(document).encode())


def _with_request_id(response: HttpResponse, request_id: str) -> HttpResponse:
    if "x-amzn-requestid" not in response.headers:
        response.headers.set("x-amzn-requestid", request_id)
    return response


def _too_large(destination: Destination, limit_bytes: int) -> Callable[[], Fault]:
    """Makes the refusal of a body that is too large, in the dialect of the service."""
    codes = {
        "s3": ("MaxMessageLengthExceeded", 400),
        "query": ("RequestEntityTooLarge", 413),
        "json": ("RequestEntityTooLargeException", 413),
        "rest-json": ("RequestEntityTooLargeException", 413),
    }
    code, status = codes[destination.dialect]

    def fault() -> Fault:
        message = f"Your request was too big: its body may have {limit_bytes} bytes."
        return LimitExceeded(message, code=code, status=status)

    return fault


async def _send(exchange: Exchange, response: HttpResponse, receive: Receive, send: Send) -> None:
    """Send the response, and see to it that the connection is left in a state that both ends agree on."""
    request, body = exchange.request, response.body
    headers = response.headers
    if await _body_left(exchange):
        headers.set("connection", "close")
    if isinstance(body, bytes):
        length: int | None = len(body)
    else:
        length = response.content_length
    bodiless = request.method == "HEAD" or response.status in (204, 304) or response.status < 200
    if length is not None and "content-length" not in headers and response.status not in (204, 304):
        headers.set("content-length", str(length))
    start = {
        "type": "http.response.start",
        "status": response.status,
        "headers": [(name.encode("latin-1"), _header_bytes(value)) for name, value in headers.items()],
    }
    try:
        await send(start)
        if isinstance(body, bytes):
            await send({"type": "http.response.body", "body": b"" if bodiless else body})
        elif bodiless:
            await send({"type": "http.response.body", "body": b""})
        else:
            await _stream(body, receive, send)
    except (ClientGone, asyncio.CancelledError):
        raise
    except Exception:
        # The head is out, so all that is left is to break the connection off: returning without an end does.
        log.exception("%s: the reply to %s broke off", exchange.request_id, _title(exchange))
    finally:
        if not isinstance(body, bytes):
            await _close(body)


async def _stream(body: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    gone = asyncio.ensure_future(_until_disconnect(receive))
    try:
        async for piece in body:
            if gone.done():
                raise ClientGone("the client closed the connection in the middle of the reply")
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close(body: AsyncIterator[bytes]) -> None:
    close = getattr(body, "aclose", None)
    if close is not None:
        await close()


async def _body_left(exchange: Exchange) -> bool:
    """Whether part of the request's body is still to come, after a little of it was dropped."""
    received, headers = exchange.received, exchange.request.headers
    announced = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    if received.finished or not announced:
        return False
    if not received.started and (headers.get("expect") or "").lower() == "100-continue":
        return True  # the client waits for our word: this reply is it
    try:
        return not await asyncio.wait_for(received.drain(DRAIN_BYTES), DRAIN_TIMEOUT_SECONDS)
    except asyncio.TimeoutError:
        return True


def _header_bytes(value: str) -> bytes:
    """A header's value as bytes: latin-1 where it fits (as it came in), UTF-8 otherwise, and no line ends."""
    value = value.replace("\r", " ").replace("\n", " ")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8")


async def _live(receive: Receive, send: Send) -> None:
    """Answer the server's start and end; what lives as long as the server is `clary.assembly`'s matter."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _title(exchange: Exchange) -> str:
    destination, operation = exchange.destination, exchange.operation
    if destination is None:
        return f"{exchange.request.method} {exchange.request.raw_path}"
    return f"{destination.service} {operation.name if operation else '-'}"


def _log_access(exchange: Exchange, status: int, seconds: float) -> None:
    destination, operation = exchange.destination, exchange.operation
    access_log.info(
        "%s %s %s %d %.1fms %s",
        exchange.request.method,
        destination.service if destination else exchange.request.raw_path,
        operation.name if operation else "-",
        status,
        seconds * 1000,
        exchange.request_id,
    )
