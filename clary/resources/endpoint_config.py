"""Endpoint configurations: which models an endpoint runs, on what, and how much traffic each gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clary.resources.arn import sagemaker_arn
from clary.resources.resource import Document, Resource

KIND = "EndpointConfig"
DEFAULT_WEIGHT = 1.0
SERVERLESS_INSTANCE_TYPE = "ml.m5.large"  # what a serverless variant's one server is given here

# Members that change what an endpoint does and that Clary does not act on yet: refused when an endpoint is
# made of them, so that nobody believes in a capture or an explanation that never happens.
_NOT_OFFERED = {
    "ShadowProductionVariants": "shadow variants are",
    "AsyncInferenceConfig": "asynchronous inference is",
    "ExplainerConfig": "explanations are",
}


def production_variants(config: Document) -> list[Mapping[str, Any]]:
    """The production variants of a configuration."""
    variants: Any = config.get("ProductionVariants") or []
    return list(variants)


def variant_weight(variant: Mapping[str, Any]) -> float:
    weight = variant.get("InitialVariantWeight")
    return DEFAULT_WEIGHT if weight is None else float(weight)


def variant_instance_count(variant: Mapping[str, Any]) -> int:
    if variant.get("ServerlessConfig"):
        return 1
    return int(variant.get("InitialInstanceCount") or 1)


def variant_instance_type(variant: Mapping[str, Any]) -> str:
    pools = variant.get("InstancePools") or [{}]
    return str(variant.get("InstanceType") or pools[0].get("InstanceType") or SERVERLESS_INSTANCE_TYPE)


def not_offered(config: Document) -> str:
    """Why no endpoint can be made of ``config`` here; "" if one can."""
    for member, words in _NOT_OFFERED.items():
        if config.get(member):
            return f"{words} not offered yet: make a configuration without {member}."
    capture: Any = config.get("DataCaptureConfig") or {}
    if capture.get("EnableCapture"):
        return "data capture is not offered yet: set EnableCapture of DataCaptureConfig to false."
    for variant in production_variants(config):
        if not variant.get("ModelName"):
            return (
                f"the variant {variant['VariantName']} names no model, and inference components are not "
                "offered yet: give it a ModelName."
            )
    return ""


def describe(resource: Resource) -> dict[str, Any]:
    """The configuration as DescribeEndpointConfig shows it."""
    return {
        "EnableNetworkIsolation": False,
        **resource.spec,
        "EndpointConfigName": resource.key.name,
        "EndpointConfigArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
    }


def summarize(resource: Resource) -> dict[str, Any]:
    """The configuration as ListEndpointConfigs shows it."""
    return {
        "EndpointConfigName": resource.key.name,
        "EndpointConfigArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
    }
