"""Builds a job's own Python environment: a virtual environment over Clary's, with ``requirements.txt`` in it.

Runs as a program of its own in the sandbox: what pip executes is somebody else's code.
"""

from __future__ import annotations

import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

# Beside the environment's own packages, those of the interpreter it was made from: a virtual environment
# of a virtual environment does not see them by itself.
_INHERIT = "_clary_packages.pth"


def main(arguments: list[str]) -> int:
    """Build at the folder ``arguments[0]`` from the file ``arguments[1]``; pip's exit code."""
    target, requirements = Path(arguments[0]), Path(arguments[1])
    # Clearing leaves the folder itself: in a sandbox it is a mount point.
    venv.EnvBuilder(clear=True, system_site_packages=False, symlinks=True, with_pip=False).create(target)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(target), "platbase": str(target)}))
    inherited = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    lines = [f"import site; site.addsitedir({path!r})" for path in inherited if Path(path).is_dir()]
    (packages / _INHERIT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    python = str(target / "bin" / "python")
    command = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "-r", str(requirements)]
    return subprocess.run(command, cwd=requirements.parent, stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
