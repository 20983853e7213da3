"""Pipe mode: a FIFO for each epoch of a channel, filled by a thread of the agent.

``<channel>_0`` is there before the program begins. When the program has opened the FIFO of one epoch the next
one appears, to be opened when the present one is read or closed; one that is done with goes. A FIFO that
nobody opens holds nothing up: the program's end is the thread's end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import threading
import time
import traceback
from pathlib import Path

from clary.agent.channels.channel import Channel, name_channel
from clary.agent.channels.encoding import Encoder
from clary.agent.channels.stream import ReadAhead, Stretches
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.s3_transfer import S3Transfer

_PIPE_BYTES = 1 << 20  # of the kernel's buffer, if it gives that much
_STOP_SECONDS = 5.0  # for a thread to end; one that waits for a server that is away is left behind
_JOIN_SECONDS = 0.05
_DRAIN_MILLISECONDS = 50


class _ReaderGone(Exception):
    """The program has closed the FIFO."""


class _Over(Exception):
    """The program has ended."""


def _unread_bytes(fifo: int) -> int:
    """How much lies in the pipe."""
    (size,) = struct.unpack("i", fcntl.ioctl(fifo, termios.FIONREAD, bytes(4)))
    return int(size)


class ChannelPipe:
    """One channel's FIFOs and the thread that fills them. `close` ends it."""

    def __init__(
        self, channel: Channel, data: Path, scratch: Path, stretches: Stretches, transfer: S3Transfer
    ) -> None:
        self.failure: TaskFailed | None = None  # why the program cannot get its data
        self._channel = channel
        self._data = data
        self._scratch = scratch
        self._stretches = stretches
        self._epoch = 0
        self._over = threading.Event()
        self._waker, self._wakes = socket.socketpair()
        self._make(0)
        self._ahead = ReadAhead(transfer)
        self._thread = threading.Thread(target=self._run, name=f"pipe-{channel.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and remove the FIFOs."""
        self._over.set()
        self._wakes.close()
        self._ahead.close()
        until = time.monotonic() + _STOP_SECONDS
        while self._thread.is_alive() and time.monotonic() < until:
            # A thread that waits for a reader to open the FIFO gets one.
            with contextlib.suppress(OSError):
                reader = os.open(self._fifo(self._epoch), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    self._thread.join(_JOIN_SECONDS)
                finally:
                    os.close(reader)
                continue
            self._thread.join(_JOIN_SECONDS)
        for epoch in (self._epoch, self._epoch + 1):
            self._fifo(epoch).unlink(missing_ok=True)

    def _fifo(self, epoch: int) -> Path:
        return self._data / f"{self._channel.name}_{epoch}"

    def _make(self, epoch: int) -> None:
        fifo = self._fifo(epoch)
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo, 0o644)
        fifo.chmod(0o644)

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                fifo = os.open(self._fifo(self._epoch), os.O_WRONLY | os.O_CLOEXEC)  # until somebody reads
                try:
                    self._fill(fifo)
                finally:
                    os.close(fifo)
                self._fifo(self._epoch).unlink(missing_ok=True)
                self._epoch += 1
        except (_Over, TaskStopped):
            pass
        except OSError as error:
            self.failure = TaskFailed(
                f"InternalServerError: the pipe of channel {self._channel.name!r} broke: {error}"
            )
        finally:
            self._waker.close()

    def _fill(self, fifo: int) -> None:
        """One epoch. A failure leaves the FIFO open: its reader must not take what came for all."""
        if self._over.is_set():
            raise _Over
        self._make(self._epoch + 1)
        os.set_blocking(fifo, False)
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        encoder = Encoder(
            lambda data: self._write(fifo, data),
            self._scratch,
            self._channel.name,
            compressed=self._channel.compressed,
            wrapped=self._channel.wrapped,
        )
        try:
            for piece in self._ahead.pieces(self._stretches(self._epoch)):
                encoder.take(piece)
        except _ReaderGone:
            return
        except (_Over, TaskStopped):
            raise
        except TaskFailed as error:
            self._fail(error, fifo)
        except Exception as error:  # noqa: BLE001 - the job fails of it
            traceback.print_exc()
            self._fail(TaskFailed(f"InternalServerError: {type(error).__name__}: {error}"), fifo)
        finally:
            encoder.close()

    def _fail(self, error: TaskFailed, fifo: int) -> None:
        """Let the reader have what was good, then fail; one that wants no more of it goes on instead."""
        poll = select.poll()
        poll.register(fifo, 0)  # only for the reader's end
        poll.register(self._waker, select.POLLIN)
        while _unread_bytes(fifo):
            for descriptor, _ in poll.poll(_DRAIN_MILLISECONDS):
                if descriptor == fifo:
                    return
                raise _Over
        self.failure = name_channel(error, self._channel.name)
        select.select([self._waker], [], [])
        raise _Over

    def _write(self, fifo: int, data: bytes) -> None:
        left = memoryview(data)
        poll = select.poll()
        poll.register(fifo, select.POLLOUT)
        poll.register(self._waker, select.POLLIN)
        while left:
            if self._over.is_set():
                raise _Over
            try:
                left = left[os.write(fifo, left) :]
            except BlockingIOError:
                poll.poll()
            except BrokenPipeError:
                raise _ReaderGone from None
