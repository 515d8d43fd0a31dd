"""The bridge between a real TLS connection and a socket pair, whose far end plays the core; on both loops."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pytest
import trustme
import uvloop

from homewire.realtime.tls_bridge import KernelBounds, TlsBridges

TIMEOUT_S = 10.0
MIB = 1024 * 1024
STUCK_S = 0.5
"""Who could not send anything for so long is held up."""
MOST_BYTES = 12 * MIB
"""Kernel buffers of both connections, TLS, and what the client's asyncio reads ahead: some MB."""

Body = Callable[["RedisConnection"], Coroutine[Any, Any, None]]

BOUNDS = KernelBounds(send_buffer_bytes=100_000, unsent_bytes=70_000, timeout_ms=9_000)
LONG_S, SHORT_S = 60.0, 0.3
"""How long the bridge lets a client linger: longer than a test, or soon over."""


class Run(Protocol):
    """Runs a test over a fresh line."""

    def __call__(self, body: Body, linger_s: float = LONG_S) -> None: ...


@dataclass
class RedisConnection:
    """A client, the bridge, and the core's end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    bridges: TlsBridges
    core: socket.socket
    served: asyncio.Transport
    """The node's end of the client's connection."""

    async def core_reads(self, count: int) -> bytes:
        data = b""
        async with asyncio.timeout(TIMEOUT_S):
            while len(data) < count and (some := await loop().sock_recv(self.core, 65_536)):
                data += some
        return data

    async def core_says(self, data: bytes) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await loop().sock_sendall(self.core, data)

    async def ended(self) -> None:
        """Wait until there is no bridge any more."""
        async with asyncio.timeout(TIMEOUT_S):
            while self.bridges:  # noqa: ASYNC110 (nobody announces it)
                await asyncio.sleep(0.01)


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Run:
    async def over_a_line(body: Body, linger_s: float) -> None:
        server_context, client_context = contexts
        bridges = TlsBridges(linger_s, BOUNDS)
        core: asyncio.Future[tuple[socket.socket, asyncio.Transport]] = loop().create_future()

        class Accepts(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                served = cast(asyncio.Transport, transport)
                bridge, descriptor = bridges.bridge(7, served)
                bridge.start()
                core.set_result((socket.socket(fileno=descriptor), served))

        server = await loop().create_server(Accepts, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context, ssl_shutdown_timeout=TIMEOUT_S
        )
        far, served = await asyncio.wait_for(core, TIMEOUT_S)
        with far:
            far.setblocking(False)
            try:
                await body(RedisConnection(reader, writer, bridges, far, served))
            finally:
                writer.transport.abort()
                await bridges.close()
                server.close()
                await server.wait_closed()
        assert not bridges

    def run_it(body: Body, linger_s: float = LONG_S) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(over_a_line(body, linger_s))

    return run_it


async def all_that_fits(send: Callable[[bytes], Coroutine[Any, Any, None]]) -> int:
    """Send until nothing more is taken; how many bytes were offered."""
    count, chunk = 0, b"x" * 65_536
    try:
        while True:
            async with asyncio.timeout(STUCK_S):
                await send(chunk)
            count += len(chunk)
            assert count < MOST_BYTES, "somebody takes without end"
    except TimeoutError:
        return count


def test_bytes_go_both_ways_in_order(run: Run) -> None:
    async def body(line: RedisConnection) -> None:
        for number in range(50):
            said = b"%d " % number * (1 + number * 40)
            line.writer.write(said)
            assert await line.core_reads(len(said)) == said
            await line.core_says(said)
            assert await line.reader.readexactly(len(said)) == said

    run(body)


def test_core_that_does_not_read_holds_the_client_up(run: Run) -> None:
    async def body(line: RedisConnection) -> None:
        async def say(chunk: bytes) -> None:
            line.writer.write(chunk)
            await line.writer.drain()

        count = await all_that_fits(say)
        line.writer.write(b"end")
        # The chunk that was not drained in time is on its way, too.
        whole = count + 65_536 + 3
        received = await line.core_reads(whole)
        assert len(received) == whole
        assert received.endswith(b"xxend")
        await line.core_says(b"and back")
        assert await line.reader.readexactly(8) == b"and back"

    run(body)


def test_client_that_does_not_read_holds_the_core_up(run: Run) -> None:
    async def body(line: RedisConnection) -> None:
        sent = 0

        async def say(chunk: bytes) -> None:
            nonlocal sent
            while chunk:
                try:
                    count = line.core.send(chunk)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
                else:
                    sent, chunk = sent + count, chunk[count:]

        await all_that_fits(say)
        async with asyncio.timeout(TIMEOUT_S):
            assert await line.reader.readexactly(sent) == b"x" * sent
        await line.core_says(b"more")
        assert await line.reader.readexactly(4) == b"more"

    run(body)


def test_core_ends_its_half(run: Run) -> None:
    async def body(line: RedisConnection) -> None:
        await line.core_says(b"x" * 200_000)
        line.core.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(TIMEOUT_S):
            assert len(await line.reader.read()) == 200_000
        assert await line.core_reads(1) == b""
        await line.ended()

    run(body)


def test_core_closes_with_something_unread(run: Run) -> None:
    """What it said last arrives all the same; what the client goes on to say is nobody's."""

    async def body(line: RedisConnection) -> None:
        line.writer.write(b"never read")
        async with asyncio.timeout(TIMEOUT_S):
            await loop().sock_recv(line.core, 5)
        line.core.send(b"last words")
        line.core.close()
        for _ in range(20):
            line.writer.write(b"still talking")
        async with asyncio.timeout(TIMEOUT_S):
            assert await line.reader.read() == b"last words"
        await line.ended()

    run(body)


