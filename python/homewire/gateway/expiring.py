"""A small cache whose entries live for a fixed time."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class ExpiringCache(Generic[Key, Value]):
    """Remembers at most `capacity` values for `lifetime` seconds each.

    Entries are kept in the order of their making, so the expired ones are always at the front
    and are dropped as new ones come: an idle cache shrinks with the next use, not by a timer.
    """

    __slots__ = ("_capacity", "_clock", "_entries", "_lifetime")

    def __init__(self, lifetime: float, capacity: int, clock: Callable[[], float] = monotonic) -> None:
        self._lifetime = lifetime
        self._capacity = capacity
        self._clock = clock
        self._entries: dict[Key, tuple[float, Value]] = {}

    def get(self, key: Key) -> Value | None:
        """The value, unless it is unknown or too old."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    def put(self, key: Key, value: Value) -> None:
        """Remembers a value from now on."""
        entries, now = self._entries, self._clock()
        entries.pop(key, None)
        while entries:
            oldest = next(iter(entries))
            if entries[oldest][0] > now and len(entries) < self._capacity:
                break
            del entries[oldest]
        if self._capacity > 0:
            entries[key] = (now + self._lifetime, value)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
