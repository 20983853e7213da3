"""Factorization Machines' hyperparameters, metrics and image, as the developer guide has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clary.algorithms.algorithm import AlgorithmSpec, Channel, Hyperparameter, Kind, Metric, Range, Tunable
from clary.algorithms.first_party import (
    ALL_MODES,
    INTERNAL,
    POSITIVE,
    RECORDIO_TYPES,
    REPLY_TYPES,
    progress_metrics,
    quality_metric,
)

MODEL_NAME = "model_algo-1"
PREDICTOR_TYPES = ("binary_classifier", "regressor")
INIT_METHODS = ("uniform", "normal", "constant")
_FROM_ZERO = Range(0)
_WIDEST, _MOST_FACTORS = 2**31 - 1, 10_000
# What each part is called, and its defaults of init_sigma, lr and wd.
_PARTS = (
    ("bias", "the bias", "0.01", "0.1", "0.01"),
    ("linear", "the linear weights", "0.01", "0.001", "0.001"),
    ("factors", "the factors", "0.001", "0.0001", "0.00001"),
)
_TUNED = Tunable(1e-8, 512, "Logarithmic")


def _knob(
    name: str,
    kind: Kind,
    description: str,
    valid: Range | Sequence[str],
    default: str | None = None,
    *,
    tunable: Tunable | None = None,
    required: bool = False,
) -> Hyperparameter:
    return Hyperparameter(
        name,
        kind,
        description,
        range=valid if isinstance(valid, Range) else None,
        values=() if isinstance(valid, Range) else tuple(valid),
        default=default,
        tunable=tunable,
        required=required,
    )


def _part(name: str, words: str, sigma: str, rate: str, decay: str) -> Sequence[Hyperparameter]:
    start = f"{name}_init"
    return (
        _knob(f"{start}_method", "Categorical", f"How {words} are set at the start.", INIT_METHODS, "normal"),
        _knob(f"{start}_scale", "Continuous", f"uniform draws {words} from -scale to scale.",
              _FROM_ZERO,
              tunable=_TUNED),
        _knob(f"{start}_sigma", "Continuous", f"Standard deviation that normal draws {words} with.",
              _FROM_ZERO, sigma, tunable=_TUNED),
        _knob(f"{start}_value", "Continuous", f"What constant sets {words} to.", Range(), tunable=_TUNED),
        _knob(f"{name}_lr", "Continuous", f"Learning rate of {words}.", _FROM_ZERO, rate, tunable=_TUNED),
        _knob(f"{name}_wd", "Continuous", f"L2 penalty on {words}.", _FROM_ZERO, decay, tunable=_TUNED),
    )  # fmt: skip


HYPERPARAMETERS = (
    _knob("feature_dim", "Integer", "Number of features.", Range(1, _WIDEST), required=True),
    _knob("num_factors", "Integer", "Factors of a feature.", Range(1, _MOST_FACTORS), required=True),
    _knob("predictor_type", "Categorical", "The task.", PREDICTOR_TYPES, required=True),
    *(parameter for part in _PARTS for parameter in _part(*part)),
    _knob("clip_gradient", "Continuous", "Each number of a gradient is held to this, either way.",
          Range(0, low_open=True)),
    _knob("epochs", "Integer", "Passes over the training data.", POSITIVE, "1", tunable=Tunable(1, 1000)),
    _knob("eps", "Continuous", "What keeps the optimizer from dividing by zero; 1e-08 by default.",
          _FROM_ZERO),
    _knob("mini_batch_size", "Integer", "Rows a step, of all hosts together.", POSITIVE, "1000",
          tunable=Tunable(100, 10_000)),
    _knob("rescale_grad", "Continuous",
          "A batch's sum of gradients is multiplied by this; by default it is divided by the rows.",
          Range(0, low_open=True)),
    *INTERNAL,
)  # fmt: skip


def _rules(values: Mapping[str, str]) -> Sequence[str]:
    return [
        f"{name}_init_method is '{method}', which needs {name}_init_{needed}"
        for name, *_ in _PARTS
        for method, needed in (("uniform", "scale"), ("constant", "value"))
        if values.get(f"{name}_init_method") == method and f"{name}_init_{needed}" not in values
    ]


def _metrics() -> Sequence[Metric]:
    found: list[Metric] = []
    for split in ("test", "train"):
        found += [
            quality_metric(split, "rmse", "Minimize"),
            quality_metric(split, "mse", "Minimize"),
            quality_metric(split, "absolute_loss", "Minimize"),
            quality_metric(split, "binary_classification_accuracy", "Maximize"),
            quality_metric(split, "binary_classification_cross_entropy", "Minimize"),
            Metric(
                f"{split}:binary_f_beta",
                rf"#quality_metric: host=\S+, {split} binary_f_\S+ <score>=(\S+)",
                "Maximize",
            ),
        ]
    return (*found, *progress_metrics())


SPEC = AlgorithmSpec(
    name="factorization-machines",
    title="Factorization Machines",
    tags={"factorization-machines": ["1", "latest"]},
    hyperparameters=HYPERPARAMETERS,
    metrics=_metrics(),
    channels=tuple(Channel(name, name == "train", RECORDIO_TYPES, ALL_MODES) for name in ("train", "test")),
    request_types=REPLY_TYPES,
    reply_types=REPLY_TYPES,
    most_instances=100,
    rules=_rules,
)
