"""The rules for a job's InputDataConfig that shapes cannot say; the words are those of AWS's reference."""

from __future__ import annotations

from collections.abc import Sequence

from clary.faults import Invalid
from clary.protocol.wire import Members

_AUGMENTED = "AugmentedManifestFile"


def check_channels(request: Members) -> None:
    """Hold the channels of a CreateTrainingJob input against their rules. Raises `Invalid`."""
    channels = request.get("InputDataConfig") or []
    _check_names([channel["ChannelName"] for channel in channels])
    usual_mode = (request.get("AlgorithmSpecification") or {}).get("TrainingInputMode") or "File"
    groups = [
        group["InstanceGroupName"]
        for group in (request.get("ResourceConfig") or {}).get("InstanceGroups") or []
    ]
    modes = {channel["ChannelName"]: channel.get("InputMode") or usual_mode for channel in channels}
    _check_paths(modes, [channel["ChannelName"] for channel in channels if _has_manifest(channel)])
    for channel in channels:
        name, mode = channel["ChannelName"], modes[channel["ChannelName"]]
        sources = channel["DataSource"]
        if len(sources) != 1:
            raise Invalid(f"The channel '{name}' must have exactly one data source, not {len(sources)}.")
        if sources.get("DatasetSource") is not None:
            raise Invalid(
                f"The channel '{name}' has a DatasetSource; Clary has no hub of datasets: name an "
                "S3DataSource."
            )
        _check_pipe_only(channel, mode)
        if sources.get("S3DataSource") is not None:
            _check_s3(name, mode, sources["S3DataSource"], groups)
        else:
            _check_file_system(channel, mode, sources["FileSystemDataSource"])


def _check_names(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Invalid(f"Channel names must be unique: '{twice}' is given {names.count(twice)} times.")
    for name in names:
        if name in (".", ".."):
            raise Invalid(f"'{name}' cannot be the name of a channel: it names no folder of its own.")


def _has_manifest(channel: Members) -> bool:
    return (channel["DataSource"].get("S3DataSource") or {}).get("S3DataType") == "ManifestFile"


def _check_paths(modes: dict[str, str], with_manifest: Sequence[str]) -> None:
    """The pipes and the manifest of one channel may not be another channel's folder."""
    for name, mode in modes.items():
        owner = name.removesuffix("-manifest")
        if owner != name and owner in with_manifest:
            raise Invalid(
                f"The channel '{name}' cannot be beside the channel '{owner}', whose manifest is to lie at "
                f"/opt/ml/input/data/{name}. Rename one of them."
            )
        base, _, epoch = name.rpartition("_")
        if modes.get(base) == "Pipe" and epoch.isascii() and epoch.isdigit():
            raise Invalid(
                f"The channel '{name}' cannot be beside the channel '{base}', which has Pipe input mode: "
                f"/opt/ml/input/data/{name} would be a pipe of '{base}' and belong to '{name}', which has "
                f"{mode} input mode. Rename one of them."
            )


def _check_pipe_only(channel: Members, mode: str) -> None:
    for member in ("CompressionType", "RecordWrapperType"):
        value = channel.get(member) or "None"
        if mode != "Pipe" and value != "None":
            raise Invalid(
                f"{member} is used only in Pipe input mode. In {mode} mode, leave this field unset or set it "
                f"to None: the channel '{channel['ChannelName']}' has {value}."
            )


def _check_s3(name: str, mode: str, source: Members, groups: Sequence[str]) -> None:
    kind = source["S3DataType"]
    attributes = source.get("AttributeNames") or []
    if kind == "Converse":
        raise Invalid(f"The S3DataType Converse of the channel '{name}' is not offered by Clary.")
    if kind == _AUGMENTED and mode != "Pipe":
        raise Invalid(
            f"{_AUGMENTED} can only be used if the Channel's input mode is Pipe: the channel '{name}' has "
            f"{mode} input mode."
        )
    if kind == _AUGMENTED and not attributes:
        raise Invalid(
            f"AttributeNames must be specified for the channel '{name}', whose S3DataType is {_AUGMENTED}: "
            "the names of the attributes that are used as input, in their order."
        )
    if kind != _AUGMENTED and attributes:
        raise Invalid(
            f"AttributeNames can only be used with the S3DataType {_AUGMENTED}: the channel '{name}' has "
            f"{kind}."
        )
    if kind != "S3Prefix" and mode == "FastFile":
        raise Invalid(
            f"FastFile input mode supports S3 prefixes only, not {kind}: use File or Pipe input mode for the "
            f"channel '{name}'."
        )
    bucket = source["S3Uri"].partition("://")[2].partition("/")[0]
    if not source["S3Uri"].startswith("s3://") or not bucket:
        raise Invalid(
            f"The S3Uri '{source['S3Uri']}' of the channel '{name}' must look like s3://bucket/key-prefix."
        )
    if source.get("HubAccessConfig") is not None:
        raise Invalid(
            f"HubAccessConfig of the channel '{name}' is not offered by Clary, which has no hub: name the "
            "data by its S3Uri."
        )
    if (source.get("ModelAccessConfig") or {}).get("AcceptEula") is False:
        raise Invalid(
            "You must explicitly accept the end-user license agreement: set AcceptEula of ModelAccessConfig "
            f"to true, or leave ModelAccessConfig out of the channel '{name}'."
        )
    unknown = [group for group in source.get("InstanceGroupNames") or [] if group not in groups]
    if unknown:
        raise Invalid(
            f"InstanceGroupNames of the channel '{name}' names '{unknown[0]}'; the instance groups of the "
            f"job are: {', '.join(groups) or 'none'}."
        )


def _check_file_system(channel: Members, mode: str, source: Members) -> None:
    name, directory = channel["ChannelName"], source["DirectoryPath"]
    if mode != "File":
        raise Invalid(
            f"FileSystemDataSource supports File input mode only: the channel '{name}' has {mode} input mode."
        )
    if channel.get("ShuffleConfig") is not None:
        raise Invalid(f"ShuffleConfig of the channel '{name}' can only be used with an S3DataSource.")
    if not directory.startswith("/") or ".." in directory.split("/") or "\0" in directory:
        raise Invalid(
            f"The DirectoryPath '{directory}' of the channel '{name}' must be the full path of a directory "
            "of the file system, like /data/train, without '..'."
        )
