"""LDA's hyperparameters, metrics and image, as the developer guide has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clary.algorithms.algorithm import AlgorithmSpec, Channel, Hyperparameter, Range, Tunable
from clary.algorithms.first_party import (
    ALL_MODES,
    CSV_TYPES,
    INTERNAL,
    POSITIVE,
    RECORDIO_TYPES,
    REPLY_TYPES,
    REQUEST_TYPES,
    progress_metrics,
    quality_metric,
)

MODEL_NAME = "model_algo-1"
_ABOVE_ZERO = Range(0, low_open=True)

HYPERPARAMETERS: Sequence[Hyperparameter] = (
    Hyperparameter("num_topics", "Integer", "Topics to find.", POSITIVE, required=True,
                   tunable=Tunable(1, 150)),
    Hyperparameter("feature_dim", "Integer", "Words of the vocabulary.", POSITIVE, required=True),
    Hyperparameter("mini_batch_size", "Integer", "How many documents there are to train on.", POSITIVE,
                   required=True),
    Hyperparameter("alpha0", "Continuous",
                   "Sum of the prior of a document's topics; the smaller, the fewer topics a document has.",
                   _ABOVE_ZERO, default="1.0", tunable=Tunable(0.1, 10)),
    Hyperparameter("max_restarts", "Integer", "Attempts at the decomposition, of which the best counts.",
                   POSITIVE, default="10"),
    Hyperparameter("max_iterations", "Integer", "Steps of an attempt, and of the refinement after it.",
                   POSITIVE, default="1000"),
    Hyperparameter("tol", "Continuous", "An attempt ends when its error changes by less than this.",
                   _ABOVE_ZERO, default="1e-8"),
    *INTERNAL,
)  # fmt: skip


def _rules(values: Mapping[str, str]) -> Sequence[str]:
    if int(values["num_topics"]) > int(values["mini_batch_size"]):
        return [
            f"num_topics is {values['num_topics']}, but there cannot be more topics than documents to train "
            f"on (mini_batch_size is {values['mini_batch_size']})"
        ]
    return ()


SPEC = AlgorithmSpec(
    name="lda",
    title="LDA",
    tags={"lda": ["1", "latest"]},
    hyperparameters=HYPERPARAMETERS,
    metrics=(
        quality_metric("test", "pwll", "Maximize"),
        quality_metric("train", "pwll", "Maximize"),
        *progress_metrics(),
    ),
    channels=(
        Channel("train", True, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
        Channel("test", False, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
    ),
    request_types=REQUEST_TYPES,
    reply_types=REPLY_TYPES,
    rules=_rules,
)
