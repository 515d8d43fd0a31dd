"""Clients that do not read, beside one that does."""

from __future__ import annotations

from kit.client import CLOSE, TEXT, Socket, close_frame, listen
from kit.node import NodeProcess
from kit.tenant import Account, Tenant, tenant_of

EVENTS = "/userSession/websocket"

MOST_BYTES = 60_000_000
"""The kernel's own buffers come first; they take some MB."""


async def send_until_too_slow(node: NodeProcess, tenant: Tenant, home: int, quick: Socket, size: int) -> int:
    """Send numbered events of `size` bytes until the node evicts a client; `quick` receives each at once."""
    data = {"text": "x" * size}
    count, before = 0, (await node.metrics())["evicted_total"]
    while (await node.metrics())["evicted_total"] == before:
        events = [{"homeId": home, "eventType": str(count + n), "eventData": data} for n in range(20)]
        await tenant.send(*events)
        for event in events:
            assert await quick.receive_type() == event["eventType"]
        count += len(events)
        assert count * size < MOST_BYTES, "all this waits for a client with a small outbox"
    return count


async def close_one_that_does_not_read(node: NodeProcess, size: int) -> None:
    """It gets what it can, whole and in order, and 4001; another one receives everything at once."""
    async with tenant_of(node) as tenant:
        user = await tenant.user()
        home = await tenant.home(user)
        async with (
            await listen(node.url, EVENTS, user.key, receive_buffer=4096) as slow,
            await listen(node.url, EVENTS, user.key) as quick,
        ):
            sent = await send_until_too_slow(node, tenant, home, quick, size)
            assert await quick.is_alive()
            assert await received_until_evicted(slow) < sent
            await slow.send_bytes(close_frame(4001))
            assert await slow.at_end()
        assert (await node.metrics())["evicted_total"] == 1


async def received_until_evicted(slow: Socket) -> int:
    """How much reaches a slow client: all of it whole, in order, and then the code that says: come back."""
    texts = 0
    while (received := await slow.receive_any()).opcode != CLOSE:
        if received.opcode == TEXT:
            assert received.payload.startswith(b'{"eventType":"%d",' % texts)
            texts += 1
    assert received.close_code == 4001
    return texts


async def let_go_of_one_that_never_reads_again(
    node: NodeProcess, tenant: Tenant, user: Account, home: int, size: int, descriptors: int
) -> None:
    """The client is evicted and its `descriptors` are closed; a client that reads is not affected."""
    async with await listen(node.url, EVENTS, user.key) as quick:
        # Also opens the connection that this client keeps.
        await tenant.send({"homeId": home, "eventType": "first"})
        assert await quick.receive_type() == "first"
        before = node.descriptors
        async with await listen(node.url, EVENTS, user.key, receive_buffer=4096):
            await send_until_too_slow(node, tenant, home, quick, size)
            await node.until("connections", 1)
            assert await quick.is_alive()
            await quick.drop()
            await node.settles(before - descriptors)
