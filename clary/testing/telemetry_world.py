"""The operations of logs, CloudWatch and SageMaker Metrics over a real store, with a clock to turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import botocore.parsers
from botocore import xform_name

from clary.clock import ManualClock
from clary.protocol.codecs import codec_for
from clary.protocol.models import ServiceModels
from clary.protocol.validation import validate
from clary.protocol.wire import Call, Caller, Headers, HttpRequest
from clary.services.operation import Backends, RequestContext, load_operations
from clary.store.memory import MemoryStore
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.sqlite_logs import SqliteLogStore
from clary.telemetry.sqlite_metrics import SqliteMetricStore

ACCOUNT, REGION = "123456789012", "us-east-1"
_PROTOCOLS = {"logs": "json", "cloudwatch": "query", "sagemaker-metrics": "rest-json"}


class TelemetryWorld:
    """See the module. Use `run_telemetry`."""

    def __init__(self, folder: Path, models: ServiceModels) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        database = TelemetryDatabase(folder / "telemetry.sqlite")
        self.logs = SqliteLogStore(database, self.clock)
        self.metrics = SqliteMetricStore(database, self.clock)
        self._models = models
        self._handlers = load_operations()
        nothing = cast(Any, None)  # these operations touch neither objects nor tasks
        self._backends = Backends(
            store=self.store,
            objects=nothing,
            logs=self.logs,
            metrics=self.metrics,
            driver=nothing,
            clock=self.clock,
            secret=b"s" * 32,
            endpoint_url="http://127.0.0.1:8750",
            queues=nothing,
            events=nothing,
        )

    @property
    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.clock.now() * 1000)

    async def call(
        self,
        service: str,
        operation_name: str,
        *,
        account: str = ACCOUNT,
        region: str = REGION,
        **members: Any,
    ) -> dict[str, Any]:
        """What a client gets back, through the reply's bytes. Raises what the operation raises."""
        model, protocol = self._models[service], _PROTOCOLS[service]
        operation = model.operation_model(operation_name)
        validate(operation.input_shape, members)
        caller = Caller(account, f"arn:aws:iam::{account}:root", account, "AKIATEST")
        http = HttpRequest("POST", "/", "", Headers(), body=cast(Any, None))
        call = Call(model, operation, members, caller, region, "request-1", http)
        handler = self._handlers[service, xform_name(operation_name)]
        reply = await handler(RequestContext(self._backends, call), members)
        response = codec_for(protocol).serialize_reply(operation, reply, "request-1")
        raw = {
            "status_code": response.status,
            "headers": dict(response.headers.items()),
            "body": response.body,
        }
        parsed = botocore.parsers.create_parser(protocol).parse(raw, operation.output_shape)
        return {name: value for name, value in parsed.items() if name != "ResponseMetadata"}

    async def close(self) -> None:
        await self.logs.close()
        await self.metrics.close()


def run_telemetry(
    folder: Path, models: ServiceModels, facts: Callable[[TelemetryWorld], Awaitable[None]]
) -> None:
    """Look at ``facts`` in a fresh world whose file is in ``folder``."""

    async def within() -> None:
        world = TelemetryWorld(folder, models)
        try:
            await facts(world)
        finally:
            await world.close()

    asyncio.run(within())
