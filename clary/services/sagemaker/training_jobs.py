"""The operations on training jobs. They write down wishes; `clary.controllers.training_jobs` fulfils them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clary.agent.images import BuiltIn, resolve_image
from clary.algorithms.algorithm import AlgorithmSpec, check_hyperparameters, get_algorithm
from clary.faults import Conflict, InUse, Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import sagemaker_arn
from clary.resources.resource import Key, Resource
from clary.resources.training_job import (
    DEFAULT_MAX_RUNTIME_SECONDS,
    KIND,
    LIFECYCLE,
    TRAINING_PLAN_LABEL,
    algorithm_specification,
    describe,
    initial_status,
    shown_status,
    summarize,
)
from clary.resources.warm_pool import is_available, keep_alive_seconds
from clary.services.operation import RequestContext, operation
from clary.services.sagemaker.channels import check_channels
from clary.services.sagemaker.listing import list_resources
from clary.services.sagemaker.named_algorithms import algorithm_of, resolve
from clary.services.sagemaker.quotas import within_training_quotas
from clary.services.sagemaker.tags import check_tags
from clary.services.sagemaker.training_checks import check_combinations, check_profiling
from clary.services.sagemaker.warm_pools import claim_warm_pool, labels_of, list_by_pool_status


@operation("sagemaker")
async def create_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    """Takes what the syntax allows; images, roles and data are looked for when the job runs."""
    key = _key(context, request["TrainingJobName"])
    tags: list[Any] = list(check_tags(request.get("Tags")))
    algorithm = await algorithm_of(context, request)
    if algorithm is not None:
        training: Any = algorithm.spec["TrainingSpecification"]
        request = resolve(request, sagemaker_arn(algorithm.key), training)
    check_training_request(request)
    now = context.backends.clock.now()
    plan = request["ResourceConfig"].get("TrainingPlanArn")
    try:
        async with within_training_quotas(context, key, request):
            pool = await claim_warm_pool(context, key, request)
            await context.backends.store.create(
                key,
                {**with_defaults(request), "Tags": tags, "WarmPool": pool},
                initial_status(now, in_warm_pool=pool is not None),
                phase="InProgress",
                due_at=now,
                labels=({TRAINING_PLAN_LABEL: plan} if plan else {}) | labels_of(request),
            )
    except InUse:
        raise InUse(
            "Training job names must be unique within an AWS account and region, or a training job with this "
            f"name already exists ({sagemaker_arn(key)})"
        ) from None
    return {"TrainingJobArn": sagemaker_arn(key)}


@operation("sagemaker")
async def describe_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    return describe(await _find(context, request))


@operation("sagemaker")
async def list_training_jobs(context: RequestContext, request: Members) -> ReplyMembers:
    if "WarmPoolStatusEquals" in request:
        return await list_by_pool_status(context, request)
    plan = request.get("TrainingPlanArnEquals")
    labels = {TRAINING_PLAN_LABEL: plan} if plan else {}
    return await list_resources(context, request, KIND, "TrainingJobSummaries", summarize, labels=labels)


@operation("sagemaker")
async def stop_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    """Asks for the end of a job; what it saved is uploaded. To ask twice does no harm."""
    now = context.backends.clock.now()

    def change(job: Resource) -> dict[str, Any]:
        if LIFECYCLE.final(job.phase):
            raise _rejected(job)
        return {"StopRequested": now, **job.spec}

    await _write(context, request, change, due_at=now)
    return {}


@operation("sagemaker")
async def update_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    """Changes what may change while a job lives: profiling, remote debugging, the keep-alive period."""
    check_profiling(request)
    changed = {
        name: value for name, value in request.items() if name not in ("TrainingJobName", "ResourceConfig")
    }
    now = context.backends.clock.now()

    def change(job: Resource) -> dict[str, Any]:
        resources: Any = job.spec["ResourceConfig"]
        if LIFECYCLE.final(job.phase):
            # Of an ended job only the time that its warm pool is kept can change.
            if changed or not is_available(job.status) or job.spec.get("WarmPoolClaim"):
                raise _rejected(job)
        elif "ResourceConfig" in request and not keep_alive_seconds(job.spec):
            raise Invalid(
                "KeepAlivePeriodInSeconds can only be updated for a training job that was created with one."
            )
        return {
            **job.spec,
            **changed,
            "ResourceConfig": {**resources, **request.get("ResourceConfig", {})},
        }

    job = await _write(context, request, change, due_at=now)
    return {"TrainingJobArn": sagemaker_arn(job.key)}


@operation("sagemaker")
async def delete_training_job(context: RequestContext, request: Members) -> ReplyMembers:
    """Forgets a job that has ended; its logs, metrics and artifacts stay."""
    job = await _find(context, request)
    if not LIFECYCLE.final(job.phase):
        raise _rejected(job)
    if job.status.get("Freed"):
        await context.backends.store.delete(job.key, uid=job.uid)
        return {}
    # It ended this moment, and its controller still frees what it held: that is done first.
    now = context.backends.clock.now()

    def change(current: Resource) -> dict[str, Any]:
        if current.uid != job.uid:
            raise _not_found(job.key)
        return {**current.spec, "DeleteRequested": now}

    await context.backends.store.write_spec(job.key, change, due_at=now)
    return {}


def check_training_request(request: Members) -> None:
    """What the shapes of a CreateTrainingJob input cannot say. Raises `Invalid`."""
    check_combinations(request)
    check_channels(request)
    algorithm = built_in_algorithm(request)
    if algorithm is not None:
        errors = check_hyperparameters(algorithm, request.get("HyperParameters") or {})
        if errors:
            raise Invalid(f"Hyperparameters of {algorithm.name} are not valid: {'; '.join(errors)}")


def with_defaults(request: Members) -> dict[str, Any]:
    """The input with what SageMaker adds to it: a time limit, and the metrics of a built-in algorithm."""
    limits = {"MaxRuntimeInSeconds": DEFAULT_MAX_RUNTIME_SECONDS, **(request.get("StoppingCondition") or {})}
    specification = dict(request["AlgorithmSpecification"])
    algorithm = built_in_algorithm(request)
    named = bool(specification.get("AlgorithmName") and specification.get("MetricDefinitions"))
    if algorithm is not None and not named:
        specification["MetricDefinitions"] = [
            {"Name": metric.name, "Regex": metric.regex} for metric in algorithm.metrics
        ]
    return {**request, "StoppingCondition": limits, "AlgorithmSpecification": specification}


def built_in_algorithm(request: Members) -> AlgorithmSpec | None:
    """The built-in algorithm that the job asks for, if it does."""
    algorithm = algorithm_specification(request)
    image = algorithm.get("TrainingImage")
    if not image or algorithm.get("ContainerEntrypoint"):
        return None
    script = "sagemaker_program" in (request.get("HyperParameters") or {})
    script = script or "SAGEMAKER_PROGRAM" in (request.get("Environment") or {})
    meaning = resolve_image(image, has_program=script)
    return get_algorithm(meaning.algorithm) if isinstance(meaning, BuiltIn) else None


def _key(context: RequestContext, name: str) -> Key:
    return Key(KIND, context.account, context.region, name)


async def _find(context: RequestContext, request: Members) -> Resource:
    key = _key(context, request["TrainingJobName"])
    job = await context.backends.store.find(key)
    if job is None:
        raise _not_found(key)
    return job


async def _write(
    context: RequestContext,
    request: Members,
    change: Callable[[Resource], dict[str, Any]],
    *,
    due_at: float | None,
) -> Resource:
    job = await _find(context, request)
    return await context.backends.store.write_spec(job.key, change, due_at=due_at)


def _not_found(key: Key) -> NotFound:
    return NotFound(f"Could not find training job '{sagemaker_arn(key)}'.", code="ValidationException")


def _rejected(job: Resource) -> Conflict:
    return Conflict(
        f"The request was rejected because the training job is in status {shown_status(job)}.",
        code="ValidationException",
    )
