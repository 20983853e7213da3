"""A script under ``torchrun``: one launcher on each host, which starts the script's processes and joins them.

What torchrun starts is this module too, `main`, around the user's script: so a process that fails leaves word
of its exception, which torchrun itself does not pass on.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clary.frameworks.debugger import NoDebugger, await_debugger
from clary.frameworks.distribution import PORT, Torchrun, cluster_variables
from clary.frameworks.script import Ended, run_group, run_python

# The command ``torchrun`` of jobs that bring a command of their own.
TORCHRUN_COMMAND = (
    "import sys\nfrom clary.frameworks.torchrun import torchrun_of_a_command\n"
    "sys.exit(torchrun_of_a_command(sys.argv[1:]))\n"
)
_NOTES = "CLARY_TORCHRUN_NOTES"  # folder in which a process that fails leaves a file


def torchrun_command(launch: Torchrun, program: str, arguments: Sequence[str]) -> list[str]:
    """What AWS's toolkit would run."""
    return ["torchrun", *_options(launch), program, *arguments]


def run_torchrun(launch: Torchrun, script: Path, arguments: Sequence[str], code: Path) -> Ended:
    """Run ``script`` on this host's part of the cluster; the first of its processes to fail says why."""
    with tempfile.TemporaryDirectory(prefix="torchrun-") as notes:
        environment = {
            **os.environ,
            **cluster_variables(launch.cluster),
            **_shared_threads(launch.processes),
            _NOTES: notes,
        }
        ours = ["-m", "clary.frameworks.torchrun", str(script.relative_to(code))]
        command = [sys.executable, "-m", "torch.distributed.run", *_options(launch), *ours, *arguments]
        ended = run_group("torchrun", command, code, environment)
        return _first_failure(Path(notes)) or ended if ended.message else ended


def torchrun_of_a_command(arguments: Sequence[str]) -> int:
    """PyTorch's own ``torchrun``, but for the port that SageMaker's SDK names for every job alike.

    On AWS each host has a network of its own; here several jobs may share one.
    """
    theirs = str(PORT)
    ours = os.environ.get("PET_MASTER_PORT", theirs)
    words = list(arguments)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name not in ("--master_port", "--master-port"):
            continue
        if equals and value == theirs:
            words[place] = f"{name}={ours}"
        elif not equals and words[place + 1 : place + 2] == [theirs]:
            words[place + 1] = ours
    if words != list(arguments):
        print(f"torchrun meets at port {ours} instead of {theirs}, which all jobs would share.", flush=True)
    run = importlib.import_module("torch.distributed.run")
    return int(run.main(words) or 0)


def _options(launch: Torchrun) -> list[str]:
    cluster = launch.cluster
    return [
        f"--nnodes={len(cluster.hosts)}", f"--nproc_per_node={launch.processes}",
        f"--node_rank={cluster.rank}", f"--master_addr={cluster.address}", f"--master_port={cluster.port}",
    ]  # fmt: skip


def _shared_threads(processes: int) -> dict[str, str]:
    """The host's threads, divided among its processes."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return {"OMP_NUM_THREADS": str(max(1, int(threads) // processes))} if threads.isdecimal() else {}


def _first_failure(notes: Path) -> Ended | None:
    found = sorted(notes.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in found:
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            return Ended(int(note["exit_code"]), str(note["message"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # its process was killed while it wrote
    return None


def main(arguments: Sequence[str]) -> int:
    """``SCRIPT ARGUMENTS``, in the folder of the source: one process of torchrun's."""
    code = Path.cwd()
    script = code / arguments[0]
    try:
        if os.environ.get("RANK") == "0":
            await_debugger()
        ended = run_python(script, arguments[1:], code)
    except NoDebugger as error:
        ended = Ended(1, f"ClientError: {error}")
    if ended.message:
        note = Path(os.environ[_NOTES]) / f"{os.getpid()}.json"
        note.write_text(json.dumps(ended.__dict__), encoding="utf-8")
    return ended.exit_code


if __name__ == "__main__":
    from clary.frameworks.torchrun import main as run_worker

    sys.exit(run_worker(sys.argv[1:]))  # not this module's: the script's ``__main__`` takes its place
