"""Checkpoints: kept alike in ``/opt/ml/checkpoints`` and in S3, so that the next attempt goes on from there.

What is in S3 is brought in before the algorithm starts; from then on the folder is followed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from clary.agent.failure import TaskFailed
from clary.agent.followed_folder import MOST_FILES, FollowedFolder
from clary.agent.s3_transfer import Download, S3Location, S3Transfer, s3_location
from clary.resources.task import TrainingWork

DEFAULT_LOCAL_PATH = "/opt/ml/checkpoints"
_ML = PurePosixPath("/opt/ml")
_RESERVED = ("input", "model", "output", "code")


class Checkpoints:
    """The checkpoints of one host. ``say`` adds a line to the job's log."""

    def __init__(
        self,
        ml: Path,
        relative: PurePosixPath,
        place: S3Location,
        *,
        incoming: S3Transfer,
        outgoing: S3Transfer,
        say: Callable[[str], None],
    ) -> None:
        self._folder = ml / relative
        self._place = place
        self._incoming = incoming
        self._say = say
        self._followed = FollowedFolder(ml, relative, place, noun="checkpoint", outgoing=outgoing, say=say)

    def bring(self) -> None:
        """Download what an earlier attempt, or another job, left. Raises `TaskFailed`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        downloads: list[Download] = []
        for key, size, etag in self._incoming.objects(self._place):
            relative = key[len(self._place.key) :]
            if not relative or relative.endswith("/"):
                continue
            parts = relative.split("/")
            if any(part in ("", ".", "..") or "\0" in part for part in parts):
                raise TaskFailed(
                    f"ClientError: the checkpoint s3://{self._place.bucket}/{key} cannot be a file: "
                    f"{relative!r} is no plain path."
                )
            if len(downloads) >= MOST_FILES:
                raise TaskFailed(f"ClientError: {self._place.uri} holds more than {MOST_FILES} checkpoints.")
            target = self._folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            downloads.append(Download(S3Location(self._place.bucket, key), size, etag, target))
        self._incoming.download(downloads)
        if downloads:
            self._say(f"Brought {len(downloads)} checkpoint files from {self._place.uri}")
        self._followed.count_as_sent()

    def start(self) -> None:
        """Begin to upload what the algorithm writes."""
        self._followed.start()

    def finish(self) -> None:
        """Upload what is left, now that the algorithm has ended. What cannot go out is said in the log."""
        self._followed.finish()


def checkpoints_of(
    ml: Path,
    work: TrainingWork,
    *,
    incoming: S3Transfer,
    outgoing: S3Transfer,
    say: Callable[[str], None],
) -> Checkpoints | None:
    """The job's checkpoints, if it keeps any. Raises `TaskFailed` for a path that is not offered."""
    config: Any = work.request.get("CheckpointConfig")
    if not isinstance(config, Mapping) or not config.get("S3Uri"):
        return None
    place = s3_location(str(config["S3Uri"]).rstrip("/") + "/")
    return Checkpoints(ml, checkpoint_folder(work), place, incoming=incoming, outgoing=outgoing, say=say)


def checkpoint_folder(work: TrainingWork) -> PurePosixPath:
    """Where the job's checkpoints lie below ``/opt/ml``. Raises `TaskFailed` for a path outside of it."""
    config: Any = work.request.get("CheckpointConfig") or {}
    path = PurePosixPath(os.path.normpath(str(config.get("LocalPath") or DEFAULT_LOCAL_PATH)))
    relative = path.relative_to(_ML) if path.is_relative_to(_ML) else PurePosixPath()
    if not relative.parts or relative.parts[0] in _RESERVED:
        raise TaskFailed(
            f"ClientError: CheckpointConfig.LocalPath {str(path)!r} is not offered here: choose a folder of "
            f"its own below /opt/ml, such as {DEFAULT_LOCAL_PATH}."
        )
    return relative
