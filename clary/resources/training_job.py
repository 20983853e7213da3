"""Training jobs: how their statuses move, what the phases of tasks mean for them, how they are shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clary.resources.arn import sagemaker_arn
from clary.resources.lifecycle import Lifecycle
from clary.resources.resource import Document, JsonValue, Resource
from clary.resources.task import TaskPhase, TaskStatus

KIND = "TrainingJob"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
METRIC_NAMESPACE = "/aws/sagemaker/TrainingJobs"
METRIC_DIMENSION = "TrainingJobName"
TRAINING_PLAN_LABEL = "TrainingPlanArn"
LONGEST_FAILURE_REASON = 1024
DEFAULT_MAX_RUNTIME_SECONDS = 86_400  # SageMaker's, where the caller gives none
# Members of the spec that are not the caller's input: wishes of later calls, tags, and what the named
# algorithm stood for when the job was created.
NOT_OF_THE_REQUEST = frozenset(
    {
        "StopRequested",
        "DeleteRequested",
        "InterruptRequested",
        "WarmPool",
        "WarmPoolClaim",
        "Tags",
        "ResolvedAlgorithm",
    }
)

LIFECYCLE = Lifecycle(
    KIND,
    {
        "InProgress": ("Completed", "Failed", "Stopping", "Stopped"),
        "Stopping": ("Stopped", "Completed", "Failed"),
        "Completed": (),
        "Failed": (),
        "Stopped": (),
    },
)

_ENDINGS: Mapping[str, str] = {
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job runtime exceeded MaxWaitTimeInSeconds provided",
}
# An attempt begins with one of these; "Starting" again is SageMaker's word for a retry.
_BEGINNINGS = ("Starting", "Restarting")
_AFRESH = ("Interrupted", "Starting")
SECONDARY = Lifecycle(
    f"{KIND}'s secondary status",
    {
        "Starting": ("Downloading", "Training", "Uploading", "Stopping", *_AFRESH, *_ENDINGS),
        "Downloading": ("Training", "Uploading", "Stopping", *_AFRESH, *_ENDINGS),
        "Training": ("Uploading", "Stopping", *_AFRESH, *_ENDINGS),
        "Uploading": ("Stopping", *_AFRESH, *_ENDINGS),
        "Stopping": ("Uploading", *_ENDINGS),
        "Interrupted": ("Restarting",),
        "Restarting": ("Downloading", "Training", "Uploading", "Stopping", *_AFRESH, *_ENDINGS),
        **dict.fromkeys(_ENDINGS, ()),
    },
)

# What the phase of a task means for its job.
_SECONDARY_OF: Mapping[TaskPhase, str] = {
    TaskPhase.PREPARING: "Downloading",
    TaskPhase.RUNNING: "Training",
    TaskPhase.UPLOADING: "Uploading",
}
# What SageMaker's clients print beside a secondary status.
_WORDS: Mapping[str, str] = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Interrupted": "Clary or its machine went down while the job ran",
    "Restarting": "Starting the training job again",
    **_ENDINGS,
}
_BILLED = ("Downloading", "Training", "Uploading", "Stopping")


def initial_status(now: float, *, in_warm_pool: bool = False) -> dict[str, JsonValue]:
    """The status of a job that was just asked for.

    Beside AWS's members: ``Attempt``, the number of the present attempt; ``Started``, the last attempt all
    of whose tasks were started; ``Interruptions``, ``SpotInterruptions`` and ``Retries``, why there was more
    than one attempt; and, at the end, ``Freed``: no task is left.
    """
    return {
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Starting",
        "SecondaryStatusTransitions": [
            {"Status": "Starting", "StartTime": now, "StatusMessage": _WORDS["Starting"]}
        ],
        "Attempt": 1,
        "Started": 0,
        "Interruptions": 0,
        "SpotInterruptions": 0,
        "Retries": 0,
        "WarmPoolStatus": {"Status": "InUse"} if in_warm_pool else None,
    }


def hosts(spec: Document) -> list[tuple[str, str, str]]:
    """(host name, instance type, group name) of each host that the job asks for."""
    resources: Any = spec["ResourceConfig"]
    groups = resources.get("InstanceGroups") or [
        {
            "InstanceGroupName": "homogeneousCluster",
            "InstanceType": resources["InstanceType"],
            "InstanceCount": resources["InstanceCount"],
        }
    ]
    found: list[tuple[str, str, str]] = []
    for group in groups:
        for _ in range(int(group["InstanceCount"])):
            name = f"algo-{len(found) + 1}"
            found.append((name, str(group["InstanceType"]), str(group["InstanceGroupName"])))
    return found


def task_id(uid: str, attempt: int, host: str) -> str:
    """The id of the task of one host in one attempt."""
    return f"training-{uid}-{attempt}-{host}"


def advance(
    published: Sequence[Mapping[str, Any]], task: TaskStatus | None, stop_requested_at: float | None = None
) -> list[dict[str, Any]]:
    """``published`` and the secondary statuses that came since, from what the first host went through.

    What callers have seen stays: a status that may not follow, or was there in this attempt, is left out.
    """
    found: list[dict[str, Any]] = [dict(each) for each in published]
    moves = [
        (transition.at, _SECONDARY_OF[transition.phase])
        for transition in (task.transitions if task else ())
        if transition.phase in _SECONDARY_OF
    ]
    if stop_requested_at is not None:
        moves.append((stop_requested_at, "Stopping"))
    began = max((at for at, each in enumerate(found) if each["Status"] in _BEGINNINGS), default=0)
    seen = {each["Status"] for each in found[began:]}
    for at, status in sorted(moves, key=lambda move: move[0]):
        if status not in seen and status in SECONDARY.moves[found[-1]["Status"]]:
            add_transition(found, status, at)
            seen.add(status)
    waits = task.transitions[-1] if task and task.transitions else None
    if waits and waits.phase is TaskPhase.PENDING and waits.message and found[-1]["Status"] in _BEGINNINGS:
        found[-1]["StatusMessage"] = waits.message
    for transition in task.transitions if task else ():
        if transition.phase is TaskPhase.PREPARING and transition.message:
            for each in found[began:]:  # how far the download is, or what came of it
                if each["Status"] == "Downloading":
                    each["StatusMessage"] = transition.message
    return found


def add_transition(found: list[dict[str, Any]], status: str, at: float, message: str = "") -> None:
    """End the last secondary status at ``at`` (never before it began) and begin ``status``.

    Raises `IllegalMove`.
    """
    last = found[-1]
    SECONDARY.move(last["Status"], status)
    at = max(at, last["StartTime"])
    last.setdefault("EndTime", at)
    entry = {"Status": status, "StartTime": at, "StatusMessage": message or _WORDS[status]}
    if status in _ENDINGS:
        entry["EndTime"] = at
    found.append(entry)


def worked_seconds(found: Sequence[Mapping[str, Any]], now: float) -> float:
    """How long the job has been at work by ``now``, in all its attempts: the time that is billed.

    That between an interruption and the next attempt, or before the first, does not count.
    """
    return float(
        sum(each.get("EndTime", now) - each["StartTime"] for each in found if each["Status"] in _BILLED)
    )


def times(found: Sequence[Mapping[str, Any]]) -> dict[str, JsonValue]:
    """When training began and ended, and the seconds of both clocks; nothing of what has not happened."""
    began = next((each["StartTime"] for each in found if each["Status"] in ("Downloading", "Training")), None)
    ended = found[-1]["StartTime"] if found[-1]["Status"] in _ENDINGS else None
    result: dict[str, JsonValue] = {}
    if began is not None:
        result["TrainingStartTime"] = began
    if ended is not None:
        result["TrainingEndTime"] = ended
    if began is not None and ended is not None:
        result["TrainingTimeInSeconds"] = max(1, math.ceil(ended - began))
        result["BillableTimeInSeconds"] = max(1, math.ceil(worked_seconds(found, ended)))
    return result


def shown_status(resource: Resource) -> str:
    """The status as callers see it: a wish to stop or delete shows at once."""
    if resource.spec.get("DeleteRequested"):
        return "Deleting"
    stopping = resource.phase == "InProgress" and resource.spec.get("StopRequested")
    return "Stopping" if stopping else resource.phase


def shown_transitions(resource: Resource) -> list[dict[str, Any]]:
    """The secondary statuses as callers see them."""
    published: Any = resource.status["SecondaryStatusTransitions"]
    requested: Any = resource.spec.get("StopRequested")
    over = LIFECYCLE.final(resource.phase)
    return advance(published, None, None if over or not requested else float(requested))


def describe(resource: Resource) -> dict[str, Any]:
    """The job as DescribeTrainingJob shows it: members that clients rely on are always there."""
    output: Any = resource.spec["OutputDataConfig"]
    algorithm: Any = resource.spec["AlgorithmSpecification"]
    moves = shown_transitions(resource)
    return {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": False,
        "EnableManagedSpotTraining": False,
        **resource.spec,
        **resource.status,
        "TrainingJobName": resource.key.name,
        "TrainingJobArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
        "LastModifiedTime": resource.modified_at,
        "TrainingJobStatus": shown_status(resource),
        "SecondaryStatus": moves[-1]["Status"],
        "SecondaryStatusTransitions": moves,
        "OutputDataConfig": {"KmsKeyId": "", "CompressionType": "GZIP", **output},
        "AlgorithmSpecification": {"EnableSageMakerMetricsTimeSeries": True, **algorithm},
    }


def summarize(resource: Resource) -> dict[str, Any]:
    """The job as ListTrainingJobs shows it."""
    return {
        "TrainingJobName": resource.key.name,
        "TrainingJobArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
        "TrainingEndTime": resource.status.get("TrainingEndTime"),
        "LastModifiedTime": resource.modified_at,
        "TrainingJobStatus": shown_status(resource),
        "SecondaryStatus": shown_transitions(resource)[-1]["Status"],
        "TrainingPlanArn": resource.labels.get(TRAINING_PLAN_LABEL),
    }


def failure_reason(text: str) -> str:
    """``text`` cut to what a FailureReason may hold."""
    return text if len(text) <= LONGEST_FAILURE_REASON else text[: LONGEST_FAILURE_REASON - 1] + "…"


def request_of(spec: Document) -> dict[str, JsonValue]:
    """The caller's CreateTrainingJob input, without what services noted beside it.

    In place of an algorithm's name it has the image that the name stood for.
    """
    request = {name: value for name, value in spec.items() if name not in NOT_OF_THE_REQUEST}
    return {**request, "AlgorithmSpecification": algorithm_specification(spec)}


def algorithm_specification(spec: Document) -> dict[str, Any]:
    """The AlgorithmSpecification, always with an image: that of the algorithm where one is named."""
    specification: Any = spec["AlgorithmSpecification"]
    resolved: Any = spec.get("ResolvedAlgorithm")
    if not resolved:
        return dict(specification)
    rest = {name: value for name, value in specification.items() if name != "AlgorithmName"}
    return {**rest, "TrainingImage": resolved["TrainingImage"]}


def tasks_of(uid: str, attempts: Sequence[int], spec: Document) -> Iterator[str]:
    """The ids of all tasks of ``attempts``."""
    for attempt in attempts:
        for host, _, _ in hosts(spec):
            yield task_id(uid, attempt, host)
