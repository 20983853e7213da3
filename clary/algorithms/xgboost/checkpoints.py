"""Models on disk: written whole or not at all, and the checkpoints from which training can go on."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from clary.algorithms.xgboost.library import booster_from

CHECKPOINTS_KEPT = 5
# Of the time, what may go into writing: this much, and a share.
FREE_SECONDS = 5.0
LARGEST_SHARE = 0.05
_PREFIX = "xgboost-checkpoint"


def save_model(booster: Any, path: Path) -> None:
    """Write a model in the library's own format."""
    write_model(booster.save_raw("ubj"), path)


def write_model(data: bytes | bytearray, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)


class Checkpoints:
    """The checkpoints of a running training: one a round, of which the newest few stay.

    Each holds the whole model, so that many rounds would write far more than they compute: where writing
    takes too large a share of the time, rounds are left out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = sorted(_checkpoints(folder))
        self._began = time.monotonic()
        self._spent_seconds = 0.0

    def after_round(self, booster: Any, number: int, *, is_last: bool) -> None:
        """Keep the model after round ``number`` (from 0); the last one always."""
        began = time.monotonic()
        allowed = FREE_SECONDS + LARGEST_SHARE * (began - self._began)
        if not is_last and self._spent_seconds > allowed:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        save_model(booster, _path(self._folder, number))
        self._kept.append(number)
        while len(self._kept) > CHECKPOINTS_KEPT:
            _path(self._folder, self._kept.pop(0)).unlink(missing_ok=True)
        self._spent_seconds += time.monotonic() - began


def latest_checkpoint(folder: Path | None) -> tuple[Any, int]:
    """The booster of the newest checkpoint that can be read, and how many rounds it has had."""
    found = _checkpoints(folder) if folder is not None else {}
    for number in sorted(found, reverse=True):
        with contextlib.suppress(ValueError):  # cut off while it was copied
            return booster_from(found[number].read_bytes()), number + 1
    return None, 0


def _checkpoints(folder: Path) -> dict[int, Path]:
    """By the number of their round."""
    found = {}
    for path in folder.glob(f"{_PREFIX}.*") if folder.is_dir() else ():
        suffix = path.name.rpartition(".")[2]
        if suffix.isdecimal():
            found[int(suffix)] = path
    return found


def _path(folder: Path, number: int) -> Path:
    return folder / f"{_PREFIX}.{number}"
