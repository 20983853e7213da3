"""Directories of this machine that a program sees beside its ``ml`` folder: what FSx and EFS are on AWS.

The operator names them in the setting ``file_systems``; a job asks for one by its id and for a directory
below it. Nothing a job or another job's program writes can lead elsewhere: the way down is opened step by
step, and a symbolic link on it is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_FILE_SYSTEMS = 100
_ID = re.compile(r"fs-[0-9a-f]{8,18}\Z")
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Mount:
    """One directory and where the program sees it.

    ``root`` is the absolute directory that the operator gave ``file_system``; ``path`` leads down from it,
    ``""`` being the root itself. ``target`` is relative to the program's ``ml`` folder.
    """

    file_system: str
    root: str
    path: str
    target: str  # "input/data/train"
    read_only: bool

    @property
    def source(self) -> str:
        """The directory on this machine; see `opened` for how to be sure of it."""
        return f"{self.root}/{self.path}".rstrip("/")

    @contextlib.contextmanager
    def opened(self, root: str | None = None) -> Iterator[int]:
        """A descriptor of the directory, for ``/proc/self/fd/N``; ``root`` is where we see the file system.

        Raises ``OSError`` for what is missing, no directory, or behind a symbolic link.
        """
        descriptor = os.open(self.root if root is None else root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in steps(self.path):
                below = os.open(name, _STEP, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


def mount_from_json(document: Mapping[str, Any]) -> Mount:
    """Inverse of ``dataclasses.asdict``. Raises ``TypeError`` on a document of another form."""
    return Mount(**document)


def steps(path: str) -> list[str]:
    """The components of a path below a file system. Raises ``ValueError`` for one that climbs."""
    found = [step for step in path.split("/") if step]
    if any(step in (".", "..") or "\0" in step for step in found):
        raise ValueError(f"{path!r} must lead downwards: it may not contain '.' or '..'")
    return found


def parse_file_systems(text: str, data: Path) -> dict[str, str]:
    """``fs-0123abcd=/data/shared, fs-...=/...`` as a mapping of ids to absolute directories.

    Raises ``ValueError`` for what is no id, no directory, or would show jobs the folder ``data`` of Clary.
    """
    found: dict[str, str] = {}
    for entry in (part.strip() for part in text.split(",")):
        if not entry:
            continue
        name, _, directory = (half.strip() for half in entry.partition("="))
        if not _ID.match(name):
            raise ValueError(
                f"The setting 'file_systems' names {name!r}, which is no id of a file system: write "
                "fs-0123abcd=/directory (fs- and 8 to 18 hexadecimal digits), separated by commas."
            )
        if name in found:
            raise ValueError(f"The setting 'file_systems' names {name} twice.")
        path = Path(directory).expanduser()
        if not path.is_absolute() or not path.is_dir():
            raise ValueError(
                f"The setting 'file_systems' gives {name} the directory {directory!r}, which is not there: "
                "it must be the absolute path of a directory."
            )
        path = path.resolve()
        kept = data.expanduser().resolve()
        if path == kept or path in kept.parents or kept in path.parents:
            raise ValueError(
                f"The setting 'file_systems' may not give {name} the directory {path}: it would show jobs "
                f"what Clary keeps in {kept}."
            )
        found[name] = str(path)
    if len(found) > MOST_FILE_SYSTEMS:
        raise ValueError(f"The setting 'file_systems' names more than {MOST_FILE_SYSTEMS} file systems.")
    return found
