"""Random Cut Forest's hyperparameters, metrics and images, as the developer guide has them."""

from __future__ import annotations

from collections.abc import Sequence

from clary.algorithms.algorithm import AlgorithmSpec, Channel, Hyperparameter, Range, Tunable
from clary.algorithms.first_party import (
    ALL_MODES,
    CSV_TYPES,
    INTERNAL,
    POSITIVE,
    RECORDIO_TYPES,
    REPLY_TYPES,
    REQUEST_TYPES,
    list_of,
    progress_metrics,
    quality_metric,
)

MODEL_NAME = "model_algo-1"
ACCURACY, PRECISION_RECALL = "accuracy", "precision_recall_fscore"

HYPERPARAMETERS: Sequence[Hyperparameter] = (
    Hyperparameter("feature_dim", "Integer", "Features of a record.", Range(1, 10_000), required=True),
    Hyperparameter("eval_metrics", "FreeText",
                   "What is reported of the labelled test channel: a JSON list of accuracy and "
                   "precision_recall_fscore.", default=f'["{ACCURACY}", "{PRECISION_RECALL}"]',
                   check=list_of(ACCURACY, PRECISION_RECALL)),
    Hyperparameter("num_samples_per_tree", "Integer",
                   "Records of a tree; one in so many should be an anomaly.", Range(1, 2048),
                   default="256", tunable=Tunable(1, 2048)),
    Hyperparameter("num_trees", "Integer", "Trees of the forest.", Range(50, 1000), default="100",
                   tunable=Tunable(50, 1000)),
    Hyperparameter("mini_batch_size", "Integer", "Without effect: records are sampled one by one.", POSITIVE,
                   default="1000"),
    Hyperparameter("epochs", "Integer", "Without effect: one pass tells all.", POSITIVE, default="1"),
    *INTERNAL,
    Hyperparameter("_ftp_port", "FreeText", "Of AWS's container; without effect here."),
)  # fmt: skip


SPEC = AlgorithmSpec(
    name="randomcutforest",
    title="Random Cut Forest",
    tags={"randomcutforest": ["1", "latest"]},
    hyperparameters=HYPERPARAMETERS,
    metrics=(
        *(quality_metric("test", name, "Maximize") for name in ("f1", "accuracy", "precision", "recall")),
        *progress_metrics(),
    ),
    channels=(
        Channel("train", True, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
        Channel("test", False, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
    ),
    request_types=REQUEST_TYPES,
    reply_types=REPLY_TYPES,
    most_instances=100,
)
