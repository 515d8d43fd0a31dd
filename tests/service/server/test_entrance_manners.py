"""What a node does at its ports beside serving: certificates, signals, names, the end, and odd requests."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kit import certificates
from kit.client import RawConnection, listen, raw_request
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import tenant_of

EVENTS = "/userSession/websocket"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
LOOPS = ["uvloop", "asyncio"]


@pytest.fixture(params=LOOPS)
def own_certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[NodeProcess, Path]]:
    """A node with a certificate of its own, in a directory."""
    certificate, key = certificates.issue(tmp_path, certificates.HOST)
    with private_node(tls_cert=certificate, tls_key=key, event_loop=request.param) as node:
        node.tls = certificates.client_context()
        yield node, tmp_path


async def serial(node: NodeProcess) -> str:
    """The number of the certificate that a new connection sees."""
    async with await RawConnection.open(node.url) as connection:
        shown = connection.writer.get_extra_info("ssl_object").getpeercert()
        return str(shown["serialNumber"])


async def test_renewed_certificate_is_taken_and_open_connections_stay(
    own_certificate: tuple[NodeProcess, Path],
) -> None:
    node, directory = own_certificate
    async with tenant_of(node) as tenant:
        user = await tenant.user()
        async with await listen(node.url, EVENTS, user.key) as listener:
            first = await serial(node)

            async def is_renewed() -> bool:
                return await serial(node) != first

            certificates.issue(directory, certificates.HOST)
            await eventually(is_renewed, 30)
            second = await serial(node)
            # What can't be used changes nothing, and is said.
            (directory / "cert.pem").write_text("no certificate")
            os.kill(node.pid, signal.SIGHUP)
            await eventually(lambda: is_logged(node, "reload.refused"), 30)
            assert await serial(node) == second
            certificates.issue(directory, certificates.HOST)
            os.kill(node.pid, signal.SIGHUP)
            await eventually(lambda: is_another(node, second), 30)
            assert await listener.is_alive()


async def is_logged(node: NodeProcess, words: str) -> bool:
    return words in node.logged()


async def is_another(node: NodeProcess, known: str) -> bool:
    return await serial(node) != known


async def test_hangup_ends_no_node() -> None:
    with private_node() as node:
        os.kill(node.pid, signal.SIGHUP)
        await eventually(lambda: is_logged(node, '"event":"reload"'), 30)
        assert (await raw_request(node.url, HEALTH)).status == 200
        assert await node.stop() == 0


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("start", ["nothing", "half a hello"])
async def test_silent_tls_client_is_cut(loop: str, start: str) -> None:
    with private_node(tls=True, request_header_timeout_s=1, event_loop=loop) as node:
        before = node.descriptors
        parts = urlsplit(node.url)
        with socket.create_connection((parts.hostname, parts.port)) as silent:
            silent.settimeout(30)
            if start != "nothing":
                silent.sendall(hello()[:100])
            with suppress(ConnectionError):
                assert silent.recv(1) == b""
            await node.settles(before, 30)


def hello() -> bytes:
    """The first message of a TLS client."""
    said = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="h.example")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()


@pytest.mark.parametrize("loop", LOOPS)
async def test_answers_of_a_node_that_ends_are_the_last(loop: str) -> None:
    with private_node(event_loop=loop, close_s=30) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            async with await listen(node.url, EVENTS, user.key) as listener:
                kept = [await RawConnection.open(node.url) for _ in range(3)]
                for connection in kept:
                    connection.writer.write(HEALTH)
                    assert "connection" not in (await connection.read_answer()).headers
                stopping = asyncio.create_task(node.stop())
                # It does not answer the close frame, so that the node waits for it.
                assert (await listener.receive()).close_code == 1001
                body = b'{"eventType":"late"}'
                head = f"PUT /homes/{home}/event HTTP/1.1\r\nHost: h\r\nAuthorization: {tenant.key}\r\n"
                requests = {
                    HEALTH: 200,
                    b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n": 404,
                    f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body: 204,
                }
                for connection, (request, status) in zip(kept, requests.items(), strict=True):
                    connection.writer.write(request)
                    answer = await connection.read_answer()
                    assert (answer.status, answer.headers["connection"]) == (status, "close")
                    assert await connection.at_end(30)
                    await connection.drop()
            assert await stopping == 0


async def test_name_is_listened_on_where_it_has_an_address() -> None:
    with private_node(host="localhost") as node:
        assert (await raw_request(node.url.replace("localhost", "127.0.0.1"), HEALTH)).status == 200


@pytest.mark.parametrize(("tls", "said"), [(True, "max-age=86400"), (False, None)])
async def test_browsers_are_told_to_come_by_https_where_the_node_ends_tls(
    tls: bool, said: str | None
) -> None:
    with private_node(tls=tls) as node:
        for request in (HEALTH, b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"):
            answer = await raw_request(node.url, request)
            assert answer.headers.get("strict-transport-security") == said


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://h/healthz", "h", 200),
        ("http://H:80/healthz", "h", 200),
        ("http://h:8080/healthz", "h:8080", 200),
        ("http://evil/healthz", "h", 403),
        ("http://h:8081/healthz", "h:8080", 403),
        ("http://evil/healthz", "h\r\nHost: evil", 403),
    ],
)
async def test_target_of_another_host_than_the_header_is_refused(
    node: NodeProcess, target: str, host: str, status: int
) -> None:
    answer = await raw_request(node.url, f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.status == status


async def test_damaged_unread_body_is_not_logged_as_server_error() -> None:
    with private_node() as node:
        whole = gzip.compress(b'{"eventType": "e", "eventData": {}}')
        damaged = whole[:12] + b"\xff" * 8 + whole[20:]
        head = "PUT /homes/1/event HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\n"
        async with await RawConnection.open(node.url) as connection:
            # The head alone is answered 401; what follows is read only to be thrown away.
            connection.writer.write(f"{head}Content-Length: {len(damaged)}\r\n\r\n".encode())
            assert (await connection.read_answer()).status == 401
            connection.writer.write(damaged)
            assert await connection.at_end(30)
        assert (await raw_request(node.url, HEALTH)).status == 200
        assert "Unhandled" not in node.logged()
        assert "Traceback" not in node.logged()
