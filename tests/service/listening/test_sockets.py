"""What a socket does: pings, heartbeats, close handshakes, wrong frames, clients that do not read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from kit.client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    Socket,
    close_frame,
    frame,
    listen,
)
from kit.node import NodeProcess, private_node
from kit.slow_clients import (
    close_one_that_does_not_read,
    let_go_of_one_that_never_reads_again,
    received_until_evicted,
)
from kit.tenant import Tenant, tenant_of

EVENTS = "/userSession/websocket"
MESSAGE_BYTES = 65_536
SEND_QUEUE_BYTES = 262_144
"""More than the reactor hands out at once: a client that keeps up never exceeds it."""


@pytest_asyncio.fixture
async def socket(tenant: Tenant) -> AsyncIterator[Socket]:
    """A listener with one home."""
    user = await tenant.user()
    await tenant.home(user)
    async with await listen(tenant.url, EVENTS, user.key) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 17, 125])
async def test_ping_is_answered_with_its_payload(socket: Socket, size: int) -> None:
    payload = b"ts=1402313424000"[:size].ljust(size, b"x")
    await socket.send(PING, payload)
    assert await socket.receive() == Frame(PONG, payload)


async def test_pings_are_answered_in_order_and_within_a_message(socket: Socket) -> None:
    wire = frame(TEXT, b"be", final=False)
    # Of one read the first 15 pings are answered, and the last: a stalled node reads all that is under way.
    for start in range(0, 50, 10):
        for number in range(start, start + 10):
            wire += frame(PING, b"%d" % number)
            wire += frame(CONTINUATION, b"gin", final=False)
        for at in range(0, len(wire), 11):
            await socket.send_bytes(wire[at : at + 11])
        for number in range(start, start + 10):
            assert await socket.receive() == Frame(PONG, b"%d" % number)
        wire = b""
    await socket.send_bytes(frame(CONTINUATION, b"end") + frame(PING, b"last"))
    assert await socket.receive() == Frame(PONG, b"last")


async def test_messages_of_client_are_read_and_dropped(socket: Socket) -> None:
    for payload in (b"", "größe".encode(), b"x" * MESSAGE_BYTES):
        await socket.send(TEXT, payload)
    await socket.send(BINARY, os.urandom(1000))
    await socket.send(PONG, b"nobody asked")
    assert await socket.is_alive()


WRONG = {
    "unmasked": (frame(TEXT, b"x", mask=False), 1002),
    "unmasked ping": (frame(PING, b"x", mask=False), 1002),
    "reserved bit": (frame(TEXT, b"x", rsv=4), 1002),
    "reserved bit 3": (frame(PING, b"", rsv=1), 1002),
    "unknown opcode": (frame(3, b"x"), 1002),
    "unknown control": (frame(11, b""), 1002),
    "control in pieces": (frame(PING, b"x", final=False), 1002),
    "long control": (frame(PING, b"x" * 126), 1002),
    "continues nothing": (frame(CONTINUATION, b"x"), 1002),
    "interrupted": (frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), 1002),
    "not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "UTF-8 cut off": (frame(TEXT, b"\xc3"), 1007),
    "UTF-8 in pieces": (frame(TEXT, b"\xc3", final=False) + frame(CONTINUATION, b"\x28"), 1007),
    "too long": (frame(TEXT, b"x" * (MESSAGE_BYTES + 1)), 1009),
    "too long by its head": (frame(BINARY, b"x" * (MESSAGE_BYTES + 1))[:20], 1009),
    "too long in pieces": (
        frame(TEXT, b"x" * 40_000, final=False) + frame(CONTINUATION, b"x" * 40_000, final=False),
        1009,
    ),
    "a length of 63 bits": (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),
    "a length with its top bit": (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1002),
    "close of one byte": (frame(CLOSE, b"x"), 1002),
    "close with 1005": (close_frame(1005), 1002),
    "close with 999": (close_frame(999), 1002),
    "close not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_frames_are_answered_with_their_code(socket: Socket, wrong: str) -> None:
    wire, code = WRONG[wrong]
    await socket.send(PING, b"before")
    await socket.send_bytes(wire)
    assert await socket.receive() == Frame(PONG, b"before")
    assert (await socket.receive()).close_code == code
    assert await socket.at_end()


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (close_frame(1000, "bye"), b"\x03\xe8"),
        (close_frame(4999), b"\x13\x87"),
        (frame(CLOSE), b""),
    ],
    # Their masks are random, and every worker must know a test by the same name.
    ids=["1000 with a reason", "4999", "no code"],
)
async def test_client_closes(node: NodeProcess, socket: Socket, sent: bytes, answered: bytes) -> None:
    await socket.send_bytes(sent + frame(PING, b"not heard any more"))
    assert await socket.receive() == Frame(CLOSE, answered)
    assert await socket.at_end()


HEARTBEAT_S = 5.0
"""A client that is stalled for some seconds can answer in time."""


@pytest.fixture(scope="module")
def brisk() -> Iterator[NodeProcess]:
    """A node with a short heartbeat."""
    with private_node(heartbeat_s=HEARTBEAT_S, close_s=1) as node:
        yield node


@pytest_asyncio.fixture
async def brisk_tenant(brisk: NodeProcess) -> AsyncIterator[Tenant]:
    async with tenant_of(brisk) as made:
        yield made


async def test_server_pings_and_any_byte_is_an_answer(brisk: NodeProcess, brisk_tenant: Tenant) -> None:
    user = await brisk_tenant.user()
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with (
        await listen(brisk.url, EVENTS, user.key) as answers,
        await listen(brisk.url, EVENTS, user.key) as talks,
    ):
        for _ in range(2):
            ping = await answers.receive_any()
            assert ping.opcode == PING
            await answers.send(PONG, ping.payload)
            assert (await talks.receive_any()).opcode == PING
            await talks.send(TEXT, b"")
        # The first may come at once; from then on one in each interval, or later on a busy machine.
        assert loop.time() - started > 0.5 * HEARTBEAT_S
        assert await answers.is_alive()
        assert await talks.is_alive()


async def test_silent_client_is_closed(brisk: NodeProcess, brisk_tenant: Tenant) -> None:
    before = (await brisk.metrics())["heartbeats_missed_total"]
    user = await brisk_tenant.user()
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with await listen(brisk.url, EVENTS, user.key) as silent:
        # One ping, at once or an interval later; and when the next would be due, the end.
        assert (await silent.receive_any()).opcode == PING
        assert (await silent.receive_any()).close_code == 4003
        assert loop.time() - started > 0.5 * HEARTBEAT_S
        # And does not answer the close frame either.
        assert await silent.at_end()
    assert (await brisk.metrics())["heartbeats_missed_total"] == before + 1
    await brisk.until("connections", 0)


async def test_slow_consumer_is_closed_and_delays_no_other() -> None:
    with private_node(send_queue_bytes=SEND_QUEUE_BYTES, close_s=30) as node:
        await close_one_that_does_not_read(node, 30_000)


async def test_outbox_smaller_than_a_frame_tears_no_frame() -> None:
    with private_node(send_queue_bytes=1024, close_s=30) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            async with await listen(node.url, EVENTS, user.key, receive_buffer=4096) as slow:
                sent = 0
                while not (await node.metrics())["evicted_total"]:
                    await tenant.send(
                        {"homeId": home, "eventType": str(sent), "eventData": {"text": "x" * 60_001}}
                    )
                    sent += 1
                assert await received_until_evicted(slow) <= sent


async def test_slow_client_that_never_reads_again_is_let_go() -> None:
    with private_node(send_queue_bytes=SEND_QUEUE_BYTES, close_s=0.5) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            await let_go_of_one_that_never_reads_again(node, tenant, user, home, 30_000, descriptors=1)


async def test_sigterm_says_going_away_and_ends_quickly() -> None:
    # Longer than the test waits for the node's end: a client that answered is not waited for.
    with private_node(close_s=600) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            first, *others = [await listen(node.url, EVENTS, user.key) for _ in range(50)]
            await tenant.send({"homeId": home, "eventType": "last"})
            # The node has read it, and so gives it to all: before that, it stops reading when it is told to.
            assert await first.receive_type() == "last"
            stopping = asyncio.create_task(node.stop())
            for socket in (first, *others):
                assert socket is first or await socket.receive_type() == "last"
                assert (await socket.receive()).close_code == 1001
                await socket.send_bytes(close_frame(1001))
                assert await socket.at_end()
                await socket.drop()
            assert await stopping == 0
            assert "Traceback" not in node.logged()


async def test_sigterm_waits_for_clients_that_do_not_answer_for_as_long_as_set() -> None:
    # Longer than the default of 5 s, and too little to keep the test waiting.
    with private_node(close_s=5.5) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            async with await listen(node.url, EVENTS, user.key) as socket:
                loop = asyncio.get_running_loop()
                started = loop.time()
                assert await node.stop() == 0
                assert loop.time() - started >= 5.5
                assert (await socket.receive()).close_code == 1001
