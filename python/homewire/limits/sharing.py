"""What rates and holders have in common: one clock for all nodes, and rounds that outlive an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import is_cancelling

OUTAGE_PAUSE_S: Final = 1.0
"""Between two attempts while Redis is away."""
SYNCHRONISE_S: Final = 10.0
"""Between two looks at Redis' clock."""
COMMANDS_PER_TRIP: Final = 1000
SIXTEENTH: Final = 16

Command: TypeAlias = tuple[str | int | bytes, ...]
Seconds: TypeAlias = Callable[[], float]
"""A time of day in seconds since 1970."""
_log = structlog.get_logger(__name__)


def machine_seconds() -> float:
    """This machine's wall clock, in seconds since 1970."""
    return MACHINE_CLOCK.now_ms() / 1000


class SharedClock:
    """Redis' clock, so that nodes agree which second it is, however wrong their own clocks are.

    It runs by the monotonic time of `clock`, hence does not follow when the wall clock is set.
    """

    def __init__(self, redis: Redis, clock: Clock = MACHINE_CLOCK) -> None:
        self._redis = redis
        self.own: Final = clock
        self._monotonic = clock.monotonic
        # Until Redis was asked, this machine's own idea.
        self._offset = clock.now_ms() / 1000 - clock.monotonic()
        self._due = 0.0

    def now(self) -> float:
        """Seconds since 1970."""
        return self._monotonic() + self._offset

    async def synchronise(self) -> None:
        """Ask Redis, if it is time to. The error is at most half of the exchange. Raises RedisError."""
        sent = self._monotonic()
        if sent < self._due:
            return
        seconds, microseconds = await self._redis.time()
        received = self._monotonic()
        self._offset = seconds + microseconds / 1e6 - (sent + received) / 2
        self._due = received + SYNCHRONISE_S


async def repeat(
    what: str, exchange: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]
) -> None:
    """`exchange` and `pause` by turns until cancelled. A Redis that is away is waited for; logged once."""
    alone = False
    while not is_cancelling():
        try:
            await exchange()
        except (RedisError, OSError) as error:
            if not alone:
                _log.warning("overload.alone", what=what, error=type(error).__name__)
            alone = True
            if not is_cancelling():
                await asyncio.sleep(OUTAGE_PAUSE_S)
            continue
        if alone:
            _log.info("overload.together", what=what)
        alone = False
        if not is_cancelling():
            await pause()


async def trip(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    """One pipeline, no transaction: each command for itself, on whatever slot its key is.

    A command that Redis refused has its error among the replies. Raises RedisError, OSError for all.
    """
    async with redis.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)


def raise_first(replies: Sequence[Any]) -> None:
    """Raises the first error among the replies of a trip, once the others were made use of."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
