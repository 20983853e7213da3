"""Which objects a channel consists of, and which of them lie on this machine as files.

The server says both at once (`clary.services.s3.task_objects`); where it does not, S3's own operations tell.
Object keys are somebody else's text: nothing of a key reaches the file system before it is known to name one
file inside the channel's folder and to disturb no other.
"""

from __future__ import annotations

import itertools
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from clary.agent.aws import Patience
from clary.agent.channels.channel import MANIFEST, S3Source
from clary.agent.failure import TaskFailed
from clary.agent.s3_transfer import S3Location, S3Transfer, s3_location
from clary.resources.task import Connection

MOST_OBJECTS = 1_000_000
LARGEST_MANIFEST_BYTES = 64 * 1024 * 1024
_ASKED_AT_ONCE = 1000
_ASK_SECONDS = 30.0
_LARGEST_ANSWER_BYTES = 16 * 1024 * 1024
_THREADS = 8
_LONGEST_SHOWN = 300  # of a URI in a message
_LONGEST_NAME_BYTES = 255  # of one component, on the file systems there are


@dataclass(frozen=True)
class Found:
    """One object of a channel. ``name`` is where it goes below the channel's folder.

    ``path`` is a file of this machine that holds the bytes of just this version, or "".
    """

    name: str
    location: S3Location
    size_bytes: int
    etag: str
    path: str = ""


Ask = Callable[[dict[str, Any]], "dict[str, Any] | None"]


def ask_server(connection: Connection, task_id: str, patience: Patience) -> Ask:
    """Asks the server for objects and their files; what it does not say is ``None``."""
    url = f"{connection.endpoint_url}/.clary/objects/{task_id}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(question: dict[str, Any]) -> dict[str, Any] | None:
        def once() -> dict[str, Any] | None:
            request = urllib.request.Request(
                url,
                json.dumps(question).encode(),
                {"Authorization": connection.credentials_token, "Content-Type": "application/json"},
            )
            try:
                with opener.open(request, timeout=_ASK_SECONDS) as reply:
                    document = json.loads(reply.read(_LARGEST_ANSWER_BYTES))
            except urllib.error.HTTPError as error:
                with error:
                    if error.code < 500:
                        return None  # S3 says what is wrong, in its own words
                raise
            except ValueError:
                return None
            return document if isinstance(document, dict) else None

        return patience.call(once)

    return ask


class ObjectFinder:
    """Finds objects, by the server's own answer or by S3's operations."""

    def __init__(self, transfer: S3Transfer, ask: Ask) -> None:
        self._transfer = transfer
        self._ask = ask

    def of(self, source: S3Source, channel: str) -> tuple[list[Found], bytes]:
        """The objects of a channel in order, and the manifest if it has one.

        Raises `TaskFailed` for what is not there or cannot lie side by side as files.
        """
        manifest = b""
        location = s3_location(source.uri)
        if source.data_type == MANIFEST:
            manifest = self._transfer.read(location, LARGEST_MANIFEST_BYTES)
            entries = manifest_entries(manifest, location.uri)
            found = list(itertools.islice(self._named(entries), MOST_OBJECTS + 1))
        else:
            found = list(itertools.islice(self._below(location), MOST_OBJECTS + 1))
        if len(found) > MOST_OBJECTS:
            raise TaskFailed(f"ClientError: channel {channel!r} has more than {MOST_OBJECTS} objects.")
        if not found:
            raise TaskFailed(
                f"ClientError: Data download failed:S3 key: {source.uri} matched no files on s3 "
                f"(channel {channel!r})."
            )
        return found, manifest

    def _below(self, prefix: S3Location) -> Iterator[Found]:
        """The objects below a prefix, named by what follows it."""
        for key, size, etag, path in self._list(prefix):
            if key.endswith("/") and size == 0:
                continue  # a console's "folder"
            yield Found(relative_name(prefix.key, key), S3Location(prefix.bucket, key), size, etag, path)

    def _list(self, prefix: S3Location) -> Iterator[tuple[str, int, str, str]]:
        after = ""
        while answer := self._ask({"bucket": prefix.bucket, "prefix": prefix.key, "after": after}):
            for key, size, etag, path in answer["objects"]:
                yield key, size, etag, path or ""
            if not answer["next"]:
                return
            after = answer["next"]
        if after:
            raise TaskFailed(f"InternalServerError: the objects below {prefix.uri} could not all be listed.")
        for key, size, etag in self._transfer.objects(prefix):
            yield key, size, etag, ""

    def _named(self, entries: Sequence[tuple[str, S3Location]]) -> Iterator[Found]:
        """The objects of ``entries``, (name, location) each, in their order."""
        with ThreadPoolExecutor(max_workers=_THREADS) as pool:
            for bucket, group in itertools.groupby(entries, lambda entry: entry[1].bucket):
                while some := list(itertools.islice(group, _ASKED_AT_ONCE)):
                    answer = self._ask({"bucket": bucket, "keys": [location.key for _, location in some]})
                    known = {key: rest for key, *rest in answer["objects"]} if answer else {}
                    missing = [location for _, location in some if location.key not in known]
                    for location, (size, etag) in zip(
                        missing, pool.map(self._transfer.size, missing), strict=True
                    ):
                        known[location.key] = [size, etag, None]
                    for name, location in some:
                        size, etag, path = known[location.key]
                        yield Found(name, location, size, etag, path or "")


