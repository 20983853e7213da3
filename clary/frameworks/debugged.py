"""``python -m`` this: a script of a job's own command, run once a debugger is attached."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from clary.frameworks.debugger import NoDebugger, await_debugger
from clary.frameworks.script import run_python


def main(arguments: Sequence[str]) -> int:
    """``SCRIPT ARGUMENTS``, in the current folder; the script's exit code."""
    folder = Path.cwd()
    try:
        await_debugger()
    except NoDebugger as error:
        print(f"ClientError: {error}", file=sys.stderr, flush=True)
        return 1
    return run_python(folder / arguments[0], arguments[1:], folder).exit_code


if __name__ == "__main__":
    from clary.frameworks.debugged import main as run

    sys.exit(run(sys.argv[1:]))  # not this module's: the script's ``__main__`` takes its place
