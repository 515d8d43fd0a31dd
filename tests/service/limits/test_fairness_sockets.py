"""Clients that send without end, listen to very much, or get much at once, and what others notice of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import orjson
import pytest

from kit.client import CLOSE, PING, PONG, TEXT, Frame, Socket, frame, listen, refusal
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import Tenant, tenant_of

EVENTS = "/userSession/websocket"
SOCKETS = 20
MANY = 2_000
FLOODS = {"pings": frame(PING), "empty texts": frame(TEXT), "pongs": frame(PONG)}
NO_ALLOWANCE: dict[str, Any] = {"inbound_frames_per_s": 0, "inbound_bytes_per_s": 0}
KIB, BULK_ITEMS, BULK_BODY_BYTES = 1024, 1000, 4 << 20


async def flood(socket: Socket, wire: bytes) -> None:
    """Sends without end and reads nothing, until the connection ends."""
    with suppress(ConnectionError):
        while True:
            await socket.send_bytes(wire * MANY)


@asynccontextmanager
async def flooded(tenant: Tenant, wire: bytes) -> AsyncIterator[list[Socket]]:
    """Sockets of one user, all of which flood."""
    user = await tenant.user()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as floods:
        sockets = [
            await stack.enter_async_context(await listen(tenant.url, EVENTS, user.key))
            for _ in range(SOCKETS)
        ]
        tasks = [floods.create_task(flood(socket, wire)) for socket in sockets]
        yield sockets
        for task in tasks:
            task.cancel()


async def receives_all(tenant: Tenant, home: int, listener: Socket, count: int) -> None:
    """Each event is received in its order before the next is sent, and a ping is answered all the while."""
    device = await tenant.device(home)
    for number in range(count):
        body = {"eventType": str(number)}
        assert (await tenant.put(f"/devices/{device.id}/event", device.key, body))[0] == 204
        assert await listener.receive_type() == str(number)
        assert await listener.is_alive()


@pytest.fixture(scope="module")
def unrestrained() -> Iterator[NodeProcess]:
    """A node whose clients may send as much as they like."""
    with private_node(**NO_ALLOWANCE) as node:
        yield node


@pytest.mark.parametrize("kind", FLOODS)
async def test_flooding_sockets_leave_other_projects_every_event(
    unrestrained: NodeProcess, kind: str
) -> None:
    node = unrestrained
    async with tenant_of(node) as honest, tenant_of(node) as hostile:
        user = await honest.user()
        home = await honest.home(user)
        async with await listen(node.url, EVENTS, user.key) as listener, flooded(hostile, FLOODS[kind]):
            before = (await node.metrics())["reads_deferred_total"]
            await node.reaches("reads_deferred_total", before + 10)
            await receives_all(honest, home, listener, 30)
            # It went on all the while.
            before = (await node.metrics())["reads_deferred_total"]
            await node.reaches("reads_deferred_total", before + 10)
            assert (await node.metrics())["inbound_exceeded_total"] == 0


@pytest.mark.parametrize("kind", FLOODS)
async def test_client_that_sends_more_than_its_allowance_is_closed_with_1008(kind: str) -> None:
    with private_node() as node:
        async with tenant_of(node) as honest, tenant_of(node) as hostile:
            user = await honest.user()
            home = await honest.home(user)
            async with await listen(node.url, EVENTS, user.key) as listener:
                async with flooded(hostile, FLOODS[kind]) as sockets:
                    await receives_all(honest, home, listener, 10)
                    for socket in sockets:
                        assert await close_code(socket) in (1008, None)
                await node.until("inbound_exceeded_total", SOCKETS)
                await node.until("connections", 1)
                await receives_all(honest, home, listener, 10)


async def test_closed_with_1008_delays_the_next_handshakes_of_that_user_alone() -> None:
    with private_node(inbound_frames_per_s=1) as node:
        async with tenant_of(node) as tenant:
            hostile, honest = await tenant.user(), await tenant.user()
            # Each closed connection costs a second's worth of handshakes: together more than the most, 10 s.
            async with AsyncExitStack() as stack:
                sockets = [
                    await stack.enter_async_context(await listen(node.url, EVENTS, hostile.key))
                    for _ in range(SOCKETS)
                ]
                for socket in sockets:
                    await socket.send_bytes(frame(PONG) * 100)
                await node.reaches("inbound_exceeded_total", SOCKETS)
            answer = await refusal(node.url, EVENTS, hostile.key)
            assert (answer.status, answer.json()["data"]["limit"]) == (429, "principal_handshakes_per_s")
            assert 1 <= int(answer.headers["retry-after"]) <= 11
            async with await listen(node.url, EVENTS, honest.key):
                pass


async def close_code(socket: Socket) -> int | None:
    """Of its close frame; None if a reset came first, because the client was still sending."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while (received := await socket.receive_any()).opcode != CLOSE:
            assert received.opcode in (PING, PONG)
        return received.close_code
    return None


