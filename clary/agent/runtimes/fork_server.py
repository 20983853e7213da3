"""The algorithm fork server: a warm Python process that programs are forked from.

Importing numpy, scikit-learn and XGBoost takes seconds, a fork takes milliseconds, so one process imports
them and every program begins as its copy. It usually runs inside a bubblewrap sandbox (`sandbox`) and gives
each program namespaces of its own (`namespaces`). For each program it forks a *keeper*, which answers the
agent that asked, and ends the program when that agent dies; in namespaces of its own the program runs below a
small process 1 that reaps orphans and passes signals on.

It ends when its lifeline does, which the server holds; programs that run, and agents that are connected
already, are served to their end. Nothing here may start a thread, or forks would not be safe.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import importlib.util
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from clary import registry
from clary.agent.process_tree import ProcessTree
from clary.agent.runtimes import namespaces
from clary.agent.runtimes.channel import ChannelBroken, receive_message, send_message
from clary.agent.runtimes.program import MOST_OPEN_FILES, Program, program_from_json

# What programs need, the most wanted first. Afterwards come the modules of each algorithm and framework.
PRELOADED = (
    "clary.algorithms.entrypoint", "clary.frameworks.entrypoint", "clary.serving.model_worker",
    "numpy", "scipy.sparse", "xgboost", "sklearn.linear_model", "sklearn.ensemble", "sklearn.tree",
    "sklearn.metrics", "sklearn.pipeline", "sklearn.compose", "sklearn.impute", "sklearn.svm",
    "sklearn.neighbors", "sklearn.cluster", "sklearn.decomposition", "sklearn.model_selection",
    "sklearn.datasets",
)  # fmt: skip
_ANSWER_SECONDS = 10.0  # for one message of an agent to arrive whole
_OUT_OF_MEMORY_SCORE = 600  # the kernel rather ends a program than anything of Clary's
_REMOVALS, _REMOVAL_PAUSE_SECONDS = 200, 0.01  # of a control group that the last process is about to leave
_MOST_NETWORKS = 64  # of isolated clusters that may be starting at once
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_THREAD_SETTERS = (
    "omp_set_num_threads", "openblas_set_num_threads", "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads", "scipy_openblas_set_num_threads64_", "MKL_Set_Num_Threads",
)  # fmt: skip


# Found once, when everything is loaded, since finding them takes a while.
_thread_setters: list[Callable[[ctypes.c_int], object]] = []


@dataclass(frozen=True)
class ForkServerOrder:
    """How a fork server is to serve. Descriptors are open in the process.

    ``listener`` takes agents; or ``connection`` is the only one. ``separate`` says whether programs get
    namespaces of their own.
    """

    listener: int = -1
    connection: int = -1
    lifeline: int = -1
    separate: bool = False
    preload: bool = True

    def to_argument(self) -> str:
        return json.dumps(self.__dict__)


def main(arguments: list[str]) -> int:
    """Serve as the `ForkServerOrder` in the one argument says, till the lifeline ends."""
    order = ForkServerOrder(**json.loads(arguments[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    gc.disable()
    if order.connection >= 0:
        with socket.socket(fileno=order.connection) as channel:
            try:
                _keep(channel, *_receive_program(channel), separate=order.separate)
            except ChannelBroken as error:
                print(f"the agent went away before it ordered a program: {error}", file=sys.stderr)
                return 1
        return 0
    _ForkServer(order).serve()
    return 0


class _ForkServer:
    def __init__(self, order: ForkServerOrder) -> None:
        self._order = order
        self._listener = socket.socket(fileno=order.listener)
        self._lifeline = socket.socket(fileno=order.lifeline)
        self._selector = selectors.DefaultSelector()
        self._waiting: set[socket.socket] = set()
        self._networks: dict[str, int] = {}  # of isolated clusters, the oldest first

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps keepers
        report = {"ready": True, "reason": ""}
        if self._order.separate:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                namespaces.self_test()
            except OSError as error:
                report = {"ready": False, "reason": str(error)}
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with contextlib.suppress(ChannelBroken):
            send_message(self._lifeline, report)
        if not report["ready"]:
            return
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._lifeline, selectors.EVENT_READ)
        preloading = [*PRELOADED, *_members()] if self._order.preload else []
        listening = True
        while listening or self._waiting:
            for key, _ in self._selector.select(0 if preloading and listening else None):
                if key.fileobj is self._listener:
                    self._welcome()
                elif key.fileobj is self._lifeline:
                    self._selector.unregister(self._lifeline)
                    self._selector.unregister(self._listener)
                    self._listener.close()
                    listening = False
                elif isinstance(key.fileobj, socket.socket):
                    self._fork(key.fileobj)
            if preloading and listening:
                _preload(preloading.pop(0))
                if not preloading:
                    _thread_setters.extend(_find_thread_setters())
                    gc.collect()
                    gc.freeze()

    def _welcome(self) -> None:
        with contextlib.suppress(OSError):
            channel, _ = self._listener.accept()
            channel.settimeout(_ANSWER_SECONDS)
            try:
                # Until it hears this, an agent cannot know that a fork server that ends will still serve it.
                send_message(channel, {"welcome": True})
            except ChannelBroken:
                channel.close()
                return
            self._waiting.add(channel)
            self._selector.register(channel, selectors.EVENT_READ)

    def _fork(self, channel: socket.socket) -> None:
        """Give the agent on ``channel`` a keeper, or let it go."""
        self._selector.unregister(channel)
        self._waiting.discard(channel)
        descriptors: list[int] = []
        try:
            program, descriptors = _receive_program(channel)
            network = self._network(program)
            if os.fork() == 0:
                self._abandon()
                channel.settimeout(None)
                _keep(channel, program, descriptors, separate=self._order.separate, network=network)
                os._exit(0)
        except ChannelBroken:
            pass  # an agent that was stopped before it had anything to run
        except OSError as error:
            with contextlib.suppress(ChannelBroken):
                send_message(channel, {"error": f"no process could be started: {error}"})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            channel.close()

    def _network(self, program: Program) -> int:
        """A descriptor of the network that the programs of an isolated cluster share; -1 for others."""
        if not program.cluster or program.network or not self._order.separate:
            return -1
        if program.cluster not in self._networks:
            if len(self._networks) >= _MOST_NETWORKS:
                # The oldest lives on as long as its programs do; only newcomers could not join it.
                os.close(self._networks.pop(next(iter(self._networks))))
            self._networks[program.cluster] = namespaces.new_network()
        return self._networks[program.cluster]

    def _abandon(self) -> None:
        """In a forked child: let go of what belongs to the fork server."""
        self._selector.close()
        for held in (self._listener, self._lifeline, *self._waiting):
            held.close()


def _receive_program(channel: socket.socket) -> tuple[Program, list[int]]:
    document, descriptors = receive_message(channel)
    try:
        return program_from_json(document), descriptors
    except (TypeError, KeyError) as error:
        raise ChannelBroken(f"no program was ordered: {error}") from error


def _members() -> list[str]:
    """The modules of the families that run in tasks."""
    families = {
        "clary.algorithms": ("train", "predict"),
        "clary.frameworks": ("handlers",),
    }
    return [
        f"{family}.{name}.{part}"
        for family, parts in families.items()
        for name in registry.member_names(family)
        for part in parts
        if importlib.util.find_spec(f"{family}.{name}.{part}")
    ]


def _preload(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception:  # noqa: BLE001 - a program that needs it will say what is wrong with it
        print(f"{module} could not be imported ahead of time:\n{traceback.format_exc()}", file=sys.stderr)


# The keeper.


def _keep(
    channel: socket.socket, program: Program, descriptors: list[int], *, separate: bool, network: int = -1
) -> None:
    """Run ``program`` and tell the agent who runs it and how it ended.

    ``descriptors`` are its input, its output, and the folders that its control group is in; ``network`` is
    that of its cluster, if it has one of its own.
    """
    with contextlib.suppress(OSError):
        os.setsid()
    with contextlib.suppress(ChannelBroken):
        send_message(channel, {"process_id": os.getpid()})
    waker, wakes = socket.socketpair()
    waker.setblocking(False)
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    try:
        if separate:
            namespaces.separate(program.network, network)
            child, result = _fork_first_process(program, descriptors)
        else:
            namespaces.adopt_orphans()
            child, result = _fork_program(program, descriptors, enter=True), -1
    except OSError as error:
        _remove_cgroup(program, descriptors)
        with contextlib.suppress(ChannelBroken):
            send_message(channel, {"error": f"the sandbox could not be made: {error}"})
        return
    for descriptor in descriptors[:2]:
        os.close(descriptor)
    del descriptors[:2]
    status = _watch(channel, child, waker)
    reply: dict[str, object] = _ending(status)
    if result >= 0:
        with os.fdopen(result, "rb") as file:
            told = file.read()
        if told:
            reply = json.loads(told)
    else:
        _end_descendants()
    with contextlib.suppress(ChannelBroken):
        send_message(channel, reply)
    if program.cgroup:
        with contextlib.suppress(OSError):
            while channel.recv(1024):  # the agent reads from the group what became of the program
                pass
        _remove_cgroup(program, descriptors)  # the agent does so too, if it lives


def _watch(channel: socket.socket, child: int, waker: socket.socket) -> int:
    """Pass the agent's signals on until ``child`` ends; its wait status."""
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        selector.register(waker, selectors.EVENT_READ)
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            for key, _ in selector.select():
                if key.fileobj is waker:
                    with contextlib.suppress(BlockingIOError):
                        waker.recv(1024)
                    continue
                number = int(signal.SIGKILL)
                try:
                    number = int(receive_message(channel)[0]["signal"])
                except (ChannelBroken, KeyError, ValueError):
                    selector.unregister(channel)  # the agent is gone: so must the program be
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, number)


