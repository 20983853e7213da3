"""What Debugger's hook and TensorBoard write, kept alike in S3 while the job runs.

Where in S3 is what SageMaker's clients expect: ``S3OutputPath/JOB/debug-output`` and ``tensorboard-output``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from clary.agent.failure import TaskFailed
from clary.agent.followed_folder import FollowedFolder
from clary.agent.s3_transfer import S3Location, S3Transfer, s3_location
from clary.resources.task import TrainingWork

_ML = PurePosixPath("/opt/ml")
# Member of the request: (folder by default, last part of the place in S3, what a file is called).
_OUTPUTS: Mapping[str, tuple[str, str, str]] = {
    "DebugHookConfig": ("/opt/ml/output/tensors", "debug-output", "tensor file"),
    "TensorBoardOutputConfig": ("/opt/ml/output/tensorboard", "tensorboard-output", "TensorBoard file"),
}


def debugger_outputs(
    ml: Path, work: TrainingWork, *, outgoing: S3Transfer, say: Callable[[str], None]
) -> Sequence[FollowedFolder]:
    """The folders that the job asks to have followed. Raises `TaskFailed` for a place that is none."""
    found: list[FollowedFolder] = []
    for member, (usual, last, noun) in _OUTPUTS.items():
        config: Any = work.request.get(member)
        if not isinstance(config, Mapping):
            continue
        path = PurePosixPath(os.path.normpath(str(config.get("LocalPath") or usual)))
        if not path.is_relative_to(_ML) or path == _ML:
            raise TaskFailed(
                f"ClientError: {member}.LocalPath {str(path)!r} must be a folder below /opt/ml, such as "
                f"{usual}."
            )
        place = s3_location(str(config.get("S3OutputPath", "")))
        key = f"{place.key.rstrip('/')}/{work.job_name}/{last}/"
        target = S3Location(place.bucket, key.lstrip("/"))
        relative = path.relative_to(_ML)
        found.append(FollowedFolder(ml, relative, target, noun=noun, outgoing=outgoing, say=say))
    return found
