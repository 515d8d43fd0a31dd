"""Work that goes on beside everything else, and ends with the node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any


def in_background(
    stack: AsyncExitStack, work: Coroutine[Any, Any, None], failed: asyncio.Future[Exception]
) -> None:
    """Start `work`. It is cancelled when `stack` ends; the first error of all such work goes to `failed`."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: _task_ended(done, failed))
    stack.push_async_callback(_cancelled, task)


def _task_ended(task: asyncio.Task[None], failed: asyncio.Future[Exception]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception) and not failed.done():
        failed.set_result(error)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
