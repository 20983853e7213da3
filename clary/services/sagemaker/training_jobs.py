"""The operations on training jobs."""

from __future__ import annotations

from typing import Any

from clary.agent.images import BuiltIn, resolve_image
from clary.algorithms.algorithm import check_hyperparameters, get_algorithm
from clary.faults import Conflict, InUse, Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import sagemaker_arn
from clary.resources.resource import Key, Resource
from clary.resources.training_job import KIND, LIFECYCLE, describe, initial_status, shown_status, summarize
from clary.services.operation import RequestContext, operation
from clary.services.sagemaker.listing import list_resources
from clary.services.sagemaker.tags import check_tags


def _key(context: RequestContext, name: str) -> Key:
    return Key(KIND, context.account, context.region, name)


@operation("sagemaker")
async def create_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    """Takes what the syntax allows; images, roles and data are looked for when the job runs."""
    key = _key(context, request["TrainingJobName"])
    spec: dict[str, Any] = {**request, "Tags": list(check_tags(request.get("Tags")))}
    _check(request)
    spec["AlgorithmSpecification"] = _with_metrics(request)
    try:
        await context.backends.store.create(
            key,
            spec,
            initial_status(context.backends.clock.now()),
            phase="InProgress",
            due_at=context.backends.clock.now(),
        )
    except InUse:
        raise InUse(
            "Training job names must be unique within an AWS account and region, and a job named "
            f"'{key.name}' already exists: {sagemaker_arn(key)}"
        ) from None
    return {"TrainingJobArn": sagemaker_arn(key)}


@operation("sagemaker")
async def describe_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    return describe(await _find(context, request))


@operation("sagemaker")
async def list_training_jobs(context: RequestContext, request: Members) -> ReplyMembers:
    if "WarmPoolStatusEquals" in request or "TrainingPlanArnEquals" in request:
        # Clary keeps no warm pools and no training plans yet, so no job is in one.
        return {"TrainingJobSummaries": []}
    return await list_resources(
        context, request, KIND, "TrainingJobSummaries", summarize, default_order="Descending"
    )


@operation("sagemaker")
async def stop_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    now = context.backends.clock.now()

    def change(resource: Resource) -> dict[str, Any]:
        if LIFECYCLE.final(resource.phase):
            raise Invalid(
                f"The request was rejected because the training job is in status {shown_status(resource)}.",
                code="ValidationException",
            )
        return {**resource.spec, "StopRequested": resource.spec.get("StopRequested") or now}

    await _write(context, request, change, due_at=now)
    return {}


@operation("sagemaker")
async def update_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    """Changes what may change while a job lives: profiling, remote debugging, the keep-alive period."""

    def change(resource: Resource) -> dict[str, Any]:
        if LIFECYCLE.final(resource.phase):
            raise Invalid(
                f"The training job {resource.key.name} is in status {shown_status(resource)}: it cannot be "
                "updated.",
                code="ValidationException",
            )
        spec: dict[str, Any] = dict(resource.spec)
        for name in ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig"):
            if name in request:
                spec[name] = request[name]
        if "ResourceConfig" in request:
            spec["ResourceConfig"] = {**spec["ResourceConfig"], **request["ResourceConfig"]}
        return spec

    resource = await _write(context, request, change, due_at=None)
    return {"TrainingJobArn": sagemaker_arn(resource.key)}


@operation("sagemaker")
async def delete_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    """Forgets a job that has ended; its logs, metrics and artifacts stay."""
    resource = await _find(context, request)
    if not LIFECYCLE.final(resource.phase):
        raise Conflict(
            f"The training job {resource.key.name} is in status {shown_status(resource)}: stop it before "
            "it is deleted.",
            code="ValidationException",
        )
    if not resource.status.get("Freed"):
        raise InUse(f"The training job {resource.key.name} is still being cleaned up: try again.")
    await context.backends.store.delete(resource.key, uid=resource.uid)
    return {}


async def _find(context: RequestContext, request: Members) -> Resource:
    key = _key(context, request["TrainingJobName"])
    resource = await context.backends.store.find(key)
    if resource is None:
        raise NotFound(f"Could not find training job '{sagemaker_arn(key)}'.", code="ValidationException")
    return resource


async def _write(context: RequestContext, request: Members, change: Any, *, due_at: float | None) -> Resource:
    resource = await _find(context, request)
    return await context.backends.store.write_spec(resource.key, change, due_at=due_at)


def _check(request: Members) -> None:
    """What the shapes cannot say. Raises `Invalid`."""
    algorithm = request.get("AlgorithmSpecification") or {}
    named = [name for name in ("TrainingImage", "AlgorithmName") if algorithm.get(name)]
    if len(named) != 1:
        raise Invalid(
            "You must specify exactly one of TrainingImage and AlgorithmName in AlgorithmSpecification, "
            f"not {' and '.join(named) or 'none'}."
        )
    channels = [channel["ChannelName"] for channel in request.get("InputDataConfig") or []]
    twice = next((name for name in channels if channels.count(name) > 1), None)
    if twice is not None:
        raise Invalid(f"Channel names must be unique: '{twice}' is given {channels.count(twice)} times.")
    for channel in request.get("InputDataConfig") or []:
        sources = channel.get("DataSource") or {}
        if len(sources) != 1:
            raise Invalid(
                f"The channel '{channel['ChannelName']}' must have exactly one data source, "
                f"not {len(sources)}."
            )
    resources = request.get("ResourceConfig") or {}
    grouped = bool(resources.get("InstanceGroups"))
    single = bool(resources.get("InstanceType")) and bool(resources.get("InstanceCount"))
    if grouped == single:
        raise Invalid("ResourceConfig must have either InstanceType and InstanceCount, or InstanceGroups.")
    limits = request.get("StoppingCondition") or {}
    longest, wait = limits.get("MaxRuntimeInSeconds"), limits.get("MaxWaitTimeInSeconds")
    if wait is not None and not request.get("EnableManagedSpotTraining"):
        raise Invalid("MaxWaitTimeInSeconds can only be specified when EnableManagedSpotTraining is true.")
    if wait is not None and longest is not None and wait < longest:
        raise Invalid(
            f"MaxWaitTimeInSeconds ({wait}) must be greater than or equal to MaxRuntimeInSeconds ({longest})."
        )
    built_in = _built_in(request)
    if built_in is not None:
        errors = check_hyperparameters(
            get_algorithm(built_in.algorithm), request.get("HyperParameters") or {}
        )
        if errors:
            raise Invalid(f"Hyperparameters of {built_in.algorithm} are not valid: {'; '.join(errors)}")


def _built_in(request: Members) -> BuiltIn | None:
    """The built-in algorithm that the job asks for, if it does."""
    algorithm = request["AlgorithmSpecification"]
    image = algorithm.get("TrainingImage")
    if not image or algorithm.get("ContainerEntrypoint"):
        return None
    script = "sagemaker_program" in (request.get("HyperParameters") or {})
    script = script or "SAGEMAKER_PROGRAM" in (request.get("Environment") or {})
    meaning = resolve_image(image, has_program=script)
    return meaning if isinstance(meaning, BuiltIn) else None


def _with_metrics(request: Members) -> dict[str, Any]:
    """The algorithm with its metrics: those of a built-in one are implied, and shown."""
    algorithm = dict(request["AlgorithmSpecification"])
    built_in = _built_in(request)
    if built_in is not None:
        own = get_algorithm(built_in.algorithm).metrics
        algorithm["MetricDefinitions"] = [{"Name": metric.name, "Regex": metric.regex} for metric in own]
    return algorithm
