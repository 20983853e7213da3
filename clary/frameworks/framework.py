"""What script mode knows of a framework; each sub-package with a ``spec.py`` that has a ``SPEC`` is one."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from clary import registry


@dataclass(frozen=True)
class FrameworkSpec:
    """A framework whose images run the caller's script.

    ``repositories`` are the names of its images' repositories: any tag of them means the framework, in the
    version that is installed. ``packages`` are the distributions whose versions matter. ``library`` is the
    module without which the framework is not there, "" if there is none; ``installed_by`` is what a user
    gives to pip to have it, ``extra`` the extra of Clary that brings it. ``container`` is what a script sees
    of AWS's container (``SM_FRAMEWORK_MODULE``). ``handlers`` is the module with the default inference
    functions, "" where there is no serving.
    """

    name: str
    title: str
    repositories: Sequence[str]
    packages: Sequence[str]
    library: str = ""
    installed_by: str = ""
    extra: str = ""
    container: str = ""
    handlers: str = ""


@functools.cache
def specs() -> Sequence[FrameworkSpec]:
    """Every framework, by name."""
    found: list[FrameworkSpec] = []
    for name in registry.member_names("clary.frameworks"):
        module = f"clary.frameworks.{name}.spec"
        if importlib.util.find_spec(module):
            found.append(importlib.import_module(module).SPEC)
    return tuple(sorted(found, key=lambda spec: spec.name))


def get_framework(name: str) -> FrameworkSpec:
    """Raises ``KeyError``."""
    return {spec.name: spec for spec in specs()}[name]


def find_framework(repository: str, tag: str) -> FrameworkSpec | None:
    """The framework that an image means, or ``None``."""
    return next((spec for spec in specs() if repository in spec.repositories), None)
