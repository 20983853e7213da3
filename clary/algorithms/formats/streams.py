"""A channel's data as streams of bytes, whichever way it comes: the files of a folder, or a pipe.

In Pipe mode the objects of a channel follow one another in one stream, or each is a RecordIO record of it.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.formats.recordio import read_frames_of
from clary.algorithms.job import Job

BLOCK_BYTES = 16 * 1024 * 1024
DEEPEST_FOLDER = 3
# The platform makes a pipe before it is needed: one that is not there by then will not come.
LONGEST_PIPE_WAIT_SECONDS = 300.0
_LOOK_SECONDS = 0.5
_SNIFFED_BYTES = 64 * 1024


class NoData(ClientError):
    """A channel has no data, which is no fault of a host among several."""


@dataclass(frozen=True)
class Stream:
    """One object, or a pipe's worth of them, to be read once. ``name`` is for messages.

    ``path`` is the file that holds it, if one does.
    """

    name: str
    blocks: Callable[[], Iterator[bytes]]
    path: Path | None = None


def is_piped(job: Job, channel: str) -> bool:
    return job.input_config.get(channel, {}).get("TrainingInputMode") == "Pipe"


def channel_streams(job: Job, channel: str, epoch: int = 0) -> Iterator[Stream]:
    """The streams of a channel of the job, in order; each must be read before the next. A pipe gives each
    ``epoch`` once, one after the other; files can be read again.

    Raises `NoData` for a folder without files; ``blocks`` raises `ClientError` for a pipe that does not come,
    and `NothingTrained` if the job is told to stop.
    """
    if not is_piped(job, channel):
        folder = job.base / "input" / "data" / channel
        for path in data_files(folder):
            yield Stream(f"{channel}/{path.relative_to(folder)}", _file_blocks(job, path), path)
        return
    path = job.base / "input" / "data" / f"{channel}_{epoch}"
    if job.input_config[channel].get("RecordWrapperType") == "RecordIO":
        for number, payload in enumerate(read_frames_of(_pipe_blocks(job, path), channel), 1):
            yield Stream(f"{channel}, object {number}", lambda payload=payload: iter((payload,)))  # type: ignore[misc]
    else:
        yield Stream(channel, lambda: _pipe_blocks(job, path))


def data_files(folder: Path) -> list[Path]:
    """Files to depth 3, in name order; those whose name begins with ``.`` or ``_`` are skipped.

    Raises `NoData` if there are none.
    """
    found = [
        path
        for path in (sorted(folder.rglob("*")) if folder.is_dir() else ())
        if path.is_file()
        and len(path.relative_to(folder).parts) <= DEEPEST_FOLDER
        and not path.name.startswith((".", "_"))
    ]
    if not found:
        raise NoData(f"The channel '{folder.name}' holds no files.")
    return found


def _file_blocks(job: Job, path: Path) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                _heed_stop(job)
                yield block

    return blocks


def _pipe_blocks(job: Job, path: Path) -> Iterator[bytes]:
    """One epoch. Never waits in the kernel, where nobody could tell it to stop."""
    descriptor = _open_pipe(job, path)
    try:
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        pieces: list[bytes] = []
        size = 0
        while True:
            if not ready.poll(_LOOK_SECONDS * 1000):
                _heed_stop(job)
                continue  # a pipe that nobody has opened for writing has not ended: it is not ready
            piece = os.read(descriptor, BLOCK_BYTES - size)
            pieces.append(piece)
            size += len(piece)
            if size == BLOCK_BYTES or (not piece and size):
                _heed_stop(job)
                yield b"".join(pieces)
                pieces, size = [], 0
            if not piece:
                return
    finally:
        os.close(descriptor)


def _open_pipe(job: Job, path: Path) -> int:
    deadline = time.monotonic() + LONGEST_PIPE_WAIT_SECONDS
    while not path.exists():
        _heed_stop(job)
        if time.monotonic() > deadline:
            raise ClientError(f"The pipe {path} of the channel did not come.")
        time.sleep(_LOOK_SECONDS)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ClientError(f"{path} is no pipe.")
    return descriptor


def _heed_stop(job: Job) -> None:
    if job.stop_requested:
        raise NothingTrained
