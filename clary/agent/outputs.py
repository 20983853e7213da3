"""What a job made: ``model/`` and ``output/data/`` on their way to S3."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clary.agent.archives import pack
from clary.agent.failure import TaskFailed
from clary.agent.s3_transfer import S3Location, S3Transfer, s3_location
from clary.resources.task import TrainingWork

_COPY_BYTES = 1 << 20


def output_location(work: TrainingWork) -> S3Location:
    """Where the job's output goes: ``S3OutputPath/JOB/output``."""
    path = str(_output(work).get("S3OutputPath", ""))
    location = s3_location(path)
    key = location.key.rstrip("/")
    return S3Location(location.bucket, f"{key}/{work.job_name}/output".lstrip("/"))


def upload_model(ml: Path, work: TrainingWork, transfer: S3Transfer, warn: Callable[[str], None]) -> str:
    """Upload ``model/``; the URI of the artifacts."""
    return _upload(own_folder(ml, "model"), "model", work, transfer, warn)


def upload_output_data(
    ml: Path, work: TrainingWork, transfer: S3Transfer, warn: Callable[[str], None]
) -> str | None:
    """Upload ``output/data/`` if there is anything in it; its URI."""
    folder = own_folder(ml, "output/data")
    if not has_files(folder):
        return None
    return _upload(folder, "output", work, transfer, warn)


def has_model(ml: Path) -> bool:
    """Whether the algorithm saved anything."""
    return has_files(own_folder(ml, "model"))


def has_files(folder: Path) -> bool:
    """Whether ``folder`` is there and has anything in it."""
    return folder.is_dir() and any(folder.iterdir())


def packs_outputs(work: TrainingWork) -> bool:
    """Whether outputs become archives; else each file goes out on its own."""
    return _output(work).get("CompressionType") != "NONE"


def _upload(
    folder: Path, name: str, work: TrainingWork, transfer: S3Transfer, warn: Callable[[str], None]
) -> str:
    location = output_location(work)
    if not packs_outputs(work):
        return _upload_files(folder, S3Location(location.bucket, f"{location.key}/{name}/"), transfer, warn)
    target = S3Location(location.bucket, f"{location.key}/{name}.tar.gz")
    upload_archive(folder, name, target, transfer, warn)
    return target.uri


def upload_archive(
    folder: Path, name: str, target: S3Location, transfer: S3Transfer, warn: Callable[[str], None]
) -> None:
    """Upload ``folder``, which is called ``name`` in words, as the archive ``target``."""
    upload = transfer.upload(target)
    try:
        pack(folder, upload, warn)
        upload.finish()
    except OSError as error:
        upload.abandon()
        raise TaskFailed(f"AlgorithmError: the {name} could not be packed: {error}") from error
    except BaseException:
        upload.abandon()
        raise


def _upload_files(folder: Path, target: S3Location, transfer: S3Transfer, warn: Callable[[str], None]) -> str:
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                warn(f"{relative} is no plain file: it was left out.")
                continue
            upload = transfer.upload(S3Location(target.bucket, target.key + relative))
            try:
                with path.open("rb") as file:
                    while block := file.read(_COPY_BYTES):
                        upload.write(block)
                upload.finish()
            except BaseException:
                upload.abandon()
                raise
    return target.uri


def own_folder(ml: Path, relative: str) -> Path:
    """A folder of the job's, if the job did not put a link to somewhere else in its place."""
    folder = ml / relative
    if folder.resolve() != ml.resolve() / relative:
        raise TaskFailed(f"AlgorithmError: /opt/ml/{relative} was replaced by a link; nothing was uploaded.")
    return folder


def _output(work: TrainingWork) -> Mapping[str, Any]:
    given = work.request.get("OutputDataConfig")
    return given if isinstance(given, dict) else {}
