"""Redis behind Sentinels fails over while homewire runs: events go on, and a loss is told, never silent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from kit.client import Socket, listen
from kit.failover import is_taken, receive_until
from kit.node import CLUSTER, NodeProcess, eventually, running_node
from kit.redis_processes import TIMEOUT_S
from kit.redis_server import client_of
from kit.sentinels import SentinelSet, running_sentinels
from kit.tenant import StoreError, Tenant, tenant_of

pytestmark = pytest.mark.skipif(CLUSTER, reason="Sentinels watch servers that are no cluster")

EVENTS = "/userSession/websocket"
RESYNC = 4002
BEFORE = 20
"""Events that are acknowledged before the failover begins."""
FAILOVERS: dict[str, Callable[[SentinelSet], None]] = {
    "master killed": SentinelSet.kill_master,
    "roles changed": SentinelSet.fail_over,
}


@pytest.fixture
def redis_set() -> Iterator[SentinelSet]:
    with running_sentinels() as started:
        yield started


@contextmanager
def node_on(redis_set: SentinelSet, directory: Path) -> Iterator[NodeProcess]:
    with running_node(directory / "data", redis_url=redis_set.url, secret_key="x" * 32) as node:
        yield node


async def listener(tenant: Tenant) -> tuple[int, Socket]:
    owner = await tenant.user()
    home = await tenant.home(owner)
    return home, await listen(tenant.url, f"{EVENTS}?homeId={home}", owner.key)


@pytest.mark.parametrize("how", FAILOVERS)
async def test_failover_in_a_stream_of_events_loses_none_in_silence(
    redis_set: SentinelSet, short_directory: Path, how: str
) -> None:
    with node_on(redis_set, short_directory) as node:
        async with tenant_of(node) as tenant:
            home, socket = await listener(tenant)
            async with socket:
                acknowledged: list[str] = []
                failing_over: asyncio.Task[None] | None = None
                for number in itertools.count():
                    if await is_taken(tenant, home, f"event {number}"):
                        acknowledged.append(f"event {number}")
                    if failing_over is None and len(acknowledged) == BEFORE:
                        failing_over = asyncio.create_task(asyncio.to_thread(FAILOVERS[how], redis_set))
                    if failing_over is not None and failing_over.done():
                        failing_over.result()
                        break
                # The node finds the new master by itself, with each of its clients.
                await eventually(lambda: is_taken(tenant, home, "last"), TIMEOUT_S)
                received, code = await receive_until(socket, "last")
                if code is None:
                    assert set(acknowledged) <= set(received)
                else:
                    assert code == RESYNC

            async def is_found() -> bool:
                try:
                    return await tenant.store.projects.get(tenant.project) is not None
                except StoreError:
                    return False

            # The test's own client finds it later than the node, perhaps.
            await eventually(is_found, TIMEOUT_S)
            other = await tenant.user()
            await tenant.store.homes.add_member(tenant.project, home, other.id)
            async with await listen(node.url, f"{EVENTS}?homeId={home}", other.key) as again:
                await eventually(lambda: is_taken(tenant, home, "behind"), TIMEOUT_S)
                assert (await receive_until(again, "behind"))[1] is None


async def test_acknowledged_event_that_new_master_lacks_is_told(
    redis_set: SentinelSet, short_directory: Path
) -> None:
    with node_on(redis_set, short_directory) as node:
        async with tenant_of(node) as tenant:
            home, socket = await listener(tenant)
            async with socket:
                await asyncio.to_thread(redis_set.until_in_sync)
                with redis_set.without_replication():
                    assert await is_taken(tenant, home, "lost")
                    assert await socket.receive_type() == "lost"
                    redis_set.first.kill()
                await asyncio.to_thread(redis_set.until_promoted)
                received, code = await receive_until(socket, "never sent")
                assert (received, code) == ([], RESYNC)


async def test_clients_find_new_master_by_themselves(redis_set: SentinelSet) -> None:
    async with client_of(redis_set.url) as client:
        await client.set("before", 1)
        redis_set.until_in_sync()
        await asyncio.to_thread(redis_set.fail_over)

        async def is_written() -> bool:
            try:
                return bool(await client.set("behind", 1))
            except (RedisError, OSError):
                return False

        await eventually(is_written, TIMEOUT_S)
        assert await client.get("before") == b"1"
        assert redis_set.second.client.get("behind") == b"1"
