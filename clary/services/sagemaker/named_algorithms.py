"""The algorithm that a name or an ARN means, and what becomes of a training job that names one."""

from __future__ import annotations

from typing import Any

from clary.faults import Conflict, Invalid, NotFound
from clary.protocol.wire import Members
from clary.resources.algorithm import KIND, image_of, shown_status
from clary.resources.arn import sagemaker_arn, sagemaker_key
from clary.resources.resource import Key, Resource
from clary.services.operation import RequestContext
from clary.services.sagemaker.algorithm_rules import check_use, with_default_hyperparameters
from clary.store.store import Query


async def find_algorithm(context: RequestContext, name_or_arn: str) -> Resource:
    """The algorithm that is meant. Raises `NotFound`, `Invalid`.

    An ARN of another account, as the marketplace gives them, means the caller's own algorithm of that name:
    whoever has the right to an image creates it here under the name that the ARN ends in.
    """
    if ":" not in name_or_arn:
        return await _find(context, Key(KIND, context.account, context.region, name_or_arn))
    key = sagemaker_key(name_or_arn)
    if key.kind != KIND:
        raise Invalid(f"Invalid ARN: {name_or_arn} is not that of an algorithm.")
    if key.region != context.region:
        raise Invalid(f"ARN should be scoped to correct region: {context.region}")
    own = Key(KIND, context.account, context.region, key.name)
    try:
        return await _find_without_case(context, own)
    except NotFound:
        if key.account == context.account:
            raise
        raise NotFound(
            f"Caller is not subscribed to the marketplace offering. Clary has no access to {name_or_arn}: "
            f"create an algorithm named '{key.name}' here, with an image that this machine has, and this ARN "
            "will mean it.",
            code="ValidationException",
        ) from None


async def algorithm_of(context: RequestContext, request: Members) -> Resource | None:
    """The algorithm that a CreateTrainingJob input names, fit for training; ``None`` if it is not the only
    thing named.

    Raises `NotFound`, `Invalid`, `Conflict`.
    """
    specification = request.get("AlgorithmSpecification") or {}
    named = specification.get("AlgorithmName")
    if not named or specification.get("TrainingImage"):
        return None
    algorithm = await find_algorithm(context, named)
    if shown_status(algorithm) != "Completed":
        raise Conflict(
            f"Algorithm {sagemaker_arn(algorithm.key)} is in status {shown_status(algorithm)}: a training "
            "job can name it once it is Completed. DescribeAlgorithm says more in AlgorithmStatusDetails.",
            code="ValidationException",
        )
    return algorithm


def resolve(request: Members, arn: str, training: Members) -> dict[str, Any]:
    """A CreateTrainingJob input with what the algorithm that it names adds to it. Raises `Invalid`.

    ``training`` is the algorithm's TrainingSpecification. Its image is noted beside the request, in
    ``ResolvedAlgorithm``; the job keeps it whatever becomes of the algorithm.
    """
    specification = dict(request["AlgorithmSpecification"])
    if specification.get("MetricDefinitions"):
        raise Invalid(
            "MetricDefinitions cannot be given together with AlgorithmName: the metrics of algorithm "
            f"{arn} are those that it was created with."
        )
    if training.get("MetricDefinitions"):
        specification["MetricDefinitions"] = training["MetricDefinitions"]
    hyperparameters = with_default_hyperparameters(training, request.get("HyperParameters") or {})
    resolved = {
        **request,
        "AlgorithmSpecification": specification,
        **({"HyperParameters": hyperparameters} if hyperparameters else {}),
        "ResolvedAlgorithm": {"AlgorithmArn": arn, "TrainingImage": image_of(training)},
    }
    check_use(arn, training, resolved)
    return resolved


async def _find(context: RequestContext, key: Key) -> Resource:
    found = await context.backends.store.find(key)
    if found is None:
        raise _missing(key)
    return found


async def _find_without_case(context: RequestContext, key: Key) -> Resource:
    found = await context.backends.store.find(key)
    if found is not None:
        return found
    page = await context.backends.store.list(
        Query(KIND, key.account, key.region, name_equals=key.name, sort_by="name", page_size=1)
    )
    if not page.resources:
        raise _missing(key)
    return page.resources[0]


def _missing(key: Key) -> NotFound:
    return NotFound(f"Algorithm {sagemaker_arn(key)} does not exist.", code="ValidationException")
