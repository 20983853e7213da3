"""A job's own Python environment: a virtual environment over Clary's.

Building one from a ``requirements.txt`` or a package runs as a program of its own in the sandbox: what pip
executes is somebody else's code.
"""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

# Beside the environment's own packages, those of the interpreter it was made from: a virtual environment
# of a virtual environment does not see them by itself.
_INHERIT = "_clary_packages.pth"
_START_HOOK = "_clary_start.pth"  # after the other: it needs what that one inherits
_PIP_PREFIX = "PIP_"
# The environment goes with its job: nothing is kept, and nobody is there to answer.
_PIP_SETTINGS = {
    "no-input": "true", "disable-pip-version-check": "true", "root-user-action": "ignore",
    "no-cache-dir": "true", "progress-bar": "off",
}  # fmt: skip
_PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY")  # the later wins
_LARGEST_COMMAND_BYTES = 1 << 16
_PIP = "import sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
# How pip begins the commands it installs: an interpreter after "#!", after a shell where its path is long.
_COMMAND_BEGINS = (
    re.compile(rb"#!(/\S*python[0-9.]*)\s*\n"),
    re.compile(rb"#!/bin/sh\n'''exec' \"?(/[^\"\n]*?python[0-9.]*)\"? .*\n' '''\n"),
)


def main(arguments: list[str]) -> int:
    """Build at ``arguments[0]`` what ``pip install`` with the other arguments brings; pip's exit code.

    It runs in the current folder.
    """
    target = Path(arguments[0])
    create_environment(target)
    python = str(target / "bin" / "python")
    command = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", *arguments[1:]]
    return subprocess.run(command, stdin=subprocess.DEVNULL).returncode


def create_environment(target: Path) -> None:
    """Make an environment at ``target``, or make it anew, in which everything runs that Clary's own has.

    The commands of the inherited packages (``torchrun`` ...) are there as well and run in this environment,
    and so does ``pip``.
    """
    # Clearing leaves the folder itself: in a sandbox it is a mount point.
    venv.EnvBuilder(clear=True, system_site_packages=False, symlinks=True, with_pip=False).create(target)
    inherited = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    lines = [f"import site; site.addsitedir({path!r})" for path in inherited if Path(path).is_dir()]
    (_packages(target) / _INHERIT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    _inherit_commands(target / "bin")
    for name in ("pip", "pip3"):
        write_command(target / "bin", name, _PIP)


def write_start_hook(target: Path, line: str) -> None:
    """Have every interpreter of the environment execute ``line`` as it starts."""
    (_packages(target) / _START_HOOK).write_text(f"{line}\n", encoding="utf-8")


def _packages(target: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(target), "platbase": str(target)}))


def _inherit_commands(folder: Path) -> None:
    """Copy the Python commands that lie beside this interpreter, for the environment's interpreter."""
    ours = Path(sys.executable).parent
    for path in sorted(ours.iterdir()):
        if (
            (folder / path.name).exists()
            or not path.is_file()
            or path.stat().st_size > _LARGEST_COMMAND_BYTES
        ):
            continue
        text = path.read_bytes()
        for begins in filter(None, (pattern.match(text) for pattern in _COMMAND_BEGINS)):
            if Path(os.fsdecode(begins[1])).parent == ours:
                write_command(folder, path.name, os.fsdecode(text[begins.end() :]))


def write_command(folder: Path, name: str, code: str) -> None:
    """Make the Python ``code`` a command of the environment whose ``bin`` is ``folder``."""
    # Read by a shell first, since the kernel cuts long paths after "#!"; to Python those lines are a text.
    begins = f"#!/bin/sh\n'''exec' \"{folder / 'python'}\" \"$0\" \"$@\"\n' '''\n"
    path = folder / name
    path.write_text(begins + code, encoding="utf-8", errors="surrogateescape")
    path.chmod(0o755)


def write_pip_settings(target: Path, settings: Mapping[str, str]) -> None:
    """Have the environment's ``pip`` heed ``settings``, by the names of pip's variables."""
    values = dict(_PIP_SETTINGS)
    for variable in _PROXIES:
        if settings.get(variable):
            values["proxy"] = settings[variable]
    for variable, value in settings.items():
        if variable.startswith(_PIP_PREFIX):
            values[variable.removeprefix(_PIP_PREFIX).lower().replace("_", "-")] = value
    lines = [f"{name} = {value}".replace("\n", "\n    ") for name, value in values.items()]
    path = target / "pip.conf"
    path.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
    path.chmod(0o600)


def package_arguments(requirements: str, *, package: bool) -> Sequence[str]:
    """The arguments of ``pip install`` for a source: its file of requirements ("" if none), and itself."""
    return [*(["-r", requirements] if requirements else []), *(["."] if package else [])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
