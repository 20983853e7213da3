"""What brings features and labels to like sizes: mean and deviation of the first rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing
from scipy.sparse import csr_matrix, issparse

from clary.algorithms.linear_learner.parallel_models import WIDEST_DENSE
from clary.algorithms.linear_learner.plan import Plan
from clary.algorithms.records import Batch, Features

Array = numpy.typing.NDArray[Any]


class Moments:
    """Sums over rows, of which hosts add up theirs; in 64 bits, which leaves room for a mean far from 0."""

    def __init__(self, width: int, classes: int) -> None:
        self.rows = 0
        self.sparse = False
        self.sums = numpy.zeros(width)
        self.squares = numpy.zeros(width)
        self.present = numpy.zeros(width)
        self.label = numpy.zeros(2)
        self.by_class = numpy.zeros(max(classes, 2))

    def add(self, batch: Batch, classes: int) -> None:
        labels = batch.labels[:, 0].astype(numpy.float64)
        self.rows += len(batch)
        self.label += [labels.sum(), (labels**2).sum()]
        if classes:
            self.by_class += numpy.bincount(labels.astype(numpy.intp), minlength=len(self.by_class))
        features = batch.features
        if issparse(features):
            self.sparse = True
            wide = len(self.sums)
            values = features.data.astype(numpy.float64)
            self.sums += numpy.bincount(features.indices, values, wide)
            self.squares += numpy.bincount(features.indices, values**2, wide)
            self.present += numpy.bincount(features.indices[features.data != 0], minlength=wide)
        else:
            values = features.astype(numpy.float64)
            self.sums += values.sum(axis=0)
            self.squares += numpy.einsum("ij,ij->j", values, values)
            self.present += (features != 0).sum(axis=0)


@dataclass(frozen=True)
class Scaling:
    """Features become ``(x - mean) * factor``, a regression's labels ``(y - label_mean) / label_deviation``.

    ``mean`` and ``factor`` are (features,) float32; ``lazy`` says that features stay sparse.
    """

    mean: Array
    factor: Array
    label_mean: float
    label_deviation: float
    lazy: bool
    centred: bool

    def features(self, features: Features) -> Features:
        """Scaled; dense unless ``lazy``."""
        if self.lazy:
            found = csr_matrix(features) if not issparse(features) else features
            scaled = found.data * self.factor[found.indices]
            return csr_matrix((scaled, found.indices, found.indptr), found.shape)
        dense = features.toarray() if issparse(features) else features
        if self.centred:
            dense = dense - self.mean
            dense *= self.factor
            return dense
        return dense * self.factor

    def labels(self, labels: Array) -> Array:
        if self.label_mean == 0 and self.label_deviation == 1:
            return labels
        return ((labels - self.label_mean) / self.label_deviation).astype(numpy.float32)

    def unscaled(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """``weights`` (features, classes) and ``bias`` (classes,) for raw features and labels.

        Weights are those that 32 bits hold. The bias is of 64 bits and makes up for what rounding them costs
        at the features' means, which may be far from 0.
        """
        raw = weights * self.factor.astype(numpy.float64)[:, None] * self.label_deviation
        rounded = raw.astype(numpy.float32).astype(numpy.float64)
        offset = bias * self.label_deviation + self.label_mean - self.mean.astype(numpy.float64) @ rounded
        return rounded, offset


def make_scaling(plan: Plan, moments: Moments) -> Scaling:
    """From the sums over every host's first rows."""
    rows = max(moments.rows, 1)
    width = len(moments.sums)
    lazy = moments.sparse and width > WIDEST_DENSE
    mean = moments.sums / rows
    variance = numpy.maximum(moments.squares / rows - mean**2, 0)
    # Rounding alone makes the variance of a constant differ from 0.
    variance[variance <= 1e-12 * moments.squares / rows] = 0
    if moments.sparse and not plan.unbias_data:
        # What is not centred has its size from the values that are there: a deviation among zeros would make
        # a feature the weightier, the rarer it is.
        variance = moments.squares / numpy.maximum(moments.present, 1)
    deviation = numpy.sqrt(variance)
    factor = 1 / numpy.where(deviation > 0, deviation, 1)
    centred = not lazy and (not moments.sparse if plan.unbias_data is None else plan.unbias_data)
    label_mean = float(moments.label[0] / rows)
    label_variance = max(float(moments.label[1] / rows) - label_mean**2, 0.0)
    label_deviation = label_variance**0.5 if label_variance > 1e-12 * moments.label[1] / rows else 1.0
    return Scaling(
        mean=(mean if centred else numpy.zeros(width)).astype(numpy.float32),
        factor=(factor if plan.normalize_data else numpy.ones(width)).astype(numpy.float32),
        label_mean=label_mean if plan.unbias_label else 0.0,
        label_deviation=label_deviation if plan.normalize_label else 1.0,
        lazy=lazy,
        centred=centred,
    )
