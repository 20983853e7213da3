"""The operations on models."""

from __future__ import annotations

from typing import Any

from clary.faults import InUse, Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import sagemaker_arn
from clary.resources.model import KIND, containers, describe, summarize
from clary.resources.resource import Key, Resource
from clary.services.operation import RequestContext, operation
from clary.services.sagemaker.listing import list_resources
from clary.services.sagemaker.tags import check_tags


@operation("sagemaker")
async def create_model(context: RequestContext, request: Members) -> ReplyMembers:
    """Takes what the syntax allows; image, role and data are looked for when the model is run."""
    _check(request)
    key = Key(KIND, context.account, context.region, request["ModelName"])
    spec: dict[str, Any] = {**request, "Tags": list(check_tags(request.get("Tags")))}
    try:
        await context.backends.store.create(key, spec, {}, phase="", due_at=None)
    except InUse:
        raise InUse(
            f'Cannot create already existing model "{sagemaker_arn(key)}".', code="ValidationException"
        ) from None
    return {"ModelArn": sagemaker_arn(key)}


@operation("sagemaker")
async def describe_model(context: RequestContext, request: Members) -> ReplyMembers:
    return describe(await find_model(context, request["ModelName"]))


@operation("sagemaker")
async def list_models(context: RequestContext, request: Members) -> ReplyMembers:
    return await list_resources(context, request, KIND, "Models", summarize, default_order="Descending")


@operation("sagemaker")
async def delete_model(context: RequestContext, request: Members) -> ReplyMembers:
    """Forgets the model; its artifacts stay, and endpoints that run it go on."""
    model = await find_model(context, request["ModelName"])
    await context.backends.store.delete(model.key, uid=model.uid)
    return {}


async def find_model(context: RequestContext, name: str) -> Resource:
    """The model ``name``. Raises `NotFound`."""
    key = Key(KIND, context.account, context.region, name)
    found = await context.backends.store.find(key)
    if found is None:
        raise NotFound(f'Could not find model "{sagemaker_arn(key)}".', code="ValidationException")
    return found


def _check(request: Members) -> None:
    """What the shapes cannot say. Raises `Invalid`."""
    if request.get("PrimaryContainer") and request.get("Containers"):
        raise Invalid("Cannot specify both PrimaryContainer and Containers: a model has one or the other.")
    given = containers(request)
    for container in given:
        if not container.get("Image") and not container.get("ModelPackageName"):
            raise Invalid("Each container must specify either Image or ModelPackageName.")
        if container.get("ModelDataUrl") and container.get("ModelDataSource"):
            raise Invalid("Cannot specify both ModelDataUrl and ModelDataSource for a container.")
    names = [container["ContainerHostname"] for container in given if container.get("ContainerHostname")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Invalid(f"Container hostnames must be unique within a model: '{twice}' is given twice.")
