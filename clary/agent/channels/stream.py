"""What goes through a channel's pipe in one epoch: stretches of bytes, read ahead in order.

A few threads fetch the next pieces while the reader of the pipe takes the present one, so memory holds no
more than `AHEAD` pieces, however large the data.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.s3_transfer import S3Location, S3Transfer

PIECE_BYTES = 4 * 1024 * 1024
AHEAD = 4


@dataclass(frozen=True)
class Stretch:
    """One object, or a few bytes that are here already.

    ``size_bytes`` is -1 for an object that was not looked at yet. ``path`` is a file that holds the object.
    ``origin`` names it for whoever has to mend it.
    """

    origin: str
    location: S3Location | None = None
    size_bytes: int = -1
    etag: str = ""
    path: str = ""
    inline: bytes = b""


@dataclass(frozen=True)
class Piece:
    """Some bytes of a stretch, and the size of the whole."""

    stretch: Stretch
    data: bytes
    size_bytes: int
    first: bool
    last: bool


@dataclass(frozen=True)
class _Range:
    stretch: Stretch
    start: int
    end: int  # -1: the beginning of an object of unknown size


class _Fetched:
    """A piece on its way."""

    def __init__(self, wanted: _Range) -> None:
        self.wanted = wanted
        self.data = b""
        inline = wanted.stretch.location is None
        self.size_bytes = len(wanted.stretch.inline) if inline else wanted.stretch.size_bytes
        self.etag = wanted.stretch.etag
        self.error: BaseException | None = None
        self.done = False


class ReadAhead:
    """Fetches with `AHEAD` threads of its own; `close` when the pipe is done with."""

    def __init__(self, transfer: S3Transfer) -> None:
        self._transfer = transfer
        self._orders: SimpleQueue[_Fetched | None] = SimpleQueue()
        self._changed = threading.Condition()
        self._closed = False
        for _ in range(AHEAD):
            threading.Thread(target=self._work, name="read-ahead", daemon=True).start()

    def pieces(self, stretches: Iterable[Stretch]) -> Iterator[Piece]:
        """All bytes of ``stretches``, in order. Raises `TaskFailed`, and `TaskStopped` once it is closed."""
        window: deque[_Fetched] = deque()
        ranges = _ranges(stretches)
        failure: TaskFailed | None = None
        while True:
            try:
                wanted = next(ranges, None)
            except TaskFailed as error:
                failure = error  # what was ordered before comes first
                break
            if wanted is None:
                break
            window.append(self._order(wanted))
            if len(window) > AHEAD:
                yield from self._delivered(window.popleft())
        while window:
            yield from self._delivered(window.popleft())
        if failure:
            raise failure

    def close(self) -> None:
        """Let the threads go; whoever waits for a piece hears `TaskStopped`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for _ in range(AHEAD):
            self._orders.put(None)

    def _order(self, wanted: _Range) -> _Fetched:
        fetched = _Fetched(wanted)
        if wanted.stretch.location is None:
            fetched.data, fetched.done = wanted.stretch.inline, True
        else:
            self._orders.put(fetched)
        return fetched

    def _delivered(self, fetched: _Fetched) -> Iterator[Piece]:
        with self._changed:
            self._changed.wait_for(lambda: fetched.done or self._closed)
            if self._closed:
                raise TaskStopped
        if fetched.error:
            raise fetched.error
        stretch, size = fetched.wanted.stretch, fetched.size_bytes
        position = fetched.wanted.start + len(fetched.data)
        yield Piece(stretch, fetched.data, size, fetched.wanted.start == 0, position == size)
        if fetched.wanted.end >= 0:
            return
        # An object of unknown size that is larger than a piece: the rest of it, one piece at a time.
        while position < size:
            end = min(position + PIECE_BYTES, size)
            assert stretch.location is not None
            data = self._transfer.get(stretch.location, position, end, fetched.etag)
            position = end
            yield Piece(stretch, data, size, False, position == size)

    def _work(self) -> None:
        while fetched := self._orders.get():
            if not self._closed:
                try:
                    self._fetch(fetched)
                except BaseException as error:  # noqa: BLE001 - raised again by who waits
                    fetched.error = error
            with self._changed:
                fetched.done = True
                self._changed.notify_all()

    def _fetch(self, fetched: _Fetched) -> None:
        wanted, stretch = fetched.wanted, fetched.wanted.stretch
        assert stretch.location is not None
        data = _read_file(stretch, wanted.start, wanted.end) if stretch.path else None
        if data is not None:
            fetched.data = data
        elif wanted.end >= 0:
            fetched.data = self._transfer.get(stretch.location, wanted.start, wanted.end, stretch.etag)
        else:
            fetched.data, fetched.size_bytes, fetched.etag = self._transfer.get_beginning(
                stretch.location, PIECE_BYTES
            )


def _ranges(stretches: Iterable[Stretch]) -> Iterator[_Range]:
    for stretch in stretches:
        if stretch.location is None:
            yield _Range(stretch, 0, len(stretch.inline))
        elif stretch.size_bytes <= 0:
            yield _Range(stretch, 0, stretch.size_bytes)
        else:
            for start in range(0, stretch.size_bytes, PIECE_BYTES):
                yield _Range(stretch, start, min(start + PIECE_BYTES, stretch.size_bytes))


def _read_file(stretch: Stretch, start: int, end: int) -> bytes | None:
    """Bytes of the file that holds the object; ``None`` if it is gone, and with it this version."""
    try:
        descriptor = os.open(stretch.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        data = os.pread(descriptor, end - start, start)
    finally:
        os.close(descriptor)
    if len(data) != end - start:
        raise TaskFailed(f"InternalServerError: {stretch.origin}: the file that held it is too short.")
    return data


Stretches = Callable[[int], Iterator[Stretch]]  # of an epoch, counted from 0
