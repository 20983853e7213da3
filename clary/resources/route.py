"""Where the invocations of an endpoint go: what its controller tells the gateway.

Everything here survives JSON, since it travels over the gateway's control socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from clary.resources.resource import JsonValue


@dataclass(frozen=True)
class ReplicaRoute:
    """One model server. ``address`` is ``unix:/path`` or ``tcp:host:port``; ``log_stream`` is its logs'."""

    address: str
    log_stream: str


@dataclass(frozen=True)
class VariantRoute:
    """A production variant and its healthy replicas; a weight of 0 gets only what names the variant."""

    name: str
    weight: float
    replicas: tuple[ReplicaRoute, ...]


@dataclass(frozen=True)
class EndpointRoute:
    """An endpoint that takes invocations."""

    account: str
    region: str
    name: str
    variants: tuple[VariantRoute, ...]


def route_to_json(route: EndpointRoute) -> dict[str, JsonValue]:
    """A JSON document of ``route``."""
    return asdict(route)


def route_from_json(document: Mapping[str, Any]) -> EndpointRoute:
    """Inverse of `route_to_json`. Raises ``KeyError`` or ``TypeError`` on a document of another form."""
    variants = (
        VariantRoute(
            variant["name"],
            float(variant["weight"]),
            tuple(ReplicaRoute(**replica) for replica in variant["replicas"]),
        )
        for variant in document["variants"]
    )
    return EndpointRoute(document["account"], document["region"], document["name"], tuple(variants))
