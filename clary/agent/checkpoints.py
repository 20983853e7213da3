"""Checkpoints: kept alike in ``/opt/ml/checkpoints`` and in S3, so that the next attempt goes on from there.

What is in S3 is brought in before the algorithm starts. From then on a thread looks for files that were
written and have come to rest, and uploads them; what is left goes out when the algorithm has ended. A file
that a job deletes stays in S3.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.s3_transfer import Download, S3Location, S3Transfer, s3_location
from clary.resources.task import TrainingWork

DEFAULT_LOCAL_PATH = "/opt/ml/checkpoints"
MOST_FILES = 100_000
LOOK_SECONDS = 2.0  # between looks for new files
_COPY_BYTES = 1 << 20
_ML = PurePosixPath("/opt/ml")
_RESERVED = ("input", "model", "output", "code")
_State = tuple[int, int, int]  # size, time of the last change, inode


class Checkpoints:
    """The checkpoints of one host. ``say`` adds a line to the job's log."""

    def __init__(
        self,
        folder: Path,
        place: S3Location,
        *,
        incoming: S3Transfer,
        outgoing: S3Transfer,
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._place = place
        self._incoming, self._outgoing = incoming, outgoing
        self._say = say
        self._sent: dict[str, _State] = {}
        self._seen: dict[str, _State] = {}  # at the last look
        self._complained: set[str] = set()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

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
        self._sent = dict(self._files())

    def start(self) -> None:
        """Begin to upload what the algorithm writes."""
        self._thread = threading.Thread(target=self._follow, name="checkpoints", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Upload what is left, now that the algorithm has ended. What cannot be uploaded is said in the log."""
        self._ended.set()
        if self._thread:
            self._thread.join()
            self._send(at_rest=False)

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._send(at_rest=True)

    def _send(self, *, at_rest: bool) -> None:
        """Upload what changed; ``at_rest``: only what has not changed since the last look."""
        found = dict(self._files())
        for relative, state in sorted(found.items(), key=lambda item: item[1][1]):
            if self._sent.get(relative) == state or (at_rest and self._seen.get(relative) != state):
                continue
            if at_rest and self._ended.is_set():
                break  # all that is left goes out at once
            try:
                if self._upload(relative, state):
                    self._sent[relative] = state
            except TaskStopped:
                return  # Clary goes down; the server is away already
            except TaskFailed as error:
                self._complain(relative, error.reason)
        self._seen = found

    def _upload(self, relative: str, state: _State) -> bool:
        """Upload one file; whether it stayed as it was meanwhile."""
        try:
            descriptor = os.open(self._folder / relative, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        with os.fdopen(descriptor, "rb") as file:
            if _state(os.fstat(descriptor)) != state:
                return False
            upload = self._outgoing.upload(S3Location(self._place.bucket, self._place.key + relative))
            try:
                while block := file.read(_COPY_BYTES):
                    upload.write(block)
                if _state(os.fstat(descriptor)) != state:
                    upload.abandon()  # half old and half new would be worse than the last one
                    return False
                upload.finish()
            except BaseException:
                upload.abandon()
                raise
        return True

    def _files(self) -> Iterator[tuple[str, _State]]:
        """The plain files there are. Links are not followed: they may lead anywhere."""
        count = 0
        for root, _, names in os.walk(self._folder):
            for name in names:
                path = Path(root, name)
                try:
                    found = path.lstat()
                except OSError:
                    continue
                if not stat.S_ISREG(found.st_mode):
                    continue
                count += 1
                if count > MOST_FILES:
                    self._complain("", f"There are more than {MOST_FILES} files; the rest stays behind.")
                    return
                yield path.relative_to(self._folder).as_posix(), _state(found)

    def _complain(self, relative: str, reason: str) -> None:
        if relative not in self._complained:
            self._complained.add(relative)
            self._say(f"The checkpoint {relative or 'folder'} could not be uploaded: {reason}")


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
    return Checkpoints(checkpoint_folder(ml, work), place, incoming=incoming, outgoing=outgoing, say=say)


def checkpoint_folder(ml: Path, work: TrainingWork) -> Path:
    """Where the job's checkpoints lie. Raises `TaskFailed` for a path outside of ``/opt/ml``."""
    config: Any = work.request.get("CheckpointConfig") or {}
    path = PurePosixPath(os.path.normpath(str(config.get("LocalPath") or DEFAULT_LOCAL_PATH)))
    relative = path.relative_to(_ML) if path.is_relative_to(_ML) else PurePosixPath()
    if not relative.parts or relative.parts[0] in _RESERVED:
        raise TaskFailed(
            f"ClientError: CheckpointConfig.LocalPath {str(path)!r} is not offered here: choose a folder of "
            f"its own below /opt/ml, such as {DEFAULT_LOCAL_PATH}."
        )
    return ml / relative


def _state(found: os.stat_result) -> _State:
    return found.st_size, found.st_mtime_ns, found.st_ino
