"""The API in one process, asked by real botocore clients: no sockets, a memory store, and a clock to turn.

A client's signed request goes straight into the front door, so what is tested is all between the two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

from clary.clock import ManualClock
from clary.compute.scripted import ScriptedDriver
from clary.protocol.front_door import FrontDoor, Handler
from clary.protocol.models import ServiceModels
from clary.protocol.signature import Authenticator
from clary.protocol.wire import Call, ReplyMembers
from clary.services.operation import Backends, RequestContext, load_operations
from clary.services.operation import Handler as Operation
from clary.services.sts.key_ring import ServerKeyRing
from clary.services.sts.secret_files import load_root_credentials, load_server_secret
from clary.services.sts.task_credentials import PATH, task_credentials
from clary.store.memory import MemoryStore

ACCOUNT, REGION = "123456789012", "us-east-1"
ENDPOINT_URL = "http://127.0.0.1:8750"

_models = ServiceModels()  # reads each model once
_session = botocore.session.Session()  # so does the clients' side


class _Raw:
    """A reply's body as botocore reads it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: object) -> list[bytes]:
        return [self._content]

    def read(self, *_: object) -> bytes:
        content, self._content = self._content, b""
        return content


class ApiWorld:
    """A server's API over ``folder``, which holds its secrets. The clock starts at the machine's time."""

    def __init__(self, folder: Path, *, account_from_access_key: bool = False) -> None:
        self.clock = ManualClock(time.time())
        self.root = load_root_credentials(folder, ACCOUNT)
        self.store = MemoryStore(self.clock)
        self.driver = ScriptedDriver(self.clock)
        nothing = cast(Any, None)  # not for operations on objects, logs and metrics
        self.backends = Backends(
            store=self.store,
            objects=nothing,
            logs=nothing,
            metrics=nothing,
            driver=self.driver,
            clock=self.clock,
            secret=load_server_secret(folder),
            endpoint_url=ENDPOINT_URL,
            queues=nothing,
            events=nothing,
        )
        key_ring = ServerKeyRing(
            self.root, self.backends.secret, self.store, account_from_access_key=account_from_access_key
        )
        self.door = FrontDoor(
            models=_models,
            authenticator=Authenticator(key_ring, self.clock, default_account=ACCOUNT, default_region=REGION),
            handlers={name: self._bound(each) for name, each in load_operations().items()},
            mounts={PATH: task_credentials(self.backends.secret, self.driver, self.clock)},
            own_names=["127.0.0.1"],
        )

    def _bound(self, operation: Operation) -> Handler:
        async def handle(call: Call) -> ReplyMembers:
            return await operation(RequestContext(self.backends, call), call.members)

        return handle

    def client(self, service: str, credentials: Mapping[str, Any] | None = None, **config: Any) -> Any:
        """A client of ``service``; ``credentials`` as STS and IAM give them, by default the owner's."""
        given = credentials or {
            "AccessKeyId": self.root.access_key_id,
            "SecretAccessKey": self.root.secret_access_key,
        }
        client = _session.create_client(
            service,
            region_name=REGION,
            endpoint_url=ENDPOINT_URL,
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given.get("SessionToken") or given.get("Token"),
            config=Config(retries={"total_max_attempts": 1}, **config),
        )
        client.meta.events.register("before-send.*", self._answer)
        return client

    def _answer(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        headers = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        status, replied, content = self.send(request.method, request.url, headers, body)
        return AWSResponse(request.url, status, replied, _Raw(content))

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """One request at the front door: status, headers and body of the reply."""
        parts = urlsplit(url)
        given = {"host": urlsplit(ENDPOINT_URL).netloc, **{k.lower(): v for k, v in headers.items()}}
        scope = {
            "type": "http",
            "method": method,
            "path": parts.path or "/",
            "raw_path": (parts.path or "/").encode(),
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "scheme": "http",
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.door(scope, receive, send))
        replied = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return sent[0]["status"], replied, b"".join(message.get("body", b"") for message in sent[1:])
