"""``CLARY_DEBUGPY``: the script waits until a debugger attaches.

The variable is a port (``5678``), a host and port (``0.0.0.0:5678``), or ``1`` for the usual port. The
sandbox shares the machine's network: an editor on the same machine attaches as to any local program.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

VARIABLE = "CLARY_DEBUGPY"
USUAL_PORT = 5678
# A line for a ``.pth`` file of an environment, which its interpreters execute as they start.
HOOK = "import clary.frameworks.debugger as found; found.run_entry_script_debugged()"
_LARGEST_PORT = 65_535
_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):)?(?P<port>[0-9]{1,5})\Z")


class NoDebugger(Exception):
    """A debugger was asked for that cannot listen; the message says why and what to do."""


def debugger_wanted() -> bool:
    """Whether the job asks for one."""
    return bool(os.environ.get(VARIABLE))


def await_debugger() -> None:
    """Listen and wait for a debugger, if the job asks for one. Raises `NoDebugger`."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    host, port = listening_address(wanted)
    try:
        debugpy = importlib.import_module("debugpy")
    except ModuleNotFoundError:
        raise NoDebugger(
            f"{VARIABLE} is set, but debugpy is not installed here: name debugpy in a requirements.txt "
            "beside the script, or install it for every job beside Clary (pip install 'clary[debug]')"
        ) from None
    debugpy.configure(subProcess=False)  # a data loader's processes must not wait, nor take over the session
    try:
        host, port = debugpy.listen((host, port))
    except (OSError, RuntimeError) as error:
        raise NoDebugger(f"{VARIABLE}={wanted}: cannot listen on {host}:{port}: {error}") from None
    print(
        f'Waiting for a debugger on {host}:{port}. VS Code: a launch configuration with "type": "debugpy", '
        f'"request": "attach", "connect": {{"host": "{host}", "port": {port}}}, "pathMappings": '
        f'[{{"localRoot": "${{workspaceFolder}}", "remoteRoot": "{Path.cwd()}"}}].',
        flush=True,
    )
    debugpy.wait_for_client()
    print("A debugger is attached.", flush=True)


def run_entry_script_debugged() -> None:
    """Start anew under `debugged` if this interpreter was to run the script that the SDK names as the job's.

    For the start of every interpreter of a job's own environment (`HOOK`): what starts the script
    (``SM_ENTRY_SCRIPT``), and the processes beside it, do not wait.
    """
    script = os.environ.get("SM_ENTRY_SCRIPT", "")
    words = sys.orig_argv[1:]
    place = next((place for place, word in enumerate(words) if not word.startswith("-")), None)
    ranks = (os.environ.get("RANK", "0"), os.environ.get("SM_CURRENT_HOST_RANK", "0"))
    if script and place is not None and words[place] == script and ranks == ("0", "0"):
        ours = ["-m", "clary.frameworks.debugged"]
        os.execv(sys.executable, [sys.executable, *ours, *words[place:]])


def listening_address(wanted: str) -> tuple[str, int]:
    """Host and port of a value of the variable. Raises `NoDebugger`."""
    if wanted.lower() in ("1", "true"):
        return "127.0.0.1", USUAL_PORT
    match = _ADDRESS.match(wanted)
    port = int(match["port"]) if match else 0
    if not match or not 0 < port <= _LARGEST_PORT:
        raise NoDebugger(f"{VARIABLE} must be a port or host:port (5678, 127.0.0.1:5678), not '{wanted}'")
    return (match["host"] or "127.0.0.1").strip("[]"), port
