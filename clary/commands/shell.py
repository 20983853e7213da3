"""``clary shell``: a shell beside a running algorithm, as it sees its world.

The one command besides ``up`` that needs the machine on which the job runs: it enters namespaces, or asks the
container engine to.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clary.settings import Settings

if TYPE_CHECKING:
    from clary.resources.task_folder import StartedProgram

HELP = "a shell, or a command, inside a running job: clary shell JOB [-- COMMAND]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="", help="the host to enter (default: the first, algo-1)")
    parser.add_argument("job", metavar="JOB", help="the name of a running training job")
    parser.epilog = "A command to run instead of a shell stands behind --, with its own options."


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.agent.runtimes.enter import CannotEnter

    try:
        return _enter(settings, options.job, options.host, options.command_line)
    except CannotEnter as error:
        print(f"clary shell: {error}", file=sys.stderr)
        return 1


def _enter(settings: Settings, job: str, host: str, argv: list[str]) -> int:
    from clary.agent.runtimes.enter import CannotEnter, Command, process_in, run_beside, run_in_folder
    from clary.clients.connect import connect
    from clary.resources.container_record import container_records
    from clary.resources.task_folder import task_folder
    from clary.running_server import running_server

    client = connect(settings.data, running_server(settings.data), "sagemaker")
    description = client.describe_training_job(TrainingJobName=job)
    tasks = settings.data / "tasks"
    task_id, host = _running_task(tasks, description, host)
    for record in container_records(tasks):
        if record.task_id == task_id:
            return _in_container(record.engine, task_id, host, argv)
    folder = task_folder(tasks, task_id)
    program = folder.read_program()
    if program is None:
        raise CannotEnter(f"{job} has not started its algorithm on {host} yet.")
    environment = {
        **program.environment,
        "TERM": os.environ.get("TERM", "dumb"),
        "PS1": f"({job} {host}) \\w$ ",
    }
    command = Command(argv, environment, program.directory, _variables_of_script(program))
    if Path(program.directory).is_relative_to(folder.ml):
        return run_in_folder(command)
    process_id = process_in(task_id)
    if process_id is None:
        raise CannotEnter(f"the algorithm of {job} on {host} does not run at this moment.")
    return run_beside(process_id, command)


def _variables_of_script(program: StartedProgram) -> Callable[[], Mapping[str, str]] | None:
    """What the training toolkit sets for a user's script (``SM_CHANNEL_TRAIN`` ...), which no file has."""
    if program.module != "clary.frameworks.entrypoint":
        return None
    from clary.frameworks.framework import get_framework
    from clary.frameworks.toolkit import read_environment

    container = get_framework(program.arguments[1]).container
    base = Path(program.environment["SAGEMAKER_BASE_DIR"])
    return lambda: read_environment(base, container).variables()


def _running_task(tasks: Path, description: dict[str, Any], host: str) -> tuple[str, str]:
    """The id of the task to enter, and its host. Raises `CannotEnter`."""
    from clary.agent.runtimes.enter import CannotEnter
    from clary.resources.task import TaskPhase, TrainingWork
    from clary.resources.task_folder import TaskFolder

    job, arn = description["TrainingJobName"], description["TrainingJobArn"]
    if description["TrainingJobStatus"] not in ("InProgress", "Stopping"):
        raise CannotEnter(f"{job} does not run: it is {description['TrainingJobStatus']}.")
    found: dict[str, str] = {}
    hosts: tuple[str, ...] = ()
    for path in sorted(tasks.iterdir()) if tasks.is_dir() else ():
        folder = TaskFolder(path)
        spec = folder.read_spec() if not path.name.startswith(".") else None
        if spec is None or not isinstance(spec.work, TrainingWork) or spec.work.job_arn != arn:
            continue
        hosts = spec.work.hosts
        status = folder.read_status()
        if folder.agent_lives() and status and status[0].phase is TaskPhase.RUNNING:
            found[spec.work.host] = spec.id
    if host and hosts and host not in hosts:
        raise CannotEnter(f"{job} has no host {host}: its hosts are {', '.join(hosts)}.")
    chosen = host or next((each for each in hosts if each in found), "")
    if chosen not in found:
        where = f" on {host}" if host else ""
        message = description["SecondaryStatusTransitions"][-1].get("StatusMessage", "")
        raise CannotEnter(
            f"the algorithm of {job} does not run{where} on this machine: the job is "
            f"{description['SecondaryStatus']}{f' ({message})' if message else ''}."
        )
    return found[chosen], chosen


def _in_container(engine: str, task_id: str, host: str, argv: list[str]) -> int:
    from clary.agent.runtimes.docker import TASK_LABEL
    from clary.agent.runtimes.enter import CannotEnter

    program = shutil.which("docker") or shutil.which("podman")
    if program is None:
        raise CannotEnter(
            "this job runs in a container, and to enter it the command docker or podman is needed."
        )
    environment = {**os.environ, "DOCKER_HOST": engine, "CONTAINER_HOST": engine}
    listing = subprocess.run(
        [program, "ps", "--quiet", "--no-trunc", "--filter", f"label={TASK_LABEL}={task_id}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        raise CannotEnter(f"the container engine does not answer: {listing.stderr.strip()}")
    containers = listing.stdout.split()
    if not containers:
        raise CannotEnter(f"the container of {host} does not run at this moment.")
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    shell = ["/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash || exec sh"]
    return subprocess.run(
        [program, "exec", "--interactive", *terminal, containers[0], *(argv or shell)],
        env=environment,
        check=False,
    ).returncode
