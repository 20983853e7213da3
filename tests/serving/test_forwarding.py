"""The server passes on the invocations that it receives itself, exactly as they came."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import uvicorn
from botocore.config import Config

from clary.testing.serving_world import KEYS, ServingWorld, error_of, invoke, runtime_client, serving_world


@contextlib.asynccontextmanager
async def _server(world: ServingWorld) -> AsyncIterator[str]:
    """A plain HTTP server whose application is the forwarding; its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(world.gateway.forward, interface="asgi3", log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def test_signatures_hold_over_what_is_passed_on(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world, _server(world) as url:
            await world.publish(("AllTraffic", 1.0, [await world.serve("a")]))
            client = runtime_client(url)
            body = os.urandom(1024**2)
            status, reply = await asyncio.to_thread(invoke, client, body, {"CustomAttributes": "a, b  c"})
            assert (status, reply["Body"]) == (200, body)
            assert reply["InvokedProductionVariant"] == "AllTraffic"
            status, reply = await asyncio.to_thread(invoke, runtime_client(url, secret="no"), b"1", {})
            assert (status, error_of(reply)[0]) == (403, "InvalidSignatureException")
            status, reply = await asyncio.to_thread(invoke, client, b"x" * (6 * 1024**2 + 1), {})
            assert status == 413

            def stream() -> bytes:
                answer = client.invoke_endpoint_with_response_stream(EndpointName="endpoint", Body=body)
                return b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])

            assert await asyncio.to_thread(stream) == body

    asyncio.run(facts())


def test_a_client_that_leaves_leaves_the_gateway_too(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world, _server(world) as url:
            begun, end = threading.Event(), threading.Event()

            def stuck(*_: Any) -> tuple[int, bytes, str]:
                begun.set()
                end.wait(30)
                return 200, b"", "a/b"

            await world.publish(("AllTraffic", 1.0, [await world.serve("a", stuck)]))
            hasty = botocore.session.get_session().create_client(
                "sagemaker-runtime",
                region_name="us-east-1",
                endpoint_url=url,
                aws_access_key_id=KEYS.access_key_id,
                aws_secret_access_key=KEYS.secret_access_key,
                config=Config(read_timeout=0.5, retries={"total_max_attempts": 1}),
            )
            with pytest.raises(Exception, match=r"[Tt]ime"):
                await asyncio.to_thread(hasty.invoke_endpoint, EndpointName="endpoint", Body=b"1")
            assert begun.is_set()
            while await world.gateway.busy():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            end.set()

    asyncio.run(facts())


def test_a_gateway_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world, _server(world) as url:
            await world.gateway.stop()
            status, reply = await asyncio.to_thread(invoke, runtime_client(url), b"1", {})
            assert (status, error_of(reply)[0]) == (503, "ServiceUnavailable")

    asyncio.run(facts())
