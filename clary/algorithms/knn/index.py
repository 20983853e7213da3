"""Finding the nearest of many vectors: all of them looked at, or FAISS's inverted lists.

Either is kept in FAISS's own file format; a flat one is written and searched without that library.
"""

from __future__ import annotations

import importlib
import struct
from typing import Any, Protocol

import numpy
import numpy.typing

from clary.algorithms.faults import ClientError

Array = numpy.typing.NDArray[Any]

L2, INNER_PRODUCT = "L2", "INNER_PRODUCT"
_FLAT_NAMES = {L2: b"IxF2", INNER_PRODUCT: b"IxFI"}
_METRICS = {1: L2, 0: INNER_PRODUCT}  # FAISS's numbers
_HEAD = struct.Struct("<4siqqq?iQ")
_RESERVED = 1 << 20  # what the format has in two fields that are not used
_SCORES_BYTES = 32 * 1024 * 1024
# More candidates than asked for, whose distances are then computed exactly: 32 bits may swap near ones.
_SPARE = 16
_BLOCK = 32  # vectors, of which only the nearest is looked at first
FEWEST_FOR_PQ = 256
_PQ_BITS = 8


class Index(Protocol):
    """``count`` vectors of ``width`` numbers."""

    width: int
    count: int

    def search(self, rows: Array, k: int) -> tuple[Array, Array]:
        """The ``k`` nearest of each row, nearest first: distances (L2) or products, and numbers; (rows, k)
        each."""
        ...

    def written(self) -> bytes: ...


