"""At the limit on open files no client is answered 101 and then forgotten, and no descriptor is lost."""

from __future__ import annotations

import asyncio
import os
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import ClientSession

from kit.client import Refused, listen
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import tenant_of

EVENTS = "/userSession/websocket"
CLIENTS = 60
ROOM = 25
"""Descriptors that are left to the node: with two for a client in its handshake, far too few for all."""
REFUSED = "refused 503, Retry-After 1"
ENDED = (ConnectionError, asyncio.IncompleteReadError)
"""How a client sees that its connection was closed."""


@contextmanager
def few_descriptors(node: NodeProcess, room: int) -> Iterator[None]:
    """The node may open `room` descriptors more than it has."""
    before = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    # The limit is on the highest number, and there are gaps below it.
    numbers = {int(name) for name in os.listdir(f"/proc/{node.pid}/fd")}
    limit = max(numbers) + 1
    while limit - len(numbers) < room:
        limit += 1
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, before)


async def outcome(url: str, key: str, all_came: asyncio.Event) -> str:
    """What became of one client: refused, closed or served. One that is served stays until all came."""
    try:
        socket = await listen(url, EVENTS, key)
    except Refused as refused:
        return f"refused {refused.answer.status}, Retry-After {refused.answer.headers.get('retry-after')}"
    except ENDED:
        return "closed"
    async with socket:
        try:
            assert await socket.is_alive()
            await all_came.wait()
            assert await socket.is_alive()
        except ENDED:
            return "closed"
        return "served"


async def too_many(node: NodeProcess, admin: ClientSession, key: str) -> Counter[str]:
    """Outcomes of more clients than the node has descriptors for."""
    all_came = asyncio.Event()
    before = await pauses(admin)
    clients = [asyncio.create_task(outcome(node.url, key, all_came)) for _ in range(CLIENTS)]

    async def limit_reached() -> bool:
        return await pauses(admin) > before or all(client.done() for client in clients)

    try:
        await eventually(limit_reached)
    finally:
        # Those who wait in the backlog find room when these leave.
        all_came.set()
    return Counter(await asyncio.gather(*clients))


async def pauses(admin: ClientSession) -> float:
    """How often the node found no descriptor for a connection, asked on a connection that is kept."""
    async with admin.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("homewire_accept_pauses_total "))
    return float(value)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_every_client_is_refused_closed_or_served_at_the_limit_on_open_files(tls: bool) -> None:
    # Without the bound of an address, which would end before the descriptors do.
    with private_node(tls=tls, descriptor_reserve=0, address_tcp_connections=0) as node:
        async with tenant_of(node) as tenant, ClientSession(node.admin_url) as admin:
            user = await tenant.user()
            async with await listen(node.url, EVENTS, user.key) as first:
                # What a first handshake opens for good is open before the count.
                assert await first.is_alive()
            await node.settles()
            await pauses(admin)
            before = node.descriptors
            total: Counter[str] = Counter()
            # One descriptor more each time: each step of a handshake is the one that finds none once.
            for room in range(ROOM, ROOM + 4):
                with few_descriptors(node, room):
                    total += await too_many(node, admin, user.key)
                await node.settles(before)
            assert total.keys() <= {"served", "closed", REFUSED}, total
            assert total["served"] > 0, total
            assert total[REFUSED] > 0, total
            async with await listen(node.url, EVENTS, user.key) as after:
                assert await after.is_alive()
            assert "Traceback" not in node.log.read_text()
