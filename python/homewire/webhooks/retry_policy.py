"""How long to wait before something is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

LARGEST_EXPONENT: Final = 30
FORGIVING: Final = 16
"""Times its first pause a breaker waits at most."""


def pause(tries: int, first_s: float, longest_s: float) -> float:
    """Seconds after so many tries in vain: doubled with each, up to a longest, the upper half by chance.

    By chance, so that what failed together does not come again together.
    """
    whole = min(longest_s, first_s * 2.0 ** min(tries - 1, LARGEST_EXPONENT))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret)


@dataclass(slots=True)
class Breaker:
    """Keeps deliveries from a receiver that takes none: closed, open until a time, or half open.

    `failures` in a row open it for `pause_s`. After that one delivery probes: taken, it closes; not taken,
    it opens for twice as long, up to sixteen times. Times are seconds of one clock.
    """

    failures: int
    pause_s: float
    _in_row: int = 0
    _opened: int = 0
    _until: float = float("-inf")
    _probing: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether deliveries go out freely."""
        return self._opened == 0

    @property
    def open_until(self) -> float:
        """When the next probe may go."""
        return self._until

    def open_for(self, now: float, seconds: float) -> None:
        """It was open at another node, for so long from now on.

        Never for longer than it opens here: the end is a time of that node's wall clock, and one that was
        stepped since would keep it open for hours.
        """
        self._opened, self._until = max(1, self._opened), now + min(seconds, FORGIVING * self.pause_s)

    def lets_pass(self, now: float) -> bool:
        """Whether one more delivery may go now. It is to be told how that one ended."""
        if self.is_closed:
            return True
        if self._probing or now < self._until:
            return False
        self._probing = True
        return True

    def taken(self) -> bool:
        """One was taken. Whether that closed it."""
        closed = not self.is_closed
        self._in_row = self._opened = 0
        self._probing = False
        return closed

    def failed(self, now: float) -> bool:
        """One was not taken. Whether that opened it, or kept it open for longer."""
        self._in_row += 1
        if self.is_closed:
            if self._in_row < self.failures:
                return False
        elif not self._probing:
            # It was under way when the breaker opened.
            return False
        self._probing = False
        self._until = now + self.pause_s * min(FORGIVING, 2**self._opened)
        self._opened += 1
        return True

    def unknown(self) -> None:
        """How the probe ended can't be told."""
        self._probing = False
