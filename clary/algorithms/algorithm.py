"""What a built-in algorithm declares about itself, light enough for the server to read.

The folder is the registry: each sub-package with a ``spec.py`` that has a ``SPEC`` is an algorithm. Its
``train.py`` and ``predict.py`` are imported only where a task runs.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from clary import registry

Kind = Literal["Integer", "Continuous", "Categorical", "FreeText"]
Scaling = Literal["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"]
# What the platform itself adds to the hyperparameters of a tuning job's training jobs.
TUNING_OBJECTIVE = "_tuning_objective_metric"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; an end that is open does not belong."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = "(" if self.low_open or self.low == -math.inf else "["
        high = ")" if self.high_open or self.high == math.inf else "]"
        return f"{low}{_number(self.low)}, {_number(self.high)}{high}"


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:g}"


@dataclass(frozen=True)
class Tunable:
    """The range in which tuning is recommended."""

    low: float
    high: float
    scaling: Scaling = "Linear"


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter. Values arrive as text; ``default`` is text too."""

    name: str
    kind: Kind
    range: Range | None = None
    values: Sequence[str] = ()
    default: str | None = None
    required: bool = False
    tunable: Tunable | None = None

    def error(self, value: str) -> str | None:
        """Why ``value`` will not do, or ``None``."""
        text = value.strip()
        if self.kind == "Categorical":
            if text.lower() not in (choice.lower() for choice in self.values):
                return f"Hyperparameter {self.name}: '{value}' is not one of [{', '.join(self.values)}]"
            return None
        if self.kind == "FreeText":
            return None
        try:
            number = float(int(text)) if self.kind == "Integer" else float(text)
        except ValueError:
            words = "a whole number" if self.kind == "Integer" else "a number"
            return f"Hyperparameter {self.name}: '{value}' is not {words}"
        if not math.isfinite(number) or (self.range is not None and not self.range.holds(number)):
            return f"Hyperparameter {self.name}: '{value}' must be in {self.range or Range()}"
        return None

    def described_values(self) -> str:
        """The valid values, for a reader."""
        if self.kind == "Categorical":
            return ", ".join(self.values)
        return "any text" if self.kind == "FreeText" else str(self.range or Range())


@dataclass(frozen=True)
class Metric:
    """A metric that the log carries: ``regex`` finds it, group 1 is the number."""

    name: str
    regex: str
    direction: Literal["Maximize", "Minimize"]


@dataclass(frozen=True)
class Channel:
    name: str
    required: bool
    content_types: Sequence[str]
    input_modes: Sequence[str] = ("File", "FastFile")


def _no_rules(values: Mapping[str, str]) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class AlgorithmSpec:
    """An algorithm. ``tags`` maps an image repository to the tags that mean it; ``rules`` checks
    hyperparameters against one another and gives messages."""

    name: str
    tags: Mapping[str, Sequence[str]]
    hyperparameters: Sequence[Hyperparameter]
    metrics: Sequence[Metric]
    channels: Sequence[Channel]
    rules: Callable[[Mapping[str, str]], Sequence[str]] = field(default=_no_rules)

    def hyperparameter(self, name: str) -> Hyperparameter | None:
        return next((each for each in self.hyperparameters if each.name == name), None)


@functools.cache
def specs() -> Sequence[AlgorithmSpec]:
    """Every built-in algorithm, by name."""
    found = []
    for name in registry.member_names("clary.algorithms"):
        if name != "formats":
            found.append(importlib.import_module(f"clary.algorithms.{name}.spec").SPEC)
    return tuple(sorted(found, key=lambda spec: str(spec.name)))


def get_algorithm(name: str) -> AlgorithmSpec:
    """Raises ``KeyError``."""
    return {spec.name: spec for spec in specs()}[name]


def find_algorithm(repository: str, tag: str) -> AlgorithmSpec | None:
    """The algorithm that an image means, or ``None``."""
    for spec in specs():
        if tag in spec.tags.get(repository, ()):
            return spec
    return None


def check_hyperparameters(spec: AlgorithmSpec, values: Mapping[str, str]) -> list[str]:
    """What is wrong with ``values``, a sentence each; empty if nothing is."""
    errors = [
        f"Additional properties are not allowed ('{name}' was unexpected)"
        for name in sorted(values)
        if spec.hyperparameter(name) is None
        and name != TUNING_OBJECTIVE
        and not name.startswith("sagemaker_")
    ]
    for parameter in spec.hyperparameters:
        if parameter.name in values:
            error = parameter.error(values[parameter.name])
            if error:
                errors.append(error)
        elif parameter.required:
            errors.append(f"Hyperparameter {parameter.name} is required")
    return errors or list(spec.rules(values))
