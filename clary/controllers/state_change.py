"""An event as EventBridge makes it of a resource that changed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.model import Shape

from clary.event_bus.envelope import envelope
from clary.event_bus.event_store import NewEvent
from clary.resources.arn import sagemaker_arn
from clary.resources.resource import Resource

_NAMESPACE = uuid.UUID("5f0c2a52-1f5c-4b2d-9a53-6f0f6a3f3b6e")


@dataclass(frozen=True)
class StateChange:
    """``at`` in epoch seconds, and the resource as Describe would have shown it then."""

    at: float
    members: Mapping[str, Any]


def bus_event(resource: Resource, detail_type: str, shape: Shape, change: StateChange, mark: str) -> NewEvent:
    """The event for ``change``; ``shape`` is that of the Describe operation's output.

    One change always makes the same id, so that those who hear of it twice can tell.
    """
    key = resource.key
    made = envelope(
        id=str(uuid.uuid5(_NAMESPACE, f"{resource.uid} {mark}")),
        detail_type=detail_type,
        source="aws.sagemaker",
        account=key.account,
        region=key.region,
        at=change.at,
        resources=[sagemaker_arn(key)],
        detail={**cut_to(shape, change.members), "Tags": tags(resource)},
    )
    return NewEvent(key.account, key.region, made)


def without_spec(resource: Resource) -> dict[str, Any]:
    """What is known of a resource that was deleted before anybody saw its spec."""
    kind = resource.key.kind
    return {
        **resource.status,
        f"{kind}Name": resource.key.name,
        f"{kind}Arn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
        "LastModifiedTime": resource.modified_at,
    }


def tags(resource: Resource) -> dict[str, str]:
    """The tags of a SageMaker resource as events have them."""
    given: Any = resource.spec.get("Tags") or []
    return {tag["Key"]: tag["Value"] for tag in given}


def cut_to(shape: Shape, value: Any) -> Any:
    """``value`` with the members that ``shape`` knows; times are whole milliseconds since the epoch."""
    if shape.type_name == "structure":
        return {
            name: cut_to(member, value[name])
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if shape.type_name == "list":
        return [cut_to(shape.member, each) for each in value]
    if shape.type_name == "map":
        return {name: cut_to(shape.value, each) for name, each in value.items()}
    if shape.type_name == "timestamp":
        return int(value * 1000)
    return value
