"""The bounds before a socket is given to the core: heads, handshakes, accepts, bodies."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import orjson
import psutil
import pytest

from kit.client import Answer, RawConnection, Refused, Socket, listen, raw_request
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import Tenant, tenant_of

EVENTS = "/userSession/websocket"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
LOOPS = ["uvloop", "asyncio"]
HEAD_S = 2.0
CHUNKED = "Transfer-Encoding: chunked"
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=LOOPS)
def impatient(request: pytest.FixtureRequest) -> Iterator[NodeProcess]:
    """A node that waits `HEAD_S` for a head."""
    with private_node(request_header_timeout_s=HEAD_S, event_loop=request.param) as node:
        yield node


async def seconds_until_cut(connection: RawConnection, began: float) -> float:
    # A byte that comes while the node closes its socket makes that a reset.
    with suppress(ConnectionResetError):
        assert await connection.reader.read() == b""
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("start", [b"", HEALTH[:20]])
async def test_connection_without_request_head_is_cut(impatient: NodeProcess, start: bytes) -> None:
    before = (await impatient.metrics())["request_headers_timed_out_total"]
    began = asyncio.get_running_loop().time()
    async with await RawConnection.open(impatient.url) as connection, asyncio.timeout(20):
        connection.writer.write(start)
        assert await seconds_until_cut(connection, began) >= HEAD_S * 0.9
    assert (await impatient.metrics())["request_headers_timed_out_total"] == before + 1


async def drip(connection: RawConnection, head: bytes) -> None:
    for byte in head:
        connection.writer.write(bytes([byte]))
        # The pace of a client that wants to hold its connection. The node cuts it, whatever the pace.
        await asyncio.sleep(0.2)


async def test_slow_request_head_is_cut_at_same_time(impatient: NodeProcess) -> None:
    endless = b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 1000
    async with await RawConnection.open(impatient.url) as connection, asyncio.timeout(20):
        dripping = asyncio.create_task(drip(connection, endless))
        await seconds_until_cut(connection, 0)
        dripping.cancel()


async def test_next_head_of_kept_connection_is_cut_like_the_first(impatient: NodeProcess) -> None:
    async with await RawConnection.open(impatient.url) as connection, asyncio.timeout(30):
        connection.writer.write(HEALTH)
        assert (await connection.read_answer()).status == 200
        began = asyncio.get_running_loop().time()
        dripping = asyncio.create_task(drip(connection, HEALTH[:-1]))
        assert await seconds_until_cut(connection, began) >= HEAD_S * 0.9
        dripping.cancel()


async def test_open_websocket_is_not_timed_as_head(node: NodeProcess, tenant: Tenant) -> None:
    user = await tenant.user()
    async with await listen(tenant.url, EVENTS, user.key) as listener:
        await node.until("request_headers_awaited", 0)
        assert await listener.is_alive()


def request_head(request: str, tenant: Tenant, *headers: str) -> bytes:
    lines = [f"{request} HTTP/1.1", "Host: h", f"Authorization: {tenant.key}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def event_head(tenant: Tenant, home: int, *headers: str) -> bytes:
    return request_head(f"PUT /homes/{home}/event", tenant, *headers)


@asynccontextmanager
async def node_with_listener(**settings: Any) -> AsyncIterator[tuple[NodeProcess, Tenant, Socket, int]]:
    """A node, and somebody who is connected before anything else happens, with its home."""
    with private_node(**settings) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            async with await listen(node.url, EVENTS, user.key) as listener:
                yield node, tenant, listener, home


async def receives(tenant: Tenant, listener: Socket, home: int, name: str) -> None:
    await tenant.send({"homeId": home, "eventType": name})
    assert await listener.receive_type() == name


async def ask(tenant: Tenant) -> Socket:
    """A handshake of a new user, of which nothing is read yet."""
    user = await tenant.user()
    connection = await Socket.open(tenant.url)
    await connection.ask(EVENTS, user.key)
    return connection


async def test_handshakes_queue_and_are_refused_beyond_it() -> None:
    bounds = {"handshakes": 1, "handshake_queue": 3, "handshake_wait_s": 30, "reservation_s": 30}
    async with node_with_listener(steps=True, **bounds) as (node, tenant, listener, home):
        node.say("pause authorise")
        await node.prints("paused authorise")
        async with await ask(tenant) as first:
            await node.prints("at authorise")
            async with await ask(tenant) as second:
                await node.until("handshakes_waiting", 1)
                await come_and_go(node, tenant)
                async with await ask(tenant) as third:
                    await node.until("handshakes_waiting", 3)
                    async with await ask(tenant) as fourth:
                        with pytest.raises(Refused) as refused:
                            await fourth.accepted()
                        sent_away(refused.value.answer)
                    await receives(tenant, listener, home, "meanwhile")
                    node.say("go authorise")
                    for waiting in (first, second, third):
                        await waiting.accepted()
                        assert await waiting.is_alive()
        metrics = await node.metrics()
        assert metrics["handshakes_refused_total"] == 1
        assert metrics["handshakes_in_flight"] == metrics["handshakes_waiting"] == 0
        await receives(tenant, listener, home, "after")


async def come_and_go(node: NodeProcess, tenant: Tenant) -> None:
    """A client that gives up while it waits: its turn is nobody's."""
    async with await ask(tenant):
        await node.until("handshakes_waiting", 2)
        descriptors = node.descriptors

    async def is_noticed() -> bool:
        return node.descriptors < descriptors

    await eventually(is_noticed)


