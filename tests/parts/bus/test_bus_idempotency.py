"""append_once against a real server: one event however often, and however badly, it is asked for."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from homewire.bus.shards import once_key
from homewire.errors import NotConfirmed
from kit.redis_server import BusServer, envelopes_of, eventually, running_bus


async def test_repeat_gets_the_same_id_and_stores_nothing(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        first = await bus.append_once(5, "scope", "print", [b"event"])
        again = await bus.append_once(5, "scope", "print", [b"event, stamped later"])
        assert first is not None
        assert again == first
        assert (bus.stats.appended, bus.stats.duplicates) == (1, 1)
    assert await envelopes_of(redis, 5) == [b"event"]


async def test_another_body_under_the_same_key_is_refused(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        await bus.append_once(5, "scope", "print", [b"event"])
        assert await bus.append_once(5, "scope", "other print", [b"another"]) is None
    assert await envelopes_of(redis, 5) == [b"event"]


async def test_scopes_do_not_know_each_other(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        await bus.append_once(5, "one", "print", [b"event"])
        await bus.append_once(5, "two", "other print", [b"event"])
    assert await envelopes_of(redis, 5) == [b"event", b"event"]


async def test_fifty_at_once_are_one_event(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus, running_bus(server) as other_node:
        calls = [node.append_once(5, "scope", "print", [b"event"]) for node in (bus, other_node) * 25]
        outcomes = await asyncio.gather(*calls)
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert await envelopes_of(redis, 5) == [b"event"]


async def test_flushed_scripts_are_sent_again(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        await redis.script_flush()
        first = await bus.append_once(5, "scope", "print", [b"event"])
        assert await bus.append_once(5, "scope", "print", [b"event"]) == first
    assert await envelopes_of(redis, 5) == [b"event"]


async def test_retry_appends_only_the_missing_labels(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        first = await bus.append_once(5, "scope", "print", [b"0", b"7"], [0, 7])
        again = await bus.append_once(5, "scope", "print", [b"0", b"3", b"7"], [0, 3, 7])
        assert first is not None
        assert again is not None
        assert [again[0], again[2]] == first
    assert await envelopes_of(redis, 5) == [b"0", b"7", b"3"]


async def test_thousand_at_once_and_the_bare_claim(server: BusServer, redis: Redis) -> None:
    envelopes = [b"%d" % number for number in range(1000)]
    async with running_bus(server) as bus:
        assert await bus.append_once(5, "claim", "print", []) == []
        assert await bus.append_once(5, "claim", "other", []) is None
        ids = await bus.append_once(5, "many", "print", envelopes)
        assert ids is not None
        assert len(set(ids)) == 1000
    assert await envelopes_of(redis, 5) == envelopes


async def test_record_is_forgotten_in_time(server: BusServer, redis: Redis) -> None:
    async with running_bus(server, idempotency_ms=90_000) as bus:
        await bus.append_once(5, "scope", "print", [b"event"])
        assert 80_000 < await redis.pttl(once_key(5, "scope")) <= 90_000
        await bus.append_once(5, "claim", "print", [])
        assert 80_000 < await redis.pttl(once_key(5, "claim")) <= 90_000


async def test_retry_after_not_confirmed_is_one_event(server: BusServer, redis: Redis) -> None:
    # Enough for a server that goes on.
    async with running_bus(server, answer_timeout=2.0) as bus:
        server.hang()
        with pytest.raises(NotConfirmed):
            await bus.append_once(5, "scope", "print", [b"event"])
        server.go_on()
        await eventually(lambda: bus.connected)
        assert await bus.append_once(5, "scope", "print", [b"event"])
    assert await envelopes_of(redis, 5) == [b"event"]
