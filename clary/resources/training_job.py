"""Training jobs: their statuses, what becomes of them, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clary.resources.arn import sagemaker_arn
from clary.resources.lifecycle import Lifecycle
from clary.resources.resource import Document, JsonValue, Resource
from clary.resources.task import TaskPhase, TaskStatus

KIND = "TrainingJob"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
METRIC_NAMESPACE = "/aws/sagemaker/TrainingJobs"
METRIC_DIMENSION = "TrainingJobName"
LONGEST_FAILURE_REASON = 1024

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

# What the phase of a task means for its job, with the words that SageMaker's clients print.
_SECONDARY: Mapping[TaskPhase, tuple[str, str]] = {
    TaskPhase.PENDING: ("Starting", "Starting the training job"),
    TaskPhase.PREPARING: ("Downloading", "Downloading input data"),
    TaskPhase.RUNNING: ("Training", "Training image download completed. Training in progress."),
    TaskPhase.UPLOADING: ("Uploading", "Uploading generated training model"),
}
_ENDINGS = {
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}


def initial_status(now: float) -> dict[str, JsonValue]:
    """The status of a job that was just asked for."""
    return {
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Starting",
        "SecondaryStatusTransitions": [
            {"Status": "Starting", "StartTime": now, "StatusMessage": "Starting the training job"}
        ],
        "Attempt": 1,
    }


def hosts(spec: Document) -> list[tuple[str, str, str]]:
    """(host name, instance type, group name) of each host that the job asks for."""
    resources: Any = spec.get("ResourceConfig") or {}
    groups = resources.get("InstanceGroups") or [
        {
            "InstanceGroupName": "homogeneousCluster",
            "InstanceType": resources.get("InstanceType", "ml.m5.large"),
            "InstanceCount": resources.get("InstanceCount", 1),
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


def transitions(before: Sequence[Mapping[str, Any]], task: TaskStatus | None) -> list[dict[str, JsonValue]]:
    """The job's secondary statuses: those up to this attempt, and what its first host has gone through.

    ``before`` ends with the status in which this attempt began (Starting or Restarting).
    """
    found: list[dict[str, JsonValue]] = [dict(each) for each in before]
    for transition in task.transitions if task else ():
        if transition.phase not in _SECONDARY:
            continue
        status, words = _SECONDARY[transition.phase]
        if transition.phase is TaskPhase.PENDING:
            if transition.message:
                found[-1]["StatusMessage"] = transition.message
            continue
        if found[-1]["Status"] != status:
            add_transition(found, status, transition.at, words)
        if transition.phase is TaskPhase.PREPARING and transition.message:
            found[-1]["StatusMessage"] = transition.message
    return found


def add_transition(found: list[dict[str, JsonValue]], status: str, at: float, message: str = "") -> None:
    """End the last secondary status at ``at`` (never before it began) and begin ``status``."""
    began = found[-1]["StartTime"]
    assert isinstance(began, (int, float))
    at = max(at, began)
    found[-1].setdefault("EndTime", at)
    entry: dict[str, JsonValue] = {
        "Status": status,
        "StartTime": at,
        "StatusMessage": message or _ENDINGS.get(status, status),
    }
    if status in _ENDINGS:
        entry["EndTime"] = at
    found.append(entry)


def times(found: Sequence[Mapping[str, Any]], ended_at: float | None) -> dict[str, JsonValue]:
    """When training began and ended, and the seconds of both clocks; nothing of what has not happened."""
    began = next((each["StartTime"] for each in found if each["Status"] in ("Downloading", "Training")), None)
    if began is None:
        return {"TrainingEndTime": ended_at} if ended_at is not None else {}
    result: dict[str, JsonValue] = {"TrainingStartTime": began}
    if ended_at is not None:
        seconds = max(1, math.ceil(ended_at - began))
        result |= {
            "TrainingEndTime": ended_at,
            "TrainingTimeInSeconds": seconds,
            "BillableTimeInSeconds": seconds,
        }
    return result


def model_artifacts(spec: Document, name: str) -> str:
    """Where the model goes."""
    output: Any = spec.get("OutputDataConfig") or {}
    return f"{str(output.get('S3OutputPath', '')).rstrip('/')}/{name}/output/model.tar.gz"


def shown_status(resource: Resource) -> str:
    """The status as callers see it: a stop that was asked for shows at once."""
    status = str(resource.status.get("TrainingJobStatus", "InProgress"))
    return "Stopping" if status == "InProgress" and resource.spec.get("StopRequested") else status


def describe(resource: Resource) -> dict[str, Any]:
    """The job as DescribeTrainingJob shows it: members that clients rely on are always there."""
    spec, status = dict(resource.spec), dict(resource.status)
    shown: dict[str, Any] = {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": False,
        "EnableManagedSpotTraining": False,
        **spec,
        **status,
        "TrainingJobName": resource.key.name,
        "TrainingJobArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
        "LastModifiedTime": resource.modified_at,
        "TrainingJobStatus": shown_status(resource),
    }
    output = dict(shown.get("OutputDataConfig") or {})
    output.setdefault("KmsKeyId", "")
    output.setdefault("CompressionType", "GZIP")
    algorithm = dict(shown.get("AlgorithmSpecification") or {})
    algorithm.setdefault("EnableSageMakerMetricsTimeSeries", True)
    shown |= {"OutputDataConfig": output, "AlgorithmSpecification": algorithm}
    if shown["TrainingJobStatus"] == "Stopping" and status.get("SecondaryStatus") != "Stopping":
        shown["SecondaryStatus"] = "Stopping"
    return shown


def summarize(resource: Resource) -> dict[str, Any]:
    """The job as ListTrainingJobs shows it."""
    status = resource.status
    return {
        "TrainingJobName": resource.key.name,
        "TrainingJobArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
        "TrainingEndTime": status.get("TrainingEndTime"),
        "LastModifiedTime": resource.modified_at,
        "TrainingJobStatus": shown_status(resource),
        "SecondaryStatus": status.get("SecondaryStatus"),
        "WarmPoolStatus": status.get("WarmPoolStatus"),
    }
