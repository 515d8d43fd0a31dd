"""Requests and handshakes per second, of a principal and of an address: token buckets of this node alone.

They keep one client from taking the event loop for itself, hence the time that counts is this node's. A
bucket is one number: when it would be full again if nothing came (the generic cell rate algorithm). After a
pause `BURST_S` seconds' worth may come at once, e.g. when a network came back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from typing import Final

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import TooManyRequests

BURST_S: Final = 5.0
MOST_CHARGED_S: Final = 10.0
"""The longest that `Buckets.charge` keeps a subject waiting."""


class Buckets:
    """One for each subject; a `per_second` of 0 is no limit. Used from the event loop alone.

    A bucket that was not touched for as long as it takes to fill is as good as none: such are forgotten.
    """

    def __init__(
        self,
        setting: str,
        per_second: int,
        refusals: Counter[str] | None = None,
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        """`refusals` counts refusals by `setting`, the name of the limit."""
        self._setting = setting
        self._per_second = per_second
        self._interval = 1 / per_second if per_second else 0.0
        self._monotonic = clock.monotonic
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        self._refusals.update({setting: 0})
        self._full_at: dict[Hashable, float] = {}
        self._older: dict[Hashable, float] = {}
        self._turn_at = 0.0

    def take(self, subject: Hashable) -> None:
        """Take one of the subject's tokens. Raises TooManyRequests that names the setting."""
        if not self._per_second:
            return
        now = self._monotonic()
        if now >= self._turn_at:
            self._older, self._full_at = self._full_at, {}
            self._turn_at = now + BURST_S + MOST_CHARGED_S + self._interval
        full_at = max(self._filled_at(subject), now) + self._interval
        if full_at - now > BURST_S + self._interval / 2:
            self._refusals[self._setting] += 1
            wait_s = max(1, math.ceil(full_at - now - BURST_S))
            raise TooManyRequests(self._setting, wait_s, most=self._per_second)
        self._full_at[subject] = full_at

    def charge(self, subject: Hashable, seconds: float) -> None:
        """Take what comes in in `seconds`, without asking whether it is there: the subject's next token
        comes so much later, at most `MOST_CHARGED_S` from now."""
        if self._per_second:
            now = self._monotonic()
            full_at = max(self._filled_at(subject), now) + seconds
            self._full_at[subject] = min(full_at, now + BURST_S + MOST_CHARGED_S)

    def _filled_at(self, subject: Hashable) -> float:
        return self._full_at.get(subject) or self._older.get(subject, 0.0)

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return len(self._full_at) + len(self._older)
