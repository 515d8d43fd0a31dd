"""Retention: how much past a shard keeps, by age and by bytes.

Age is enforced on every append (`MINID ~`, whole nodes of about a hundred entries) and, here, exactly,
by a timer: a quiet shard sees no appends. Bytes are enforced here alone.

As long as all of Redis uses less than the limit (`INFO memory`, one cheap call) nothing is measured.
Else sizes are `MEMORY USAGE key SAMPLES 20000`, one shard at a time so that others get their turn.
Redis samples the *oldest* nodes of a stream, so a small sample knows nothing of larger events that
came since. A node holds 4 KiB, or one larger event: up to 80 MiB in one shard the figure is exact,
and reading that much takes Redis 7 ms (0.3 ms for the 4 MiB that are a shard's even share).

Several nodes may sweep at once: both aim at the same lengths, so nothing is trimmed twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
from redis.exceptions import RedisError

from homewire.bus.shards import BusSettings, events_key
from homewire.concurrency import is_cancelling

if TYPE_CHECKING:
    from redis.asyncio import Redis

TRIM_LIMIT = 1000
"""No command touches more entries than this, also when it trims (decision 0007)."""
MEMORY_SAMPLES = 20_000
LOW_WATER = 0.95
"""A sweep that trims by bytes goes this far below the limit, or every later sweep would trim again."""
ROUNDS = 12
"""A target length supposes entries of one size. Where old ones are small and new ones large, a round
takes too little, never too much; each halves the error, and is measured, up to this often a sweep."""
STEPS_PER_TRIP = 50

Command: TypeAlias = tuple[bytes | str | int, ...]
_log = structlog.get_logger(__name__)


class Retention:
    """Trims all shards every `sweep_interval` seconds, with the ordinary client `redis`."""

    def __init__(self, redis: Redis, settings: BusSettings) -> None:
        self._redis = redis
        self._settings = settings
        self._keys = [events_key(shard) for shard in range(settings.shards)]

    async def run(self) -> None:
        """Sweep until cancelled. A Redis that is away is waited for: appends trim by age meanwhile."""
        while not is_cancelling():
            try:
                await self.sweep()
            except (RedisError, OSError) as error:
                _log.warning("retention.failed", error=str(error), next_in_s=self._settings.sweep_interval)
            if not is_cancelling():
                await asyncio.sleep(self._settings.sweep_interval)

    async def sweep(self) -> None:
        """Trim once, first by age, then by bytes. Raises RedisError or OSError when Redis is away."""
        await self._trim_by_age()
        await self._trim_by_bytes()

    async def _trim_by_age(self) -> None:
        seconds, microseconds = await self._redis.time()
        cutoff = seconds * 1000 + microseconds // 1000 - self._settings.retention_ms
        pending = self._keys
        while pending:
            removed = await self._pipeline(
                [("XTRIM", key, "MINID", "~", cutoff, "LIMIT", TRIM_LIMIT) for key in pending]
            )
            pending = [key for key, count in zip(pending, removed, strict=True) if count]
        # Now at most the head node of each stream has old entries: exact is bounded by a node.
        await self._pipeline([("XTRIM", key, "MINID", "=", cutoff) for key in self._keys])

    async def _trim_by_bytes(self) -> None:
        limit = self._settings.retention_bytes
        if (await self._redis.info("memory"))["used_memory"] <= limit:
            return
        sizes = await self._sizes()
        for _ in range(ROUNDS):
            if sum(sizes) <= limit:
                return
            await self._trim_to(sizes, water_level(sizes, int(limit * LOW_WATER)))
            sizes = await self._sizes()
        if sum(sizes) > limit:
            _log.warning("retention.over_limit", bytes=sum(sizes), limit=limit)

    async def _sizes(self) -> list[int]:
        return [await self._redis.memory_usage(key, samples=MEMORY_SAMPLES) or 0 for key in self._keys]

    async def _trim_to(self, sizes: Sequence[int], level: int) -> None:
        """Shorten every stream above `level` bytes to it, in steps of at most a thousand entries."""
        large = [(key, size) for key, size in zip(self._keys, sizes, strict=True) if size > level]
        lengths = await self._pipeline([("XLEN", key) for key, _ in large])
        steps: list[Command] = []
        for (key, size), length in zip(large, lengths, strict=True):
            target = length * level // size
            step: Command = ("XTRIM", key, "MAXLEN", "~", target, "LIMIT", TRIM_LIMIT)
            steps += [step] * -(-(length - target) // (TRIM_LIMIT - 100))
        for start in range(0, len(steps), STEPS_PER_TRIP):
            await self._pipeline(steps[start : start + STEPS_PER_TRIP])

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute()


def water_level(sizes: Sequence[int], limit: int) -> int:
    """The level L with `sum(min(size, L)) <= limit`, as high as can be: the largest streams pay first."""
    remaining, streams = limit, len(sizes)
    for size in sorted(sizes):
        if size * streams > remaining:
            return remaining // streams
        remaining -= size
        streams -= 1
    return max(sizes, default=0)
