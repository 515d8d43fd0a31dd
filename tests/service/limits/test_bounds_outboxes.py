"""What may wait for clients that do not read: in sum, how long, and in the kernel; and what they may say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import pytest

from kit.client import CLOSE, TEXT, Socket, frame, listen
from kit.node import NodeProcess, eventually, private_node, running_node
from kit.tenant import Account, Tenant, tenant_of

EVENTS = "/userSession/websocket"
KIB = 1024
MIB = 1024 * KIB
LOOPS = ["uvloop", "asyncio"]
KERNEL_BYTES = 64 * KIB
"""What the kernel may hold for each socket here, so that the outboxes fill first."""


@dataclass
class Listener:
    """A user with a home of its own, and so a scope of its own: what waits for it is shared with nobody."""

    user: Account
    home: int
    socket: Socket


@asynccontextmanager
async def listeners(tenant: Tenant, *slow: bool) -> AsyncIterator[list[Listener]]:
    """One listener for each; those who are `slow` have a small buffer of their own."""
    async with AsyncExitStack() as stack:
        made = []
        for is_slow in slow:
            user = await tenant.user()
            home = await tenant.home(user)
            buffer = 4096 if is_slow else None
            socket = await listen(tenant.url, EVENTS, user.key, receive_buffer=buffer)
            made.append(Listener(user, home, await stack.enter_async_context(socket)))
        yield made


async def send(tenant: Tenant, to: Listener, size: int) -> None:
    """So many bytes of events, in pieces of 30 KB."""
    event = {"homeId": to.home, "eventType": "long", "eventData": {"text": "x" * 30_000}}
    for start in range(0, size, 600_000):
        await tenant.send(*[event] * (min(size - start, 600_000) // 30_000))


async def close_code(socket: Socket) -> int:
    while (received := await socket.receive_any()).opcode != CLOSE:
        pass
    return received.close_code


async def receives(tenant: Tenant, listener: Listener, name: str) -> None:
    """It receives the next event at once, behind whatever it did not read yet."""
    await tenant.send({"homeId": listener.home, "eventType": name})
    while (kind := await listener.socket.receive_type()) != name:
        assert kind == "long"


async def test_longest_send_queue_is_evicted_over_memory_limit() -> None:
    bounds = {"send_queue_bytes": 16 * MIB, "send_queues_bytes": 3 * MIB, "socket_unsent_bytes": KERNEL_BYTES}
    with private_node(**bounds) as node:
        async with (
            tenant_of(node) as tenant,
            listeners(tenant, True, True, False) as (little, far, none),
        ):
            await send(tenant, little, 300_000)
            await send(tenant, far, 2_400_000)
            assert (await node.metrics())["evicted_total"] == 0
            # It is these few bytes that pass the bound, and not who gets them that goes.
            while not (await node.metrics())["evicted_total"]:
                await send(tenant, little, 60_000)
                await receives(tenant, none, "meanwhile")
            assert await close_code(far.socket) == 4001
            await node.until("evicted_by_memory_total", 1)
            metrics = await node.metrics()
            assert metrics["evicted_total"] == 1
            assert metrics["send_queues_bytes"] < 3 * MIB
            await receives(tenant, little, "little")
            await receives(tenant, none, "none")
            await node.until("send_queues_bytes", 0)


async def test_old_unsent_frame_closes_its_connection_only() -> None:
    with private_node(send_queue_age_s=2, socket_unsent_bytes=KERNEL_BYTES) as node:
        async with tenant_of(node) as tenant, listeners(tenant, True, False) as (stalled, other):
            loop = asyncio.get_running_loop()
            began = loop.time()
            # Well within the outbox's own bound.
            await send(tenant, stalled, 600_000)
            async with asyncio.timeout(60):
                while not (await node.metrics())["evicted_by_age_total"]:
                    await receives(tenant, other, "meanwhile")
            assert loop.time() - began >= 2
            assert await close_code(stalled.socket) == 4001
            assert (await node.metrics())["evicted_total"] == 1
            await receives(tenant, other, "after")


async def kernel_takes(tenant: Tenant, node: NodeProcess) -> float:
    """How many bytes the kernel takes for a client that does not read."""
    async with listeners(tenant, True, False) as (stalled, other):
        before = (await node.metrics())["bytes_written_total"]
        await send(tenant, stalled, 6 * MIB)
        # Of what is read from several shards at once, the last may be delivered first; what is sent after
        # that was received is read after all of it.
        for name in ("beside them", "behind them"):
            await receives(tenant, other, name)
        return (await node.metrics())["bytes_written_total"] - before


USUAL: dict[str, Any] = {"send_queue_bytes": 16 * MIB, "socket_unsent_bytes": 0}
BOUNDED = USUAL | {"socket_unsent_bytes": KERNEL_BYTES}


@pytest.mark.parametrize(
    ("bounds", "least", "most"),
    [
        (USUAL, 512 * KIB, 16 * MIB),
        (BOUNDED, KERNEL_BYTES // 2, 256 * KIB),
        (USUAL | {"socket_send_buffer_bytes": KERNEL_BYTES}, KERNEL_BYTES // 2, 256 * KIB),
        # And the pump, its pair of sockets, and what the client's own TLS reads ahead.
        *((BOUNDED | {"tls": True, "event_loop": loop}, KERNEL_BYTES // 2, 1536 * KIB) for loop in LOOPS),
    ],
    ids=["usual", "unsent", "send buffer", *(f"tls {loop}" for loop in LOOPS)],
)
async def test_kernel_holds_little_for_a_client_that_does_not_read(
    bounds: dict[str, Any], least: int, most: int
) -> None:
    with private_node(**bounds) as node:
        async with tenant_of(node) as tenant:
            assert least < await kernel_takes(tenant, node) < most


async def test_unresponsive_peer_is_closed_by_kernel_timeout() -> None:
    with private_node(send_queue_bytes=16 * MIB, socket_timeout_s=2) as node:
        async with tenant_of(node) as tenant, listeners(tenant, True, False) as (stalled, other):
            await send(tenant, stalled, 6 * MIB)
            await node.until("connections", 1, within=30)
            assert (await node.metrics())["evicted_total"] == 0
            await receives(tenant, other, "after")


async def test_reading_pauses_while_messages_are_not_taken() -> None:
    bound = 128 * KIB
    with private_node(steps=True, messages=bound) as node:
        async with tenant_of(node) as own, listeners(own, False, False) as (listening, talking):
            with running_node(node.data_dir, redis_url=node.redis_url) as second:
                async with tenant_of(second) as elsewhere:
                    # What is sent to the second node is delivered by the first, whose loop stands still.
                    tenant = Tenant(
                        own.store, own.redis, own.project, second.url, own.key, own.key_id, elsewhere.http
                    )

                    async def deliver() -> None:
                        await receives(tenant, listening, "meanwhile")

                    node.say("hold")
                    await node.prints("held")
                    said = await talk_until_not_read(talking.socket, deliver)
                    node.say("x")
                    await node.prints("released")
            # What waited for longest is taken now, and then the rest.
            talking.socket.writer.transport.set_write_buffer_limits()
            await talking.socket.writer.drain()
            await eventually(lambda: all_taken(node, said))
            assert (await node.metrics())["reads_paused_total"] > 0
            assert await talking.socket.is_alive()


async def talk_until_not_read(socket: Socket, deliver: Callable[[], Awaitable[None]]) -> int:
    """Messages until they stay in our own buffer; how many were said. Meanwhile the core can `deliver`."""
    raw = socket.writer.get_extra_info("socket")
    raw.setsockopt(SOL_SOCKET, SO_SNDBUF, 64 * KIB)
    socket.writer.transport.set_write_buffer_limits(0)
    message = frame(TEXT, b"x" * 60_000)
    said = waited = 0
    # A core that only stood still delivers when it goes on, and reads on.
    while waited < 3:
        if not socket.writer.transport.get_write_buffer_size():
            waited = 0
            socket.writer.write(message)
            said += 1
            assert said * len(message) < 2 * MIB, "more than the bound and the kernel hold"
        try:
            async with asyncio.timeout(0.5):
                await socket.writer.drain()
        except TimeoutError:
            waited += 1
            await deliver()
    return said


async def all_taken(node: NodeProcess, said: int) -> bool:
    metrics = await node.metrics()
    return metrics["messages_total"] == said and metrics["messages_bytes"] == 0
