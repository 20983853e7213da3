"""What runs inside a task for a user's script: training as the toolkit does it, and serving."""

from __future__ import annotations

import os
import platform
import runpy
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from clary.frameworks.framework import FrameworkSpec, get_framework
from clary.frameworks.toolkit import read_environment, script_command

LONGEST_FAILURE = 1024

Predictor = Callable[[bytes, str, str], tuple[int, bytes, str]]


def main(arguments: Sequence[str]) -> int:
    """``train FRAMEWORK [VERSION]`` under ``SAGEMAKER_BASE_DIR``; returns the exit code.

    A Python script runs in this process, as ``__main__``: it was forked for it, with the usual libraries
    already loaded. A script that fails leaves exception, message, file and line in ``output/failure``.
    """
    command, name, *version = arguments
    if command != "train":
        raise ValueError(f"a framework can train, not '{command}'")
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    framework = get_framework(name)
    print(_versions(framework, version[0] if version else ""), flush=True)
    environment = read_environment(base)
    for folder in ("model", "output/data"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    try:
        script, *options = script_command(environment)
    except FileNotFoundError as error:
        _write_failure(base, f"ClientError: {error}")
        print(f"ClientError: {error}", file=sys.stderr)
        return 1
    os.environ.update(environment.variables(f"{framework.handlers.rpartition('.')[0]}:main"))
    os.chdir(environment.code)
    if not script.endswith(".py"):
        outcome = subprocess.run(["/bin/sh", script, *options], check=False).returncode
        if outcome:
            command_line = " ".join(["/bin/sh", script, *options])
            text = f'ExecuteUserScriptError: ExitCode {outcome} Command "{command_line}"'
            _write_failure(base, text)
        return outcome if outcome >= 0 else 128 - outcome
    return _run_python(base, script, options)


def _run_python(base: Path, script: str, options: Sequence[str]) -> int:
    sys.argv = [script, *options]
    sys.path.insert(0, str(Path(script).parent))
    code = str(base / "code")
    if code not in sys.path:
        sys.path.insert(1, code)
    try:
        runpy.run_path(script, run_name="__main__")
        return 0
    except SystemExit as end:
        if end.code is None or end.code == 0:
            return 0
        if isinstance(end.code, int):
            return end.code  # the agent quotes the script's last line
        print(end.code, file=sys.stderr)
        _write_failure(base, f"AlgorithmError: ExecuteUserScriptError: {end.code}")
        return 1
    except BaseException as error:  # noqa: BLE001 - the script is over: whatever ended it is told
        _print_own_traceback(error, code)
        _write_failure(base, f"AlgorithmError: ExecuteUserScriptError: {_told(error, code)}")
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _print_own_traceback(error: BaseException, code: str) -> None:
    """The traceback as Python would print it: from the script on, without the frames that started it."""
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(code):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace or error.__traceback__)


def _told(error: BaseException, code: str) -> str:
    """``ValueError: too few rows (/opt/ml/code/train.py:12)``: the last place in the user's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(code)] or list(frames)
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"


def load_predictor(framework: str, model_directory: Path) -> Predictor:
    """A function that answers requests with the user's functions. Raises what loading the model raises."""
    from clary.frameworks.inference import ScriptPredictor

    return ScriptPredictor(get_framework(framework), model_directory).answer


def _versions(framework: FrameworkSpec, asked: str) -> str:
    found = []
    for package in framework.packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} (not installed)")
    wanted = f"{framework.name} {asked}".strip()
    return f"Framework {wanted} was asked for; running {', '.join(found)}, Python {platform.python_version()}"


def _write_failure(base: Path, message: str) -> None:
    folder = base / "output"
    folder.mkdir(parents=True, exist_ok=True)
    failure = folder / "failure"
    if not failure.exists():
        failure.write_text(message[:LONGEST_FAILURE], encoding="utf-8")
