"""A training job in the user's own container: from the request to what the engine is asked to run."""

from __future__ import annotations

import contextlib
import hashlib
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clary.agent.execute import out_of_memory_kills
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.limits import TaskLimits, Violation, task_limits
from clary.agent.runtimes import sandbox
from clary.agent.runtimes.container import (
    CannotContain,
    ContainerLimits,
    ContainerProgram,
    engine_address,
)
from clary.agent.runtimes.docker import Engine, RunningContainer
from clary.agent.surroundings import Surroundings
from clary.agent.volume import VolumeWatch
from clary.agent.watch import FolderWatch, Watch, out_of_memory_reason
from clary.resources.task import TrainingWork

ML = "/opt/ml"
_READ_ONLY = "input"
_NO_API = (
    "Programs in the container do not reach Clary's API: the engine's bridge is not on this machine, as with "
    "Docker Desktop and rootless engines."
)


def container_program(
    around: Surroundings, work: TrainingWork, image: str, environment: Mapping[str, str]
) -> ContainerProgram:
    """What to run for a job with an image of the caller's; the image is there afterwards.

    Raises `TaskFailed` and `TaskStopped`.
    """
    algorithm = _mapping(work.request.get("AlgorithmSpecification"))
    entrypoint = tuple(str(word) for word in algorithm.get("ContainerEntrypoint") or ())
    arguments = tuple(str(word) for word in algorithm.get("ContainerArguments") or ())
    if not entrypoint and not arguments:
        arguments = ("train",)
    with _refusals(image), _engine(around) as engine:
        try:
            image_id = engine.find_image(
                image,
                pull=around.settings.docker_pull,
                say=around.report.progress,
                abandoned=around.stop.wanted,
            )
        except InterruptedError:
            raise TaskStopped from None
    around.say(f"The image {image} is {image_id} of the engine at {engine.address}.")
    limits = task_limits(around.spec, around.settings)
    return ContainerProgram(
        task_id=around.spec.id,
        image=image,
        image_id=image_id,
        ml=around.folder.ml,
        limits=ContainerLimits(
            cpu_count=limits.cpu_count,
            memory_bytes=limits.memory_bytes,
            gpu_count=_gpus(around),
            processes=limits.processes,
        ),
        host=work.host,
        hosts=tuple(work.hosts),
        cluster=_cluster_name(around),
        entrypoint=entrypoint,
        arguments=arguments,
        environment={
            **environment,
            "AWS_REGION": around.spec.connection.region,
            "AWS_DEFAULT_REGION": around.spec.connection.region,
            "TRAINING_JOB_NAME": work.job_name,
            "TRAINING_JOB_ARN": work.job_arn,
        },
        network=not work.request.get("EnableNetworkIsolation"),
    )


@contextlib.contextmanager
def running_container(
    around: Surroundings, program: ContainerProgram, limits: TaskLimits, volume: VolumeWatch
) -> Iterator[tuple[RunningContainer, Watch]]:
    """Run ``program`` while the context lasts; the watch over it. Raises `TaskFailed`."""
    _open_to_anybody(program.ml)
    sandbox.make_scratch_folders(program.ml)
    with _refusals(program.image), _engine(around) as engine:
        running = engine.run(program, around.spec.connection, Path(around.settings.tasks))
        try:
            if program.network and not running.reaches_api:
                around.say(_NO_API)
            yield running, ContainerWatch(running, limits, volume)
        finally:
            running.close()


class ContainerWatch(FolderWatch):
    """Watches what a container writes; of its memory the engine says in the end whether it was enough."""

    def __init__(self, running: RunningContainer, limits: TaskLimits, volume: VolumeWatch) -> None:
        super().__init__(volume)
        self._running = running
        self._limits = limits
        self._kills_before = out_of_memory_kills()

    def last_look(self, *, succeeded: bool) -> Violation | None:
        # Podman does not always know it; what the kernel counts is of the whole machine.
        killed = self._running.died_of_kill and out_of_memory_kills() > self._kills_before
        if not succeeded and (self._running.out_of_memory or killed):
            return Violation(out_of_memory_reason(self._limits, self._limits.memory_bytes, exact=False))
        return super().last_look(succeeded=succeeded)


@contextlib.contextmanager
def _engine(around: Surroundings) -> Iterator[Engine]:
    engine = Engine.connect(engine_address(around.settings.docker_host))
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def _refusals(image: str) -> Iterator[None]:
    """What an engine cannot do is how the task fails; the reason names the image."""
    try:
        yield
    except CannotContain as error:
        prefix = "ClientError" if error.callers else "InternalServerError"
        reason = str(error) if image in str(error) else f"the image {image} cannot be run: {error}"
        raise TaskFailed(f"{prefix}: {reason}") from error


def _open_to_anybody(ml: Path) -> None:
    """Let whoever the image runs as write where AWS lets it; the task's folder is closed to others."""
    for path in [ml / _READ_ONLY, *(ml / _READ_ONLY).iterdir()]:
        path.chmod(0o755)
    ml.chmod(0o777)
    for folder in (entry for entry in ml.iterdir() if entry.name != _READ_ONLY):
        for path in [folder, *folder.rglob("*")]:
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode):
                path.chmod(0o777)
            elif stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                path.chmod(stat.S_IMODE(found.st_mode) | 0o666)


def _gpus(around: Surroundings) -> int:
    """As many GPUs as the instance type has and this machine gives; the log says if that is fewer."""
    asked = around.spec.gpu_count
    there = len(list(Path("/dev").glob("nvidia[0-9]*"))) if asked else 0
    if there < asked:
        around.say(f"{around.spec.work.instance_type} has {asked} GPUs; this machine gives {there}.")
    return min(asked, there)


def _cluster_name(around: Surroundings) -> str:
    """The same for all hosts of an attempt, and for no others of this machine."""
    text = "\n".join([around.settings.tasks, *(around.spec.gang or (around.spec.id,))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
