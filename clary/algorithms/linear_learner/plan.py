"""What a job's hyperparameters ask for, in numbers, and the settings of the models trained in parallel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clary.algorithms.algorithm import TUNING_OBJECTIVE

AUTO_MODELS = 32
# Parameters (weights of all models) beyond which ``num_models=auto`` trains fewer models.
MOST_AUTO_PARAMETERS = 1 << 26
# The same of a batch's scores.
MOST_AUTO_SCORES = 1 << 25
DEFAULT_MINI_BATCH = 1000
SMALLEST_DEFAULT_BATCH = 16
_LEAST_STEPS = 16
_SETTINGS_OF_OPTIMIZER = 4
_LEARNING_RATES = {"adam": 0.1, "rmsprop": 0.02, "sgd": 0.05}
# A model trained alone (as in tuning) has no neighbours to make up for a step that is too long.
_LEARNING_RATES_ALONE = {"adam": 0.03, "rmsprop": 0.005, "sgd": 0.01}
_RATE_FACTORS = (1.0, 0.3, 0.1, 0.02, 3.0, 0.005, 10.0, 0.001)
# L2 and L1, weakest first.
_PENALTIES = (
    (0.0, 0.0),
    (1e-5, 0.0),
    (1e-4, 0.0),
    (1e-3, 0.0),
    (1e-2, 0.0),
    (0.1, 0.0),
    (0.0, 1e-4),
    (0.0, 1e-3),
)
_PENALTY_FACTORS = (1.0, 0.3, 3.0, 0.1, 10.0, 0.03, 30.0, 0.01)
_WD_ALONE = 1e-5
_SCHEDULE_STEP, _SCHEDULE_FACTOR, _SCHEDULE_MINIMUM = 100, 0.99, 1e-5
_BALANCED, _AUTO = "balanced", "auto"


@dataclass(frozen=True)
class Setting:
    """What one of the models is trained with.

    ``positive_share`` says how far towards ``balanced`` the weight of positive rows goes, where it was
    left to the algorithm: 0 not at all, 1 all the way.
    """

    learning_rate: float
    wd: float
    l1: float
    schedule_step: int
    schedule_factor: float
    schedule_minimum: float
    positive_share: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Numbers for every hyperparameter; ``None`` where the data decide.

    ``classes`` is the number of scores a row gets: 1, but for multiclass. ``positive_weight`` is None for
    ``balanced`` and ``auto``, which need the data.
    """

    predictor_type: str
    classes: int
    loss: str
    optimizer: str
    feature_dim: int | None
    models: int | None
    epochs: int
    mini_batch_size: int | None
    learning_rate: float | None
    wd: float | None
    l1: float | None
    bias_lr_mult: float
    bias_wd_mult: float
    use_bias: bool
    init_method: str
    init_scale: float
    init_sigma: float
    init_bias: float
    beta_1: float
    beta_2: float
    momentum: float
    use_schedule: bool
    schedule_step: int | None
    schedule_factor: float | None
    schedule_minimum: float | None
    normalize_data: bool
    unbias_data: bool | None
    normalize_label: bool
    unbias_label: bool
    scaler_rows: int
    margin: float
    quantile: float
    insensitivity: float
    huber_delta: float
    criterion: str
    f_beta: float
    target_precision: float
    target_recall: float
    calibration_rows: int
    positive_weight: float | None
    positive_auto: bool
    balance_classes: bool
    top_k: int
    patience: int
    tolerance: float
    stops_on_criterion: bool

    @property
    def is_binary(self) -> bool:
        return self.predictor_type == "binary_classifier"

    @property
    def is_multiclass(self) -> bool:
        return self.predictor_type == "multiclass_classifier"