def _ending(status: int) -> dict[str, object]:
    return {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"exit": os.WEXITSTATUS(status)}


def _wake(number: int, frame: FrameType | None) -> None:
    """Only there so that the signal is delivered and wakes the selector."""


def _end_descendants() -> None:
    """End what the program left behind; without namespaces nobody else does.

    All are stopped before the first is killed: whoever is stopped forks no more, so none gets away.
    """
    tree = ProcessTree(os.getpid())
    while True:
        stopped: set[int] = set()
        while found := set(tree.processes()) - stopped - {os.getpid()}:
            _signal_all(found, signal.SIGSTOP)
            stopped |= found
        _signal_all(stopped, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def _signal_all(processes: Iterable[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _fork_first_process(program: Program, descriptors: list[int]) -> tuple[int, int]:
    """Fork process 1 of the program's namespaces: its id, and a descriptor for how the program ended."""
    reader, writer = os.pipe()
    # A signal that came before process 1 had its handlers would be ignored: the kernel protects process 1.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        os.close(writer)
        return child, reader
    try:
        os.close(reader)
        namespaces.die_with_parent()
        _enter_cgroup(program, descriptors)
        namespaces.furnish(program)
        namespaces.renounce()
        status = _run_as_first_process(program, descriptors)
        os.write(writer, json.dumps(_ending(status)).encode())
    except BaseException as error:  # noqa: BLE001 - whatever it is, the agent must hear of it
        os.write(writer, json.dumps({"error": f"the sandbox could not be made: {error}"}).encode())
    finally:
        os._exit(0)


def _run_as_first_process(program: Program, descriptors: list[int]) -> int:
    signal.set_wakeup_fd(-1)
    early: list[int] = []
    child = 0

    def forward(number: int, frame: FrameType | None) -> None:
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, number)
        else:
            early.append(number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    child = _fork_program(program, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    for missed in early:
        forward(missed, None)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            return status


# Limits.


def _enter_cgroup(program: Program, descriptors: list[int]) -> None:
    """Put this process and its future children into the control group; who watches sees if that failed."""
    for parent in descriptors[2:] if program.cgroup else ():
        try:
            group = os.open(f"{program.cgroup}/cgroup.procs", os.O_WRONLY, dir_fd=parent)
            try:
                os.write(group, b"0")
            finally:
                os.close(group)
        except OSError as error:
            print(f"the control group {program.cgroup} could not be entered: {error}", file=sys.stderr)


def _remove_cgroup(program: Program, parents: list[int]) -> None:
    """Remove the control group, which nobody is in any more."""
    for parent in parents if program.cgroup else ():
        for _ in range(_REMOVALS):
            try:
                os.rmdir(program.cgroup, dir_fd=parent)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    break
                time.sleep(_REMOVAL_PAUSE_SECONDS)
            else:
                break


def _limit_self(program: Program) -> None:
    """What a process can lay down for itself and all that come from it."""
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: MOST_OPEN_FILES}
    if program.largest_file_bytes:
        limits[resource.RLIMIT_FSIZE] = program.largest_file_bytes
    if program.most_processes:
        # The kernel counts all processes of the user, those outside of this task as well.
        limits[resource.RLIMIT_NPROC] = program.most_processes + _threads_on_this_machine()
    for which, wanted in limits.items():
        hard = resource.getrlimit(which)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (limit, limit))
    if program.processors:
        with contextlib.suppress(OSError):  # one that was taken off the machine meanwhile
            os.sched_setaffinity(0, program.processors)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OUT_OF_MEMORY_SCORE), encoding="ascii")


