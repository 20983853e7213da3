"""Trains the built-in Factorization Machines, on one host or several, from a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import numpy.typing
from threadpoolctl import threadpool_limits

from clary.algorithms.algorithm import Direction
from clary.algorithms.cluster import joined
from clary.algorithms.collective import Collective
from clary.algorithms.factorization_machines.machine import Machine, Plan, make_plan
from clary.algorithms.factorization_machines.model import Model
from clary.algorithms.factorization_machines.spec import SPEC
from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.formats.content_type import RECORDIO
from clary.algorithms.formats.streams import NoData
from clary.algorithms.gradients import Gradient, total_parts, total_step
from clary.algorithms.job import Job
from clary.algorithms.log_lines import LogLines
from clary.algorithms.passes import ZERO_OR_ONE, Channel, mini_batches, pieces
from clary.algorithms.records import Batch

Array = numpy.typing.NDArray[Any]

_PIECE_ROWS = 4096
_BATCHES_PER_LINE = 100
_DIRECTIONS: Mapping[str, Direction] = {
    "binary_classification_accuracy": "Maximize",
    "binary_f_1.000": "Maximize",
}


def train(job: Job) -> None:
    """Train and write ``model/model_algo-1``, on the first host of several. Every host trains on the rows of
    its own channels.

    Raises `ClientError`, `HostLost` and `NothingTrained`.
    """
    plan = make_plan(SPEC.complete(job.hyperparameters))
    with joined(job) as cluster, threadpool_limits(1), numpy.errstate(over="ignore", invalid="ignore"):
        _Training(job, plan, Collective(cluster)).run()


class _Training:
    def __init__(self, job: Job, plan: Plan, collective: Collective) -> None:
        self._job, self._plan, self._collective = job, plan, collective
        self._leads = collective.rank == 0  # what is known to all, one tells
        self._log = LogLines(job, "factorization-machines")
        rule = ZERO_OR_ONE if plan.binary else None
        self._channels = {
            name: Channel(job, name, rule, plan.features, (RECORDIO,))
            for name in ("train", "test")
            if job.channel(name) is not None
        }
        self._machine = Machine(plan)
        self._stopped = False

    def run(self) -> None:
        for epoch in range(self._plan.epochs):
            began = time.time()
            sums = self._epoch(epoch)
            if not numpy.isfinite(sums.values).all():
                raise ClientError(
                    "Training has diverged: the loss is no finite number. Set lower bias_lr, linear_lr and "
                    "factors_lr, or a clip_gradient."
                )
            if self._stopped:
                break
            self._tell(f"epoch={epoch}, ", "train", sums)
            self._log.progress((epoch + 1) / self._plan.epochs)
            self._log.throughput("train", int(sums.values[0]), time.time() - began)
        model = Model(self._plan.binary, *self._machine.arrays())
        if self._leads:
            model.save(self._job.model)
        if self._stopped:
            return
        for split in self._channels:
            found = self._evaluate(split, model)
            if found is None:
                return
            self._tell("", split, found)
            if self._leads:
                for name, value in found.metrics().items():
                    self._log.score(split, name, value)

    def _epoch(self, epoch: int) -> _Sums:
        """One pass over the training rows of every host; the sums of all, of scores as they came."""
        machine, collective = self._machine, self._collective
        size = max(1, self._plan.mini_batch_size // collective.size)
        windows = self._optional(self._channels["train"].windows())
        batches = mini_batches(windows, size, epoch, collective.rank)
        sums = _Sums(self._plan.binary)
        number = 0
        while True:
            try:
                features, labels = next(batches, (None, None))
            except NothingTrained:
                if not machine.steps:
                    raise
                features, labels = None, None
            gradient = Gradient(
                numpy.zeros((1, self._plan.factors + 1), numpy.float32), numpy.zeros(0, numpy.int64)
            )
            rows = 0
            if labels is not None:
                batch, rows = machine.batch(features), len(labels)
                mine = _Sums(self._plan.binary)
                mine.add(batch.scores, labels)
                sums.values += mine.values
                gradient = batch.gradient(_slopes(batch.scores, labels, self._plan.binary))
                if self._leads and number % _BATCHES_PER_LINE == 0:
                    self._tell(f"epoch={epoch}, batch={number} ", "train", mine)
            step = total_step(collective, gradient, rows, self._job.stop_requested)
            if step.rows:
                machine.step(step.gradient, step.rows)
                collective.stops = False  # there is something to keep
            if step.stopped:
                self._stopped = True
                if not machine.steps:
                    raise NothingTrained
                self._log.say("Told to stop: keeping the model as it is")
                return sums
            if not step.rows:
                [sums.values] = total_parts(collective, [sums.values])
                return sums
            number += 1

    def _evaluate(self, split: str, model: Model) -> _Sums | None:
        """The sums over the rows of a channel, of all hosts; ``None`` if told to stop meanwhile."""
        sums = _Sums(self._plan.binary)
        stopped = False
        try:
            for features, labels in pieces(self._optional(self._channels[split].windows()), _PIECE_ROWS):
                sums.add(model.raw_scores(features), labels)
        except NothingTrained:  # the other hosts wait for this one's sums
            stopped = True
        found = total_parts(self._collective, [sums.values, numpy.array([stopped], numpy.int64)])
        sums.values = found[0]
        return None if found[1].any() else sums

    def _optional(self, windows: Iterator[Batch]) -> Iterator[Batch]:
        """Of several hosts, one may have no data."""
        try:
            yield from windows
        except NoData:
            if self._collective.size == 1:
                raise

    def _tell(self, where: str, split: str, sums: _Sums) -> None:
        if not self._leads:
            return
        for name, value in sums.metrics().items():
            self._log.quality(f"{split} {name}", value, _DIRECTIONS.get(name, "Minimize"), where)


def _slopes(scores: Array, labels: Array, binary: bool) -> Array:
    return (numpy.tanh(scores / 2) + 1) / 2 - labels if binary else 2 * (scores - labels)


class _Sums:
    """Sums over rows: how many, then squares and sizes of errors, or losses, hits, alarms and misses."""

    def __init__(self, binary: bool) -> None:
        self._binary = binary
        self.values = numpy.zeros(6)

    def add(self, scores: Array, labels: Array) -> None:
        scores, truth = scores.astype(numpy.float64), labels.astype(numpy.float64)
        if not self._binary:
            errors = scores - truth
            self.values += [len(labels), (errors**2).sum(), numpy.abs(errors).sum(), 0, 0, 0]
            return
        said, positive = scores >= 0, truth > 0
        losses = numpy.logaddexp(0, scores) - truth * scores
        self.values += [
            len(labels), losses.sum(), (said & positive).sum(), (said & ~positive).sum(),
            (~said & positive).sum(), (~said & ~positive).sum(),
        ]  # fmt: skip

    def metrics(self) -> Mapping[str, float]:
        rows, first, second, alarms, misses, rejections = self.values.tolist()
        if not rows:
            return {}
        if not self._binary:
            return {"rmse": (first / rows) ** 0.5, "mse": first / rows, "absolute_loss": second / rows}
        return {
            "binary_classification_accuracy": (second + rejections) / rows,
            "binary_classification_cross_entropy": first / rows,
            "binary_f_1.000": 2 * second / max(2 * second + alarms + misses, 1),
        }
