"""Tasks in the background, coalescing of concurrent requests, and writing behind requests."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Generic, Protocol, TypeVar

from homewire.clock import Clock
from homewire.errors import Unavailable


def in_background(
    stack: AsyncExitStack, work: Coroutine[Any, Any, None], failed: asyncio.Future[Exception]
) -> None:
    """Run `work` in a task until `stack` ends. The first error of any such task becomes the result of
    `failed`."""
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


async def wait_debounced(clock: Clock, event: asyncio.Event, min_s: float, max_s: float) -> None:
    """Wait for `event` and clear it: at least `min_s`, at most `max_s` (seconds)."""
    await clock.sleep(min_s)
    await clock.wait(event, max_s - min_s)
    event.clear()


def is_cancelling() -> bool:
    """Whether this task was cancelled, even if the cancellation got lost.

    redis-py sends by `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that arrives as the
    send completes; in a measurement it swallowed half of them. `asyncio.timeout` cancels the task, too.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Reply = TypeVar("Reply")


class SingleFlight(Generic[Key, Item, Reply]):
    """One call at a time for each key. Requests that come during a call share the next one.

    A call is a task of its own, so a cancelled caller does not cancel it for the others.
    """

    def __init__(
        self,
        call: Callable[[Key, Sequence[Item]], Awaitable[Sequence[Reply]]],
        timeout_s: float | None = None,
        *,
        max_requests: int | None = None,
        after: Callable[[Key], Awaitable[None]] | None = None,
    ) -> None:
        """`call` gets a key and the items of at most `max_requests` requests, and returns one reply for each.

        It is cancelled after `timeout_s` seconds. `after` runs behind the last call for a key, when all
        requests were answered.
        """
        self._call = call
        self._timeout_s = timeout_s
        self._max_requests = max_requests
        self._after = after
        self._waiting: dict[Key, list[tuple[Item, asyncio.Future[Reply]]]] = {}
        self._in_flight: dict[Key, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Number of keys with a call in flight."""
        return len(self._in_flight)

    async def close(self) -> None:
        """Wait for the calls in flight, and for `after` behind them."""
        if self._in_flight:
            await asyncio.wait(tuple(self._in_flight.values()))

    async def ask(self, key: Key, item: Item, deadline: float = math.inf) -> Reply:
        """The reply of a call that begins after this request.

        Raises what the call raised; TimeoutError at the call's timeout, or at `deadline` (loop time).
        """
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._waiting.setdefault(key, []).append((item, reply))
        if key not in self._in_flight:
            self._in_flight[key] = asyncio.create_task(self._serve(key))
        if deadline == math.inf:
            return await reply
        # As `asyncio.timeout` does, which takes five times as long.
        timer = loop.call_at(deadline, time_out, reply)
        try:
            return await reply
        finally:
            timer.cancel()

    async def _serve(self, key: Key) -> None:
        try:
            while requests := self._waiting.pop(key, None):
                if self._max_requests is not None and len(requests) > self._max_requests:
                    self._waiting[key] = requests[self._max_requests :]
                    del requests[self._max_requests :]
                await self._serve_together(key, requests)
                if self._after is not None and key not in self._waiting:
                    await self._after(key)
        finally:
            del self._in_flight[key]
            # Only a cancelled call leaves requests.
            for _, reply in self._waiting.pop(key, ()):
                reply.cancel()

    async def _serve_together(self, key: Key, requests: list[tuple[Item, asyncio.Future[Reply]]]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await self._call(key, [item for item, _ in requests])
        except asyncio.CancelledError:
            for _, reply in requests:
                reply.cancel()
            raise
        except Exception as error:
            # The callers handle each error.
            for _, reply in requests:
                if not reply.done():
                    reply.set_exception(error)
            return
        for (_, reply), answer in zip(requests, answers, strict=True):
            if not reply.done():
                reply.set_result(answer)


def time_out(reply: asyncio.Future[Any]) -> None:
    """Raise TimeoutError where the reply is awaited, unless it came."""
    if not reply.done():
        reply.set_exception(TimeoutError())


class WriteBuffer(Protocol[Item]):
    """Changes that wait to be stored, in batches of type `Item`."""

    pending: asyncio.Event
    """Set while a change waits."""

    def take(self, batches: int, /) -> list[Item]:
        """Remove and return at most `batches` batches."""
        ...

    def put_back(self, batches: Iterable[Item], /) -> None:
        """Return batches that could not be stored. They stand before newer changes."""
        ...

    def waiting(self) -> int:
        """Number of changes that wait."""
        ...


class WriteBehind(Generic[Item]):
    """Stores the changes of a buffer in the background, so that no request waits for it.

    A batch that fails goes back to the buffer and is written again after `retry_s`. It may have been stored,
    so writing it twice must do no harm.
    """

    def __init__(
        self,
        buffer: WriteBuffer[Item],
        write: Callable[[Item], Awaitable[None]],
        *,
        batches: int,
        failed: Callable[[int], None],
        gather_s: float = 0.0,
        retry_s: float = 1.0,
    ) -> None:
        """`write` stores one batch, and raises Unavailable or OSError if it can not. `batches` are written
        concurrently. `gather_s` is how long the first change waits for others. `failed` is called with the
        number of waiting changes, once for each series of failures.
        """
        self._buffer = buffer
        self._write = write
        self._batches = batches
        self._failed = failed
        self._gather_s = gather_s
        self._retry_s = retry_s

    async def run(self) -> None:
        """Write until cancelled. While Redis is unavailable, the changes wait."""
        failing = False
        while not is_cancelling():
            await self._buffer.pending.wait()
            if self._gather_s:
                await asyncio.sleep(self._gather_s)
            while self._buffer.waiting() and not is_cancelling():
                if await self._write_some():
                    failing = False
                    continue
                if not failing:
                    self._failed(self._buffer.waiting())
                failing = True
                if not is_cancelling():
                    await asyncio.sleep(self._retry_s)

    async def drain(self) -> bool:
        """Write until nothing waits or a write fails; whether nothing waits. Call it when `run` has ended."""
        while self._buffer.waiting():
            if not await self._write_some():
                return False
        return True

    async def _write_some(self) -> bool:
        """Write the next batches concurrently; whether all were stored."""
        batches = self._buffer.take(self._batches)
        try:
            stored = await asyncio.gather(*map(self._is_stored, batches))
        except BaseException:
            self._buffer.put_back(batches)
            raise
        failed = [batch for batch, is_stored in zip(batches, stored, strict=True) if not is_stored]
        self._buffer.put_back(failed)
        return not failed

    async def _is_stored(self, batch: Item) -> bool:
        try:
            await self._write(batch)
        except (Unavailable, OSError):
            return False
        return True
