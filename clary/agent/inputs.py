"""Channels: from S3 to ``/opt/ml/input/data``, in File mode.

Object keys are somebody else's text: nothing of a key reaches the file system before it is known to name one
file inside the channel's folder and to disturb no other.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clary.agent.failure import TaskFailed
from clary.agent.layout import channels, input_mode
from clary.agent.s3_transfer import Download, S3Location, S3Transfer, s3_location
from clary.resources.task import TrainingWork

MOST_FILES = 1_000_000
LARGEST_MANIFEST_BYTES = 64 * 1024 * 1024
_LONGEST_NAME_BYTES = 255  # of one component, on the file systems there are
_FREE_BYTES_KEPT = 64 * 1024 * 1024
_Found = tuple[str, S3Location, int, str]  # relative path, object, size, ETag


def bring_channels(ml: Path, work: TrainingWork, transfer: S3Transfer) -> None:
    """Download every channel of the job. Raises `TaskFailed` naming the channel and the S3 URI."""
    downloads: list[Download] = []
    for channel in channels(work):
        name = str(channel["ChannelName"])
        folder = ml / "input/data" / _channel_folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        downloads += _channel_downloads(name, channel, folder, work, transfer)
    needed = sum(download.size_bytes for download in downloads)
    free = shutil.disk_usage(ml).free
    if needed + _FREE_BYTES_KEPT > free:
        raise TaskFailed(
            f"ClientError: Data download failed:the input data has {needed} bytes, but only {free} bytes are "
            "free on this machine's disk."
        )
    try:
        transfer.download(downloads)
    except TaskFailed as error:
        raise _download_failed(error) from error


def _channel_downloads(
    name: str, channel: Mapping[str, Any], folder: Path, work: TrainingWork, transfer: S3Transfer
) -> list[Download]:
    mode = str(channel.get("InputMode") or input_mode(work))
    source = (channel.get("DataSource") or {}).get("S3DataSource")
    if not source:
        raise TaskFailed(
            f"ClientError: channel {name!r} has no S3DataSource; data from a file system is not offered here."
        )
    if mode == "Pipe":
        raise TaskFailed(
            f"ClientError: channel {name!r} asks for Pipe input mode, which is not offered here; use File."
        )
    uri = str(source["S3Uri"])
    kind = source.get("S3DataType", "S3Prefix")
    try:
        if kind == "S3Prefix":
            found = list(_prefix(s3_location(uri), transfer))
        elif kind == "ManifestFile":
            found = list(_manifest(s3_location(uri), transfer))
        else:
            raise TaskFailed(
                f"ClientError: channel {name!r} has S3DataType {kind}, which File mode does not take; "
                "use S3Prefix or ManifestFile."
            )
    except TaskFailed as error:
        raise _download_failed(error) from error
    if source.get("S3DataDistributionType") == "ShardedByS3Key" and len(work.hosts) > 1:
        hosts = sorted(work.hosts)
        found = [item for i, item in enumerate(found) if hosts[i % len(hosts)] == work.host]
    elif not found:
        raise TaskFailed(
            f"ClientError: Data download failed:S3 key: {uri} matched no files on s3 (channel {name!r})."
        )
    _check_names(found, name)
    downloads = []
    for relative, location, size, etag in found:
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        downloads.append(Download(location, size, etag, target))
    return downloads


def _prefix(prefix: S3Location, transfer: S3Transfer) -> Iterable[_Found]:
    """The objects below a prefix, named by what follows it."""
    for key, size, etag in transfer.objects(prefix):
        if key.endswith("/") and size == 0:
            continue  # a console's "folder"
        yield relative_name(prefix.key, key), S3Location(prefix.bucket, key), size, etag


def _manifest(location: S3Location, transfer: S3Transfer) -> Iterable[_Found]:
    """The objects that a manifest names: ``[{"prefix": "s3://bucket/some/"}, "one", "two"]``."""
    text = transfer.read(location, LARGEST_MANIFEST_BYTES)
    try:
        entries = json.loads(text)
        prefix = entries[0]["prefix"]
        names = [str(entry) for entry in entries[1:]]
    except (ValueError, LookupError, TypeError) as error:
        raise TaskFailed(
            f"ClientError: the manifest {location.uri} is not a JSON list that begins with a prefix: {error}"
        ) from error
    for name in names:
        item = s3_location(str(prefix) + name)
        size, etag = transfer.size(item)
        yield name.lstrip("/"), item, size, etag


def relative_name(prefix: str, key: str) -> str:
    """The file name of ``key`` below a channel whose prefix is ``prefix``.

    A prefix that ends in a whole component names a folder (``data/train`` and ``data/train/a`` give ``a``);
    one that ends within a name keeps that name (``data/tr`` and ``data/train.csv`` give ``train.csv``).
    """
    rest = key[len(prefix) :]
    if prefix and not prefix.endswith("/") and not rest.startswith("/"):
        return prefix.rpartition("/")[2] + rest
    return rest[1:] if rest.startswith("/") and not prefix.endswith("/") and prefix else rest


def _check_names(found: list[_Found], channel: str) -> None:
    """Refuse what would leave the folder, and what cannot be beside one another on a file system."""
    if len(found) > MOST_FILES:
        raise TaskFailed(f"ClientError: channel {channel!r} has more than {MOST_FILES} objects.")
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for relative, location, _, _ in found:
        components = relative.split("/")
        if any(
            part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > _LONGEST_NAME_BYTES
            for part in components
        ):
            raise TaskFailed(
                f"ClientError: Data download failed:the key of {location.uri} cannot be a file name: "
                f"{relative!r} has an empty, relative or overlong component (channel {channel!r})."
            )
        if relative in files:
            raise TaskFailed(
                f"ClientError: Data download failed:{location.uri} and {files[relative]} would be the same "
                f"file (channel {channel!r})."
            )
        files[relative] = location.uri
        for depth in range(1, len(components)):
            folders["/".join(components[:depth])] = location.uri
    for relative in files.keys() & folders.keys():
        raise TaskFailed(
            f"ClientError: Data download failed:{files[relative]} would be a file and, for "
            f"{folders[relative]}, a folder as well (channel {channel!r})."
        )


def _channel_folder(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise TaskFailed(f"ClientError: {name!r} cannot be the name of a channel.")
    return name


def _download_failed(error: TaskFailed) -> TaskFailed:
    text = error.reason
    if text.startswith("ClientError: ") and "Data download failed" not in text:
        text = "ClientError: Data download failed:" + text[len("ClientError: ") :]
    return TaskFailed(text)
