"""How long sessions live, on two nodes: used by sockets and requests, over by time, and without Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from time import time

import pytest
import pytest_asyncio

from homewire.access_changes.relay import Relay
from homewire.clock import MACHINE_CLOCK
from homewire.redis.connect import connect
from homewire.repositories import Store
from homewire.sessions.activity import note_interval_ms
from homewire.sessions.models import ClientInfo, Lifetime, Session
from kit.client import Socket, listen
from kit.manual_clock import ManualClock
from kit.node import NodeProcess, eventually, private_node
from kit.redis_server import BusServer, running_server
from kit.tenant import Account, Tenant, tenant_of

EVENTS = "/userSession/websocket"
TRY_AGAIN, KEY_ENDED = 1013, 4502
HOUR = 3_600_000
SLIDES_MS = 4_000
"""Long enough for a node that is kept from its processor for a second to note in time that one is used."""
SOON_S = 3.0
"""How late a socket is closed at most, and a key refused. One second is promised, the others are for a busy
machine; who waited until a Redis that hangs is given up would take four."""


@pytest.fixture(scope="module")
def server() -> Iterator[BusServer]:
    """A Redis that can be paused."""
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def pair(server: BusServer) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """Two nodes that look at their sockets, and note requests, every half a second at most."""
    settings = {"redis_url": server.url, "session_ttl_s": 2}
    with private_node(**settings) as one, private_node(**settings) as other:
        yield one, other


@pytest_asyncio.fixture
async def tenant(pair: tuple[NodeProcess, NodeProcess]) -> AsyncIterator[Tenant]:
    async with tenant_of(pair[0]) as made:
        yield made


async def opened(tenant: Tenant, slides_ms: int, absolute_ms: int = 0) -> tuple[Session, Account]:
    """A session of a new user."""
    user = await tenant.user()
    lifetime = Lifetime(slides_ms, absolute_ms)
    session, key = await tenant.store.sessions.open(
        tenant.project, user.id, "controller_app", ClientInfo(), lifetime=lifetime
    )
    return session, Account(user.id, key)


async def now(tenant: Tenant, session: Session) -> Session:
    """The session as it is stored."""
    stored = await tenant.store.sessions.get(tenant.project, session.id)
    assert stored is not None
    return stored


async def status(node: NodeProcess, user: Account) -> int:
    """Of a request that the user may make."""
    async with (
        node.client() as http,
        http.get(f"/users/{user.id}", headers={"Authorization": user.key}) as answer,
    ):
        return answer.status


async def closed(socket: Socket) -> tuple[int, float]:
    """The code with which a socket is closed, and when, in s since 1970."""
    received = await socket.receive()
    return received.close_code, time()


async def test_open_socket_keeps_its_session_alive_and_without_it_the_session_ends(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    session, user = await opened(tenant, SLIDES_MS)
    async with await listen(pair[1].url, EVENTS, user.key) as socket:

        async def lives_longer() -> bool:
            return MACHINE_CLOCK.now_ms() > session.expires_ms + 300

        await eventually(lives_longer)
        assert await socket.is_alive()
        slid = await now(tenant, session)
        assert slid.expires_ms == slid.last_access_ms + SLIDES_MS > MACHINE_CLOCK.now_ms()
        notes = slid.version - session.version
        assert 1 <= notes <= (slid.last_access_ms - session.started_ms) / note_interval_ms(SLIDES_MS)
        assert await status(pair[0], user) == 200

    async def is_over() -> bool:
        return MACHINE_CLOCK.now_ms() > (await now(tenant, session)).expires_ms + 100

    await eventually(is_over)
    assert [await status(node, user) for node in pair] == [401, 401]


async def test_absolute_end_closes_sockets_on_all_nodes(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    session, user = await opened(tenant, HOUR, absolute_ms=4_000)
    _, other = await opened(tenant, HOUR)
    async with (
        await listen(pair[0].url, EVENTS, user.key) as here,
        await listen(pair[1].url, EVENTS, user.key) as there,
        await listen(pair[0].url, EVENTS, other.key) as unconcerned,
    ):
        assert [await status(node, user) for node in pair] == [200, 200]
        for code, at in await asyncio.gather(closed(here), closed(there)):
            assert code == KEY_ENDED
            assert 0 <= at - session.ends_ms / 1000 <= SOON_S
        assert [await status(node, user) for node in pair] == [401, 401]
        assert (await now(tenant, session)).expires_ms == session.ends_ms
        assert await unconcerned.is_alive()


async def test_child_sessions_end_with_parent_on_every_node(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    session, user = await opened(tenant, HOUR, absolute_ms=HOUR)
    key = user.key
    async with pair[0].client() as http:
        # One from the other, so that the socket is that of a grandchild.
        for _ in range(2):
            async with http.post("/session/login-with-token", json={"token": key}) as answer:
                assert answer.status == 201
                key = answer.cookies["homewire_session"].value
    made = await tenant.store.sessions.of_token(key)
    assert made is not None
    assert (made.ends_ms, made.ancestors[0], len(made.ancestors)) == (session.ends_ms, session.id, 2)
    _, other = await opened(tenant, HOUR)
    async with (
        await listen(pair[0].url, EVENTS, key) as here,
        await listen(pair[1].url, EVENTS, key) as there,
        await listen(pair[0].url, EVENTS, other.key) as unconcerned,
    ):
        await tenant.store.sessions.end(tenant.project, session.id)
        assert [code for code, _ in await asyncio.gather(closed(here), closed(there))] == [KEY_ENDED] * 2
        assert [await status(node, Account(user.id, key)) for node in pair] == [401, 401]
        assert await unconcerned.is_alive()


async def test_cached_expiry_is_read_again_when_due(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    """One node knows the key, and its user goes on at the other."""
    session, user = await opened(tenant, SLIDES_MS)
    assert await status(pair[0], user) == 200
    async with asyncio.timeout(20):
        while MACHINE_CLOCK.now_ms() <= session.expires_ms + 100:
            assert await status(pair[1], user) == 200
            await asyncio.sleep(0.05)
    assert await status(pair[0], user) == 200


async def test_requests_note_the_last_access_once_a_minute_on_all_nodes_together(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    redis = connect(pair[0].redis_url)
    earlier = Store(redis, Relay(redis, 64), ManualClock(MACHINE_CLOCK.now_ms() - 61_000))
    user = await tenant.user()
    session, key = await earlier.sessions.open(
        tenant.project, user.id, "app", ClientInfo(), lifetime=Lifetime(HOUR, 0)
    )
    await redis.aclose()
    account, began = Account(user.id, key), MACHINE_CLOCK.now_ms()
    for _ in range(10):
        assert [await status(node, account) for node in pair] == [200, 200]

    async def noted() -> bool:
        return (await now(tenant, session)).version > 1

    await eventually(noted)
    used = await now(tenant, session)
    assert began <= used.last_access_ms <= MACHINE_CLOCK.now_ms()
    assert used.expires_ms == used.last_access_ms + HOUR
    written = sum([(await node.metrics())["session_uses_written_total"] for node in pair])
    for _ in range(3):
        assert [await status(node, account) for node in pair] == [200, 200]
        # The nodes note again after half a second, and the store sees that it is too early.
        await asyncio.sleep(0.3)

    async def asked_again() -> bool:
        return sum([(await node.metrics())["session_uses_written_total"] for node in pair]) > written

    await eventually(asked_again)
    assert await now(tenant, session) == used


async def test_node_session_lives_and_ends_with_its_device_s_socket(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    device = await tenant.device(await tenant.home(await tenant.user()))
    lifetime = Lifetime(SLIDES_MS, absolute_ms=SLIDES_MS + 1_500)
    session, key = await tenant.store.sessions.open_node(
        tenant.project, device.id, ClientInfo(), lifetime=lifetime
    )
    async with (
        await listen(pair[0].url, f"/devices/{device.id}/command", key) as of_session,
        await listen(pair[1].url, f"/devices/{device.id}/command", device.key) as of_device,
    ):
        code, at = await closed(of_session)
        assert code == KEY_ENDED
        assert 0 <= at - session.ends_ms / 1000 <= SOON_S
        assert await of_device.is_alive()


async def test_during_outage_expired_sessions_end_and_unknown_ones_retry(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess], server: BusServer
) -> None:
    certain, known = await opened(tenant, HOUR, absolute_ms=4_000)
    doubtful, unknown = await opened(tenant, SLIDES_MS)
    _, far = await opened(tenant, HOUR)
    async with AsyncExitStack() as stack:

        async def listening(node: NodeProcess, user: Account) -> Socket:
            return await stack.enter_async_context(await listen(node.url, EVENTS, user.key))

        over = [await listening(node, known) for node in pair]
        in_doubt = [await listening(node, unknown) for node in pair]
        unconcerned = await listening(pair[0], far)
        server.hang()
        try:
            ended, gone = await asyncio.gather(
                asyncio.gather(*map(closed, over)), asyncio.gather(*map(closed, in_doubt))
            )
            assert await unconcerned.is_alive()
        finally:
            server.go_on()
        assert [code for code, _ in ended] == [KEY_ENDED] * 2
        assert [code for code, _ in gone] == [TRY_AGAIN] * 2
        assert all(0 <= at - certain.ends_ms / 1000 <= SOON_S for _, at in ended)
        # It may have slid until Redis was gone.
        last = (await now(tenant, doubtful)).expires_ms / 1000
        assert all(at - last <= SOON_S for _, at in gone)
        assert await unconcerned.is_alive()

    async def refused() -> bool:
        return [await status(node, known) for node in pair] == [401, 401]

    await eventually(refused)
