"""XGBoost on several hosts: who trains, on how many columns, and the library's own way of adding up.

The hosts first agree over the cluster's connections; then those that have rows form one of the library's
groups, whose tracker runs in the program of the first of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import xgboost
from scipy.sparse import csr_matrix
from xgboost import collective
from xgboost.tracker import RabitTracker

from clary.algorithms.cluster import Cluster
from clary.algorithms.faults import ClientError
from clary.algorithms.job import Job
from clary.algorithms.xgboost.data import Rows

# The library's own limit, of five minutes, would end a job whose hosts are unlike; a host that is gone is
# told of by the cluster.
_LONGEST_STEP_SECONDS = 24 * 3600
_LONGEST_START_SECONDS = 600


class Group:
    """The hosts that train together. Every member must make the same calls in the same order."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    def total(self, numbers: Any) -> Any:
        """The sum of every member's array of this shape."""
        if self.size == 1:
            return numbers
        return collective.allreduce(numbers, collective.Op.SUM).reshape(numbers.shape)

    def any(self, flag: bool) -> bool:
        return flag if self.size == 1 else bool(self.total(numpy.array([flag], numpy.int32))[0])

    def everyones(self, rows: Any) -> Any:
        """Every member's rows, (n, columns), one after the other."""
        if self.size == 1:
            return rows
        counts = numpy.zeros(self.size, numpy.int64)
        counts[self.rank] = len(rows)
        ends = numpy.cumsum(self.total(counts))
        found = numpy.zeros((int(ends[-1]), rows.shape[1]), rows.dtype)
        found[ends[self.rank] - len(rows) : ends[self.rank]] = rows
        return self.total(found)


@dataclass(frozen=True)
class Agreement:
    """``members`` are the hosts with rows to train on; ``rows`` are this host's, as wide as everyone's.

    ``row_counts`` are those of all members together, by channel.
    """

    members: Sequence[str]
    rows: Mapping[str, Rows]
    row_counts: Mapping[str, int]


def agree(cluster: Cluster, rows: Mapping[str, Rows | None]) -> Agreement:
    """Tell the other hosts what this one has read (``None`` for a channel without rows), and learn the same.

    Raises `ClientError` for what does not fit together, on every host alike.
    """
    told = cluster.gather({name: _described(each) for name, each in rows.items()})
    by_host = {host: each.document for host, each in zip(cluster.hosts, told, strict=True)}
    members = [host for host, found in by_host.items() if found["train"]]
    if not members:
        raise ClientError("The channel 'train' holds no rows, on any host.")
    parts = [
        _Part(name, host, by_host[host][name]) for name in rows for host in members if by_host[host][name]
    ]
    width = _common_width(parts, several=len(cluster.hosts) > 1)
    grouped = {name: _all_grouped([part for part in parts if part.channel == name]) for name in rows}
    counts = {name: sum(part.found["rows"] for part in parts if part.channel == name) for name in rows}
    # A channel that no host has rows of is told of by its reader, where there is one host.
    mine = {
        name: _widened(each, width) if each is not None else _no_rows(width, grouped[name])
        for name, each in rows.items()
        if counts[name]
    }
    return Agreement(members, mine, counts)


@contextlib.contextmanager
def group(job: Job, cluster: Cluster, members: Sequence[str], tracker: Mapping[str, Any]) -> Iterator[Group]:
    """The group of ``members``, of which this host is one; ``tracker`` is what `start_tracker` told.

    Raises `HostLost` for what the library says when one of them ends in the middle.
    """
    if len(members) == 1:
        yield Group()
        return
    rank = members.index(cluster.host)
    job.ends_at_once = True  # the library would wait for members that are gone, and has been seen to crash
    try:
        collective.init(
            dmlc_task_id=f"{rank:06d}",  # what members are ranked by
            dmlc_timeout=_LONGEST_STEP_SECONDS,
            **tracker,
        )
        yield Group(rank, len(members))
    except xgboost.core.XGBoostError as error:
        cluster.explain(error)
        raise
    collective.finalize()
    job.ends_at_once = False


def start_tracker(cluster: Cluster, members: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    """The tracker, to be held as long as the group lives, and how members find it."""
    if len(members) == 1:
        return None, {}
    tracker = RabitTracker(
        n_workers=len(members),
        host_ip=cluster.address(cluster.host),
        sortby="task",
        timeout=_LONGEST_START_SECONDS,
    )
    tracker.start()
    return tracker, tracker.worker_args()


@dataclass(frozen=True)
class _Part:
    channel: str
    host: str
    found: Mapping[str, Any]


def _described(rows: Rows | None) -> Mapping[str, Any] | None:
    if rows is None:
        return None
    return {
        "rows": int(rows.features.shape[0]),
        "columns": int(rows.features.shape[1]),
        "sparse": isinstance(rows.features, csr_matrix),
        "grouped": rows.groups is not None,
    }


def _common_width(parts: Sequence[_Part], *, several: bool) -> int:
    """Sparse rows name only the columns they have; dense ones must agree."""
    width = max(int(part.found["columns"]) for part in parts)
    widest = next(part for part in parts if part.found["columns"] == width)
    for part in parts:
        if part.found["columns"] != width and not part.found["sparse"]:
            first, second = (part, widest) if parts.index(part) < parts.index(widest) else (widest, part)
            raise ClientError(
                f"feature_names mismatch: the channel '{first.channel}'{_on(first, several)} has "
                f"{first.found['columns']} feature columns, '{second.channel}'{_on(second, several)} has "
                f"{second.found['columns']}"
            )
    return width


def _on(part: _Part, several: bool) -> str:
    return f" on {part.host}" if several else ""


def _all_grouped(parts: Sequence[_Part]) -> bool:
    with_groups = [part.host for part in parts if part.found["grouped"]]
    without = [part.host for part in parts if not part.found["grouped"]]
    if with_groups and without:
        raise ClientError(
            f"The channel '{parts[0].channel}' has query ids (qid:) on {with_groups[0]}, "
            f"and none on {without[0]}."
        )
    return bool(with_groups)


def _widened(rows: Rows, width: int) -> Rows:
    if isinstance(rows.features, csr_matrix) and rows.features.shape[1] < width:
        rows.features.resize(rows.features.shape[0], width)
    return rows


def _no_rows(width: int, grouped: bool) -> Rows:
    none = Rows(numpy.zeros((0, width), numpy.float32), numpy.zeros(0, numpy.float32))
    return replace(none, groups=numpy.zeros(0, numpy.int64)) if grouped else none
