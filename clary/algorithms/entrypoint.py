"""What runs inside a task for a built-in algorithm: the container contract around `train`, and predictors."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from clary.algorithms.algorithm import AlgorithmSpec, check_hyperparameters, get_algorithm
from clary.algorithms.faults import ClientError, HostLost, NothingTrained
from clary.algorithms.job import Job, base_directory, processors, read_job, write_failure

LARGEST_BODY_MEGABYTES = 6
_TERMINATED = 128 + signal.SIGTERM

# (body, content type, accept) to (status, body, content type)
Predictor = Callable[[bytes, str, str], tuple[int, bytes, str]]


def main(arguments: Sequence[str]) -> int:
    """``train ALGORITHM [VERSION]`` under ``SAGEMAKER_BASE_DIR``; returns the exit code, or ends the program
    with it (see `Job.ends_at_once`).

    A failure leaves its cause in ``output/failure``: ``ClientError`` for what the caller can mend,
    ``AlgorithmError`` with exception, file and line for the rest. A job that is told to stop (SIGTERM) keeps
    what it has trained and ends with 0; if that is nothing, as SIGTERM ends any program.
    """
    command, name, *version = arguments
    if command != "train":
        raise ValueError(f"the algorithm can train, not '{command}'")
    base = base_directory()
    spec = get_algorithm(name)
    try:
        job = read_job(base)
    except ClientError as error:
        return _fail(base, f"ClientError: {error}")
    job.version = version[0] if version else ""
    code = _train(spec, job)
    if job.ends_at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _train(spec: AlgorithmSpec, job: Job) -> int:
    """The exit code."""
    try:
        job.stop_on_sigterm()
        job.log(f"Training {spec.title}{f' (image version {job.version})' if job.version else ''}")
        _check(spec, job)
        job.model.mkdir(parents=True, exist_ok=True)
        _module(spec, "train").train(job)
    except ClientError as error:
        return _fail(job.base, f"ClientError: {error}")
    except HostLost as error:
        return _fail(job.base, str(error))
    except NothingTrained:
        print("Told to stop before anything was trained", file=sys.stderr, flush=True)
        return _TERMINATED
    except Exception as error:  # noqa: BLE001 - the end of the process: whatever it is, it is told
        traceback.print_exc()
        write_failure(job.base, f"AlgorithmError: {_told(error)}")
        return 1
    return 0


def _fail(base: Path, message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    write_failure(base, message)
    return 1


def load_predictor(algorithm: str, model_directory: Path) -> Predictor:
    """A function that answers requests with the model in ``model_directory``; threads may share it.

    Raises `ClientError` for a model that will not do, and what else loading raises.
    """
    predictor: Predictor = _module(get_algorithm(algorithm), "predict").load(model_directory)
    return predictor


def execution_parameters(algorithm: str) -> Mapping[str, object]:
    """What a batch transform should do where the caller does not say; see ``GET /execution-parameters``."""
    get_algorithm(algorithm)
    return {
        "MaxConcurrentTransforms": processors(),
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": LARGEST_BODY_MEGABYTES,
    }


def _check(spec: AlgorithmSpec, job: Job) -> None:
    """What can be said before any data is read. Raises `ClientError`."""
    errors = check_hyperparameters(spec, job.hyperparameters)
    if errors:
        raise ClientError("; ".join(errors))
    for channel in spec.channels:
        if channel.required and channel.name not in job.input_config:
            given = ", ".join(sorted(job.input_config)) or "none"
            raise ClientError(f"The job needs a channel '{channel.name}'; it has: {given}.")
    unknown = sorted(set(job.input_config) - {channel.name for channel in spec.channels})
    if unknown:
        known = ", ".join(channel.name for channel in spec.channels)
        raise ClientError(f"{spec.title} has no channel '{unknown[0]}'; its channels are: {known}.")
    if len(job.hosts) > spec.most_instances:
        raise ClientError(
            f"{spec.title} trains on {spec.most_instances} instance(s) here; the job has {len(job.hosts)}."
        )


def _module(spec: AlgorithmSpec, part: str) -> ModuleType:
    """The algorithm's ``train`` or ``predict``. Raises `ClientError` if its libraries are not installed."""
    folder = spec.name.replace("-", "_")
    try:
        return importlib.import_module(f"clary.algorithms.{folder}.{part}")
    except ModuleNotFoundError as error:
        if spec.extra and not (error.name or "").startswith("clary"):
            raise ClientError(
                f"{spec.title} needs the library {error.name}: pip install 'clary[{spec.extra}]'."
            ) from error
        raise


def _told(error: BaseException) -> str:
    """``ValueError: too few (train.py:12)``, the place where it was raised."""
    if isinstance(error, MemoryError):
        return "out of memory"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
