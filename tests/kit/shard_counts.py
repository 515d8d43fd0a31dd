"""Inputs of the caches as plain values: how many records of each shard were read."""

from __future__ import annotations

from collections import Counter

from homewire import _core
from homewire.auth.cache import CacheVersions

SHARDS = 8


class ShardCounts:
    """How many records of each shard were read, and how long Redis has been silent."""

    def __init__(self) -> None:
        self.records: Counter[int] = Counter()
        self.silence_ms = 0

    def cache_version(self, shards: list[int], /) -> int:
        return sum(self.records[shard] for shard in shards)

    def cache_version_of_all(self) -> int:
        return self.records.total()

    def tail_silence_ms(self) -> int:
        return self.silence_ms

    def count_record(self, identifier: int) -> None:
        """A record in the shard of this id is read."""
        self.records[shard_of(identifier)] += 1


def shard_of(identifier: int) -> int:
    """The shard of an id, of `SHARDS`."""
    return _core.shard_of(identifier, SHARDS)


def cache_versions(counts: ShardCounts) -> CacheVersions:
    """Cache versions by these counts."""
    return CacheVersions(counts, SHARDS)


def two_of_different_shards() -> tuple[int, int]:
    """Two ids whose shards differ."""
    other = next(each for each in range(2, 100) if shard_of(each) != shard_of(1))
    return 1, other
