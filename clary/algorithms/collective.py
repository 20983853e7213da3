"""Adding up and handing round arrays among a job's hosts, over the connections of its cluster.

Every host must make the same calls in the same order; all of them get the same answer, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from clary.algorithms.cluster import Cluster

# What hosts hand round at a time: every host's piece is held at once.
PIECE_BYTES = 8 * 1024 * 1024

Array = numpy.ndarray


class Collective:
    """Alone, a host gets back what it gave.

    ``stops`` is false once there is something to keep: from then on waiting ends only with a lost host, not
    because the job is told to stop.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.size = len(cluster.hosts)
        self.rank = list(cluster.hosts).index(cluster.host)
        self.stops = True

    def total(self, array: Array) -> Array:
        """The sum of every host's array of this shape and type, added in the order of hosts."""
        if self.size == 1:
            return array
        flat = numpy.ascontiguousarray(array).reshape(-1)
        found = numpy.empty_like(flat)
        step = max(1, PIECE_BYTES // flat.itemsize)
        for start in range(0, len(flat), step):
            told = self._cluster.gather({}, flat[start : start + step].tobytes(), stops=self.stops)
            parts = [numpy.frombuffer(each.payload, flat.dtype) for each in told]
            summed = parts[0].copy()
            for part in parts[1:]:
                summed += part
            found[start : start + step] = summed
        return found.reshape(array.shape)

    def everyones(self, rows: Array) -> Sequence[Array]:
        """Every host's rows, by host; their number may differ, the other dimensions and the type may not."""
        if self.size == 1:
            return [rows]
        told = self._cluster.gather({}, numpy.ascontiguousarray(rows).tobytes(), stops=self.stops)
        return [numpy.frombuffer(each.payload, rows.dtype).reshape(-1, *rows.shape[1:]) for each in told]

    def said(self, document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """What every host says, by host."""
        return [each.document for each in self._cluster.gather(document, stops=self.stops)]

    def any(self, flag: bool) -> bool:
        return any(said["flag"] for said in self.said({"flag": flag}))
