"""Small caches whose entries live for a fixed time."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable
from time import monotonic
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
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
        # An OrderedDict, because finding a dict's first entry costs a step for each one deleted before it.
        self._entries: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

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


class RecentIds(Generic[Key]):
    """Which ids were seen to exist in the last `lifetime` seconds, kept apart by whose they are.

    Two generations of plain sets: a thousand ids are asked about by two intersections, where a
    thousand single look-ups would cost more than checking the events that name them. An id is
    remembered for at least half of the lifetime. Of more than `capacity` ids the older half is forgotten.
    """

    __slots__ = ("_capacity", "_clock", "_count", "_generation", "_half_life", "_new", "_old")

    def __init__(self, lifetime: float, capacity: int, clock: Callable[[], float] = monotonic) -> None:
        self._half_life = lifetime / 2
        self._capacity = capacity
        self._clock = clock
        self._generation = 0
        self._count = 0
        self._new: defaultdict[Key, set[int]] = defaultdict(set)
        self._old: defaultdict[Key, set[int]] = defaultdict(set)

    def known(self, whose: Key, ids: Iterable[int]) -> set[int]:
        """Those of `ids` that are remembered."""
        self._turn()
        wanted = set(ids)
        return (wanted & self._new.get(whose, set())) | (wanted & self._old.get(whose, set()))

    def remember(self, whose: Key, ids: Collection[int]) -> None:
        """Remembers `ids` from now on; they must have been read just now."""
        self._turn()
        if not ids:
            return
        self._count += len(ids)
        if self._count > self._capacity // 2:
            self._shift()
        self._new[whose].update(ids)

    def _turn(self) -> None:
        generation = int(self._clock() / self._half_life)
        for _ in range(min(generation - self._generation, 2)):
            self._shift()
        self._generation = generation

    def _shift(self) -> None:
        self._old, self._new, self._count = self._new, defaultdict(set), 0
