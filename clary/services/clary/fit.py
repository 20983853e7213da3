"""The fit doctor's visit to a training job: its metrics, found in the metric store, and a verdict on them.

Which series belong together is told by their names: ``train:rmse`` and ``validation:rmse`` of the built-in
algorithms, ``loss`` and ``val_loss`` as scripts print them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clary.evaluation.fit import Diagnosis, diagnose
from clary.evaluation.metrics import part_of, plain_name
from clary.evaluation.series import Series as Values
from clary.evaluation.suggestions import suggest
from clary.faults import Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.resource import Key, Resource
from clary.resources.training_job import KIND, METRIC_DIMENSION, METRIC_NAMESPACE, shown_status
from clary.services.operation import RequestContext, operation
from clary.services.sagemaker.training_jobs import built_in_algorithm
from clary.telemetry.metric_store import Point, Series

MOST_POINTS = 100_000  # of a series; of a longer one every second, third … counts
MOST_SHOWN = 200
TUNING_OBJECTIVE = "_tuning_objective_metric"
NO_VERDICT = "NoVerdict"


@dataclass(frozen=True)
class Pair:
    """The names of two series that belong together; one of them may be missing."""

    plain: str
    train: str | None
    validation: str | None


@operation("clary")
async def describe_training_job_fit(context: RequestContext, request: Members) -> ReplyMembers:
    """A verdict on the job's metrics as they are now; a job that still runs may get another one later."""
    job = await find_training_job(context, request["TrainingJobName"])
    hyperparameters: Any = job.spec.get("HyperParameters") or {}
    algorithm = built_in_algorithm(dict(job.spec))
    points = await _points(context, job)
    pair = choose_pair(list(points), hyperparameters, request.get("MetricName"))
    if pair is None:
        raise Invalid(
            f"The training job '{job.key.name}' has no metrics to examine"
            + (" yet." if shown_status(job) == "InProgress" else ".")
            + " A script's metrics need MetricDefinitions, with names such as train:loss and validation:loss."
        )
    train, validation = values_of(points.get(pair.train or "", ()), points.get(pair.validation or "", ()))
    declared = (
        {metric.name: metric.direction == "Maximize" for metric in algorithm.metrics} if algorithm else {}
    )
    diagnosis = await asyncio.to_thread(
        diagnose,
        train,
        validation,
        pair.plain,
        hyperparameters=hyperparameters,
        maximize=declared.get(pair.validation or pair.train or ""),
        baseline=request.get("BaselineValue"),
        validation_rows=request.get("ValidationRowCount"),
    )
    return {
        "TrainingJobName": job.key.name,
        "TrainingJobStatus": shown_status(job),
        "MetricName": pair.plain,
        **_describe(diagnosis, algorithm.name if algorithm else "", hyperparameters),
        "TrainCurve": _curve(pair.train, train),
        "ValidationCurve": _curve(pair.validation, validation),
    }


async def find_training_job(context: RequestContext, name: str) -> Resource:
    """The caller's training job of that name. Raises `NotFound`."""
    job = await context.backends.store.find(Key(KIND, context.account, context.region, name))
    if job is None:
        raise NotFound(f"There is no training job '{name}' in {context.region}.")
    return job


def choose_pair(
    names: Sequence[str], hyperparameters: Mapping[str, str], wanted: str | None = None
) -> Pair | None:
    """The series to look at: those of ``wanted``, of the tuning objective, or of what stops the job early.

    Pairs with both series come before others, and of them the last metric that the job asks for. Raises
    `Invalid` for a ``wanted`` metric that is not there.
    """
    pairs = _pairs(names)
    if wanted is not None:
        found = next((pair for pair in pairs if wanted in (pair.train, pair.validation)), None)
        found = found or next((pair for pair in pairs if pair.plain == plain_name(wanted)), None)
        if found is None:
            raise Invalid(
                f"MetricName: there is no metric '{wanted}'; the job has {', '.join(sorted(names)) or 'none'}"
            )
        return found
    whole = [pair for pair in pairs if pair.train and pair.validation] or pairs
    asked = [plain_name(str(hyperparameters.get(TUNING_OBJECTIVE, "")))]
    asked += [plain_name(each) for each in reversed(str(hyperparameters.get("eval_metric", "")).split(","))]
    by_name = {pair.plain: pair for pair in whole}
    return next((by_name[each] for each in asked if each in by_name), next(iter(whole), None))


def values_of(train: Sequence[Point], validation: Sequence[Point]) -> tuple[Values, Values]:
    """Both series over common steps: those that were told, else counted, and stretched if one is sparser.

    Times do not serve: they come in whole seconds, and a fast job has many values in one.
    """
    kept = [_thinned(points) for points in (train, validation)]
    if all(point.step is not None for points in kept for point in points):
        first, second = (
            Values(_levels(points), [float(point.step or 0) for point in points]) for points in kept
        )
        return first, second
    longest = max(len(points) for points in kept)
    first, second = (
        Values(
            _levels(points),
            [float(math.ceil((place + 1) * longest / len(points)) - 1) for place in range(len(points))],
        )
        for points in kept
    )
    return first, second


async def _points(context: RequestContext, job: Resource) -> dict[str, Sequence[Point]]:
    """The job's points by the name of their metric."""
    key, metrics = job.key, context.backends.metrics
    dimensions = {METRIC_DIMENSION: key.name}
    found: Sequence[Series] = await metrics.series(
        key.account, key.region, namespace=METRIC_NAMESPACE, dimensions=dict(dimensions)
    )
    # Times come in whole seconds. What is older was left by a deleted job of the same name.
    start = math.floor(job.created_at)
    points = {
        series.name: await metrics.points(series, start=start, end=math.inf)
        for series in found
        if series.dimensions == dimensions
    }
    return {name: each for name, each in points.items() if each}


def _pairs(names: Sequence[str]) -> list[Pair]:
    parts: dict[str, dict[str, str]] = {}
    for name in names:
        parts.setdefault(plain_name(name), {})[part_of(name)] = name
    return [
        # A name that does not tell whose rows it is of ("loss" beside "val_loss") is of the training rows.
        Pair(plain, each.get("train", each.get("")), each.get("validation"))
        for plain, each in parts.items()
    ]


def _levels(points: Sequence[Point]) -> list[float]:
    return [point.total / point.count for point in points]


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    return points[:: max(1, math.ceil(len(points) / MOST_POINTS))]


def _describe(diagnosis: Diagnosis, algorithm: str, hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    suggestion = suggest(diagnosis, algorithm=algorithm, hyperparameters=hyperparameters)
    shown: dict[str, Any] | None = None
    if suggestion is not None:
        shown = {"Reason": suggestion.reason}
        if suggestion.hyperparameter:
            shown |= {
                "HyperparameterName": suggestion.hyperparameter,
                "PresentValue": suggestion.present,
                "ProposedValue": suggestion.proposed,
            }
    return {
        "Verdict": diagnosis.verdict.value if diagnosis.verdict else NO_VERDICT,
        "Cause": diagnosis.cause,
        "Reason": diagnosis.reason,
        "SinceStep": diagnosis.since,
        "Numbers": {name: value for name, value in diagnosis.numbers.items() if math.isfinite(value)},
        "Suggestion": shown,
    }


def _curve(name: str | None, values: Values) -> dict[str, Any] | None:
    if name is None or not values.values:
        return None
    points = values.points()
    step = max(1, math.ceil(len(points) / MOST_SHOWN))
    kept = points[::step]
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return {"MetricName": name, "Steps": [at for at, _ in kept], "Values": [value for _, value in kept]}
