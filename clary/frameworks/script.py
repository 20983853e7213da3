"""Running a user's script: a Python one in this process, any other as a program of its own."""

from __future__ import annotations

import builtins
import contextlib
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType, TracebackType


@dataclass(frozen=True)
class Ended:
    """How a script ended; ``message`` is empty after success."""

    exit_code: int
    message: str = ""


def run_python(script: Path, arguments: Sequence[str], code: Path) -> Ended:
    """Run ``script`` as ``python script arguments`` would be run in the folder ``code``.

    This process was forked for it, with the usual libraries already loaded; it becomes the script's: its
    ``__main__``, arguments, path and working directory stay afterwards, for what runs at exit.
    """
    _settle(str(script.relative_to(code)), arguments, [script.parent, code], code)
    main = ModuleType("__main__")
    main.__dict__.update(__file__=str(script), __builtins__=builtins)
    sys.modules["__main__"] = main

    def run() -> None:
        exec(compile(script.read_bytes(), str(script), "exec"), main.__dict__)

    return _to_its_end(run, str(script), code)


def run_module(name: str, arguments: Sequence[str], code: Path) -> Ended:
    """Run the module or package ``name`` as ``python -m name arguments`` would be run in ``code``."""
    _settle(name, arguments, [code], code)
    return _to_its_end(lambda: runpy.run_module(name, run_name="__main__", alter_sys=True), "", code)


def _to_its_end(run: Callable[[], object], script: str, code: Path) -> Ended:
    """Call ``run`` and tell how it ended; tracebacks are shown from the file ``script`` on."""
    try:
        run()
    except SystemExit as end:
        return _exited(end.code)
    except BaseException as error:  # noqa: BLE001 - the script is over: whatever ended it is told
        if script:
            error.__traceback__ = _own_part(error.__traceback__, script)
        # As the interpreter does: a script may have set a hook of its own.
        sys.excepthook(type(error), error, error.__traceback__)
        return Ended(1, describe(error, code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return Ended(0)


def run_shell(script: Path, arguments: Sequence[str], code: Path) -> Ended:
    """Run an executable script (by its ``#!`` line, else by /bin/sh) and pass signals on to it."""
    script.chmod(script.stat().st_mode | 0o111)
    name = f"./{script.relative_to(code)}"
    return run_group(script.name, ["/bin/sh", "-c", 'exec "$0" "$@"', name, *arguments], code, os.environ)


def run_group(name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Ended:
    """Run ``command`` in ``folder`` in a process group of its own and pass signals on to it."""
    with _Relay() as relay:
        # A group of its own: it gets the platform's signals through the relay, and only once.
        process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
        relay.pass_on_to(process.pid)
        status = process.wait()
    if status == 0:
        return Ended(0)
    if status < 0:
        return Ended(128 - status, f"{name} was ended by {signal.Signals(-status).name}")
    return Ended(status, f"{name} ended with exit code {status}")


def describe(error: BaseException, code: Path) -> str:
    """``ValueError: too few rows (/opt/ml/code/train.py:12)``: the last place in the user's own code."""
    name = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{name}: {error.msg} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(code)] or list(frames)
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    if isinstance(error, ModuleNotFoundError):
        place += "; name the package that has it in a requirements.txt beside the script"
    return f"{name}: {error}{place}" if str(error) else f"{name}{place}"


def _settle(name: str, arguments: Sequence[str], folders: Sequence[Path], code: Path) -> None:
    """Make argv, path and working directory those of the script; Python children get the path too."""
    os.chdir(code)
    sys.argv = [name, *arguments]
    sys.path[:0] = list(dict.fromkeys(map(str, folders)))
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(code), *([inherited] if inherited else [])])


def _own_part(trace: TracebackType | None, script: str) -> TracebackType | None:
    """A traceback from the script on, without the frames that started it; ``None`` if it is not in there."""
    while trace is not None and trace.tb_frame.f_code.co_filename != script:
        trace = trace.tb_next
    return trace


def _exited(code: object) -> Ended:
    """What a value given to ``sys.exit`` means."""
    if code is None or code == 0:
        return Ended(0)
    if isinstance(code, int):
        number = code & 0xFF
        return Ended(number, f"the script ended with exit code {number}") if number else Ended(0)
    print(code, file=sys.stderr)
    return Ended(1, f"the script ended with: {code}")


class _Relay:
    """Passes signals that ask to end on to a group of processes; those that come before it is known, then."""

    def __init__(self) -> None:
        self._group = 0
        self._early: list[int] = []

    def __enter__(self) -> _Relay:
        self._before = {
            number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on_to(self, group: int) -> None:
        self._group = group
        while self._early:
            self._take(self._early.pop(0), None)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self._group:
            self._early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._group, number)
