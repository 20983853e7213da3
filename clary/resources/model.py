"""Models: what is kept of them, and how they are shown. They do not move."""

from __future__ import annotations

from typing import Any

from clary.resources.arn import sagemaker_arn
from clary.resources.resource import Document, Resource

KIND = "Model"


def containers(spec: Document) -> list[dict[str, Any]]:
    """The containers of a model, in order: the primary one, or those of its pipeline."""
    primary: Any = spec.get("PrimaryContainer")
    several: Any = spec.get("Containers")
    return [dict(primary)] if primary else [dict(each) for each in several or []]


def describe(resource: Resource) -> dict[str, Any]:
    """The model as DescribeModel shows it."""
    return {
        "EnableNetworkIsolation": False,
        **resource.spec,
        "ModelName": resource.key.name,
        "ModelArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
    }


def summarize(resource: Resource) -> dict[str, Any]:
    """The model as ListModels shows it."""
    return {
        "ModelName": resource.key.name,
        "ModelArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
    }
