"""LIBSVM text: ``label[:weight] [qid:n] index:value ...``, a row a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
from scipy.sparse import csr_matrix

from clary.algorithms.faults import ClientError


@dataclass(frozen=True)
class LibsvmRows:
    """``features`` is sparse, (rows, highest index + 1); ``labels`` and ``weights`` are (rows,)."""

    features: csr_matrix
    labels: Any
    weights: Any


def read_libsvm(data: bytes, name: str, *, label_optional: bool = False) -> LibsvmRows:
    """Raises `ClientError` naming ``name``, line and column of what cannot be read."""
    labels: list[float] = []
    weights: list[float] = []
    weighted = False
    indices: list[int] = []
    values: list[float] = []
    starts = [0]
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        tokens = line.split("#", 1)[0].split()
        if not tokens:
            continue
        column = 0
        try:
            first = tokens[0]
            if label_optional and ":" in first and not _has_label(tokens):
                labels.append(numpy.nan)
                weights.append(1.0)
            else:
                label, _, weight = first.partition(":")
                labels.append(float(label))
                weights.append(float(weight) if weight else 1.0)
                weighted = weighted or bool(weight)
                tokens = tokens[1:]
                column = 1
            for token in tokens:
                column += 1
                index, _, value = token.partition(":")
                if index == "qid":
                    continue
                position = int(index)
                if position < 0:
                    raise ValueError
                indices.append(position)
                values.append(float(value))
        except ValueError:
            token = line.split()[max(column - 1, 0)]
            raise ClientError(
                f"{name}, line {number}, column {max(column, 1)}: '{token[:50]}' is not index:value."
            ) from None
        starts.append(len(indices))
    if not labels:
        raise ClientError(f"{name}: the file holds no rows.")
    matrix = csr_matrix(
        (
            numpy.array(values, numpy.float32),
            numpy.array(indices, numpy.int32),
            numpy.array(starts, numpy.int64),
        ),
        shape=(len(labels), max(indices, default=-1) + 1),
    )
    return LibsvmRows(
        matrix, numpy.array(labels, numpy.float32), numpy.array(weights, numpy.float32) if weighted else None
    )


def _has_label(tokens: list[str]) -> bool:
    """Whether the first token is ``label:weight``: its index would not be below the next one's."""
    if len(tokens) < 2 or ":" not in tokens[1]:
        return False
    try:
        return not float(tokens[0].partition(":")[0]).is_integer()
    except ValueError:
        return True
