"""Whether what was once read from the store is still so, without asking the store.

Every change that matters is announced by a control record in the shards it concerns, and the core
counts, for each shard, the records that this node has read: its mark. What was read from the store
while a mark stood still is as new as the mark, and stays so until the mark moves.

So an answer is as old as this node's tail is behind, no older. What this node announced itself it forgets
before the change is answered (`forget`): who is told that something ended finds it ended here, whether the
tail has come to the record or not. A tail that hears nothing raises no mark: after a second of silence
nothing remembered is trusted.

What a node remembers of the store, and for how long: while its mark stands, at most a minute.

All three caches keep two generations of plain dicts and no time per entry: an entry is remembered
for at least half of its lifetime, and turning the generations forgets thousands in one step. Of more
than `capacity` entries the older half is forgotten.

The order of steps is the point, so it stands here once and callers only say what to read: marks are
taken *before* the store is read. A change behind the read then moves them, however late its record is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from itertools import compress
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

from homewire._core import shard_of

SILENCE_MS: Final = 1_000
"""A node that has not heard from Redis for longer trusts no cached key (docs/design/access-changes.md)."""

BYPASS: Final = -1
"""As the total that an answer has to be of: one that nothing remembered has, so the store is asked."""

_MOVED: Final = -1


class Marks(Protocol):
    """What is asked of the core."""

    def cache_version(self, shards: list[int], /) -> int:
        """How many control records of these shards this node has read."""
        ...

    def cache_version_of_all(self) -> int:
        """The same over all shards."""
        ...

    def tail_silence_ms(self) -> int:
        """How long ago Redis last answered the tail."""
        ...


class ShardVersion(list[int]):
    """One shard's mark at some moment, shared by everything that was read at it.

    It holds the shard's number until it was found to have moved, or is forgotten, then nothing. So it is
    true as long as it stands, which a thousand are asked by `itertools.compress` without a line of Python,
    and it is itself the list of shards that the core wants.
    """

    __slots__ = ("records",)

    def __init__(self, shard: int, records: int) -> None:
        super().__init__((shard,))
        self.records = records

    def expire(self) -> None:
        """It has moved, or is about to. Marks only grow, so this is for good."""
        self.clear()
        self.records = _MOVED


class CacheVersions:
    """The marks of one node. Without a core (a process that is api only) nothing is ever trusted."""

    __slots__ = ("_current", "_forgotten", "_marks", "_reviewed", "_shards", "_total")

    def __init__(self, marks: Marks | None, shards: int) -> None:
        self._marks: Marks = _Nothing() if marks is None else marks
        self._shards = shards
        self._current: dict[int, ShardVersion] = {}
        self._forgotten = 0
        self._reviewed = self._total = self._marks.cache_version_of_all()

    def heard(self) -> bool:
        """Whether Redis was heard within the last second: else nothing remembered counts."""
        return self._marks.tail_silence_ms() <= SILENCE_MS

    def total(self) -> int:
        """The mark of all shards, and how often some were forgotten: it stands only if both do. Equal totals
        are one object: entries keep it, many the same."""
        total = self._marks.cache_version_of_all() + self._forgotten
        if total != self._total:
            self._total = total
        return self._total

    def mark_of(self, identifier: int) -> ShardVersion:
        """The mark, now, of the shard of a home, device, user, project or project key."""
        return self._mark(shard_of(identifier, self._shards))

    def marks_of(self, identifiers: Iterable[int]) -> dict[int, ShardVersion]:
        """The same for many."""
        shards = {each: shard_of(each, self._shards) for each in identifiers}
        marks = {shard: self._mark(shard) for shard in set(shards.values())}
        return {each: marks[shard] for each, shard in shards.items()}

    def forget(self, shards: Iterable[int]) -> None:
        """Records were written to these shards by this node: what was read before is not so any more."""
        # Also what is being read now, and has no mark yet, is not remembered then.
        self._forgotten += 1
        for shard in shards:
            mark = self._current.pop(shard, None)
            if mark is not None:
                mark.expire()

    def trusts(self, mark: ShardVersion) -> bool:
        """Whether what was read at `mark` is still so. For one entry; see `review` for many."""
        return self._marks.cache_version(mark) == mark.records and self._marks.tail_silence_ms() <= SILENCE_MS

    def review(self) -> bool:
        """Empty every mark that has moved; whether those that are left may be trusted.

        Costs a look at the total as long as it stands, and one at each shard in use when it moved.
        """
        # Read before the shards: what moves meanwhile is found the next time.
        total = self._marks.cache_version_of_all()
        if total != self._reviewed:
            for shard, mark in list(self._current.items()):
                if self._marks.cache_version(mark) != mark.records:
                    self._current.pop(shard).expire()
            self._reviewed = total
        return self._marks.tail_silence_ms() <= SILENCE_MS

    def _mark(self, shard: int) -> ShardVersion:
        records = self._marks.cache_version([shard])
        known = self._current.get(shard)
        if known is not None:
            if known.records == records:
                return known
            known.expire()
        fresh = self._current[shard] = ShardVersion(shard, records)
        return fresh


class _Nothing:
    """No tail: nobody would tell what changed."""

    def cache_version(self, _shards: list[int], /) -> int:
        return 0

    def cache_version_of_all(self) -> int:
        return 0

    def tail_silence_ms(self) -> int:
        return SILENCE_MS + 1


LIFETIME_S: Final = 60.0
"""No promise rests on it: it bounds what an error in the marks could do."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Held = TypeVar("Held")
Entry = tuple[ShardVersion, int, Value]
"""The shard's mark and the total before the value was read, and the value."""