def sent_away(answer: Answer) -> None:
    assert answer.status == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    assert answer.json()["data"]["limit"] == "handshakes"


async def test_handshake_waits_only_so_long_and_its_place_is_not_lost() -> None:
    bounds = {"handshakes": 1, "handshake_wait_s": 1, "reservation_s": 30}
    async with node_with_listener(steps=True, **bounds) as (node, tenant, _listener, _home):
        node.say("pause authorise")
        await node.prints("paused authorise")
        async with await ask(tenant) as first, await ask(tenant) as second:
            await node.prints("at authorise")
            with pytest.raises(Refused) as refused:
                await second.accepted()
            sent_away(refused.value.answer)
            await node.until("handshakes_waiting", 0)
            node.say("go authorise")
            await first.accepted()
            async with await ask(tenant) as next_one:
                await next_one.accepted()
        await node.until("handshakes_in_flight", 0)


@pytest.mark.parametrize("loop", LOOPS)
async def test_storm_gets_in_and_delays_no_delivery(loop: str) -> None:
    bounds = {"handshakes": 2, "handshake_wait_s": 30, "reservation_s": 30, "accepts_per_turn": 1}
    others = {"user_connections": 0, "event_loop": loop}
    async with node_with_listener(steps=True, **bounds, **others) as (node, tenant, listener, home):
        node.say("pause authorise")
        await node.prints("paused authorise")
        user = await tenant.user()
        storm = asyncio.gather(*(listen(node.url, EVENTS, user.key) for _ in range(300)))
        await node.until("handshakes_waiting", 298)
        await receives(tenant, listener, home, "all of them wait")
        node.say("go authorise")
        sent = 0
        while not storm.done():
            await receives(tenant, listener, home, str(sent))
            sent += 1
        sockets = await storm
        # A client may have its 101 a moment before the core has its socket.
        await node.until("connections", 301)
        for connection in sockets:
            await connection.drop()


@pytest.mark.parametrize("loop", LOOPS)
async def test_running_out_of_descriptors_is_survived(loop: str) -> None:
    async with node_with_listener(event_loop=loop, descriptor_reserve=0) as (node, tenant, listener, home):
        # Its connection to the node is open from here on.
        await receives(tenant, listener, home, "before")
        limit = node.all_descriptors + 5
        process = psutil.Process(node.pid)
        usual = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(resource.RLIMIT_NOFILE, (limit, usual[1]))
        idle = [await RawConnection.open(node.url) for _ in range(20)]
        await eventually(lambda: is_logged(node, "no connection is accepted"))
        await receives(tenant, listener, home, "meanwhile")
        process.rlimit(resource.RLIMIT_NOFILE, usual)
        assert (await raw_request(node.url, HEALTH)).status == 200
        assert (await node.metrics())["accept_pauses_total"] >= 1
        for connection in idle:
            await connection.drop()


async def is_logged(node: NodeProcess, words: str) -> bool:
    return words in node.logged()


@pytest.mark.parametrize("loop", LOOPS)
async def test_stopping_node_refuses_new_connections(loop: str) -> None:
    async with node_with_listener(event_loop=loop, close_s=30) as (node, _tenant, listener, _home):
        stopping = asyncio.create_task(node.stop())
        # It does not answer the close frame, so that the node waits for it.
        assert (await listener.receive()).close_code == 1001
        parts = urlsplit(node.url)
        with socket.socket() as late, pytest.raises(ConnectionRefusedError):
            late.connect((parts.hostname, parts.port))
        assert node.process.poll() is None
        await listener.drop()
        assert await stopping == 0


async def test_bodies_beyond_the_sum_are_sent_away() -> None:
    bounds = {"request_bodies_bytes": 4 * MIB, "body_timeout_s": 20}
    async with node_with_listener(**bounds) as (node, tenant, listener, home):
        head = request_head("POST /events", tenant, f"Content-Length: {4 * MIB}")
        async with await RawConnection.open(node.url) as announced:
            announced.writer.write(head)
            # Nothing of it has come.
            await node.until("request_bodies_bytes", 4 * MIB)
            event = orjson.dumps({"eventType": "refused"})
            answer = await raw_request(
                node.url, event_head(tenant, home, f"Content-Length: {len(event)}") + event
            )
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["data"]["limit"] == "request_bodies_bytes"
            chunked = event_head(tenant, home, CHUNKED)
            answer = await raw_request(node.url, chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
            assert answer.status == 503
            # Others are not touched by it.
            assert (await raw_request(node.url, HEALTH)).status == 200
            assert await listener.is_alive()
        await node.until("request_bodies_bytes", 0)
        await receives(tenant, listener, home, "after")
        metrics = await node.metrics()
        assert (metrics["request_bodies_refused_total"], metrics["request_bodies_bytes"]) == (2, 0)


async def test_body_without_length_counts_as_it_arrives() -> None:
    async with node_with_listener(request_bodies_bytes=4 * MIB, body_timeout_s=20) as (
        node,
        tenant,
        listener,
        home,
    ):
        head = request_head("POST /events", tenant, CHUNKED)
        async with await RawConnection.open(node.url) as connection:
            connection.writer.write(head + b"%x\r\n%b\r\n" % (MIB, b" " * MIB))
            await node.until("request_bodies_bytes", MIB)
        # The client is gone, and with it what it sent.
        await node.until("request_bodies_bytes", 0)
        await receives(tenant, listener, home, "after")
