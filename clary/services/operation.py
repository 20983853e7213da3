"""How an AWS operation is written: one decorated coroutine, found because its file is in the folder.

    @operation("sagemaker")
    async def describe_training_job(context: RequestContext, request: Members) -> ReplyMembers:

The function's name is the operation's in snake case. ``request`` was parsed and validated against the
input shape; what is returned is cut down to the output shape, members that are ``None`` left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from botocore import xform_name

from clary import registry
from clary.clock import Clock
from clary.compute.driver import Driver
from clary.event_bus.event_store import EventStore
from clary.objects.object_store import ObjectStore
from clary.pricing.price_book import PriceBook
from clary.protocol.wire import Call, Caller, Members, ReplyMembers
from clary.queues.queue_store import QueueStore
from clary.store.store import Store
from clary.telemetry.log_store import LogStore
from clary.telemetry.metric_store import MetricStore

Handler: TypeAlias = "Callable[[RequestContext, Members], Awaitable[ReplyMembers]]"


@dataclass(frozen=True)
class Backends:
    """The roles an operation may talk to; `clary.assembly` picks the implementations."""

    store: Store
    objects: ObjectStore
    logs: LogStore
    metrics: MetricStore
    driver: Driver
    clock: Clock
    secret: bytes  # signs what the server hands out (session tokens); never leaves the process
    endpoint_url: str  # where clients on this machine reach the server
    queues: QueueStore
    events: EventStore
    quotas: Mapping[str, int] = field(default_factory=dict)  # see `clary.services.sagemaker.quotas`
    prices: PriceBook = field(default_factory=PriceBook)


@dataclass(frozen=True)
class RequestContext:
    """What an operation knows besides its input."""

    backends: Backends
    call: Call

    @property
    def account(self) -> str:
        return self.call.caller.account

    @property
    def region(self) -> str:
        return self.call.region

    @property
    def caller(self) -> Caller:
        return self.call.caller

    @property
    def request_id(self) -> str:
        return self.call.request_id


_handlers: dict[tuple[str, str], Handler] = {}


def operation(service: str) -> Callable[[Handler], Handler]:
    """Register the decorated coroutine as an operation of ``service`` (botocore's name)."""

    def register(handler: Handler) -> Handler:
        key = (service, handler.__name__)
        if key in _handlers:
            raise ValueError(f"{service} has two functions for {key[1]}")
        _handlers[key] = handler
        return handler

    return register


def load_operations() -> dict[tuple[str, str], Handler]:
    """Import every module of `clary.services` and return the handlers by (service, snake-case operation)."""
    for _ in registry.modules("clary.services"):
        pass
    return dict(_handlers)


def handler_name(operation_name: str) -> str:
    """The name of the function that answers ``operation_name`` (``CreateTrainingJob``)."""
    return str(xform_name(operation_name))
