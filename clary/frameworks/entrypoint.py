"""What runs inside a task for a user's script: training as the toolkit does it, and serving."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from clary.frameworks.framework import FrameworkSpec, get_framework
from clary.frameworks.script import Ended, run_python, run_shell
from clary.frameworks.source import NoSource, bring_source
from clary.frameworks.toolkit import TrainingEnvironment, command_line, read_environment

LONGEST_FAILURE = 1024  # characters of a FailureReason
_LONGEST_COMMAND = 200

# (body, content type, accept) to (status, body, content type)
Predictor = Callable[[bytes, str, str], tuple[int, bytes, str]]


def main(arguments: Sequence[str]) -> int:
    """``train FRAMEWORK [VERSION]`` under ``SAGEMAKER_BASE_DIR``; returns the exit code.

    A script that fails leaves exception, message, file and line in ``output/failure``, in the toolkit's
    words; a failure of the toolkit itself leaves its traceback there.
    """
    command, name, *version = arguments
    if command != "train":
        raise ValueError(f"a framework can train, not '{command}'")
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    framework = get_framework(name)
    try:
        print(running_versions(framework, version[0] if version else ""), flush=True)
        environment = read_environment(base, framework.container)
        for folder in ("model", "output/data", "output/intermediate"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        script = bring_source(base, environment.program, environment.submit_directory)
        _tell_of_packaging(environment)
        os.environ.update(environment.variables())
    except NoSource as error:
        print(f"ClientError: {error}", file=sys.stderr, flush=True)
        _write(base / "output/failure", f"ClientError: {error}")
        return 1
    except Exception as error:  # noqa: BLE001 - what goes wrong before the script starts is ours to tell
        traceback.print_exc()
        _write(base / "output/failure", f"AlgorithmError: Framework Error:\n{traceback.format_exc()}")
        return getattr(error, "errno", None) or 1
    print(f"Invoking script with the following command: {shlex.join(command_line(environment))}", flush=True)
    run = run_python if script.suffix == ".py" else run_shell
    ended = run(script, environment.arguments(), environment.code)
    if ended.message:
        _write(base / "output/failure", _failure(ended, environment))
    else:
        _write(base / "output/success", "")
    return ended.exit_code


def load_predictor(framework: str, model_directory: Path) -> Predictor:
    """What answers requests with the user's functions (`ScriptPredictor`); threads may share it.

    Raises what loading the user's code and model raises.
    """
    from clary.frameworks.inference import ScriptPredictor

    spec = get_framework(framework)
    print(running_versions(spec, ""), flush=True)
    return ScriptPredictor(spec, model_directory)


def running_versions(framework: FrameworkSpec, asked: str) -> str:
    """Which versions run, beside the one that the image's tag asks for."""
    found = []
    for package in framework.packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} (not installed)")
    wanted = f"{framework.name} {asked} asked; " if asked else ""
    return f"Framework {wanted}running {', '.join(found)}, Python {platform.python_version()}"


def _tell_of_packaging(environment: TrainingEnvironment) -> None:
    """Say what the source asks for and does not get."""
    if (environment.code / "setup.py").is_file():
        print(
            "The source has a setup.py: it is not installed, its folder is on the Python path. Name the "
            "packages that it needs in requirements.txt.",
            flush=True,
        )


def _failure(ended: Ended, environment: TrainingEnvironment) -> str:
    """In the toolkit's words, the cause first: the text may be cut."""
    command = shlex.join(command_line(environment))
    if len(command) > _LONGEST_COMMAND:
        command = f"{command[:_LONGEST_COMMAND]}..."
    room = LONGEST_FAILURE - len(command) - 100
    message = ended.message if len(ended.message) <= room else f"{ended.message[:room]}..."
    return (
        f"AlgorithmError: ExecuteUserScriptError:\nExitCode {ended.exit_code}\n"
        f'ErrorMessage "{message}"\nCommand "{command}"'
    )


def _write(path: Path, text: str) -> None:
    """Write a file for the platform; one that is there already stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text[:LONGEST_FAILURE])
    except FileExistsError:
        pass
    except OSError as error:
        print(f"{path} cannot be written: {error}", file=sys.stderr)
