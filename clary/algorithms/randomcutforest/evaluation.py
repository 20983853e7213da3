"""What a forest's scores are worth on labelled records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import numpy.typing

from clary.algorithms.randomcutforest.spec import ACCURACY, PRECISION_RECALL

Array = numpy.typing.NDArray[Any]

# A record is taken for an anomaly if its score is so many standard deviations above the mean.
DEVIATIONS = 3.0


def quality(
    scores: Array, labels: Array, chosen: Sequence[str], total: Callable[[Array], Array]
) -> Mapping[str, float]:
    """The ``chosen`` metrics of records, ``labels`` being 1 for an anomaly and 0 for none; empty if there are
    none. ``total`` adds up arrays over hosts."""
    count, summed = total(numpy.array([len(scores), scores.sum()], numpy.float64))
    if not count:
        return {}
    mean = summed / count
    (squares,) = total(numpy.array([((scores - mean) ** 2).sum()]))
    told = scores > mean + DEVIATIONS * numpy.sqrt(squares / count)
    true = labels == 1
    hits, alarms, anomalies, right = total(
        numpy.array([(told & true).sum(), told.sum(), true.sum(), (told == true).sum()], numpy.float64)
    )
    found = {}
    if ACCURACY in chosen:
        found["accuracy"] = float(right / count)
    if PRECISION_RECALL in chosen:
        # Without alarms or anomalies there is nothing to be right about: 0, as usual.
        found["precision"] = float(hits / alarms) if alarms else 0.0
        found["recall"] = float(hits / anomalies) if anomalies else 0.0
        found["f1"] = float(2 * hits / (alarms + anomalies)) if alarms + anomalies else 0.0
    return found
