"""What is added up of a stream of points, and the principal components that come of it.

Both kinds of sum are linear in the points' products, so that those of several hosts add up to that of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy
import numpy.typing
from scipy.linalg import blas, cholesky, eigh, qr, solve_triangular, svd
from scipy.sparse import issparse

from clary.algorithms.records import Features

Array = numpy.typing.NDArray[Any]
Total = Callable[[Array], Array]
Found = tuple[Array, Array]  # (columns, components), the largest last, and their singular values


class Sums(Protocol):
    """``count`` points so far; ``sum`` (columns,) of them."""

    count: int
    sum: Array

    def add(self, points: Features) -> None: ...

    def found(self, total: Total, components: int, centred: bool) -> Found:
        """The components of all hosts' points. ``total`` adds up arrays over hosts, as ``count`` and ``sum``
        have been."""
        ...


class Gram:
    """All products of columns: exact, in the square of the columns' memory."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.sum: Array = numpy.zeros(width)
        # The upper half only; in the order of Fortran, in which the library adds to it in place.
        self._products: Array = numpy.zeros((width, width), order="F")

    def add(self, points: Features) -> None:
        self.count += points.shape[0]
        if issparse(points):
            points = points.astype(numpy.float64)
            self.sum += numpy.asarray(points.sum(axis=0)).reshape(-1)
            products = (points.T @ points).tocoo()
            self._products[products.row, products.col] += products.data
            return
        points = points.astype(numpy.float64)
        self.sum += points.sum(axis=0)
        self._products = blas.dsyrk(1.0, points.T, beta=1.0, c=self._products, overwrite_c=True)

    def found(self, total: Total, components: int, centred: bool) -> Found:
        products = total(self._products.T).T
        if centred:
            products -= numpy.outer(self.sum, self.sum / self.count)
        width = len(products)
        values, vectors = eigh(
            products,
            lower=False,
            subset_by_index=(width - components, width - 1),
            overwrite_a=True,
            check_finite=False,
        )
        return vectors, numpy.sqrt(numpy.maximum(values, 0.0))


class Sketch:
    """The products of columns times a random matrix of a few columns: all there is to know of the largest
    components, nearly, in little memory (Tropp and others, 2017)."""

    def __init__(self, width: int, columns: int, seed: int) -> None:
        self.count = 0
        self.sum: Array = numpy.zeros(width)
        random = numpy.random.default_rng(seed)
        # Without its rounding errors the test matrix is orthogonal; they do no harm.
        test, _ = qr(random.standard_normal((width, columns)), mode="economic")
        self._test: Array = test
        self._test32 = test.astype(numpy.float32)
        self._products: Array = numpy.zeros((width, columns))

    def add(self, points: Features) -> None:
        self.count += points.shape[0]
        self.sum += numpy.asarray(points.sum(axis=0, dtype=numpy.float64)).reshape(-1)
        self._products += points.T @ (points @ self._test32)

    def found(self, total: Total, components: int, centred: bool) -> Found:
        products = total(self._products)
        if centred:
            products = products - numpy.outer(self.sum / self.count, self.sum @ self._test)
        # A little more of everything keeps the root below real; it is taken away again.
        more = numpy.sqrt(len(products)) * numpy.finfo(numpy.float32).eps * numpy.linalg.norm(products, 2)
        if more == 0.0:
            return self._test[:, :components], numpy.zeros(components)
        products = products + more * self._test
        core = self._test.T @ products
        root = cholesky((core + core.T) / 2, lower=False)
        left, values, _ = svd(
            solve_triangular(root, products.T, trans="T", lower=False).T, full_matrices=False
        )
        squares = numpy.maximum(values[:components] ** 2 - more, 0.0)
        return left[:, :components][:, ::-1], numpy.sqrt(squares)[::-1]


def with_signs(vectors: Array) -> Array:
    """Each column with its largest entry positive: either sign is right, but one is the same every time."""
    largest = vectors[numpy.abs(vectors).argmax(axis=0), numpy.arange(vectors.shape[1])]
    signed: Array = vectors * numpy.where(largest < 0, -1.0, 1.0)
    return signed
