"""Time, as the parts of a node get it: `app.running(clock=…)` gives one clock to all of them.

What decides by time reads it here, so that a test turns it (`tests/kit/clock.py`). Three times are others:
deadlines of I/O are timers of the event loop, what Redis decides it decides by its own clock, and the core
has one in Rust.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final


class Clock:
    """The time of this machine."""

    __slots__ = ()

    def now_ms(self) -> int:
        """The wall clock: milliseconds since 1970, UTC. It may be set, in both directions."""
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)
    """Seconds that only grow, since an unspecified moment."""

    async def sleep(self, seconds: float) -> None:
        """Wait until `monotonic` has grown by so much."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for `event`, at most until `monotonic` has grown by `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return


MACHINE_CLOCK: Final = Clock()
