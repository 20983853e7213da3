"""Which part of a channel is a host's own to read, where several hosts train one model."""

from __future__ import annotations

from collections.abc import Iterator

from clary.algorithms.collective import Collective
from clary.algorithms.formats.streams import NoData
from clary.algorithms.job import Job
from clary.algorithms.records import Batch, read_batches


def own_batches(
    job: Job,
    hosts: Collective,
    channel: str,
    *,
    rows: int,
    width: int | None = None,
    labelled: bool = False,
    epoch: int = 0,
) -> Iterator[Batch]:
    """As `read_batches`, but a host among several may have no records at all."""
    try:
        yield from read_batches(job, channel, rows=rows, width=width, labelled=labelled, epoch=epoch)
    except NoData:
        if hosts.size == 1:
            raise


def batches_to_score(
    job: Job, hosts: Collective, channel: str, *, rows: int, width: int, labelled: bool = False
) -> Iterator[Batch]:
    """This host's part of what the model is scored on; where each host has all of it, the first reads it."""
    sharded = job.input_config[channel].get("S3DistributionType") == "ShardedByS3Key"
    if sharded or hosts.rank == 0:
        yield from own_batches(job, hosts, channel, rows=rows, width=width, labelled=labelled)
