"""An endpoint changes with its status. EventBridge writes it in capitals: IN_SERVICE."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clary.controllers.state_change import StateChange, without_spec
from clary.resources.endpoint import KIND, describe
from clary.resources.resource import Resource

__all__ = ["DESCRIBE", "DETAIL_TYPE", "KIND", "changes"]

DETAIL_TYPE = "SageMaker Endpoint State Change"
DESCRIBE = "DescribeEndpoint"


def changes(resource: Resource, mark: str | None) -> tuple[Sequence[StateChange], str]:
    """One where the status is another than was told."""
    if mark == resource.phase:
        return [], mark
    members = describe(resource) if resource.spec else without_spec(resource)
    status = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", resource.phase).upper()
    return [StateChange(resource.modified_at, {**members, "EndpointStatus": status})], resource.phase
