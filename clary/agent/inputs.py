"""The input data of a training job: every channel brought, linked, piped or mounted as it asks."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from clary.agent.aws import Patience
from clary.agent.channels import augmented
from clary.agent.channels.channel import (
    AUGMENTED_MANIFEST,
    FAST_FILE,
    FILE,
    PIPE,
    Channel,
    FileSystemSource,
    S3Source,
    channels_of,
    name_channel,
)
from clary.agent.channels.files import Planned, copy, link, link_one, plan
from clary.agent.channels.objects import Ask, Found, ObjectFinder, ask_server, check_names
from clary.agent.channels.pipe import ChannelPipe
from clary.agent.channels.stream import Stretch
from clary.agent.failure import TaskFailed
from clary.agent.limits import Violation, size_text
from clary.agent.runtimes.container import ContainerProgram
from clary.agent.runtimes.mounts import Mount, steps
from clary.agent.runtimes.program import Program
from clary.agent.s3_transfer import S3Transfer, disk_trouble
from clary.agent.surroundings import Surroundings
from clary.agent.watch import Watch
from clary.resources.task import TrainingWork

_FREE_BYTES_KEPT = 64 * 1024 * 1024
_PROGRESS_SECONDS = 2.0  # between changes of the status message
_DOWNLOADING = "Downloading input data"


_Seeing = TypeVar("_Seeing", bound="Program | ContainerProgram")


@dataclass(frozen=True)
class Inputs:
    """What `bring_channels` made ready. ``mounts`` are directories that the program is to see."""

    mounts: tuple[Mount, ...]
    pipes: tuple[_PlannedPipe, ...]
    data: Path
    scratch: Path
    transfer: Callable[[Callable[[], bool]], S3Transfer]
    ask: Callable[[S3Transfer], Ask]

    def seen_by(self, program: _Seeing) -> _Seeing:
        """``program`` with the directories that channels are."""
        return replace(program, mounts=(*program.mounts, *self.mounts))

    @contextlib.contextmanager
    def piping(self) -> Iterator[Callable[[Watch], Watch]]:
        """Fill the pipes while the context lasts.

        It gives what is to be put around the watch over the program: data that cannot be had ends the job.
        """
        over = False
        transfer = self.transfer(lambda: over)
        running: list[ChannelPipe] = []
        try:
            for planned in self.pipes:
                stretches = partial(planned.stretches, self.ask(transfer))
                running.append(ChannelPipe(planned.channel, self.data, self.scratch, stretches, transfer))
            yield lambda watch: _PipeWatch(running, watch)
        finally:
            over = True
            for pipe in running:
                pipe.close()


@dataclass(frozen=True)
class _PlannedPipe:
    channel: Channel
    stretches: Callable[[Ask, int], Iterator[Stretch]]  # of an epoch


class _PipeWatch:
    """Another watch, and over the pipes as well."""

    def __init__(self, pipes: Sequence[ChannelPipe], watch: Watch) -> None:
        self._pipes = pipes
        self._watch = watch

    def look(self) -> Violation | None:
        return self._failed() or self._watch.look()

    def last_look(self, *, succeeded: bool) -> Violation | None:
        return self._failed() or self._watch.last_look(succeeded=succeeded)

    def remark(self, said: str) -> str:
        return self._watch.remark(said)

    def _failed(self) -> Violation | None:
        failure = next((pipe.failure for pipe in self._pipes if pipe.failure), None)
        return Violation(_download_failed(failure).reason) if failure else None


def bring_channels(
    around: Surroundings, work: TrainingWork, incoming: S3Transfer, *, shielded: bool | None = None
) -> Inputs:
    """Make every channel of the job ready; ``incoming`` gives up when the task is told to stop.

    ``shielded`` says that the program will see its input read-only and with mounts, as in a container; by
    default that is so where programs run in a sandbox. Raises `TaskFailed` naming the channel and the S3 URI,
    and `TaskStopped`.
    """
    brought = _Bringing(around, work, incoming, around.runtime.fenced if shielded is None else shielded)
    try:
        for channel in channels_of(work):
            try:
                brought.prepare(channel)
            except TaskFailed as error:
                raise name_channel(error, channel.name) from error
        brought.fetch()
    except TaskFailed as error:
        raise _download_failed(error) from error
    return Inputs(
        mounts=tuple(brought.mounts),
        pipes=tuple(brought.pipes),
        data=brought.data,
        scratch=brought.scratch,
        transfer=brought.transfer,
        ask=brought.ask,
    )


class _Bringing:
    """The work of `bring_channels`: what it finds out about each channel, then one download of everything."""

    def __init__(
        self, around: Surroundings, work: TrainingWork, incoming: S3Transfer, shielded: bool
    ) -> None:
        self._around = around
        self._shielded = shielded
        self._work = work
        self._incoming = incoming
        self._finder = ObjectFinder(incoming, self.ask(incoming))
        self._files: list[Planned] = []
        self._linked_bytes = 0
        self._said_at = 0.0
        self.mounts: list[Mount] = []
        self.pipes: list[_PlannedPipe] = []
        self.data = around.folder.ml / "input/data"
        self.scratch = around.folder.path / "channels"
        shutil.rmtree(self.scratch, ignore_errors=True)

    def transfer(self, abandoned: Callable[[], bool]) -> S3Transfer:
        """A transfer that gives up for a reason of its own."""
        clients = self._around.clients
        return S3Transfer(clients, Patience(clients.credentials, abandoned=abandoned), abandoned)

    def ask(self, transfer: S3Transfer) -> Ask:
        """Asks the server which objects lie on this machine, as patiently as ``transfer``."""
        return ask_server(self._around.spec.connection, self._around.spec.id, transfer.patience)

    def prepare(self, channel: Channel) -> None:
        """Find a channel's objects and link what can be linked; what has to be downloaded is noted."""
        folder = self.data / channel.name
        _clear(folder)
        source = channel.source
        if isinstance(source, FileSystemSource):
            self._mount(channel, source, folder)
        elif channel.mode == PIPE:
            self._pipe(channel, source)
        elif channel.mode in (FILE, FAST_FILE) and source.data_type != AUGMENTED_MANIFEST:
            self._bring_files(channel, source, folder)
        else:
            raise TaskFailed(
                f"ClientError: channel {channel.name!r} has S3DataType {source.data_type}, which "
                f"{channel.mode} input mode does not take; use Pipe, or another S3DataType."
            )

    def fetch(self) -> None:
        """Download what could not be linked."""
        total = sum(planned.found.size_bytes for planned in self._files)
        free = shutil.disk_usage(self.data).free
        if total + _FREE_BYTES_KEPT > free:
            raise TaskFailed(
                f"ClientError: Data download failed:{size_text(total)} of input data have to be stored, but "
                f"only {size_text(free)} are free on this machine's disk. Free some space, or use Pipe input "
                "mode."
            )
        copied = 0

        def add(size_bytes: int) -> None:
            nonlocal copied
            copied += size_bytes
            self._say_progress(copied, total)

        _, left = copy(self._files, add, self._around.stop.wanted)
        self._incoming.download(
            [planned.download for planned in left], lambda done: self._say_progress(copied + done, total)
        )
        ways = {
            "downloaded": total - copied,
            "copied from the object store": copied,
            "linked from the object store": self._linked_bytes,
        }
        parts = [f"{size_text(size)} {way}" for way, size in ways.items() if size]
        if parts:
            self._around.report.progress(f"{_DOWNLOADING}: {', '.join(parts)}")

    def _bring_files(self, channel: Channel, source: S3Source, folder: Path) -> None:
        folder.mkdir()
        found = self._found(channel, source)
        mine = list(dict.fromkeys(found[index] for index in channel.part(len(found), self._work.host)))
        check_names(mine, channel.name)
        planned = plan(mine, folder)
        if self._shielded:
            linked, planned = link(planned)
            self._linked_bytes += sum(each.found.size_bytes for each in linked)
        self._files += planned
        if planned and channel.mode == FAST_FILE:
            self._around.say(
                f"Channel {channel.name!r}: FastFile input mode brings {len(planned)} files before training "
                "begins, since they cannot be linked here."
            )

    def _pipe(self, channel: Channel, source: S3Source) -> None:
        work, host = self._work, self._work.host
        scratch = self.scratch / channel.name
        with disk_trouble(scratch):
            scratch.mkdir(mode=0o700, parents=True)
        if source.data_type == AUGMENTED_MANIFEST:
            manifest = augmented.bring(channel, source, scratch / "manifest", self._incoming)
            self.pipes.append(
                _PlannedPipe(
                    # What is compressed is the manifest, not what it refers to.
                    replace(channel, compressed=False),
                    lambda ask, epoch: manifest.stretches(channel.part(len(manifest), work.host, epoch), ask),
                )
            )
            return
        objects = [
            self._kept(item, scratch, number) for number, item in enumerate(self._found(channel, source))
        ]
        self.pipes.append(
            _PlannedPipe(
                channel,
                lambda _, epoch: (objects[index] for index in channel.part(len(objects), host, epoch)),
            )
        )

    def _kept(self, found: Found, scratch: Path, number: int) -> Stretch:
        """The object as part of a stream; a link of our own keeps this version while the job runs."""
        path = scratch / str(number)
        kept = str(path) if link_one(found, path) else ""
        return Stretch(found.location.uri, found.location, found.size_bytes, found.etag, kept)

    def _found(self, channel: Channel, source: S3Source) -> list[Found]:
        found, manifest = self._finder.of(source, channel.name)
        if manifest:
            path = self.data / f"{channel.name}-manifest"
            _clear(path)
            with disk_trouble(path):
                path.write_bytes(manifest)
        return found

    def _mount(self, channel: Channel, source: FileSystemSource, folder: Path) -> None:
        where = f"channel {channel.name!r}: {source.file_system}:{source.directory}"
        root = self._around.settings.file_systems.get(source.file_system)
        if root is None:
            raise TaskFailed(
                f"ClientError: {where}: there is no file system {source.file_system} here. Name its "
                f"directory in Clary's setting file_systems ({source.file_system}=/directory) and start "
                "Clary again."
            )
        try:
            path = "/".join(steps(source.directory))
            mount = Mount(
                source.file_system, root, path, f"input/data/{channel.name}", read_only=source.read_only
            )
            with mount.opened():
                pass
        except (OSError, ValueError) as error:
            raise TaskFailed(
                f"ClientError: {where} cannot be used: {error}. DirectoryPath must name a directory of the "
                "file system, not by way of a symbolic link."
            ) from error
        if self._shielded:
            folder.mkdir()
            self.mounts.append(mount)
        else:
            folder.symlink_to(mount.source)

    def _say_progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said_at >= _PROGRESS_SECONDS:
            self._said_at = now
            self._around.report.progress(f"{_DOWNLOADING}: {size_text(done)} of {size_text(total)}")


def _clear(path: Path) -> None:
    """Remove what an earlier attempt left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _download_failed(error: TaskFailed) -> TaskFailed:
    text = error.reason
    if text.startswith("ClientError: ") and "Data download failed" not in text:
        text = "ClientError: Data download failed:" + text[len("ClientError: ") :]
    return TaskFailed(text)
