"""Trains K-Means: a stream's centres on each host, shrunk to k of them, and moved to the middle of a sample.

The first two parts are the documented method. The last is Lloyd's method on as many records as are kept, all
of them where they are few: it costs little and makes the result as good as Lloyd's on all records.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy
from scipy.sparse import issparse

from clary.algorithms.cluster import joined
from clary.algorithms.collective import Collective
from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.first_party import chosen_names
from clary.algorithms.formats.ndarrays import write_arrays
from clary.algorithms.job import Job
from clary.algorithms.kmeans.clustering import (
    STARTS,
    Matrix,
    Step,
    Vector,
    exact_distances,
    lloyd,
    nearest,
    spread_start,
    take_step,
)
from clary.algorithms.kmeans.spec import MODEL_NAME, SPEC
from clary.algorithms.kmeans.stream import StreamCentres, candidates
from clary.algorithms.log_lines import LogLines
from clary.algorithms.records import Batch, Features
from clary.algorithms.sampling import RowSample
from clary.algorithms.shares import batches_to_score, own_batches

SEED = 20_171_129
AUTO_FACTOR = 10
AUTO_TRIALS = 10
# Of a batch of wide records; a batch is smaller rather than larger than this.
LARGEST_BATCH_BYTES = 128 * 1024 * 1024
# Records kept for the last part: so many, or so many for a centre, and no more than these bytes.
MOST_KEPT = 50_000
KEPT_PER_CENTRE = 1_000
MOST_KEPT_BYTES = 128 * 1024 * 1024
# Records times centres times features, in which all tries together may look at the kept records once.
WORK_OF_TRIES = 20_000_000
_BATCHES_PER_LINE = 100


@dataclass(frozen=True)
class Plan:
    width: int
    k: int
    epochs: int
    metrics: Sequence[str]
    factor: int
    half_life: int
    start: str
    lloyd_start: str
    lloyd_steps: int
    lloyd_trials: int
    tolerance: float
    batch_rows: int

    @property
    def kept_rows(self) -> int:
        return max(self.k, min(max(MOST_KEPT, KEPT_PER_CENTRE * self.k), MOST_KEPT_BYTES // (4 * self.width)))


def train(job: Job) -> None:
    """Train and write ``model/model_algo-1``, on the first host of several.

    Raises `ClientError`, `HostLost` and `NothingTrained`.
    """
    lines = LogLines(job, "AWS/KMeansWebscale")
    plan = _plan(job, lines)
    with joined(job) as cluster:
        hosts = Collective(cluster)
        training = _Training(job, plan, hosts, lines)
        training.read()
        centres = training.finish()
        if hosts.rank == 0:
            job.model.mkdir(parents=True, exist_ok=True)
            (job.model / MODEL_NAME).write_bytes(write_arrays([centres]))
        _score_test(job, plan, hosts, lines, centres)


class _Training:
    """One host's part; every host makes the same calls."""

    def __init__(self, job: Job, plan: Plan, hosts: Collective, lines: LogLines) -> None:
        self._job = job
        self._plan = plan
        self._hosts = hosts
        self._lines = lines
        self._sample = RowSample(plan.kept_rows, SEED + hosts.rank)
        # Points are looked at from the middle of the first ones, where 32 bits tell distances best.
        self._origin = numpy.zeros(plan.width, numpy.float32)
        self._stream = StreamCentres(numpy.zeros((0, plan.width)), 0)
        self._stopped = False

    def read(self) -> None:
        """Every epoch of the stream. A job that is told to stop goes on with what it has seen."""
        began = time.monotonic()
        seen = 0
        try:
            for epoch in range(self._plan.epochs):
                for number, batch in enumerate(self._batches(epoch)):
                    points = self._centred(batch.features)
                    loss = self._stream.add(points)
                    seen += len(batch)
                    if epoch == 0:
                        self._sample.add(Batch(points, batch.labels))
                    if number % _BATCHES_PER_LINE == 0:
                        self._lines.say(
                            f"epoch {epoch}, batch {number}: mean square distance {loss / len(batch):.6g}"
                        )
                self._lines.progress((epoch + 1) / self._plan.epochs)
                self._lines.metrics({"Total Records Seen": seen}, epoch=str(epoch))
        except NothingTrained:
            if not seen:
                raise
            self._lines.say(f"Told to stop: going on with the {seen} records seen")
        self._hosts.stops = False
        self._lines.throughput("train", seen, time.monotonic() - began)

    def finish(self) -> Matrix:
        """The k centres, (k, width) of float32, the same on every host."""
        k = self._plan.k
        centres = numpy.concatenate(self._hosts.everyones(self._stream.centres))
        weights = numpy.concatenate(self._hosts.everyones(self._stream.weights))
        self._lines.say(f"shrinking {len(centres)} centers into {k}")
        if self._hosts.rank == 0:
            starts = self._shrunk(centres.astype(numpy.float32), weights)
        else:
            starts = numpy.zeros((0, k, self._plan.width))
        starts = self._hosts.everyones(starts)[0]
        centres = starts[0]
        if not self._plan.half_life:  # a sample knows nothing of old and new
            # Where it costs little, each of the tries is followed to its end, and more from kept records:
            # the best one may be any.
            work = self._hosts.total(numpy.array([self._sample.kept]))[0] * centres.size
            most = max(1, int(WORK_OF_TRIES // work))
            if most > len(starts):
                starts = numpy.concatenate([starts, *self._hosts.everyones(self._more_starts())])
            followed = []
            for start in starts[:most]:
                followed.append(
                    lloyd(
                        self._take_step,
                        start,
                        self._plan.lloyd_steps,
                        self._plan.tolerance,
                        lambda: self._stopped,
                    )
                )
                if self._stopped:
                    break
            centres, _ = min(followed, key=lambda found: found[1])
        loss, count = self._losses(centres)
        _tell(self._lines, "train", self._plan.metrics, loss, count)
        return (centres + self._origin).astype(numpy.float32)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """This host's batches. Before the first one the hosts choose the stream's first centres together."""
        batches = own_batches(
            self._job,
            self._hosts,
            "train",
            rows=self._plan.batch_rows,
            width=self._plan.width,
            epoch=epoch,
        )
        first = next(batches, None)
        if epoch == 0:
            self._start(first)
        if first is not None:
            yield first
            yield from batches

    def _start(self, first: Batch | None) -> None:
        plan, hosts = self._plan, self._hosts
        if first is not None and len(first) < plan.batch_rows:
            self._lines.say(
                f"The first batch has {len(first)} records, fewer than mini_batch_size", "WARNING"
            )
        own = numpy.zeros((0, plan.width), numpy.float32)
        if first is not None:
            random = numpy.random.default_rng([SEED, hosts.rank])
            own = candidates(first.features, plan.k * plan.factor, plan.start, random)
        found = numpy.concatenate(hosts.everyones(own))
        if len(found) < plan.k:
            raise ClientError(
                f"k is {plan.k}, but the channel 'train' holds {len(found)} record(s); give more records, "
                "or a smaller k."
            )
        if hosts.size > 1:
            chosen = found[:0]
            if hosts.rank == 0:
                random = numpy.random.default_rng(SEED)
                chosen = candidates(found, plan.k * plan.factor, plan.start, random)
            found = hosts.everyones(chosen)[0]
        if not hosts.any(first is not None and issparse(first.features)):
            self._origin = found.mean(axis=0, dtype=numpy.float64).astype(numpy.float32)
        self._stream = StreamCentres(found - self._origin, plan.half_life)

    def _centred(self, features: Features) -> Features:
        if not self._origin.any():
            return features
        return (features.toarray() if issparse(features) else features) - self._origin

    def _shrunk(self, points: Matrix, weights: Vector) -> Matrix:
        """``k`` centres for the stream's, by each of several tries, the best one first."""
        plan = self._plan
        tries = []
        for trial in range(plan.lloyd_trials):
            random = numpy.random.default_rng([SEED, trial])
            start = STARTS[plan.lloyd_start](points, plan.k, random, weights)
            centres, loss = lloyd(
                lambda at: take_step(points, at, weights),
                start,
                plan.lloyd_steps,
                plan.tolerance,
                lambda: self._job.stop_requested,
            )
            mean = loss / max(weights.sum(), 1.0)
            self._lines.say(f"local kmeans attempt #{trial}. Current mean square distance {mean:.6f}")
            tries.append((loss, centres))
            if self._job.stop_requested:
                break
        tries.sort(key=lambda each: each[0])
        mean = tries[0][0] / max(weights.sum(), 1.0)
        self._lines.say(f"finished shrinking process. Mean Square Distance = {mean:.6g}")
        return numpy.stack([centres for _, centres in tries])

    def _more_starts(self) -> Matrix:
        """This host's share of starts by k-means++ on kept records, (starts, k, width)."""
        plan = self._plan
        if self._sample.kept < plan.k:
            return numpy.zeros((0, plan.k, plan.width))
        rows = self._sample.rows().features
        shares = range(self._hosts.rank, plan.lloyd_trials, self._hosts.size)
        starts = [
            spread_start(rows, plan.k, numpy.random.default_rng([SEED, 1, trial]), None) for trial in shares
        ]
        return numpy.array(starts, numpy.float64).reshape(len(starts), plan.k, plan.width)

    def _take_step(self, centres: Matrix) -> Step:
        """What all hosts' samples say of ``centres``."""
        k, width = centres.shape
        said = numpy.zeros(k * width + k + 2)
        if self._sample.seen:
            rows = self._sample.rows()
            step = take_step(rows.features, centres)
            said[:-1] = numpy.concatenate([step.sums.reshape(-1), step.weights, [step.loss]])
            said *= self._sample.seen / len(rows)
        said[-1] = self._job.stop_requested
        said = self._hosts.total(said)
        self._stopped = bool(said[-1])  # the same on every host: all leave off at the same step
        return Step(said[: k * width].reshape(k, width), said[k * width : -2], float(said[-2]))

    def _losses(self, centres: Matrix) -> tuple[float, int]:
        """The sum of squared distances of all hosts' records, by their samples, and how many they are."""
        said = numpy.zeros(2)
        if self._sample.seen:
            rows = self._sample.rows().features
            chosen, _ = nearest(rows, centres)
            mean = exact_distances(rows, centres, chosen).mean()
            said[:] = mean * self._sample.seen, self._sample.seen
        loss, count = self._hosts.total(said)
        return float(loss), int(count)


def _score_test(job: Job, plan: Plan, hosts: Collective, lines: LogLines, centres: Matrix) -> None:
    if job.channel("test") is None:
        lines.say("Test data is not provided.")
        return
    said = numpy.zeros(2)
    try:
        for batch in batches_to_score(job, hosts, "test", rows=plan.batch_rows, width=plan.width):
            chosen, _ = nearest(batch.features, centres)
            said += exact_distances(batch.features, centres, chosen).sum(), len(batch)
    except NothingTrained:
        lines.say("Told to stop: the test channel is not scored")
    loss, count = hosts.total(said)
    if count:
        _tell(lines, "test", plan.metrics, float(loss), int(count))


def _tell(lines: LogLines, split: str, metrics: Sequence[str], loss: float, count: int) -> None:
    for name in metrics:
        lines.quality(f"{split} {name}", loss / count if name == "msd" else loss, "Minimize")


def _plan(job: Job, lines: LogLines) -> Plan:
    values = SPEC.complete(job.hyperparameters)
    width, k = int(values["feature_dim"]), int(values["k"])
    factor, trials = values["extra_center_factor"], values["local_lloyd_num_trials"]
    if factor == "auto":
        lines.say(f"'extra_center_factor' was set to 'auto', evaluated to {AUTO_FACTOR}.")
    most_rows = max(1, LARGEST_BATCH_BYTES // (4 * width))
    return Plan(
        width=width,
        k=k,
        epochs=int(values["epochs"]),
        metrics=chosen_names(values["eval_metrics"]),
        factor=AUTO_FACTOR if factor == "auto" else int(factor),
        half_life=int(values["half_life_time_size"]),
        start=values["init_method"],
        lloyd_start=values["local_lloyd_init_method"],
        lloyd_steps=int(values["local_lloyd_max_iter"]),
        lloyd_trials=AUTO_TRIALS if trials == "auto" else int(trials),
        tolerance=float(values["local_lloyd_tol"]),
        batch_rows=max(k, min(int(values["mini_batch_size"]), most_rows)),
    )
