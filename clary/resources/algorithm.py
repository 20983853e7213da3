"""Algorithm resources: how their statuses move, what of them a training job runs, how they are shown.

An algorithm is a document about an image: the hyperparameters, channels and machines it takes. Where it is
created with a validation specification, each of its profiles is a training job that is really run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clary.resources.arn import sagemaker_arn
from clary.resources.lifecycle import Lifecycle
from clary.resources.resource import Document, JsonValue, Resource

KIND = "Algorithm"
VALIDATION_LABEL = "ValidatedAlgorithm"  # of a training job: the uid of the algorithm it validates
LONGEST_JOB_NAME = 63

LIFECYCLE = Lifecycle(
    KIND,
    {
        "Pending": ("InProgress", "Deleting"),
        "InProgress": ("Completed", "Failed", "Deleting"),
        "Completed": ("Deleting",),
        "Failed": ("Deleting",),
        "Deleting": (),
    },
)
SETTLED = ("Completed", "Failed")  # nothing moves any more but on a caller's wish


def initial_status(profiles: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The status of an algorithm that was just created; without validation it is complete at once.

    ``profiles`` are the jobs of `validation_jobs`. Beside AWS's members: ``Started`` says that the job of
    every profile was started once.
    """
    return status_of("Pending" if profiles else "Completed", dict.fromkeys(profiles, ("NotStarted", "")))


def status_of(
    phase: str, items: Mapping[str, tuple[str, str]], *, started: bool = False
) -> dict[str, JsonValue]:
    """A status; ``items`` are the (status, failure reason) of each profile's validation.

    There are no image scans to tell of: Clary makes none.
    """
    return {
        "AlgorithmStatus": phase,
        "AlgorithmStatusDetails": {
            "ValidationStatuses": [
                {"Name": name, "Status": status, **({"FailureReason": reason} if reason else {})}
                for name, (status, reason) in items.items()
            ],
            "ImageScanStatuses": [],
        },
        "Started": started,
    }


def validation_jobs(spec: Document) -> dict[str, dict[str, Any]]:
    """The specs of the training jobs that validate the algorithm, by profile, in order."""
    jobs: Any = spec.get("ValidationJobs") or {}
    return dict(jobs)


def validation_job_name(resource: Resource, profile: str) -> str:
    """The name of the training job of ``profile``: the same for the same algorithm, and no other's."""
    mark = resource.uid[:12]
    room = LONGEST_JOB_NAME - len(mark) - 2
    algorithm = resource.key.name[: room - min(len(profile), room // 2)].rstrip("-")
    return f"{algorithm}-{profile[: room - len(algorithm)].rstrip('-')}-{mark}"


def image_of(training: Mapping[str, Any]) -> str:
    """The image of a TrainingSpecification, with the digest that it is pinned to."""
    image, digest = str(training["TrainingImage"]), training.get("TrainingImageDigest")
    return image if not digest or "@" in image else f"{image}@{digest}"


def shown_status(resource: Resource) -> str:
    """The status as callers see it: a wish to delete shows at once."""
    return "Deleting" if resource.spec.get("DeleteRequested") else resource.phase


def describe(resource: Resource) -> dict[str, Any]:
    """The algorithm as DescribeAlgorithm shows it."""
    return {
        "CertifyForMarketplace": False,
        **resource.spec,
        **resource.status,
        **_identity(resource),
    }


def summarize(resource: Resource) -> dict[str, Any]:
    """The algorithm as ListAlgorithms shows it."""
    return {"AlgorithmDescription": resource.spec.get("AlgorithmDescription"), **_identity(resource)}


def _identity(resource: Resource) -> dict[str, Any]:
    return {
        "AlgorithmName": resource.key.name,
        "AlgorithmArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
        "AlgorithmStatus": shown_status(resource),
    }
