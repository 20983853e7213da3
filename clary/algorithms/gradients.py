"""What hosts that learn by gradients add up: step by step, and sums of what is told at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing

from clary.algorithms.collective import Collective

Array = numpy.typing.NDArray[Any]


@dataclass(frozen=True)
class Gradient:
    """The sum over a batch's rows. ``values`` (features + 1, numbers), the last row the bias's; of these,
    ``features`` names the rows that are there, ``None`` meaning all."""

    values: Array
    features: Array | None = None


@dataclass(frozen=True)
class Step:
    """``rows`` are those of all hosts' batches; none means that no host has any left. ``stopped`` says that
    one of them is told to stop."""

    gradient: Gradient
    rows: int
    stopped: bool


def total_step(collective: Collective, gradient: Gradient, rows: int, stopped: bool) -> Step:
    """Every host calls this equally often; one that has no rows left gives an empty gradient."""
    if collective.size == 1:
        return Step(gradient, rows, stopped)
    if gradient.features is None:
        flat = numpy.append(gradient.values.ravel(), numpy.array([rows, stopped], numpy.float32))
        flat = collective.total(flat)
        values = flat[:-2].reshape(gradient.values.shape)
        return Step(Gradient(values), int(flat[-2]), bool(flat[-1]))
    said = collective.total(numpy.array([rows, stopped], numpy.int64))
    everyones = collective.everyones(gradient.features.astype(numpy.int64))
    features, places = numpy.unique(numpy.concatenate(everyones), return_inverse=True)
    values = numpy.zeros((len(features) + 1, gradient.values.shape[1]), numpy.float32)
    start = 0
    for own, part in zip(everyones, collective.everyones(gradient.values), strict=True):
        values[places[start : start + len(own)]] += part[:-1]
        values[-1] += part[-1]
        start += len(own)
    return Step(Gradient(values, features), int(said[0]), bool(said[1]))


def total_parts(collective: Collective, parts: Sequence[Array]) -> Sequence[Array]:
    """The sums of all hosts' parts."""
    return [collective.total(part) for part in parts]
