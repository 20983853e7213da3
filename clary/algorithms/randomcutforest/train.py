"""Trains a Random Cut Forest: a uniform sample of all hosts' records, shared out among trees.

Every host samples its own records; the samples become one, of which every host grows the same forest.
"""

from __future__ import annotations

import time

import numpy
from scipy.sparse import issparse

from clary.algorithms.cluster import joined
from clary.algorithms.collective import PIECE_BYTES, Collective
from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.first_party import chosen_names
from clary.algorithms.job import Job
from clary.algorithms.log_lines import LogLines
from clary.algorithms.randomcutforest.evaluation import quality
from clary.algorithms.randomcutforest.forest import Array, Forest, grow
from clary.algorithms.randomcutforest.model import save
from clary.algorithms.randomcutforest.reservoir import Reservoir, draws, shares
from clary.algorithms.randomcutforest.spec import SPEC
from clary.algorithms.records import Batch, Features
from clary.algorithms.shares import batches_to_score, own_batches

SEED = 20_171_129
BATCH_ROWS = 10_000
LARGEST_BATCH_BYTES = 16 * 1024 * 1024
_SAMPLE, _DRAWS, _ORDER, _TREES = range(4)  # what random numbers are for


def train(job: Job) -> None:
    """Train and write ``model/model_algo-1``, on the first host of several.

    Raises `ClientError`, `HostLost` and `NothingTrained`.
    """
    lines = LogLines(job, "RandomCutForest")
    with joined(job) as cluster:
        training = _Training(job, Collective(cluster), lines)
        forest = training.finish(training.read())
        if cluster.is_first:
            size = save(forest, job.model)
            lines.metrics({"model.bytes": size})
        training.score(forest)


class _Training:
    """One host's part; every host makes the same calls."""

    def __init__(self, job: Job, hosts: Collective, lines: LogLines) -> None:
        self._job = job
        self._hosts = hosts
        self._lines = lines
        values = SPEC.complete(job.hyperparameters)
        self._width = int(values["feature_dim"])
        self._trees = int(values["num_trees"])
        self._per_tree = int(values["num_samples_per_tree"])
        self._metrics = chosen_names(values["eval_metrics"])
        self._batch_rows = max(1, min(BATCH_ROWS, LARGEST_BATCH_BYTES // (4 * self._width)))

    def read(self) -> Reservoir:
        """A sample of the stream. A job that is told to stop goes on with what it has seen."""
        sample = Reservoir(self._trees * self._per_tree, self._width, self._random(_SAMPLE))
        if self._hosts.size > 1:
            self._check_distribution()
        began = time.monotonic()
        try:
            for batch in own_batches(
                self._job, self._hosts, "train", rows=self._batch_rows, width=self._width
            ):
                sample.add(_dense(batch.features))
        except NothingTrained:
            if not sample.seen:
                raise
            self._lines.say(f"Told to stop: going on with the {sample.seen} records seen")
        self._hosts.stops = False
        seconds = time.monotonic() - began
        self._lines.progress(1.0)
        self._lines.metrics({"Total Records Seen": sample.seen, "epochs": 1})
        self._lines.throughput("train", sample.seen, seconds)
        self._lines.say(f"Sampled {sample.kept} of {sample.seen} records in {seconds:.3f} seconds")
        return sample

    def finish(self, sample: Reservoir) -> Forest:
        """The forest, the same on every host."""
        rows = self._everyones(sample)
        per_tree = min(self._per_tree, len(rows) // self._trees)
        if not per_tree:
            raise ClientError(
                f"num_trees is {self._trees}, but the channel 'train' holds {len(rows)} record(s); each tree "
                "needs records of its own: give more, or fewer trees."
            )
        if per_tree < self._per_tree:
            self._lines.say(
                f"num_samples_per_tree is {self._per_tree}, but there are {len(rows)} records for "
                f"{self._trees} trees: each has {per_tree}",
                "WARNING",
            )
        began = time.monotonic()
        random = numpy.random.default_rng([SEED, _TREES])
        chosen = random.permutation(len(rows))[: self._trees * per_tree].reshape(self._trees, per_tree)
        forest = grow(rows, chosen, random)
        self._lines.say(
            f"ForestInfo{{num_trees: {self._trees}, num_samples_in_forest: {chosen.size}, "
            f"num_samples_per_tree: {per_tree}, sample_dim: {self._width}, shingle_size: 1, "
            f"trees_num_nodes: {len(forest.children) + len(forest.points)}, trees_depth: "
            f"{len(forest.levels) + 1}, initialize_time: {time.monotonic() - began:.6f} seconds}}"
        )
        return forest

    def score(self, forest: Forest) -> None:
        """Tell what the scores of the test channel are worth."""
        if self._job.channel("test") is None:
            self._lines.say("Test data is not provided.")
            return
        scores, labels = [numpy.zeros(0)], [numpy.zeros(0, numpy.float32)]
        try:
            for batch in batches_to_score(
                self._job, self._hosts, "test", rows=self._batch_rows, width=self._width, labelled=True
            ):
                labels.append(_checked_labels(batch))
                scores.append(forest.scores(_dense(batch.features)))
        except NothingTrained:
            self._lines.say("Told to stop: not all of the test channel is scored")
        found = quality(
            numpy.concatenate(scores), numpy.concatenate(labels), self._metrics, self._hosts.total
        )
        for name, value in found.items():
            self._lines.quality(f"test {name}", value, "Maximize")

    def _everyones(self, sample: Reservoir) -> Array:
        """The rows of one sample of all hosts' records."""
        hosts = self._hosts
        if hosts.size == 1:
            return sample.rows
        own = draws(sample.kept, sample.seen, self._random(_DRAWS))
        chosen = shares(hosts.everyones(own), self._trees * self._per_tree)
        # Any of the rows will do, but not the first ones: while a reservoir fills they are in their order.
        order = self._random(_ORDER).permutation(sample.kept)[: chosen[hosts.rank]]
        found = numpy.empty((sum(chosen), self._width), numpy.float32)
        places = numpy.cumsum([0, *chosen[:-1]])
        step = max(1, PIECE_BYTES // (4 * self._width))
        for start in range(0, max(chosen), step):
            for place, rows in zip(
                places, hosts.everyones(sample.rows[order[start : start + step]]), strict=True
            ):
                found[place + start : place + start + len(rows)] = rows
        return found

    def _check_distribution(self) -> None:
        given = self._job.input_config["train"].get("S3DistributionType", "ShardedByS3Key")
        if given != "ShardedByS3Key":
            raise ClientError(
                f"The S3DataDistributionType of channel 'train' is {given}, but must be ShardedByS3Key: each "
                f"of the {self._hosts.size} hosts samples records of its own."
            )

    def _random(self, purpose: int) -> numpy.random.Generator:
        return numpy.random.default_rng([SEED, purpose, self._hosts.rank])


def _dense(features: Features) -> Array:
    rows: Array = features.toarray() if issparse(features) else features
    return rows


def _checked_labels(batch: Batch) -> Array:
    if batch.labels.shape[1] != 1:
        raise ClientError(
            f"{batch.place(0)}: there are {batch.labels.shape[1]} labels, but there must be one."
        )
    labels: Array = batch.labels[:, 0]
    wrong = numpy.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        row = int(wrong[0])
        raise ClientError(
            f"{batch.place(row)}: the label is {labels[row]:g}, but must be 1 for an anomaly or 0 for none."
        )
    return labels
