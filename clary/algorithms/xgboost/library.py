"""The XGBoost library's rough edges: what it says when it fails, whose mistake it was, models it dies of."""

from __future__ import annotations

from typing import Any

import xgboost

_CALLERS_MISTAKES = (
    "label must be", "labels must be", "label set is empty", "feature_names mismatch", "parameter", "invalid",
    "unknown", "must be", "should be", "should contain", "multiclass", "num_class",
)  # fmt: skip


def library_message(error: BaseException) -> str:
    """What the library says, without its C++ stack, time stamp and source line."""
    text = str(error).partition("Stack trace")[0].strip()
    if text.startswith("["):
        text = text.partition("] ")[2].partition(": ")[2] or text
    return text


def is_callers_mistake(error: BaseException) -> bool:
    """Whether data or hyperparameters are to blame, by the library's words."""
    message = library_message(error).lower()
    return any(words in message for words in _CALLERS_MISTAKES)


def booster_from(data: bytes) -> Any:
    """A booster in the library's own format. Raises ``ValueError`` saying why ``data`` is none."""
    if not data:
        raise ValueError("it is empty")  # the library would end the process
    try:
        return xgboost.Booster(model_file=bytearray(data))
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise ValueError(library_message(error)) from error
