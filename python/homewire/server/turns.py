"""Turns: how much work of one subject is under way at once. Work beyond that waits in the order it came.

On one event loop a client with many connections would otherwise have a step of each of its requests in each
turn of the loop, and the request of another client waits for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import ExitStack, asynccontextmanager, suppress

from homewire.errors import Unavailable


class Turns:
    """At most `most` at once of each subject; `queue` more wait up to `wait_s`. Used from one event loop.

    A turn ends in the turn of the loop behind its work, so that work that waits for nothing has a bound,
    too. It ends after `longest_s` even if its work goes on. Such work waits for something else, e.g. for
    Redis, and takes few steps of the loop. A `most` of 0 is no limit. `refusal` makes the error for work that
    waited too long, or found the queue full.
    """

    def __init__(
        self,
        most: int,
        *,
        queue: int,
        wait_s: float,
        refusal: Callable[[], Unavailable],
        longest_s: float | None = None,
    ) -> None:
        self._most = most
        self._queue = queue
        self._wait_s = wait_s
        self._refusal = refusal
        self._longest_s = longest_s
        self._taken: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self.taken = 0
        """Turns that are taken, of all subjects."""
        self.delayed = 0
        """Turns that were waited for."""
        self.refused = 0

    @property
    def waiting(self) -> int:
        """How many wait, of all subjects."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def of(self, subject: Hashable) -> AsyncIterator[None]:
        """Hold one turn of the subject. Raises the refusal."""
        await self.take(subject)
        loop = asyncio.get_running_loop()
        with ExitStack() as turn:
            turn.callback(loop.call_soon, self.give_back, subject)
            if self._longest_s is not None:
                # What ends first closes the stack, and the second finds it empty.
                end = loop.call_later(self._longest_s, turn.close)
                turn.callback(end.cancel)
            yield

    async def take(self, subject: Hashable) -> None:
        """Wait for a turn of the subject. Raises the refusal."""
        taken = self._taken.get(subject, 0)
        if taken < self._most or not self._most:
            self._taken[subject] = taken + 1
            self.taken += 1
            return
        waiting = self._waiting.setdefault(subject, deque())
        if len(waiting) >= self._queue:
            self.refused += 1
            raise self._refusal()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self.delayed += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except TimeoutError as error:
            self._leave(subject, turn)
            self.refused += 1
            raise self._refusal() from error
        except BaseException:
            self._leave(subject, turn)
            raise

    def give_back(self, subject: Hashable) -> None:
        """The turn is over: the request that waited longest has it now."""
        waiting = self._waiting.get(subject, ())
        while waiting:
            turn = waiting.popleft()
            if not waiting:
                del self._waiting[subject]
            if not turn.done():
                turn.set_result(None)
                return
        self.taken -= 1
        self._taken[subject] -= 1
        if not self._taken[subject]:
            del self._taken[subject]

    def _leave(self, subject: Hashable, turn: asyncio.Future[None]) -> None:
        """Stop waiting. A turn that was given in the same moment goes to the next request."""
        if turn.done() and not turn.cancelled():
            self.give_back(subject)
            return
        waiting = self._waiting.get(subject)
        if waiting is not None:
            with suppress(ValueError):  # `give_back` skipped it already.
                waiting.remove(turn)
            if not waiting:
                del self._waiting[subject]
