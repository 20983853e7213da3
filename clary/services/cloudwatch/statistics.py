"""CloudWatch's arithmetic: points into periods, periods into statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clary.faults import Invalid
from clary.telemetry.metric_store import Point

_MINUTE, _DAY = 60.0, 86_400.0
_FINE_PERIODS = (1, 5, 10, 20, 30)
# How old a start is, in days -> to what it is rounded down.
_ROUNDING = ((63, 3600.0), (15, 300.0))


def check_range(start: float, end: float, period: int) -> None:
    """Raises `Invalid` for a range without length or a period that CloudWatch does not have."""
    if start == end:
        raise Invalid(
            "The parameter StartTime must not equal parameter EndTime.", code="InvalidParameterValue"
        )
    if start > end:
        raise Invalid(
            "The parameter StartTime must be less than the parameter EndTime.",
            code="InvalidParameterCombination",
        )
    if period not in _FINE_PERIODS and (period < 1 or period % 60):
        raise Invalid(
            f"The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60, not {period}.",
            code="InvalidParameterValue",
        )


def rounded_start(start: float, period: int, now: float) -> float:
    """``start`` rounded down: to the minute, or more coarsely the older it is; finely for fine periods."""
    unit: float = period if period < _MINUTE else _MINUTE
    for days, coarse in _ROUNDING:
        if now - start > days * _DAY:
            unit = coarse
            break
    return start // unit * unit


def by_period(points: Sequence[Point], origin: float, period: int) -> list[tuple[float, list[Point]]]:
    """Points by the period that they fall into, counted from ``origin``; only periods that have some."""
    groups: dict[float, list[Point]] = {}
    for point in points:
        groups.setdefault(origin + (point.at - origin) // period * period, []).append(point)
    return sorted(groups.items())


def statistic(name: str, points: Sequence[Point]) -> float | None:
    """One statistic over ``points``; ``None`` if they do not tell it.

    ``p99.9`` is a percentile, which statistic sets of differing samples do not tell. Raises `Invalid` for a
    name that is none.
    """
    share = percentile_of(name)
    if share is not None:
        return _percentile(points, share)
    count = math.fsum(point.count for point in points)
    if name == "SampleCount":
        return count
    if name == "Sum":
        return math.fsum(point.total for point in points)
    if name == "Average":
        return math.fsum(point.total for point in points) / count if count else None
    if name == "Minimum":
        return min(_low(point) for point in points)
    if name == "Maximum":
        return max(_high(point) for point in points)
    raise Invalid(
        f"The value {name} for parameter Statistic is invalid. Clary offers SampleCount, Sum, Average, "
        "Minimum, Maximum and percentiles from p0 to p100.",
        code="InvalidParameterValue",
    )


def check_statistic(name: str) -> None:
    """Raises `Invalid` for a name that is none."""
    statistic(name, [Point(0.0, 0.0)])


def percentile_of(name: str) -> float | None:
    """The share that ``p99.9`` stands for; ``None`` if ``name`` is no percentile."""
    number = name[1:]
    if name[:1] != "p" or not number.replace(".", "", 1).isdecimal() or not number.isascii():
        return None
    share = float(number) / 100
    return share if share <= 1 else None


def _percentile(points: Sequence[Point], share: float) -> float | None:
    """The value below which ``share`` of the samples lie, between the two nearest ones.

    Counts weigh: a value observed seven times is seven samples.
    """
    if any(_low(point) != _high(point) for point in points):
        return None
    samples = sorted((_low(point), point.count) for point in points if point.count > 0)
    total = math.fsum(count for _, count in samples)
    if not samples:
        return None
    place = share * (total - 1)  # of the samples, numbered from 0
    seen = 0.0
    for index, (value, count) in enumerate(samples):
        seen += count
        last = seen - 1  # the number of this value's last sample
        if place <= last or index == len(samples) - 1:
            return value
        if place < last + 1:
            return value + (samples[index + 1][0] - value) * (place - last)
    return samples[-1][0]


def _low(point: Point) -> float:
    return point.total / point.count if point.minimum is None else point.minimum


def _high(point: Point) -> float:
    return point.total / point.count if point.maximum is None else point.maximum
