"""Appends and changes that replicas must confirm: on one Redis with a replica, Sentinel and Redis Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from homewire.access_changes.relay import Relay
from homewire.bus.append import Bus
from homewire.bus.shards import BusSettings, ensure_epochs, events_key
from homewire.errors import BusUnavailable, NotConfirmed, Unavailable
from homewire.projects.models import AccountSystem
from homewire.redis.connect import connect
from homewire.redis.servers import Connections
from homewire.repositories import Store
from kit.clock import resume, suspend
from kit.cluster import running_cluster, slot_of
from kit.node import CLUSTER, eventually, reserved_port
from kit.redis_processes import DATA, TIMEOUT_S, Server, launched, wait_until
from kit.sentinels import running_sentinels

pytestmark = pytest.mark.skipif(CLUSTER, reason="it starts its own servers")

SHARDS: Final = 4
SHARD: Final = 1
BEFORE: Final = 20
"""Events that are confirmed before the master is killed."""


@dataclass
class Pair:
    """A master and its replica."""

    replica: Server
    url: str


@pytest.fixture
def pair(short_directory: Path) -> Iterator[Pair]:
    with reserved_port() as one, reserved_port() as two:
        following = ("replicaof", f"127.0.0.1 {one}")
        with (
            launched(short_directory / "1", one, *DATA) as master,
            launched(short_directory / "2", two, *DATA, following) as replica,
        ):
            wait_until(lambda: master.client.info("replication")["connected_slaves"] == 1)
            wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up")
            yield Pair(replica, f"redis://127.0.0.1:{one}")


@asynccontextmanager
async def clients(url: str, replicas: int) -> AsyncIterator[tuple[Bus, Store, Any]]:
    """A bus and a store whose writes so many replicas confirm."""
    redis = connect(url)
    servers = Connections.of(redis).servers
    servers.ack_replicas = replicas
    await ensure_epochs(redis, SHARDS)
    bus = Bus(BusSettings(url, shards=SHARDS), servers)
    await bus.start()
    relay = Relay(redis, SHARDS)
    try:
        yield bus, Store(redis, relay), redis
    finally:
        await relay.close()
        await bus.close()
        await redis.aclose()


async def test_append_and_change_wait_for_replica(pair: Pair) -> None:
    async with clients(pair.url, 1) as (bus, store, _):
        confirmed = await bus.append(SHARD, b"one")
        assert pair.replica.client.xrange(events_key(SHARD)) == [(confirmed, {b"e": b"one"})]
        await store.projects.create("replicated", AccountSystem.EMAIL)


async def test_append_and_change_without_replica_are_not_confirmed(pair: Pair) -> None:
    async with clients(pair.url, 1) as (bus, store, _):
        suspend(pair.replica.process.pid)
        try:
            append = asyncio.create_task(bus.append(SHARD, b"one"))
            many = asyncio.create_task(bus.append_each([(SHARD, b"two"), (SHARD, b"three")]))
            with pytest.raises(NotConfirmed):
                await store.projects.create("alone", AccountSystem.EMAIL)
            with pytest.raises(NotConfirmed):
                await append
            assert [type(each) for each in await many] == [NotConfirmed] * 2
            assert (bus.stats.appended, bus.stats.not_confirmed) == (0, 3)
        finally:
            resume(pair.replica.process.pid)
        assert await bus.append(SHARD, b"four")


async def test_more_replicas_than_there_are_confirm_nothing(pair: Pair) -> None:
    async with clients(pair.url, 2) as (bus, _, _):
        with pytest.raises(NotConfirmed):
            await bus.append(SHARD, b"one")


async def test_without_ack_a_missing_replica_costs_nothing(pair: Pair) -> None:
    async with clients(pair.url, 0) as (bus, store, _):
        suspend(pair.replica.process.pid)
        try:
            assert await bus.append(SHARD, b"one")
            await store.projects.create("alone", AccountSystem.EMAIL)
        finally:
            resume(pair.replica.process.pid)


async def confirmed_survive(url: str, kill_master: Callable[[], None]) -> None:
    """Append while the master is killed: its successor has each event that was confirmed."""
    async with clients(url, 1) as (bus, _, redis):
        confirmed: list[bytes] = []
        killing: asyncio.Task[None] | None = None
        while killing is None or not killing.done():
            try:
                confirmed.append(await bus.append(SHARD, b"event"))
            except (BusUnavailable, NotConfirmed):
                await asyncio.sleep(0.01)
            if killing is None and len(confirmed) == BEFORE:
                killing = asyncio.create_task(asyncio.to_thread(kill_master))
        killing.result()

        async def is_appended() -> bool:
            try:
                return bool(await bus.append(SHARD, b"last"))
            except (BusUnavailable, NotConfirmed):
                return False

        # The new master has no replica: nothing more is confirmed, as one was asked for.
        Connections.of(redis).servers.ack_replicas = 0
        await eventually(is_appended, TIMEOUT_S)
        kept = {entry for entry, _ in await redis.xrange(events_key(SHARD))}
        assert set(confirmed) <= kept


async def test_confirmed_events_survive_failover_by_sentinel() -> None:
    with running_sentinels() as redis_set:
        await asyncio.to_thread(redis_set.until_in_sync)
        await confirmed_survive(redis_set.url, redis_set.kill_master)


async def test_change_that_new_master_lacks_is_lost_without_a_sign() -> None:
    """Without --ack replicas. With it, the change would not have been confirmed."""
    with running_sentinels() as redis_set:
        await asyncio.to_thread(redis_set.until_in_sync)
        async with clients(redis_set.url, 0) as (_, store, redis):
            with redis_set.without_replication():
                project = await store.projects.create("lost", AccountSystem.EMAIL)
                Connections.of(redis).servers.ack_replicas = 1
                with pytest.raises(NotConfirmed):
                    await store.projects.create("not confirmed", AccountSystem.EMAIL)
                await asyncio.to_thread(redis_set.first.kill)
            await asyncio.to_thread(redis_set.until_promoted)

            async def is_lost() -> bool:
                try:
                    return await store.projects.get(project.id) is None
                except Unavailable:
                    return False

            await eventually(is_lost, TIMEOUT_S)


async def test_confirmed_events_survive_failover_of_cluster_master() -> None:
    slot = slot_of(events_key(SHARD))
    with running_cluster() as cluster:
        await confirmed_survive(cluster.url, lambda: cluster.kill_master(slot))