def look_up(ask: Ask, locations: Iterable[S3Location]) -> dict[S3Location, Found]:
    """Those of ``locations`` that the server says lie on this machine."""
    keys: dict[str, list[str]] = {}
    for location in dict.fromkeys(locations):
        keys.setdefault(location.bucket, []).append(location.key)
    found = {}
    for bucket, wanted in keys.items():
        for start in range(0, len(wanted), _ASKED_AT_ONCE):
            answer = ask({"bucket": bucket, "keys": wanted[start : start + _ASKED_AT_ONCE]})
            for key, size, etag, path in answer["objects"] if answer else ():
                if path:
                    location = S3Location(bucket, key)
                    found[location] = Found(key, location, size, etag, path)
    return found


def manifest_entries(text: bytes, uri: str) -> list[tuple[str, S3Location]]:
    """(name, location) of each line of a manifest, ``[{"prefix": "s3://bucket/some/"}, "one", "two"]``.

    Raises `TaskFailed` for one of another form.
    """
    try:
        entries = json.loads(text)
        prefix = entries[0]["prefix"]
        names = entries[1:]
        if not isinstance(prefix, str) or not all(isinstance(name, str) for name in names):
            raise TypeError("the prefix and the names must be text")
    except (ValueError, LookupError, TypeError) as error:
        raise TaskFailed(
            f"ClientError: the manifest {uri} is not a JSON list that begins with a prefix, like "
            f'[{{"prefix": "s3://bucket/some/"}}, "one", "two"]: {error}'
        ) from error
    return [(name.lstrip("/"), s3_location(prefix + name)) for name in names]


def relative_name(prefix: str, key: str) -> str:
    """The file name of ``key`` below a channel whose prefix is ``prefix``.

    A prefix that ends in a whole component names a folder (``data/train`` and ``data/train/a`` give ``a``);
    one that ends within a name keeps that name (``data/tr`` and ``data/train.csv`` give ``train.csv``).
    """
    rest = key[len(prefix) :]
    if prefix and not prefix.endswith("/") and not rest.startswith("/"):
        return prefix.rpartition("/")[2] + rest
    return rest[1:] if rest.startswith("/") and not prefix.endswith("/") and prefix else rest


def check_names(found: Sequence[Found], channel: str) -> None:
    """Refuse what would leave the folder, and what cannot be beside one another on a file system.

    Raises `TaskFailed` naming the object and the channel.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for item in found:
        relative, uri = item.name, item.location.uri
        components = relative.split("/")
        if any(
            part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > _LONGEST_NAME_BYTES
            for part in components
        ):
            raise TaskFailed(
                f"ClientError: Data download failed:channel {channel!r}: the key of {_shown(uri)} cannot be "
                "a file name: it has an empty, relative or overlong component. Rename the object, or read "
                "the channel in Pipe mode."
            )
        if relative in files:
            raise TaskFailed(
                f"ClientError: Data download failed:channel {channel!r}: {_shown(uri)} and "
                f"{_shown(files[relative])} would be the same file."
            )
        files[relative] = uri
        for depth in range(1, len(components)):
            folders["/".join(components[:depth])] = uri
    for relative in files.keys() & folders.keys():
        raise TaskFailed(
            f"ClientError: Data download failed:channel {channel!r}: {_shown(files[relative])} would be a "
            f"file and, for {_shown(folders[relative])}, a folder as well."
        )


def _shown(uri: str) -> str:
    """A URI as messages name it: cut where it is too long for them."""
    text = uri.encode("unicode_escape").decode()
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 60]}…{text[-59:]}"
