"""One change of one hyperparameter for each verdict: the one that usually does most.

For the built-in XGBoost the hyperparameters and their defaults are known; of a user's own script those that
bear a usual name (``learning_rate``, ``epochs``, ``max_depth`` ...) are changed if the job has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clary.evaluation.fit import Diagnosis, Verdict

_STEP_NAMES = ("learning_rate", "learning-rate", "lr", "eta", "eta0", "learning_rate_init", "step_size")
_LENGTH_NAMES = (
    "epochs", "num_epochs", "num-epochs", "num_round", "n_estimators", "n-estimators", "max_iter",
    "max_epochs", "iterations", "num_boost_round",
)  # fmt: skip
_RESTRAINT_NAMES = ("weight_decay", "weight-decay", "alpha", "lambda", "l2", "reg_lambda", "dropout", "wd")
_SIZE_NAMES = (
    "max_depth", "max-depth", "hidden_size", "hidden-size", "hidden_units", "hidden", "num_layers",
    "num_leaves", "min_child_weight", "units",
)  # fmt: skip
PATIENCE_ROUNDS = 10


@dataclass(frozen=True)
class Suggestion:
    """``hyperparameter`` from ``present`` to ``proposed``, and why.

    ``present`` is empty where the job left it to its default. ``hyperparameter`` is empty where the advice is
    about something else than a hyperparameter, or the job has none of a known name.
    """

    hyperparameter: str
    present: str
    proposed: str
    reason: str


def suggest(
    diagnosis: Diagnosis, *, algorithm: str = "", hyperparameters: Mapping[str, str] | None = None
) -> Suggestion | None:
    """What to change, or ``None`` where nothing needs to be.

    ``algorithm`` is the built-in one's name, if it is one.
    """
    given = {name: str(value).strip('"') for name, value in (hyperparameters or {}).items()}
    advice = _ADVICE_WITHOUT_VERDICT.get(diagnosis.cause)
    if advice:
        return Suggestion("", "", "", advice)
    if diagnosis.verdict in (None, Verdict.APPROPRIATE):
        return None
    rules = _XGBOOST if algorithm == "xgboost" else _ANY
    return rules[_GROUPS[diagnosis.cause]](diagnosis, given)


_ADVICE_WITHOUT_VERDICT: Mapping[str, str] = {
    "too-few-steps": "Train for more epochs or rounds, or print the metrics more often.",
    "one-series": "Give the job a validation channel (a script: print the metric of validation rows too).",
    "too-few-rows": "Take more rows for validation: a hundred at least, a fifth of all rows usually.",
    "noise": "Take more rows for validation: a hundred at least, a fifth of all rows usually.",
}
_GROUPS: Mapping[str, str] = {
    "not-a-number": "step",
    "grows": "step",
    "jumps": "step",
    "worse-than-guessing": "step",
    "turned": "turned",
    "by-heart": "by-heart",
    "too-short": "too-short",
    "too-simple": "too-simple",
    "idle": "idle",
}


# The built-in XGBoost.


def _xgboost_step(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    return _change(given, "eta", "0.3", lambda eta: min(0.1, eta / 3), "A smaller step does not overshoot.")


def _xgboost_turned(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    if "early_stopping_rounds" not in given and (diagnosis.since or 0) >= PATIENCE_ROUNDS:
        return Suggestion(
            "early_stopping_rounds",
            "",
            str(PATIENCE_ROUNDS),
            f"Training then ends soon after the best round, {_whole(diagnosis.since)}.",
        )
    return _xgboost_by_heart(diagnosis, given)


def _xgboost_by_heart(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    depth = _number(given.get("max_depth"), 6)
    if depth > 3 or depth == 0:
        return Suggestion(
            "max_depth",
            given.get("max_depth", "6 (default)"),
            str(max(2, round(depth / 2)) if depth else 4),
            "Shallower trees cannot single out rows.",
        )
    return _change(
        given, "min_child_weight", "1", lambda weight: max(5.0, weight * 4), "Leaves must hold more rows."
    )


def _xgboost_too_short(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    rounds = _number(given.get("num_round"), diagnosis.numbers.get("steps", 0))
    return Suggestion(
        "num_round",
        given.get("num_round", ""),
        str(max(10, math.ceil(rounds * 3))),
        f"Both errors were still falling; with early_stopping_rounds={PATIENCE_ROUNDS} too many rounds do no "
        "harm.",
    )


def _xgboost_too_simple(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    if given.get("booster") == "gblinear":
        return Suggestion("booster", "gblinear", "gbtree", "Trees can follow what is not linear.")
    if _number(given.get("gamma"), 0) > 0:
        return Suggestion("gamma", given["gamma"], "0", "No split is refused for gaining too little.")
    if _number(given.get("min_child_weight"), 1) > 5:
        return Suggestion("min_child_weight", given["min_child_weight"], "1", "Leaves may be smaller.")
    for name in ("lambda", "alpha", "reg_lambda", "reg_alpha"):
        if _number(given.get(name), 1) > 10:
            return Suggestion(name, given[name], "1", "Leaves may have larger weights.")
    depth = _number(given.get("max_depth"), 6)
    if depth < 12:
        return Suggestion(
            "max_depth",
            given.get("max_depth", "6 (default)"),
            str(round(max(depth + 2, 4))),
            "Deeper trees see more features together. If that changes nothing, the features do not tell.",
        )
    return _change(given, "eta", "0.3", lambda eta: min(1.0, eta * 3), "Each round may do more.")


def _xgboost_idle(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    return Suggestion(
        "num_round",
        given.get("num_round", ""),
        str(math.ceil(((diagnosis.since or 0) + 1) * 1.2)),
        "What comes after brings nothing and is paid for.",
    )


# Anything else.


def _any_step(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    return _known(
        given,
        _STEP_NAMES,
        lambda step: step / 10,
        "A step a tenth as long does not overshoot.",
        "learning rate",
    )


def _any_turned(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    best = int((diagnosis.since or 0) + 1)
    return _known(
        given,
        _LENGTH_NAMES,
        lambda length: min(length, float(best)),
        f"Stop where the validation error is best, at step {_whole(diagnosis.since)}, or use early stopping.",
        "number of epochs",
        whole=True,
    )


def _any_by_heart(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    return _known(
        given,
        _SIZE_NAMES,
        lambda size: max(1.0, size / 2),
        "A smaller model cannot learn rows by heart; more regularisation or more rows do the same.",
        "size of the model",
        whole=True,
    )


def _any_too_short(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    return _known(
        given,
        _LENGTH_NAMES,
        lambda length: length * 3,
        "Both errors were still falling; or take a longer step.",
        "number of epochs",
        whole=True,
    )


def _any_too_simple(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    if not any(name in given for name in _SIZE_NAMES) and any(name in given for name in _RESTRAINT_NAMES):
        return _known(
            given,
            _RESTRAINT_NAMES,
            lambda restraint: restraint / 10,
            "Less regularisation lets the model follow the data.",
            "regularisation",
        )
    return _known(
        given,
        _SIZE_NAMES,
        lambda size: size * 2,
        "A larger model can follow more; or the features do not tell the labels.",
        "size of the model",
        whole=True,
    )


def _any_idle(diagnosis: Diagnosis, given: Mapping[str, str]) -> Suggestion:
    enough = math.ceil(((diagnosis.since or 0) + 1) * 1.2)
    return _known(
        given,
        _LENGTH_NAMES,
        lambda length: min(length, float(enough)),
        "What comes after brings nothing and is paid for.",
        "number of epochs",
        whole=True,
    )


_Rule = Callable[[Diagnosis, Mapping[str, str]], Suggestion]
_XGBOOST: Mapping[str, _Rule] = {
    "step": _xgboost_step,
    "turned": _xgboost_turned,
    "by-heart": _xgboost_by_heart,
    "too-short": _xgboost_too_short,
    "too-simple": _xgboost_too_simple,
    "idle": _xgboost_idle,
}
_ANY: Mapping[str, _Rule] = {
    "step": _any_step,
    "turned": _any_turned,
    "by-heart": _any_by_heart,
    "too-short": _any_too_short,
    "too-simple": _any_too_simple,
    "idle": _any_idle,
}


def _change(
    given: Mapping[str, str], name: str, default: str, new: Callable[[float], float], reason: str
) -> Suggestion:
    present = given.get(name)
    return Suggestion(
        name,
        present if present is not None else f"{default} (default)",
        f"{new(_number(present, float(default))):.3g}",
        reason,
    )


def _known(
    given: Mapping[str, str],
    names: Sequence[str],
    new: Callable[[float], float],
    reason: str,
    words: str,
    *,
    whole: bool = False,
) -> Suggestion:
    """A change of the first of ``names`` that the job has as a number; else advice in ``words``."""
    for name in names:
        value = _number(given.get(name), math.nan)
        if math.isfinite(value) and new(value) != value:
            proposed = new(value)
            return Suggestion(name, given[name], str(round(proposed)) if whole else f"{proposed:.3g}", reason)
    return Suggestion("", "", "", f"Change the {words}: {reason[0].lower()}{reason[1:]}")


def _number(text: str | None, default: float) -> float:
    try:
        value = float(text) if text is not None else default
    except ValueError:
        return default
    return value


def _whole(step: float | None) -> str:
    return f"{step:g}" if step is not None else "?"
