"""Clients behind a balancer: the node sees them, not the balancer, and believes nobody else who names one."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from kit import certificates
from kit.accounts import APP, EMAIL, PASSWORD, tenant_with_app
from kit.browser import HOSTS, JSON, cookie_of
from kit.client import Refused, Socket, listen
from kit.node import NodeProcess, private_node
from kit.tenant import Reply, Tenant, tenant_of

EVENTS = "/userSession/websocket"
BALANCER, STRANGER = "127.0.0.2", "127.0.0.3"
CLIENT, OTHER_CLIENT = "192.0.2.7", "2001:db8::7"
ATTEMPTS = 3
HEADER_S = 1.0
LIMITS = {"address_attempts": ATTEMPTS, "account_attempts": 0, "address_connections": 1}
LOOPS = ["uvloop", "asyncio"]
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""Of version 2 of the PROXY protocol."""


@pytest.fixture(scope="module")
def behind() -> Iterator[NodeProcess]:
    """A node behind a balancer at BALANCER, which writes X-Forwarded-For."""
    with private_node(trusted_proxies=f"{BALANCER},10.0.0.0/8", project_hosts=HOSTS, **LIMITS) as node:
        yield node


@asynccontextmanager
async def client_at(node: NodeProcess, source: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with this address, that keeps no cookies."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    async with aiohttp.ClientSession(
        node.url, connector=connector, cookie_jar=aiohttp.DummyCookieJar()
    ) as http:
        yield http


