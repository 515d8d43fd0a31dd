"""Work that one does for all who asked for it before it began."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

Work = Callable[[int], Awaitable[int]]


class Turns:
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
