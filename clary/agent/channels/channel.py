"""What a job asks of its channels, read from its request once."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

from clary.agent.failure import TaskFailed
from clary.resources.task import TrainingWork
from clary.resources.training_job import hosts

FILE, FAST_FILE, PIPE = "File", "FastFile", "Pipe"
S3_PREFIX, MANIFEST, AUGMENTED_MANIFEST = "S3Prefix", "ManifestFile", "AugmentedManifestFile"


@dataclass(frozen=True)
class S3Source:
    """Data in S3. ``hosts``, in order, are those that get it; ``sharded`` says that each gets a part."""

    uri: str
    data_type: str
    sharded: bool
    hosts: tuple[str, ...]
    attribute_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileSystemSource:
    """A directory of a file system of this machine; see `clary.agent.runtimes.mounts`."""

    file_system: str
    directory: str
    read_only: bool


@dataclass(frozen=True)
class Channel:
    """One channel as this host gets it. ``shuffle_seed`` ``None`` keeps the order of the source."""

    name: str
    mode: str
    source: S3Source | FileSystemSource
    content_type: str = ""
    compressed: bool = False
    wrapped: bool = False
    shuffle_seed: int | None = None

    def part(self, count: int, host: str, epoch: int = 0) -> Sequence[int]:
        """Which of ``count`` things in order ``host`` gets in ``epoch``, and in which order.

        All hosts shuffle alike and then deal out, so a shard may go elsewhere in the next epoch.
        """
        indexes: MutableSequence[int] = array("Q", range(count))
        if self.shuffle_seed is not None:
            random.Random(f"{self.shuffle_seed}/{epoch}").shuffle(indexes)
        if isinstance(self.source, S3Source) and self.source.sharded:
            return indexes[self.source.hosts.index(host) :: len(self.source.hosts)]
        return indexes


def name_channel(error: TaskFailed, channel: str) -> TaskFailed:
    """``error``, naming the channel if it does not yet."""
    if repr(channel) in error.reason:
        return error
    return TaskFailed(f"{error.reason} (channel {channel!r}: check its DataSource)", error.exit_code)


def channels_of(work: TrainingWork) -> list[Channel]:
    """The channels that this host gets: those of other instance groups are left out.

    Raises `TaskFailed` for a channel that names no source that is known here.
    """
    return [
        channel
        for channel in (_channel(given, work) for given in requested_channels(work))
        if isinstance(channel.source, FileSystemSource) or work.host in channel.source.hosts
    ]


def requested_channels(work: TrainingWork) -> list[Mapping[str, Any]]:
    """The InputDataConfig of the request."""
    given = work.request.get("InputDataConfig")
    return [_mapping(channel) for channel in given] if isinstance(given, list) else []


def job_input_mode(work: TrainingWork) -> str:
    """The job's input mode, for channels that name none."""
    return str(_mapping(work.request.get("AlgorithmSpecification")).get("TrainingInputMode") or FILE)


def _channel(given: Mapping[str, Any], work: TrainingWork) -> Channel:
    name = str(given["ChannelName"])
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise TaskFailed(f"ClientError: {name!r} cannot be the name of a channel.")
    shuffle = given.get("ShuffleConfig")
    return Channel(
        name=name,
        mode=str(given.get("InputMode") or job_input_mode(work)),
        source=_source(name, _mapping(given.get("DataSource")), work),
        content_type=str(given.get("ContentType") or ""),
        compressed=given.get("CompressionType") == "Gzip",
        wrapped=given.get("RecordWrapperType") == "RecordIO",
        shuffle_seed=int(shuffle["Seed"]) if shuffle else None,
    )


def _source(name: str, given: Mapping[str, Any], work: TrainingWork) -> S3Source | FileSystemSource:
    in_file_system = given.get("FileSystemDataSource")
    if in_file_system:
        return FileSystemSource(
            str(in_file_system["FileSystemId"]),
            str(in_file_system["DirectoryPath"]),
            in_file_system.get("FileSystemAccessMode") != "rw",
        )
    in_s3 = given.get("S3DataSource")
    if not in_s3:
        raise TaskFailed(
            f"ClientError: channel {name!r} has neither an S3DataSource nor a FileSystemDataSource."
        )
    return S3Source(
        uri=str(in_s3["S3Uri"]),
        data_type=str(in_s3.get("S3DataType") or S3_PREFIX),
        sharded=in_s3.get("S3DataDistributionType") == "ShardedByS3Key",
        hosts=_hosts(in_s3.get("InstanceGroupNames") or (), work),
        attribute_names=tuple(map(str, in_s3.get("AttributeNames") or ())),
    )


def _hosts(groups: Sequence[str], work: TrainingWork) -> tuple[str, ...]:
    """The hosts of the instance groups that get a channel, in order; without groups all of them."""
    if not groups:
        return tuple(sorted(work.hosts))
    return tuple(sorted(host for host, _, group in hosts(work.request) if group in groups))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
