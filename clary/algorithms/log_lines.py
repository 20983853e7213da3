"""The log lines of AWS's own algorithms, from which their metrics are read."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from clary.algorithms.algorithm import Direction
from clary.algorithms.job import Job


class LogLines:
    """Speaks for one host; ``algorithm`` is its name in ``#metrics`` lines (``AWS/KMeansWebscale``)."""

    def __init__(self, job: Job, algorithm: str) -> None:
        self._job = job
        self._algorithm = algorithm
        self._began = time.time()

    def say(self, line: str, level: str = "INFO") -> None:
        when = time.strftime("%m/%d/%Y %H:%M:%S", time.gmtime())
        self._job.log(f"[{when} {level} {self._job.current_host}] {line}")

    def quality(self, what: str, value: float, direction: Direction, where: str = "") -> None:
        """``what`` is ``test msd``; ``where`` perhaps ``epoch=0, ``."""
        kind = "loss" if direction == "Minimize" else "score"
        self.say(f"#quality_metric: host={self._job.current_host}, {where}{what} <{kind}>={_number(value)}")

    def score(self, split: str, name: str, value: float) -> None:
        self.say(f"#{split}_score ({self._job.current_host}) : ({name!r}, {_number(value)})")

    def progress(self, share: float) -> None:
        """``share`` is from 0 to 1."""
        self.say(
            f"#progress_metric: host={self._job.current_host}, completed {_number(100 * share)} % of epochs"
        )

    def throughput(self, split: str, records: int, seconds: float) -> None:
        rate = records / max(seconds, 1e-9)
        self.say(
            f"#throughput_metric: host={self._job.current_host}, {split} throughput={rate} records/second"
        )

    def metrics(self, numbers: Mapping[str, float], **dimensions: str) -> None:
        """A ``#metrics`` line of sums, each seen once."""
        self._job.log("#metrics " + json.dumps({
            "StartTime": self._began,
            "EndTime": time.time(),
            "Dimensions": {
                "Algorithm": self._algorithm,
                "Host": self._job.current_host,
                "Operation": "training",
                **dimensions,
            },
            "Metrics": {
                name: {"sum": value, "count": 1, "min": value, "max": value}
                for name, value in numbers.items()
            },
        }))  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.12g}"
