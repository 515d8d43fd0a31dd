"""Webhooks over several nodes: they share the work, and none of them can lose it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from kit import in_redis
from kit.clock import a_later_moment, now_ms
from kit.in_redis import MODULES_WAITING, WEBHOOK_READERS, events_key, shard_of, stream_of
from kit.node import NodeProcess, eventually, running_node
from kit.redis_server import BusServer, running_server
from kit.tenant import Tenant, tenant_of
from kit.webhook_receiver import Received, Receiver, register, send

SECRET = "0123456789abcdef0123456789abcdef"
SETTINGS: dict[str, Any] = {
    "webhook_private_addresses": "true",
    "webhook_lease_s": 1,
    "webhook_backoff_s": 0.05,
    "secret_key": SECRET,
}


@contextmanager
def started(server: BusServer, **settings: Any) -> Iterator[NodeProcess]:
    """A node on this Redis, in a directory of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="hw-") as directory,
        running_node(Path(directory) / "data", redis_url=server.url, **(SETTINGS | settings)) as node,
    ):
        yield node


@pytest.fixture
def server() -> Iterator[BusServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def node(server: BusServer) -> Iterator[NodeProcess]:
    """The one that lives."""
    with started(server) as running:
        yield running


@pytest_asyncio.fixture
async def tenant(node: NodeProcess) -> AsyncIterator[Tenant]:
    async with tenant_of(node) as made:
        yield made


async def test_without_modules_no_consumer_group_exists(
    tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await send(tenant, home, 1)
    assert await groups(tenant.redis) == 0
    assert await group_reads(tenant.redis) == 0
    await register(tenant, node, receiver.url, secret=SECRET)
    assert await groups(tenant.redis) == 64
    await send(tenant, home, 2)
    assert await receiver.numbers(1) == [2]
    await tenant.store.smart_modules.delete(tenant.project, "hook")

    async def is_quiet() -> bool:
        before = await group_reads(tenant.redis)
        # A read blocks for a second at most.
        await asyncio.sleep(1.5)
        return await group_reads(tenant.redis) == before

    await eventually(is_quiet)
    # The group goes on from where it was: a new module receives nothing of what happened meanwhile.
    await send(tenant, home, 3)
    await a_later_moment(tenant)
    await register(tenant, node, receiver.url, module="new", secret=SECRET)
    await send(tenant, home, 4)
    assert await receiver.numbers(1) == [4]
    assert [each.number for each in receiver.all] == [2, 4]


async def test_delivery_under_way_outlives_its_node(server: BusServer, receiver: Receiver) -> None:
    async def first_hangs(_: Received) -> int:
        if len(receiver.all) == 1:
            await asyncio.Event().wait()
        return 200

    receiver.answer = first_hangs
    with started(server) as victim:
        async with tenant_of(victim) as tenant:
            await register(tenant, victim, receiver.url, secret=SECRET)
            await send(tenant, await tenant.home(await tenant.user()), 1)
            begun = await receiver.next()
            victim.process.kill()
            with started(server):
                repeated = await receiver.next()
                assert (repeated.event_id, repeated.body) == (begun.event_id, begun.body)

                async def is_done() -> bool:
                    return (await tenant.store.module_deliveries.counts(tenant.project, "hook"))[0] == 0

                await eventually(is_done)


async def test_killed_dispatcher_loses_no_delivery(
    server: BusServer, tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    count = 600
    await register(tenant, node, receiver.url, secret=SECRET)
    home = await tenant.home(await tenant.user())

    killed = asyncio.Event()

    async def some_until_the_kill(_: Received) -> int:
        if len(receiver.all) > 20:
            await killed.wait()
        return 200

    receiver.answer = some_until_the_kill
    with started(server) as other:
        await until_both_read(tenant.redis)
        await send(tenant, home, *range(300))
        await receiver.numbers(20)
        # Both pick; one of them delivers.
        held = [(await each.metrics())["webhooks_waiting"] for each in (node, other)]
        victim, survivor = (node, other) if held[0] else (other, node)
        victim.process.kill()
        killed.set()
        async with tenant_of(survivor) as left:
            left.project, left.key = tenant.project, tenant.key
            await send(left, home, *range(300, count))

            async def all_came() -> bool:
                return {each.number for each in receiver.all} == set(range(count))

            await eventually(all_came, 30)
        await survivor.reaches("webhooks_delivered_total", 300)
    ids: dict[int, set[str]] = {}
    for each in receiver.all:
        ids.setdefault(each.number, set()).add(each.event_id)
    assert all(len(each) == 1 for each in ids.values()), "what is repeated has the same id"


async def test_entries_read_by_dead_node_are_taken_over(
    server: BusServer, tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, node, receiver.url, secret=SECRET)
    assert await node.stop() == 0
    key = stream_of(home)
    accepted: list[Any] = [
        await tenant.redis.xadd(key, {"e": envelope(tenant.project, home, n)}) for n in range(3)
    ]
    # This is all that is left of a node that was killed between reading and moving.
    read: Any = await tenant.redis.xreadgroup(WEBHOOK_READERS, "dead", {key: ">"})
    assert len(read[0][1]) == 3
    with started(server):
        received = sorted([await receiver.next() for _ in range(3)], key=lambda each: each.number)
        assert [each.number for each in received] == [0, 1, 2]
        shard = shard_of(home)
        assert [each.event_id for each in received] == [f"{shard}.{entry.decode()}" for entry in accepted]

        async def nothing_is_pending() -> bool:
            return int((await tenant.redis.xpending(key, WEBHOOK_READERS))["pending"]) == 0

        await eventually(nothing_is_pending)


async def test_large_backlog_of_another_node_blocks_no_reading(
    server: BusServer, tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, node, receiver.url, secret=SECRET)
    assert await node.stop() == 0
    key = stream_of(home)
    for _ in range(400):
        await tenant.redis.xadd(key, {"no": "envelope"})
    # Somebody who lives read all of these a moment ago: more than one look of XAUTOCLAIM sees.
    await tenant.redis.xreadgroup(WEBHOOK_READERS, "alive", {key: ">"}, count=400)
    with started(server, webhook_lease_s=60):
        await tenant.redis.xadd(key, {"e": envelope(tenant.project, home, 1)})
        assert await receiver.numbers(1) == [1]


async def test_entries_trimmed_unread_are_counted(
    server: BusServer, tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, node, receiver.url, secret=SECRET)
    await send(tenant, home, 0)
    assert await receiver.numbers(1) == [0]
    assert await node.stop() == 0
    key = stream_of(home)
    for number in range(1, 6):
        await tenant.redis.xadd(key, {"e": envelope(tenant.project, home, number)})
    await tenant.redis.xtrim(key, maxlen=2, approximate=False)
    with started(server) as after:
        assert sorted(await receiver.numbers(2)) == [4, 5]
        assert (await after.metrics())["webhooks_missed_total"] == 3


async def test_redis_that_was_emptied_gets_its_groups_again(
    server: BusServer, tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, node, receiver.url, secret=SECRET)
    await send(tenant, home, 1)
    assert await receiver.numbers(1) == [1]
    key = stream_of(home)
    await tenant.redis.delete(key)
    await tenant.redis.xadd(key, {"e": envelope(tenant.project, home, 2)})
    assert await receiver.numbers(1) == [2]


async def test_waiting_delivery_outlives_its_entry(
    tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, node, receiver.url, secret=SECRET)
    await tenant.store.smart_modules.suspend(tenant.project, "hook")
    await send(tenant, home, *range(50))

    async def all_wait() -> bool:
        return (await tenant.store.module_deliveries.counts(tenant.project, "hook"))[0] == 50

    await eventually(all_wait)
    for shard in range(64):
        await tenant.redis.xtrim(events_key(shard), maxlen=0, approximate=False)
    await tenant.store.smart_modules.resume(tenant.project, "hook")
    assert sorted(await receiver.numbers(50)) == list(range(50))


async def test_delivery_behind_many_others_has_its_turn(
    tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    """Six modules, because each might be among the first ones that a look finds."""
    home, modules = await tenant.home(await tenant.user()), [f"hook{number}" for number in range(6)]
    for module in modules:
        await register(tenant, node, receiver.url, module=module, secret=SECRET)
        await tenant.store.smart_modules.suspend(tenant.project, module)
    await send(tenant, home, 1)

    async def all_wait() -> bool:
        counts = [await tenant.store.module_deliveries.counts(tenant.project, module) for module in modules]
        return [waiting for waiting, _ in counts] == [1] * 6

    await eventually(all_wait)
    # Noted in the future: nobody strikes them out.
    noted = [f"{tenant.project}:{name}" for name in (*range(2_500), *modules)]
    await tenant.redis.zadd(MODULES_WAITING, dict.fromkeys(noted, now_ms() + 3_600_000))
    for module in modules:
        await tenant.store.smart_modules.resume(tenant.project, module)
    assert await receiver.numbers(6) == [1] * 6


async def test_nodes_share_the_work(server: BusServer, receiver: Receiver) -> None:
    # Nobody dies here, and a busy machine must not make it seem so.
    with started(server, webhook_lease_s=600) as one, started(server, webhook_lease_s=600) as other:

        async def picked() -> list[float]:
            return [(await each.metrics())["webhooks_dispatched_total"] for each in (one, other)]

        async with tenant_of(one) as tenant:
            home = await tenant.home(await tenant.user())
            await register(tenant, one, receiver.url, secret=SECRET)
            # A node looks for modules once a second, and this is about those that know one.
            await until_both_read(tenant.redis)
            sent = 0
            async with asyncio.timeout(30):
                # One that stands still meanwhile has its share as soon as it goes on.
                while sent < 1000 or not all(await picked()):
                    await send(tenant, home, *range(sent, sent + 10))
                    sent += 10
            assert sorted(await receiver.numbers(sent)) == list(range(sent))

            async def all_are_counted() -> bool:
                return sum(await picked()) == sent

            await eventually(all_are_counted)
            assert len(receiver.all) == sent


async def until_both_read(redis: Redis) -> None:
    """Wait until the group has two members."""

    async def both() -> bool:
        return len(await redis.xinfo_consumers(events_key(0), WEBHOOK_READERS)) == 2

    await eventually(both)


def envelope(project: int, home: int, number: int) -> bytes:
    """An event as ingest would store it."""
    return in_redis.envelope({"eventType": "e", "eventData": {"n": number}}, project, home)


async def test_readers_that_are_dead_and_hold_nothing_are_forgotten(
    server: BusServer, tenant: Tenant, node: NodeProcess, receiver: Receiver
) -> None:
    await register(tenant, node, receiver.url, secret=SECRET)
    assert await node.stop() == 0
    key = events_key(0)
    await tenant.redis.xgroup_createconsumer(key, WEBHOOK_READERS, "idle")
    await tenant.redis.xadd(key, {"e": b"nothing"})
    await tenant.redis.xreadgroup(WEBHOOK_READERS, "holds", {key: ">"})
    await tenant.store.smart_modules.forget_readers(0, 3_600_000)
    names: list[Any] = await tenant.redis.xinfo_consumers(key, WEBHOOK_READERS)
    assert {each["name"] for each in names} >= {b"idle", b"holds"}
    # `idle` has to be idle for a millisecond by the clock of Redis.
    for _ in range(2):
        await a_later_moment(tenant)
    await tenant.store.smart_modules.forget_readers(0, 1)
    names = await tenant.redis.xinfo_consumers(key, WEBHOOK_READERS)
    assert [each["name"] for each in names] == [b"holds"]


async def groups(redis: Redis) -> int:
    """How many shards our group reads."""
    count = 0
    for shard in range(64):
        if await redis.exists(events_key(shard)):
            found = await redis.xinfo_groups(events_key(shard))
            count += any(each["name"] == WEBHOOK_READERS.encode() for each in found)
    return count


async def group_reads(redis: Redis) -> int:
    """How often a group has read anything on this Redis."""
    statistics = await redis.info("commandstats")
    return int(statistics.get("cmdstat_xreadgroup", {}).get("calls", 0))
