"""Which versions really run, beside what an image asks for; and what to do where a framework is missing."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from pathlib import Path

from clary.frameworks.framework import FrameworkSpec


class FrameworkMissing(Exception):
    """The framework that an image asks for is not installed; the message says what to do."""


def running_versions(framework: FrameworkSpec, asked: str) -> str:
    """One line: what the image asks for, and which packages of it run on which Python."""
    found = [f"{name} {version}" for name in framework.packages if (version := _version(framework, name))]
    python = f"Python {platform.python_version()}"
    wanted = f"{framework.name} {asked} asked; " if asked else ""
    return f"Framework {wanted}running {', '.join([*found, python])}"


def require(framework: FrameworkSpec, asked: str) -> None:
    """Raises `FrameworkMissing` if the framework's library is not there."""
    if not framework.library or importlib.util.find_spec(framework.library) is not None:
        return
    image = f"{framework.title} {asked}" if asked else framework.title
    install = f"clary[{framework.extra}]" if framework.extra else framework.installed_by
    raise FrameworkMissing(
        f"the image asks for {image}, but {framework.title} is not installed here: name "
        f"{framework.installed_by} in a requirements.txt beside the script, or install it for every job "
        f"beside Clary (pip install '{install}')"
    )


def _version(framework: FrameworkSpec, package: str) -> str:
    """The version of a distribution, "" if it is not there or another one brings the framework's library."""
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return ""
    rivals = framework.library and package.startswith(framework.library)
    if rivals and not _brings(found, framework.library):
        return ""
    return found.version


def _brings(distribution: metadata.Distribution, library: str) -> bool:
    """Whether ``library`` would be imported from where ``distribution`` is installed."""
    spec = importlib.util.find_spec(library)
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    home = Path(str(distribution.locate_file("")))
    return not places or any(place.is_relative_to(home) for place in places)
