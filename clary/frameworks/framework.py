"""What script mode knows of a framework; each sub-package with a ``spec.py`` that has a ``SPEC`` is one."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from clary import registry


@dataclass(frozen=True)
class FrameworkSpec:
    """``name`` is the image repository, as ``packages`` are the distributions whose versions matter.

    ``handlers`` is the module with the default inference functions.
    """

    name: str
    title: str
    packages: Sequence[str]
    handlers: str


@functools.cache
def specs() -> Sequence[FrameworkSpec]:
    """Every framework."""
    return tuple(
        importlib.import_module(f"clary.frameworks.{name}.spec").SPEC
        for name in registry.member_names("clary.frameworks")
    )


def get_framework(name: str) -> FrameworkSpec:
    """Raises ``KeyError``."""
    return {spec.name: spec for spec in specs()}[name]