def make_plan(values: Mapping[str, str]) -> Plan:
    """From hyperparameters that were checked and resolved; see `AlgorithmSpec.resolve`."""

    def number(name: str, default: float) -> float:
        found = optional(name)
        return default if found is None else found

    def optional(name: str) -> float | None:
        text = values.get(name, _AUTO)
        return None if text in (_AUTO, "") else float(text)

    def flag(name: str, default: bool) -> bool:
        text = values.get(name, _AUTO)
        return default if text == _AUTO else text == "true"

    predictor_type = values["predictor_type"]
    regressor = predictor_type == "regressor"
    use_bias = flag("use_bias", True)
    positive = values.get("positive_example_weight_mult", "1.0")
    tuned = bool(values.get(TUNING_OBJECTIVE))
    models = optional("num_models")
    calibration = optional("num_calibration_samples")
    dim, batch = optional("feature_dim"), optional("mini_batch_size")
    step = optional("lr_scheduler_step")
    unbias = values.get("unbias_data", _AUTO)
    optimizer = values.get("optimizer", _AUTO)
    return Plan(
        predictor_type=predictor_type,
        classes=int(values["num_classes"]) if predictor_type == "multiclass_classifier" else 1,
        loss=_loss(predictor_type, values.get("loss", _AUTO)),
        optimizer="adam" if optimizer == _AUTO else optimizer,
        feature_dim=int(dim) if dim is not None else None,
        models=1 if tuned else int(models) if models is not None else None,
        epochs=int(number("epochs", 15)),
        mini_batch_size=int(batch) if batch is not None else None,
        learning_rate=optional("learning_rate"),
        wd=optional("wd"),
        l1=optional("l1"),
        bias_lr_mult=number("bias_lr_mult", 1.0),
        bias_wd_mult=number("bias_wd_mult", 0.0),
        use_bias=use_bias,
        init_method=values.get("init_method", "uniform"),
        init_scale=number("init_scale", 0.07),
        init_sigma=number("init_sigma", 0.01),
        init_bias=number("init_bias", 0.0),
        beta_1=number("beta_1", 0.9),
        beta_2=number("beta_2", 0.999),
        momentum=number("momentum", 0.9 if optimizer == "sgd" else 0.0),
        use_schedule=flag("use_lr_scheduler", True),
        schedule_step=int(step) if step is not None else None,
        schedule_factor=optional("lr_scheduler_factor"),
        schedule_minimum=optional("lr_scheduler_minimum_lr"),
        normalize_data=flag("normalize_data", True),
        unbias_data=None if unbias == _AUTO else unbias == "true",
        normalize_label=regressor and flag("normalize_label", True),
        unbias_label=regressor and flag("unbias_label", use_bias),
        scaler_rows=int(number("num_point_for_scaler", 10_000)),
        margin=number("margin", 1.0),
        quantile=number("quantile", 0.5),
        insensitivity=number("loss_insensitivity", 0.01),
        huber_delta=number("huber_delta", 1.0),
        criterion=values.get("binary_classifier_model_selection_criteria", "accuracy"),
        f_beta=number("f_beta", 1.0),
        target_precision=number("target_precision", 0.8),
        target_recall=number("target_recall", 0.8),
        calibration_rows=int(calibration) if calibration is not None else 10_000_000,
        positive_weight=None if positive in (_BALANCED, _AUTO) else float(positive),
        positive_auto=positive == _AUTO,
        balance_classes=flag("balance_multiclass_weights", False),
        top_k=int(number("accuracy_top_k", 3)),
        patience=int(number("early_stopping_patience", 3)),
        tolerance=number("early_stopping_tolerance", 0.001),
        stops_on_criterion="binary_classifier_model_selection_criteria" in values,
    )


def batch_size(plan: Plan, rows: int | None) -> int:
    """Rows a step, where there are ``rows`` (``None``: very many).

    Few rows are worth several steps an epoch. A size of all rows or more is what the SDK makes of its default
    for them, and means the default here too.
    """
    if plan.mini_batch_size is not None and (rows is None or plan.mini_batch_size < rows):
        return plan.mini_batch_size
    if rows is None:
        return DEFAULT_MINI_BATCH
    return max(SMALLEST_DEFAULT_BATCH, min(DEFAULT_MINI_BATCH, rows // _LEAST_STEPS))


def make_settings(plan: Plan, feature_dim: int) -> Sequence[Setting]:
    """One for each model: the first as the hyperparameters say, the others near it.

    Models come in blocks of one penalty; within a block, rates differ.
    """
    count = plan.models
    if count is None:
        fitting = min(MOST_AUTO_PARAMETERS // feature_dim, MOST_AUTO_SCORES // DEFAULT_MINI_BATCH)
        count = max(1, min(AUTO_MODELS, fitting // plan.classes))
    alone = _LEARNING_RATES_ALONE if count == 1 else _LEARNING_RATES
    rate = alone[plan.optimizer] if plan.learning_rate is None else plan.learning_rate
    penalties = (
        [(_WD_ALONE if plan.wd is None else plan.wd, plan.l1 or 0.0)] if count == 1 else _penalties(plan)
    )
    blocks = min(len(penalties), math.ceil(count / _SETTINGS_OF_OPTIMIZER))
    rates = math.ceil(count / blocks)
    chosen = itertools.islice(
        ((penalty, rate * _rate_factor(number)) for penalty in penalties[:blocks] for number in range(rates)),
        count,
    )
    return [
        Setting(
            learning_rate=each_rate,
            wd=wd,
            l1=l1,
            schedule_step=plan.schedule_step or _SCHEDULE_STEP,
            schedule_factor=(plan.schedule_factor or _SCHEDULE_FACTOR) if plan.use_schedule else 1.0,
            schedule_minimum=min(each_rate, plan.schedule_minimum or _SCHEDULE_MINIMUM),
            positive_share=(0.0, 1.0, 0.5)[number % 3] if plan.positive_auto else 1.0,
        )
        for number, ((wd, l1), each_rate) in enumerate(chosen)
    ]


def _rate_factor(number: int) -> float:
    return _RATE_FACTORS[number] if number < len(_RATE_FACTORS) else 0.9 ** (number - len(_RATE_FACTORS) + 1)


def _penalties(plan: Plan) -> Sequence[tuple[float, float]]:
    if plan.wd is None and plan.l1 is None:
        return _PENALTIES
    wds = [0.0] if plan.wd is None else [plan.wd * factor for factor in _PENALTY_FACTORS]
    l1s = [0.0] if plan.l1 is None else [plan.l1 * factor for factor in _PENALTY_FACTORS]
    if plan.wd is None:
        found = [(0.0, l1) for l1 in l1s] if any(l1s) else [each for each in _PENALTIES if not each[1]]
    elif plan.l1 is None:
        found = [(wd, 0.0) for wd in wds] if any(wds) else [each for each in _PENALTIES if not each[0]]
    else:
        found = list(zip(wds, l1s, strict=True))
    return list(dict.fromkeys(found))


def _loss(predictor_type: str, loss: str) -> str:
    if loss != _AUTO:
        return loss
    return {
        "binary_classifier": "logistic",
        "multiclass_classifier": "softmax_loss",
        "regressor": "squared_loss",
    }[predictor_type]
