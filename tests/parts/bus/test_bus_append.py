"""The bus's writer against a real server: group commit, order, and every way Redis can fail."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest
import uvloop
from redis.asyncio import Redis

from homewire.bus.append import Bus
from homewire.bus.server_link import DEADLINE_GRAIN
from homewire.bus.shards import BusSettings, events_key
from homewire.errors import BusUnavailable, ConfigurationError, NotConfirmed
from kit.manual_clock import loop_time
from kit.node import CLUSTER
from kit.redis_server import (
    TIMEOUT_S,
    BusServer,
    append_many,
    entries_of,
    envelopes_of,
    eventually,
    running_bus,
)

ANSWER_S = 4.0
"""How long a server may take to answer where a test waits for one that never does. One that was kept from its
processor for a moment is not to be taken for it."""


async def test_appends_of_one_turn_are_one_write(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        flushes = bus.stats.flushes
        ids = await asyncio.gather(*(bus.append(shard % 64, b"event") for shard in range(200)))
        assert bus.stats.flushes == flushes + 1
        assert bus.stats.appended == len(ids) == 200
        assert bus.stats.in_flight_bytes == 0
        stats = await redis.info("commandstats")
        assert stats["cmdstat_xadd"]["calls"] == 200


async def test_id_is_where_the_envelope_lies(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        first = await bus.append(3, b"\x01\x00\r\nany bytes\xff")
        (second,) = await append_many(bus, [(3, b"")])
    entries = await redis.xrange(events_key(3))
    assert entries == [(first, {b"e": b"\x01\x00\r\nany bytes\xff"}), (second, {b"e": b""})]


async def test_order_in_a_shard_is_the_order_of_the_calls(server: BusServer, redis: Redis) -> None:
    expected: list[bytes] = []
    async with running_bus(server) as bus:
        calls: list[asyncio.Task[object]] = []
        for turn in range(50):
            batch = [(turn % 2, b"%d batch %d" % (turn, item)) for item in range(20)]
            single = b"%d single" % turn
            calls.append(asyncio.create_task(append_many(bus, batch)))
            calls.append(asyncio.create_task(bus.append(turn % 2, single)))
            expected += [envelope for _, envelope in batch] + [single]
            if turn % 5 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*calls)
    for shard in (0, 1):
        mine = [envelope for envelope in expected if int(envelope.split()[0]) % 2 == shard]
        assert await envelopes_of(redis, shard) == mine


async def test_refused_item_does_not_touch_its_neighbours(server: BusServer, redis: Redis) -> None:
    await redis.set(events_key(1), "no stream")
    async with running_bus(server) as bus:
        outcomes = await append_many(bus, [(0, b"a"), (1, b"b"), (0, b"c")])
        assert [type(outcome) for outcome in outcomes] == [bytes, BusUnavailable, bytes]
        assert (bus.stats.appended, bus.stats.unavailable) == (2, 1)
        with pytest.raises(BusUnavailable):
            await bus.append(1, b"d")
    assert await envelopes_of(redis, 0) == [b"a", b"c"]


async def test_out_of_memory_is_unavailable_and_stores_nothing(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        await redis.config_set("maxmemory", "1")
        with pytest.raises(BusUnavailable):
            await bus.append(0, b"refused")
        with pytest.raises(BusUnavailable):
            await bus.append_once(0, "scope", "print", [b"refused"])
        await redis.config_set("maxmemory", "0")
        assert await bus.append_once(0, "scope", "print", [b"stored"])
    assert await envelopes_of(redis, 0) == [b"stored"]


@pytest.mark.skipif(CLUSTER, reason="a server in cluster mode is not demoted by REPLICAOF")
async def test_demoted_server_is_left_and_found_again(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        await redis.replicaof("127.0.0.1", "1")
        with pytest.raises(BusUnavailable):
            await bus.append(0, b"refused")
        await redis.replicaof("NO", "ONE")
        await eventually(lambda: bus.stats.reconnects > 0 and bus.connected)
        await bus.append(0, b"stored")
    assert await envelopes_of(redis, 0) == [b"stored"]


async def test_hung_server_is_not_confirmed_and_nothing_is_repeated(server: BusServer, redis: Redis) -> None:
    async with running_bus(server, answer_timeout=ANSWER_S) as bus:
        await bus.append(0, b"before")
        server.hang()
        async with loop_time() as waited:
            outcomes = await asyncio.gather(
                bus.append(0, b"unknown"), append_many(bus, [(0, b"u1"), (0, b"u2")]), return_exceptions=True
            )
        assert waited.seconds < 1.5 * ANSWER_S, "one after the other"
        assert isinstance(outcomes[0], NotConfirmed)
        assert isinstance(outcomes[1], list)
        assert [type(outcome) for outcome in outcomes[1]] == [NotConfirmed, NotConfirmed]
        assert bus.stats.not_confirmed == 3
        server.go_on()
        await eventually(lambda: bus.connected)
        await bus.append(0, b"after")
        # The server read what was in the socket before we gave it up: stored, once, and never by a repeat.
        assert await envelopes_of(redis, 0) == [b"before", b"unknown", b"u1", b"u2", b"after"]
        assert bus.stats.in_flight_bytes == 0


async def test_default_deadlines_stay_within_five_seconds(server: BusServer) -> None:
    # What they are, and that they are kept: how late a machine is that does something else tells nothing.
    defaults = BusSettings(server.url)
    assert defaults.answer_timeout + DEADLINE_GRAIN < 4.5
    assert defaults.outage_grace + DEADLINE_GRAIN < 1.5
    async with running_bus(server) as bus:
        server.hang()
        async with asyncio.timeout(defaults.answer_timeout + TIMEOUT_S):
            with pytest.raises(NotConfirmed):
                await bus.append(0, b"event")
        async with asyncio.timeout(TIMEOUT_S):  # no connection: the grace after the loss
            with pytest.raises(BusUnavailable):
                await bus.append(0, b"event")
        server.go_on()


@pytest.mark.skipif(CLUSTER, reason="in cluster mode a server takes no writes for 2 s after its start")
async def test_quick_restart_costs_latency_not_an_error(server: BusServer, redis: Redis) -> None:
    # Quick is what comes within the grace.
    async with running_bus(server, answer_timeout=2 * TIMEOUT_S, outage_grace=TIMEOUT_S) as bus:
        await bus.append(0, b"before")
        server.kill()
        await eventually(lambda: not bus.connected)
        waiting = asyncio.gather(*(bus.append(0, b"during %d" % number) for number in range(3)))
        await asyncio.to_thread(server.start)
        await waiting
        assert bus.stats.reconnects == 1
    assert await envelopes_of(redis, 0) == [b"before", b"during 0", b"during 1", b"during 2"]


def refused_at_once(bus: Bus, shard: int, envelope: bytes) -> None:
    """An append fails before it awaits anything."""
    append = bus.append(shard, envelope)
    with pytest.raises(BusUnavailable):
        append.__await__().send(None)


async def test_in_a_long_outage_appends_fail_at_once(server: BusServer) -> None:
    async with running_bus(server, outage_grace=0.2) as bus:
        server.kill()
        await eventually(lambda: not bus.connected)
        with pytest.raises(BusUnavailable):
            await bus.append(0, b"within the grace")
        for shard in (0, 1):
            refused_at_once(bus, shard, b"after it")
        outcomes = await append_many(bus, [(0, b"a"), (1, b"b")])
        assert [type(outcome) for outcome in outcomes] == [BusUnavailable, BusUnavailable]
        assert bus.stats.in_flight_bytes == 0
        await asyncio.to_thread(server.start)
        await eventually(lambda: bus.connected)
        await bus.append(0, b"back")


async def test_start_without_redis_retries(server: BusServer) -> None:
    server.kill()
    async with running_bus(server) as bus:
        assert not bus.connected
        await asyncio.to_thread(server.start)
        await eventually(lambda: bus.connected)
        await bus.append(0, b"event")


async def test_kill_9_under_load_loses_nothing_acknowledged(server: BusServer, redis: Redis) -> None:
    acknowledged: list[bytes] = []
    sent = 0

    async def publish(bus: Bus, shard: int) -> None:
        nonlocal sent
        while not done.is_set():
            sent += 1
            envelope = b"%d" % sent
            try:
                await bus.append(shard, envelope)
            except (BusUnavailable, NotConfirmed):
                # What is refused at once lets nobody else run, and the loop has to see that Redis is back.
                await asyncio.sleep(0)
                continue
            acknowledged.append(envelope)

    done = asyncio.Event()

    async def some_more() -> None:
        reached = len(acknowledged) + 500
        # Each few of them wait for the disk.
        await eventually(lambda: len(acknowledged) > reached, within=3 * TIMEOUT_S)

    # A disk that takes its time is no hung server, whose connection would be given up.
    async with running_bus(server, answer_timeout=3 * TIMEOUT_S) as bus:
        publishers = [asyncio.create_task(publish(bus, shard)) for shard in range(20)]
        for _ in range(2):
            await some_more()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await some_more()
        assert bus.stats.reconnects == 2
        done.set()
        await asyncio.gather(*publishers)
    stored = [envelope for shard in range(20) for envelope in await envelopes_of(redis, shard)]
    assert len(stored) == len(set(stored)), "an event was stored twice"
    assert set(acknowledged) <= set(stored)


async def test_bytes_in_flight_are_bounded_and_the_rest_is_not_sent(server: BusServer, redis: Redis) -> None:
    async with running_bus(server, in_flight_bytes=10_000) as bus:
        server.hang()
        accepted = [asyncio.create_task(bus.append(0, b"x" * 4000)) for _ in range(2)]
        await asyncio.sleep(0)
        refused_at_once(bus, 0, b"y" * 4000)
        assert bus.stats.in_flight_bytes <= 10_000
        server.go_on()
        await asyncio.gather(*accepted)
        await bus.append(0, b"z" * 20_000)  # larger than the bound: goes alone
    assert [envelope[:1] for envelope in await envelopes_of(redis, 0)] == [b"x", b"x", b"z"]


async def test_command_held_back_by_full_socket_was_not_sent(server: BusServer, redis: Redis) -> None:
    async with running_bus(server, answer_timeout=ANSWER_S) as bus:
        server.hang()
        flushes = bus.stats.flushes
        first = asyncio.create_task(bus.append(0, b"x" * 4_000_000))  # more than socket and buffer take
        await eventually(lambda: bus.stats.flushes > flushes)
        second = asyncio.create_task(bus.append(0, b"kept back"))
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotConfirmed, BusUnavailable]
        server.go_on()
        await eventually(lambda: bus.connected)
    assert b"kept back" not in await envelopes_of(redis, 0)


async def test_caller_that_went_away_does_not_disturb_the_others(server: BusServer, redis: Redis) -> None:
    async with running_bus(server) as bus:
        calls = [asyncio.create_task(bus.append(0, b"%d" % number)) for number in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert [key for key, _ in await entries_of(redis, 0)][::2] == [outcomes[0], outcomes[2]]
        assert bus.stats.in_flight_bytes == 0


async def test_close_waits_for_the_answers(server: BusServer) -> None:
    bus = Bus(BusSettings(server.url))
    await bus.start()
    calls = [asyncio.create_task(bus.append(0, b"event")) for _ in range(5)]
    await asyncio.sleep(0)
    await bus.close()
    assert all(type(call.result()) is bytes for call in calls)
    with pytest.raises(BusUnavailable):
        await bus.append(0, b"too late")


async def test_credentials_and_tcp(server: BusServer, redis: Redis) -> None:
    await redis.config_set("requirepass", "p@ss/word")
    socket_path = server.url.removeprefix("unix://")
    bus = Bus(BusSettings(f"unix://:{quote('p@ss/word', safe='')}@{socket_path}", connect_timeout=TIMEOUT_S))
    await bus.start()
    await bus.append(0, b"event")
    await bus.close()
    wrong = Bus(BusSettings(f"unix://:secret-and-wrong@{socket_path}", connect_timeout=TIMEOUT_S))
    with pytest.raises(ConfigurationError) as refused:
        await wrong.start()
    assert "secret-and-wrong" not in str(refused.value)
    await wrong.close()


async def test_something_that_is_not_redis_is_no_connection() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    bus = Bus(BusSettings(f"redis://127.0.0.1:{port}"))
    await bus.start()
    assert not bus.connected
    await bus.close()
    listener.close()


def test_same_on_uvloop(server: BusServer) -> None:
    async def scenario() -> None:
        impatient = running_bus(server, answer_timeout=ANSWER_S, outage_grace=0.2)
        async with impatient as bus, server.client() as redis:
            flushes = bus.stats.flushes
            await asyncio.gather(*(bus.append(0, b"%d" % number) for number in range(100)))
            assert bus.stats.flushes == flushes + 1
            server.hang()
            with pytest.raises(NotConfirmed):
                await bus.append(1, b"unknown")
            server.go_on()
            await eventually(lambda: bus.connected)
            await asyncio.to_thread(server.kill)
            await eventually(lambda: not bus.connected)
            with pytest.raises(BusUnavailable):
                await bus.append(1, b"lost")
            await asyncio.to_thread(server.start)
            await eventually(lambda: bus.connected)
            await bus.append(1, b"after")
            assert await envelopes_of(redis, 0) == [b"%d" % number for number in range(100)]
            assert await envelopes_of(redis, 1) == [b"unknown", b"after"]

    uvloop.run(scenario())
