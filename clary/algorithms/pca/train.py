"""Trains PCA: one pass over each host's records, whose sums are added up.

``randomized`` is for records so wide that their products do not fit in memory; below that the exact way costs
no more, and both modes go it.
"""

from __future__ import annotations

import time

import numpy
from scipy.sparse import issparse

from clary.algorithms.cluster import joined
from clary.algorithms.collective import Collective
from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.formats.ndarrays import write_arrays
from clary.algorithms.job import Job
from clary.algorithms.log_lines import LogLines
from clary.algorithms.pca.components import Array, Gram, Sketch, Sums, with_signs
from clary.algorithms.pca.spec import MODEL_NAME, SPEC
from clary.algorithms.records import Batch, Features
from clary.algorithms.shares import batches_to_score, own_batches

SEED = 20_171_129
WIDEST_EXACT = 2_048  # features, to which randomized is regular: 32 MiB of products
FEWEST_EXTRA = 10
LARGEST_BATCH_BYTES = 64 * 1024 * 1024


def train(job: Job) -> None:
    """Train and write ``model/model_algo-1``, on the first host of several.

    Raises `ClientError`, `HostLost` and `NothingTrained`.
    """
    lines = LogLines(job, "PCA")
    with joined(job) as cluster:
        training = _Training(job, Collective(cluster), lines)
        training.read()
        arrays = training.finish()
        if cluster.is_first:
            job.model.mkdir(parents=True, exist_ok=True)
            (job.model / MODEL_NAME).write_bytes(write_arrays(arrays))
        training.score(arrays)


class _Training:
    """One host's part; every host makes the same calls."""

    def __init__(self, job: Job, hosts: Collective, lines: LogLines) -> None:
        self._job = job
        self._hosts = hosts
        self._lines = lines
        values = SPEC.complete(job.hyperparameters)
        self._width = int(values["feature_dim"])
        self._components = int(values["num_components"])
        self._centred = values["subtract_mean"] == "true"
        most_rows = max(1, LARGEST_BATCH_BYTES // (8 * self._width))
        self._batch_rows = min(int(values["mini_batch_size"]), most_rows)
        self._sums: Sums = Gram(0)
        if values["algorithm_mode"] == "regular" or self._width <= WIDEST_EXACT:
            self._sums = Gram(self._width)
        else:
            extra = int(values["extra_components"])
            extra = max(FEWEST_EXTRA, self._components) if extra < 0 else extra
            self._sums = Sketch(self._width, min(self._components + extra, self._width), SEED)
        # Sums are of the points as seen from here: small numbers, where 64 bits tell most.
        self._origin: Array = numpy.zeros(self._width, numpy.float32)

    def read(self) -> None:
        """The stream. A job that is told to stop goes on with what it has seen."""
        began = time.monotonic()
        batches = own_batches(self._job, self._hosts, "train", rows=self._batch_rows, width=self._width)
        try:
            first = next(batches, None)
            self._agree_on_origin(first)
            if first is not None:
                self._sums.add(self._seen_from_origin(first.features))
                for batch in batches:
                    self._sums.add(self._seen_from_origin(batch.features))
        except NothingTrained:
            if self._sums.count < self._components:
                raise
            self._lines.say(f"Told to stop: going on with the {self._sums.count} records seen")
        self._hosts.stops = False
        self._lines.progress(1.0)
        self._lines.metrics({"Total Records Seen": self._sums.count})
        self._lines.throughput("train", self._sums.count, time.monotonic() - began)

    def finish(self) -> dict[str, Array]:
        """The model's arrays: ``mean`` (1, width) if data is centred, ``v`` (width, components), and ``s``
        (components,), the largest component last."""
        sums, total = self._sums, self._hosts.total
        sums.count = int(total(numpy.array([sums.count]))[0])
        if sums.count < self._components:
            raise ClientError(
                f"num_components is {self._components}, but the channel 'train' holds {sums.count} "
                "record(s); give more records, or find fewer components."
            )
        sums.sum = total(sums.sum)
        vectors, values = sums.found(total, self._components, self._centred)
        found = {"v": with_signs(vectors).astype(numpy.float32), "s": values.astype(numpy.float32)}
        if not self._centred:
            return found
        mean = self._origin.astype(numpy.float64) + sums.sum / sums.count
        return {"mean": mean.astype(numpy.float32)[None, :], **found}

    def score(self, arrays: dict[str, Array]) -> None:
        """Tell which share of the test channel's variance the components hold."""
        if self._job.channel("test") is None:
            self._lines.say("Test data is not provided.")
            return
        mean = arrays["mean"][0] if self._centred else numpy.zeros(self._width, numpy.float32)
        said = numpy.zeros(2)
        try:
            for batch in batches_to_score(
                self._job, self._hosts, "test", rows=self._batch_rows, width=self._width
            ):
                points = _dense(batch.features) - mean
                said += float((points**2).sum()), float(((points @ arrays["v"]) ** 2).sum())
        except NothingTrained:
            self._lines.say("Told to stop: the test channel is not scored")
        everything, held = self._hosts.total(said)
        if everything:
            self._lines.score("test", "explained_variance_ratio", held / everything)

    def _agree_on_origin(self, first: Batch | None) -> None:
        """The middle of the first host's first batch, unless data is sparse or its middle is to stay."""
        is_dense = first is None or not issparse(first.features)
        anywhere_sparse = self._hosts.any(not is_dense)
        middle = numpy.zeros((0, self._width), numpy.float32)
        if first is not None and is_dense:
            middle = first.features.mean(axis=0, dtype=numpy.float64).astype(numpy.float32)[None, :]
        middles = numpy.concatenate(self._hosts.everyones(middle))
        if len(middles) and self._centred and not anywhere_sparse:
            self._origin = middles[0]

    def _seen_from_origin(self, features: Features) -> Features:
        return _dense(features) - self._origin if self._origin.any() else features


def _dense(features: Features) -> Array:
    rows: Array = features.toarray() if issparse(features) else features
    return rows
