"""A folder that is kept alike in S3 while a job writes to it: checkpoints, tensors, TensorBoard's files.

A thread looks for files that were written and have come to rest, and uploads them; what is left goes out
when the algorithm has ended. A file that a job deletes stays in S3. The folder belongs to users' code, so
every step of a path is opened as what it is: a link leads nowhere, whenever it is put there.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.s3_transfer import S3Location, S3Transfer

MOST_FILES = 100_000
DEEPEST = 50  # folders within one another; each is held open while what is in it is looked at
LOOK_SECONDS = 2.0  # between looks for new files
_COPY_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_State = tuple[int, int, int]  # size, time of the last change, inode


class FollowedFolder:
    """The folder ``relative`` of ``ml`` and its place.

    ``noun`` names its files in the log, to which ``say`` adds a line.
    """

    def __init__(
        self,
        ml: Path,
        relative: PurePosixPath,
        place: S3Location,
        *,
        noun: str,
        outgoing: S3Transfer,
        say: Callable[[str], None],
    ) -> None:
        self._ml = ml
        self._relative = relative
        self._place = place
        self._noun = noun
        self._outgoing = outgoing
        self._say = say
        self._sent: dict[str, _State] = {}
        self._seen: dict[str, _State] = {}  # at the last look
        self._complained: set[tuple[str, str]] = set()  # files and reasons
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def count_as_sent(self) -> None:
        """What is in the folder now is in S3 already."""
        self._sent = dict(self._files())

    def start(self) -> None:
        """Begin to upload what the algorithm will write; it must not run yet."""
        (self._ml / self._relative).mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._follow, name=self._noun, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Upload what is left, now that the algorithm has ended. What cannot go out is said in the log."""
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
        descriptor = self._open(PurePosixPath(relative))
        if descriptor is None:
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
        """The plain files there are."""
        top = self._open(PurePosixPath(), os.O_DIRECTORY)
        if top is None:
            return
        count = 0
        try:
            for root, folders, names, folder in os.fwalk(".", dir_fd=top):
                if folders and root.count("/") >= DEEPEST:
                    self._complain("", f"Folders more than {DEEPEST} deep stay behind.")
                    folders.clear()
                for name in names:
                    try:
                        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    except OSError:
                        continue
                    if not stat.S_ISREG(found.st_mode):
                        continue
                    count += 1
                    if count > MOST_FILES:
                        self._complain("", f"There are more than {MOST_FILES} files; the rest stays behind.")
                        return
                    yield PurePosixPath(root, name).as_posix(), _state(found)
        finally:
            os.close(top)

    def _open(self, path: PurePosixPath, kind: int = 0) -> int | None:
        """A descriptor of ``path`` in the folder, opened step by step; ``None`` where a link or nothing is.

        ``O_NONBLOCK``: a pipe in place of a file must not hold the agent.
        """
        try:
            descriptor = os.open(self._ml, _FOLDER)
        except OSError:
            return None  # the task was removed
        steps = [*self._relative.parts, *path.parts]
        for number, step in enumerate(steps, start=1):
            flags = _FOLDER if number < len(steps) else os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | kind
            try:
                following = os.open(step, flags | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError:
                return None
            finally:
                os.close(descriptor)
            descriptor = following
        return descriptor

    def _complain(self, relative: str, reason: str) -> None:
        if (relative, reason) not in self._complained:
            self._complained.add((relative, reason))
            self._say(f"The {self._noun} {relative or 'folder'} could not be uploaded: {reason}")


def _state(found: os.stat_result) -> _State:
    return found.st_size, found.st_mtime_ns, found.st_ino
