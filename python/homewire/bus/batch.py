"""What the bus writes together, and counts."""

from __future__ import annotations

from typing import Any, TypeAlias

from hiredis import ReplyError

from homewire.bus.settings import BusError, BusStats
from homewire.redis.line import Awaited

Reply: TypeAlias = bytes | int | list[Any] | ReplyError | BusError | None


class Batch(Awaited):
    """The appends of one caller, counted as long as they are in flight."""

    __slots__ = ("_stats", "size")

    def __init__(self, data: bytes, expected: int, deadline: float, stats: BusStats) -> None:
        """`deadline`: loop time by which Redis must have answered."""
        super().__init__(data, expected, deadline)
        self.size = len(data)
        self._stats = stats
        stats.in_flight_bytes += self.size

    def settle(self, failure: Exception | None = None) -> None:
        """Wake the caller; commands without a reply get `failure`."""
        self._stats.in_flight_bytes -= self.size
        super().settle(failure)
