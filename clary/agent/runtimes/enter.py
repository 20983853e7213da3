"""A command beside a running program: in its namespaces, with its files, its environment and its rights.

Whoever runs the server may enter, for the user namespace is theirs; root is not needed. The command gives up
what capabilities that namespace lends, as the program did. A program without a sandbox shares this machine
with everybody: there the command only gets its folder and its environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pty
import selectors
import signal
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from clary.agent.runtimes import namespaces, sandbox

SHELLS = ("/bin/bash", "/bin/sh")
# In this order: the user namespace gives the right to enter the others.
_NAMESPACES = ("user", "ipc", "uts", "net", "pid", "mnt")
_READ_BYTES = 1 << 16
_FAILED = 126  # as a shell has it for what could not be run, and the next for what is not there
_MISSING = 127
_libc = ctypes.CDLL(None, use_errno=True)


class CannotEnter(Exception):
    """There is nothing to enter, or no way in; the message is for the user."""


@dataclass(frozen=True)
class Command:
    """What to run beside a program. Without ``arguments``, a shell.

    ``more_environment`` is asked for further variables once inside, where the program's files are.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    more_environment: Callable[[], Mapping[str, str]] | None = None


def process_in(task_id: str) -> int | None:
    """A process of the task's program, seen from here; ``None`` if the task has none in a sandbox.

    A program's processes are those that have the task's folder where algorithms look for it.
    """
    found: list[tuple[int, int]] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ends while we look, or is another user's
            if entry.name.isdigit() and _has_folder(entry, task_id):
                found.append((-_depth(entry), int(entry.name)))
    # The keeper of a sandbox has its mounts, but its process namespace is that of its children only.
    return min(found)[1] if found else None


def run_beside(process_id: int, command: Command) -> int:
    """Run ``command`` in the namespaces of ``process_id``; its exit code. Raises `CannotEnter`."""
    try:
        spaces = _open_namespaces(process_id)
    except OSError as error:
        raise CannotEnter(f"the program has just ended, or is not this user's: {error.strerror}.") from error
    try:
        return _run(command, lambda: _join(spaces))
    finally:
        for descriptor, _ in spaces:
            os.close(descriptor)


def run_in_folder(command: Command) -> int:
    """Run ``command`` on this machine as it is; its exit code."""
    return _run(command, None)


def _has_folder(process: Path, task_id: str) -> bool:
    for line in (process / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        parts = line.split(" ")
        if parts[4] == sandbox.ML and parts[3].endswith(f"/{task_id}/ml"):
            return True
    return False


def _depth(process: Path) -> int:
    """How many process namespaces the process is in."""
    for line in (process / "status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) - 1
    return 0


def _open_namespaces(process_id: int) -> list[tuple[int, str]]:
    """Descriptors of those namespaces of the process that are not ours, in the order to enter them."""
    found: list[tuple[int, str]] = []
    try:
        for name in _NAMESPACES:
            theirs = f"/proc/{process_id}/ns/{name}"
            if Path(theirs).readlink() != Path(f"/proc/self/ns/{name}").readlink():
                found.append((os.open(theirs, os.O_RDONLY | os.O_CLOEXEC), name))
    except OSError:
        for descriptor, _ in found:
            os.close(descriptor)
        raise
    return found


def _join(spaces: Sequence[tuple[int, str]]) -> None:
    for descriptor, name in spaces:
        if _libc.setns(descriptor, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"the {name} namespace: {os.strerror(number)}")


def _run(command: Command, join: Callable[[], None] | None) -> int:
    """Fork a child that joins, which forks the command: a process namespace takes only children in."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    ours, theirs = pty.openpty() if terminal else (-1, -1)
    told, tells = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_the_child(command, join, theirs, tells)
    os.close(tells)
    if theirs >= 0:
        os.close(theirs)
    try:
        if terminal:
            _relay(ours)
        with os.fdopen(told, "rb") as file:
            failed = file.read().decode(errors="replace")
        status = _wait(child)
    finally:
        if ours >= 0:
            os.close(ours)
    if failed:
        raise CannotEnter(failed)
    return os.waitstatus_to_exitcode(status) if not os.WIFSIGNALED(status) else 128 + os.WTERMSIG(status)


def _be_the_child(command: Command, join: Callable[[], None] | None, terminal: int, tells: int) -> None:
    """In the forked child: never returns."""
    code = _FAILED
    try:
        namespaces.die_with_parent()
        if join:
            join()
        inner = os.fork()
        if inner == 0:
            _become(command, terminal, fenced=join is not None)
        os.close(tells)
        tells = -1
        if terminal >= 0:
            os.close(terminal)
        for number in (signal.SIGINT, signal.SIGQUIT):  # the command's to handle, and ours to wait for
            signal.signal(number, signal.SIG_IGN)
        status = _wait(inner)
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
    except OSError as error:
        if tells >= 0:
            os.write(tells, f"the program's surroundings cannot be entered: {error}".encode())
    finally:
        os._exit(code)


def _become(command: Command, terminal: int, *, fenced: bool) -> None:
    """Turn this process into the command: never returns."""
    code = _FAILED
    try:
        namespaces.die_with_parent()
        if terminal >= 0:
            os.setsid()
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            for number in (0, 1, 2):
                os.dup2(terminal, number)
        if fenced:
            namespaces.renounce()
        os.chdir(command.directory)
        arguments = list(command.arguments) or [next(path for path in SHELLS if Path(path).exists())]
        try:
            os.execvpe(arguments[0], arguments, _environment(command))
        except FileNotFoundError:
            code = _MISSING
            os.write(2, f"clary shell: there is no command '{arguments[0]}' there.\n".encode())
    except OSError as error:
        os.write(2, f"clary shell: {error}\n".encode())
    finally:
        os._exit(code)


def _environment(command: Command) -> dict[str, str]:
    found = dict(command.environment)
    if command.more_environment:
        found |= {name: value for name, value in command.more_environment().items() if name not in found}
    return found


def _wait(process_id: int) -> int:
    while True:
        try:
            return os.waitpid(process_id, 0)[1]
        except KeyboardInterrupt:
            continue  # Ctrl-C reached the command too, which decides what it means


def _relay(terminal: int) -> None:
    """Pass what is typed to ``terminal`` and show what it says, until the command has closed it."""
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    with _raw(keyboard), _following_size(keyboard, terminal), selectors.DefaultSelector() as selector:
        selector.register(keyboard, selectors.EVENT_READ)
        selector.register(terminal, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == keyboard:
                    typed = os.read(keyboard, _READ_BYTES)
                    if typed:
                        _write(terminal, typed)
                    else:
                        selector.unregister(keyboard)
                    continue
                try:
                    said = os.read(terminal, _READ_BYTES)
                except OSError:  # the last process has let go of it
                    return
                if not said:
                    return
                _write(screen, said)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def _raw(keyboard: int) -> Iterator[None]:
    before = termios.tcgetattr(keyboard)
    tty.setraw(keyboard, termios.TCSADRAIN)  # what was typed ahead stays
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _following_size(window: int, terminal: int) -> Iterator[None]:
    """``terminal`` has the size of ``window``, also when that changes."""

    def follow(number: int = 0, frame: FrameType | None = None) -> None:
        size = fcntl.ioctl(window, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)

    follow()
    before = signal.signal(signal.SIGWINCH, follow)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
