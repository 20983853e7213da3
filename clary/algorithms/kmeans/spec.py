"""K-Means's hyperparameters, metrics and images, as the developer guide has them."""

from __future__ import annotations

from collections.abc import Sequence

from clary.algorithms.algorithm import AlgorithmSpec, Channel, Hyperparameter, Range, Tunable
from clary.algorithms.first_party import (
    ALL_MODES,
    AUTO,
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
_METRICS = ("msd", "ssd")
_STARTS = ("random", "kmeans++")

HYPERPARAMETERS: Sequence[Hyperparameter] = (
    Hyperparameter("feature_dim", "Integer", "Features of a record.", POSITIVE, required=True),
    Hyperparameter("k", "Integer", "Clusters in the result.", POSITIVE, required=True),
    Hyperparameter("epochs", "Integer", "Passes over the data.", POSITIVE,
                   default="1", tunable=Tunable(1, 10)),
    Hyperparameter("eval_metrics", "FreeText",
                   "What is reported of the test channel: a JSON list of msd (mean of the squared distances) "
                   "and ssd (their sum).", default='["msd"]', check=list_of(*_METRICS)),
    Hyperparameter("extra_center_factor", "Integer",
                   "The stream is held in so many times k centres; auto is 10.", POSITIVE,
                   default="auto", words=AUTO, tunable=Tunable(4, 10)),
    Hyperparameter("half_life_time_size", "Integer",
                   "After so many records an old one weighs half; 0 for never.", Range(0, 2**31 - 1),
                   default="0"),
    Hyperparameter("init_method", "Categorical", "How the first records become the stream's centres.",
                   values=_STARTS, default="random"),
    Hyperparameter("local_lloyd_init_method", "Categorical",
                   "How Lloyd's method on the stream's centres starts.", values=_STARTS, default="kmeans++"),
    Hyperparameter("local_lloyd_max_iter", "Integer", "Steps of Lloyd's method at most.", POSITIVE,
                   default="300"),
    Hyperparameter("local_lloyd_num_trials", "Integer",
                   "How often Lloyd's method is started, the best result winning; auto is 10.", POSITIVE,
                   default="auto", words=AUTO),
    Hyperparameter("local_lloyd_tol", "Continuous",
                   "Lloyd's method ends when a step changes the loss by less than this share.", Range(0, 1),
                   default="0.0001"),
    Hyperparameter("mini_batch_size", "Integer", "Records of a batch; some of the first become centres.",
                   POSITIVE, default="5000", tunable=Tunable(3000, 15000)),
    *INTERNAL,
)  # fmt: skip


SPEC = AlgorithmSpec(
    name="kmeans",
    title="K-Means",
    tags={"kmeans": ["1", "latest"]},
    hyperparameters=HYPERPARAMETERS,
    metrics=(
        *(quality_metric(split, name, "Minimize") for split in ("test", "train") for name in _METRICS),
        *progress_metrics(),
    ),
    channels=(
        Channel("train", True, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
        Channel("test", False, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
    ),
    request_types=REQUEST_TYPES,
    reply_types=(*REPLY_TYPES, "text/csv"),
    most_instances=100,
)
