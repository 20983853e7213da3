"""What the shapes of a CreateTrainingJob input cannot say: members that exclude, need or limit one another.

Each check raises `Invalid` with the member, its value and what would do. Whether an image, a role or data
are there is no matter here; that is seen when the job runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from clary.faults import Invalid
from clary.protocol.wire import Members
from clary.resources.training_job import DEFAULT_MAX_RUNTIME_SECONDS

MAX_INSTANCES = 100  # of one job
LONGEST_RUNTIME_SECONDS = 28 * 86_400  # SageMaker's
PROFILING_INTERVALS_MILLISECONDS = (100, 200, 500, 1000, 5000, 60_000)
# What makes a job that needs neither image nor instances; Clary has no such jobs.
_NOT_OFFERED = ("ServerlessJobConfig", "ModelPackageConfig")
# Where what is synced with S3 lies by default, and the folders of the container contract that are not its.
_CONTRACT = ("/opt/ml/input", "/opt/ml/model", "/opt/ml/code")
_OUTPUT = ("/opt/ml/output/data", "/opt/ml/output/failure")
_LOCAL_PATHS: Mapping[str, tuple[str, Sequence[str]]] = {
    "CheckpointConfig": ("/opt/ml/checkpoints", (*_CONTRACT, "/opt/ml/output")),
    "DebugHookConfig": ("/opt/ml/output/tensors", (*_CONTRACT, *_OUTPUT)),
    "TensorBoardOutputConfig": ("/opt/ml/output/tensorboard", (*_CONTRACT, *_OUTPUT)),
}
# Families of instance types whose volumes are local and encrypted by the hardware.
_LOCAL_STORAGE = frozenset(
    {"g4dn", "g5", "g6", "g6e", "g7", "g7e", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200",
     "p6-b300", "p6e-gb200", "r5d", "trn1", "trn1n", "trn2"}
)  # fmt: skip


def check_combinations(request: Members) -> None:
    """Everything but channels and hyperparameters. Raises `Invalid`."""
    for name in _NOT_OFFERED:
        if request.get(name) is not None:
            raise Invalid(f"{name} is not offered by Clary: name an image and instances instead.")
    _check_algorithm(request)
    _check_resources(request.get("ResourceConfig") or {}, request)
    _check_limits(request)
    _check_image_access(request)
    _check_local_paths(request)
    _check_debugger(request)
    check_profiling(request)


def check_profiling(request: Members) -> None:
    """The profiling of a CreateTrainingJob or UpdateTrainingJob input. Raises `Invalid`."""
    rules = [rule["RuleConfigurationName"] for rule in request.get("ProfilerRuleConfigurations") or []]
    check_unique(rules, "The RuleConfigurationNames of ProfilerRuleConfigurations")
    interval = (request.get("ProfilerConfig") or {}).get("ProfilingIntervalInMilliseconds")
    if interval is not None and interval not in PROFILING_INTERVALS_MILLISECONDS:
        allowed = ", ".join(map(str, PROFILING_INTERVALS_MILLISECONDS))
        raise Invalid(f"ProfilingIntervalInMilliseconds must be one of {allowed}, not {interval}.")


def _check_algorithm(request: Members) -> None:
    algorithm = request.get("AlgorithmSpecification") or {}
    named = [name for name in ("TrainingImage", "AlgorithmName") if algorithm.get(name)]
    if len(named) != 1:
        raise Invalid(
            "You must specify exactly one of TrainingImage and AlgorithmName in AlgorithmSpecification, "
            f"not {' and '.join(named) or 'none'}."
        )
    entrypoint = algorithm.get("ContainerEntrypoint")
    if entrypoint and not entrypoint[0].strip():
        raise Invalid("The first string of ContainerEntrypoint names the program and must not be empty.")
    names = [metric["Name"] for metric in algorithm.get("MetricDefinitions") or []]
    check_unique(names, "Metric names in MetricDefinitions")


def _check_resources(resources: Members, request: Members) -> None:
    for name in ("InstancePreferences", "InstancePlacementConfig"):
        if resources.get(name):
            raise Invalid(
                f"ResourceConfig.{name} is not offered by Clary: give InstanceType and InstanceCount, or "
                "InstanceGroups."
            )
    for name in ("SelectedInstanceType", "SelectedInstanceCount"):
        if resources.get(name):
            raise Invalid(f"ResourceConfig.{name} is read-only and cannot be specified in CreateTrainingJob.")
    groups = resources.get("InstanceGroups") or []
    single = [name for name in ("InstanceType", "InstanceCount") if resources.get(name)]
    if groups and single:
        raise Invalid("InstanceType or InstanceCount cannot be specified with InstanceGroups")
    if not groups and len(single) != 2:
        raise Invalid(
            "ResourceConfig must have either InstanceGroups, or an InstanceType and an InstanceCount of at "
            f"least 1; it has {', '.join(resources) or 'nothing'}."
        )
    check_unique([group["InstanceGroupName"] for group in groups], "Instance group names")
    empty = next((group["InstanceGroupName"] for group in groups if not group["InstanceCount"]), None)
    if empty is not None:
        raise Invalid(f"The InstanceCount of instance group '{empty}' must be at least 1.")
    count = sum(int(group["InstanceCount"]) for group in groups or [resources])
    if not 1 <= count <= MAX_INSTANCES:
        raise Invalid(f"A training job must have 1 to {MAX_INSTANCES} instances, not {count}.")
    _check_volume(resources, [group["InstanceType"] for group in groups or [resources]])
    _check_warm_pool(resources, request)


def _check_volume(resources: Members, types: Sequence[str]) -> None:
    if not resources.get("VolumeSizeInGB"):
        given = "not given" if resources.get("VolumeSizeInGB") is None else "0"
        raise Invalid(f"ResourceConfig.VolumeSizeInGB must be at least 1 and is {given}.")
    local = next((name for name in types if name.split(".")[1] in _LOCAL_STORAGE), None)
    if resources.get("VolumeKmsKeyId") and local:
        raise Invalid(
            f"VolumeKmsKeyId cannot be requested for instance type {local}, whose local volumes its hardware "
            "encrypts: leave it out."
        )


def _check_warm_pool(resources: Members, request: Members) -> None:
    if not resources.get("KeepAlivePeriodInSeconds"):
        return
    for excluded, given in (
        ("EnableManagedSpotTraining", request.get("EnableManagedSpotTraining")),
        ("InstanceGroups", resources.get("InstanceGroups")),
    ):
        if given:
            raise Invalid(
                f"KeepAlivePeriodInSeconds is not supported together with {excluded}: warm pools keep "
                "on-demand instances of one type."
            )


def _check_limits(request: Members) -> None:
    limits = request.get("StoppingCondition") or {}
    runtime = limits.get("MaxRuntimeInSeconds", DEFAULT_MAX_RUNTIME_SECONDS)
    wait = limits.get("MaxWaitTimeInSeconds")
    if runtime > LONGEST_RUNTIME_SECONDS:
        raise Invalid(
            f"Invalid MaxRuntimeInSeconds. It must be at most {LONGEST_RUNTIME_SECONDS} (28 days), not "
            f"{runtime}."
        )
    if not request.get("EnableManagedSpotTraining"):
        if wait is not None:
            raise Invalid(
                "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to "
                "true"
            )
    elif wait is None or wait < runtime:
        raise Invalid(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
            "MaxRuntimeInSeconds"
        )


def _check_image_access(request: Members) -> None:
    access = request["AlgorithmSpecification"].get("TrainingImageConfig") or {}
    private = access.get("TrainingRepositoryAccessMode") == "Vpc"
    if private and not request.get("VpcConfig"):
        raise Invalid(
            "VpcConfig must be given when TrainingRepositoryAccessMode is Vpc: the registry is reached from "
            "there."
        )
    if access.get("TrainingRepositoryAuthConfig") and not private:
        raise Invalid(
            "TrainingRepositoryAuthConfig can only be given when TrainingRepositoryAccessMode is Vpc, not "
            f"{access['TrainingRepositoryAccessMode']}."
        )


def _check_local_paths(request: Members) -> None:
    """Folders that are synced with S3 are below /opt/ml, and apart from one another."""
    paths: dict[str, PurePosixPath] = {}
    for config, (usual, reserved) in _LOCAL_PATHS.items():
        if not request.get(config):
            continue
        text = request[config].get("LocalPath") or usual
        path = PurePosixPath(os.path.normpath(text))
        below = path.is_relative_to("/opt/ml") and ".." not in PurePosixPath(text).parts
        if not below or any(_overlap(path, PurePosixPath(each)) for each in reserved):
            raise Invalid(
                f"{config}.LocalPath '{text}' must be a folder of its own below /opt/ml, such as {usual}, "
                f"apart from {', '.join(reserved)}."
            )
        for other, taken in paths.items():
            if _overlap(path, taken):
                raise Invalid(f"{config}.LocalPath '{path}' and {other}.LocalPath '{taken}' must be apart.")
        paths[config] = path


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _check_debugger(request: Members) -> None:
    rules = [rule["RuleConfigurationName"] for rule in request.get("DebugRuleConfigurations") or []]
    check_unique(rules, "The RuleConfigurationNames of DebugRuleConfigurations")
    collections = (request.get("DebugHookConfig") or {}).get("CollectionConfigurations") or []
    names = [each["CollectionName"] for each in collections if each.get("CollectionName")]
    check_unique(names, "The CollectionNames of DebugHookConfig")


def check_unique(values: Sequence[str], what: str) -> None:
    """Raises `Invalid` if a value is there more than once; ``what`` begins the message."""
    twice = next((value for value in values if list(values).count(value) > 1), None)
    if twice is not None:
        raise Invalid(f"{what} must be unique: '{twice}' is given {list(values).count(twice)} times.")
