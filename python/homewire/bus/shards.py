"""Shards: their key names and epochs, and which one an id belongs to.

The hash tag `{e<n>}` keeps everything about a shard in one slot of a Redis Cluster, so that one
script may touch its stream and its idempotency records.

What can be set about the bus, and what it counts.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from homewire.errors import BusUnavailable, ConfigurationError, NotConfirmed
from homewire.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

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


BusError: TypeAlias = BusUnavailable | NotConfirmed
"""Why an append has no stream id: not stored, or outcome unknown. Both are answered 503."""

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BusSettings:
    """Settings of one `Bus` and its `Retention`. Times in seconds unless the name says otherwise.

    `answer_timeout` + the 0.1 s grain of its timer + `outage_grace` stay within the 5 s in which
    every request has its 503 when Redis is gone or hangs.
    """

    url: str = field(repr=False)
    """redis://, rediss:// or unix://; may carry credentials, hence never in a repr."""
    shards: int = 64
    retention_ms: int = 600_000
    retention_bytes: int = 256 * MEBIBYTE
    idempotency_ms: int = 600_000
    """How long a request can be retried with its Idempotency-Key."""
    answer_timeout: float = 4.0
    """From the append to Redis' answer; after that the connection is taken for hung."""
    connect_timeout: float = 1.0
    outage_grace: float = 1.0
    """How long after a connection was lost new appends wait for the next one. A Redis that restarts
    in 100 ms costs latency, not a 503; later in an outage appends fail at once."""
    in_flight_bytes: int = 16 * MEBIBYTE
    """Encoded commands accepted and not answered yet. A command larger than this goes alone."""
    sweep_interval: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= 16_384:
            raise ConfigurationError(f"shards is {self.shards}: choose 1 to 16384")

    @classmethod
    def of(cls, settings: Settings, url: str) -> BusSettings:
        """The bus's part of the deployment's `settings`, for the Redis at `url`.

        An Idempotency-Key is remembered at most as long as events are kept: the answer to a retry names
        events that still exist, and a key that nobody will send again costs no memory for longer.
        """
        return cls(
            url=url,
            shards=settings.shards,
            retention_ms=round(settings.retention_age_s * 1000),
            retention_bytes=settings.retention_bytes,
            idempotency_ms=round(min(settings.idempotency_ttl_s, settings.retention_age_s) * 1000),
            answer_timeout=settings.append_deadline_s,
            in_flight_bytes=settings.append_in_flight_bytes,
        )


@dataclass(slots=True)
class BusStats:
    """Plain counters of one `Bus`, read by the metrics page. Only the event loop writes them."""

    appended: int = 0
    """Entries that Redis confirmed."""
    bytes: int = 0
    """Bytes given to the transport."""
    flushes: int = 0
    """Writes to the transport; `appended / flushes` is the size of a group commit."""
    not_confirmed: int = 0
    unavailable: int = 0
    duplicates: int = 0
    """Entries asked for again with an Idempotency-Key and answered from its record."""
    reconnects: int = 0
    in_flight_bytes: int = 0
    """Not a counter: the bytes accepted and not answered at this moment."""
