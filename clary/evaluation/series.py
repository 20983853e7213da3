"""A metric's values over a run, made comparable: lower is better, and both series are on the same steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, median_low

MOST_STEPS = 2000

# A normal deviation from third differences, which a smooth curve hardly has: they have sqrt(20) times it.
_THIRD_DIFFERENCES = 0.6745 * math.sqrt(20)


@dataclass(frozen=True)
class Series:
    """Values of one metric; ``steps`` (epochs, rounds, seconds: any measure that grows) has one for each."""

    values: Sequence[float]
    steps: Sequence[float] = ()

    def points(self) -> list[tuple[float, float]]:
        """(step, value) by step; of a step told twice (a run that began again) the last value counts."""
        steps = self.steps if len(self.steps) == len(self.values) else range(len(self.values))
        return sorted(
            {float(step): float(value) for step, value in zip(steps, self.values, strict=True)}.items()
        )


@dataclass(frozen=True)
class Errors:
    """Both series as errors. ``train`` and ``validation`` have a value for each of ``steps``.

    ``broken_at`` is the first step at which a value was no number or infinite, ``None`` if all were.
    Without one of the two series, its list is empty.
    """

    steps: tuple[float, ...]
    train: tuple[float, ...]
    validation: tuple[float, ...]
    broken_at: float | None


def errors_of(train: Series, validation: Series, *, ideal: float, maximize: bool) -> Errors:
    """Both series as errors on common steps: those of the validation series, which is often the sparser one.

    An error is the distance of a value from the ``ideal`` one; of the training series the last value at or
    before a step counts.
    """
    points = {"train": train.points(), "validation": validation.points()}
    broken = [step for each in points.values() for step, value in each if not math.isfinite(value)]
    usable = {
        name: [
            (step, ideal - value if maximize else value - ideal)
            for step, value in each
            if math.isfinite(value)
        ]
        for name, each in points.items()
    }
    broken_at = min(broken, default=None)
    one, other = usable["train"], usable["validation"]
    if not one or not other:
        only = one or other
        steps, values = tuple(step for step, _ in only), tuple(value for _, value in only)
        return _condensed(Errors(steps, values if one else (), values if other else (), broken_at))
    common: list[float] = []
    first: list[float] = []
    second: list[float] = []
    at = -1
    for step, value in other:
        while at + 1 < len(one) and one[at + 1][0] <= step:
            at += 1
        if at >= 0:
            common.append(step)
            first.append(one[at][1])
            second.append(value)
    return _condensed(Errors(tuple(common), tuple(first), tuple(second), broken_at))


def _condensed(errors: Errors) -> Errors:
    """A long run as `MOST_STEPS` steps at most: of each block of steps the last, and the lower median value.

    Only values that were there are kept: a share of rows stays one.
    """
    count = len(errors.steps)
    size = -(-count // MOST_STEPS)
    if size <= 1:
        return errors
    starts = range(0, count, size)

    def blocks(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(median_low(values[start : start + size]) for start in starts) if values else ()

    steps = tuple(errors.steps[min(start + size, count) - 1] for start in starts)
    return Errors(steps, blocks(errors.train), blocks(errors.validation), errors.broken_at)


def noise(values: Sequence[float]) -> float:
    """The deviation of values around their own trend, which a few jumps do not change."""
    if len(values) < 4:
        return 0.0
    bends = [
        abs(values[i - 3] - 3 * values[i - 2] + 3 * values[i - 1] - values[i]) for i in range(3, len(values))
    ]
    return median(bends) / _THIRD_DIFFERENCES


def smoothed(values: Sequence[float]) -> list[float]:
    """Medians over a window of about a twentieth of the values, and of at least three."""
    reach = max(1, len(values) // 40)
    if len(values) < 5:
        return list(values)
    found = []
    for at in range(len(values)):
        near = min(reach, at, len(values) - 1 - at)  # narrower at the ends, or a trend there would be cut
        found.append(median(values[at - near : at + near + 1]))
    return found


def grain(values: Sequence[float]) -> float:
    """The step of which all values are multiples, if they look like counts of rows; else 0.

    A share of ``n`` rows can only be a multiple of ``1 / n``.
    """
    for rows in range(1, 201):
        if all(abs(value * rows - round(value * rows)) < 1e-4 * rows for value in values):
            return 1 / rows
    return 0.0
