"""The caller's script: ``sourcedir.tar.gz`` from S3 to ``/opt/ml/code``."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from clary.agent.archives import BadArchive, unpack
from clary.agent.failure import TaskFailed
from clary.agent.s3_transfer import S3Transfer, s3_location

LARGEST_SOURCE_BYTES = 1 << 30


def bring_code(ml: Path, submit_directory: str, transfer: S3Transfer) -> None:
    """Unpack the archive at the S3 URI ``submit_directory``, if it is one. Raises `TaskFailed`."""
    if not submit_directory.startswith("s3://"):
        return
    location = s3_location(submit_directory)
    content = transfer.read(location, LARGEST_SOURCE_BYTES)
    folder = ml / "code"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        unpack(io.BytesIO(content), folder, len(content))
    except BadArchive as error:
        raise TaskFailed(
            f"ClientError: the source archive {location.uri} cannot be unpacked: {error}"
        ) from error


def plain(values: Mapping[str, object], name: str) -> str:
    """A hyperparameter as text: the SDK sends the values of framework jobs as JSON (``"\\"train.py\\""``)."""
    value = values.get(name)
    if not isinstance(value, str):
        return ""
    try:
        decoded = json.loads(value)
    except ValueError:
        return value
    return decoded if isinstance(decoded, str) else value
