"""One address without a key opens all the connections that it can: others are served, and nothing is lost."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import psutil
import pytest

from kit.client import RawConnection, Socket
from kit.node import NodeProcess, private_node
from kit.tenant import tenant_of

EVENTS = "/userSession/websocket"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
HOSTILE, HONEST = "127.0.0.3", "127.0.0.2"
FILES = 300
ATTEMPTS = FILES + 60
"""More than there are descriptors."""
LOOPS = ["uvloop", "asyncio"]
GONE = (ConnectionError, EOFError)
"""How a client learns that its connection was closed."""


@pytest.fixture(scope="module", params=[(tls, loop) for tls in (False, True) for loop in LOOPS])
def scarce(request: pytest.FixtureRequest) -> Iterator[NodeProcess]:
    """A node with few descriptors, where an address may have as many of them as it can get."""
    tls, event_loop = request.param
    patient = {"request_header_timeout_s": 60, "keep_alive_s": 600}
    with private_node(tls=tls, event_loop=event_loop, address_tcp_connections=0, **patient) as node:
        few_descriptors(node)
        yield node


def few_descriptors(node: NodeProcess) -> None:
    process = psutil.Process(node.pid)
    process.rlimit(resource.RLIMIT_NOFILE, (FILES, process.rlimit(resource.RLIMIT_NOFILE)[1]))


@asynccontextmanager
async def many_connections(url: str, first: bytes, answered: bool) -> AsyncIterator[None]:
    """As many connections of one address as it can open; each says `first`, and then nothing more."""
    opened: list[RawConnection] = []

    async def read_answer(connection: RawConnection) -> None:
        with suppress(*GONE):
            await connection.read_answer()

    try:
        for _ in range(ATTEMPTS):
            with suppress(*GONE):
                opened.append(connection := await RawConnection.open(url, source=HOSTILE))
                connection.writer.write(first)
        if answered:
            # Together: a refused connection is closed a second later.
            await asyncio.gather(*map(read_answer, opened))
        yield
    finally:
        for connection in opened:
            await connection.drop()


async def is_served(node: NodeProcess) -> None:
    """An honest client gets answers, keeps its connection while it uses it, and learns of events."""
    async with tenant_of(node) as tenant:
        user = await tenant.user()
        home = await tenant.home(user)
        async with await Socket.open(node.url, source=HONEST) as listener:
            await listener.upgrade(EVENTS, user.key)
            async with await RawConnection.open(node.url, source=HONEST) as connection:
                for number in range(3):
                    body = b'{"eventType":"%d"}' % number
                    head = f"PUT /homes/{home}/event HTTP/1.1\r\nHost: h\r\nAuthorization: {tenant.key}\r\n"
                    connection.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                    assert (await connection.read_answer()).status == 204
                    assert await listener.receive_type() == str(number)


@pytest.mark.parametrize(("first", "answered"), [(HEALTH, True), (b"", False), (HEALTH[:9], False)])
async def test_idle_connection_makes_room_for_others(
    scarce: NodeProcess, first: bytes, answered: bool
) -> None:
    before = scarce.descriptors
    closed = (await scarce.metrics())["connections_evicted_total"]
    async with many_connections(scarce.url, first, answered):
        await is_served(scarce)
        assert (await scarce.metrics())["connections_evicted_total"] > closed
    await scarce.settles(before, 30)


async def test_address_has_a_part_of_the_descriptors_at_most() -> None:
    with private_node(keep_alive_s=600) as node:
        few_descriptors(node)
        before = node.descriptors
        async with many_connections(node.url, HEALTH, True):
            # A quarter of what is not the reserve.
            assert node.descriptors <= before + FILES // 4
            await is_served(node)
            metrics = await node.metrics()
            assert metrics['refused_total{limit="address_tcp_connections"}'] > 0
            assert metrics["connections_evicted_total"] == 0
        await node.settles(before, 30)


async def test_address_has_as_many_connections_as_the_setting_says() -> None:
    with private_node(address_tcp_connections=3, trusted_proxies="127.0.0.4") as node:
        kept = [await RawConnection.open(node.url, source=HOSTILE) for _ in range(3)]
        for connection in kept:
            connection.writer.write(HEALTH)
            assert (await connection.read_answer()).status == 200
        async with await RawConnection.open(node.url, source=HOSTILE) as late:
            late.writer.write(HEALTH)
            assert await late.at_end(30)
        # A balancer has the connections of all its clients.
        for _ in range(5):
            kept.append(await RawConnection.open(node.url, source="127.0.0.4"))
            kept[-1].writer.write(HEALTH)
            assert (await kept[-1].read_answer()).status == 200
        await kept.pop(0).drop()
        await is_accepted_again(node)
        for connection in kept:
            await connection.drop()


async def is_accepted_again(node: NodeProcess) -> None:
    """The place of a connection that ended is free, once the node has seen its end."""
    while True:
        async with await RawConnection.open(node.url, source=HOSTILE) as connection:
            with suppress(*GONE):
                connection.writer.write(HEALTH)
                assert (await connection.read_answer()).status == 200
                return


async def test_websockets_take_no_place_of_an_address() -> None:
    with private_node(address_tcp_connections=1) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            listeners = []
            for _ in range(3):
                listeners.append(await Socket.open(node.url, source=HOSTILE))
                await listeners[-1].upgrade(EVENTS, user.key)
                await node.until("connections", len(listeners))
            for listener in listeners:
                assert await listener.is_alive()
                await listener.drop()


async def test_connection_may_rest_as_long_as_the_setting_says() -> None:
    with private_node(keep_alive_s=1) as node:
        async with await RawConnection.open(node.url) as connection:
            connection.writer.write(HEALTH)
            assert (await connection.read_answer()).status == 200
            assert await connection.at_end(30)
