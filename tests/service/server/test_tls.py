"""TLS ended at the port: everything works through the pump as it does on a taken socket, and nothing stays.

The edges of the handshake are in test_handoff.py, which runs over TLS, too; the pump alone is in
tests/unit/realtime/test_tls_bridge.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
import pytest_asyncio

from kit import certificates
from kit.client import PING, PONG, TEXT, Frame, RawConnection, Socket, close_frame, frame, listen
from kit.node import ROOT, NodeProcess, eventually, private_node
from kit.slow_clients import (
    close_one_that_does_not_read,
    let_go_of_one_that_never_reads_again,
)
from kit.tenant import Tenant, tenant_of

EVENTS = "/userSession/websocket"
SEND_QUEUE_BYTES = 262_144
LOOPS = ["uvloop", "asyncio"]


@pytest.fixture(scope="module", params=LOOPS)
def node(request: pytest.FixtureRequest) -> Iterator[NodeProcess]:
    with private_node(
        tls=True, steps=True, event_loop=request.param, send_queue_bytes=SEND_QUEUE_BYTES, close_s=1
    ) as running:
        yield running


@pytest_asyncio.fixture
async def tenant(node: NodeProcess) -> AsyncIterator[Tenant]:
    async with tenant_of(node) as made:
        yield made


async def test_requests_events_and_sockets_over_tls(node: NodeProcess, tenant: Tenant) -> None:
    """With another client than the tests' own: nothing here knows that there is a pump."""
    assert node.url.startswith("https://")
    user = await tenant.user()
    home = await tenant.home(user)
    device = await tenant.device(home)
    async with tenant.http.get("/readyz") as answer:
        assert answer.status == 200
    headers = {"Authorization": user.key}
    async with tenant.http.ws_connect(EVENTS, headers=headers) as listener:
        body = {"eventType": "one", "eventData": {"n": 1}}
        assert (await tenant.put(f"/devices/{device.id}/event", device.key, body))[0] == 204
        await tenant.send(*({"homeId": home, "eventType": str(number)} for number in range(500)))
        received = [(await listener.receive_json())["eventType"] for _ in range(501)]
        assert received == ["one", *map(str, range(500))]
        path = f"/devices/{device.id}/command"
        async with tenant.http.ws_connect(path, headers={"Authorization": device.key}) as commands:
            assert (await tenant.put(path, tenant.key, {"action": "go"}))[0] == 204
            assert await commands.receive_json() == {"action": "go"}


async def test_cookie_that_came_over_tls_stays_there(node: NodeProcess, tenant: Tenant) -> None:
    """Nor may a page that came without TLS, which anybody on the way may have written, act with it."""
    user = await tenant.user()
    home = await tenant.home(user)
    async with tenant.http.post("/session/login-with-token", json={"token": user.key}) as answer:
        assert answer.status == 201
        cookie = answer.cookies["__Host-homewire_session"]
    assert cookie["secure"]
    for origin, status in ((node.url, 204), (node.url.replace("https:", "http:"), 403)):
        headers = {"Cookie": f"__Host-homewire_session={cookie.value}", "Origin": origin}
        async with tenant.http.patch(f"/homes/{home}", json={"name": "hut"}, headers=headers) as answer:
            assert answer.status == status


async def test_client_that_distrusts_certificate_sends_nothing(node: NodeProcess, tenant: Tenant) -> None:
    async with aiohttp.ClientSession(node.url) as stranger:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await stranger.get("/readyz")
    parts = urlsplit(node.url)
    async with await RawConnection.open(f"http://{parts.netloc}") as plain:
        plain.writer.write(b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n")
        with suppress(ConnectionError):
            assert not (await plain.reader.read()).startswith(b"HTTP/1.1 200")
    async with tenant.http.get("/readyz") as answer:
        assert answer.status == 200
    assert "Traceback" not in node.logged()


@pytest.mark.parametrize("size", [0, 125, 60_000])
async def test_bytes_behind_the_request(tenant: Tenant, size: int) -> None:
    user = await tenant.user()
    early = frame(PING, b"x" * size) if size < 126 else frame(TEXT, b"x" * size) + frame(PING, b"behind")
    async with await listen(tenant.url, EVENTS, user.key, early=early) as connection:
        assert await connection.receive() == Frame(PONG, b"x" * size if size < 126 else b"behind")
        assert await connection.is_alive()


@pytest.mark.parametrize("event_loop", LOOPS)
async def test_slow_consumer_is_closed_and_delays_no_other(event_loop: str) -> None:
    with private_node(tls=True, event_loop=event_loop, send_queue_bytes=SEND_QUEUE_BYTES, close_s=30) as node:
        await close_one_that_does_not_read(node, 7_000)


async def test_client_that_never_reads_again_is_let_go(node: NodeProcess, tenant: Tenant) -> None:
    """The pump can't give away what the core said last, nor read that it was the last."""
    user = await tenant.user()
    home = await tenant.home(user)
    await let_go_of_one_that_never_reads_again(node, tenant, user, home, 7_000, descriptors=3)


async def test_either_side_closes(node: NodeProcess, tenant: Tenant) -> None:
    user = await tenant.user()
    await node.settles()
    descriptors = node.descriptors
    endings = {1000: close_frame(1000, "bye"), 1002: frame(TEXT, b"x", mask=False)}
    for code, wire in endings.items():
        async with await listen(node.url, EVENTS, user.key) as connection:
            await connection.send_bytes(wire + frame(PING, b"not heard any more"))
            assert (await connection.receive()).close_code == code
            assert await connection.at_end()
    await node.settles(descriptors)


@pytest.mark.parametrize("farewell", ["drop", "reset", "close_notify", "end of TCP"])
async def test_clients_that_vanish(node: NodeProcess, tenant: Tenant, farewell: str) -> None:
    user = await tenant.user()
    await node.settles()
    descriptors = node.descriptors
    for _ in range(5):
        connection = await listen(node.url, EVENTS, user.key)
        await connection.send_bytes(frame(TEXT, b"half a frame")[:5])
        if farewell == "drop":
            await connection.drop()
        elif farewell == "reset":
            await connection.reset()
        elif farewell == "close_notify":
            connection.writer.close()
            with suppress(ConnectionError):
                await connection.writer.wait_closed()
        else:
            await connection.say_no_more()
            assert await connection.at_end()
            await connection.drop()
    await node.settles(descriptors)


async def test_client_that_does_not_end_tls_is_let_go(node: NodeProcess, tenant: Tenant) -> None:
    """It says good-bye as a WebSocket, and then nothing: no close_notify, no end of TCP."""
    user = await tenant.user()
    await node.settles()
    descriptors = node.descriptors
    silent = await asyncio.to_thread(silent_after_close, node.url, user.key)
    try:
        await node.settles(descriptors)
    finally:
        silent.close()


def silent_after_close(url: str, key: str) -> ssl.SSLSocket:
    from kit.client import upgrade_request

    parts = urlsplit(url)
    plain = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)
    connection = certificates.client_context().wrap_socket(plain, server_hostname=parts.hostname)
    connection.sendall(upgrade_request(EVENTS, key)[0] + close_frame(1000))
    said = b""
    while not said.endswith(b"\x88\x02\x03\xe8"):
        said += connection.recv(4096)
    return connection


