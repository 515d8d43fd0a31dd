"""Retention by age and by bytes, and epochs, against a real server."""

from __future__ import annotations

import asyncio
import time

from redis.asyncio import Redis

from homewire.bus.retention import Retention
from homewire.bus.shards import BusSettings, ensure_epochs, epoch_key, events_key
from kit.redis_server import (
    TIMEOUT_S,
    BusServer,
    append_many,
    envelopes_of,
    eventually,
    monitored,
    not_cancelled,
    running_bus,
)

AGE_MS = 60_000


async def fill(redis: Redis, shard: int, count: int, at_ms: int, size: int = 10) -> None:
    """Entries as of another time, which only explicit ids can be."""
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(count):
            pipeline.xadd(events_key(shard), {"e": b"x" * size}, id=f"{at_ms}-{number + 1}")
        await pipeline.execute()


def sweeper(server: BusServer, redis: Redis, **settings: int) -> Retention:
    return Retention(redis, BusSettings(server.url, retention_ms=AGE_MS, **settings))


async def test_quiet_shard_loses_exactly_expired_entries(server: BusServer, redis: Redis) -> None:
    now = int(time.time() * 1000)
    await fill(redis, 1, 5_250, now - AGE_MS - 5_000)
    await fill(redis, 1, 30, now - AGE_MS + 30_000)
    await fill(redis, 2, 3, now - AGE_MS - 5_000)
    await sweeper(server, redis).sweep()
    assert await redis.xlen(events_key(1)) == 30
    assert await redis.xlen(events_key(2)) == 0


async def test_no_trim_touches_more_than_a_thousand(server: BusServer, redis: Redis) -> None:
    now = int(time.time() * 1000)
    await fill(redis, 1, 5_000, now - AGE_MS - 5_000)
    await fill(redis, 2, 2_500, now - AGE_MS + 30_000)
    async with server.client() as watcher, monitored(watcher) as monitor:
        await sweeper(server, redis, retention_bytes=1).sweep()
        await redis.ping()
        trims = []
        async for seen in monitor.listen():
            if seen["command"] == "PING":
                break
            if seen["command"].startswith("XTRIM"):
                trims.append(seen["command"])
    assert all(trim.endswith("LIMIT 1000") or " = " in trim for trim in trims)
    assert sum("{e1}" in trim and "MINID ~" in trim for trim in trims) >= 5
    assert sum("{e2}" in trim and "MAXLEN ~" in trim for trim in trims) >= 3


async def test_first_append_of_a_second_trims_by_age(server: BusServer, redis: Redis) -> None:
    now = int(time.time() * 1000)
    await fill(redis, 1, 500, now - AGE_MS - 5_000)
    async with running_bus(server, retention_ms=AGE_MS) as bus:
        await bus.append(1, b"new")
        assert await redis.xlen(events_key(1)) < 110  # whole nodes of a hundred go
        await fill(redis, 2, 500, now - AGE_MS - 5_000)
        await bus.append_once(2, "scope", "print", [b"new"])
        assert await redis.xlen(events_key(2)) < 110


async def test_young_event_is_never_trimmed_by_an_append(server: BusServer, redis: Redis) -> None:
    await fill(redis, 1, 500, int(time.time() * 1000) - AGE_MS + 30_000)
    async with running_bus(server, retention_ms=AGE_MS) as bus:
        await bus.append(1, b"new")
    assert await redis.xlen(events_key(1)) == 501


async def test_bytes_are_taken_from_the_largest_shards_and_the_oldest_events(
    server: BusServer, redis: Redis
) -> None:
    limit = 1024 * 1024
    async with running_bus(server) as bus:
        await append_many(bus, [(1, b"%06d" % number + b"x" * 300) for number in range(8_000)])
        await append_many(bus, [(2, b"%06d" % number + b"y" * 300) for number in range(4_000)])
        await append_many(bus, [(3, b"small") for _ in range(100)])
    await sweeper(server, redis, retention_bytes=limit).sweep()
    sizes = [await redis.memory_usage(events_key(shard), samples=0) or 0 for shard in range(64)]
    assert limit * 0.8 < sum(sizes) <= limit
    assert await redis.xlen(events_key(3)) == 100
    assert abs(sizes[1] - sizes[2]) < limit * 0.1
    kept = await envelopes_of(redis, 1)
    assert kept[-1].startswith(b"007999")
    assert [int(envelope[:6]) for envelope in kept] == list(range(8_000 - len(kept), 8_000))


async def test_sizes_that_grew_lately_count(server: BusServer, redis: Redis) -> None:
    limit = 4 * 1024 * 1024
    async with running_bus(server) as bus:
        await append_many(bus, [(1, b"small") for _ in range(20_000)])
        await append_many(bus, [(1, b"x" * 60_000) for _ in range(150)])
    await sweeper(server, redis, retention_bytes=limit).sweep()
    size = await redis.memory_usage(events_key(1), samples=0)
    assert size is not None
    assert 0 < size <= limit


async def test_below_the_limit_nothing_is_trimmed(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        await append_many(bus, [(1, b"x" * 300) for _ in range(3_000)])
    await sweeper(server, redis, retention_bytes=64 * 1024 * 1024).sweep()
    assert await redis.xlen(events_key(1)) == 3_000


async def test_timer_survives_an_outage(server: BusServer, redis: Redis) -> None:
    settings = BusSettings(server.url, retention_ms=AGE_MS, sweep_interval=0.05)
    timer = asyncio.create_task(Retention(redis, settings).run())
    server.kill()
    await asyncio.to_thread(server.start)
    await fill(redis, 1, 5, int(time.time() * 1000) - AGE_MS - 5_000)
    async with asyncio.timeout(TIMEOUT_S):
        while await redis.xlen(events_key(1)):  # noqa: ASYNC110 -- the server has no event for us
            await asyncio.sleep(0.01)
    assert not timer.done()
    timer.cancel()
    await eventually(timer.done)


async def test_cancelled_timer_ends_wherever_it_was(server: BusServer, redis: Redis) -> None:
    settings = BusSettings(server.url, sweep_interval=0)
    timers = [asyncio.create_task(Retention(redis, settings).run()) for _ in range(20)]
    assert await not_cancelled(redis, timers) == 0


async def test_epochs_are_made_once_and_differ(redis: Redis) -> None:
    first = await ensure_epochs(redis, 64)
    assert len(set(first)) == 64
    await redis.delete(epoch_key(7))
    second = await ensure_epochs(redis, 64)
    assert [shard for shard in range(64) if first[shard] != second[shard]] == [7]
    assert await redis.get(epoch_key(7)) == second[7]
