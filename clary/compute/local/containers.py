"""Containers of tasks whose agents are gone: removed by a process of its own that speaks with the engine.

What to look for is in the records that agents keep (`clary.resources.container_record`). Where there are
none, all this costs the look into an empty folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from clary.resources.container_record import CLEAN_UP_MODULE, container_records, has_record

_log = logging.getLogger(__name__)

CLEAN_UP_SECONDS = 60.0
_AGAIN_SECONDS = 30.0  # after an engine that did not answer
_SHOWN_BYTES = 2000


class LeftContainers:
    """See the module. ``tasks`` is the folder of tasks."""

    def __init__(self, tasks: Path) -> None:
        self._tasks = tasks
        self._sweeping: asyncio.Task[None] | None = None
        self._next_sweep = 0.0

    async def remove(self, task_id: str) -> None:
        """Remove the containers of a task whose agent is gone; if the engine does not do it, `sweep` will."""
        if has_record(self._tasks, task_id):
            await self._clean_up([task_id])

    def sweep(self, lives: Callable[[str], bool]) -> None:
        """Begin to remove what every agent left that does not live (any more), unless that is under way."""
        if (self._sweeping and not self._sweeping.done()) or time.monotonic() < self._next_sweep:
            return
        left = self._left(lives)
        if left:
            self._sweeping = asyncio.get_running_loop().create_task(self._clean_up(left))

    async def close(self, lives: Callable[[str], bool]) -> None:
        """Remove what is left, as far as the engine does it now."""
        if self._sweeping:
            await asyncio.gather(self._sweeping, return_exceptions=True)
        left = self._left(lives)
        if left:
            await self._clean_up(left)

    def _left(self, lives: Callable[[str], bool]) -> list[str]:
        return [record.task_id for record in container_records(self._tasks) if not lives(record.task_id)]

    async def _clean_up(self, task_ids: Sequence[str]) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            CLEAN_UP_MODULE,
            str(self._tasks),
            *task_ids,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd="/",
        )
        said = b""
        try:
            said, _ = await asyncio.wait_for(process.communicate(), CLEAN_UP_SECONDS)
        except asyncio.TimeoutError:
            said = b"the engine did not answer"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            self._next_sweep = time.monotonic() + _AGAIN_SECONDS
            text = said[-_SHOWN_BYTES:].decode(errors="replace").strip()
            _log.warning("containers of %s are not removed yet: %s", ", ".join(task_ids), text)
