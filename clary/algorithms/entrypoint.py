"""What runs inside a task for a built-in algorithm: the container contract around `train`, and predictors."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from clary.algorithms.algorithm import check_hyperparameters, get_algorithm
from clary.algorithms.faults import ClientError
from clary.algorithms.job import base_directory, read_job

LONGEST_FAILURE = 1024

# (body, content type, accept) to (status, body, content type)
Predictor = Callable[[bytes, str, str], tuple[int, bytes, str]]


def main(arguments: Sequence[str]) -> int:
    """``train ALGORITHM [VERSION]`` under ``SAGEMAKER_BASE_DIR``; returns the exit code.

    A failure leaves its cause in ``output/failure``: ``ClientError`` for what the caller can mend,
    ``AlgorithmError`` with exception, file and line for the rest.
    """
    command, name = arguments[0], arguments[1]
    if command != "train":
        raise ValueError(f"the algorithm can train, not '{command}'")
    base = base_directory()
    try:
        job = read_job(base)
        job.stop_on_sigterm()
        errors = check_hyperparameters(get_algorithm(name), job.hyperparameters)
        if errors:
            raise ClientError("; ".join(errors))
        job.model.mkdir(parents=True, exist_ok=True)
        importlib.import_module(f"clary.algorithms.{name}.train").train(job)
        return 0
    except ClientError as error:
        print(f"ClientError: {error}", file=sys.stderr, flush=True)
        _write_failure(base, f"ClientError: {error}")
    except MemoryError:
        _write_failure(base, "AlgorithmError: out of memory")
        traceback.print_exc()
    except Exception as error:  # noqa: BLE001 - the end of the process: whatever it is, it is told
        traceback.print_exc()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        _write_failure(
            base, f"AlgorithmError: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        )
    return 1


def load_predictor(algorithm: str, model_directory: Path) -> Predictor:
    """A function that answers requests with the model in ``model_directory``. Raises what loading raises."""
    module = importlib.import_module(f"clary.algorithms.{algorithm}.predict")
    predictor: Predictor = module.load(model_directory)
    return predictor


def _write_failure(base: Path, message: str) -> None:
    folder = base / "output"
    folder.mkdir(parents=True, exist_ok=True)
    failure = folder / "failure"
    if not failure.exists():
        failure.write_text(message[:LONGEST_FAILURE], encoding="utf-8")