@pytest.mark.parametrize("farewell", ["close_notify", "nothing"])
def test_client_leaves(run: Run, farewell: str) -> None:
    async def body(line: RedisConnection) -> None:
        line.writer.write(b"x" * 100_000)
        await line.writer.drain()
        if farewell == "close_notify":
            line.writer.close()
        else:
            line.writer.transport.abort()
        received = await line.core_reads(1_000_000)
        if farewell == "close_notify":
            assert len(received) == 100_000
        await line.ended()

    run(body)


def test_client_that_does_not_end_tls_is_not_waited_for(run: Run) -> None:
    async def body(line: RedisConnection) -> None:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line.core.close()
        await line.ended()

    run(body, SHORT_S)


def test_stuck_client_whose_connection_the_core_gave_up(run: Run) -> None:
    """Nothing of the core's end can be read while the client takes nothing: the core's word is needed."""

    async def body(line: RedisConnection) -> None:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def say(chunk: bytes) -> None:
            await loop().sock_sendall(line.core, chunk)

        await all_that_fits(say)
        line.core.close()
        assert line.bridges
        line.bridges.core_ended(7)
        await line.ended()

    run(body, SHORT_S)


def test_kernel_buffer_of_client_has_configured_size(run: Run) -> None:
    async def body(line: RedisConnection) -> None:
        with socket.socket(fileno=os.dup(line.served.get_extra_info("socket").fileno())) as tcp:
            # Linux doubles what it is asked for, for its own books.
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * BOUNDS.send_buffer_bytes
            assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == BOUNDS.unsent_bytes
            assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == BOUNDS.timeout_ms

    run(body)


def test_at_shutdown_all_end_and_none_begins(run: Run) -> None:
    async def body(line: RedisConnection) -> None:
        async with asyncio.timeout(20):
            await line.bridges.close()
        assert await line.core_reads(1) == b""
        with pytest.raises(ConnectionResetError):
            line.bridges.bridge(8, line.writer.transport)  # type: ignore[arg-type]

    run(body)
