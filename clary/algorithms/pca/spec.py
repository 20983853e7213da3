"""PCA's hyperparameters and images, as the developer guide has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clary.algorithms.algorithm import AlgorithmSpec, Channel, Hyperparameter, Range
from clary.algorithms.first_party import (
    ALL_MODES,
    BOOLEAN,
    CSV_TYPES,
    INTERNAL,
    POSITIVE,
    RECORDIO_TYPES,
    REPLY_TYPES,
    REQUEST_TYPES,
    progress_metrics,
)

MODEL_NAME = "model_algo-1"

HYPERPARAMETERS: Sequence[Hyperparameter] = (
    Hyperparameter("feature_dim", "Integer", "Features of a record.", POSITIVE, required=True),
    Hyperparameter("mini_batch_size", "Integer", "Records of a batch.", POSITIVE, required=True),
    Hyperparameter("num_components", "Integer", "Components to find.", POSITIVE, required=True),
    Hyperparameter("algorithm_mode", "Categorical",
                   "Exact, or for many features by a sketch of them.", values=("regular", "randomized"),
                   default="regular"),
    Hyperparameter("epochs", "Integer", "Without effect: one pass tells all.", POSITIVE, default="1"),
    Hyperparameter("extra_components", "Integer",
                   "How much wider than num_components the sketch is; -1 is the larger of 10 and "
                   "num_components.", Range(-1, 2**31 - 1), default="-1"),
    Hyperparameter("subtract_mean", "Categorical", "Whether data is centred, in training and inference.",
                   values=BOOLEAN, default="true"),
    *INTERNAL,
)  # fmt: skip


def _rules(values: Mapping[str, str]) -> Sequence[str]:
    if int(values["num_components"]) > int(values["feature_dim"]):
        return [
            f"num_components is {values['num_components']}, but there are no more components than features "
            f"(feature_dim is {values['feature_dim']})"
        ]
    return ()


SPEC = AlgorithmSpec(
    name="pca",
    title="PCA",
    tags={"pca": ["1", "latest"]},
    hyperparameters=HYPERPARAMETERS,
    metrics=progress_metrics(),
    channels=(
        Channel("train", True, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
        Channel("test", False, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
    ),
    request_types=REQUEST_TYPES,
    reply_types=REPLY_TYPES,
    most_instances=100,
    rules=_rules,
)
