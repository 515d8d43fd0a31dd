"""Turns: how much work of one subject is under way at once. Work beyond that waits in the order it came.

On one event loop a client with many connections would otherwise have a step of each of its requests in each
turn of the loop, and the request of another client waits for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress

from homewire.concurrency import time_out
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

    def of(self, subject: Hashable) -> Turn:
        """A turn of the subject, for `async with`, which raises the refusal."""
        return Turn(self, subject, self._longest_s)

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
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        waiting.append(turn)
        self.delayed += 1
        timer = loop.call_later(self._wait_s, time_out, turn)
        try:
            await turn
        except TimeoutError as error:
            self._leave(subject, turn)
            self.refused += 1
            raise self._refusal() from error
        except BaseException:
            self._leave(subject, turn)
            raise
        finally:
            timer.cancel()

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
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self.give_back(subject)
            return
        waiting = self._waiting.get(subject)
        if waiting is not None:
            with suppress(ValueError):  # `give_back` skipped it already.
                waiting.remove(turn)
            if not waiting:
                del self._waiting[subject]


class Turn:
    """One turn of a subject, from the beginning of an `async with` to the turn of the loop behind its end.

    A class of its own: each handshake and each request takes two or three, and the decorators of contextlib
    would take four times as long.
    """

    __slots__ = ("_longest", "_longest_s", "_subject", "_turns")

    def __init__(self, turns: Turns, subject: Hashable, longest_s: float | None) -> None:
        self._turns: Turns | None = turns
        self._subject = subject
        self._longest_s = longest_s
        self._longest: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        assert self._turns is not None
        await self._turns.take(self._subject)
        if self._longest_s is not None:
            self._longest = asyncio.get_running_loop().call_later(self._longest_s, self._end)

    async def __aexit__(self, *_: object) -> None:
        if self._longest is not None:
            self._longest.cancel()
        self._end()

    def _end(self) -> None:
        """Give the turn back, unless it took too long and was given back before."""
        if self._turns is not None:
            asyncio.get_running_loop().call_soon(self._turns.give_back, self._subject)
            self._turns = None
