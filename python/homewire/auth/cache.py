"""Caches of the store, which are current without a request to the store.

Each change of access writes a control record to the shards that it concerns. For each shard, the core counts
the records that this node has read: the version of the shard. A value that was read from the store at a
version is current until that version changes. So a cached value is at most as old as the tail of this node is
behind.

After a change of its own, a node drops the values of its shards before it answers (`forget`): the caller
finds the change here, even if the tail has not read the record. Without answers of Redis the tail raises no
version, so after 1 s of silence no cached value is used. A value is cached for at most a minute.

The caches keep two generations of plain dicts, and no time per entry: an entry is kept for at least half of
its lifetime, and a new generation drops thousands of entries in one step. Beyond `capacity` entries the older
half is dropped.

The version is taken *before* the store is read. A change after the read then raises it, however late its
record is. This order is implemented here once; callers only pass what to read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from itertools import compress
from typing import Final, Generic, Protocol, TypeVar

from homewire._core import shard_of
from homewire.clock import MACHINE_CLOCK, Clock

SILENCE_MS: Final = 1_000
"""After a longer silence of Redis, a node uses no cached key (docs/design/access-changes.md)."""

BYPASS: Final = -1
"""A total version that no cached value has, so that the store is read."""

_MOVED: Final = -1


class CacheVersionSource(Protocol):
    """The part of the core that counts records."""

    def cache_version(self, shards: list[int], /) -> int:
        """How many control records of these shards this node has read."""
        ...

    def cache_version_of_all(self) -> int:
        """The same over all shards."""
        ...

    def tail_silence_ms(self) -> int:
        """Time (ms) since Redis last answered the tail."""
        ...


class ShardVersion(list[int]):
    """The version of one shard at some time, shared by all values that were read at it.

    It is a list with the shard's number while it is current, and empty afterwards. So its truth value says
    whether it is current, which `itertools.compress` tests for thousands of entries without a line of Python.
    It is also the list of shards that the core takes.
    """

    __slots__ = ("records",)

    def __init__(self, shard: int, records: int) -> None:
        super().__init__((shard,))
        self.records = records

    def expire(self) -> None:
        """It is no longer current, or will not be soon. Versions only grow, so this is final."""
        self.clear()
        self.records = _MOVED


class CacheVersions:
    """The versions of the shards on one node. Without a core no cached value is ever current."""

    __slots__ = ("_current", "_forgotten", "_reviewed", "_shards", "_source", "_total")

    def __init__(self, versions: CacheVersionSource | None, shards: int) -> None:
        self._source: CacheVersionSource = _NoTail() if versions is None else versions
        self._shards = shards
        self._current: dict[int, ShardVersion] = {}
        self._forgotten = 0
        self._reviewed = self._total = self._source.cache_version_of_all()

    def is_tail_alive(self) -> bool:
        """Whether Redis answered within the last second: otherwise no cached value may be used."""
        return self._source.tail_silence_ms() <= SILENCE_MS

    def total(self) -> int:
        """The version of all shards, which also counts the calls of `forget`. Equal totals are one object,
        because many entries keep it."""
        total = self._source.cache_version_of_all() + self._forgotten
        if total != self._total:
            self._total = total
        return self._total

    def version_of(self, identifier: int) -> ShardVersion:
        """The present version of the shard of a home, device, user, project or project key."""
        return self._version(shard_of(identifier, self._shards))

    def versions_of(self, identifiers: Iterable[int]) -> dict[int, ShardVersion]:
        """The present versions of the shards of several ids."""
        shards = {each: shard_of(each, self._shards) for each in identifiers}
        versions = {shard: self._version(shard) for shard in set(shards.values())}
        return {each: versions[shard] for each, shard in shards.items()}

    def forget(self, shards: Iterable[int]) -> None:
        """Drop the values of these shards: this node wrote records to them."""
        # Values that are being read now, without a version yet, are not cached either.
        self._forgotten += 1
        for shard in shards:
            version = self._current.pop(shard, None)
            if version is not None:
                version.expire()

    def review(self) -> bool:
        """Expire all versions that have changed. Returns whether the others may be used.

        It reads the total version, and those of all shards in use if the total has changed.
        """
        # Read it before those of the shards: a change in between is found the next time.
        total = self._source.cache_version_of_all()
        if total != self._reviewed:
            for shard, version in list(self._current.items()):
                if self._source.cache_version(version) != version.records:
                    self._current.pop(shard).expire()
            self._reviewed = total
        return self._source.tail_silence_ms() <= SILENCE_MS

    def _version(self, shard: int) -> ShardVersion:
        records = self._source.cache_version([shard])
        known = self._current.get(shard)
        if known is not None:
            if known.records == records:
                return known
            known.expire()
        fresh = self._current[shard] = ShardVersion(shard, records)
        return fresh


class _NoTail:
    """A process without a tail, which reads no changes."""

    def cache_version(self, _shards: list[int], /) -> int:
        return 0

    def cache_version_of_all(self) -> int:
        return 0

    def tail_silence_ms(self) -> int:
        return SILENCE_MS + 1


LIFETIME_S: Final = 60.0
"""Maximum age of a cached value, in s. It bounds the effect of a fault in the versions."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Held = TypeVar("Held")
Entry = tuple[ShardVersion, int, Value]
"""The version of the shard and the total version before the value was read, and the value."""


