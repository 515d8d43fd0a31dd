"""Connections whose next request head is awaited: for `timeout_s` from the first word, not from the last.

A client that sends a byte now and then is cut as one that sends none: nothing but the whole head counts.
All deadlines are equally far, so those who wait are in the order of their deadlines, and one timer
serves all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol


class Cuttable(Protocol):
    """A connection that can be ended."""

    def cut(self) -> None:
        """End it at once, without an answer."""
        ...


class HeadWatch:
    """Cuts who does not complete a head in time. Used from the event loop alone."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[Cuttable, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = 0

    def expect(self, connection: Cuttable) -> None:
        """A head is awaited from now on; of no effect if it is already."""
        if connection in self._deadlines:
            return
        deadline = self._loop.time() + self._timeout_s
        self._deadlines[connection] = deadline
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._cut)

    def came(self, connection: Cuttable) -> None:
        """The head is complete, or the connection is gone."""
        self._deadlines.pop(connection, None)

    def cut_oldest(self) -> bool:
        """Cut the connection that has kept the node waiting for longest; False if none does."""
        for connection in self._deadlines:
            del self._deadlines[connection]
            connection.cut()
            return True
        return False

    def close(self) -> None:
        """Cut nobody any more."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()

    def figures(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"heads_awaited": len(self._deadlines), "heads_timed_out": self._timed_out}

    def _cut(self) -> None:
        self._timer = None
        now = self._loop.time()
        for connection, deadline in list(self._deadlines.items()):
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._cut)
                return
            del self._deadlines[connection]
            self._timed_out += 1
            connection.cut()
