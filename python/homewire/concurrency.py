"""Work that goes on beside everything else.

Noticing a cancellation that redis-py did not let through.

Work that one does for all who asked for it before it began.

Questions that come while others are being answered are asked together, in one round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Generic, TypeVar


def in_background(
    stack: AsyncExitStack, work: Coroutine[Any, Any, None], failed: asyncio.Future[Exception]
) -> None:
    """Start `work`. It is cancelled when `stack` ends; the first error of all such work goes to `failed`."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: _task_ended(done, failed))
    stack.push_async_callback(_cancelled, task)


async def run_when_signaled(
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
    while not is_cancelling():
        await something.wait()
        if await work():
            failed = False
            continue
        if not failed:
            complain()
        failed = True
        if not is_cancelling():
            await asyncio.sleep(retry_s)


async def wait_debounced(event: asyncio.Event, least_s: float, most_s: float) -> None:
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


def is_cancelling() -> bool:
    """Whether this task was cancelled, also if it did not notice: redis-py sends by `asyncio.wait_for`,
    and that, in Python 3.11, swallows a cancellation which arrives as the send completes. It was half
    of them when measured. A time-out (`asyncio.timeout`) is such a cancellation too, and as easily lost."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


Work = Callable[[int], Awaitable[int]]


class SingleFlight:
    """One turn at a time for each project; whoever asks while it lasts is served by the next one, together.

    A turn is a task of its own: who asked may go away, and the others have their answer all the same.
    """

    def __init__(
        self, work: Work, limit_s: float, rest: Callable[[int], Awaitable[None]] | None = None
    ) -> None:
        """`work` is given the project's id, and has `limit_s` seconds. `rest` is done behind the last turn,
        when all were answered, unless somebody asks for another."""
        self._work = work
        self._limit_s = limit_s
        self._rest = rest
        self._waiting: dict[int, list[asyncio.Future[int]]] = {}
        self._under_way: dict[int, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Projects at which a turn is under way."""
        return len(self._under_way)

    async def close(self) -> None:
        """Wait for the turns that are under way, and for the rest behind them."""
        if self._under_way:
            await asyncio.wait(tuple(self._under_way.values()))

    async def take(self, project_id: int, deadline: float = math.inf) -> int:
        """Wait for a turn that begins after this was called. What the work answered, if this was the first to
        ask for it; else 0. Raises what the work raised, TimeoutError after its time or at the `deadline`
        (loop time)."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[int] = loop.create_future()
        self._waiting.setdefault(project_id, []).append(waiter)
        if project_id not in self._under_way:
            self._under_way[project_id] = asyncio.create_task(self._serve(project_id))
        if deadline == math.inf:
            return await waiter
        # As `asyncio.timeout` does, which takes five times as long.
        timer = loop.call_at(deadline, _give_up, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def _serve(self, project_id: int) -> None:
        try:
            while waiters := self._waiting.pop(project_id, None):
                await self._serve_together(project_id, waiters)
                if self._rest is not None and project_id not in self._waiting:
                    await self._rest(project_id)
        finally:
            del self._under_way[project_id]
            # Only of a turn that was cancelled somebody is left.
            for waiter in self._waiting.pop(project_id, ()):
                waiter.cancel()

    async def _serve_together(self, project_id: int, waiters: list[asyncio.Future[int]]) -> None:
        answer = 0
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self._limit_s):
                answer = await self._work(project_id)
        except asyncio.CancelledError:
            for waiter in waiters:
                waiter.cancel()
            raise
        except Exception as error:
            # Theirs to handle, whatever it is.
            failure = error
        for waiter in waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(answer)
                answer = 0
            else:
                waiter.set_exception(failure)


def _give_up(waiter: asyncio.Future[int]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


Question = TypeVar("Question")
Reply = TypeVar("Reply")

MOST: Final = 100


class Together(Generic[Question, Reply]):
    """Asks for many. The first goes out at once; whoever comes before its reply shares the next trip.

    So thousands at one moment take one connection to Redis and not all of them, and nobody waits for more
    than the trip under way and its own.
    """

    def __init__(self, ask: Callable[[Sequence[Question]], Awaitable[Sequence[Reply]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Question, asyncio.Future[Reply]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Reply:
        """The reply to one question. Raises what the whole trip raised."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await future

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                asked = [(question, future) for question, future in some if not future.done()]
                try:
                    replies = await self._ask([question for question, _ in asked])
                except Exception as error:
                    _fail(asked, error)
                except asyncio.CancelledError as error:
                    _fail(asked, error)
                    raise
                else:
                    for (_, future), reply in zip(asked, replies, strict=True):
                        if not future.done():
                            future.set_result(reply)
        finally:
            self._asking = None
            _fail(self._waiting, asyncio.CancelledError())
            self._waiting = []


def _fail(asked: Sequence[tuple[object, asyncio.Future[Reply]]], error: BaseException) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(error)
