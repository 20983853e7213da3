"""One host of a training job, from its empty folder to its artifacts in S3."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clary.agent.checkpoints import Checkpoints, checkpoints_of
from clary.agent.cluster import Cluster, cluster_of
from clary.agent.code import SCRIPT_MODULE, plain, prepare_script
from clary.agent.commands import as_command, given_command
from clary.agent.container_training import ML, container_program, running_container
from clary.agent.debugger_outputs import debugger_outputs
from clary.agent.execute import Execution, execute
from clary.agent.explain import failure_reason
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.followed_folder import FollowedFolder
from clary.agent.gathering import upload_outputs
from clary.agent.images import BuiltIn, Container, resolve_image
from clary.agent.inputs import Inputs, bring_channels
from clary.agent.layout import NETWORK_INTERFACE, lay_out_training
from clary.agent.limits import task_limits
from clary.agent.metrics import MetricReader, MetricShipper
from clary.agent.outputs import has_model, upload_output_data
from clary.agent.runtimes.container import ContainerProgram
from clary.agent.runtimes.process import CannotRun
from clary.agent.runtimes.program import Program
from clary.agent.runtimes.running import Running
from clary.agent.s3_transfer import S3Transfer
from clary.agent.surroundings import Surroundings
from clary.agent.warm_pool import take_cache_over
from clary.agent.watch import Confinement, Watch, volume_watch
from clary.resources.task import StopCause, TaskPhase, TrainingWork

TRIAL_COMPONENT_SUFFIX = "-aws-training-job"
_FLUSH_SECONDS = 16 * 60.0  # a little over the agent's patience


def run_training(around: Surroundings, work: TrainingWork, incoming: S3Transfer) -> None:
    """Do the work and report each phase, the last one included; ``incoming`` gives up when told to stop.

    Raises `TaskFailed` and `TaskStopped`.
    """
    started = time.monotonic()
    ml = around.folder.ml
    around.report.phase(TaskPhase.PREPARING, "Downloading input data")
    cluster = cluster_of(around.spec, work, around.folder)
    cluster.write_hosts(around.folder.path)
    program = _program(around, work, cluster)
    in_container = isinstance(program, ContainerProgram)
    lay_out_training(ml, work, NETWORK_INTERFACE if in_container else cluster.network_interface)
    take_cache_over(around.folder.path.parent, ml, around.spec.room_of, around.say)
    around.runtime.reserve()
    inputs = bring_channels(around, work, incoming, shielded=True if in_container else None)
    checkpoints = checkpoints_of(ml, work, incoming=incoming, outgoing=around.transfer, say=around.say)
    if checkpoints:
        checkpoints.bring()
    outputs = debugger_outputs(ml, work, outgoing=around.transfer, say=around.say)
    followed: list[Checkpoints | FollowedFolder] = [*([checkpoints] if checkpoints else []), *outputs]
    program = inputs.seen_by(program)
    if isinstance(program, Program):
        program = prepare_script(around, work, program, incoming)
    if around.stop.wanted():
        raise TaskStopped
    around.report.phase(TaskPhase.RUNNING, "Training in progress")
    # Trial components have names in lower case; the server finds the job's own.
    trial_component = work.job_name.lower() + TRIAL_COMPONENT_SUFFIX
    metrics = MetricShipper(around.clients, around.patience, trial_component)
    for folder in followed:
        folder.start()
    try:
        execution = _execute(around, work, program, inputs, metrics, started)
    finally:
        for folder in followed:
            folder.finish()
    if execution.stop_cause in (StopCause.SHUTDOWN, StopCause.INTERRUPTED):
        raise TaskStopped
    around.report.phase(TaskPhase.UPLOADING, "Uploading generated training model")
    succeeded = execution.ending.exit_code == 0 and not execution.violation
    if succeeded or execution.stop_cause:
        with_model = succeeded or has_model(ml)
        results = upload_outputs(around, work, cluster, with_model=with_model)
    else:
        output = upload_output_data(ml, work, around.transfer, around.say)
        results = {"output_artifacts": output} if output else {}
    if not metrics.close(_FLUSH_SECONDS):
        around.say("Some metrics could not be delivered.")
    around.logs.close(_FLUSH_SECONDS)
    if execution.stop_cause:
        around.report.finish(
            TaskPhase.STOPPED,
            stop_cause=execution.stop_cause,
            exit_code=execution.ending.exit_code,
            results=results,
        )
    elif succeeded:
        around.report.finish(TaskPhase.SUCCEEDED, exit_code=0, results=results)
    else:
        around.report.finish(
            TaskPhase.FAILED,
            reason=failure_reason(ml, execution),
            exit_code=execution.ending.exit_code,
            results=results,
        )


def _execute(
    around: Surroundings,
    work: TrainingWork,
    program: Program | ContainerProgram,
    inputs: Inputs,
    metrics: MetricShipper,
    started: float,
) -> Execution:
    reader = MetricReader(_metric_definitions(work))

    def take(line: str) -> None:
        at = time.time()
        around.logs.add(line, at)
        for name, value in reader.read(line):
            metrics.add(name, value, at)
        while reader.complaints:
            around.logs.add(reader.complaints.pop(0), at)

    try:
        with inputs.piping() as piped, _running(around, program) as (running, watch):
            return execute(
                running,
                take,
                around.stop,
                grace_seconds=around.spec.grace_seconds,
                deadline=started + work.max_runtime_seconds,
                watch=piped(watch),
            )
    except CannotRun as error:
        raise TaskFailed(f"InternalServerError: {error}") from error


@contextlib.contextmanager
def _running(around: Surroundings, program: Program | ContainerProgram) -> Iterator[tuple[Running, Watch]]:
    """Run ``program`` within its limits while the context lasts; the watch over it. Raises `CannotRun`."""
    limits = task_limits(around.spec, around.settings)
    for remark in limits.remarks():
        around.say(remark)
    if isinstance(program, ContainerProgram):
        volume = volume_watch(limits, around.folder, ML)
        with running_container(around, program, limits, volume) as contained:
            yield contained
        return
    volume = volume_watch(limits, around.folder, program.directory)
    with Confinement(limits, around.settings) as confinement:
        running = around.runtime.start(confinement.confined(program), confinement.cgroup)
        try:
            yield running, confinement.watch(volume, running.process_id)
        finally:
            running.close()


def _program(around: Surroundings, work: TrainingWork, cluster: Cluster) -> Program | ContainerProgram:
    """What to run for the job's image. Raises `TaskFailed` for what cannot be run here."""
    algorithm = _mapping(work.request.get("AlgorithmSpecification"))
    image = algorithm.get("TrainingImage")
    if not image:
        raise TaskFailed(
            "ClientError: the job has no training image: name one, or an algorithm that has one."
        )
    environment = {str(name): str(value) for name, value in _mapping(work.request.get("Environment")).items()}
    command = given_command(algorithm)
    has_program = bool(
        command or plain(_hyperparameters(work), "sagemaker_program") or environment.get("SAGEMAKER_PROGRAM")
    )
    meaning = resolve_image(str(image), has_program=has_program)
    if isinstance(meaning, Container):
        return container_program(around, work, meaning.uri, environment)
    if command and isinstance(meaning, BuiltIn):
        raise TaskFailed(
            f"ClientError: the image {image} is a built-in algorithm of Clary, which has no container to run "
            "ContainerEntrypoint and ContainerArguments in: leave them out, or name a framework's image."
        )
    if isinstance(meaning, BuiltIn):
        module, name = "clary.algorithms.entrypoint", meaning.algorithm
    else:
        module, name = SCRIPT_MODULE, meaning.name
    program = Program(
        task_id=around.spec.id,
        module=module,
        directory=around.runtime.ml_seen(around.spec.id),
        arguments=("train", name, meaning.version),
        environment={
            **environment,
            **around.algorithm_environment(),
            **cluster.environment(),
            "TRAINING_JOB_NAME": work.job_name,
            "TRAINING_JOB_ARN": work.job_arn,
        },
        network=not work.request.get("EnableNetworkIsolation"),
        cluster=around.spec.gang[0] if around.spec.gang else "",
        host_name=cluster.host,
        threads=around.threads,
    )
    return as_command(around, program, command) if command else program


def _metric_definitions(work: TrainingWork) -> Sequence[Mapping[str, Any]]:
    given = _mapping(work.request.get("AlgorithmSpecification")).get("MetricDefinitions")
    return [_mapping(definition) for definition in given] if isinstance(given, list) else []


def _hyperparameters(work: TrainingWork) -> Mapping[str, Any]:
    return _mapping(work.request.get("HyperParameters"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
