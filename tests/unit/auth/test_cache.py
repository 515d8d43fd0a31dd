"""The caches forget what changed and what is old, and never hold more than they may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homewire.auth.cache import (
    BYPASS,
    SILENCE_MS,
    CacheVersions,
    VersionedCache,
    VersionedIds,
    VersionedRecords,
)
from kit.manual_clock import ManualClock
from kit.shard_counts import ShardCounts, cache_versions, shard_of, two_of_different_shards

HERE, ELSEWHERE = two_of_different_shards()


class Memory(Protocol):
    """Any of the caches, for ids of one owner: which of them come from memory, and how one gets in."""

    def known(self, ids: Collection[int]) -> set[int]: ...
    async def learn(self, ids: Collection[int], meanwhile: Callable[[], None] = ...) -> None: ...


def nothing() -> None:
    """Happens while the store is read."""


class OneByOne:
    def __init__(self, versions: CacheVersions, capacity: int, lifetime: float, clock: ManualClock) -> None:
        self.cache: VersionedCache[int, str] = VersionedCache(versions, capacity, lifetime, clock)

    def known(self, ids: Collection[int]) -> set[int]:
        return {each for each in ids if self.cache.get(each) == f"value {each}"}

    async def learn(self, ids: Collection[int], meanwhile: Callable[[], None] = nothing) -> None:
        for each in ids:
            await self.read(each, meanwhile)

    async def read(self, each: int, meanwhile: Callable[[], None]) -> None:
        assert await self.cache.read(each, each, self.reader(each, meanwhile)) == f"value {each}"

    def reader(self, each: int, meanwhile: Callable[[], None]) -> Callable[[], Awaitable[str]]:
        async def read() -> str:
            meanwhile()
            return f"value {each}"

        return read


class Unplaced(OneByOne):
    async def read(self, each: int, meanwhile: Callable[[], None]) -> None:
        read = self.reader(each, meanwhile)
        assert await self.cache.read_unplaced(each, read, lambda _value: (each, each)) == f"value {each}"


class Records:
    def __init__(self, versions: CacheVersions, capacity: int, lifetime: float, clock: ManualClock) -> None:
        self.cache: VersionedRecords[str, str] = VersionedRecords(versions, capacity, lifetime, clock)

    def known(self, ids: Collection[int]) -> set[int]:
        found = self.cache.known("owner", ids)
        assert all(value == f"value {each}" for each, value in found.items())
        return set(found)

    async def learn(self, ids: Collection[int], meanwhile: Callable[[], None] = nothing) -> None:
        async def read(missing: list[int]) -> dict[int, str]:
            meanwhile()
            return {each: f"value {each}" for each in missing}

        assert set(await self.cache.find("owner", ids, read)) == set(ids)


class Ids:
    def __init__(self, versions: CacheVersions, capacity: int, lifetime: float, clock: ManualClock) -> None:
        self.cache: VersionedIds[str] = VersionedIds(versions, capacity, lifetime, clock)

    def known(self, ids: Collection[int]) -> set[int]:
        return self.cache.known("owner", ids)

    async def learn(self, ids: Collection[int], meanwhile: Callable[[], None] = nothing) -> None:
        async def read(missing: list[int]) -> set[int]:
            meanwhile()
            return set(missing)

        assert await self.cache.find("owner", ids, read) == set(ids)


Kind = type[OneByOne] | type[Records] | type[Ids]
KINDS: list[Kind] = [OneByOne, Unplaced, Records, Ids]
every_kind = pytest.mark.parametrize("kind", KINDS)


def memory(
    kind: Kind, counts: ShardCounts, capacity: int = 1_000, clock: ManualClock | None = None
) -> Memory:
    return kind(cache_versions(counts), capacity, 1.0, clock or ManualClock())


@every_kind
async def test_announced_entries_are_forgotten_and_no_others(kind: Kind) -> None:
    counts = ShardCounts()
    cache = memory(kind, counts)
    await cache.learn([HERE, ELSEWHERE])
    assert cache.known([HERE, ELSEWHERE]) == {HERE, ELSEWHERE}
    counts.count_record(HERE)
    assert cache.known([HERE, ELSEWHERE]) == {ELSEWHERE}
    await cache.learn([HERE])
    assert cache.known([HERE, ELSEWHERE]) == {HERE, ELSEWHERE}


@every_kind
async def test_entry_announced_while_store_is_read_is_not_kept(kind: Kind) -> None:
    """The read may have been before the change: only the mark of before vouches for it."""
    counts = ShardCounts()
    cache = memory(kind, counts)
    await cache.learn([HERE], meanwhile=lambda: counts.count_record(HERE))
    assert cache.known([HERE]) == set()
    await cache.learn([HERE])
    assert cache.known([HERE]) == {HERE}


async def test_entry_announced_before_its_shard_is_known_is_not_kept() -> None:
    """Who a key speaks for tells the shard only after the read; its mark may have moved by then."""
    counts = ShardCounts()
    cache: VersionedCache[str, int] = VersionedCache(cache_versions(counts), 10)

    async def read() -> int:
        return HERE

    def announced(value: int) -> tuple[int, int]:
        counts.count_record(value)
        return value, value

    assert await cache.read_unplaced("key", read, announced) == HERE
    assert cache.get("key") is None


@pytest.mark.parametrize("changed", [HERE, ELSEWHERE])
@pytest.mark.parametrize("is_own", [False, True])
async def test_value_of_two_shards_is_forgotten_with_a_record_of_either(changed: int, is_own: bool) -> None:
    counts = ShardCounts()
    versions = cache_versions(counts)
    cache: VersionedCache[str, str] = VersionedCache(versions, 10)

    async def read() -> str:
        return "value"

    await cache.read_unplaced("key", read, lambda _value: (HERE, ELSEWHERE))
    assert cache.get("key") == "value"
    if is_own:
        versions.forget({shard_of(changed)})
    else:
        counts.count_record(changed)
    assert cache.get("key") is None


@every_kind
async def test_entries_announced_by_this_node_are_forgotten_before_reading(kind: Kind) -> None:
    """The tail comes to the record later, when the change was answered already."""
    versions = cache_versions(ShardCounts())
    cache: Memory = kind(versions, 1_000, 1.0, ManualClock())
    await cache.learn([HERE, ELSEWHERE])
    versions.forget({shard_of(HERE)})
    assert cache.known([HERE, ELSEWHERE]) == {ELSEWHERE}
    await cache.learn([HERE], meanwhile=lambda: versions.forget({shard_of(HERE)}))
    assert cache.known([HERE, ELSEWHERE]) == {ELSEWHERE}
    await cache.learn([HERE])
    assert cache.known([HERE, ELSEWHERE]) == {HERE, ELSEWHERE}


@every_kind
async def test_nothing_is_trusted_while_redis_is_silent(kind: Kind) -> None:
    counts = ShardCounts()
    cache = memory(kind, counts)
    await cache.learn([HERE])
    counts.silence_ms = SILENCE_MS
    assert cache.known([HERE]) == {HERE}
    counts.silence_ms = SILENCE_MS + 1
    assert cache.known([HERE]) == set()
    counts.silence_ms = 0
    assert cache.known([HERE]) == {HERE}


@every_kind
async def test_without_a_tail_nothing_is_remembered(kind: Kind) -> None:
    cache: Memory = kind(CacheVersions(None, 8), 1_000, 1.0, ManualClock())
    await cache.learn([HERE])
    assert cache.known([HERE]) == set()


async def test_handshake_uses_entries_of_its_total_only() -> None:
    """A record of any shard may be another copy of a change that the entry does not know."""
    counts = ShardCounts()
    one = OneByOne(cache_versions(counts), 10, 1.0, ManualClock())
    records = Records(cache_versions(counts), 10, 1.0, ManualClock())
    await one.learn([HERE])
    await records.learn([HERE])
    assert one.cache.get(HERE, 0) == "value 1"
    assert records.cache.known("owner", [HERE], 0) == {HERE: "value 1"}
    assert one.cache.get(HERE, BYPASS) is None
    assert records.cache.known("owner", [HERE], BYPASS) == {}
    counts.count_record(ELSEWHERE)
    assert one.cache.get(HERE, 1) is None
    assert records.cache.known("owner", [HERE], 1) == {}
    assert one.known([HERE]) == records.known([HERE]) == {HERE}


async def test_missing_entries_are_read_and_existing_ones_kept() -> None:
    counts = ShardCounts()
    cache: VersionedIds[str] = VersionedIds(cache_versions(counts), 10)
    asked: list[list[int]] = []

    async def read(missing: list[int]) -> set[int]:
        asked.append(missing)
        return {each for each in missing if each < 10}

    assert await cache.find("owner", [1, 2, 10], read) == {1, 2}
    assert await cache.find("owner", [1, 3, 10], read) == {1, 3}
    assert await cache.find("other", [1], read) == {1}
    assert asked == [[1, 2, 10], [3, 10], [1]]


@every_kind
async def test_ids_beyond_the_capacity_push_older_ones_out(kind: Kind) -> None:
    cache = memory(kind, ShardCounts(), capacity=4)
    for number in range(1, 8):
        await cache.learn([number])
    assert cache.known(range(1, 8)) == {5, 6, 7}


@every_kind
async def test_cache_without_capacity_remembers_nothing(kind: Kind) -> None:
    cache = memory(kind, ShardCounts(), capacity=0)
    await cache.learn([HERE])
    assert cache.known([HERE]) == set()


Step = st.tuples(st.floats(0.0, 0.8), st.sets(st.integers(1, 9), max_size=4), st.sets(st.integers(1, 9)))


@every_kind
@given(st.lists(Step, max_size=30))
async def test_ids_are_known_for_half_a_lifetime_and_never_beyond_it_or_a_change(
    kind: Kind, steps: list[tuple[float, set[int], set[int]]]
) -> None:
    """`seen` is when each id was read last, without a record of its shard since."""
    clock, counts = ManualClock(), ShardCounts()
    cache = memory(kind, counts, clock=clock)
    seen: dict[int, float] = {}
    for wait, learnt, changed in steps:
        clock.seconds += wait
        for each in changed:
            counts.count_record(each)
            seen = {other: at for other, at in seen.items() if shard_of(other) != shard_of(each)}
        known = cache.known(range(1, 10))
        assert {each for each, at in seen.items() if clock.seconds - at < 0.5} <= known
        assert known <= {each for each, at in seen.items() if clock.seconds - at < 1.0}
        unknown = learnt - known
        await cache.learn(unknown)
        seen.update(dict.fromkeys(unknown, clock.seconds))
