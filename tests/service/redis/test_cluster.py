"""homewire on a Redis Cluster: a slot moves and masters fail while events flow; no loss is silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from kit.client import Socket, listen
from kit.cluster import ClusterSet, running_cluster, slot_of
from kit.failover import is_taken, receive_until
from kit.in_redis import stream_of
from kit.node import CLUSTER, NodeProcess, eventually, running_node
from kit.redis_processes import TIMEOUT_S
from kit.tenant import Tenant, tenant_of
from kit.warm import run_homewire

pytestmark = pytest.mark.skipif(CLUSTER, reason="it has its own cluster")

EVENTS = "/userSession/websocket"
RESYNC = 4002
LISTENERS = 20
BEFORE = 40
"""Events that are acknowledged before something happens to the cluster."""


def move_slot(cluster: ClusterSet, slot: int) -> None:
    with cluster.moving(slot):
        pass


HAPPENINGS: dict[str, Callable[[ClusterSet, int], None]] = {
    "slot moved": move_slot,
    "roles changed": ClusterSet.fail_over,
    "master killed": ClusterSet.kill_master,
}


@pytest.fixture
def cluster() -> Iterator[ClusterSet]:
    with running_cluster() as started:
        yield started


@contextmanager
def node_on(cluster: ClusterSet, directory: Path) -> Iterator[NodeProcess]:
    with running_node(directory / "data", redis_url=cluster.url, secret_key="x" * 32) as node:
        yield node


@asynccontextmanager
async def listeners(tenant: Tenant, count: int) -> AsyncIterator[tuple[int, list[Socket]]]:
    """Sockets of the owner of a home."""
    owner = await tenant.user()
    home = await tenant.home(owner)
    async with AsyncExitStack() as stack:
        path = f"{EVENTS}?homeId={home}"
        yield (
            home,
            [
                await stack.enter_async_context(await listen(tenant.url, path, owner.key))
                for _ in range(count)
            ],
        )


def slot_of_home(home: int) -> int:
    return slot_of(stream_of(home))


async def put_while(tenant: Tenant, home: int, happen: Callable[[], None]) -> list[str]:
    """Put events until something has happened to the cluster; the names of those that were acknowledged."""
    acknowledged: list[str] = []
    happening: asyncio.Task[None] | None = None
    number = 0
    while happening is None or not happening.done():
        number += 1
        if await is_taken(tenant, home, f"event {number}"):
            acknowledged.append(f"event {number}")
        if happening is None and len(acknowledged) == BEFORE:
            happening = asyncio.create_task(asyncio.to_thread(happen))
    happening.result()
    return acknowledged


@pytest.mark.parametrize("how", HAPPENINGS)
async def test_change_of_the_cluster_in_a_stream_of_events_loses_none_in_silence(
    cluster: ClusterSet, short_directory: Path, how: str
) -> None:
    with node_on(cluster, short_directory) as node:
        async with tenant_of(node) as tenant, listeners(tenant, LISTENERS) as (home, sockets):
            slot = slot_of_home(home)
            acknowledged = await put_while(tenant, home, lambda: HAPPENINGS[how](cluster, slot))
            await eventually(lambda: is_taken(tenant, home, "last"), TIMEOUT_S)
            received = await asyncio.gather(*(receive_until(socket, "last") for socket in sockets))
        for names, code in received:
            assert len(names) == len(set(names))
            if how == "master killed" and code is not None:
                assert code == RESYNC
            else:
                assert code is None
                assert set(acknowledged) <= set(names)


async def test_acknowledged_event_that_the_new_master_lacks_is_told(
    cluster: ClusterSet, short_directory: Path
) -> None:
    with node_on(cluster, short_directory) as node:
        async with tenant_of(node) as tenant, listeners(tenant, 2) as (home, sockets):
            slot = slot_of_home(home)
            await asyncio.to_thread(cluster.until_in_sync)
            with cluster.without_replication(slot) as master:
                assert await is_taken(tenant, home, "lost")
                for socket in sockets:
                    assert await socket.receive_type() == "lost"
                master.kill()
            await asyncio.to_thread(cluster.until_replaced, master, slot)
            for socket in sockets:
                assert await receive_until(socket, "never sent") == ([], RESYNC)


async def test_rest_service_and_command_line_work_on_a_cluster(
    cluster: ClusterSet, short_directory: Path
) -> None:
    with node_on(cluster, short_directory) as node:
        async with tenant_of(node) as tenant:
            homes = [await tenant.home(await tenant.user()) for _ in range(10)]
            assert len(set(homes)) == 10
        assert tenant.project in {each["projectId"] for each in await node.cli("project", "list")}
        options = ("--port", 0, "--json", "--redis", node.redis_url, "--data-dir", node.data_dir)
        checked = json.loads(await run_homewire("check", *options))
        assert [each for each in checked["checks"] if each["level"] == "fatal"] == []
