"""The ``/opt/ml`` of a training job: the folders and configuration files that an algorithm finds.

Facts: AWS's "How Amazon SageMaker Provides Training Information".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clary.agent.channels.channel import Channel, S3Source, channels_of, job_input_mode
from clary.resources.task import TrainingWork
from clary.resources.task_folder import write_document
from clary.resources.training_job import hosts as hosts_of_request

NETWORK_INTERFACE = "eth0"
_DATA_TYPES = {
    "S3Prefix": "S3_PREFIX",
    "ManifestFile": "MANIFEST_FILE",
    "AugmentedManifestFile": "AUGMENTED_MANIFEST_FILE",
}
_FOLDERS = (
    "input/config", "input/data", "model", "code", "checkpoints", "output/data", "output/intermediate",
    "output/metrics/sagemaker", "output/profiler",
)  # fmt: skip


def lay_out_training(ml: Path, work: TrainingWork, network_interface: str = NETWORK_INTERFACE) -> None:
    """Make the folders and write ``input/config``. What is there already is kept or replaced alike."""
    for folder in _FOLDERS:
        (ml / folder).mkdir(parents=True, exist_ok=True)
    for name, document in training_configuration(work, network_interface).items():
        path = ml / "input/config" / name
        write_document(path, document)
        path.chmod(0o644)


def training_configuration(work: TrainingWork, network_interface: str) -> dict[str, Any]:
    """File name -> content of ``input/config``."""
    request = work.request
    hosts = sorted(work.hosts)
    given = channels_of(work)
    files: dict[str, Any] = {
        "hyperparameters.json": dict(_mapping(request.get("HyperParameters"))),
        "inputdataconfig.json": {channel.name: _input_channel(channel) for channel in given},
        "resourceconfig.json": {
            "current_host": work.host,
            "current_instance_type": work.instance_type,
            "current_group_name": work.instance_group,
            "hosts": hosts,
            "instance_groups": _instance_groups(work),
            "network_interface_name": network_interface,
        },
        "init-config.json": {
            "inputMode": _shouted(job_input_mode(work)),
            "channels": {channel.name: _initial_channel(channel) for channel in given},
            "checkpoints": None,
        },
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


def _input_channel(channel: Channel) -> dict[str, Any]:
    """A channel in inputdataconfig.json."""
    sharded = isinstance(channel.source, S3Source) and channel.source.sharded
    document = {
        "TrainingInputMode": channel.mode,
        "S3DistributionType": "ShardedByS3Key" if sharded else "FullyReplicated",
        "RecordWrapperType": "RecordIO" if channel.wrapped else "None",
    }
    if channel.content_type:
        document["ContentType"] = channel.content_type
    return document


def _initial_channel(channel: Channel) -> dict[str, Any]:
    """A channel in init-config.json, which has words of its own."""
    source = channel.source
    in_s3 = in_file_system = None
    if isinstance(source, S3Source):
        in_s3 = {
            "attributeNames": list(source.attribute_names) or None,
            "s3DataDistributionType": "SHARDED_BY_S3_KEY" if source.sharded else "FULLY_REPLICATED",
            "s3DataType": _DATA_TYPES.get(source.data_type, source.data_type),
            "s3Uri": source.uri,
        }
    else:
        in_file_system = {
            "fileSystemId": source.file_system,
            "directoryPath": source.directory,
            "fileSystemAccessMode": "RO" if source.read_only else "RW",
        }
    seed = channel.shuffle_seed
    return {
        "s3DataSource": in_s3,
        "fileSystemDataSource": in_file_system,
        "contentType": channel.content_type or None,
        "compressionType": "GZIP" if channel.compressed else "NONE",
        "recordWrapperType": "RECORDIO" if channel.wrapped else "NONE",
        "inputMode": _shouted(channel.mode),
        "sharded": isinstance(source, S3Source) and source.sharded,
        "shuffleConfig": None if seed is None else {"seed": seed},
    }


def _shouted(mode: str) -> str:
    return {"FastFile": "FAST_FILE"}.get(mode, mode.upper())


def _algorithm(work: TrainingWork) -> Mapping[str, Any]:
    return _mapping(work.request.get("AlgorithmSpecification"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
