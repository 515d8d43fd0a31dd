"""Clocks that a test turns, in the place of `homewire.clock.Clock`, and the time that an event loop had.

Nothing of the kit is imported here, so that a node under test starts as quickly with one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from homewire.clock import MACHINE_CLOCK, Clock

BEGUN_S = 10.0
TICK_S = 0.05


class TurnedClock(Clock):
    """The time of this machine, ahead of it by what a test turned."""

    __slots__ = ("_ahead_s", "_begins", "_begun", "_waits")

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._waits: dict[asyncio.Timeout, float] = {}
        """What waits for this clock, and until when."""
        self._begun = 0
        """How many waits have begun."""
        self._begins = asyncio.Event()

    def now_ms(self) -> int:
        return MACHINE_CLOCK.now_ms() + round(self._ahead_s * 1000)

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_s

    def turn(self, seconds: float) -> None:
        """Let time pass: both times grow, and what waited for less goes on."""
        self._ahead_s += seconds
        self._wake()

    async def sleep(self, seconds: float) -> None:
        await self.wait(asyncio.Event(), seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        self._begun += 1
        self._begins.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._real(seconds)) as timeout:
                self._waits[timeout] = self.monotonic() + seconds
                try:
                    await event.wait()
                finally:
                    self._waits.pop(timeout, None)

    async def begun(self, waits: int) -> None:
        """Come back when so many have begun to wait for this clock, since it was made."""
        async with asyncio.timeout(BEGUN_S):
            while self._begun < waits:
                self._begins.clear()
                await self._begins.wait()

    def _real(self, seconds: float) -> float | None:
        return max(0.0, seconds)

    def _wake(self) -> None:
        now, moment = self.monotonic(), asyncio.get_running_loop().time() if self._waits else 0.0
        for timeout in [timeout for timeout, until in self._waits.items() if until <= now]:
            del self._waits[timeout]
            # One whose real time is over has not been resumed yet.
            if not timeout.expired():
                timeout.reschedule(moment)


class ManualClock(TurnedClock):
    """Stands until a test turns it: `ms` is the wall clock's, `seconds` the monotonic time."""

    __slots__ = ("ms", "seconds")

    def __init__(self, ms: int | None = None, seconds: float = 1000.0) -> None:
        """`ms`: this machine's, if not given, for what Redis' clock sees, too."""
        super().__init__()
        self.ms = MACHINE_CLOCK.now_ms() if ms is None else ms
        self.seconds = seconds

    def now_ms(self) -> int:
        return self.ms

    def now_s(self) -> float:
        """The wall clock in seconds."""
        return self.ms / 1000

    def monotonic(self) -> float:
        return self.seconds

    def turn(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self.seconds += seconds
        self._wake()

    def turn_ms(self, milliseconds: int) -> None:
        """The same, without a rounding."""
        self.turn(milliseconds / 1000)

    def _real(self, seconds: float) -> float | None:
        return None if seconds > 0 else 0.0


class LoopTime:
    """The seconds that an event loop waited, counted in ticks.

    A stall of the process is one tick, and its processor time does not count. So this measures which
    timeouts the code waits for, and not the machine.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def count(self) -> None:
        """Count until cancelled."""
        while True:
            used = time.process_time()
            await asyncio.sleep(TICK_S)
            self.seconds += max(0.0, TICK_S - (time.process_time() - used))


@asynccontextmanager
async def loop_time() -> AsyncIterator[LoopTime]:
    """Counts the time of this event loop from here on."""
    counted = LoopTime()
    counting = asyncio.create_task(counted.count())
    try:
        yield counted
    finally:
        counting.cancel()
