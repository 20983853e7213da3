"""Trees of random cuts, and what they say of a point (Guha, Mishra, Roy and Schrijvers, 2016).

All trees are grown at once and points fall through all of them at once, level by level: what takes time is in
numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy
import numpy.typing

Array = numpy.typing.NDArray[Any]

# Of points on their way through trees, whose boxes are looked at together: what a processor's cache holds.
_FALLING_BYTES = 256 * 1024
_LARGEST_GROUP_BYTES = 64 * 1024 * 1024  # of the points of trees that are grown together


@dataclass(frozen=True)
class Forest:
    """Trees of binary nodes.

    A node is a number: from 0 an inner one, negative the leaf ``~number``. ``roots`` is (trees,),
    ``children`` (inner, 2) with the points up to the cut first and every inner child after its parent,
    ``dimensions`` and ``cuts`` (inner,), ``points`` (leaves, width) and ``counts`` (leaves,): equal points of
    a tree share a leaf.
    """

    roots: Array
    children: Array
    dimensions: Array
    cuts: Array
    points: Array
    counts: Array

    @property
    def trees(self) -> int:
        return len(self.roots)

    @property
    def width(self) -> int:
        return int(self.points.shape[1])

    @property
    def rows_per_tree(self) -> int:
        return int(self.counts.sum()) // self.trees

    @cached_property
    def levels(self) -> list[Array]:
        """Inner nodes by their depth."""
        found = []
        level = self.roots[self.roots >= 0]
        while len(level):
            found.append(level)
            level = self.children[level].reshape(-1)
            level = level[level >= 0]
        return found

    @cached_property
    def boxes(self) -> tuple[Array, Array, Array]:
        """The lowest and highest values of each inner node's points, (inner, width), and the sums of their
        differences, (inner,)."""
        low = numpy.empty((len(self.children), self.width), numpy.float32)
        high = numpy.empty_like(low)
        for level in reversed(self.levels):
            left, right = self.children[level].T
            low[level] = numpy.minimum(self._ends(left, low), self._ends(right, low))
            high[level] = numpy.maximum(self._ends(left, high), self._ends(right, high))
        sides = numpy.empty(len(low))
        step = max(1, _LARGEST_GROUP_BYTES // (8 * self.width))
        for start in range(0, len(low), step):
            part = slice(start, start + step)
            sides[part] = (high[part].astype(numpy.float64) - low[part]).sum(axis=1)
        return low, high, sides

    def prepare(self) -> None:
        """Have everything at hand that scores need: forked programs share it."""
        _ = self.boxes

    def _ends(self, nodes: Array, of_inner: Array) -> Array:
        """The rows of inner nodes, and the points of leaves."""
        found = numpy.empty((len(nodes), self.width), numpy.float32)
        leaves = nodes < 0
        found[leaves] = self.points[~nodes[leaves]]
        found[~leaves] = of_inner[nodes[~leaves]]
        return found

    def scores(self, points: Array) -> Array:
        """The anomaly score of each of the (rows, width) points of float32.

        A tree's score is how much the point would change it: a point that a random cut would part from all
        others in a node's box becomes that node's sibling, which counts one over its depth; the score is what
        is expected of this. The forest's is the mean, times the depth of a tree that is even.
        """
        found = numpy.zeros(len(points))
        pairs = max(256, _FALLING_BYTES // (4 * self.width))
        rows = min(len(points), max(1, pairs // min(self.trees, 16)))
        trees = max(1, pairs // max(rows, 1))
        for start in range(0, len(points), max(rows, 1)):
            part = points[start : start + rows]
            for first in range(0, self.trees, trees):
                found[start : start + rows] += self._fallen(part, self.roots[first : first + trees])
        found *= numpy.log2(self.rows_per_tree + 1) / self.trees
        return found

    def _fallen(self, points: Array, roots: Array) -> Array:
        """The sum of the scores that the trees of ``roots`` give each of the points."""
        low, high, sides = self.boxes
        ones = numpy.ones(self.width, numpy.float32)
        found = numpy.zeros(len(points))
        rows = numpy.repeat(numpy.arange(len(points)), len(roots))
        nodes = numpy.tile(roots, len(points))
        chances = numpy.ones(len(nodes))  # that no cut has parted the point from the others so far
        depth = 0
        while len(nodes):
            at_leaf = nodes < 0
            if at_leaf.any():
                ended = numpy.flatnonzero(at_leaf)
                found += self._at_leaves(points, rows[ended], ~nodes[ended], chances[ended], depth)
                going = numpy.flatnonzero(~at_leaf)
                rows, nodes, chances = rows[going], nodes[going], chances[going]
            own = points[rows]
            with numpy.errstate(over="ignore", invalid="ignore"):
                beside = numpy.minimum(own, high[nodes])
                numpy.maximum(beside, low[nodes], out=beside)
                numpy.subtract(own, beside, out=beside)
                outside = (numpy.abs(beside, out=beside) @ ones).astype(numpy.float64)
                parted = outside / (outside + sides[nodes])
            parted[numpy.isinf(outside)] = 1.0  # too far for 32 bits
            found += numpy.bincount(rows, chances * parted, len(points)) / (depth + 1)
            chances = chances * (1 - parted)
            right = own[numpy.arange(len(nodes)), self.dimensions[nodes]] > self.cuts[nodes]
            nodes = self.children[nodes, right.astype(numpy.int8)]
            depth += 1
        return found

    def _at_leaves(self, points: Array, rows: Array, leaves: Array, chances: Array, depth: int) -> Array:
        equal = (points[rows] == self.points[leaves]).all(axis=1)
        counts = self.counts[leaves]
        known = (1 - counts / (2 * self.rows_per_tree)) / (depth + numpy.log2(counts + 1.0))
        return numpy.bincount(rows, chances * numpy.where(equal, known, 1 / (depth + 1)), len(points))


def grow(rows: Array, chosen: Array, random: numpy.random.Generator) -> Forest:
    """A tree for each row of ``chosen``, (trees, rows of a tree), which numbers (rows, width) of float32."""
    group = max(1, _LARGEST_GROUP_BYTES // (4 * chosen.shape[1] * rows.shape[1]))
    groups = [chosen[start : start + group] for start in range(0, len(chosen), group)]
    return _joined([_grown(rows[own.reshape(-1)], len(own), random) for own in groups])


def _grown(points: Array, trees: int, random: numpy.random.Generator) -> Forest:
    """As many points for each of the trees, tree after tree."""
    rows, width = len(points) // trees, points.shape[1]
    parents = numpy.full(trees, -1)  # of each node of this level, and on which side of it
    sides = numpy.zeros(trees, numpy.int64)
    roots = numpy.empty(trees, numpy.int32)
    order = numpy.arange(len(points))  # the points of this level's nodes, node after node
    starts = numpy.arange(trees) * rows
    children: list[Array] = []
    dimensions, cuts, leaves, counts = [], [], [], []
    inner = leaf = 0
    while len(starts):
        own = points[order]
        low, high = numpy.minimum.reduceat(own, starts), numpy.maximum.reduceat(own, starts)
        sizes = numpy.diff(starts, append=len(order))
        ends = numpy.cumsum(high.astype(numpy.float64) - low, axis=1)
        whole = ends[:, -1] == 0  # all points equal: a leaf
        numbers = numpy.empty(len(starts), numpy.int32)
        numbers[whole] = ~numpy.arange(leaf, leaf + whole.sum(), dtype=numpy.int32)
        numbers[~whole] = numpy.arange(inner, inner + (~whole).sum(), dtype=numpy.int32)
        if inner or leaf:
            # Parents are of the level before, the last of those that have children.
            children[-1][parents - (inner - len(children[-1])), sides] = numbers
        else:
            roots[:] = numbers
        leaves.append(order[starts[whole]])
        counts.append(sizes[whole].astype(numpy.int32))
        leaf += int(whole.sum())
        low, high, ends = low[~whole], high[~whole], ends[~whole]
        count = len(low)
        if not count:
            break
        whole_sides = ends[:, -1]
        places = numpy.minimum(random.random(count) * whole_sides, numpy.nextafter(whole_sides, 0))
        chosen = numpy.minimum((ends <= places[:, None]).sum(axis=1), width - 1)
        nodes = numpy.arange(count)
        bottom, top = low[nodes, chosen], high[nodes, chosen]
        before = ends[nodes, chosen] - (top.astype(numpy.float64) - bottom)
        cut = (bottom + numpy.maximum(places - before, 0.0)).astype(numpy.float32)
        # Rounding must leave a point on either side.
        cut = numpy.clip(cut, bottom, numpy.nextafter(top, numpy.float32(-numpy.inf)))
        children.append(numpy.empty((count, 2), numpy.int32))
        dimensions.append(chosen.astype(numpy.int32))
        cuts.append(cut)
        # The points of inner nodes, those of each left child before those of the right one.
        owners = numpy.repeat(numpy.cumsum(~whole) - 1, sizes)
        going = numpy.repeat(~whole, sizes)
        order, owners = order[going], owners[going]
        keys = 2 * owners + (points[order, chosen[owners]] > cut[owners])
        order = order[numpy.argsort(keys, kind="stable")]
        starts = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(keys, minlength=2 * count))[:-1]])
        parents, sides = numpy.repeat(nodes + inner, 2), numpy.tile([0, 1], count)
        inner += count
    return Forest(
        roots,
        numpy.concatenate([numpy.zeros((0, 2), numpy.int32), *children]),
        numpy.concatenate([numpy.zeros(0, numpy.int32), *dimensions]),
        numpy.concatenate([numpy.zeros(0, numpy.float32), *cuts]),
        points[numpy.concatenate(leaves)],
        numpy.concatenate(counts),
    )


def _joined(forests: list[Forest]) -> Forest:
    if len(forests) == 1:
        return forests[0]
    inner = leaf = 0
    roots: list[Array] = []
    children: list[Array] = []
    for forest in forests:
        for found, nodes in ((roots, forest.roots), (children, forest.children)):
            found.append(numpy.where(nodes < 0, nodes - leaf, nodes + inner).astype(numpy.int32))
        inner, leaf = inner + len(forest.children), leaf + len(forest.counts)
    return Forest(
        numpy.concatenate(roots),
        numpy.concatenate(children),
        *(
            numpy.concatenate([getattr(forest, name) for forest in forests])
            for name in ("dimensions", "cuts", "points", "counts")
        ),
    )
