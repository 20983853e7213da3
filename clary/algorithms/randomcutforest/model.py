"""Random Cut Forest's model file: the forest's arrays, by the names that `Forest` has for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file, write_arrays
from clary.algorithms.randomcutforest.forest import Forest
from clary.algorithms.randomcutforest.spec import MODEL_NAME

_DIMENSIONS = {"roots": 1, "children": 2, "dimensions": 1, "cuts": 1, "points": 2, "counts": 1}
_OF_NUMBERS = ("cuts", "points")


def save(forest: Forest, folder: Path) -> int:
    """Write the model file; gives its size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {each.name: getattr(forest, each.name) for each in dataclasses.fields(forest)}
    return (folder / MODEL_NAME).write_bytes(write_arrays(arrays))


def load_forest(folder: Path) -> Forest:
    """Raises `ClientError` if there is none whose trees can be followed to their ends."""
    try:
        arrays = read_array_file(folder / MODEL_NAME)
    except FileNotFoundError:
        raise ClientError(f"The model archive holds no model file ({MODEL_NAME}).") from None
    except ValueError as error:
        raise ClientError(f"The model file {MODEL_NAME} cannot be read: {error}.") from None
    for name, dimensions in _DIMENSIONS.items():
        wanted = numpy.float32 if name in _OF_NUMBERS else numpy.int32
        if name not in arrays or arrays[name].ndim != dimensions or arrays[name].dtype != wanted:
            raise ClientError(
                f"The model file {MODEL_NAME} must hold '{name}', {dimensions}-dimensional, of "
                f"{wanted.__name__}."
            )
    forest = Forest(**{name: arrays[name] for name in _DIMENSIONS})
    if not _is_whole(forest):
        raise ClientError(f"The model file {MODEL_NAME} holds trees that do not fit together.")
    return forest


def _is_whole(forest: Forest) -> bool:
    """Every node but the roots is the child of exactly one that comes before it."""
    inner, leaves = len(forest.children), len(forest.points)
    if forest.children.shape[1] != 2 or not (len(forest.dimensions) == len(forest.cuts) == inner):
        return False
    if not leaves or not forest.width or len(forest.counts) != leaves or not forest.trees:
        return False
    nodes = numpy.concatenate([forest.roots, forest.children.reshape(-1)]).astype(numpy.int64)
    if len(nodes) != inner + leaves or (numpy.sort(nodes) != numpy.arange(-leaves, inner)).any():
        return False
    children = forest.children.astype(numpy.int64)
    after = (children < 0) | (children > numpy.arange(inner)[:, None])
    columns = (forest.dimensions >= 0) & (forest.dimensions < forest.width)
    return bool(after.all() and columns.all() and (forest.counts > 0).all()
                and numpy.isfinite(forest.points).all())  # fmt: skip
