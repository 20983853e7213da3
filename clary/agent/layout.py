"""The ``/opt/ml`` of a training job: the folders and configuration files that an algorithm finds.

Facts: AWS's "How Amazon SageMaker Provides Training Information".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.resources.task import TrainingWork
from clary.resources.task_folder import write_document
from clary.resources.training_job import hosts as hosts_of_request

NETWORK_INTERFACE = "eth0"
_FOLDERS = (
    "input/config", "input/data", "model", "code", "checkpoints", "output/data", "output/intermediate",
    "output/metrics/sagemaker", "output/profiler",
)  # fmt: skip


def lay_out_training(ml: Path, work: TrainingWork) -> None:
    """Make the folders and write ``input/config``. What is there already is kept or replaced alike."""
    for folder in _FOLDERS:
        (ml / folder).mkdir(parents=True, exist_ok=True)
    for name, document in training_configuration(work).items():
        path = ml / "input/config" / name
        write_document(path, document)
        path.chmod(0o644)


def training_configuration(work: TrainingWork) -> dict[str, Any]:
    """File name -> content of ``input/config``."""
    request = work.request
    hosts = sorted(work.hosts)
    files: dict[str, Any] = {
        "hyperparameters.json": dict(_mapping(request.get("HyperParameters"))),
        "inputdataconfig.json": {
            str(channel["ChannelName"]): _channel(channel, work) for channel in channels(work)
        },
        "resourceconfig.json": {
            "current_host": work.host,
            "current_instance_type": work.instance_type,
            "current_group_name": work.instance_group,
            "hosts": hosts,
            "instance_groups": _instance_groups(work),
            "network_interface_name": NETWORK_INTERFACE,
        },
        "init-config.json": {"inputMode": input_mode(work), "channels": {}, "checkpoints": None},
        "trainingjobconfig.json": {
            "TrainingJobName": work.job_name,
            **{name: value for name, value in request.items() if name not in ("Tags", "Environment")},
        },
        "metric-definition-regex.json": _algorithm(work).get("MetricDefinitions") or [],
    }
    if request.get("CheckpointConfig"):
        files["checkpointconfig.json"] = request["CheckpointConfig"]
    if request.get("DebugHookConfig"):
        files["debughookconfig.json"] = request["DebugHookConfig"]
    if request.get("ProfilerConfig"):
        files["profilerconfig.json"] = request["ProfilerConfig"]
    return files


def _instance_groups(work: TrainingWork) -> list[dict[str, Any]]:
    """The cluster's groups and the hosts of each."""
    groups: dict[str, dict[str, Any]] = {}
    for host, instance_type, name in hosts_of_request(work.request):
        group = groups.setdefault(
            name, {"instance_group_name": name, "instance_type": instance_type, "hosts": []}
        )
        group["hosts"].append(host)
    return [{**group, "hosts": sorted(group["hosts"])} for group in groups.values()]


def channels(work: TrainingWork) -> list[Mapping[str, Any]]:
    """The job's channels as requested."""
    given = work.request.get("InputDataConfig")
    return [_mapping(channel) for channel in given] if isinstance(given, list) else []


def input_mode(work: TrainingWork) -> str:
    """The job's input mode, for channels that name none."""
    return str(_algorithm(work).get("TrainingInputMode") or "File")


def _channel(channel: Mapping[str, Any], work: TrainingWork) -> dict[str, Any]:
    source = _mapping(_mapping(channel.get("DataSource")).get("S3DataSource"))
    document = {
        "TrainingInputMode": channel.get("InputMode") or input_mode(work),
        "S3DistributionType": source.get("S3DataDistributionType") or "FullyReplicated",
        "RecordWrapperType": channel.get("RecordWrapperType") or "None",
    }
    if channel.get("ContentType"):
        document["ContentType"] = channel["ContentType"]
    return document


def _algorithm(work: TrainingWork) -> Mapping[str, Any]:
    return _mapping(work.request.get("AlgorithmSpecification"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
