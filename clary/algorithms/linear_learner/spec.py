"""Linear Learner's hyperparameters, metrics and image, as the developer guide has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clary.algorithms.algorithm import (
    AlgorithmSpec,
    Channel,
    Hyperparameter,
    Kind,
    Metric,
    Range,
    Scaling,
    Tunable,
)
from clary.algorithms.first_party import (
    ALL_MODES,
    AUTO,
    BOOLEAN,
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
MOST_CLASSES = 1_000_000
PREDICTOR_TYPES = ("binary_classifier", "multiclass_classifier", "regressor")
BINARY_LOSSES = ("logistic", "hinge_loss")
REGRESSION_LOSSES = (
    "squared_loss", "absolute_loss", "eps_insensitive_squared_loss", "eps_insensitive_absolute_loss",
    "quantile_loss", "huber_loss",
)  # fmt: skip
LOSSES = ("auto", "logistic", "squared_loss", "absolute_loss", "hinge_loss", "eps_insensitive_squared_loss",
          "eps_insensitive_absolute_loss", "quantile_loss", "huber_loss", "softmax_loss")  # fmt: skip
CRITERIA = ("accuracy", "f_beta", "precision_at_target_recall", "recall_at_target_precision", "loss_function")
_SPLITS = ("train", "validation", "test")
_SWITCH = ("auto", *BOOLEAN)
_ABOVE_ZERO, _FROM_ZERO = Range(0, low_open=True), Range(0)
_OPEN_UNIT, _DECAY = Range(0, 1, True, True), Range(0, 1, high_open=True)
_ANY = Range()
_Tune = tuple[float, float, Scaling]
_LOG_SMALL: _Tune = (1e-7, 1, "Logarithmic")


def _knob(
    name: str,
    kind: Kind,
    description: str,
    valid: Range | Sequence[str],
    default: str | None = None,
    *,
    words: Sequence[str] = (),
    tune: _Tune | None = None,
    required: bool = False,
) -> Hyperparameter:
    return Hyperparameter(
        name,
        kind,
        description,
        range=valid if isinstance(valid, Range) else None,
        values=() if isinstance(valid, Range) else tuple(valid),
        default=default,
        required=required,
        words=words,
        tunable=Tunable(*tune) if tune else None,
    )


def _automatic(
    name: str, kind: Kind, description: str, valid: Range, *, tune: _Tune | None = None
) -> Hyperparameter:
    return _knob(name, kind, description, valid, "auto", words=AUTO, tune=tune)


HYPERPARAMETERS = (
    _knob("predictor_type", "Categorical", "The task.", PREDICTOR_TYPES, required=True),
    _knob("num_classes", "Integer", "Classes of a multiclass_classifier, whose labels count from 0.",
          Range(1, MOST_CLASSES)),
    _knob("accuracy_top_k", "Integer", "k of the metric multiclass_top_k_accuracy.", Range(1, MOST_CLASSES),
          "3"),
    _knob("balance_multiclass_weights", "Categorical", "Let each class count the same in the loss.",
          BOOLEAN, "false"),
    _automatic("beta_1", "Continuous", "adam's decay of the mean of gradients; auto is 0.9.", _DECAY),
    _automatic("beta_2", "Continuous", "adam's decay of the mean of their squares; auto is 0.999.", _DECAY),
    _automatic("bias_lr_mult", "Continuous", "The bias's step is learning_rate times this; auto is 1.",
               _ABOVE_ZERO),
    _automatic("bias_wd_mult", "Continuous", "The bias's L2 penalty is wd times this; auto is 0.",
               _FROM_ZERO),
    _knob("binary_classifier_model_selection_criteria", "Categorical",
          "What the best model and its threshold are chosen by, on the validation channel or else on train.",
          CRITERIA, "accuracy"),
    _knob("early_stopping_patience", "Integer",
          "Epochs without gain before training ends; more than epochs never ends it early.", POSITIVE, "3"),
    _knob("early_stopping_tolerance", "Continuous", "A relative gain below this counts as none.",
          _ABOVE_ZERO, "0.001"),
    _knob("epochs", "Integer", "Passes over the training data at most.", POSITIVE, "15"),
    _knob("f_beta", "Continuous", "beta of every F score.", _ABOVE_ZERO, "1.0"),
    _automatic("feature_dim", "Integer", "Number of features; auto takes it from the data.", POSITIVE),
    _knob("huber_delta", "Continuous", "Where huber_loss goes from squared to absolute, in the label's unit.",
          _ABOVE_ZERO, "1.0"),
    _knob("init_bias", "Continuous", "The bias at the start.", _ANY, "0"),
    _knob("init_method", "Categorical", "How weights are drawn at the start.", ("uniform", "normal"),
          "uniform"),
    _knob("init_scale", "Continuous", "uniform draws from -init_scale to init_scale.", _ABOVE_ZERO, "0.07"),
    _knob("init_sigma", "Continuous", "Standard deviation that normal draws with.", _ABOVE_ZERO, "0.01"),
    _automatic("l1", "Continuous", "L1 penalty on weights; 0 for none.", _FROM_ZERO, tune=_LOG_SMALL),
    _automatic("learning_rate", "Continuous", "Size of a step; auto depends on the optimizer.", _ABOVE_ZERO,
               tune=(1e-5, 1, "Logarithmic")),
    _knob("loss", "Categorical", "auto is logistic, softmax_loss or squared_loss, as predictor_type is.",
          LOSSES, "auto"),
    _knob("loss_insensitivity", "Continuous",
          "Errors up to this cost nothing in the eps_insensitive losses, in the label's unit.", _ABOVE_ZERO,
          "0.01"),
    _automatic("lr_scheduler_factor", "Continuous",
               "The rate is multiplied by this every lr_scheduler_step steps; auto is 0.99.", _OPEN_UNIT),
    _automatic("lr_scheduler_minimum_lr", "Continuous", "The rate never falls below; auto is 1e-05.",
               _ABOVE_ZERO),
    _automatic("lr_scheduler_step", "Integer", "Steps between decreases of the rate; auto is 100.",
               POSITIVE),
    _knob("margin", "Continuous", "Of hinge_loss.", _ABOVE_ZERO, "1.0"),
    _knob("mini_batch_size", "Integer",
          "Rows a step, of all hosts together. Where rows are few the default is lower, and a size of all "
          "rows or more means the default.", POSITIVE, "1000", tune=(100, 5000, "Linear")),
    _automatic("momentum", "Continuous", "Of sgd; auto is 0.9.", _DECAY),
    _knob("normalize_data", "Categorical", "Bring features to a deviation of 1.", _SWITCH, "true"),
    _knob("normalize_label", "Categorical", "The same for a regressor's label; auto is true.", _SWITCH,
          "auto"),
    _automatic("num_calibration_samples", "Integer",
               "Rows that the threshold is chosen on; auto is 10000000.", POSITIVE),
    _automatic("num_models", "Integer", "Models trained side by side; auto is 32, and 1 under tuning.",
               POSITIVE),
    _knob("num_point_for_scaler", "Integer", "Rows that mean and deviation are taken from.", POSITIVE,
          "10000"),
    _knob("optimizer", "Categorical", "auto is adam.", ("auto", "sgd", "adam", "rmsprop"), "auto"),
    _knob("positive_example_weight_mult", "Continuous",
          "Weight of positive rows; balanced lets both kinds count the same, auto tries several.",
          _ABOVE_ZERO, "1.0", words=("balanced", "auto"), tune=(1e-5, 1e5, "Logarithmic")),
    _knob("quantile", "Continuous", "Of quantile_loss.", _OPEN_UNIT, "0.5"),
    _knob("target_precision", "Continuous", "Of recall_at_target_precision.", _OPEN_UNIT, "0.8"),
    _knob("target_recall", "Continuous", "Of precision_at_target_recall.", _OPEN_UNIT, "0.8"),
    _knob("unbias_data", "Categorical", "Centre features; auto centres dense ones.", _SWITCH, "auto"),
    _knob("unbias_label", "Categorical", "Centre a regressor's label; auto does where there is a bias.",
          _SWITCH, "auto"),
    _knob("use_bias", "Categorical", "Fit a bias.", BOOLEAN, "true"),
    _knob("use_lr_scheduler", "Categorical", "Let the rate fall as training goes on.", BOOLEAN, "true"),
    _automatic("wd", "Continuous", "L2 penalty on weights; 0 for none.", _FROM_ZERO, tune=_LOG_SMALL),
    *INTERNAL,
)  # fmt: skip


def _rules(values: Mapping[str, str]) -> Sequence[str]:
    errors = []
    predictor_type, loss = values["predictor_type"], values.get("loss", "auto")
    classes = int(values.get("num_classes", "1"))
    if predictor_type == "multiclass_classifier":
        if classes < 3:
            errors.append(
                "num_classes must be from 3 to 1000000 for predictor_type multiclass_classifier, not "
                f"{values.get('num_classes', 'absent')}; use binary_classifier for two classes"
            )
        known: Sequence[str] = ("softmax_loss",)
    else:
        known = BINARY_LOSSES if predictor_type == "binary_classifier" else REGRESSION_LOSSES
    if loss not in ("auto", *known):
        errors.append(
            f"loss '{loss}' does not go with predictor_type {predictor_type}; use auto or {', '.join(known)}"
        )
    return errors


def _metrics() -> Sequence[Metric]:
    line = r"#quality_metric: host=\S+, "
    loss = r"\S+_objective <loss>=(\S+)"
    found = [
        Metric("train:objective_loss", rf"{line}epoch=\S+, train {loss}", "Minimize"),
        Metric("train:objective_loss:final", rf"{line}train {loss}", "Minimize"),
        Metric("validation:objective_loss", rf"{line}epoch=\S+, validation {loss}", "Minimize"),
        Metric("validation:objective_loss:final", rf"{line}validation {loss}", "Minimize"),
        Metric("test:objective_loss", rf"{line}test {loss}", "Minimize"),
    ]
    for split in _SPLITS:
        found += [
            quality_metric(split, name, "Maximize")
            for name in (
                "binary_classification_accuracy", "binary_balanced_accuracy", "precision", "recall",
                "roc_auc_score",
                "multiclass_accuracy", "multiclass_balanced_accuracy", "dcg", "macro_precision",
                "macro_recall", "r2",
            )
        ]  # fmt: skip
        found += [
            Metric(f"{split}:{name}", rf"{line}{split} {pattern} <score>=(\S+)", "Maximize")
            for name, pattern in (
                ("binary_f_beta", r"binary_f_\S+"),
                ("macro_f_beta", r"macro_f_\S+"),
                ("multiclass_top_k_accuracy", r"multiclass_top_k_accuracy_\S+"),
            )
        ]
        found += [
            quality_metric(split, name, "Minimize")
            for name in ("mse", "absolute_loss", "rmse", "binary_log_loss", "multiclass_log_loss")
        ]
    return (*found, *progress_metrics())


_CONTENT_TYPES = (*RECORDIO_TYPES, *CSV_TYPES)
SPEC = AlgorithmSpec(
    name="linear-learner",
    title="Linear Learner",
    tags={"linear-learner": ["1", "latest"]},
    hyperparameters=HYPERPARAMETERS,
    metrics=_metrics(),
    channels=tuple(Channel(name, name == "train", _CONTENT_TYPES, ALL_MODES) for name in _SPLITS),
    request_types=REQUEST_TYPES,
    reply_types=REPLY_TYPES,
    most_instances=100,
    rules=_rules,
)