class _Generations(Generic[Key, Held]):
    """Two generations of what is held by key."""

    __slots__ = (
        "_cache_versions",
        "_capacity",
        "_count",
        "_half_life",
        "_monotonic",
        "_new",
        "_number",
        "_old",
        "_turns_at",
    )

    def __init__(
        self,
        cache_versions: CacheVersions,
        capacity: int,
        lifetime: float = LIFETIME_S,
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        """`lifetime` in seconds."""
        self._cache_versions = cache_versions
        self._half_life = lifetime / 2
        self._capacity = capacity
        self._monotonic = clock.monotonic
        self._number = 0
        self._turns_at = 0.0
        self._count = 0
        self._new: dict[Key, Held] = {}
        self._old: dict[Key, Held] = {}

    def _turn(self) -> None:
        now = self._monotonic()
        if now < self._turns_at:
            return
        number = int(now // self._half_life)
        for _ in range(min(number - self._number, 2)):
            self._shift()
        self._number, self._turns_at = number, (number + 1) * self._half_life

    def _shift(self) -> None:
        self._old, self._new, self._count = self._new, {}, 0

    def _make_room(self, entries: int) -> bool:
        """Make room for so many entries. Returns whether they may be cached."""
        half = self._capacity // 2
        if entries > half or not self._cache_versions.is_tail_alive():
            return False
        self._turn()
        if self._count + entries > half:
            self._shift()
        self._count += entries
        return True


Single = tuple[ShardVersion, ShardVersion, int, Value]
"""The versions of the shards (twice the same if it is one), the total version, and the value."""


class VersionedCache(_Generations[Key, Single[Value]]):
    """Values that are read one at a time. Each is current until the version of its shards changes, one or
    two."""

    __slots__ = ()

    def get(self, key: Key, at_version: int | None = None) -> Value | None:
        """The cached value, if the versions of its shards are still current.

        With `at_version` it must also have been read at this total version: no control record of any shard
        may have been read since. A handshake needs that, because the copies of one record arrive in different
        shards in no fixed order.
        """
        if self._monotonic() >= self._turns_at:
            self._turn()
        entry = self._new.get(key) or self._old.get(key)
        if entry is None or not self._cache_versions.review():
            return None
        version, other, total, value = entry
        return value if version and other and (at_version is None or total == at_version) else None

    async def read(
        self, key: Key, identifier: int, read: Callable[[], Awaitable[Value | None]]
    ) -> Value | None:
        """Read a value that changes only with records of the shard of `identifier`; None is not kept."""
        version, total = self._cache_versions.version_of(identifier), self._cache_versions.total()
        value = await read()
        if value is not None:
            self._put(key, (version, version, total, value))
        return value

    async def read_unplaced(
        self,
        key: Key,
        read: Callable[[], Awaitable[Value | None]],
        identifiers_of: Callable[[Value], tuple[int, int]],
    ) -> Value | None:
        """Read a value that names itself the two shards of its control records, by an id of each."""
        total = self._cache_versions.total()
        value = await read()
        if value is not None:
            # Read the shards' versions before the total is compared: a record between the two would be
            # counted in a version and missing in the value.
            version, other = map(self._cache_versions.version_of, identifiers_of(value))
            if self._cache_versions.total() == total:
                self._put(key, (version, other, total, value))
        return value

    def _put(self, key: Key, entry: Single[Value]) -> None:
        if self._make_room(1):
            self._new[key] = entry


class VersionedRecords(_Generations[Key, dict[int, Entry[Value]]]):
    """Records by id, in groups by their owner. One look-up takes thousands of ids."""

    __slots__ = ("_is_worth_it",)

    def __init__(
        self,
        cache_versions: CacheVersions,
        capacity: int,
        lifetime: float = LIFETIME_S,
        clock: Clock = MACHINE_CLOCK,
        is_worth_it: Callable[[Value], bool] = lambda _: True,
    ) -> None:
        """Only records for which `is_worth_it` is true are cached."""
        super().__init__(cache_versions, capacity, lifetime, clock)
        self._is_worth_it = is_worth_it

    def known(self, owner: Key, ids: Collection[int], at_version: int | None = None) -> dict[int, Value]:
        """The cached records of `ids` that are current. `at_version` as in `VersionedCache.get`."""
        self._turn()
        known: dict[int, Value] = {}
        if self._cache_versions.review():
            wanted: Collection[int] = ids
            for generation in (self._new, self._old):
                held = generation.get(owner)
                if held is not None and wanted:
                    for each in wanted:
                        entry = held.get(each)
                        if entry is not None and entry[0] and (at_version is None or entry[1] == at_version):
                            known[each] = entry[2]
                    wanted = _missing(ids, known)
        return known

    async def find(
        self,
        owner: Key,
        ids: Collection[int],
        read: Callable[[list[int]], Awaitable[dict[int, Value]]],
        at_version: int | None = None,
    ) -> dict[int, Value]:
        """The records of `ids`, cached or by `read`. Ids without a record are read each time."""
        known = self.known(owner, ids, at_version)
        missing = _missing(ids, known)
        if missing:
            versions, total = self._cache_versions.versions_of(missing), self._cache_versions.total()
            found = await read(missing)
            entries = {
                each: (versions[each], total, value)
                for each, value in found.items()
                if self._is_worth_it(value)
            }
            if entries and self._make_room(len(entries)):
                self._new.setdefault(owner, {}).update(entries)
            known.update(found)
        return known


class VersionedIds(_Generations[Key, dict[int, ShardVersion]]):
    """Ids that exist, in groups by their owner.

    Ids are kept beside their versions, and `compress` selects those with a current version: so thousands of
    ids are tested in C. Thousands of single look-ups would cost more than checking the events that name them.
    """

    __slots__ = ()

    def known(self, owner: Key, ids: Collection[int]) -> set[int]:
        """The cached ids that still exist."""
        self._turn()
        known: set[int] = set()
        if self._cache_versions.review():
            wanted: Collection[int] = ids
            for generation in (self._new, self._old):
                held = generation.get(owner)
                if held is not None and wanted:
                    known.update(compress(wanted, map(held.get, wanted)))
                    wanted = _missing(ids, known)
        return known

    async def find(
        self, owner: Key, ids: Collection[int], read: Callable[[list[int]], Awaitable[set[int]]]
    ) -> set[int]:
        """The ids that exist, cached or by `read`. Other ids are read each time."""
        known = self.known(owner, ids)
        missing = _missing(ids, known)
        if missing:
            versions = self._cache_versions.versions_of(missing)
            found = await read(missing)
            if found and self._make_room(len(found)):
                self._new.setdefault(owner, {}).update((each, versions[each]) for each in found)
            known |= found
        return known


def _missing(ids: Collection[int], known: Collection[int]) -> list[int]:
    # Nearly always none, and without repetitions.
    return [] if len(known) == len(ids) else [each for each in ids if each not in known]
