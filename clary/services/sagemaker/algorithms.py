"""The operations on algorithms. What their validation calls for is run by `clary.controllers.algorithms`."""

from __future__ import annotations

import contextlib
from typing import Any

from clary.faults import Conflict, InUse, Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.algorithm import KIND, SETTLED, describe, initial_status, summarize
from clary.resources.arn import sagemaker_arn
from clary.resources.resource import Key, Resource
from clary.services.operation import RequestContext, operation
from clary.services.sagemaker.algorithm_rules import (
    check_inference_specification,
    check_training_specification,
)
from clary.services.sagemaker.listing import list_resources
from clary.services.sagemaker.named_algorithms import find_algorithm, resolve
from clary.services.sagemaker.quotas import within_training_quotas
from clary.services.sagemaker.tags import check_tags
from clary.services.sagemaker.training_jobs import check_training_request, with_defaults

_OF_THE_JOB = ("HyperParameters", "InputDataConfig", "OutputDataConfig", "StoppingCondition")


@operation("sagemaker")
async def create_algorithm(context: RequestContext, request: Members) -> ReplyMembers:
    """Takes what is consistent. With a validation specification its training jobs are run; without, the
    algorithm is complete at once."""
    key = Key(KIND, context.account, context.region, request["AlgorithmName"])
    tags: list[Any] = list(check_tags(request.get("Tags")))
    check_training_specification(request["TrainingSpecification"])
    check_inference_specification(request.get("InferenceSpecification"))
    jobs = _validation_jobs(sagemaker_arn(key), request)
    status = initial_status(jobs)
    try:
        async with contextlib.AsyncExitStack() as stack:
            for job in jobs.values():  # one at most, as the input's shape has it
                await stack.enter_async_context(within_training_quotas(context, key, job))
            await context.backends.store.create(
                key,
                {**request, "Tags": tags, "ValidationJobs": jobs},
                status,
                phase=str(status["AlgorithmStatus"]),
                due_at=context.backends.clock.now() if jobs else None,
            )
    except InUse:
        raise InUse(
            f"An algorithm with this name already exists ({sagemaker_arn(key)}): choose another name, or "
            "delete that one first.",
            code="ValidationException",
        ) from None
    return {"AlgorithmArn": sagemaker_arn(key)}


@operation("sagemaker")
async def describe_algorithm(context: RequestContext, request: Members) -> ReplyMembers:
    return describe(await find_algorithm(context, request["AlgorithmName"]))


@operation("sagemaker")
async def list_algorithms(context: RequestContext, request: Members) -> ReplyMembers:
    return await list_resources(context, request, KIND, "AlgorithmSummaryList", summarize)


@operation("sagemaker")
async def delete_algorithm(context: RequestContext, request: Members) -> ReplyMembers:
    """Forgets the algorithm; jobs that named it go on. Those that validate it are stopped first."""
    algorithm = await find_algorithm(context, request["AlgorithmName"])
    if algorithm.phase in SETTLED:
        await context.backends.store.delete(algorithm.key, uid=algorithm.uid)
        return {}
    now = context.backends.clock.now()

    def change(current: Resource) -> dict[str, Any]:
        if current.spec.get("DeleteRequested"):
            raise Conflict(
                f"Algorithm {sagemaker_arn(current.key)} is in status Deleting: its validation is being "
                "stopped, after which it is gone.",
                code="ConflictException",
            )
        return {**current.spec, "DeleteRequested": now}

    await context.backends.store.write_spec(algorithm.key, change, due_at=now)
    return {}


def _validation_jobs(arn: str, request: Members) -> dict[str, Any]:
    """The spec of a training job for each profile, but its name. Raises `Invalid`."""
    validation = request.get("ValidationSpecification") or {}
    jobs: dict[str, Any] = {}
    for profile in validation.get("ValidationProfiles") or []:
        name = profile["ProfileName"]
        if name in jobs:
            raise Invalid(f"The names of ValidationProfiles must be unique: '{name}' is given twice.")
        if profile.get("TransformJobDefinition"):
            raise Invalid(
                f"Validation profile '{name}': TransformJobDefinition is not offered by Clary, which has no "
                "batch transform. Leave it out: then the training job is run, and the algorithm's status "
                "tells of that alone."
            )
        definition = profile["TrainingJobDefinition"]
        job = {
            "RoleArn": validation["ValidationRole"],
            "AlgorithmSpecification": {
                "AlgorithmName": arn,
                "TrainingInputMode": definition["TrainingInputMode"],
            },
            **{member: definition[member] for member in _OF_THE_JOB if member in definition},
            "ResourceConfig": {
                member: value
                for member, value in definition["ResourceConfig"].items()
                if member != "KeepAlivePeriodInSeconds"  # a validation leaves no warm pool behind
            },
        }
        try:
            job = resolve(job, arn, request["TrainingSpecification"])
            check_training_request(job)
        except Invalid as error:
            raise Invalid(f"Validation profile '{name}': {error.message}") from None
        jobs[name] = with_defaults(job)
    return jobs
