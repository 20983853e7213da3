"""What an agent's work needs at hand, and the environment variables that every algorithm gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clary.agent.aws import Clients, Patience
from clary.agent.log_shipper import LogShipper
from clary.agent.report import Report
from clary.agent.runtimes.process import ProcessRuntime, ProcessRuntimeSettings
from clary.agent.runtimes.sandbox import Folders
from clary.agent.s3_transfer import S3Transfer
from clary.agent.stopping import StopRequests
from clary.resources.task import TaskSpec
from clary.resources.task_folder import TaskFolder


@dataclass(frozen=True)
class AgentSettings:
    """What the driver tells its agents of this machine. Paths are absolute."""

    tasks: str
    environments: str
    sockets: str
    fork_server: str  # socket of the algorithm fork server
    driver_socket: str  # where pokes go
    fencing: str  # see `ProcessRuntimeSettings`
    cpu_count: int  # that all tasks together may use
    memory_bytes: int = 0  # likewise; 0: not known
    task_processes: int = 4096  # that one task may have, threads included
    cgroups: bool = True  # whether tasks get control groups, where this machine allows them
    file_systems: Mapping[str, str] = field(default_factory=dict)  # id -> directory; see `mounts`
    docker_host: str = ""  # address of the container engine; "": where engines usually are
    docker_pull: str = "missing"  # see `clary.resources.container_record.PULL_POLICIES`

    @property
    def runtime(self) -> ProcessRuntimeSettings:
        folders = Folders(Path(self.tasks), Path(self.environments), Path(self.sockets), self.file_systems)
        return ProcessRuntimeSettings(self.fencing, self.fork_server, folders)


@dataclass(frozen=True)
class Surroundings:
    """See the module."""

    spec: TaskSpec
    folder: TaskFolder
    settings: AgentSettings
    report: Report
    stop: StopRequests
    clients: Clients
    patience: Patience
    transfer: S3Transfer
    runtime: ProcessRuntime
    logs: LogShipper

    @property
    def say(self) -> Callable[[str], None]:
        """Adds a line to the task's log."""
        return self.logs.add

    @property
    def threads(self) -> int:
        """How many threads numerical libraries should use: a cluster's hosts share this machine."""
        hosts = max(1, len(self.spec.gang))
        return max(1, min(int(self.spec.cpu_count), self.settings.cpu_count // hosts))

    def algorithm_environment(self) -> dict[str, str]:
        """Variables by which a script's own AWS clients reach the same APIs, as the job's role."""
        connection = self.spec.connection
        return {
            "AWS_REGION": connection.region,
            "AWS_DEFAULT_REGION": connection.region,
            "AWS_ENDPOINT_URL": connection.endpoint_url,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": connection.credentials_url,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": connection.credentials_token,
            "SAGEMAKER_BASE_DIR": self.runtime.ml_seen(self.spec.id),
            "SM_NUM_CPUS": str(self.threads),
            "SM_NUM_GPUS": str(self.spec.gpu_count),
        }
