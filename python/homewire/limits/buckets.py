"""Requests and handshakes per second, of a principal and of an address: token buckets of this node alone.

They protect the event loop of this node, so they are not shared with other nodes. A bucket is one number: the
time at which it will be full again if no request comes (the generic cell rate algorithm). After a pause a
client may send the requests of `BURST_S` seconds at once, e.g. when its network is back.
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
"""The longest wait that `Buckets.charge` imposes on a subject."""


class Buckets:
    """A bucket for each subject; a `per_second` of 0 is no limit. Used from the event loop alone.

    A bucket that is full again is forgotten.
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
        """Take a token of the subject. Raises TooManyRequests that names the setting."""
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
        """Take the tokens of `seconds`, also if the bucket does not have them. The next token of the subject
        comes later by that time, at most `MOST_CHARGED_S` from now."""
        if self._per_second:
            now = self._monotonic()
            full_at = max(self._filled_at(subject), now) + seconds
            self._full_at[subject] = min(full_at, now + BURST_S + MOST_CHARGED_S)

    def _filled_at(self, subject: Hashable) -> float:
        return self._full_at.get(subject) or self._older.get(subject, 0.0)

    def __len__(self) -> int:
        """The number of subjects with buckets."""
        return len(self._full_at) + len(self._older)
