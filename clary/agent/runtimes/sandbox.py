"""What a program sees of this machine: the arguments for bubblewrap.

The root is an empty, read-only tmpfs into which only what a Python program needs is bound read-only: the
system's libraries, the interpreter with its packages, Clary's own package, a handful of files of ``/etc``. So
home folders, Clary's data with its secrets, and whatever else lies on the machine simply are not there.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ML = "/opt/ml"
INPUT_DATA = "input/data"
READ_ONLY_FOLDERS = (INPUT_DATA, "input/config")  # of a task; what lies beside them in input/ is its own
TASKS = "/run/clary/tasks"  # the fork server's view; hidden from programs
SOCKETS = "/run/clary/sockets"  # likewise
ENVIRONMENTS = "/run/clary/environments"  # likewise
FILE_SYSTEMS = "/run/clary/file_systems"  # likewise
SOCKET_DIRECTORY = "/run/clary/socket"  # a program's own
PYTHON_ENVIRONMENT = "/opt/clary/environment"  # a job's own, read-only
HOSTS = "hosts"  # the file beside a task's ``ml`` that becomes its /etc/hosts
SCRATCH = "scratch"  # the folder beside a task's ``ml`` that holds its /tmp, so that this is on its volume
_SCRATCH_FOLDERS = {"/tmp": "tmp", "/var/tmp": "var-tmp"}

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_ETC = (
    "alternatives", "ca-certificates", "crypto-policies", "fonts", "group", "host.conf", "hosts",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "openssl",
    "passwd", "pip.conf", "pki", "protocols", "resolv.conf", "services", "ssl", "timezone",
)  # fmt: skip
_KERNEL = ("/sys/devices/system", "/sys/fs/cgroup", "/sys/module/nvidia")


def bubblewrap_path() -> str | None:
    """Where bubblewrap is, if it is installed."""
    return shutil.which("bwrap")


@dataclass(frozen=True)
class Folders:
    """Where this machine keeps what tasks need. All absolute."""

    tasks: Path
    environments: Path
    sockets: Path
    file_systems: Mapping[str, str] = field(default_factory=dict)  # id -> directory; see `mounts`


def scratch_folders(ml: Path) -> dict[str, Path]:
    """A task's own folders for what it keeps only while it runs, by their names as it sees them."""
    return {seen: ml.parent / SCRATCH / name for seen, name in _SCRATCH_FOLDERS.items()}


def make_scratch_folders(ml: Path) -> None:
    """Make them, empty or as they were."""
    for folder in scratch_folders(ml).values():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o1777)


def shared_sandbox(bubblewrap: str, folders: Folders) -> list[str]:
    """The command prefix for the fork server that makes a sandbox of its own for each program.

    It keeps the capabilities of its user namespace for that; the programs do not get them.
    """
    return [
        *_view(bubblewrap),
        *("--dir", ML, "--dir", SOCKET_DIRECTORY, "--dir", PYTHON_ENVIRONMENT),
        *("--bind", str(folders.tasks), TASKS),
        *("--bind", str(folders.sockets), SOCKETS),
        *("--bind", str(folders.environments), ENVIRONMENTS),
        *("--dir", FILE_SYSTEMS),
        *(
            word
            for name, directory in folders.file_systems.items()
            for word in ("--bind-try", directory, f"{FILE_SYSTEMS}/{name}")
        ),
        *("--remount-ro", "/", "--cap-add", "ALL", "--chdir", "/"),
    ]


def single_sandbox(
    bubblewrap: str,
    ml: Path,
    *,
    socket_directory: Path | None,
    environment: Path | None,
    environment_writable: bool,
    network: bool,
    read_only_paths: Sequence[str] = (),
    own_channels: Sequence[str] = (),
    mounts: Sequence[tuple[str, str, bool]] = (),
    host_name: str = "",
) -> list[str]:
    """The command prefix for one program in a sandbox of its own.

    ``mounts`` are (directory, path below ``/opt/ml``, read-only).
    """
    command = [*_view(bubblewrap, scratch_folders(ml)), "--unshare-pid", "--unshare-ipc"]
    command += ["--bind", str(ml), ML]
    for folder in READ_ONLY_FOLDERS:
        if (ml / folder).is_dir():
            command += ["--ro-bind", str(ml / folder), f"{ML}/{folder}"]
    for channel in own_channels:
        if (ml / INPUT_DATA / channel).is_dir():
            command += ["--bind", str(ml / INPUT_DATA / channel), f"{ML}/{INPUT_DATA}/{channel}"]
    for directory, target, read_only in mounts:
        command += ["--ro-bind" if read_only else "--bind", directory, f"{ML}/{target}"]
    if socket_directory:
        command += ["--bind", str(socket_directory), SOCKET_DIRECTORY]
    if environment:
        command += ["--bind" if environment_writable else "--ro-bind", str(environment), PYTHON_ENVIRONMENT]
    for path in read_only_paths:
        command += ["--ro-bind", path, path]
    if host_name:
        command += ["--unshare-uts", "--hostname", host_name]
        command += ["--ro-bind", str(ml.parent / HOSTS), "/etc/hosts"]
    if not network:
        command.append("--unshare-net")
    command += ["--ro-bind", "/proc/sys", "/proc/sys", "--cap-drop", "ALL"]
    return [*command, "--remount-ro", "/", "--die-with-parent", "--new-session", "--chdir", "/"]


def python_paths() -> list[str]:
    """The folders that this interpreter and its packages live in, Clary's package among them."""
    found = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    executable = Path(sys.executable)
    while executable.is_symlink():
        found.append(str(executable.parent))
        executable = Path(os.path.normpath(executable.parent / executable.readlink()))
    found.append(str(executable.parent))
    packages = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    found += [path for path in packages if path in sys.path]
    found.append(str(Path(__file__).resolve().parents[2]))  # the package "clary", also of an editable install
    return _outermost(found)


def _view(bubblewrap: str, scratch: Mapping[str, Path] | None = None) -> list[str]:
    command = [bubblewrap, "--unshare-user", "--tmpfs", "/"]
    for path in map(Path, _SYSTEM):
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    for name in _ETC:
        path = Path("/etc", name)
        if path.exists():
            command += ["--ro-bind", str(path.resolve()), str(path)]
    command += ["--dev", "/dev", "--proc", "/proc"]
    for path in map(Path, _KERNEL):
        if path.exists():
            command += ["--ro-bind", str(path), str(path)]
    for path in sorted(Path("/dev").glob("nvidia*")):
        command += ["--dev-bind", str(path), str(path)]
    for seen in _SCRATCH_FOLDERS:
        command += ["--bind", str(scratch[seen]), seen] if scratch else ["--tmpfs", seen]
    command += ["--dir", "/run", "--dir", "/opt"]
    for own in python_paths():
        if not any(own == root or own.startswith(root + "/") for root in _SYSTEM):
            command += ["--ro-bind", own, own]
    return command


def _outermost(paths: Sequence[str]) -> list[str]:
    """Existing folders of ``paths`` without those inside others. The root itself is never one."""
    result: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths if Path(path).is_dir()}):
        if path != "/" and not any(path.startswith(outer + "/") for outer in result):
            result.append(path)
    return result
