"""The fit doctor: what the errors of a run, on its training and its validation rows, say of the model.

The rules look at shape, not at one value: whether the training error grows or jumps (diverging), whether the
validation error turns while the training error goes on falling (overfitting), whether both still fall or stay
high together (underfitting), and how long nothing has changed (plateau). Where the two series could as well
be chance, there is no verdict. The thresholds were chosen on real runs of known fit; see the documentation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from statistics import median

from clary.evaluation.metrics import MetricKind, metric_kind
from clary.evaluation.series import Errors, Series, errors_of, grain, noise, smoothed

FEWEST_STEPS = 5
FEWEST_ROWS = 20  # of validation, as far as a metric that counts rows tells
_GUESSING = 1.3  # the training error over that of a model that knows nothing, from which on it diverges
_WORST_GUESS = math.log(100)  # a log loss that is worse than guessing, for up to a hundred classes
_GROWN = 1.3  # the training error at the end over where it began, from which on it diverges
_JUMP = 0.1  # the middle jump of the training error over its level, likewise
_JUMP_OF_A_GUESS = 0.03  # likewise, where the error is worse than guessing
_RISE = 0.03  # of the validation error since its best, from which on a model overfits
_TURN = 0.02  # how near its best the validation error is where it stops improving
_FORGOTTEN = 0.5  # the training error at the end over that at the turn: what it has learned by heart since
_EARLY = 1 / 3  # of the run: by when the turn must come if the validation error does not rise again
_BY_HEART = 0.3  # the training error over the validation error, likewise where the two are wide apart
_WIDE = 0.25  # what lies between the two, over the error of a model that knows nothing
_LONG_IDLE = 0.25  # of the run: where nothing has changed after that, it is a plateau before anything else
_NOTHING_LEFT = 0.05  # the training error over the validation error: all was learned by heart
_STILL_FALLING = 0.04  # of the validation error over the last fifth
_UNEXPLAINED = 0.35  # of what a model that knows nothing gets wrong
_CLOSE = 0.35  # how near the validation error is to the training error, relative to that
_STILL = 0.02  # a change that counts as none
_IDLE = 0.5  # of the run: how long nothing may change
_DEAF = 0.3  # the noise of the validation error over its level, from which on it tells nothing


class Verdict(str, Enum):
    """What is wrong with a model, or nothing."""

    UNDERFITTING = "Underfitting"
    OVERFITTING = "Overfitting"
    DIVERGING = "Diverging"
    PLATEAU = "Plateau"
    APPROPRIATE = "AppropriateFit"


@dataclass(frozen=True)
class Diagnosis:
    """A verdict, or ``None`` where the data cannot tell; ``reason`` says why in a sentence.

    ``since`` is the step from which on the verdict holds: where overfitting, the plateau or the divergence
    begins. ``cause`` names the rule that led to it: ``too-short`` and ``too-simple`` both underfit.
    ``numbers`` are those that the rules looked at, as errors (the distance from the best value possible).
    """

    verdict: Verdict | None
    reason: str
    cause: str
    since: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


def diagnose(
    train: Series,
    validation: Series,
    metric: str,
    *,
    hyperparameters: Mapping[str, str] | None = None,
    maximize: bool | None = None,
    baseline: float | None = None,
    validation_rows: int | None = None,
) -> Diagnosis:
    """The verdict on a run.

    ``metric`` is the metric's name; ``maximize`` overrules what the name says of its direction. ``baseline``
    is the value that a model scores that knows nothing, ``validation_rows`` the number of validation rows,
    where the caller knows them.
    """
    kind = metric_kind(metric, hyperparameters)
    up = kind.maximize if maximize is None else maximize
    ideal = kind.ideal if up == kind.maximize else (1.0 if up else 0.0)
    errors = errors_of(train, validation, ideal=ideal, maximize=up)
    ignorance = kind.ignorance
    if baseline is not None:
        ignorance = ideal - baseline if up else baseline - ideal
    return _Examination(errors, kind, ignorance, validation_rows).verdict()


class _Examination:
    """One run under the rules, which are tried in the order of `verdict`."""

    def __init__(
        self, errors: Errors, kind: MetricKind, ignorance: float | None, validation_rows: int | None
    ) -> None:
        self._errors = errors
        self._kind = kind
        self._ignorance = ignorance
        self._rows = validation_rows
        self._count = len(errors.steps)
        self._train = smoothed(errors.train)
        self._validation = smoothed(errors.validation)
        self.numbers: dict[str, float] = {"steps": float(self._count)}
        for name, values in (("train", self._train), ("validation", self._validation)):
            if values:
                self.numbers |= {
                    f"{name}_first": values[0],
                    f"{name}_last": _end(values),
                    f"{name}_best": min(values),
                    f"{name}_noise": noise(errors.train if name == "train" else errors.validation),
                }

    def verdict(self) -> Diagnosis:
        for rule in (
            self._broken,
            self._too_few_steps,
            self._grows,
            self._jumps,
            self._one_series,
            self._too_few_rows,
            self._turned,
            self._learned_by_heart,
            self._too_short,
            self._too_simple,
            self._idle,
        ):
            found = rule()
            if found is not None:
                return found
        share = self.numbers.get("unexplained")
        left = (
            f" {share:.0%} of what a model that knows nothing gets wrong is left."
            if share is not None
            else ""
        )
        return self._say(
            Verdict.APPROPRIATE,
            "appropriate",
            "the validation error fell with the training error to the end of the run, where it had about "
            f"stopped, and is still near its best.{left}",
        )

    # The rules. Each gives a diagnosis, or None if it has nothing to say.

    def _broken(self) -> Diagnosis | None:
        at = self._errors.broken_at
        if at is None:
            return None
        after = sum(step > at for step in self._errors.steps)
        if after > self._count / 2 and self._count >= FEWEST_STEPS:
            return None  # a stray value, not an end
        return self._say(
            Verdict.DIVERGING,
            "not-a-number",
            f"the error stopped being a finite number at step {_step(at)}.",
            since=at,
        )

    def _too_few_steps(self) -> Diagnosis | None:
        if self._count >= FEWEST_STEPS:
            return None
        return self._none(
            "too-few-steps",
            f"{self._count} steps with values are too few to see which way the errors go; "
            f"{FEWEST_STEPS} are the least.",
        )

    def _grows(self) -> Diagnosis | None:
        values = self._train
        if not values:
            return None  # a validation error may grow for other reasons
        first, last, best = values[0], _end(values), min(values)
        if not (last > _GROWN * first > 0 and last > _GROWN * best):
            return None
        at = max(index for index, value in enumerate(values) if value == best)
        return self._say(
            Verdict.DIVERGING,
            "grows",
            f"the training error grew from {_show(first)} to {_show(last)} instead of falling.",
            since=self._errors.steps[at],
        )

    def _jumps(self) -> Diagnosis | None:
        values = self._errors.train
        if not values:
            return None
        moves = [abs(after - before) for before, after in itertools.pairwise(values)]
        rises = math.fsum(max(0.0, after - before) for before, after in itertools.pairwise(values))
        level = median(values)
        jump = median(moves) / level if level > 0 else 0.0
        self.numbers["train_jump"] = jump
        fallen = max(0.0, values[0] - values[-1])
        if self._kind.floor and self._ignorance is None and level > _WORST_GUESS:
            if jump > _JUMP_OF_A_GUESS and rises > 0.5 * fallen:
                return self._worse_than_guessing(level)
        elif self._kind.log_loss and self._ignorance and _end(self._train) > _GUESSING * self._ignorance:
            return self._worse_than_guessing(_end(self._train))
        if jump <= _JUMP or rises <= fallen or (level < 0.5 * values[0] and level < 0.5 * self._ignorant()):
            return None
        return self._say(
            Verdict.DIVERGING,
            "jumps",
            f"the training error jumps by {jump:.0%} of itself from step to step and does not come down.",
            since=self._errors.steps[0],
        )

    def _worse_than_guessing(self, level: float) -> Diagnosis:
        return self._say(
            Verdict.DIVERGING,
            "worse-than-guessing",
            f"the training error ({_show(level)}) is worse than that of guessing, and does not come down.",
            since=self._errors.steps[0],
        )

    def _one_series(self) -> Diagnosis | None:
        if self._train and self._validation:
            return None
        missing = "validation" if self._train else "training"
        return self._none(
            "one-series",
            f"there is no {missing} series; with one series alone a good fit looks like a bad one.",
        )

    def _too_few_rows(self) -> Diagnosis | None:
        values = self._errors.validation
        rows = self._rows
        if rows is None and self._kind.counted and (size := grain(values)):
            rows = round(1 / size) if len(set(values)) > 1 or 0 < values[0] < 1 else None
        if rows is not None and rows < FEWEST_ROWS:
            self.numbers["validation_rows"] = rows
            return self._none(
                "too-few-rows",
                f"there are about {rows} validation rows: the error moves by {1 / max(rows, 1):.0%} with one "
                "row.",
            )
        spread = self.numbers["validation_noise"]
        level = median(self._validation)
        if (
            level > 0
            and spread > _DEAF * level
            and spread > 0.25 * (max(self._validation) - min(self._validation))
        ):
            return self._none(
                "noise",
                f"the validation error jumps by {spread / level:.0%} of itself without a trend: its rows are "
                "too few, or too unlike one another.",
            )
        return None

    def _turned(self) -> Diagnosis | None:
        best = min(self._validation)
        at = self._validation.index(best)
        last = _end(self._validation)
        rise = last - best
        self.numbers |= {"validation_rise": _share(rise, best), "best_step": self._errors.steps[at]}
        since = self._count - 1 - at
        if since < max(3, self._count / 10) or rise <= _RISE * best or rise <= 3 * self._noise_of_level():
            return None
        if _end(self._train) >= (1 - _STILL) * self._train[at]:
            return None
        return self._say(
            Verdict.OVERFITTING,
            "turned",
            f"the validation error was best at step {_step(self._errors.steps[at])} ({_show(best)}) and has "
            f"risen to {_show(last)} since, while the training error went on falling from "
            f"{_show(self._train[at])} to {_show(_end(self._train))}.",
            since=self._errors.steps[at],
        )

    def _learned_by_heart(self) -> Diagnosis | None:
        at = self._reached(
            self._validation,
            min(self._validation),
            max(_TURN * min(self._validation), self._noise_of_level()),
        )
        before, after = self._train[at], _end(self._train)
        last = _end(self._validation)
        self.numbers |= {"turn_step": self._errors.steps[at], "train_since_turn": _share(after, before)}
        power, whole = self._kind.power, self._ignorant() ** self._kind.power
        wide = _share(last**power - after**power, whole) if min(last, after) >= 0 else 0.0
        self.numbers["gap_of_ignorance"] = wide
        early = at <= _EARLY * self._count and after < _FORGOTTEN * before and last > 2 * after
        apart = at <= _IDLE * self._count and wide > _WIDE and after < _BY_HEART * last
        if not early and not apart:
            return None
        if self._idle_from() < _LONG_IDLE * self._count and after > _NOTHING_LEFT * last:
            return None  # what was learned by heart was learned at once; the rest of the run did nothing
        return self._say(
            Verdict.OVERFITTING,
            "by-heart",
            f"the validation error has not improved since step {_step(self._errors.steps[at])} "
            f"({_show(last)}), while the training error fell from {_show(before)} to {_show(after)}: what "
            "was learned since holds for the training rows only.",
            since=self._errors.steps[at],
        )

    def _too_short(self) -> Diagnosis | None:
        fifth = max(1, round(self._count / 5))
        falls = {}
        for name, values in (("train", self._train), ("validation", self._validation)):
            before, last = values[-1 - fifth], values[-1]
            falls[name] = _share(before - last, before)
            self.numbers[f"{name}_fall"] = falls[name]
        spread = self.numbers["validation_noise"] / max(abs(self._validation[-1]), 1e-300)
        if min(falls.values()) <= _STILL_FALLING or falls["validation"] <= 3 * spread:
            return None
        return self._say(
            Verdict.UNDERFITTING,
            "too-short",
            f"both errors were still falling when the run ended: by {falls['train']:.1%} (training) and "
            f"{falls['validation']:.1%} (validation) over the last {fifth} steps.",
        )

    def _too_simple(self) -> Diagnosis | None:
        power = self._kind.power
        last = _end(self._train)
        gap = _end(self._validation) - last
        unexplained = _share(max(last, 0.0) ** power, self._ignorant() ** power)
        self.numbers |= {"unexplained": unexplained, "gap": _share(gap, last)}
        if unexplained <= _UNEXPLAINED or gap > _CLOSE * last:
            return None
        return self._say(
            Verdict.UNDERFITTING,
            "too-simple",
            f"{unexplained:.0%} of the error of a model that knows nothing is left even on the training rows "
            f"({_show(last)}), and the validation error is close to it ({_show(_end(self._validation))}): "
            "the model is too simple or too restrained for the data, or the labels cannot be told from it.",
        )

    def _idle(self) -> Diagnosis | None:
        stopped = self._idle_from()
        self.numbers["idle_share"] = 1 - stopped / self._count
        if stopped > _IDLE * self._count:
            return None
        at = self._errors.steps[stopped]
        return self._say(
            Verdict.PLATEAU,
            "idle",
            f"neither error has changed since step {_step(at)}: the last {self._count - 1 - stopped} of "
            f"{self._count} steps brought nothing.",
            since=at,
        )

    # What the rules share.

    def _ignorant(self) -> float:
        """The error of a model that knows nothing, as well as it is known."""
        if self._ignorance is not None:
            return self._ignorance
        return max(
            self._errors.train[0],
            self._errors.validation[0] if self._errors.validation else 0.0,
            self._kind.floor,
        )

    def _noise_of_level(self) -> float:
        """The noise of a smoothed validation error."""
        return self.numbers["validation_noise"] / 2

    def _idle_from(self) -> int:
        """The place from which on neither error was worse than at the end, but for its scatter."""
        stopped = 0
        for values, spread in (
            (self._train, self.numbers["train_noise"]),
            (self._validation, self.numbers["validation_noise"]),
        ):
            last = _end(values)
            slack = max(_STILL * abs(last), 0.001 * (values[0] - last), 3 * spread, 1.5 * _scatter(values))
            worse = [index for index, value in enumerate(values) if value > last + slack]
            stopped = max(stopped, worse[-1] + 1 if worse else 0)
        return min(stopped, self._count - 1)

    def _reached(self, values: list[float], level: float, slack: float) -> int:
        return next(index for index, value in enumerate(values) if value <= level + slack)

    def _say(self, verdict: Verdict, cause: str, reason: str, since: float | None = None) -> Diagnosis:
        return Diagnosis(verdict, _sentence(reason), cause, since, dict(self.numbers))

    def _none(self, cause: str, reason: str) -> Diagnosis:
        return Diagnosis(None, _sentence(reason), cause, None, dict(self.numbers))


def _end(values: list[float]) -> float:
    """Where a series ended: the median of its last tenth."""
    return median(values[-max(1, len(values) // 10) :])


def _scatter(values: list[float]) -> float:
    """The deviation of the last third around its middle; a trend counts too."""
    tail = values[-max(3, len(values) // 3) :]
    middle = median(tail)
    return 1.4826 * median(abs(value - middle) for value in tail)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _show(value: float) -> str:
    return f"{value:.4g}"


def _step(step: float) -> str:
    return f"{step:g}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
