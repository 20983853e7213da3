"""Which fence around user code this machine allows."""

from __future__ import annotations

import shutil
import subprocess

_PROBE_SECONDS = 10.0
HOW_TO_INSTALL = (
    "Install it with the machine's package manager (apt install bubblewrap, dnf install bubblewrap, "
    'apk add bubblewrap), or set sandbox = "none" if only trusted code runs here.'
)


class SandboxUnavailable(Exception):
    """A sandbox is demanded, and this machine cannot make one; the message says how to get it."""


def bubblewrap_works() -> str:
    """Why bubblewrap cannot be used here, or "" if it can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed."
    command = [program, "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        probe = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap cannot be run: {error}"
    if probe.returncode != 0:
        return f"bubblewrap does not work on this machine: {probe.stderr.strip()}"
    return ""
