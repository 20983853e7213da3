"""What AWS's own algorithms (all but XGBoost) declare alike: the names their containers take besides the
documented ones, and the log lines that carry their metrics. Light to import: specs are made of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from clary.algorithms.algorithm import Direction, Hyperparameter, Metric, Range

RECORDIO_TYPES = ("application/x-recordio-protobuf", "recordio-protobuf")
CSV_TYPES = ("text/csv", "csv")
ALL_MODES = ("File", "FastFile", "Pipe")
# The default reply first.
REPLY_TYPES = ("application/json", "application/jsonlines", "application/x-recordio-protobuf")
REQUEST_TYPES = ("text/csv", *REPLY_TYPES)
BOOLEAN = ("true", "false")
AUTO = ("auto",)
POSITIVE = Range(1, 2**31 - 1)
_WITHOUT_EFFECT = "Of AWS's container; without effect here."

# What their containers' default configurations show, and SDKs and old scripts may send.
INTERNAL: Sequence[Hyperparameter] = tuple(
    Hyperparameter(name, "FreeText", _WITHOUT_EFFECT)
    for name in (
        "_kvstore", "_num_gpus", "_num_kv_servers", "_num_slices", "_log_level", "_enable_profiler",
        "_disable_wait_to_read", "force_dense",
    )
)  # fmt: skip


def quality_metric(split: str, name: str, direction: Direction) -> Metric:
    """``test:msd`` and its line: ``#quality_metric: host=algo-1, test msd <loss>=0.25``."""
    kind = "loss" if direction == "Minimize" else "score"
    return Metric(f"{split}:{name}", rf"#quality_metric: host=\S+, {split} {name} <{kind}>=(\S+)", direction)


def progress_metrics(split: str = "train") -> Sequence[Metric]:
    return (
        Metric(f"{split}:progress", r"#progress_metric: host=\S+, completed (\S+) %", "Maximize"),
        Metric(
            f"{split}:throughput",
            rf"#throughput_metric: host=\S+, {split} throughput=(\S+) records/second",
            "Maximize",
        ),
    )


def list_of(*names: str) -> Callable[[str], str | None]:
    """A check of a JSON list of some of ``names``, at least one."""

    def check(value: str) -> str | None:
        chosen = chosen_names(value)
        if chosen and set(chosen) <= set(names):
            return None
        return f"'{value}' is not a list of some of {json.dumps(names)}, as JSON"

    return check


def chosen_names(value: str) -> Sequence[str]:
    """The names in a JSON list; empty for what is none."""
    try:
        found = json.loads(value.replace("'", '"'))
    except ValueError:
        return ()
    found = [found] if isinstance(found, str) else found
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return tuple(found)
    return ()
