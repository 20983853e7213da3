"""What several hosts made, made one: every host's ``model/`` and ``output/data/`` go into the job's archives.

The first host answers for the job. Each of the others sends an archive of what it made to S3, beside the
job's output, says so in its results, and is done; the first waits for their ends, adds their files to its own
and packs the whole. Where outputs are not packed, each host simply uploads its files.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from clary.agent.archives import BadArchive, unpack
from clary.agent.cluster import Cluster
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.outputs import (
    has_files,
    has_model,
    output_location,
    own_folder,
    packs_outputs,
    upload_archive,
    upload_model,
    upload_output_data,
)
from clary.agent.s3_transfer import Download, S3Location, s3_location
from clary.agent.surroundings import Surroundings
from clary.resources.resource import JsonValue
from clary.resources.task import StopCause, TaskPhase, TrainingWork

_LOOK_SECONDS = 0.5  # between questions for the other hosts
_SLACK_SECONDS = 3600.0  # for the uploads of the others, beyond the time that the job may train
_SHARES = (("model", "model", "model_share"), ("output/data", "output", "output_share"))


@dataclass(frozen=True)
class _Host:
    name: str
    phase: TaskPhase
    shares: Mapping[str, str]  # "model_share" -> S3 URI


def upload_outputs(
    around: Surroundings, work: TrainingWork, cluster: Cluster, *, with_model: bool
) -> dict[str, JsonValue]:
    """Upload what the job made, or this host's share of it; the task's results.

    ``with_model`` says that there is a model to speak of. Raises `TaskFailed`, and `TaskStopped` if the job
    ends for another host's sake.
    """
    ml = around.folder.ml
    if cluster.peers and packs_outputs(work):
        if not cluster.leader:
            return _hand_over(around, work, cluster, with_model)
        _gather(around, work, cluster)
        with_model = with_model or has_model(ml)
    results: dict[str, JsonValue] = {}
    if with_model and (cluster.leader or has_model(ml)):
        results["model_artifacts"] = upload_model(ml, work, around.transfer, around.say)
    output = upload_output_data(ml, work, around.transfer, around.say)
    if output:
        results["output_artifacts"] = output
    return results


def _hand_over(
    around: Surroundings, work: TrainingWork, cluster: Cluster, with_model: bool
) -> dict[str, JsonValue]:
    results: dict[str, JsonValue] = {}
    place = output_location(work)
    for relative, name, share in _SHARES:
        folder = own_folder(around.folder.ml, relative)
        if has_files(folder) and (with_model or name != "model"):
            target = S3Location(place.bucket, f"{place.key}/.hosts/{cluster.host}/{name}.tar.gz")
            upload_archive(folder, name, target, around.transfer, around.say)
            results[share] = target.uri
    return results


def _gather(around: Surroundings, work: TrainingWork, cluster: Cluster) -> None:
    """Add what the other hosts made to what this one did."""
    for host in _ended(around, work, cluster):
        for relative, _, share in _SHARES:
            if share in host.shares:
                source = s3_location(host.shares[share])
                _add(around, host.name, source, own_folder(around.folder.ml, relative))
                _delete(around, source)


def _ended(around: Surroundings, work: TrainingWork, cluster: Cluster) -> list[_Host]:
    """The other hosts, once all have ended."""
    deadline = time.monotonic() + work.max_runtime_seconds + around.spec.grace_seconds + _SLACK_SECONDS
    said = False
    while True:
        hosts = [host for host in _hosts(around, work) if host.name in cluster.peers]
        busy = [host.name for host in hosts if not host.phase.final]
        if len(hosts) == len(cluster.peers) and not busy:
            return hosts
        if around.stop.cause() in (StopCause.SHUTDOWN, StopCause.INTERRUPTED, StopCause.SUPERSEDED):
            raise TaskStopped
        if time.monotonic() > deadline:
            raise TaskFailed(
                f"AlgorithmError: this host was done, but {', '.join(busy) or 'another host'} did not end in "
                "the time that the job may train."
            )
        if not said:
            said = True
            around.report.phase(TaskPhase.UPLOADING, f"Waiting for {', '.join(busy)} to end")
        time.sleep(_LOOK_SECONDS)


def _hosts(around: Surroundings, work: TrainingWork) -> list[_Host]:
    try:
        reply: Mapping[str, Any] = around.patience.call(
            lambda: around.clients.clary.list_training_job_hosts(TrainingJobName=work.job_name)
        )
    except ClientError as error:
        raise TaskFailed(
            f"InternalServerError: the job's other hosts cannot be asked for: {error}"
        ) from error
    names = {"model_share": "ModelShare", "output_share": "OutputShare"}
    return [
        _Host(
            host["HostName"],
            TaskPhase(host["Phase"]),
            {name: host[member] for name, member in names.items() if member in host},
        )
        for host in reply["Hosts"]
    ]


def _add(around: Surroundings, host: str, source: S3Location, folder: Path) -> None:
    """Put the files of a host's archive into ``folder``; what is there already stays."""
    aside = around.folder.path / "shares" / host
    shutil.rmtree(aside, ignore_errors=True)
    files = aside / "files"
    files.mkdir(parents=True)
    packed = aside / "packed"
    size, etag = around.transfer.size(source)
    around.transfer.download([Download(source, size, etag, packed)])
    try:
        with packed.open("rb") as archive:
            unpack(archive, files, size)
    except BadArchive as error:
        raise TaskFailed(f"InternalServerError: what {host} made cannot be unpacked: {error}") from error
    for root, folders, names in os.walk(files):
        below = Path(root).relative_to(files)
        links = [name for name in folders if Path(root, name).is_symlink()]
        for name in sorted([*names, *links]):
            target = folder / below / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(target):
                    around.say(f"{host} made {below / name}, and so did another host: the latter's is kept.")
                else:
                    shutil.move(Path(root, name), target)
            except OSError as error:
                around.say(f"{host} made {below / name}, which cannot be put beside the others': {error}")
    shutil.rmtree(aside, ignore_errors=True)


def _delete(around: Surroundings, location: S3Location) -> None:
    """Remove a share that was added. The job is not worse for one that has to stay, so that is only said."""
    try:
        around.patience.call(
            lambda: around.clients.s3.delete_object(Bucket=location.bucket, Key=location.key)
        )
    except ClientError as error:
        around.say(f"{location.uri} is needed no more and could not be deleted: {error}")
