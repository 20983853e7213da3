"""Starts the shared algorithm fork server in its sandbox: builds the command, then becomes it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from clary.agent.runtimes import sandbox
from clary.agent.runtimes.fork_server import ForkServerOrder


def main(arguments: list[str]) -> NoReturn:
    """``python -m clary.agent.runtimes.launch MACHINE_JSON ORDER_JSON``; becomes the fork server."""
    machine, order = json.loads(arguments[0]), ForkServerOrder(**json.loads(arguments[1]))
    command = [sys.executable, "-m", "clary.agent.runtimes.fork_server"]
    separate = machine["fencing"] == "namespaces"
    if separate:
        bubblewrap = sandbox.bubblewrap_path()
        if bubblewrap is None:
            sys.exit("bubblewrap is not installed")
        folders = sandbox.Folders(
            Path(machine["tasks"]),
            Path(machine["environments"]),
            Path(machine["sockets"]),
            machine["file_systems"],
        )
        command = [*sandbox.shared_sandbox(bubblewrap, folders), *command]
    order = ForkServerOrder(**{**order.__dict__, "separate": separate})
    for descriptor in (order.listener, order.lifeline):
        os.set_inheritable(descriptor, True)
    # Numerical libraries read these when they are loaded, which is before any program says what it wants.
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS=str(os.cpu_count() or 1))
    os.execvp(command[0], [*command, order.to_argument()])


if __name__ == "__main__":
    main(sys.argv[1:])