async def test_two_hundred_connections_leave_nothing(node: NodeProcess, tenant: Tenant) -> None:
    user = await tenant.user()
    home = await tenant.home(user)
    idle = await node.tasks()
    for turn in range(5):
        sockets = await asyncio.gather(*(listen(node.url, EVENTS, user.key) for _ in range(50)))
        # Their handshakes were some; a connection is none.
        await has_tasks(node, idle + len(sockets) / 2)
        await tenant.send({"homeId": home, "eventType": str(turn)})
        for number, connection in enumerate(sockets):
            if number % 2:
                assert await connection.receive_type() == str(turn)
            await (connection.drop() if number % 3 else connection.reset())
        if turn == 0:
            await node.settles()
            descriptors, tasks = node.descriptors, await node.tasks()
    # The pool of connections to Redis may grow a little, and requests for metrics come and go.
    await node.settles(descriptors + 5)
    await has_tasks(node, tasks + 1)
    assert "Traceback" not in node.logged()


async def has_tasks(node: NodeProcess, most: float) -> None:
    """Wait until the node has no more tasks than this."""

    async def holds() -> bool:
        return await node.tasks() <= most

    await eventually(holds)


@pytest.mark.parametrize("event_loop", LOOPS)
async def test_sigterm_says_going_away(event_loop: str) -> None:
    """To those who answer, in a moment; those who don't are not waited for long."""
    with private_node(tls=True, event_loop=event_loop, close_s=3) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            sockets = [await listen(node.url, EVENTS, user.key) for _ in range(20)]
            await tenant.send({"homeId": home, "eventType": "last"})
            # The node has read it, and so gives it to all: before that, it stops reading when it is told to.
            assert await sockets[0].receive_type() == "last"
            stopping = asyncio.create_task(node.stop())
            for number, connection in enumerate(sockets):
                assert not number or await connection.receive_type() == "last"
                assert (await connection.receive()).close_code == 1001
                if number < 19:
                    await connection.send_bytes(close_frame(1001))
                assert await connection.at_end()
            assert await stopping == 0
            for connection in sockets:
                await connection.drop()
        assert "Traceback" not in node.logged()


@pytest.mark.parametrize("event_loop", LOOPS)
async def test_sigterm_in_the_middle_of_a_handshake(event_loop: str) -> None:
    with private_node(tls=True, steps=True, event_loop=event_loop, close_s=1) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            node.say("pause adopt")
            await node.prints("paused adopt")
            async with await Socket.open(node.url) as connection:
                await connection.ask(EVENTS, user.key)
                await node.prints("at adopt")
                stopping = asyncio.create_task(node.stop())
                await connection.accepted()
                with suppress(BrokenPipeError):
                    node.say("go adopt")
                with suppress(asyncio.IncompleteReadError, ConnectionResetError):
                    assert (await connection.receive()).close_code in (1001, 1013)
                assert await asyncio.wait_for(stopping, 10) == 0
        assert "Traceback" not in node.log.read_text()


async def test_command_line_over_tls() -> None:
    """Sensors of the demo report, `listen` receives them and `send` reaches it, by the node's certificate."""
    with private_node(tls=True, demo=True) as node:
        certificate, _ = certificates.files()
        words = ["--url", node.url, "--data-dir", str(node.data_dir)]
        trusting = [*words, "--tls-cert", str(certificate)]
        listener = await command("listen", *trusting, "--json")
        assert listener.stdout is not None
        async with asyncio.timeout(40):
            received = orjson.loads(await listener.stdout.readline())
            assert "originDeviceId" in received
            home = str(received["homeId"])
            sender = await command("send", "--home", home, "--type", "doorbell", *trusting)
            assert await sender.wait() == 0
            while received["eventType"] != "doorbell":
                received = orjson.loads(await listener.stdout.readline())
        listener.terminate()
        await listener.wait()
        stranger = await command("send", "--home", home, "--type", "doorbell", *words)
        said = (await stranger.communicate())[1].decode()
        assert stranger.returncode == 1
        assert said.count("\n") == 1
        assert "not trusted" in said


async def command(*words: str) -> asyncio.subprocess.Process:
    """`homewire …` as somebody types it."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "homewire.cli", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
    )
