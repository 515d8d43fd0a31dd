"""How many connections a turn of the loop accepts, and when a head is awaited: on both event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest
import uvloop
from aiohttp import web

from homewire.rest.shapes import rendered
from homewire.server.accept import SET_UP_AT_ONCE, Acceptor, bound_sockets
from homewire.server.connections import DelayedCloses, RequestHeaderTimeout
from homewire.server.http import HttpOptions, Rendering, make_runner
from kit import certificates

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Ends(asyncio.Protocol):
    """Counts in `alive` how many connections did not end yet."""

    alive = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Ends.alive += 1

    def connection_lost(self, exc: Exception | None) -> None:
        Ends.alive -= 1

    @staticmethod
    async def all_gone() -> None:
        """Once their clients are gone, so are they; nothing tells of the last but its own end."""
        while Ends.alive:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Runs a coroutine on the loop of this test."""

    def on_loop(work: Awaitable[None]) -> None:
        async def within() -> None:
            async with asyncio.timeout(20):
                await work

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(within())

    return on_loop


def test_turn_accepts_so_many_and_no_more(run: Callable[[Awaitable[None]], None]) -> None:
    run(accept_in_turns())


async def accept_in_turns() -> None:
    loop = asyncio.get_running_loop()
    acceptor = Acceptor(5, 1.0)
    port = await acceptor.bind("127.0.0.1", 0, 128)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    acceptor.start(lambda _peer, _left: Ends())
    accepted = [0]
    while accepted[-1] < len(clients):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn
        accepted.append(acceptor.metrics()["accepted"])
    # Two, since what runs last in one turn and first in the next sees the accepts of both.
    assert max(after - before for before, after in pairwise(accepted)) <= 2 * 5
    for client in clients:
        client.close()
    await acceptor.close()
    await Ends.all_gone()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_names_with_several_addresses_have_one_port(run: Callable[[Awaitable[None]], None]) -> None:
    run(listen_everywhere())


async def listen_everywhere() -> None:
    acceptor = Acceptor(5, 1.0)
    port = await acceptor.bind("localhost", 0, 16)
    acceptor.start(lambda _peer, _left: Ends())
    for family, _, _, _, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.connect(address)
    second = Acceptor(5, 1.0)
    with pytest.raises(OSError, match="in use"):
        await second.bind("127.0.0.1", port, 16)
    await second.close()
    while acceptor.metrics()["accepted"] == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await acceptor.close()
    await Ends.all_gone()


def test_address_with_many_new_connections_does_not_delay_others(
    run: Callable[[Awaitable[None]], None],
) -> None:
    run(set_up_by_turns())


async def set_up_by_turns() -> None:
    order: list[str] = []

    class Noting(Ends):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            order.append(transport.get_extra_info("peername")[0])

    acceptor = Acceptor(100, 1.0)
    port = await acceptor.bind("127.0.0.1", 0, 128)
    sources = ["127.0.0.3"] * 60 + ["127.0.0.2"]
    clients = [socket.create_connection(("127.0.0.1", port), source_address=(each, 0)) for each in sources]
    acceptor.start(lambda _peer, _left: Noting())
    while len(order) < len(clients):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert order.index("127.0.0.2") <= SET_UP_AT_ONCE
    for client in clients:
        client.close()
    await acceptor.close()
    await Ends.all_gone()


