"""What an image URI stands for here: a built-in algorithm, a framework's script mode, or a container.

AWS's account numbers, regions and registries differ from place to place, so only the repository's name and
the tag count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clary.algorithms.algorithm import find_algorithm
from clary.frameworks.framework import find_framework

_URI = re.compile(
    r"(?:(?P<registry>[^/]+)/)?(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>.+))?\Z"
)


@dataclass(frozen=True)
class BuiltIn:
    """An algorithm of Clary's own, by its name (``xgboost``); ``version`` is the image's tag."""

    algorithm: str
    version: str


@dataclass(frozen=True)
class Framework:
    """A framework that runs the caller's script."""

    name: str
    version: str


@dataclass(frozen=True)
class Container:
    """An image that only a container engine can run."""

    uri: str


def resolve_image(uri: str, *, has_program: bool) -> BuiltIn | Framework | Container:
    """What ``uri`` stands for. ``has_program`` says that the caller brings a script.

    The XGBoost image is both an algorithm and, given a script, a framework.
    """
    repository, tag = repository_and_tag(uri)
    framework = find_framework(repository, tag)
    algorithm = find_algorithm(repository, tag)
    if framework and (has_program or algorithm is None):
        return Framework(framework.name, tag)
    if algorithm is not None:
        return BuiltIn(algorithm.name, tag)
    return Container(uri)


def repository_and_tag(uri: str) -> tuple[str, str]:
    """Name of the repository, without registry, and the tag (``latest`` if there is none)."""
    match = _URI.match(uri)
    if not match:
        return uri, "latest"
    return match["repository"].rpartition("/")[2], match["tag"] or "latest"
