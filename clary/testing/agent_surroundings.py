"""What an agent has at hand while it works, over an `AgentWorld`: to test its parts without a process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from clary.agent.aws import Clients, Patience
from clary.agent.log_shipper import LogShipper
from clary.agent.report import Report
from clary.agent.runtimes.process import ProcessRuntime
from clary.agent.s3_transfer import S3Transfer
from clary.agent.stopping import StopRequests
from clary.agent.surroundings import AgentSettings, Surroundings
from clary.resources.task import TaskPhase, TaskSpec
from clary.resources.task_folder import TaskFolder
from clary.testing.agent_world import AgentWorld

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def agent_surroundings(
    world: AgentWorld,
    folder: Path,
    spec: TaskSpec,
    *,
    fencing: str = "none",
    file_systems: Mapping[str, str] | None = None,
    patience_seconds: float = 2.0,
) -> Iterator[Surroundings]:
    """Surroundings of a task in ``folder``, which is being prepared; signals are handled as an agent does."""
    handlers = {number: signal.getsignal(number) for number in _HANDLED}
    task = TaskFolder(folder / "tasks" / spec.id)
    task.write_spec(spec)
    task.ml.mkdir(exist_ok=True)
    settings = AgentSettings(
        tasks=str(folder / "tasks"),
        environments=str(folder / "environments"),
        sockets=str(folder / "sockets"),
        fork_server=str(folder / "no-fork-server"),
        driver_socket=str(folder / "no-driver"),
        fencing=fencing,
        cpu_count=os.cpu_count() or 1,
        file_systems=dict(file_systems or {}),
    )
    clients = Clients(world.connection.endpoint_url, world.connection.region)
    clients.credentials.bind(spec.connection)
    patience = Patience(clients.credentials, seconds=patience_seconds)
    stop = StopRequests(task)
    logs = LogShipper(clients, patience, spec.work.log_group, spec.work.log_stream, task.path / "logs.spool")
    around = Surroundings(
        spec=spec,
        folder=task,
        settings=settings,
        report=Report(task, spec, settings.driver_socket),
        stop=stop,
        clients=clients,
        patience=patience,
        transfer=S3Transfer(clients, patience, lambda: False),
        runtime=ProcessRuntime(settings.runtime),
        logs=logs,
    )
    around.report.phase(TaskPhase.PREPARING, "Downloading input data")
    try:
        yield around
    finally:
        logs.close(patience_seconds)
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
