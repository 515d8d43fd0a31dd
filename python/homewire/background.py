"""Work that goes on beside everything else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from homewire.bus.stopping import asked_to_stop


def in_background(
    stack: AsyncExitStack, work: Coroutine[Any, Any, None], failed: asyncio.Future[Exception]
) -> None:
    """Start `work`. It is cancelled when `stack` ends; the first error of all such work goes to `failed`."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: _task_ended(done, failed))
    stack.push_async_callback(_cancelled, task)


async def in_rounds(
    something: asyncio.Event,
    work: Callable[[], Awaitable[bool]],
    retry_s: float,
    complain: Callable[[], None],
) -> None:
    """Do `work` whenever there is `something` to do, until cancelled.

    It answers whether all that it tried could be done. If not, the next round is `retry_s` later, and for
    the first of several such rounds `complain` is called.
    """
    failed = False
    while not asked_to_stop():
        await something.wait()
        if await work():
            failed = False
            continue
        if not failed:
            complain()
        failed = True
        if not asked_to_stop():
            await asyncio.sleep(retry_s)


async def woken(event: asyncio.Event, least_s: float, most_s: float) -> None:
    """Wait for `event` and clear it: at least `least_s`, so that rounds do not follow on each other's heels,
    and at most `most_s`."""
    await asyncio.sleep(least_s)
    try:
        async with asyncio.timeout(most_s - least_s):
            await event.wait()
    except TimeoutError:
        return
    finally:
        event.clear()


def _task_ended(task: asyncio.Task[None], failed: asyncio.Future[Exception]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception) and not failed.done():
        failed.set_result(error)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
