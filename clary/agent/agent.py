"""The agent of one task: a process of its own that outlives the server and answers for the task's end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from clary.agent.aws import Patience, clients_for
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.log_shipper import LogShipper
from clary.agent.report import Report
from clary.agent.runtimes.process import ProcessRuntime
from clary.agent.s3_transfer import S3Transfer
from clary.agent.serving import run_serving
from clary.agent.stopping import StopRequests
from clary.agent.surroundings import AgentSettings, Surroundings
from clary.agent.training import run_training
from clary.resources.task import ServingWork, StopCause, TaskPhase, TaskSpec
from clary.resources.task_folder import TaskFolder

_LOCK_ATTEMPTS, _LOCK_PAUSE_SECONDS = 50, 0.02
_FLUSH_SECONDS = 16 * 60.0
_SHORT_FLUSH_SECONDS = 2.0
SHUTDOWN_REASON = "Clary was shut down."


def run_agent(task: Path, settings: AgentSettings) -> int:
    """Do the work of the task in folder ``task``; an exit code. One that has an agent is left alone."""
    folder = TaskFolder(task)
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _take(lock):
        return 0
    spec = folder.read_spec()
    if spec is None:
        print(f"{task}: there is no order that can be read", file=sys.stderr)
        return 2
    known = folder.read_status()
    if known and known[0].phase is not TaskPhase.PENDING:
        return 0  # it was begun by another agent, and things are not done twice
    report = Report(folder, spec, settings.driver_socket)
    stop = StopRequests(folder)
    if stop.wanted():
        _finish_stopped(report, stop)
        return 0

    def shut_down() -> bool:
        return stop.cause() is StopCause.SHUTDOWN

    clients = clients_for(spec.connection.endpoint_url, spec.connection.region)
    clients.credentials.bind(spec.connection)
    logs = LogShipper(
        clients,
        Patience(clients.credentials, abandoned=shut_down),
        spec.work.log_group,
        spec.work.log_stream,
        task / "logs.spool",
    )
    patience = Patience(clients.credentials, abandoned=stop.wanted)
    patient = Patience(clients.credentials, abandoned=shut_down)
    around = Surroundings(
        spec=spec,
        folder=folder,
        settings=settings,
        report=report,
        stop=stop,
        clients=clients,
        patience=patient,
        transfer=S3Transfer(clients, patient, lambda: False),
        runtime=ProcessRuntime(settings.runtime),
        logs=logs,
    )
    _work(around, spec, S3Transfer(clients, patience, stop.wanted))
    return 0


def _take(lock: int) -> bool:
    """Take the task's lock; whether it could be had.

    A driver that looks whether there is an agent holds it for a moment, an agent for as long as it lives.
    """
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_SECONDS)
    return False


def _work(around: Surroundings, spec: TaskSpec, incoming: S3Transfer) -> None:
    """Everything that may happen ends in a final status."""
    report, stop, logs = around.report, around.stop, around.logs
    try:
        if isinstance(spec.work, ServingWork):
            run_serving(around, spec.work, incoming)
        else:
            run_training(around, spec.work, incoming)
    except TaskStopped:
        logs.close(_SHORT_FLUSH_SECONDS if stop.cause() is StopCause.SHUTDOWN else _FLUSH_SECONDS)
        _finish_stopped(report, stop)
    except TaskFailed as error:
        if stop.cause() is StopCause.SHUTDOWN:
            _finish_stopped(report, stop)
            return
        logs.add(error.reason)
        logs.close(_FLUSH_SECONDS)
        report.finish(TaskPhase.FAILED, reason=error.reason, exit_code=error.exit_code)
    except Exception as error:
        traceback.print_exc()
        logs.close(_SHORT_FLUSH_SECONDS)
        reason = TaskFailed(f"InternalServerError: {type(error).__name__}: {error}").reason
        report.finish(TaskPhase.FAILED, reason=reason)
        raise
    finally:
        around.runtime.release()


def _finish_stopped(report: Report, stop: StopRequests) -> None:
    """A task that was stopped; one whose work Clary's own end cut off counts as lost, to be begun again."""
    cause = stop.cause() or StopCause.REQUESTED
    if cause is StopCause.SHUTDOWN:
        report.finish(TaskPhase.LOST, reason=SHUTDOWN_REASON, stop_cause=cause)
    else:
        report.finish(TaskPhase.STOPPED, stop_cause=cause)


def main(arguments: list[str]) -> int:
    """``python -m clary.agent.agent TASK_FOLDER SETTINGS_JSON``: for want of a fork server."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return run_agent(Path(arguments[0]), AgentSettings(**json.loads(arguments[1])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