def test_refused_connections_are_closed_later_and_the_oldest_early(
    run: Callable[[Awaitable[None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(close_later(monkeypatch))


async def close_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(most: int) -> asyncio.Task[bytes]:
        server, client = socket.socketpair()
        client.setblocking(False)
        clients.append(client)
        closes.add(server, most)
        return loop.create_task(loop.sock_recv(client, 1))

    loop, clients, closes = asyncio.get_running_loop(), list[socket.socket](), DelayedCloses()
    monkeypatch.setattr("homewire.server.connections.REFUSAL_DELAY_S", 3600.0)
    first, second, third = refused(2), refused(2), refused(2)
    assert await first == b""
    assert len(closes) == 2
    assert closes.close_oldest()
    assert await second == b""
    assert not third.done()
    monkeypatch.setattr("homewire.server.connections.REFUSAL_DELAY_S", 0.001)
    closes.close()
    assert await refused(2) == await third == b""
    closes.close()
    assert not closes.close_oldest()
    for client in clients:
        client.close()


def test_accepted_sockets_have_kernel_timeouts(run: Callable[[Awaitable[None]], None]) -> None:
    """It has the bounds of the socket that listens."""
    run(accept_with_a_timeout())


async def accept_with_a_timeout() -> None:
    made: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    class Asking(Ends):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            accepted = transport.get_extra_info("socket")
            options = (socket.TCP_USER_TIMEOUT, socket.TCP_NOTSENT_LOWAT)
            made.set_result([accepted.getsockopt(socket.IPPROTO_TCP, each) for each in options])

    acceptor = Acceptor(5, 1.0, timeout_s=45.0, unsent_bytes=100_000)
    port = await acceptor.bind("127.0.0.1", 0, 16)
    acceptor.start(lambda _peer, _left: Asking())
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await made == [45_000, 100_000]
    writer.close()
    await writer.wait_closed()
    await acceptor.close()
    await Ends.all_gone()


def client_hello() -> bytes:
    """The first bytes of a TLS client."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="h")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_tls_client_that_goes_silent_is_closed(run: Callable[[Awaitable[None]], None], share: float) -> None:
    """Before its ClientHello, in the middle of it, and behind it. An event loop's own limit is a minute."""
    hello = client_hello()
    run(go_silent_in_tls(hello[: int(len(hello) * share)]))


async def go_silent_in_tls(begin: bytes) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificates.files())
    acceptor = Acceptor(5, 0.1)
    port = await acceptor.bind("127.0.0.1", 0, 16)
    acceptor.start(lambda _peer, _left: Ends(), tls)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    # What the server answered, and then its end. Bytes that it did not read make that a reset.
    with suppress(ConnectionResetError):
        await reader.read()
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()
    await acceptor.close()
    await Ends.all_gone()


class HttpServer:
    """An HTTP server whose one handler reads the body and waits until it may answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __init__(self, heads: RequestHeaderTimeout) -> None:
        self.heads = heads
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.set()
        await request.read()
        await self.answer.wait()
        return web.Response()

    async def awaits_head(self, is_awaited: bool) -> None:
        """Wait until it awaits the head of its one connection, or none."""
        while self.heads.metrics()["request_headers_awaited"] != is_awaited:  # noqa: ASYNC110
            # The server runs in this loop, and tells nobody.
            await asyncio.sleep(0.01)

    async def is_answered(self) -> None:
        assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def on_http_server(test: Callable[[HttpServer], Awaitable[None]]) -> None:
    app = web.Application()
    served = HttpServer(RequestHeaderTimeout(3600.0))
    app.router.add_route("*", "/", served.handle)
    runner, server = await make_runner(app, HttpOptions(8192), served.heads, Rendering(rendered))
    acceptor = Acceptor(5, 1.0)
    port = await acceptor.bind("127.0.0.1", 0, 16)
    acceptor.start(server.serve)
    served.reader, served.writer = await asyncio.open_connection("127.0.0.1", port)
    await test(served)
    served.writer.close()
    await acceptor.close()
    await runner.cleanup()
    await app.cleanup()
    served.heads.close()


def test_head_is_timed_while_it_is_awaited_and_neither_rest_nor_body_is(
    run: Callable[[Awaitable[None]], None],
) -> None:
    async def take_two_requests(served: HttpServer) -> None:
        served.answer.set()
        await served.awaits_head(True)
        for _ in range(2):
            served.writer.write(REQUEST[:10])
            await served.awaits_head(True)
            served.writer.write(REQUEST[10:])
            await served.is_answered()
            await served.awaits_head(False)
        served.asked.clear()
        served.writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nb")
        await served.asked.wait()
        await served.awaits_head(False)
        served.writer.write(b"b")
        await served.is_answered()

    run(on_http_server(take_two_requests))


def test_bytes_during_answer_begin_next_head(run: Callable[[Awaitable[None]], None]) -> None:
    """Its time begins when it could be answered."""

    async def begin_the_next_head_early(served: HttpServer) -> None:
        served.writer.write(REQUEST)
        await served.asked.wait()
        served.writer.write(REQUEST[:10])
        # These bytes shall come before the answer. If they come after it, the outcome is the same.
        await asyncio.sleep(0.05)
        await served.awaits_head(False)
        served.answer.set()
        await served.is_answered()
        await served.awaits_head(True)
        assert served.heads.abort_oldest()
        assert await served.reader.read() == b""

    run(on_http_server(begin_the_next_head_early))


def test_addresses_that_this_machine_lacks_are_passed_over() -> None:
    """As for localhost where IPv6 is switched off: what there is is bound, and nothing is an error."""
    kind = (socket.SOCK_STREAM, 0, "")
    absent, here = ("192.0.2.1", 0), ("127.0.0.1", 0)
    bound = bound_sockets([(socket.AF_INET, *kind, absent), (socket.AF_INET, *kind, here)], 0)
    assert [each.getsockname()[0] for each in bound] == ["127.0.0.1"]
    port = bound[0].getsockname()[1]
    bound[0].listen()
    # An address that somebody has is no address that there is not.
    with pytest.raises(OSError, match="in use"):
        bound_sockets([(socket.AF_INET, *kind, ("127.0.0.2", 0)), (socket.AF_INET, *kind, here)], port)
    bound[0].close()
    with pytest.raises(OSError, match="assign"):
        bound_sockets([(socket.AF_INET, *kind, absent)], 0)