def _threads_on_this_machine() -> int:
    try:
        return int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[2])
    except (OSError, IndexError, ValueError):
        return 0


# The program itself.


def _fork_program(program: Program, descriptors: list[int], *, enter: bool = False) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until the child has let go of our handlers
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        with contextlib.suppress(OSError):
            os.setpgid(child, child)  # here and in the child: whoever comes first
        return child
    try:
        if enter:
            _enter_cgroup(program, descriptors)
        _become(program, descriptors)
    except BaseException:  # noqa: BLE001 - nothing of the fork server may go on in the program's process
        traceback.print_exc()
    finally:
        os._exit(1)


def _become(program: Program, descriptors: list[int]) -> NoReturn:
    """Turn this process into ``program``."""
    signal.set_wakeup_fd(-1)
    for number in (*_FORWARDED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    namespaces.die_with_parent()
    for target, source in ((0, descriptors[0]), (1, descriptors[1]), (2, descriptors[1])):
        os.dup2(source, target)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0] if sys.platform != "linux" else 1 << 16)
    os.umask(0o022)
    _limit_self(program)
    os.environ.clear()
    os.environ.update(program_environment(program))
    os.chdir(program.directory)
    if program.run_with_own_python:
        python = f"{program.environment['CLARY_PYTHON_ENVIRONMENT']}/bin/python"
        runner = "clary.agent.runtimes.run_module"
        os.execv(python, [python, "-m", runner, program.module, *program.arguments])
    _run_here(program)


