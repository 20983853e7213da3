"""Work that must not be left half done when whoever waits for it is cancelled.

A thread goes on after the coroutine that started it was cancelled. Whoever then closes the thread's file, or
takes a transaction for undone that is about to commit, damages what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """What ``work`` gives. Cancelled meanwhile, wait for its end all the same, and raise the cancellation."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue  # once is enough: it is raised below
        if not task.cancelled():
            task.exception()  # the cancellation comes first; this says that it was seen
        raise
