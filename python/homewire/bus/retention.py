"""Retention: trims shards by age and by bytes.

Each append trims its shard by age, in stream nodes of about a hundred entries (`MINID ~`). A timer trims by
age exactly, because a quiet shard has no appends. Only the timer trims by bytes.

While Redis uses less memory than the limit (`INFO memory`, one cheap command) nothing is measured. Above it,
sizes are read with `MEMORY USAGE key SAMPLES 20000`, one shard at a time, so that other commands are served
in between. Redis samples the *oldest* nodes of a stream, so a small sample does not see larger events that
came later. A stream node has 4 KiB, or one larger event. Hence the size is exact up to 80 MiB in one shard.
Reading that much takes Redis 7 ms, and 0.3 ms for 4 MiB, which is the even share of one shard.

Several nodes may sweep at once. All trim to the same lengths, so nothing is trimmed twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
from redis.exceptions import RedisError

from homewire.bus.shards import BusSettings, events_key
from homewire.concurrency import is_cancelling
from homewire.redis.connect import ask_each_server

if TYPE_CHECKING:
    from redis.asyncio import Redis

TRIM_LIMIT = 1000
"""No command touches more entries than this, also when it trims (decision 0007)."""
MEMORY_SAMPLES = 20_000
TRIMMED_PART = 0.95
"""The part of the limit to which a sweep trims by bytes, so that the next sweep need not trim again."""
ROUNDS = 12
"""Maximum number of rounds in one sweep. A target length assumes entries of equal size. If old entries are
small and new ones large, a round trims too little, and never too much. Each round halves the error."""
STEPS_PER_TRIP = 50

Command: TypeAlias = tuple[bytes | str | int, ...]
_log = structlog.get_logger(__name__)


class Retention:
    """Trims all shards every `sweep_interval` seconds, with the client `redis`."""

    def __init__(self, redis: Redis, settings: BusSettings) -> None:
        self._redis = redis
        self._settings = settings
        self._keys = [events_key(shard) for shard in range(settings.shards)]

    async def run(self) -> None:
        """Sweep until cancelled, also after times without Redis. Appends trim by age in the meantime."""
        while not is_cancelling():
            try:
                await self.sweep()
            except (RedisError, OSError) as error:
                _log.warning("retention.failed", error=str(error), next_in_s=self._settings.sweep_interval)
            if not is_cancelling():
                await asyncio.sleep(self._settings.sweep_interval)

    async def sweep(self) -> None:
        """Trim once, first by age, then by bytes. Raises RedisError, OSError."""
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
        # Now only the first node of each stream can have old entries, so that this touches few.
        await self._pipeline([("XTRIM", key, "MINID", "=", cutoff) for key in self._keys])

    async def _trim_by_bytes(self) -> None:
        limit = self._settings.retention_bytes
        used = await ask_each_server(self._redis, "INFO", "memory")
        if sum(each["used_memory"] for each in used) <= limit:
            return
        sizes = await self._sizes()
        for _ in range(ROUNDS):
            if sum(sizes) <= limit:
                return
            await self._trim_to(sizes, water_level(sizes, int(limit * TRIMMED_PART)))
            sizes = await self._sizes()
        if sum(sizes) > limit:
            _log.warning("retention.over_limit", bytes=sum(sizes), limit=limit)

    async def _sizes(self) -> list[int]:
        return [await self._redis.memory_usage(key, samples=MEMORY_SAMPLES) or 0 for key in self._keys]

    async def _trim_to(self, sizes: Sequence[int], level: int) -> None:
        """Trim every stream above `level` bytes to this size, in steps of at most a thousand entries."""
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
    """The highest level L with `sum(min(size, L)) <= limit`. Only streams above it are trimmed."""
    remaining, streams = limit, len(sizes)
    for size in sorted(sizes):
        if size * streams > remaining:
            return remaining // streams
        remaining -= size
        streams -= 1
    return max(sizes, default=0)
