"""Linux namespaces for one program, made by the fork server in the child it forked for it.

The fork server lives in a bubblewrap sandbox whose user namespace gives it the right to make further ones;
what runs at the end has no capability left, cannot get one, and cannot make a user namespace to gain some.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from clary.agent.runtimes import sandbox
from clary.agent.runtimes.mounts import Mount
from clary.agent.runtimes.program import Program

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWUTS = 0x0400_0000
_CLONE_NEWIPC = 0x0800_0000
_CLONE_NEWPID = 0x2000_0000
_CLONE_NEWNET = 0x4000_0000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 32, 4096, 0x4000, 0x8_0000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 1, 24, 36
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x2008_0522
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_KERNEL_SETTINGS = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi")

_libc = ctypes.CDLL(None, use_errno=True)


def separate(network: bool, joined: int = -1) -> None:
    """Put this process's future children in namespaces of their own. Raises ``OSError``.

    Without ``network`` they get an empty one, or the one whose descriptor ``joined`` is.
    """
    flags = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID
    if joined >= 0:
        _check(_libc.setns(joined, _CLONE_NEWNET), "setns")
    elif not network:
        flags |= _CLONE_NEWNET
    _check(_libc.unshare(flags), "unshare")
    if not network and joined < 0:
        _raise_loopback()


def new_network() -> int:
    """A descriptor of a new network namespace that has nothing but loopback. Raises ``OSError``."""
    ready, told = os.pipe()
    ended, ends = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ready)
            os.close(ends)
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            _raise_loopback()
            os.write(told, b"1")
            os.close(told)
            os.read(ended, 1)  # until it has been opened
        finally:
            os._exit(0)
    os.close(told)
    os.close(ended)
    try:
        if os.read(ready, 1) != b"1":
            raise OSError("no network namespace could be made")
        return os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.close(ends)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def furnish(program: Program) -> None:
    """Mount what ``program`` sees. Runs as process 1 of the new namespaces. Raises ``OSError``."""
    _mount(None, "/", None, _MS_REC | _MS_SLAVE)
    folder = f"{sandbox.TASKS}/{program.task_id}/ml"
    _mount(folder, sandbox.ML, None, _MS_BIND | _MS_REC)
    for fixed in sandbox.READ_ONLY_FOLDERS:
        if Path(folder, fixed).is_dir():
            _mount(f"{folder}/{fixed}", f"{sandbox.ML}/{fixed}", None, _MS_BIND | _MS_REC)
            _remount(f"{sandbox.ML}/{fixed}", _MS_RDONLY)
    for channel in program.own_channels:
        data = f"{sandbox.INPUT_DATA}/{channel}"
        if Path(folder, data).is_dir():
            _mount(f"{folder}/{data}", f"{sandbox.ML}/{data}", None, _MS_BIND)
    for mount in program.mounts:
        _mount_directory(mount)
    if program.host_name:
        _mount(f"{sandbox.TASKS}/{program.task_id}/{sandbox.HOSTS}", "/etc/hosts", None, _MS_BIND)
        _remount("/etc/hosts", _MS_RDONLY)
        name = program.host_name.encode()
        _check(_libc.sethostname(name, len(name)), "sethostname")
    if program.socket_directory:
        _mount(f"{sandbox.SOCKETS}/{program.socket_directory}", sandbox.SOCKET_DIRECTORY, None, _MS_BIND)
    if program.python_environment:
        environment = f"{sandbox.ENVIRONMENTS}/{program.python_environment}"
        _mount(environment, sandbox.PYTHON_ENVIRONMENT, None, _MS_BIND)
        _remount(sandbox.PYTHON_ENVIRONMENT, _MS_RDONLY)
    for private, own in sandbox.scratch_folders(Path(folder)).items():
        _mount_private(private, scratch=own)
    for hidden in (sandbox.TASKS, sandbox.SOCKETS, sandbox.ENVIRONMENTS, sandbox.FILE_SYSTEMS):
        _mount("tmpfs", hidden, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "size=4k,mode=0500")
    _mount_private("/dev/shm", program.shared_memory_bytes)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0", encoding="ascii")
    for path in _KERNEL_SETTINGS:
        if Path(path).exists():
            _mount(path, path, None, _MS_BIND | _MS_REC)
            _remount(path, _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def renounce() -> None:
    """Give up every capability of this process and its children for good. Raises ``OSError``."""
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    capability = 0
    while _prctl(_PR_CAPBSET_DROP, capability) == 0:
        capability += 1
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. Does nothing where there is no such thing."""
    if hasattr(_libc, "prctl"):
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends."""
    if hasattr(_libc, "prctl"):
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _mount_directory(mount: Mount) -> None:
    """A directory of a file system, and whatever the machine has mounted below it."""
    target = f"{sandbox.ML}/{mount.target}"
    with mount.opened(f"{sandbox.FILE_SYSTEMS}/{mount.file_system}") as descriptor:
        _mount(f"/proc/self/fd/{descriptor}", target, None, _MS_BIND | _MS_REC)
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if mount.read_only else 0)
    mounted = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split(" ")[4].encode().decode("unicode_escape") for line in mounted]
    for point in points:
        if point == target or point.startswith(f"{target}/"):
            _remount(point, flags)


def _mount_private(folder: str, size_bytes: int = 0, scratch: Path | None = None) -> None:
    """A ``folder`` of the program's own, in memory or on the disk in ``scratch``.

    Python's own files stay visible if they happen to live below it.
    """
    kept = [
        (path, os.open(path, os.O_PATH | os.O_CLOEXEC))
        for path in sandbox.python_paths()
        if path.startswith(folder + "/")
    ]
    if scratch:
        _mount(str(scratch), folder, None, _MS_BIND)
        _remount(folder, _MS_NOSUID | _MS_NODEV)
    else:
        size = f",size={size_bytes}" if size_bytes else ""
        _mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=1777{size}")
    for path, descriptor in kept:
        Path(path).mkdir(parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{descriptor}", path, None, _MS_BIND | _MS_REC)
        _remount(path, _MS_RDONLY)
        os.close(descriptor)


def self_test() -> None:
    """Try on this machine what a program needs, and leave no trace. Raises ``OSError`` saying what failed."""
    failed = _in_child(_try_separating)
    if failed:
        raise OSError(failed)


def _try_separating() -> None:
    separate(network=False)
    failed = _in_child(_try_furnishing)
    if failed:
        raise OSError(failed)


def _try_furnishing() -> None:
    _mount(None, "/", None, _MS_REC | _MS_SLAVE)
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("/proc/sys", "/proc/sys", None, _MS_BIND | _MS_REC)
    _remount("/proc/sys", _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    renounce()


def _in_child(action: Callable[[], None]) -> str:
    """Run ``action`` in a forked child; what went wrong, or ""."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        failed = file.read().decode(errors="replace")
    os.waitpid(child, 0)
    return failed


def _prctl(option: int, argument: int) -> int:
    arguments = [ctypes.c_ulong(value) for value in (argument, 0, 0, 0)]
    return int(_libc.prctl(option, *arguments))


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [os.fsencode(text) if text is not None else None for text in (source, target, kind, options)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3]), f"mount {target}")


def _remount(target: str, flags: int) -> None:
    """Add ``flags`` to a bind mount; what it had stays, since a lesser mount may not lift it."""
    held = os.statvfs(target).f_flag & (_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount(None, target, None, _MS_REMOUNT | _MS_BIND | held | flags)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | _IFF_UP, b""))


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
