"""k-NN's hyperparameters, metrics and images, as the developer guide has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clary.algorithms.algorithm import AlgorithmSpec, Channel, Hyperparameter, Tunable
from clary.algorithms.first_party import (
    ALL_MODES,
    AUTO,
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
FLAT, IVF_FLAT, IVF_PQ = "faiss.Flat", "faiss.IVFFlat", "faiss.IVFPQ"
_PARTS = ("1", "2", "3", "4", "8", "12", "16", "20", "24", "28", "32", "40", "48", "56", "64", "96")

HYPERPARAMETERS: Sequence[Hyperparameter] = (
    Hyperparameter("feature_dim", "Integer", "Features of a record.", POSITIVE, required=True),
    Hyperparameter("k", "Integer", "Neighbours that are asked.", POSITIVE, required=True,
                   tunable=Tunable(1, 1024)),
    Hyperparameter("predictor_type", "Categorical",
                   "Whether neighbours vote, or give the mean of their labels.",
                   values=("classifier", "regressor"), required=True),
    Hyperparameter("sample_size", "Integer", "Records that are kept, on all hosts together.", POSITIVE,
                   required=True, tunable=Tunable(256, 20_000_000, "Logarithmic")),
    Hyperparameter("dimension_reduction_target", "Integer",
                   "Features after a reduction; less than feature_dim.", POSITIVE),
    Hyperparameter("dimension_reduction_type", "Categorical",
                   "A random projection before the search: by signs, or by a fast Johnson-Lindenstrauss "
                   "transform.", values=("sign", "fjlt")),
    Hyperparameter("faiss_index_ivf_nlists", "Integer",
                   "Lists of an IVF index; auto is the root of the records kept.", POSITIVE,
                   default="auto", words=AUTO),
    Hyperparameter("faiss_index_pq_m", "Categorical", "Parts that an IVFPQ index cuts a vector into.",
                   values=_PARTS),
    Hyperparameter("index_metric", "Categorical", "What near means.",
                   values=("L2", "INNER_PRODUCT", "COSINE"), default="L2"),
    Hyperparameter("index_type", "Categorical", "Exact (Flat), or faster where records are many.",
                   values=(FLAT, IVF_FLAT, IVF_PQ), default=FLAT),
    Hyperparameter("mini_batch_size", "Integer", "Records of a batch.", POSITIVE, default="5000"),
    *INTERNAL,
)  # fmt: skip


def _rules(values: Mapping[str, str]) -> Sequence[str]:
    errors = []
    kind, target = values.get("dimension_reduction_type"), values.get("dimension_reduction_target")
    if kind and not target:
        errors.append("dimension_reduction_type is set: dimension_reduction_target must be too")
    if target and not kind:
        errors.append("dimension_reduction_target is set: dimension_reduction_type must be too")
    if target and int(target) >= int(values["feature_dim"]):
        errors.append(
            f"dimension_reduction_target is {target}, but must be less than feature_dim, "
            f"{values['feature_dim']}"
        )
    if values.get("index_type") == IVF_PQ:
        if values.get("index_metric", "L2") != "L2":
            errors.append(f"index_metric is {values['index_metric']}, but {IVF_PQ} supports L2 only")
        if "faiss_index_pq_m" not in values:
            errors.append(f"index_type is {IVF_PQ}: faiss_index_pq_m must be set")
    return errors


SPEC = AlgorithmSpec(
    name="knn",
    title="k-NN",
    tags={"knn": ["1", "latest"]},
    hyperparameters=HYPERPARAMETERS,
    metrics=(
        quality_metric("test", "accuracy", "Maximize"),
        quality_metric("test", "mse", "Minimize"),
        *progress_metrics(),
    ),
    channels=(
        Channel("train", True, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
        Channel("test", False, (*RECORDIO_TYPES, *CSV_TYPES), ALL_MODES),
    ),
    request_types=REQUEST_TYPES,
    reply_types=REPLY_TYPES,
    most_instances=100,
    rules=_rules,
)
