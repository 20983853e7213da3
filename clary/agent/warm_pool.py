"""The folder that a program keeps for the next job of its warm pool: ``/opt/ml/sagemaker/warmpoolcache``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clary.resources.task_folder import task_folder

CACHE = "sagemaker/warmpoolcache"


def take_cache_over(tasks: Path, ml: Path, room_of: str, say: Callable[[str], None]) -> None:
    """Move what the task ``room_of`` kept to this one's ``ml``; without it the folder is empty.

    A cache that the earlier program replaced by a link, or moved out of reach, is not taken.
    """
    target = ml / CACHE
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if room_of:
        source = task_folder(tasks, room_of).ml / CACHE
        whole = (
            not source.is_symlink() and source.resolve() == task_folder(tasks.resolve(), room_of).ml / CACHE
        )
        if whole and source.is_dir():
            try:
                source.rename(target)
            except OSError as error:
                say(f"What the warm pool's last job kept could not be taken over: {error}")
    target.mkdir(exist_ok=True)
