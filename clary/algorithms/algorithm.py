"""What a built-in algorithm declares about itself, light enough for the server to read.

The folder is the registry: each sub-package with a ``spec.py`` that has a ``SPEC`` is an algorithm. Its
``train.py`` and ``predict.py`` are imported only where a task runs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from clary import registry

Kind = Literal["Integer", "Continuous", "Categorical", "FreeText"]
Scaling = Literal["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"]
Direction = Literal["Maximize", "Minimize"]
# What the platform itself adds to the hyperparameters of a tuning job's training jobs.
TUNING_OBJECTIVE = "_tuning_objective_metric"
# What the SDK adds, for the toolkit and not for the algorithm.
SDK_PREFIX = "sagemaker_"

_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")


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
        return f"{low}{_shown(self.low)}, {_shown(self.high)}{high}"


def _shown(value: float) -> str:
    if math.isinf(value):
        return "+inf" if value > 0 else "-inf"
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


@dataclass(frozen=True)
class Tunable:
    """The range in which tuning is recommended."""

    low: float
    high: float
    scaling: Scaling = "Linear"


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter. Values arrive as text; ``default`` is text too.

    ``aliases`` are other names it may be given by. ``words`` may stand where a number is expected (``auto``).
    ``check`` looks at a value that a range or a list cannot describe (a list of metrics, nested lists) and
    says what is wrong with it.
    """

    name: str
    kind: Kind
    description: str = ""
    range: Range | None = None
    values: Sequence[str] = ()
    default: str | None = None
    required: bool = False
    tunable: Tunable | None = None
    aliases: Sequence[str] = ()
    words: Sequence[str] = ()
    check: Callable[[str], str | None] | None = None

    def error(self, value: str) -> str | None:
        """Why ``value`` will not do, or ``None``."""
        text = value.strip()
        wrong: str | None = None
        if self.canonical(text) in self.words:
            return None
        if self.kind == "Categorical":
            if self.canonical(text) not in self.values:
                wrong = f"'{value}' is not in [{', '.join(self.values)}]"
        elif self.kind == "FreeText":
            wrong = self.check(text) if self.check else None
        elif not (_INTEGER if self.kind == "Integer" else _NUMBER).match(text):
            words = "a whole number" if self.kind == "Integer" else "a number"
            wrong = f"'{value}' is not {words} in {self.described_values()}"
        elif not math.isfinite(float(text)) or not (self.range or Range()).holds(float(text)):
            wrong = f"'{value}' is not in {self.described_values()}"
        return f"Hyperparameter {self.name}: {wrong}" if wrong else None

    def canonical(self, value: str) -> str:
        """``value`` without surrounding space and, if it is one of ``values`` or ``words``, as it is spelled
        there."""
        text = value.strip()
        choices = (*self.values, *self.words)
        return next((choice for choice in choices if choice.lower() == text.lower()), text)

    def described_values(self) -> str:
        """The valid values, for a reader."""
        if self.kind == "Categorical":
            return ", ".join(self.values)
        if self.kind == "FreeText":
            return "any text"
        return " or ".join((str(self.range or Range()), *self.words))


@dataclass(frozen=True)
class Metric:
    """A metric that the log carries: ``regex`` finds it, group 1 is the number."""

    name: str
    regex: str
    direction: Direction


@dataclass(frozen=True)
class Channel:
    """A channel of training data. ``content_types`` are lower case; empty means any."""

    name: str
    required: bool
    content_types: Sequence[str]
    input_modes: Sequence[str] = ("File", "FastFile")


def _no_rules(values: Mapping[str, str]) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class AlgorithmSpec:
    """An algorithm.

    ``tags`` maps an image repository to the tags that mean it. ``rules`` checks hyperparameters (aliases
    resolved) against one another and gives messages. ``request_types`` and ``reply_types`` are the media
    types of inference, the default first. ``most_instances`` limits how many hosts may train one model
    together. ``extra`` names the optional part of Clary's installation that the algorithm needs, "" for the
    core.
    """

    name: str
    title: str
    tags: Mapping[str, Sequence[str]]
    hyperparameters: Sequence[Hyperparameter]
    metrics: Sequence[Metric]
    channels: Sequence[Channel]
    request_types: Sequence[str]
    reply_types: Sequence[str]
    most_instances: int = 1
    extra: str = ""
    rules: Callable[[Mapping[str, str]], Sequence[str]] = field(default=_no_rules)

    def hyperparameter(self, name: str) -> Hyperparameter | None:
        """The hyperparameter of this name or alias."""
        return next(
            (each for each in self.hyperparameters if name == each.name or name in each.aliases), None
        )

    def resolve(self, values: Mapping[str, str]) -> dict[str, str]:
        """``values`` under the hyperparameters' own names and in their spelling, without the SDK's."""
        found = {}
        for name, value in values.items():
            parameter = self.hyperparameter(name)
            if parameter is not None:
                found[parameter.name] = parameter.canonical(value)
            elif name == TUNING_OBJECTIVE:
                found[name] = value.strip()
        return found

    def complete(self, values: Mapping[str, str]) -> dict[str, str]:
        """``values``, resolved, and the defaults of what they leave out."""
        defaults = {each.name: each.default for each in self.hyperparameters if each.default is not None}
        return {**defaults, **self.resolve(values)}


@functools.cache
def specs() -> Sequence[AlgorithmSpec]:
    """Every built-in algorithm, by name."""
    found: list[AlgorithmSpec] = []
    for name in registry.member_names("clary.algorithms"):
        module = f"clary.algorithms.{name}.spec"
        if importlib.util.find_spec(module):
            found.append(importlib.import_module(module).SPEC)
    return tuple(sorted(found, key=lambda spec: spec.name))


def get_algorithm(name: str) -> AlgorithmSpec:
    """Raises ``KeyError``."""
    return {spec.name: spec for spec in specs()}[name]


def find_algorithm(repository: str, tag: str) -> AlgorithmSpec | None:
    """The algorithm that an image means, or ``None``."""
    return next((spec for spec in specs() if tag in spec.tags.get(repository, ())), None)


def check_hyperparameters(spec: AlgorithmSpec, values: Mapping[str, str]) -> list[str]:
    """What is wrong with ``values``, a sentence each; empty if nothing is."""
    errors = []
    given: dict[str, str] = {}
    for name in sorted(values):
        parameter = spec.hyperparameter(name)
        if parameter is None:
            if name != TUNING_OBJECTIVE and not name.startswith(SDK_PREFIX):
                errors.append(f"Additional properties are not allowed ('{name}' was unexpected)")
            continue
        if parameter.name in given:
            errors.append(
                f"Hyperparameter {parameter.name} is given twice, as '{given[parameter.name]}' and '{name}'"
            )
        given[parameter.name] = name
        error = parameter.error(values[name])
        if error:
            errors.append(error)
    errors += [
        f"Missing required hyperparameter: {parameter.name}"
        for parameter in spec.hyperparameters
        if parameter.required and parameter.name not in given
    ]
    objective = values.get(TUNING_OBJECTIVE, "").strip()
    if objective and objective not in {metric.name for metric in spec.metrics}:
        errors.append(f"Hyperparameter {TUNING_OBJECTIVE}: '{objective}' is not a metric of {spec.title}")
    return errors or list(spec.rules(spec.resolve(values)))
