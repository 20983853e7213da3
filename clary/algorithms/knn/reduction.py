"""Random projections that keep distances roughly: the same ones wherever a model is used, from its seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing

Array = numpy.typing.NDArray[numpy.float32]

_ROWS_AT_ONCE = 4096
LARGEST_DIMENSION = 1 << 24


@dataclass(frozen=True)
class Reduction:
    """``kind`` is ``sign`` or ``fjlt``; from ``input_dim`` features to ``target_dim``."""

    kind: str
    seed: int
    input_dim: int
    target_dim: int

    def described(self) -> Mapping[str, object]:
        return {
            "type": self.kind,
            "seed": self.seed,
            "target_dim": self.target_dim,
            "input_dim": self.input_dim,
        }

    def projector(self) -> _Signs | _Transform:
        return (_Signs if self.kind == "sign" else _Transform)(self)


def read_reduction(document: Any) -> Reduction:
    """What `Reduction.described` gave. Raises ``ValueError``."""
    if not isinstance(document, dict) or document.get("type") not in ("sign", "fjlt"):
        raise ValueError(f"its dimension_reduction is {document}")
    numbers = [number for name in ("seed", "input_dim", "target_dim")
               if type(number := document.get(name)) is int and 0 <= number < 1 << 63]  # fmt: skip
    if len(numbers) != 3:
        raise ValueError(f"its dimension_reduction is {document}")
    seed, width, target = numbers
    if not 0 < target <= width <= LARGEST_DIMENSION:
        raise ValueError(f"its dimension_reduction is {document}")
    return Reduction(str(document["type"]), seed, width, target)


class _Signs:
    """A matrix of signs."""

    def __init__(self, reduction: Reduction) -> None:
        count = reduction.input_dim * reduction.target_dim
        signs = _signs(numpy.random.PCG64(reduction.seed), count)
        self._matrix = signs.reshape(reduction.input_dim, -1) / numpy.float32(
            numpy.sqrt(reduction.target_dim)
        )

    def __call__(self, rows: Array) -> Array:
        return rows @ self._matrix


class _Transform:
    """Random signs, Hadamard's transform, and some of its results: a sum of all features in each."""

    def __init__(self, reduction: Reduction) -> None:
        bits = numpy.random.PCG64(reduction.seed)
        self._width = 1 << (reduction.input_dim - 1).bit_length()
        self._signs = _signs(bits, reduction.input_dim)
        order = numpy.argsort(bits.random_raw(self._width), kind="stable")
        self._chosen = numpy.sort(order[: reduction.target_dim])
        self._scale = numpy.float32(1 / numpy.sqrt(reduction.target_dim))

    def __call__(self, rows: Array) -> Array:
        found = numpy.empty((len(rows), len(self._chosen)), numpy.float32)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            spread = numpy.zeros((len(part), self._width), numpy.float32)
            spread[:, : part.shape[1]] = part * self._signs
            found[start : start + len(part)] = _hadamard(spread)[:, self._chosen] * self._scale
        return found


def _signs(bits: numpy.random.PCG64, count: int) -> Array:
    # The generator's own bits, which no version of the library may change.
    words = numpy.atleast_1d(bits.random_raw(-(-count // 64)))
    found = numpy.unpackbits(words.astype("<u8").view(numpy.uint8), count=count)
    return found.astype(numpy.float32) * 2 - 1


def _hadamard(rows: Array) -> Array:
    count, width = rows.shape
    step = 1
    while step < width:
        pairs = rows.reshape(count, width // (2 * step), 2, step)
        rows = numpy.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        step *= 2
    return rows.reshape(count, width)
