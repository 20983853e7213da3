"""Augmented manifests: JSON Lines whose attributes go through the pipe one after another.

The manifest is kept as a file, and of its lines only where they begin, so that one of millions of lines can
be shuffled without holding it in memory.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from clary.agent.channels.channel import Channel, S3Source
from clary.agent.channels.encoding import Gunzip
from clary.agent.channels.objects import Ask, Found, look_up
from clary.agent.channels.stream import Stretch
from clary.agent.failure import TaskFailed
from clary.agent.s3_transfer import Download, S3Transfer, disk_trouble, s3_location

MOST_LINES = 50_000_000
LONGEST_LINE_BYTES = 8 * 1024 * 1024
REFERENCE = "-ref"  # ends the names of attributes that say where the data is
_BLOCK_BYTES = 1 << 20
_LINES_AT_ONCE = 256


class AugmentedManifest:
    """One manifest on this machine. `bring` makes it."""

    def __init__(self, path: Path, starts: Sequence[int], channel: Channel, source: S3Source) -> None:
        self._path = path
        self._starts = starts  # of lines that are not empty
        self._channel = channel
        self._source = source

    def __len__(self) -> int:
        return len(self._starts)

    def stretches(self, order: Sequence[int], ask: Ask) -> Iterator[Stretch]:
        """The attributes of the lines that ``order`` names; ``ask`` says which objects lie on this machine.

        Raises `TaskFailed` naming a bad line.
        """
        with self._path.open("rb") as file:
            for start in range(0, len(order), _LINES_AT_ONCE):
                some: list[Stretch] = []
                failed: TaskFailed | None = None
                for number in order[start : start + _LINES_AT_ONCE]:
                    try:
                        some += self._attributes(self._line(file, number), number)
                    except TaskFailed as error:
                        failed = error
                        break
                known = look_up(ask, (each.location for each in some if each.location))
                for each in some:
                    found = known.get(each.location) if each.location else None
                    yield each if found is None else _at_hand(each, found)
                if failed:
                    raise failed  # only after what comes before the bad line

    def _line(self, file: BinaryIO, number: int) -> dict[str, object]:
        file.seek(self._starts[number])
        text = file.readline(LONGEST_LINE_BYTES + 1)
        if len(text) > LONGEST_LINE_BYTES:
            raise self._bad(number, f"is longer than {LONGEST_LINE_BYTES} bytes")
        try:
            document = json.loads(text)
        except ValueError as error:
            raise self._bad(number, f"is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise self._bad(number, "is not a JSON object")
        return document

    def _attributes(self, line: dict[str, object], number: int) -> Iterator[Stretch]:
        for name in self._source.attribute_names:
            if name not in line:
                there = ", ".join(map(repr, line)) or "nothing"
                raise self._bad(
                    number, f"has no attribute {name!r}, which AttributeNames asks for; it has {there}"
                )
            value = line[name]
            origin = f"{name} of {self._where(number)}"
            if not name.endswith(REFERENCE):
                text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
                yield Stretch(origin, inline=text.encode("utf-8", "surrogatepass"))
                continue
            if not isinstance(value, str) or not value.startswith("s3://"):
                raise self._bad(number, f"has {value!r} as {name!r}, which is no S3 URI")
            yield Stretch(f"{value} ({origin})", s3_location(value))

    def _where(self, number: int) -> str:
        return f"record {number + 1} of {self._source.uri}"

    def _bad(self, number: int, what: str) -> TaskFailed:
        return TaskFailed(
            f"ClientError: {self._where(number)} {what} (channel {self._channel.name!r}). Mend the augmented "
            "manifest or the channel."
        )


def _at_hand(stretch: Stretch, found: Found) -> Stretch:
    return replace(stretch, size_bytes=found.size_bytes, etag=found.etag, path=found.path)


def bring(channel: Channel, source: S3Source, path: Path, transfer: S3Transfer) -> AugmentedManifest:
    """Bring the manifest of ``channel`` to ``path``, unpacked. Raises `TaskFailed`."""
    location = s3_location(source.uri)
    size, etag = transfer.size(location)
    packed = path.with_name(path.name + ".gz") if channel.compressed else path
    for old in (packed, path):
        old.unlink(missing_ok=True)
    transfer.download([Download(location, size, etag, packed)])
    if channel.compressed:
        _unpack(packed, path, f"{location.uri} (channel {channel.name!r})")
        packed.unlink()
    starts = find_lines(path, location.uri)
    if not starts:
        raise TaskFailed(
            f"ClientError: Data download failed:the augmented manifest {location.uri} has no lines "
            f"(channel {channel.name!r})."
        )
    return AugmentedManifest(path, starts, channel, source)


def _unpack(packed: Path, path: Path, origin: str) -> None:
    gunzip = Gunzip(origin)
    with packed.open("rb") as source, path.open("xb") as target, disk_trouble(path):
        while data := source.read(_BLOCK_BYTES):
            for block in gunzip.feed(data):
                target.write(block)
    gunzip.finish()


def find_lines(path: Path, uri: str) -> Sequence[int]:
    """Where the lines begin that are not empty."""
    starts = array("Q")
    position, fresh = 0, True
    with path.open("rb") as file:
        while piece := file.readline(_BLOCK_BYTES):
            if fresh and piece.strip():
                starts.append(position)
            position += len(piece)
            fresh = piece.endswith(b"\n")
            if len(starts) > MOST_LINES:
                raise TaskFailed(
                    f"ClientError: the augmented manifest {uri} has more than {MOST_LINES} lines."
                )
    return starts
