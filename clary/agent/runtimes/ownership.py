"""Files that a container's root made, for a Clary that is not root: whose they are, and making them ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clary.agent.runtimes.container import CannotContain

_LISTING_SECONDS = 10.0
_PLACE = "/.clary"
_LIBRARY = re.compile(r"(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x")


def foreign(folder: Path) -> bool:
    """Whether anything in ``folder`` belongs to somebody else, or cannot be looked at."""
    ours = os.geteuid()

    def unreadable(error: OSError) -> None:
        raise error

    try:
        for root, names, files in os.walk(folder, onerror=unreadable):
            if any(os.lstat(os.path.join(root, name)).st_uid != ours for name in (*names, *files)):  # noqa: PTH118
                return True
    except OSError:
        return True
    return False


def chown_command(owner: str, target: str) -> tuple[Sequence[str], Sequence[str]]:
    """The command that gives ``target`` to ``owner`` in a container of any image, and the binds it needs.

    It is this machine's ``chown`` with its libraries: an image may have none. Raises `CannotContain`.
    """
    program = shutil.which("chown")
    if program is None:
        raise CannotContain("this machine has no program chown, by which a container's files are taken over.")
    listing = subprocess.run(
        ["ldd", program], capture_output=True, text=True, timeout=_LISTING_SECONDS, check=False
    )
    arguments = ["-R", "-h", owner, target]
    binds = [f"{Path(program).resolve()}:{_PLACE}/chown:ro"]
    loader = ""
    for found in _LIBRARY.finditer(listing.stdout):
        path = Path(found["path"]).resolve()
        name = Path(found["name"] or found["path"]).name
        if name.startswith("ld-"):
            loader = f"{_PLACE}/{name}"
        binds.append(f"{path}:{_PLACE}/{name}:ro")
    if not loader:
        return [f"{_PLACE}/chown", *arguments], binds  # linked statically
    return [loader, "--library-path", _PLACE, f"{_PLACE}/chown", *arguments], binds
