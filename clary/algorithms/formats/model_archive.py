"""Model files that are zip archives of named parts: read without trusting any of it."""

from __future__ import annotations

import zipfile

# What reading such a file, and taking its parts for what they should be, raises for one that is none.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    zipfile.BadZipFile,
    NotImplementedError,  # a way of packing that nobody here knows
    RuntimeError,  # a part with a password
)


def read_part(archive: zipfile.ZipFile, name: str, limit_bytes: int) -> bytes:
    """The part ``name``, which may unpack to ``limit_bytes``. Raises one of `UNREADABLE`."""
    if archive.getinfo(name).file_size > limit_bytes:
        raise ValueError(f"{name} in it is too large")
    return archive.read(name)
