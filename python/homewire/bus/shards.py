"""Shards: names of their keys, and their epochs; the settings and counters of the bus.

The hash tag `{e<n>}` keeps all keys of a shard in one slot of a Redis Cluster, so that one script may write
to its stream and to its records of idempotent requests.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from homewire.errors import BusUnavailable, ConfigurationError, NotConfirmed
from homewire.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

PENDING: Final = "hw:{relay}:pending"
"""Sorted set of projects whose outbox may have entries. The score is the time of the note, in ms of Redis'
clock."""


def events_key(shard: int) -> bytes:
    """The stream of envelopes of `shard`."""
    return b"hw:{e%d}:events" % shard


def epoch_key(shard: int) -> bytes:
    """The random epoch of `shard`. Positions of an earlier epoch are invalid."""
    return b"hw:{e%d}:epoch" % shard


def once_key(shard: int, scope_key: str) -> bytes:
    """The record of an idempotent request, in the slot of `shard`. It has a TTL (`idempotency_ms`)."""
    return b"hw:{e%d}:once:%b" % (shard, scope_key.encode())


def copied_key(shard: int, project_id: int) -> bytes:
    """The positions in the project's outbox that were copied to `shard` last, in its slot. It has a TTL."""
    return b"hw:{e%d}:copied:%d" % (shard, project_id)


async def ensure_epochs(redis: Redis, shards: int) -> list[bytes]:
    """Give each shard without an epoch a random one, and return all epochs. Can be repeated."""
    async with redis.pipeline(transaction=False) as pipeline:
        for shard in range(shards):
            pipeline.set(epoch_key(shard), secrets.token_hex(8), nx=True)
            pipeline.get(epoch_key(shard))
        answers = await pipeline.execute()
    return list(answers[1::2])


BusError: TypeAlias = BusUnavailable | NotConfirmed
"""The errors of an append: not stored, or outcome unknown. Both are answered 503."""

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BusSettings:
    """Settings of one `Bus` and its `Retention`. Times in seconds unless the name says otherwise.

    A request is answered 503 within 5 s when Redis is unavailable or hangs. So the sum of `answer_timeout`,
    the 0.1 s between two checks of deadlines and `outage_grace` stays below 5 s.
    """

    url: str = field(repr=False)
    """redis://, rediss:// or unix://. It may have credentials, so no repr shows it."""
    shards: int = 64
    retention_ms: int = 600_000
    retention_bytes: int = 256 * MEBIBYTE
    idempotency_ms: int = 600_000
    """How long a request can be retried with its Idempotency-Key."""
    answer_timeout: float = 4.0
    """From the append to the reply. After that the connection counts as hung."""
    connect_timeout: float = 1.0
    outage_grace: float = 1.0
    """How long after the loss of a connection new appends wait for the next one. So a restart of Redis in
    100 ms costs latency, and no 503. Later in an outage appends fail at once."""
    in_flight_bytes: int = 16 * MEBIBYTE
    """Bytes of commands that Redis has not answered yet. A larger command is sent alone."""
    sweep_interval: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= 16_384:
            raise ConfigurationError(f"shards is {self.shards}: must be from 1 to 16384")

    @classmethod
    def of(cls, settings: Settings, url: str) -> BusSettings:
        """The settings of the bus of a node, for the Redis at `url`.

        An Idempotency-Key is stored at most as long as events are, so that the answer to a retry names events
        that still exist.
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
    """Counters of one `Bus`, for the metrics. Only the event loop writes them."""

    appended: int = 0
    """Entries that Redis confirmed."""
    bytes: int = 0
    """Bytes given to the transport."""
    flushes: int = 0
    """Writes to the transport. `appended / flushes` is the mean size of a group commit."""
    not_confirmed: int = 0
    unavailable: int = 0
    duplicates: int = 0
    """Entries of repeated idempotent requests, which were answered from their record."""
    reconnects: int = 0
    in_flight_bytes: int = 0
    """Not a counter: bytes of commands that Redis has not answered yet."""
