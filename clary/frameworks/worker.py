"""One process of a script that a launcher (``torchrun``, ``mpirun``) starts several times.

Launchers do not pass on why a process failed. So what they start is this module, around the user's script,
and it leaves word in a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clary.frameworks.debugger import NoDebugger, await_debugger
from clary.frameworks.script import Ended, run_group, run_python

_NOTES = "CLARY_WORKER_NOTES"  # folder in which a process that fails leaves a file
_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # torchrun's, Open MPI's, MPICH's


def run_launcher(
    command: Sequence[str],
    script: Path,
    arguments: Sequence[str],
    code: Path,
    *,
    processes: int,
    variables: Mapping[str, str],
) -> Ended:
    """Run ``command``, followed by what makes it start ``script``; the first process to fail says why.

    ``processes`` is how many of them there will be on this host: they share its threads.
    """
    with tempfile.TemporaryDirectory(prefix="workers-") as notes:
        environment = {**os.environ, **_shared_threads(processes), **variables, _NOTES: notes}
        worker = ["-m", "clary.frameworks.worker", str(script.relative_to(code)), *arguments]
        ended = run_group(Path(command[0]).name, [*command, *worker], code, environment)
        return _first_failure(Path(notes)) or ended if ended.message else ended


def _shared_threads(processes: int) -> dict[str, str]:
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return {"OMP_NUM_THREADS": str(max(1, int(threads) // processes))} if threads.isdecimal() else {}


def _first_failure(notes: Path) -> Ended | None:
    for path in sorted(notes.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            return Ended(int(note["exit_code"]), str(note["message"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # its process was killed while it wrote
    return None


def main(arguments: Sequence[str]) -> int:
    """``SCRIPT ARGUMENTS``, in the folder of the source."""
    code = Path.cwd()
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    try:
        if rank == "0":
            await_debugger()
        ended = run_python(code / arguments[0], arguments[1:], code)
    except NoDebugger as error:
        ended = Ended(1, f"ClientError: {error}")
    if ended.message:
        note = Path(os.environ[_NOTES]) / f"{os.getpid()}.json"
        note.write_text(json.dumps(ended.__dict__), encoding="utf-8")
        for communicator in _world():
            communicator.Abort(ended.exit_code)  # at exit it would wait for the others, who wait for it
    return ended.exit_code


def _world() -> Iterator[Any]:
    """MPI's communicator of all processes, if the script has begun to use it."""
    library = sys.modules.get("mpi4py.MPI")
    with contextlib.suppress(AttributeError):
        if library is not None and library.Is_initialized() and not library.Is_finalized():
            yield library.COMM_WORLD


if __name__ == "__main__":
    from clary.frameworks.worker import main as run

    sys.exit(run(sys.argv[1:]))  # not this module's: the script's ``__main__`` takes its place