async def ask(http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> Reply:
    async with http.request(method, path, **options) as answer:
        content = await answer.read()
        return Reply(answer.status, orjson.loads(content) if content else None, answer.headers)


def forwarded(*addresses: str) -> dict[str, str]:
    """What a balancer says of a client, and what a client may say of itself."""
    said = ", ".join(addresses)
    return {"X-Forwarded-For": said, "Forwarded": f"for={CLIENT}", "X-Forwarded-Proto": "https"}


@asynccontextmanager
async def listening(tenant: Tenant) -> AsyncIterator[tuple[Socket, int]]:
    user = await tenant.user()
    home = await tenant.home(user)
    async with await listen(tenant.url, EVENTS, user.key) as listener:
        yield listener, home


@pytest.mark.parametrize(
    ("source", "address"), [(BALANCER, CLIENT), (STRANGER, STRANGER), ("127.0.0.1", "127.0.0.1")]
)
async def test_events_carry_the_address_of_the_client(behind: NodeProcess, source: str, address: str) -> None:
    async with tenant_of(behind) as tenant, listening(tenant) as (listener, home):
        device = await tenant.device(home)
        async with client_at(behind, source) as http:
            headers = {"Authorization": device.key, **forwarded("6.6.6.6", CLIENT, "10.1.2.3")}
            put = await ask(
                http, "PUT", f"/devices/{device.id}/event", data=b'{"eventType":"e"}', headers=headers
            )
            assert put.status == 204
        assert (await listener.receive_json())["originDeviceIp"] == address


@pytest.mark.parametrize(("source", "address"), [(BALANCER, CLIENT), (STRANGER, STRANGER)])
async def test_sessions_and_cookies_are_those_of_the_client(
    behind: NodeProcess, source: str, address: str
) -> None:
    async with tenant_with_app(behind, "email") as people:
        user = await people.member()
        host = f"p{people.project}.test"
        async with client_at(behind, source) as http:
            login = orjson.dumps({"login": EMAIL, "password": PASSWORD})
            headers = {**JSON, "Host": host, **forwarded(CLIENT)}
            answer = await ask(http, "POST", "/session/login", data=login, headers=headers)
        cookie = cookie_of(answer)
        assert cookie is not None
        assert bool(cookie["secure"]) is (source == BALANCER)
        [session] = await people.store.sessions.of_user(people.project, user)
        assert (session.address, session.host) == (address, host)


async def test_attempts_are_counted_by_client(behind: NodeProcess) -> None:
    async with tenant_with_app(behind, "email") as people, client_at(behind, BALANCER) as http:
        await people.member()

        async def sign_in(password: str, client: str) -> Reply:
            form = {
                "projectId": people.project,
                "appId": APP,
                "email": EMAIL,
                "password": password,
            }
            return await ask(http, "POST", "/auth/user", data=form, headers=forwarded("6.6.6.6", client))

        for _ in range(ATTEMPTS):
            assert (await sign_in("wrong", CLIENT)).status == 403
        refused = await sign_in(PASSWORD, CLIENT)
        assert (refused.status, refused.body["data"]["limit"]) == (429, "address_attempts")
        assert (await sign_in(PASSWORD, OTHER_CLIENT)).status == 200


async def test_untrusted_peer_is_counted_by_its_own_address(behind: NodeProcess) -> None:
    """A stranger that changes what it says of itself gets no more attempts, and takes none from others."""
    async with tenant_with_app(behind, "email") as people:
        form = {"projectId": people.project, "appId": APP, "email": EMAIL, "password": "wrong"}
        async with client_at(behind, STRANGER) as http:
            for number in range(ATTEMPTS):
                headers = forwarded(f"192.0.2.{number}")
                assert (await ask(http, "POST", "/auth/user", data=form, headers=headers)).status == 403
            late = await ask(http, "POST", "/auth/user", data=form, headers=forwarded("192.0.2.99"))
            assert late.status == 429
        async with client_at(behind, BALANCER) as http:
            for number in range(ATTEMPTS):
                headers = forwarded(f"192.0.2.{number}")
                assert (await ask(http, "POST", "/auth/user", data=form, headers=headers)).status == 403


async def test_websockets_are_counted_by_client(behind: NodeProcess) -> None:
    async with tenant_of(behind) as tenant:
        user = await tenant.user()

        async def handshake(source: str, client: str) -> int:
            connection = await connect(behind.url, source)
            opened.append(connection)
            try:
                await connection.upgrade(EVENTS, user.key, b"", **forwarded(client))
            except Refused as refused:
                return refused.answer.status
            return 101

        opened: list[Socket] = []
        try:
            assert await handshake(BALANCER, CLIENT) == 101
            assert await handshake(BALANCER, CLIENT) == 429
            assert await handshake(BALANCER, OTHER_CLIENT) == 101
            assert await handshake(STRANGER, "192.0.2.50") == 101
            assert await handshake(STRANGER, "192.0.2.51") == 429
        finally:
            for connection in opened:
                await connection.drop()


async def connect(url: str, source: str, first: bytes = b"") -> Socket:
    """A connection from `source`, on which `first` goes before everything else, TLS too."""
    parts = urlsplit(url)
    raw = socket.socket()
    raw.setblocking(False)
    raw.bind((source, 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (parts.hostname, parts.port))
    await loop.sock_sendall(raw, first)
    tls: dict[str, Any] = {}
    if parts.scheme == "https":
        tls = {"ssl": certificates.client_context(), "server_hostname": parts.hostname}
    return Socket(*await asyncio.open_connection(sock=raw, **tls))


def proxy_header(source: str, command: int = 1, extension: bytes = b"") -> bytes:
    """What a balancer says of a client at `source` (PROXY protocol, version 2)."""
    address = ipaddress.ip_address(source)
    family = 1 if address.version == 4 else 2
    both = address.packed + bytes(len(address.packed)) + struct.pack("!HH", 4711, 443)
    head = struct.pack("!BBH", 0x20 | command, family << 4 | 1, len(both) + len(extension))
    return SIGNATURE + head + both + extension


@pytest.fixture(scope="module", params=[(tls, loop) for tls in (False, True) for loop in LOOPS])
def balanced(request: pytest.FixtureRequest) -> Iterator[NodeProcess]:
    """A node whose balancer speaks the PROXY protocol, with TLS and without, on both loops."""
    tls, event_loop = request.param
    bounds = {"request_header_timeout_s": HEADER_S, "address_connections": 1}
    with private_node(
        trusted_proxies=BALANCER, proxy_protocol=True, tls=tls, event_loop=event_loop, **bounds
    ) as node:
        yield node


def put_event(device_id: int, key: str) -> bytes:
    body = b'{"eventType":"e"}'
    lines = [f"PUT /devices/{device_id}/event HTTP/1.1", "Host: h", f"Authorization: {key}"]
    lines += [f"X-Forwarded-For: {CLIENT}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_balancer_names_its_client_before_the_first_byte(balanced: NodeProcess) -> None:
    headers = {
        CLIENT: proxy_header(CLIENT),
        OTHER_CLIENT: proxy_header(OTHER_CLIENT, extension=b"\x04\x00\x01x"),
        "203.0.113.9": proxy_header("::ffff:203.0.113.9"),
    }
    async with tenant_of(balanced) as tenant, listening(tenant) as (listener, home):
        device = await tenant.device(home)
        for address, header in headers.items():
            # Whom the balancer names is no proxy: what that says of itself is not read.
            async with await connect(balanced.url, BALANCER, header) as connection:
                connection.writer.write(put_event(device.id, device.key))
                assert (await connection.read_answer()).status == 204
            assert (await listener.receive_json())["originDeviceIp"] == address
        # The balancer's own look whether the node is there; then its headers are read.
        async with await connect(balanced.url, BALANCER, proxy_header("0.0.0.0", command=0)) as connection:
            connection.writer.write(put_event(device.id, device.key))
            assert (await connection.read_answer()).status == 204
        assert (await listener.receive_json())["originDeviceIp"] == CLIENT


async def test_websockets_of_the_balancers_clients(balanced: NodeProcess) -> None:
    async with tenant_of(balanced) as tenant:
        user = await tenant.user()
        async with await connect(balanced.url, BALANCER, proxy_header(CLIENT)) as first:
            await first.upgrade(EVENTS, user.key)
            async with await connect(balanced.url, BALANCER, proxy_header(CLIENT)) as second:
                with pytest.raises(Refused):
                    await second.upgrade(EVENTS, user.key)
            async with await connect(balanced.url, BALANCER, proxy_header(OTHER_CLIENT)) as third:
                await third.upgrade(EVENTS, user.key)
                assert await first.is_alive()
                assert await third.is_alive()


MALFORMED = {
    "no header": b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
    "version 1": b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\nGET / HTTP/1.1\r\n\r\n",
    "version 3": SIGNATURE + b"\x31\x11" + bytes(30),
    "command": SIGNATURE + b"\x22\x11" + bytes(30),
    "family": SIGNATURE + b"\x21\x41" + bytes(30),
    "protocol": SIGNATURE + b"\x21\x13" + bytes(30),
    "too short for its family": SIGNATURE + b"\x21\x21" + struct.pack("!H", 12) + bytes(12),
    "too long": SIGNATURE + b"\x21\x11" + struct.pack("!H", 65_535) + bytes(64),
    "a part of it": proxy_header(CLIENT)[:20],
    "nothing": b"",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_without_a_right_header_a_balancers_connection_is_closed(
    balanced: NodeProcess, sent: bytes
) -> None:
    before = (await balanced.metrics())["proxy_headers_refused_total"]
    async with await plain(balanced.url, BALANCER) as connection:
        connection.writer.write(sent)
        assert await connection.at_end(30)
    await balanced.until("proxy_headers_refused_total", before + 1)


async def plain(url: str, source: str) -> Socket:
    return await connect(url.replace("https:", "http:"), source)


async def test_proxy_header_of_untrusted_peer_is_ignored(balanced: NodeProcess) -> None:
    refused = (await balanced.metrics())["proxy_headers_refused_total"]
    async with await plain(balanced.url, STRANGER) as connection:
        connection.writer.write(proxy_header(CLIENT) + b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        with suppress(ConnectionError):
            assert b" 200 " not in await asyncio.wait_for(connection.reader.read(), 30)
    # Without a header it is served, as its own address.
    async with await connect(balanced.url, STRANGER) as connection:
        connection.writer.write(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await connection.read_answer()).status == 200
    assert (await balanced.metrics())["proxy_headers_refused_total"] == refused


async def test_nothing_is_left_of_connections_that_end_within_their_header(balanced: NodeProcess) -> None:
    before = balanced.descriptors
    refused = (await balanced.metrics())["proxy_headers_refused_total"]
    for _ in range(5):
        async with await plain(balanced.url, BALANCER) as connection:
            connection.writer.write(SIGNATURE)
            await connection.writer.drain()
    await balanced.reaches("proxy_headers_refused_total", refused + 5)
    await balanced.settles(before)
