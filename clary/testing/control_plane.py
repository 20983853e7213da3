"""The whole control plane in one process: operations, controllers, a scripted driver, and a clock to turn.

Nothing here is a stand-in but the world outside: what tasks do is scripted, and the gateway is a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import botocore.parsers
from botocore import xform_name

from clary.clock import ManualClock
from clary.compute.scripted import Script, ScriptedDriver, usual_script
from clary.controllers.algorithms import AlgorithmController
from clary.controllers.controller import Controller
from clary.controllers.endpoints import EndpointController
from clary.controllers.training_jobs import TrainingJobController, owner_key
from clary.controllers.work_loop import WorkLoop
from clary.protocol.codecs import codec_for
from clary.protocol.models import ServiceModels
from clary.protocol.validation import validate
from clary.protocol.wire import Call, Caller, Headers, HttpRequest
from clary.resources.route import EndpointRoute
from clary.resources.task import TaskSpec
from clary.services.operation import Backends, RequestContext, load_operations
from clary.store.memory import MemoryStore
from clary.store.store import Store
from clary.telemetry.memory_metrics import MemoryMetricStore

ACCOUNT, REGION = "123456789012", "us-east-1"
ENDPOINT_URL = "http://127.0.0.1:8750"
TICK_SECONDS = 0.25

_models = ServiceModels()  # reads each model once


class RememberingRouter:
    """A router whose table and traffic a test can see and set."""

    def __init__(self) -> None:
        self.routes: dict[str, EndpointRoute] = {}
        self.busy_addresses: set[str] = set()
        self.replica_counts: list[int] = []  # in each route that was published

    async def publish(self, route: EndpointRoute) -> None:
        self.routes[route.name] = route
        self.replica_counts.append(sum(len(variant.replicas) for variant in route.variants))

    async def withdraw(self, account: str, region: str, name: str) -> None:
        self.routes.pop(name, None)

    async def busy(self) -> frozenset[str]:
        return frozenset(self.busy_addresses)

    def addresses(self, endpoint: str) -> set[str]:
        """Where invocations of ``endpoint`` go."""
        route = self.routes.get(endpoint)
        return {r.address for variant in route.variants for r in variant.replicas} if route else set()


class ControlPlane:
    """See the module. Make it inside a running event loop."""

    def __init__(
        self,
        script_of: Callable[[TaskSpec], Script] = usual_script,
        *,
        clock: ManualClock | None = None,
        store: Store | None = None,
    ) -> None:
        self.clock = clock or ManualClock()
        self.store: Store = store or MemoryStore(self.clock)
        self.metrics = MemoryMetricStore()
        self.router = RememberingRouter()
        self.driver = ScriptedDriver(self.clock, script_of)
        self._handlers = load_operations()
        nothing = cast(Any, None)  # SageMaker's operations touch neither objects nor logs
        self.backends = Backends(
            store=self.store,
            objects=nothing,
            logs=nothing,
            metrics=self.metrics,
            driver=self.driver,
            clock=self.clock,
            secret=b"s" * 32,
            endpoint_url=ENDPOINT_URL,
            queues=nothing,
            events=nothing,
        )
        self.moved: list[str] = []  # owners of tasks that moved since the last look
        self.restart()

    def restart(self) -> None:
        """A new server on the same world; whatever the old one was doing, it does no more."""
        self.driver.forget_callbacks()
        controllers: list[Controller] = [
            AlgorithmController(self.store, self.clock),
            EndpointController(
                self.driver,
                self.router,
                self.clock,
                endpoint_url=self.backends.endpoint_url,
                secret=self.backends.secret,
            ),
            TrainingJobController(
                store=self.backends.store,
                driver=self.driver,
                metrics=self.metrics,
                clock=self.clock,
                secret=self.backends.secret,
                endpoint_url=self.backends.endpoint_url,
            ),
        ]
        self.loop = WorkLoop(self.backends.store, controllers, self.clock, seed=7)
        self.moved = []
        self.driver.on_change(self.moved.append)

    async def call(
        self,
        operation_name: str,
        *,
        service_name: str = "sagemaker",
        account: str = ACCOUNT,
        region: str = REGION,
        **members: Any,
    ) -> dict[str, Any]:
        """What a client gets back for a call of SageMaker's, or Clary's. Raises what the operation raises."""
        service = _models[service_name]
        operation = service.operation_model(operation_name)
        validate(operation.input_shape, members)
        caller = Caller(account, f"arn:aws:iam::{account}:root", account, "AKIATEST")
        http = HttpRequest("POST", "/", "", Headers(), body=cast(Any, None))
        call = Call(service, operation, members, caller, region, "request-1", http)
        handler = self._handlers[service_name, xform_name(operation_name)]
        reply = await handler(RequestContext(self.backends, call), members)
        response = codec_for("json").serialize_reply(operation, reply, "request-1")
        parser = botocore.parsers.create_parser("json")
        parsed = parser.parse(
            {
                "status_code": response.status,
                "headers": dict(response.headers.items()),
                "body": response.body,
            },
            operation.output_shape,
        )
        return {name: value for name, value in parsed.items() if name != "ResponseMetadata"}

    async def look(self) -> None:
        """Let the controllers do all that there is to do at this moment."""
        while True:
            for owner in self.moved[:]:
                await self.loop.nudge(owner_key(owner))
            self.moved.clear()
            await self.loop.step()
            if not self.moved:
                return

    async def settle(self, seconds: float = 20.0) -> None:
        """Let the world go on for ``seconds``, controllers reconciling whenever they want to."""
        until = self.clock.now() + seconds
        while True:
            await self.look()
            if self.clock.now() >= until:
                return
            await self.clock.advance(min(TICK_SECONDS, until - self.clock.now()))

    async def running(self) -> list[str]:
        """Ids of the tasks that are not over."""
        return sorted(task.id for task in await self.driver.tasks() if not task.phase.final)
