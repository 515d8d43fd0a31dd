"""Shards: their key names and epochs, and which one an id belongs to.

The hash tag `{e<n>}` keeps everything about a shard in one slot of a Redis Cluster, so that one
script may touch its stream and its idempotency records.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from homewire._core import shard_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["PENDING", "ensure_epochs", "epoch_key", "events_key", "once_key", "shard_of"]

PENDING = "hw:{relay}:pending"
"""Sorted set: projects in whose outbox something may stand, score = since when, in ms of Redis' clock."""


def events_key(shard: int) -> bytes:
    """The stream of envelopes of `shard`."""
    return b"hw:{e%d}:events" % shard


def epoch_key(shard: int) -> bytes:
    """The random epoch of `shard`: another one means that positions of before are worthless."""
    return b"hw:{e%d}:epoch" % shard


def once_key(shard: int, scope_key: str) -> bytes:
    """The record of one Idempotency-Key, in the slot of `shard`. It has a TTL (`idempotency_ms`)."""
    return b"hw:{e%d}:once:%b" % (shard, scope_key.encode())


def copied_key(shard: int, project_id: int) -> bytes:
    """The places in the project's outbox that were copied to `shard` last, in its slot. It has a TTL."""
    return b"hw:{e%d}:copied:%d" % (shard, project_id)


async def ensure_epochs(redis: Redis, shards: int) -> list[bytes]:
    """Give each shard that has none a random epoch; return all of them. Safe to run anytime."""
    async with redis.pipeline(transaction=False) as pipeline:
        for shard in range(shards):
            pipeline.set(epoch_key(shard), secrets.token_hex(8), nx=True)
            pipeline.get(epoch_key(shard))
        answers = await pipeline.execute()
    return list(answers[1::2])