async def test_close_code_of_too_much_is_1008() -> None:
    with private_node(inbound_frames_per_s=1) as node:
        async with tenant_of(node) as tenant, await listen(node.url, EVENTS, (await tenant.user()).key) as it:
            await it.send_bytes(frame(PONG) * 100)
            received = await it.receive()
            assert (received.opcode, received.close_code) == (CLOSE, 1008)
            assert await it.at_end()


async def test_client_that_pings_one_at_a_time_gets_each_answered() -> None:
    with private_node() as node:
        async with tenant_of(node) as tenant, await listen(node.url, EVENTS, (await tenant.user()).key) as it:
            for number in range(100):
                await it.send(PING, b"%d" % number)
                assert await it.receive() == Frame(PONG, b"%d" % number)
            await node.until("inbound_exceeded_total", 0)


async def test_pings_whose_answers_are_not_read_cost_no_memory() -> None:
    """The same by the hundred thousand is 64 MB in a queue of pongs, of which a megabyte are bytes."""
    # The kernel's buffers are as small as they can be: few pongs fill them.
    small: dict[str, Any] = {"socket_send_buffer_bytes": 4 * KIB, "socket_unsent_bytes": 64 * KIB}
    with private_node(**NO_ALLOWANCE, **small) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            async with await listen(node.url, EVENTS, user.key, receive_buffer=4096) as silent:
                # At most 16 pings of a read are answered: long ones fill the buffers of the kernel soonest.
                while not (await node.metrics())["slow_consumers"]:
                    await silent.send_bytes(frame(PING, bytes(125)) * 1_000)
                await silent.send_bytes(frame(PING) * 500_000)
                await silent.send(PING, b"last")
                assert (await node.metrics())["send_queues_bytes"] < 10 * KIB
                while (received := await silent.receive()).payload != b"last":
                    assert received.opcode in (PING, PONG)


async def test_largest_bulk_closes_no_client_that_reads_as_fast_as_its_link() -> None:
    """The client reads nothing before the whole bulk waits for it: no link is slower than that."""
    with private_node(socket_unsent_bytes=64 * KIB) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            empty = {"homeId": home, "eventType": "000", "eventData": {"x": ""}}
            # With the brackets and a comma each, the body is as long as it may be.
            data = {"x": "x" * (BULK_BODY_BYTES // BULK_ITEMS - len(orjson.dumps(empty)) - 1)}
            events = [{**empty, "eventType": f"{n:03}", "eventData": data} for n in range(BULK_ITEMS)]
            assert len(orjson.dumps(events)) > BULK_BODY_BYTES - 1_000
            async with await listen(node.url, EVENTS, user.key, receive_buffer=4096) as slow:
                await tenant.send(*events)
                await node.reaches("matched_total", BULK_ITEMS)
                texts = [await slow.receive_type() for _ in events]
                assert texts == [event["eventType"] for event in events]
                assert await slow.is_alive()
            assert (await node.metrics())["evicted_total"] == 0


def long_filter(count: int) -> str:
    return f"{EVENTS}?" + "&".join(f"entityId={number:03}{'x' * 240}" for number in range(count))


async def test_topics_of_a_user_have_a_limit_and_are_given_back() -> None:
    with private_node(user_topic_bytes=100_000) as node:
        async with tenant_of(node) as tenant:
            user, other = await tenant.user(), await tenant.user()
            await tenant.home(user)
            async with await listen(node.url, long_filter(300), user.key):
                answer = await refusal(node.url, EVENTS, user.key)
                assert answer.status == 429
                assert answer.json()["data"] == {"limit": "user_topic_bytes", "most": 100_000}
                assert int(answer.headers["retry-after"]) > 0
                async with await listen(node.url, EVENTS, other.key) as stranger:
                    assert await stranger.is_alive()
                assert (await node.metrics())['refused_total{limit="user_topic_bytes"}'] == 1
            await node.settles()
            async with await listen(node.url, EVENTS, user.key) as again:
                assert await again.is_alive()


async def test_homes_that_a_filter_follows_count_against_the_limit_on_topics() -> None:
    """Else a filter of many entities would listen in each home that its user enters later."""
    with private_node(user_topic_bytes=100_000) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            await tenant.home(user)
            async with await listen(node.url, long_filter(100), user.key) as socket:
                await tenant.home(user)
                assert await close_code(socket) == 4004

            async def refused() -> bool:
                # While the rest of the others is closed, a place may be free.
                return (await node.metrics())["connections"] == 0

            await eventually(refused)
