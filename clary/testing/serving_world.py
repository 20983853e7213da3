"""A real gateway in a process of its own, with model servers that answer as a test wants."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config

from clary.resources.route import EndpointRoute, ReplicaRoute, VariantRoute
from clary.serving.gateway_client import Gateway
from clary.serving.http_server import Server
from clary.serving.keys import GatewayKeys
from clary.serving.model_worker import ModelApplication, bind

ACCOUNT, REGION = "123456789012", "us-east-1"
KEYS = GatewayKeys(ACCOUNT, "AKIAGATEWAYTESTKEYAA", "a-secret-access-key", b"s" * 32)

Predictor = Callable[[bytes, str, str], tuple[int, bytes, str]]


def echo(body: bytes, content_type: str, accept: str) -> tuple[int, bytes, str]:
    """Answers with what it was asked."""
    return 200, body, content_type or "application/octet-stream"


class ServingWorld:
    """A gateway, and where its files are. Make it with `serving_world`."""

    def __init__(self, data: Path, gateway: Gateway, sockets: Path) -> None:
        self.data = data
        self.gateway = gateway
        self._sockets = sockets
        self._servers: dict[str, tuple[Server, ModelApplication]] = {}

    async def serve(self, name: str, predictor: Predictor = echo, *, on_loop: bool = False) -> str:
        """A model server in this process; its address."""
        path = self._sockets / name
        application = ModelApplication(predictor, 4, on_loop=on_loop)
        server = Server(application, max_connections=256)
        await server.listen(bind(path))
        self._servers[name] = (server, application)
        return f"unix:{path}"

    async def stop_serving(self, name: str, *, seconds: float = 5.0) -> None:
        """End a model server, letting what it does end within ``seconds``."""
        server, application = self._servers.pop(name)
        await server.close(seconds)
        application.close()

    async def close(self) -> None:
        for name in list(self._servers):
            await self.stop_serving(name, seconds=0.2)

    async def publish(self, *variants: tuple[str, float, list[str]], endpoint: str = "endpoint") -> None:
        """Let ``endpoint`` have ``variants``: name, weight, addresses."""
        await self.gateway.publish(route(*variants, endpoint=endpoint))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def client(self, **members: Any) -> Any:
        """A client of sagemaker-runtime that tries once."""
        return runtime_client(self.url, **members)

    async def invoke(self, body: bytes = b"1,2", **members: Any) -> tuple[int, dict[str, Any]]:
        """InvokeEndpoint by botocore: the status, and the reply (its body read) or the error."""
        return await asyncio.to_thread(invoke, self.client(), body, members)


def route(*variants: tuple[str, float, list[str]], endpoint: str = "endpoint") -> EndpointRoute:
    """A route of ``variants``: name, weight, addresses."""
    return EndpointRoute(
        ACCOUNT,
        REGION,
        endpoint,
        tuple(
            VariantRoute(name, weight, tuple(ReplicaRoute(address, f"{name}/i-1") for address in addresses))
            for name, weight, addresses in variants
        ),
    )


def runtime_client(
    url: str, *, access_key: str = KEYS.access_key_id, secret: str = KEYS.secret_access_key, **members: Any
) -> Any:
    """A client of sagemaker-runtime at ``url`` that tries once."""
    return botocore.session.get_session().create_client(
        "sagemaker-runtime",
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=30),
        **members,
    )


def invoke(client: Any, body: bytes, members: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """One InvokeEndpoint: the status, and the reply (its body read) or the error."""
    asked = {"EndpointName": "endpoint", "ContentType": "text/csv", **members, "Body": body}
    try:
        reply = client.invoke_endpoint(**asked)
        reply["Body"] = reply["Body"].read()
    except client.exceptions.ClientError as error:
        reply = error.response
    return reply["ResponseMetadata"]["HTTPStatusCode"], reply


@asynccontextmanager
async def serving_world(data: Path) -> AsyncIterator[ServingWorld]:
    """A gateway on ``data``, stopped at the end."""
    gateway = await Gateway.start_or_find(data, keys=KEYS)
    with tempfile.TemporaryDirectory(prefix="clary-test-") as sockets:
        world = ServingWorld(data, gateway, Path(sockets))
        try:
            yield world
        finally:
            await world.close()
            await gateway.stop()


def process_ids_of_gateways(data: Path) -> list[int]:
    """The gateway processes of ``data`` that live."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"clary.serving.gateway" in command and os.fsencode(data) in command:
                found.append(int(folder.name))
    return found


def error_of(reply: dict[str, Any]) -> tuple[str, str]:
    """Code and message of an error that `invoke` gave."""
    return reply["Error"]["Code"], reply["Error"]["Message"]
