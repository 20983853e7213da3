"""Runs a module's ``main`` in an interpreter of its own: ``python -m THIS MODULE ARGUMENTS``.

What the fork server does without one; a job with its own Python environment begins here.
"""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    del sys.path[0]  # the working directory: a job's folders are no packages
    sys.argv = sys.argv[1:]
    sys.exit(importlib.import_module(sys.argv[0]).main(sys.argv[1:]))
