"""A task: one agent's work on one machine, as the controllers order it and the agent reports it.

Everything here survives JSON, since a task's description and state live in files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from clary.resources.resource import Document, JsonValue


class TaskPhase(str, Enum):
    """Where a task stands. The last four are final."""

    PENDING = "Pending"  # accepted; waits for room or for its agent
    PREPARING = "Preparing"  # the agent brings inputs or the model in
    RUNNING = "Running"  # the algorithm runs; a server is healthy
    UPLOADING = "Uploading"  # outputs go out
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"  # ended because it was told to, outputs uploaded
    LOST = "Lost"  # the agent is gone without a word

    @property
    def final(self) -> bool:
        return self in (TaskPhase.SUCCEEDED, TaskPhase.FAILED, TaskPhase.STOPPED, TaskPhase.LOST)


class StopCause(str, Enum):
    """Why a task was told to stop; it decides the status its owner ends in."""

    REQUESTED = "Requested"  # the user's Stop call
    MAX_RUNTIME = "MaxRuntimeExceeded"
    MAX_WAIT = "MaxWaitTimeExceeded"
    MAX_PENDING = "MaxPendingTimeExceeded"
    INTERRUPTED = "Interrupted"  # its machine is taken away, as spot machines are; the owner starts it again
    SUPERSEDED = "Superseded"  # its owner no longer wants it
    SHUTDOWN = "Shutdown"  # Clary itself goes down; the owner starts it again


@dataclass(frozen=True)
class Connection:
    """How an agent reaches the public APIs. Credentials come by the container-credentials protocol."""

    endpoint_url: str
    region: str
    credentials_url: str
    credentials_token: str = field(repr=False)


@dataclass(frozen=True)
class TrainingWork:
    """One host of a training job. ``request`` is the CreateTrainingJob input, verbatim.

    ``max_runtime_seconds`` is what is left to this attempt of the time that the job may train.
    """

    job_name: str
    job_arn: str
    request: Document
    host: str  # "algo-1"
    hosts: tuple[str, ...]
    instance_type: str
    instance_group: str
    log_group: str
    log_stream: str
    max_runtime_seconds: float


@dataclass(frozen=True)
class ServingWork:
    """One replica of a production variant. ``model`` is the CreateModel input, verbatim."""

    endpoint_name: str
    variant_name: str
    model: Document
    instance_type: str
    log_group: str
    log_stream: str
    startup_timeout_seconds: float
    download_timeout_seconds: float


@dataclass(frozen=True)
class TaskSpec:
    """What a driver is asked to run.

    ``id`` derives from the owner's uid (``training-UID-1-algo-1``): the same order has the same id.
    ``owner`` is an opaque text that the owner's controller understands; the driver only gives it back.

    ``gang`` has the ids of all tasks of a cluster, this one's too, in the order of the hosts: they are
    launched together or not at all, once all of them have been ordered. It is empty for a task on its own.

    A task that ``keeps_room`` has its place on the machine until it is removed, also after its end; one of
    ``room_of`` that ended task uses its place, and its folder for successors.
    """

    id: str
    owner: str
    work: TrainingWork | ServingWork
    connection: Connection
    cpu_count: float
    memory_bytes: int
    gpu_count: int
    grace_seconds: float  # between SIGTERM and SIGKILL
    gang: tuple[str, ...] = ()
    keeps_room: bool = False
    room_of: str = ""


@dataclass(frozen=True)
class TaskTransition:
    """When a phase began, and what the agent has to say of it (``Downloading input data``)."""

    phase: TaskPhase
    at: float
    message: str


@dataclass(frozen=True)
class TaskStatus:
    """What is known of a task. ``reason`` explains FAILED and LOST in words fit for a FailureReason.

    ``address`` is where a server answers (``unix:/path`` or ``tcp:host:port``), set while RUNNING.
    ``results`` is what the agent hands back (``{"model_artifacts": "s3://..."}``).
    """

    id: str
    owner: str
    phase: TaskPhase
    transitions: tuple[TaskTransition, ...] = ()
    exit_code: int | None = None
    reason: str = ""
    stop_cause: StopCause | None = None
    address: str | None = None
    process_id: int | None = None
    results: Mapping[str, JsonValue] = field(default_factory=dict)


def spec_to_json(spec: TaskSpec) -> dict[str, JsonValue]:
    """A JSON document of ``spec``, credentials token included: keep it in a file of mode 0600."""
    document: dict[str, JsonValue] = asdict(spec)
    document["work_kind"] = type(spec.work).__name__
    return document


def spec_from_json(document: Mapping[str, Any]) -> TaskSpec:
    """Inverse of `spec_to_json`. Raises ``KeyError`` or ``TypeError`` on a document of another form."""
    fields = dict(document)
    kind = fields.pop("work_kind")
    work = dict(fields.pop("work"))
    if kind == "TrainingWork":
        work["hosts"] = tuple(work["hosts"])
    return TaskSpec(
        work=TrainingWork(**work) if kind == "TrainingWork" else ServingWork(**work),
        connection=Connection(**fields.pop("connection")),
        gang=tuple(fields.pop("gang")),
        **fields,
    )


def status_to_json(status: TaskStatus) -> dict[str, JsonValue]:
    """A JSON document of ``status``."""
    return asdict(status)


def status_from_json(document: Mapping[str, Any]) -> TaskStatus:
    """Inverse of `status_to_json`. Raises ``KeyError`` or ``ValueError`` on a document of another form."""
    fields = dict(document)
    cause = fields.pop("stop_cause")
    return TaskStatus(
        phase=TaskPhase(fields.pop("phase")),
        stop_cause=StopCause(cause) if cause else None,
        transitions=tuple(
            TaskTransition(TaskPhase(t["phase"]), t["at"], t["message"]) for t in fields.pop("transitions")
        ),
        **fields,
    )
