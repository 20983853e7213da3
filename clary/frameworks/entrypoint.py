"""What runs inside a task for a user's script: training as the toolkit does it, and serving."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clary.frameworks.debugger import NoDebugger, await_debugger, debugger_wanted
from clary.frameworks.distribution import (
    CannotDistribute,
    Cluster,
    Mpirun,
    Torchrun,
    cluster_variables,
    find_cluster,
    launch_wanted,
    tensorflow_configuration,
)
from clary.frameworks.framework import FrameworkSpec, get_framework
from clary.frameworks.mpirun import mpirun_command, run_mpirun
from clary.frameworks.script import Ended, run_module, run_python, run_shell
from clary.frameworks.source import NoSource, bring_source, is_package
from clary.frameworks.toolkit import TrainingEnvironment, command_line, read_environment
from clary.frameworks.torchrun import run_torchrun, torchrun_command
from clary.frameworks.versions import FrameworkMissing, require, running_versions

LONGEST_FAILURE = 1024  # characters of a FailureReason
_LONGEST_COMMAND = 200

# (body, content type, accept) to (status, body, content type)
Predictor = Callable[[bytes, str, str], tuple[int, bytes, str]]


def main(arguments: Sequence[str]) -> int:
    """``train FRAMEWORK [IMAGE]`` under ``SAGEMAKER_BASE_DIR``; returns the exit code.

    A script that fails leaves exception, message, file and line in ``output/failure``, in the toolkit's
    words; a failure of the toolkit itself leaves its traceback there.
    """
    command, name, *asked = arguments
    if command != "train":
        raise ValueError(f"a framework can train, not '{command}'")
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    try:
        run = _prepare(base, get_framework(name), asked[0] if asked else "")
    except (NoSource, FrameworkMissing, CannotDistribute) as error:
        return _refuse(base, error)
    except Exception as error:  # noqa: BLE001 - what goes wrong before the script starts is ours to tell
        traceback.print_exc()
        _write(base / "output/failure", f"AlgorithmError: Framework Error:\n{traceback.format_exc()}")
        return getattr(error, "errno", None) or 1
    print(f"Invoking script with the following command: {shlex.join(run.command)}", flush=True)
    try:
        ended = run.start()
    except NoDebugger as error:
        return _refuse(base, error)
    if ended.message:
        _write(base / "output/failure", _failure(ended, run.command))
    else:
        _write(base / "output/success", "")
    return ended.exit_code


@dataclass(frozen=True)
class _Run:
    """A script that is ready to run, and the command that AWS's toolkit would run for it."""

    command: Sequence[str]
    start: Callable[[], Ended]


def _prepare(base: Path, framework: FrameworkSpec, asked: str) -> _Run:
    """Bring the source, set the environment's variables and say what runs.

    Raises `NoSource`, `FrameworkMissing` and `CannotDistribute` for what the caller has to mend.
    """
    print(running_versions(framework, asked), flush=True)
    require(framework, asked)
    environment = read_environment(base, framework.container)
    for folder in ("model", "output/data", "output/intermediate"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    script = bring_source(base, environment.program, environment.submit_directory)
    variables = environment.variables()
    cluster = find_cluster(environment.hosts, environment.host, environment.network_interface)
    together = environment.distribution_hosts
    launch = launch_wanted(
        environment.framework_parameters,
        framework.name,
        environment.program,
        environment.group,
        find_cluster(together, environment.host, environment.network_interface) if together else cluster,
        int(variables["SM_NUM_GPUS"]),
    )
    os.environ.update(variables)
    os.environ.update(_meeting(framework, environment, cluster))
    arguments, code = environment.arguments(), environment.code
    if isinstance(launch, Torchrun):
        command = torchrun_command(launch, environment.program, arguments)
        return _Run(command, lambda: run_torchrun(launch, script, arguments, code))
    if isinstance(launch, Mpirun):
        command = mpirun_command(launch, environment.program, arguments)
        return _Run(command, lambda: run_mpirun(launch, script, arguments, code))
    command = list(command_line(environment))
    if script.suffix == ".py":
        return _Run(command, lambda: _debugged(environment, lambda: run_python(script, arguments, code)))
    if is_package(code) and not script.is_file():
        module = environment.program
        return _Run(command, lambda: _debugged(environment, lambda: run_module(module, arguments, code)))
    if debugger_wanted():
        print("CLARY_DEBUGPY is for Python scripts: this one starts without waiting.", flush=True)
    return _Run(command, lambda: run_shell(script, arguments, code))


def _meeting(framework: FrameworkSpec, environment: TrainingEnvironment, cluster: Cluster) -> dict[str, str]:
    """What the framework's container sets so that the hosts of a job find one another."""
    variables = tensorflow_configuration(environment.framework_parameters, cluster)
    if framework.library == "torch":
        variables |= {
            name: value for name, value in cluster_variables(cluster).items() if name not in os.environ
        }
    return variables


def _debugged(environment: TrainingEnvironment, start: Callable[[], Ended]) -> Ended:
    """Start the script, after a debugger's arrival on the first host if one is asked for."""
    if environment.host == environment.hosts[0]:
        os.chdir(environment.code)
        await_debugger()
    return start()


def load_predictor(framework: str, model_directory: Path) -> Predictor:
    """What answers requests with the user's functions (`ScriptPredictor`); threads may share it.

    Raises what loading the user's code and model raises.
    """
    from clary.frameworks.inference import ScriptPredictor, UnusableScript

    spec = get_framework(framework)
    if not spec.handlers:
        raise UnusableScript(f"{spec.title} trains here, but its models are not served yet.")
    print(running_versions(spec, ""), flush=True)
    return ScriptPredictor(spec, model_directory)


def _refuse(base: Path, error: Exception) -> int:
    """Say what the caller has to mend, in the log and as the job's failure."""
    print(f"ClientError: {error}", file=sys.stderr, flush=True)
    _write(base / "output/failure", f"ClientError: {error}")
    return 1


def _failure(ended: Ended, command_words: Sequence[str]) -> str:
    """In the toolkit's words, the cause first: the text may be cut."""
    command = shlex.join(command_words)
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
