"""An algorithm changes with its status."""

from __future__ import annotations

from collections.abc import Sequence

from clary.controllers.state_change import StateChange, without_spec
from clary.resources.algorithm import KIND, describe
from clary.resources.resource import Resource

__all__ = ["DESCRIBE", "DETAIL_TYPE", "KIND", "changes"]

DETAIL_TYPE = "SageMaker Algorithm State Change"
DESCRIBE = "DescribeAlgorithm"


def changes(resource: Resource, mark: str | None) -> tuple[Sequence[StateChange], str]:
    """One where the status is another than was told."""
    if mark == resource.phase:
        return [], mark
    members = describe(resource) if resource.spec else without_spec(resource)
    return [StateChange(resource.modified_at, {**members, "AlgorithmStatus": resource.phase})], resource.phase
