"""The operations on endpoints. They write down wishes; `clary.controllers.endpoints` fulfils them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from clary.faults import Conflict, InUse, Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import sagemaker_arn
from clary.resources.endpoint import (
    KIND,
    Wish,
    Wishes,
    deployment_document,
    describe,
    initial_status,
    initial_wishes,
    read_deployment,
    read_wishes,
    shown_status,
    summarize,
    wanted_number,
    wishes_document,
)
from clary.resources.endpoint_config import production_variants
from clary.resources.resource import Document, Key, Resource
from clary.services.operation import RequestContext, operation
from clary.services.sagemaker.endpoint_configs import find_endpoint_config
from clary.services.sagemaker.listing import list_resources
from clary.services.sagemaker.models import find_model
from clary.services.sagemaker.quotas import endpoint_usage, within_endpoint_quotas
from clary.services.sagemaker.tags import check_tags

_IN_PROGRESS = ("Creating", "Updating", "Deleting")


@operation("sagemaker")
async def create_endpoint(context: RequestContext, request: Members) -> ReplyMembers:
    key = _key(context, request["EndpointName"])
    config, models = await _config_and_models(context, request["EndpointConfigName"])
    now = context.backends.clock.now()
    spec: dict[str, Any] = {
        **request,
        "Tags": list(check_tags(request.get("Tags"))),
        "Deployment": deployment_document(1, config, models),
        "Desired": initial_wishes(1, config),
    }
    usage = endpoint_usage(spec["Deployment"], spec["Desired"])
    try:
        async with within_endpoint_quotas(context, key, lambda present: Counter() if present else usage):
            await context.backends.store.create(key, spec, initial_status(), phase="Creating", due_at=now)
    except InUse:
        raise InUse(
            f'Cannot create already existing endpoint "{sagemaker_arn(key)}".', code="ValidationException"
        ) from None
    return {"EndpointArn": sagemaker_arn(key)}


@operation("sagemaker")
async def describe_endpoint(context: RequestContext, request: Members) -> ReplyMembers:
    return describe(await _find(context, request["EndpointName"]))


@operation("sagemaker")
async def list_endpoints(context: RequestContext, request: Members) -> ReplyMembers:
    return await list_resources(context, request, KIND, "Endpoints", summarize, default_order="Descending")


@operation("sagemaker")
async def update_endpoint(context: RequestContext, request: Members) -> ReplyMembers:
    """Asks for another deployment; the present one serves until that is up."""
    config, models = await _config_and_models(context, request["EndpointConfigName"])

    def change(endpoint: Resource) -> dict[str, Any]:
        _check_updatable(endpoint)
        number = wanted_number(endpoint.spec) + 1
        spec: dict[str, Any] = {**endpoint.spec, "EndpointConfigName": request["EndpointConfigName"]}
        if not request.get("RetainDeploymentConfig"):
            spec.pop("DeploymentConfig", None)
        if request.get("DeploymentConfig"):
            spec["DeploymentConfig"] = request["DeploymentConfig"]
        spec["Deployment"] = deployment_document(number, config, models)
        spec["Desired"] = _wishes_of_update(endpoint, config, request)
        return spec

    endpoint = await _write_within_quotas(context, request["EndpointName"], change)
    return {"EndpointArn": sagemaker_arn(endpoint.key)}


@operation("sagemaker")
async def update_endpoint_weights_and_capacities(context: RequestContext, request: Members) -> ReplyMembers:
    """Asks for other weights and instance counts of the variants that serve."""
    asked = {each["VariantName"]: each for each in request["DesiredWeightsAndCapacities"]}

    def change(endpoint: Resource) -> dict[str, Any]:
        _check_updatable(endpoint)
        # The spec's deployment may be one that failed: what serves is in the status.
        serving = read_deployment(endpoint.status["Serving"])
        wishes = read_wishes(endpoint.status["Applied"])
        unknown = [name for name in asked if name not in wishes.variants]
        if unknown:
            raise Invalid(
                f'The variant name(s) "{", ".join(unknown)}" is/are not present within endpoint '
                f'configuration "{serving.config_name}".'
            )
        variants = {name: _wish(wish, asked.get(name, {})) for name, wish in wishes.variants.items()}
        if not any(wish.weight > 0 for wish in variants.values()):
            raise Invalid("The sum of DesiredWeight of all production variants must be greater than 0.")
        return {
            **endpoint.spec,
            "Desired": wishes_document(Wishes(read_wishes(endpoint.spec["Desired"]).number + 1, variants)),
        }

    endpoint = await _write_within_quotas(context, request["EndpointName"], change)
    return {"EndpointArn": sagemaker_arn(endpoint.key)}


@operation("sagemaker")
async def delete_endpoint(context: RequestContext, request: Members) -> ReplyMembers:
    """Asks for the end of the endpoint; it is gone when its servers are."""
    now = context.backends.clock.now()

    def change(endpoint: Resource) -> dict[str, Any]:
        if endpoint.spec.get("DeleteRequested"):
            raise _in_progress(endpoint)
        return {**endpoint.spec, "DeleteRequested": now}

    await _write(context, request["EndpointName"], change)
    return {}


@operation("sagemaker")
async def list_monitoring_schedules(context: RequestContext, request: Members) -> ReplyMembers:
    """None: Clary has no monitoring schedules yet, and clients that clean up ask whether any is left."""
    return {"MonitoringScheduleSummaries": []}


def _key(context: RequestContext, name: str) -> Key:
    return Key(KIND, context.account, context.region, name)


async def _find(context: RequestContext, name: str) -> Resource:
    key = _key(context, name)
    found = await context.backends.store.find(key)
    if found is None:
        raise NotFound(f'Could not find endpoint "{sagemaker_arn(key)}".', code="ValidationException")
    return found


async def _write(
    context: RequestContext, name: str, change: Callable[[Resource], dict[str, Any]]
) -> Resource:
    endpoint = await _find(context, name)
    now = context.backends.clock.now()
    return await context.backends.store.write_spec(endpoint.key, change, due_at=now)


async def _write_within_quotas(
    context: RequestContext, name: str, change: Callable[[Resource], dict[str, Any]]
) -> Resource:
    """As `_write`, if the account may have the instances that the changed spec asks for."""

    def asked(present: Resource | None) -> Counter[str]:
        if present is None:
            return Counter()
        spec = change(present)
        return endpoint_usage(spec["Deployment"], spec["Desired"])

    async with within_endpoint_quotas(context, _key(context, name), asked):
        return await _write(context, name, change)


async def _config_and_models(context: RequestContext, name: str) -> tuple[Document, dict[str, Document]]:
    config = (await find_endpoint_config(context, name)).spec
    models: dict[str, Document] = {}
    for variant in production_variants(config):
        model = variant.get("ModelName")
        if model:
            models[model] = (await find_model(context, model)).spec
    return config, models


def _wishes_of_update(endpoint: Resource, config: Document, request: Members) -> dict[str, Any]:
    """The new configuration's own wishes, or those in force where the caller wants to keep them."""
    number = read_wishes(endpoint.spec["Desired"]).number + 1
    fresh = read_wishes(initial_wishes(number, config))
    if not request.get("RetainAllVariantProperties"):
        return wishes_document(fresh)
    dropped = {each["VariantPropertyType"] for each in request.get("ExcludeRetainedVariantProperties") or []}
    kept = read_wishes(endpoint.status["Applied"]).variants
    return wishes_document(
        Wishes(
            number,
            {
                name: Wish(
                    wish.weight if "DesiredWeight" in dropped else kept.get(name, wish).weight,
                    wish.instance_count
                    if "DesiredInstanceCount" in dropped
                    else kept.get(name, wish).instance_count,
                )
                for name, wish in fresh.variants.items()
            },
        )
    )


def _wish(present: Wish, asked: Members) -> Wish:
    count = asked.get("DesiredInstanceCount", present.instance_count)
    if count < 1:
        raise Invalid(
            f"DesiredInstanceCount of the variant '{asked['VariantName']}' must be at least 1, not {count}: "
            "an endpoint cannot scale to zero instances."
        )
    return Wish(float(asked.get("DesiredWeight", present.weight)), int(count))


def _check_updatable(endpoint: Resource) -> None:
    status = shown_status(endpoint)
    if status in _IN_PROGRESS:
        raise _in_progress(endpoint)
    if status != "InService":
        raise Conflict(
            f'Cannot update endpoint "{sagemaker_arn(endpoint.key)}" in status {status}: the only operation '
            "that can be performed on it is DeleteEndpoint.",
            code="ValidationException",
        )


def _in_progress(endpoint: Resource) -> Conflict:
    return Conflict(
        f'Cannot update in-progress endpoint "{sagemaker_arn(endpoint.key)}".', code="ValidationException"
    )
