"""Trains k-NN: a sample of the records of each host, in one index."""

from __future__ import annotations

import time

import numpy

from clary.algorithms.cluster import joined
from clary.algorithms.collective import Collective
from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.job import Job, processors
from clary.algorithms.knn.index import INNER_PRODUCT, L2, FlatIndex, Index, build_lists
from clary.algorithms.knn.model import Array, Model, Settings, prepare
from clary.algorithms.knn.reduction import Reduction
from clary.algorithms.knn.spec import FLAT, IVF_PQ, SPEC
from clary.algorithms.log_lines import LogLines
from clary.algorithms.records import Batch
from clary.algorithms.sampling import RowSample
from clary.algorithms.shares import batches_to_score, own_batches

SEED = 20_171_129
LARGEST_BATCH_BYTES = 64 * 1024 * 1024


def train(job: Job) -> None:
    """Train and write the model's files, on the first host of several.

    Raises `ClientError`, `HostLost` and `NothingTrained`.
    """
    lines = LogLines(job, "AWS/KNN")
    with joined(job) as cluster:
        training = _Training(job, Collective(cluster), lines)
        training.read()
        model = training.finish()
        if cluster.is_first:
            model.save(job.model)
        training.score(model)


class _Training:
    """One host's part; every host makes the same calls."""

    def __init__(self, job: Job, hosts: Collective, lines: LogLines) -> None:
        self._job = job
        self._hosts = hosts
        self._lines = lines
        self._values = SPEC.complete(job.hyperparameters)
        self._width = int(self._values["feature_dim"])
        most_rows = max(1, LARGEST_BATCH_BYTES // (4 * self._width))
        self._batch_rows = min(int(self._values["mini_batch_size"]), most_rows)
        self._sample = RowSample(-(-int(self._values["sample_size"]) // hosts.size), SEED + hosts.rank)

    def read(self) -> None:
        """The stream. A job that is told to stop goes on with what it has seen."""
        began = time.monotonic()
        try:
            for batch in own_batches(
                self._job, self._hosts, "train", rows=self._batch_rows, width=self._width, labelled=True
            ):
                self._check_labels(batch)
                self._sample.add(batch)
        except NothingTrained:
            if self._sample.seen < int(self._values["k"]):
                raise
            self._lines.say(f"Told to stop: going on with the {self._sample.seen} records seen")
        self._hosts.stops = False
        self._lines.progress(1.0)
        self._lines.metrics({"Total Records Seen": self._sample.seen})
        self._lines.throughput("train", self._sample.seen, time.monotonic() - began)

    def finish(self) -> Model:
        """The model of all hosts' samples, on every host."""
        values = self._values
        settings = self._settings()
        project = settings.reduction.projector() if settings.reduction else None
        width = settings.reduction.target_dim if settings.reduction else self._width
        parts = int(values["faiss_index_pq_m"]) if values["index_type"] == IVF_PQ else 0
        if parts:
            width = -(-width // parts) * parts
        rows, labels = numpy.zeros((0, width), numpy.float32), numpy.zeros(0, numpy.float32)
        if self._sample.seen:
            sample = self._sample.rows()
            rows = prepare(sample.features, settings.normalize, project, width).astype(numpy.float32)
            labels = sample.labels[:, 0].astype(numpy.float32)
        rows = numpy.concatenate(self._hosts.everyones(rows))
        labels = numpy.concatenate(self._hosts.everyones(labels))
        if len(rows) < settings.k:
            raise ClientError(
                f"k is {settings.k}, but the sample of the channel 'train' holds {len(rows)} record(s); give "
                "more records, a larger sample_size, or a smaller k."
            )
        self._lines.say(f"Index of {len(rows)} records of {width} numbers, {values['index_type']}")
        return Model(settings, self._index(rows, parts), labels)

    def score(self, model: Model) -> None:
        if self._job.channel("test") is None:
            self._lines.say("Test data is not provided.")
            return
        found: list[Array] = [numpy.zeros((0, 2), numpy.float64)]
        try:
            for batch in batches_to_score(
                self._job, self._hosts, "test", rows=self._batch_rows, width=self._width, labelled=True
            ):
                self._check_labels(batch)
                predicted = model.predict(batch.features).values
                found.append(numpy.column_stack([batch.labels[:, 0], predicted]).astype(numpy.float64))
        except NothingTrained:
            self._lines.say("Told to stop: the test channel is not scored")
        pairs = numpy.concatenate(self._hosts.everyones(numpy.concatenate(found)))
        if len(pairs):
            self._tell(pairs[:, 0], pairs[:, 1])

    def _tell(self, labels: Array, predicted: Array) -> None:
        if self._values["predictor_type"] == "classifier":
            accuracy = float((labels == predicted).mean())
            self._lines.quality("test accuracy", accuracy, "Maximize")
            self._lines.score("test", "accuracy", accuracy)
            self._lines.score("test", "macro_f_1.000", _macro_f1(labels, predicted))
            return
        gaps = labels - predicted
        mse = float((gaps**2).mean())
        self._lines.quality("test mse", mse, "Minimize")
        self._lines.score("test", "mse", mse)
        self._lines.score("test", "rmse", mse**0.5)
        self._lines.score("test", "absolute_loss", float(numpy.abs(gaps).mean()))

    def _settings(self) -> Settings:
        values = self._values
        reduction = None
        if "dimension_reduction_type" in values:
            target = int(values["dimension_reduction_target"])
            if values["index_type"] == IVF_PQ:
                parts = int(values["faiss_index_pq_m"])
                target = min(-(-target // parts) * parts, self._width)
            reduction = Reduction(values["dimension_reduction_type"], SEED, self._width, target)
        return Settings(
            self._width,
            int(values["k"]),
            values["predictor_type"],
            values["index_metric"] == "COSINE",
            reduction,
        )

    def _index(self, rows: Array, parts: int) -> Index:
        metric = L2 if self._values["index_metric"] == L2 else INNER_PRODUCT
        if self._values["index_type"] == FLAT:
            return FlatIndex(rows, metric)
        lists = self._values["faiss_index_ivf_nlists"]
        count = max(1, round(len(rows) ** 0.5)) if lists == "auto" else int(lists)
        return build_lists(rows, metric, count, parts, processors())

    def _check_labels(self, batch: Batch) -> None:
        if batch.labels.shape[1] != 1:
            raise ClientError(
                f"{batch.place(0)}: there are {batch.labels.shape[1]} labels, but k-NN takes one."
            )
        if self._values["predictor_type"] == "classifier":
            labels = batch.labels[:, 0]
            wrong = numpy.flatnonzero(labels != numpy.floor(labels))
            if wrong.size:
                raise ClientError(
                    f"{batch.place(int(wrong[0]))}: the label {labels[wrong[0]]:g} is no whole number, as a "
                    "classifier's must be."
                )


def _macro_f1(labels: Array, predicted: Array) -> float:
    scores = []
    for label in numpy.union1d(labels, predicted):
        hits = float(((labels == label) & (predicted == label)).sum())
        scores.append(2 * hits / float((labels == label).sum() + (predicted == label).sum()))
    return float(numpy.mean(scores))