class FlatIndex:
    """Looks at all vectors; threads may share it."""

    def __init__(self, vectors: Array, metric: str) -> None:
        self.count, self.width = vectors.shape
        self._metric = metric
        self._vectors = numpy.ascontiguousarray(vectors, numpy.float32)
        self._origin = numpy.zeros(self.width, numpy.float32)
        if metric == L2:
            # Seen from their middle, where 32 bits tell distances best.
            self._origin = self._vectors.mean(axis=0, dtype=numpy.float64).astype(numpy.float32)
        self._seen = self._vectors - self._origin if self._origin.any() else self._vectors
        # With a column more, products tell which is the nearer of two: no pass over them is needed.
        self._compared = self._seen
        if metric == L2:
            half_norms = 0.5 * numpy.einsum("ij,ij->i", self._seen, self._seen)
            self._compared = numpy.column_stack([self._seen, -half_norms])
            self._seen = self._compared[:, :-1]

    def search(self, rows: Array, k: int) -> tuple[Array, Array]:
        k = min(k, self.count)
        scores, found = numpy.empty((len(rows), k)), numpy.empty((len(rows), k), numpy.int64)
        step = max(1, _SCORES_BYTES // (4 * self.count))
        for start in range(0, len(rows), step):
            part = rows[start : start + step].astype(numpy.float32) - self._origin
            chosen = self._candidates(part, min(k + _SPARE, self.count))
            exact = self._exact(part, chosen)
            order = numpy.lexsort((chosen, exact if self._metric == L2 else -exact))[:, :k]
            scores[start : start + step] = numpy.take_along_axis(exact, order, axis=1)
            found[start : start + step] = numpy.take_along_axis(chosen, order, axis=1)
        return scores, found

    def _candidates(self, rows: Array, count: int) -> Array:
        """The numbers of at least the ``count`` nearest, in no order, by distances of 32 bits."""
        if self._metric == L2:
            rows = numpy.column_stack([rows, numpy.ones(len(rows), numpy.float32)])
        near = rows @ self._compared.T
        if count * 2 * _BLOCK >= self.count:
            return _largest(near, count)
        # The nearest are in the blocks that hold the nearest of a block: all others need no look.
        # A block's vectors lie far from one another, so that maxima are of whole rows.
        blocks = self.count // _BLOCK
        whole = blocks * _BLOCK
        best = near[:, :whole].reshape(len(rows), _BLOCK, blocks).max(axis=1)
        chosen = _largest(best, count)
        numbers = (chosen[:, None, :] + blocks * numpy.arange(_BLOCK)[:, None]).reshape(len(rows), -1)
        rest = numpy.broadcast_to(numpy.arange(whole, self.count), (len(rows), self.count - whole))
        numbers = numpy.concatenate([numbers, rest], axis=1)
        within = _largest(numpy.take_along_axis(near, numbers, axis=1), count)
        return numpy.take_along_axis(numbers, within, axis=1)

    def _exact(self, rows: Array, chosen: Array) -> Array:
        found = numpy.empty(chosen.shape)
        step = max(1, _SCORES_BYTES // (16 * chosen.shape[1] * self.width))
        for start in range(0, len(rows), step):
            vectors = self._seen[chosen[start : start + step]]
            part = rows[start : start + step].astype(numpy.float64)[:, None]
            if self._metric == L2:
                gaps = vectors - part
                found[start : start + step] = numpy.sqrt(numpy.einsum("ijk,ijk->ij", gaps, gaps))
            else:
                found[start : start + step] = numpy.einsum("ijk,ijk->ij", vectors, part)
        return found

    def written(self) -> bytes:
        metric = next(number for number, name in _METRICS.items() if name == self._metric)
        head = _HEAD.pack(
            _FLAT_NAMES[self._metric],
            self.width,
            self.count,
            _RESERVED,
            _RESERVED,
            True,
            metric,
            self._vectors.size,
        )
        return head + self._vectors.astype("<f4").tobytes()


def _largest(values: Array, count: int) -> Array:
    """The columns of the ``count`` largest of each row, in no order."""
    return numpy.argpartition(values, values.shape[1] - count, axis=1)[:, -count:]


class FaissIndex:
    """An index of the library; searches may run beside one another."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.width, self.count = int(index.d), int(index.ntotal)

    def search(self, rows: Array, k: int) -> tuple[Array, Array]:
        faiss = _faiss()
        rows, k = numpy.ascontiguousarray(rows, numpy.float32), min(k, self.count)
        scores, found = self._index.search(rows, k)
        lacking = numpy.flatnonzero((found < 0).any(axis=1))
        if lacking.size:  # the lists looked at held fewer: look at all
            everywhere = faiss.SearchParametersIVF(nprobe=self._index.nlist)
            scores[lacking], found[lacking] = self._index.search(rows[lacking], k, params=everywhere)
        if self._index.metric_type == faiss.METRIC_L2:
            scores = numpy.sqrt(numpy.maximum(scores, 0))
        return scores.astype(numpy.float64), found

    def written(self) -> bytes:
        return bytes(_faiss().serialize_index(self._index).tobytes())


def build_lists(vectors: Array, metric: str, lists: int, parts: int, threads: int) -> FaissIndex:
    """An IVF index, of vectors cut into ``parts`` if there are any (IVFPQ). Raises `ClientError`."""
    faiss = _faiss()
    faiss.omp_set_num_threads(threads)
    if parts and len(vectors) < FEWEST_FOR_PQ:
        raise ClientError(f"An IVFPQ index needs at least {FEWEST_FOR_PQ} records; there are {len(vectors)}.")
    kind = faiss.METRIC_L2 if metric == L2 else faiss.METRIC_INNER_PRODUCT
    lists = min(lists, len(vectors))
    width = vectors.shape[1]
    coarse = faiss.IndexFlat(width, kind)
    index = (
        faiss.IndexIVFPQ(coarse, width, lists, parts, _PQ_BITS, kind)
        if parts
        else faiss.IndexIVFFlat(coarse, width, lists, kind)
    )
    vectors = numpy.ascontiguousarray(vectors, numpy.float32)
    index.train(vectors)
    index.add(vectors)
    # A tenth of the lists finds nearly all of the nearest.
    index.nprobe = max(1, -(-lists // 10))
    return FaissIndex(index)


def read_index(data: bytes) -> Index:
    """Raises ``ValueError`` saying why ``data`` is no index, and `ClientError` if it needs a library."""
    if data[:4] in _FLAT_NAMES.values():
        return _read_flat(data)
    if data[:2] != b"Iw":
        raise ValueError("it is no index of FAISS that is known here")
    faiss = _faiss()
    try:
        index = faiss.deserialize_index(numpy.frombuffer(data, numpy.uint8))
        faiss.omp_set_num_threads(1)  # requests run beside one another
    except RuntimeError as error:
        raise ValueError(str(error).strip().splitlines()[-1]) from None
    return FaissIndex(index)


def _read_flat(data: bytes) -> FlatIndex:
    if len(data) < _HEAD.size:
        raise ValueError("it ends too early")
    _, width, count, _, _, _, metric, size = _HEAD.unpack_from(data)
    if metric not in _METRICS or width < 1 or count < 1 or size != width * count:
        raise ValueError(f"it claims {count} vectors of {width} numbers, {size} in all, of metric {metric}")
    if len(data) != _HEAD.size + 4 * size:
        raise ValueError(f"it has {len(data)} bytes, but {_HEAD.size + 4 * size} are announced")
    return FlatIndex(numpy.frombuffer(data, "<f4", offset=_HEAD.size).reshape(count, width), _METRICS[metric])


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        raise ClientError(
            "An index of inverted lists needs the library faiss: pip install 'clary[ann]', or use the "
            "index_type faiss.Flat."
        ) from error
