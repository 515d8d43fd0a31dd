"""What the exchanges of `rates` and `connections` share: one clock for all nodes, and retries after an
outage."""

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
"""Between two attempts while Redis is unavailable."""
SYNCHRONISE_S: Final = 10.0
"""Between two readings of Redis' clock."""
COMMANDS_PER_PIPELINE: Final = 1000
SIXTEENTH: Final = 16

Command: TypeAlias = tuple[str | int | bytes, ...]
Seconds: TypeAlias = Callable[[], float]
"""A time of day in seconds since 1970."""
_log = structlog.get_logger(__name__)


def machine_seconds() -> float:
    """This machine's wall clock, in seconds since 1970."""
    return MACHINE_CLOCK.now_ms() / 1000


class SharedClock:
    """Redis' clock, by which all nodes count the same second, also if their own clocks are wrong.

    Between two readings it advances with the monotonic time of `clock`, which is never stepped.
    """

    def __init__(self, redis: Redis, clock: Clock = MACHINE_CLOCK) -> None:
        self._redis = redis
        self.own: Final = clock
        self._monotonic = clock.monotonic
        # Until the first reading it is the clock of this machine.
        self._offset = clock.now_ms() / 1000 - clock.monotonic()
        self._due = 0.0

    def now(self) -> float:
        """Seconds since 1970."""
        return self._monotonic() + self._offset

    async def synchronise(self) -> None:
        """Read Redis' clock, if a reading is due. The error is at most half of the round trip.

        Raises RedisError.
        """
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
    """Call `exchange` and `pause` in turn until cancelled. An outage of Redis is logged once, as `what`."""
    is_available = True
    while not is_cancelling():
        try:
            await exchange()
        except (RedisError, OSError) as error:
            if is_available:
                _log.warning("limits.not_shared", what=what, error=type(error).__name__)
            is_available = False
            if not is_cancelling():
                await asyncio.sleep(OUTAGE_PAUSE_S)
            continue
        if not is_available:
            _log.info("limits.shared_again", what=what)
        is_available = True
        if not is_cancelling():
            await pause()


async def run_pipeline(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    """Run commands in one pipeline without a transaction, on keys of any slots.

    A command that Redis refused has its error among the replies. Raises RedisError, OSError if all failed.
    """
    async with redis.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)


def raise_first(replies: Sequence[Any]) -> None:
    """Raises the first error among the replies of a pipeline. To be called when the others were used."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
