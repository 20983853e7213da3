"""Models on disk: written whole or not at all, and the checkpoints from which training can go on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from clary.algorithms.xgboost.library import booster_from

CHECKPOINTS_KEPT = 5
_PREFIX = "xgboost-checkpoint"


def save_model(booster: Any, path: Path) -> None:
    """Write a model in the library's own format."""
    write_model(booster.save_raw("ubj"), path)


def write_model(data: bytes | bytearray, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)


def keep_checkpoint(booster: Any, folder: Path, number: int) -> None:
    """Keep the model after round ``number`` (from 0), and of the older ones the last few."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(booster, folder / f"{_PREFIX}.{number}")
    with contextlib.suppress(FileNotFoundError):
        (folder / f"{_PREFIX}.{number - CHECKPOINTS_KEPT}").unlink()


def latest_checkpoint(folder: Path | None) -> tuple[Any, int]:
    """The booster of the newest checkpoint that can be read, and how many rounds it has had."""
    found = {}
    for path in folder.glob(f"{_PREFIX}.*") if folder is not None and folder.is_dir() else ():
        suffix = path.name.rpartition(".")[2]
        if suffix.isdecimal():
            found[int(suffix)] = path
    for number in sorted(found, reverse=True):
        with contextlib.suppress(ValueError):  # cut off while it was copied
            return booster_from(found[number].read_bytes()), number + 1
    return None, 0
