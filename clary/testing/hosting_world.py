"""The control plane of hosting without its processes: operations, controller, a scripted driver, a clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import botocore.parsers
from botocore import xform_name

from clary.clock import ManualClock
from clary.compute.scripted import Script, ScriptedDriver, healthy_serving
from clary.controllers.endpoints import EndpointController
from clary.controllers.training_jobs import owner_key
from clary.controllers.work_loop import WorkLoop
from clary.protocol.codecs import codec_for
from clary.protocol.models import ServiceModels
from clary.protocol.validation import validate
from clary.protocol.wire import Call, Caller, Headers, HttpRequest
from clary.resources.route import EndpointRoute
from clary.resources.task import ServingWork, TaskSpec
from clary.services.operation import Backends, RequestContext, load_operations
from clary.store.memory import MemoryStore

ACCOUNT, REGION = "123456789012", "us-east-1"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/sagemaker-xgboost:1.7-1"


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


class HostingWorld:
    """Make it inside a running event loop. ``scripts`` are by variant name, or by model name."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.router = RememberingRouter()
        self.scripts: dict[str, Script] = {}
        self.driver = ScriptedDriver(self.clock, self._script)
        self._models = ServiceModels()
        self._handlers = load_operations()
        # The operations on hosting touch no objects, logs or metrics.
        nothing = cast(Any, None)
        self.backends = Backends(
            store=self.store,
            objects=nothing,
            logs=nothing,
            metrics=nothing,
            driver=self.driver,
            clock=self.clock,
            secret=b"s" * 32,
            endpoint_url="http://127.0.0.1:8750",
        )
        self.restart()

    def restart(self) -> None:
        """A new server on the same world."""
        self.driver.forget_callbacks()
        controller = EndpointController(
            self.driver,
            self.router,
            self.clock,
            endpoint_url=self.backends.endpoint_url,
            secret=self.backends.secret,
        )
        self.loop = WorkLoop(self.store, [controller], self.clock, seed=7)
        self._moved: list[str] = []
        self.driver.on_change(self._moved.append)

    async def call(self, operation_name: str, **members: Any) -> dict[str, Any]:
        """What a client gets back. Raises what the operation raises."""
        service = self._models["sagemaker"]
        operation = service.operation_model(operation_name)
        validate(operation.input_shape, members)
        caller = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, "AKIATEST")
        http = HttpRequest("POST", "/", "", Headers(), body=cast(Any, None))
        call = Call(service, operation, members, caller, REGION, "request-1", http)
        handler = self._handlers["sagemaker", xform_name(operation_name)]
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

    async def settle(self, seconds: float = 20.0) -> None:
        """Let the world go on for ``seconds``, the controller reconciling whenever it wants to."""
        until = self.clock.now() + seconds
        while True:
            for owner in self._moved[:]:
                await self.loop.nudge(owner_key(owner))
            self._moved.clear()
            await self.loop.step()
            if self._moved:
                continue
            if self.clock.now() >= until:
                return
            await self.clock.advance(min(0.25, until - self.clock.now()))

    async def create_model(self, name: str = "model", **container: Any) -> None:
        """A model that a scripted driver can run."""
        await self.call(
            "CreateModel",
            ModelName=name,
            ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/service",
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz", **container},
        )

    async def create_config(self, name: str, *variants: Mapping[str, Any], **members: Any) -> None:
        """A configuration; ``variants`` say only what is unusual of them."""
        usual = {
            "VariantName": "AllTraffic",
            "ModelName": "model",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        await self.call(
            "CreateEndpointConfig",
            EndpointConfigName=name,
            ProductionVariants=[{**usual, **variant} for variant in variants or [{}]],
            **members,
        )

    async def create_endpoint(self, *variants: Mapping[str, Any]) -> None:
        """The endpoint ``endpoint`` of a model ``model``, in service."""
        await self.create_model()
        await self.create_config("config", *variants)
        await self.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        await self.settle()

    async def describe(self, name: str = "endpoint") -> dict[str, Any]:
        return await self.call("DescribeEndpoint", EndpointName=name)

    async def running(self) -> list[str]:
        """Ids of the tasks that are not over."""
        return sorted(task.id for task in await self.driver.tasks() if not task.phase.final)

    def _script(self, spec: TaskSpec) -> Script:
        assert isinstance(spec.work, ServingWork)
        usual = healthy_serving(address=f"unix:/{spec.id}")
        model = str(spec.work.model.get("ModelName"))
        return self.scripts.get(spec.work.variant_name) or self.scripts.get(model) or usual