class _Generations(Generic[Key, Held]):
    """Two generations of what is held by key."""

    __slots__ = (
        "_capacity",
        "_clock",
        "_count",
        "_freshness",
        "_half_life",
        "_new",
        "_number",
        "_old",
        "_turns_at",
    )

    def __init__(
        self,
        freshness: CacheVersions,
        capacity: int,
        lifetime: float = LIFETIME_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`lifetime` in seconds, `clock` gives them."""
        self._freshness = freshness
        self._half_life = lifetime / 2
        self._capacity = capacity
        self._clock = clock
        self._number = 0
        self._turns_at = 0.0
        self._count = 0
        self._new: dict[Key, Held] = {}
        self._old: dict[Key, Held] = {}

    def _turn(self) -> None:
        now = self._clock()
        if now < self._turns_at:
            return
        number = int(now // self._half_life)
        for _ in range(min(number - self._number, 2)):
            self._shift()
        self._number, self._turns_at = number, (number + 1) * self._half_life

    def _shift(self) -> None:
        self._old, self._new, self._count = self._new, {}, 0

    def _make_room(self, entries: int) -> bool:
        """Whether so many entries more are to be remembered at all."""
        half = self._capacity // 2
        if entries > half or not self._freshness.heard():
            return False
        self._turn()
        if self._count + entries > half:
            self._shift()
        self._count += entries
        return True


class VersionedCache(_Generations[Key, Entry[Value]]):
    """Values that are asked for one at a time, each good while the mark of one shard stands."""

    __slots__ = ()

    def get(self, key: Key, at_version: int | None = None) -> Value | None:
        """The value, if it is remembered and still so.

        With `at_version` only if it was read while the total of all marks was that: not even another
        shard's copy of a change that it does not know may have been read since.
        """
        self._turn()
        entry = self._new.get(key) or self._old.get(key)
        if entry is None or (at_version is not None and entry[1] != at_version):
            return None
        return entry[2] if self._freshness.trusts(entry[0]) else None

    async def read(
        self, key: Key, identifier: int, read: Callable[[], Awaitable[Value | None]]
    ) -> Value | None:
        """Read a value that changes only with records of the shard of `identifier`; None is not kept."""
        mark, total = self._freshness.mark_of(identifier), self._freshness.total()
        value = await read()
        if value is not None:
            self._put(key, (mark, total, value))
        return value

    async def read_unplaced(
        self, key: Key, read: Callable[[], Awaitable[Value | None]], identifier_of: Callable[[Value], int]
    ) -> Value | None:
        """Read a value that itself tells which shard its changes are announced in."""
        total = self._freshness.total()
        value = await read()
        if value is not None:
            # The mark first: had the total been compared before, a record between the two would be
            # counted in the mark and missing in the value.
            mark = self._freshness.mark_of(identifier_of(value))
            if self._freshness.total() == total:
                self._put(key, (mark, total, value))
        return value

    def _put(self, key: Key, entry: Entry[Value]) -> None:
        if self._make_room(1):
            self._new[key] = entry


class VersionedRecords(_Generations[Key, dict[int, Entry[Value]]]):
    """Records by id that are asked for by the thousand, kept apart by whose they are."""

    __slots__ = ("_is_worth_it",)

    def __init__(
        self,
        freshness: CacheVersions,
        capacity: int,
        lifetime: float = LIFETIME_S,
        clock: Callable[[], float] = monotonic,
        is_worth_it: Callable[[Value], bool] = lambda _: True,
    ) -> None:
        """`is_worth_it` says which records are remembered; the others are asked for again, too."""
        super().__init__(freshness, capacity, lifetime, clock)
        self._is_worth_it = is_worth_it

    def known(self, whose: Key, ids: Collection[int], at_version: int | None = None) -> dict[int, Value]:
        """Those of `ids` that are remembered and still so. `at_version` as in `VersionedCache.get`."""
        self._turn()
        known: dict[int, Value] = {}
        if self._freshness.review():
            wanted: Collection[int] = ids
            for generation in (self._new, self._old):
                held = generation.get(whose)
                if held is not None and wanted:
                    for each in wanted:
                        entry = held.get(each)
                        if entry is not None and entry[0] and (at_version is None or entry[1] == at_version):
                            known[each] = entry[2]
                    wanted = _missing(ids, known)
        return known

    async def find(
        self,
        whose: Key,
        ids: Collection[int],
        read: Callable[[list[int]], Awaitable[dict[int, Value]]],
        at_version: int | None = None,
    ) -> dict[int, Value]:
        """The records of `ids`, from memory or by `read`; what does not exist is asked for again."""
        known = self.known(whose, ids, at_version)
        missing = _missing(ids, known)
        if missing:
            marks, total = self._freshness.marks_of(missing), self._freshness.total()
            found = await read(missing)
            entries = {
                each: (marks[each], total, value) for each, value in found.items() if self._is_worth_it(value)
            }
            if entries and self._make_room(len(entries)):
                self._new.setdefault(whose, {}).update(entries)
            known.update(found)
        return known


class VersionedIds(_Generations[Key, dict[int, ShardVersion]]):
    """Which ids exist, kept apart by whose they are.

    Ids stand beside their marks, and `compress` picks those whose mark is true: a thousand are asked
    about in C, where a thousand single look-ups would cost more than checking the events that name them.
    """

    __slots__ = ()

    def known(self, whose: Key, ids: Collection[int]) -> set[int]:
        """Those of `ids` that are remembered and still exist."""
        self._turn()
        known: set[int] = set()
        if self._freshness.review():
            wanted: Collection[int] = ids
            for generation in (self._new, self._old):
                held = generation.get(whose)
                if held is not None and wanted:
                    known.update(compress(wanted, map(held.get, wanted)))
                    wanted = _missing(ids, known)
        return known

    async def find(
        self, whose: Key, ids: Collection[int], read: Callable[[list[int]], Awaitable[set[int]]]
    ) -> set[int]:
        """Those of `ids` that exist, from memory or by `read`; what does not is asked for again."""
        known = self.known(whose, ids)
        missing = _missing(ids, known)
        if missing:
            marks = self._freshness.marks_of(missing)
            found = await read(missing)
            if found and self._make_room(len(found)):
                self._new.setdefault(whose, {}).update((each, marks[each]) for each in found)
            known |= found
        return known


def _missing(ids: Collection[int], known: Collection[int]) -> list[int]:
    # Nearly always none, and without repetitions.
    return [] if len(known) == len(ids) else [each for each in ids if each not in known]
