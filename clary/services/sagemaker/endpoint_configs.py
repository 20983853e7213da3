"""The operations on endpoint configurations."""

from __future__ import annotations

from typing import Any

from clary.faults import InUse, Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import sagemaker_arn
from clary.resources.endpoint_config import KIND, describe, production_variants, summarize, variant_weight
from clary.resources.resource import Key, Resource
from clary.services.operation import RequestContext, operation
from clary.services.sagemaker.listing import list_resources
from clary.services.sagemaker.models import find_model
from clary.services.sagemaker.tags import check_tags


@operation("sagemaker")
async def create_endpoint_config(context: RequestContext, request: Members) -> ReplyMembers:
    _check(request)
    for variant in [*production_variants(request), *(request.get("ShadowProductionVariants") or [])]:
        if variant.get("ModelName"):
            await find_model(context, variant["ModelName"])
    key = Key(KIND, context.account, context.region, request["EndpointConfigName"])
    spec: dict[str, Any] = {**request, "Tags": list(check_tags(request.get("Tags")))}
    try:
        await context.backends.store.create(key, spec, {}, phase="", due_at=None)
    except InUse:
        raise InUse(
            f'Cannot create already existing endpoint configuration "{sagemaker_arn(key)}".',
            code="ValidationException",
        ) from None
    return {"EndpointConfigArn": sagemaker_arn(key)}


@operation("sagemaker")
async def describe_endpoint_config(context: RequestContext, request: Members) -> ReplyMembers:
    return describe(await find_endpoint_config(context, request["EndpointConfigName"]))


@operation("sagemaker")
async def list_endpoint_configs(context: RequestContext, request: Members) -> ReplyMembers:
    return await list_resources(
        context, request, KIND, "EndpointConfigs", summarize, default_order="Descending"
    )


@operation("sagemaker")
async def delete_endpoint_config(context: RequestContext, request: Members) -> ReplyMembers:
    """Forgets the configuration; endpoints made of it go on with what they copied."""
    config = await find_endpoint_config(context, request["EndpointConfigName"])
    await context.backends.store.delete(config.key, uid=config.uid)
    return {}


async def find_endpoint_config(context: RequestContext, name: str) -> Resource:
    """The configuration ``name``. Raises `NotFound`."""
    key = Key(KIND, context.account, context.region, name)
    found = await context.backends.store.find(key)
    if found is None:
        raise NotFound(
            f'Could not find endpoint configuration "{sagemaker_arn(key)}".', code="ValidationException"
        )
    return found


def _check(request: Members) -> None:
    """What the shapes cannot say. Raises `Invalid`."""
    variants = production_variants(request)
    names = [str(variant["VariantName"]) for variant in variants]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Invalid(
            f"Production variant names must be unique: '{twice}' is given {names.count(twice)} times."
        )
    for variant in variants:
        name = variant["VariantName"]
        machines = [m for m in ("InstanceType", "ServerlessConfig", "InstancePools") if variant.get(m)]
        if len(machines) != 1:
            raise Invalid(
                f"The production variant '{name}' must have exactly one of InstanceType, ServerlessConfig "
                f"and InstancePools, not {' and '.join(machines) or 'none'}."
            )
        if variant.get("ServerlessConfig") and variant.get("InitialInstanceCount"):
            raise Invalid(f"The serverless production variant '{name}' cannot have an InitialInstanceCount.")
    if variants and not any(variant_weight(variant) > 0 for variant in variants):
        raise Invalid("The sum of InitialVariantWeight of all production variants must be greater than 0.")