def program_environment(program: Program) -> dict[str, str]:
    """The program's environment variables: the few that everything needs, then its own."""
    threads = str(program.threads or os.cpu_count() or 1)
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    own = program.environment.get("CLARY_PYTHON_ENVIRONMENT")
    return {
        "PATH": f"{own}/bin:{path}" if own else path,
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": threads,
        **program.environment,
    }


def _run_here(program: Program) -> NoReturn:
    """Run the program's module in this process, then end it as Python would."""
    code = 1
    sys.argv = [program.module, *program.arguments]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    try:
        gc.enable()
        _set_threads(program.threads or os.cpu_count() or 1)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # or every program would draw the same numbers
        main_function = importlib.import_module(program.module).main
        code = _exit_code(main_function(list(program.arguments)))
    except SystemExit as ending:
        code = _exit_code(ending.code)
    except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody caught
        traceback.print_exc()
    try:
        import atexit
        import threading

        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code(value: object) -> int:
    """What a value given to ``sys.exit`` means."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value & 0xFF
    print(value, file=sys.stderr)
    return 1


def _set_threads(count: int) -> None:
    """Have the numerical libraries that are loaded already use ``count`` threads."""
    for setter in _thread_setters or _find_thread_setters():
        setter(ctypes.c_int(count))


def _find_thread_setters() -> list[Callable[[ctypes.c_int], object]]:
    found: list[Callable[[ctypes.c_int], object]] = []
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    names = ("libgomp", "libomp", "libiomp", "openblas", "libmkl_rt")
    paths = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if any(name in line for name in names)}
    for path in paths:
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            found += [getattr(library, name) for name in _THREAD_SETTERS if hasattr(library, name)]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
