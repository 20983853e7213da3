"""A script under ``torchrun``: a launcher on each host, which starts processes and lets them meet."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clary.frameworks.distribution import PORT, Torchrun, cluster_variables
from clary.frameworks.script import Ended
from clary.frameworks.worker import run_launcher

# The command ``torchrun`` of jobs that bring a command of their own.
TORCHRUN_COMMAND = (
    "import sys\nfrom clary.frameworks.torchrun import torchrun_of_a_command\n"
    "sys.exit(torchrun_of_a_command(sys.argv[1:]))\n"
)


def torchrun_command(launch: Torchrun, program: str, arguments: Sequence[str]) -> list[str]:
    """What AWS's toolkit would run."""
    return ["torchrun", *_options(launch), program, *arguments]


def run_torchrun(launch: Torchrun, script: Path, arguments: Sequence[str], code: Path) -> Ended:
    """Run ``script`` on this host's part of the cluster; the first of its processes to fail says why."""
    command = [sys.executable, "-m", "torch.distributed.run", *_options(launch)]
    variables = cluster_variables(launch.cluster)
    return run_launcher(command, script, arguments, code, processes=launch.processes, variables=variables)


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
