"""What the bus writes together, and counts."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

from hiredis import ReplyError

from homewire.bus.settings import BusError, BusStats

Reply: TypeAlias = bytes | int | list[Any] | ReplyError | BusError | None


class Batch:
    """The commands of one caller. `waiter` gets the list of `replies`, one for each command, never
    an exception: one object and one wake-up however many commands there are."""

    __slots__ = ("_stats", "data", "deadline", "expected", "replies", "size", "waiter")

    def __init__(
        self,
        data: bytes,
        expected: int,
        deadline: float,
        waiter: asyncio.Future[list[Reply]],
        stats: BusStats,
    ) -> None:
        """`deadline`: loop time by which Redis must have answered."""
        self.data = data
        self.size = len(data)
        self.expected = expected
        self.deadline = deadline
        self.waiter = waiter
        self.replies: list[Any] = []
        self._stats = stats
        stats.in_flight_bytes += self.size

    def settle(self, failure: Exception | None = None) -> None:
        """Wake the caller; commands without a reply get `failure`. A caller that went away is fine."""
        self._stats.in_flight_bytes -= self.size
        if failure is not None:
            self.replies.extend([failure] * (self.expected - len(self.replies)))
        if not self.waiter.done():
            self.waiter.set_result(self.replies)
