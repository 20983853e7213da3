"""Trains the built-in Linear Learner, on one host or several, from a stream."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy
import numpy.typing
from threadpoolctl import threadpool_limits

from clary.algorithms.cluster import joined
from clary.algorithms.collective import Collective
from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.formats.streams import NoData
from clary.algorithms.gradients import Gradient, total_parts, total_step
from clary.algorithms.job import Job, processors
from clary.algorithms.linear_learner.evaluation import FinalTally, Tally, choose_threshold
from clary.algorithms.linear_learner.losses import make_loss
from clary.algorithms.linear_learner.model import Model
from clary.algorithms.linear_learner.parallel_models import ParallelModels
from clary.algorithms.linear_learner.plan import Plan, Setting, batch_size, make_plan, make_settings
from clary.algorithms.linear_learner.scaling import Moments, make_scaling
from clary.algorithms.linear_learner.spec import SPEC
from clary.algorithms.log_lines import LogLines
from clary.algorithms.passes import ZERO_OR_ONE, Channel, class_numbers, mini_batches, pieces
from clary.algorithms.records import Batch, Features

Array = numpy.typing.NDArray[Any]

# Below this much work in a step, a second thread costs more than it saves.
_OPERATIONS_WORTH_THREADS = 1 << 26
_MOST_SCORES = 1 << 22  # of one piece that is evaluated
_SAME = 0.25  # of a standard error


def train(job: Job) -> None:
    """Train and write ``model/model_algo-1``, on the first host of several. Every host trains on the rows of
    its own channels.

    Raises `ClientError`, `HostLost` and `NothingTrained`.
    """
    plan = make_plan(SPEC.resolve(job.hyperparameters))
    with joined(job) as cluster:
        _Training(job, plan, Collective(cluster)).run()


class _Training:
    def __init__(self, job: Job, plan: Plan, collective: Collective) -> None:
        self._job, self._plan, self._collective = job, plan, collective
        self._leads = collective.rank == 0  # what is known to all, one tells
        self._log = LogLines(job, "Linear Learner")
        rule = ZERO_OR_ONE if plan.is_binary else class_numbers(plan.classes) if plan.is_multiclass else None
        self._channels = {
            name: Channel(job, name, rule, plan.feature_dim)
            for name in ("train", "validation", "test")
            if job.channel(name) is not None
        }
        self._stopped = False

    def run(self) -> None:
        plan = self._plan
        moments = self._first_rows()
        self._width = len(moments.sums)
        self._scaling = make_scaling(plan, moments)
        self._settings = make_settings(plan, self._width)
        self._loss = make_loss(plan, self._scaling.label_deviation)
        self._unit = self._scaling.label_deviation**self._loss.power
        self._weights = _class_weights(plan, self._settings, moments.by_class)
        self._models = ParallelModels(plan, self._settings, self._width)
        scores = len(self._settings) * plan.classes
        self._piece = max(1, min(4096, _MOST_SCORES // scores))
        work = self._batch * self._width * scores
        threads = processors() if work > _OPERATIONS_WORTH_THREADS and not self._scaling.lazy else 1
        self._log.say(
            f"{len(self._settings)} model(s) of {self._width} {'sparse' if self._scaling.lazy else 'dense'} "
            f"feature(s), optimizer {plan.optimizer}, loss {plan.loss}, mini_batch_size {self._batch}, "
            f"{threads} thread(s)"
        )
        with threadpool_limits(threads), numpy.errstate(over="ignore", invalid="ignore"):
            tally = self._epochs()
            chosen, threshold = self._choose(tally)
            model = self._fold(chosen, threshold)
            if self._leads:
                model.save(self._job.model)
            self._log.say(f"Best model found for hyperparameters: {json.dumps(self._described(chosen))}")
            if not self._stopped:
                self._tell_final(model)

    def _first_rows(self) -> Moments:
        """The sums of the first rows of every host, which agree on the number of features."""
        plan, channel = self._plan, self._channels["train"]
        moments: Moments | None = None
        classes = 2 if plan.is_binary else plan.classes if plan.is_multiclass else 0
        share = -(-plan.scaler_rows // self._collective.size)
        with contextlib.closing(channel.windows()) as windows:
            whole = True
            for window in self._optional(windows):
                if moments is None:
                    moments = Moments(window.features.shape[1], classes)
                whole = moments.rows + len(window) <= share
                moments.add(window.part(0, share - moments.rows), classes)
                if not whole:
                    break
        width = len(moments.sums) if moments is not None else 0
        widths = [int(said["width"]) for said in self._collective.said({"width": width})]
        known = max(widths)
        if not known:
            raise ClientError("The channel 'train' holds no rows, on any host.")
        if any(each not in (0, known) for each in widths):
            told = ", ".join(f"{host} {each}" for host, each in zip(self._job.hosts, widths, strict=True))
            raise ClientError(f"The hosts' numbers of features differ: {told}. Set feature_dim.")
        for each in self._channels.values():
            each.width = known
        moments = moments or Moments(known, classes)
        found = total_parts(
            self._collective,
            [numpy.array([moments.rows, moments.sparse, not whole], numpy.int64),
             moments.sums, moments.squares, moments.present, moments.label, moments.by_class],
        )  # fmt: skip
        moments.rows, moments.sparse = int(found[0][0]), bool(found[0][1])
        self._batch = batch_size(plan, None if found[0][2] else moments.rows)
        moments.sums, moments.squares, moments.present, moments.label, moments.by_class = found[1:]
        return moments

    def _optional(self, windows: Iterator[Batch]) -> Iterator[Batch]:
        """Of several hosts, one may have no data."""
        try:
            yield from windows
        except NoData:
            if self._collective.size == 1:
                raise

    def _epochs(self) -> Tally | None:
        """Train. The sums over the validation rows after the last epoch, if there are."""
        plan = self._plan
        best, patience = math.inf, 0
        tally: Tally | None = None
        for epoch in range(plan.epochs):
            began = time.time()
            progress = Tally(plan, self._loss, len(self._settings))
            rows = self._epoch(epoch, progress)
            if self._stopped:
                return tally
            value = self._tell_epoch("train", epoch, progress, began)
            if "validation" in self._channels:
                tally = self._evaluate("validation")
                if tally is None:
                    return None
                value = self._tell_epoch("validation", epoch, tally, began)
                if plan.is_binary and plan.stops_on_criterion and plan.criterion != "loss_function":
                    value = -max(self._worth(tally, number)[0] for number in range(len(self._settings)))
            self._log.progress((epoch + 1) / plan.epochs)
            self._log.throughput("train", rows, time.time() - began)
            self._tell_criterion(epoch, value)
            if not math.isfinite(value):
                continue  # no model is fit yet, or ever: the choice will tell
            if best - value > plan.tolerance * abs(best if math.isfinite(best) else value):
                best, patience = value, 0
            else:
                patience += 1
                if patience >= plan.patience:
                    self._log.say(f"Early stop condition met. Stopping training after epoch {epoch}.")
                    break
        return tally

    def _epoch(self, epoch: int, progress: Tally) -> int:
        """One pass over the training rows of every host; how many this host has had."""
        models, collective = self._models, self._collective
        size = max(1, self._batch // collective.size)
        windows = self._optional(self._channels["train"].windows())
        batches = mini_batches(windows, size, epoch, collective.rank)
        while True:
            try:
                features, labels = next(batches, (None, None))
            except NothingTrained:
                if not models.steps:
                    raise
                features, labels = None, None
            rows = 0 if labels is None else len(labels)
            gradient = self._no_gradient()
            if labels is not None:
                scaled, wanted = self._scaling.features(features), self._scaling.labels(labels)
                scores = models.scores(scaled, averaged=False)
                progress.add(scores, wanted)
                slope = self._loss.gradient(scores, wanted)
                if self._weights is not None:
                    slope *= self._weights(labels)
                gradient = models.gradient(scaled, slope.astype(numpy.float32, copy=False))
            step = total_step(collective, gradient, rows, self._job.stop_requested)
            if step.rows:
                models.step(step.gradient, step.rows)
                collective.stops = False  # there is something to keep
            if step.stopped:
                self._stopped = True
                if not models.steps:
                    raise NothingTrained
                self._log.say("Told to stop: keeping the best model so far")
                return progress.rows
            if not step.rows:
                progress.take(total_parts(collective, progress.parts()))
                return progress.rows

    def _no_gradient(self) -> Gradient:
        width = len(self._settings) * self._plan.classes
        if self._scaling.lazy:
            return Gradient(numpy.zeros((1, width), numpy.float32), numpy.zeros(0, numpy.int64))
        if self._collective.size == 1:
            return Gradient(numpy.zeros((0, width), numpy.float32))
        return Gradient(numpy.zeros((self._width + 1, width), numpy.float32))

    def _evaluate(self, channel: str) -> Tally | None:
        """The sums of all models over the rows of ``channel``, of all hosts; ``None`` if told to stop."""
        plan = self._plan
        tally = Tally(plan, self._loss, len(self._settings), histogram_rows=plan.calibration_rows)
        self._models.finish_average()

        def add(features: Features, labels: Array) -> None:
            tally.add(self._models.scores(self._scaling.features(features)), self._scaling.labels(labels))

        return tally if self._pass_over(channel, tally, add) else None

    def _pass_over(
        self, channel: str, tally: Tally | FinalTally, add: Callable[[Features, Array], None]
    ) -> bool:
        """Add the rows of all hosts to ``tally``; false if a host was told to stop meanwhile."""
        stopped = False
        try:
            for features, labels in pieces(self._optional(self._channels[channel].windows()), self._piece):
                add(features, labels)
        except NothingTrained:  # there is something: the other hosts wait for this one's sums
            stopped = True
        *parts, stops = total_parts(self._collective, [*tally.parts(), numpy.array([stopped], numpy.int64)])
        tally.take(parts)
        self._stopped = self._stopped or bool(stops.any())
        return not self._stopped

    def _choose(self, tally: Tally | None) -> tuple[int, float]:
        """The best model's number, and its threshold."""
        if tally is None and not self._stopped:
            tally = self._evaluate("train")
        if tally is None or not tally.rows:
            return 0, 0.0
        losses = tally.mean_loss()
        if not numpy.isfinite(losses).any():
            raise ClientError(
                "Training has diverged: no model's loss is a finite number. Set a lower learning_rate, or "
                "normalize_data to true."
            )
        worths = [self._worth(tally, number) for number in range(len(losses))]
        best = max(value for value, _ in worths)
        if self._plan.is_binary and 0 < best < 1:
            # Shares of so many rows differ by chance: of models that are as good, the lower loss decides.
            best -= _SAME * math.sqrt(best * (1 - best) / tally.rows)
        equals = [number for number, (value, _) in enumerate(worths) if value >= best]
        number = min(equals, key=lambda each: float(losses[each]))
        return number, worths[number][1]

    def _worth(self, tally: Tally, number: int) -> tuple[float, float]:
        """How good a model is, higher being better, and the threshold that makes it so."""
        loss = float(tally.mean_loss()[number])
        if not math.isfinite(loss):
            return -math.inf, 0.0
        if not self._plan.is_binary or self._plan.criterion == "loss_function":
            return -loss, 0.0
        choice = choose_threshold(self._plan, tally.histogram[0, number], tally.histogram[1, number])
        return choice.value, choice.threshold

    def _fold(self, number: int, threshold: float) -> Model:
        weights, bias = self._scaling.unscaled(*self._models.model(number))
        return Model(self._plan.predictor_type, self._plan.loss, weights, bias, threshold)

    def _described(self, number: int) -> Mapping[str, object]:
        setting = self._settings[number]
        return {
            "optimizer": self._plan.optimizer,
            "learning_rate": setting.learning_rate,
            "wd": setting.wd,
            "l1": setting.l1,
            "lr_scheduler_step": setting.schedule_step,
            "lr_scheduler_factor": setting.schedule_factor,
            "lr_scheduler_minimum_lr": setting.schedule_minimum,
        }

    def _tell_epoch(self, split: str, epoch: int, tally: Tally, began: float) -> float:
        """The lowest of the models' losses."""
        losses = tally.mean_loss() * self._unit
        finite = losses[numpy.isfinite(losses)]
        best = float(finite.min()) if finite.size else math.nan
        if not self._leads:
            return best
        for number, loss in enumerate(losses):
            self._log.metrics(
                {f"{split}_{self._loss.objective}": float(loss)}, epoch=str(epoch), model=str(number)
            )
        self._log.quality(f"{split} {self._loss.objective}", best, "Minimize", f"epoch={epoch}, ")
        return best

    def _tell_criterion(self, epoch: int, value: float) -> None:
        plan = self._plan
        by_criterion = plan.is_binary and plan.stops_on_criterion and "validation" in self._channels
        name = plan.criterion if by_criterion and plan.criterion != "loss_function" else self._loss.objective
        self._log.say(
            f"#early_stopping_criteria_metric: host={self._job.current_host}, epoch={epoch}, "
            f"criteria={name}, value={abs(value)}"
        )

    def _tell_final(self, model: Model) -> None:
        """The chosen model's metrics on every channel, as it answers from now on."""
        loss = make_loss(self._plan)
        for split in self._channels:
            tally = FinalTally(self._plan, loss, model.threshold)

            def add(features: Features, labels: Array, tally: FinalTally = tally) -> None:
                scores = model.raw_scores(features)
                tally.add(scores[:, None, :] if self._plan.is_multiclass else scores, labels)

            if not self._pass_over(split, tally, add):
                return
            metrics = tally.metrics() if tally.rows and self._leads else {}
            for name, value in metrics.items():
                self._log.score(split, name, value)
            for name, value in metrics.items():
                lower = name in ("objective_loss", "mse", "absolute_loss", "rmse") or name.endswith(
                    "log_loss"
                )
                shown = self._loss.objective if name == "objective_loss" else name
                self._log.quality(f"{split} {shown}", value, "Minimize" if lower else "Maximize")


class _ClassWeights:
    """What a row counts in each model's loss: (rows, models), of a multiclass model (rows, 1, 1)."""

    def __init__(self, table: Array) -> None:
        self._table = table.astype(numpy.float32)

    def __call__(self, labels: Array) -> Array:
        return self._table[labels.astype(numpy.intp)]


def _class_weights(plan: Plan, settings: Sequence[Setting], counts: Array) -> _ClassWeights | None:
    """``counts`` are rows by class among the first rows; ``None`` where all count the same."""
    if plan.is_binary:
        balanced = float(counts[0] / counts[1]) if counts[:2].all() else 1.0
        positive = [
            balanced**setting.positive_share if plan.positive_weight is None else plan.positive_weight
            for setting in settings
        ]
        if all(weight == 1 for weight in positive):
            return None
        return _ClassWeights(numpy.array([[1.0] * len(settings), positive]))
    if not (plan.is_multiclass and plan.balance_classes):
        return None
    present = numpy.maximum(counts, 1)
    return _ClassWeights((counts.sum() / (plan.classes * present))[:, None, None])
