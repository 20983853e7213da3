"""The folder is the registry: a family's members are the modules of its package.

To add an operation, an algorithm or a driver, add a file or a folder; nothing else is edited.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType


def modules(package: str) -> Iterator[ModuleType]:
    """Import and yield every module below ``package``, depth first, in name order.

    A module that cannot be imported is a bug and raises what its import raised.
    """
    root = importlib.import_module(package)
    for found in sorted(pkgutil.walk_packages(root.__path__, prefix=f"{package}."), key=lambda m: m.name):
        yield importlib.import_module(found.name)


def member_names(package: str) -> list[str]:
    """Names of the direct sub-packages of ``package``, without importing them."""
    root = importlib.import_module(package)
    return sorted(found.name for found in pkgutil.iter_modules(root.__path__) if found.ispkg)
