"""Curves in a rectangle of characters: readable in a log file too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 64, 14


@dataclass(frozen=True)
class Curve:
    """Points to draw with ``mark``, one character; ``name`` explains it below the chart."""

    name: str
    mark: str
    x: Sequence[float]
    y: Sequence[float]


def chart(curves: Sequence[Curve], *, width: int = WIDTH, height: int = HEIGHT) -> str:
    """The curves over common axes, later ones on top; points that are no finite numbers are left out.

    Where the values of one sign span more than two orders of magnitude, the vertical axis is logarithmic.
    """
    points = [
        [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for curve in curves
    ]
    xs = [x for each in points for x, _ in each]
    ys = [y for each in points for _, y in each]
    if not xs:
        return "(nothing to draw)"
    logarithmic = min(ys) > 0 and max(ys) / min(ys) > 100
    left, right, low, high = min(xs), max(xs), _level(min(ys), logarithmic), _level(max(ys), logarithmic)
    rows = [[" "] * width for _ in range(height)]
    for curve, each in zip(curves, points, strict=True):
        for x, y in each:
            column = _place(x, left, right, width)
            row = height - 1 - _place(_level(y, logarithmic), low, high, height)
            rows[row][column] = curve.mark
    labels = [f"{max(ys):.4g}", *[""] * (height - 2), f"{min(ys):.4g}"]
    margin = max(map(len, labels))
    lines = [f"{label:>{margin}} |{''.join(row).rstrip()}" for label, row in zip(labels, rows, strict=True)]
    lines.append(f"{'':>{margin}} +{'-' * width}")
    ends = f"{left:.6g}", f"{right:.6g}"
    lines.append(f"{'':>{margin}}  {ends[0]}{ends[1]:>{width - len(ends[0])}}")
    legend = "   ".join(
        f"{curve.mark} {curve.name}" for curve, each in zip(curves, points, strict=True) if each
    )
    return "\n".join([*lines, f"{'':>{margin}}  {legend}{' (logarithmic)' if logarithmic else ''}"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first is aligned to the left, the others to the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if at == 0 else f"{cell:>{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    )


def _level(value: float, logarithmic: bool) -> float:
    return math.log(value) if logarithmic else value


def _place(value: float, low: float, high: float, count: int) -> int:
    return round((value - low) / (high - low) * (count - 1)) if high > low else 0
