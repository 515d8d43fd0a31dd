"""How long sessions live, on two nodes: used by sockets and requests, over by time, and without Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from kit.client import Socket, listen
from kit.clock import now_ms
from kit.node import NodeProcess, eventually, private_node
from kit.redis_server import BusServer, running_server
from kit.tenant import Account, Session, Tenant, tenant_of

EVENTS = "/userSession/websocket"
TRY_AGAIN, KEY_ENDED = 1013, 4502
HOUR_S = 3_600
SLIDES_S = 160
"""Without use, by the clocks of the nodes, which the tests turn."""
NOTES, NOTE_INTERVAL_MS = 4, 60_000
"""How often a session's use is noted in its life, and at most once in so long."""
STEP_S = SLIDES_S / NOTES
"""Between two checks of open sockets, and between two notes of a session."""
SECOND = 1_000


@pytest.fixture(scope="module")
def server() -> Iterator[BusServer]:
    """A Redis that can be paused."""
    with running_server() as running:
        yield running


@pytest.fixture
def pair(server: BusServer) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """Two nodes, whose clocks the tests turn."""
    settings = {"redis_url": server.url, "session_ttl_s": SLIDES_S, "steps": True}
    with private_node(**settings) as one, private_node(**settings) as other:
        yield one, other


async def turn(pair: tuple[NodeProcess, NodeProcess], seconds: float) -> None:
    """Let time pass on both nodes."""
    await asyncio.gather(*(node.turn(seconds) for node in pair))


async def turn_to_check(pair: tuple[NodeProcess, NodeProcess]) -> None:
    """Let so much time pass that both nodes check their sockets, and wait until they have."""
    before = [(await node.metrics())["session_checks_total"] for node in pair]
    await turn(pair, STEP_S)
    for node, checks in zip(pair, before, strict=True):
        await node.reaches("session_checks_total", checks + 1)


@pytest_asyncio.fixture
async def tenant(pair: tuple[NodeProcess, NodeProcess]) -> AsyncIterator[Tenant]:
    async with tenant_of(pair[0]) as made:
        yield made


async def opened(tenant: Tenant, slides_s: int, absolute_s: int = 0) -> tuple[Session, Account]:
    """A session of a new user."""
    user = await tenant.user()
    session, key = await tenant.session(user.id, lifetime_s=(slides_s, absolute_s))
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


async def close_code(socket: Socket) -> int:
    """The code with which a socket is closed."""
    return (await socket.receive()).close_code


async def test_open_socket_keeps_its_session_alive_and_without_it_the_session_ends(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    session, user = await opened(tenant, SLIDES_S)
    async with await listen(pair[1].url, EVENTS, user.key) as socket:
        for _ in range(NOTES + 1):
            await turn_to_check(pair)
        assert await socket.is_alive()
        slid = await now(tenant, session)
        assert slid.expires_ms == slid.last_access_ms + SLIDES_S * SECOND > session.expires_ms
        notes = slid.version - session.version
        assert 1 <= notes <= (slid.last_access_ms - session.started_ms) / (STEP_S * SECOND)
        assert await status(pair[0], user) == 200
    await pair[1].until("connections", 0)
    await turn(pair, SLIDES_S + 1)
    assert [await status(node, user) for node in pair] == [401, 401]


async def test_absolute_end_closes_sockets_on_all_nodes(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    session, user = await opened(tenant, HOUR_S, absolute_s=SLIDES_S)
    _, other = await opened(tenant, HOUR_S)
    async with (
        await listen(pair[0].url, EVENTS, user.key) as here,
        await listen(pair[1].url, EVENTS, user.key) as there,
        await listen(pair[0].url, EVENTS, other.key) as unconcerned,
    ):
        assert [await status(node, user) for node in pair] == [200, 200]
        await turn(pair, SLIDES_S / 2)
        assert [await here.is_alive(), await there.is_alive()] == [True, True]
        await turn(pair, SLIDES_S / 2)
        assert [await close_code(here), await close_code(there)] == [KEY_ENDED] * 2
        assert [await status(node, user) for node in pair] == [401, 401]
        assert (await now(tenant, session)).expires_ms == session.ends_ms
        assert await unconcerned.is_alive()


async def test_child_sessions_end_with_parent_on_every_node(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    session, user = await opened(tenant, HOUR_S, absolute_s=HOUR_S)
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
    _, other = await opened(tenant, HOUR_S)
    async with (
        await listen(pair[0].url, EVENTS, key) as here,
        await listen(pair[1].url, EVENTS, key) as there,
        await listen(pair[0].url, EVENTS, other.key) as unconcerned,
    ):
        await tenant.store.sessions.end(tenant.project, session.id)
        assert [await close_code(here), await close_code(there)] == [KEY_ENDED] * 2
        assert [await status(node, Account(user.id, key)) for node in pair] == [401, 401]
        assert await unconcerned.is_alive()


async def test_cached_expiry_is_read_again_when_due(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    """One node knows the key, and its user goes on at the other."""
    session, user = await opened(tenant, SLIDES_S)
    assert await status(pair[0], user) == 200
    expires_ms = session.expires_ms

    async def slid() -> bool:
        return (await now(tenant, session)).expires_ms > expires_ms

    for _ in range(NOTES + 1):
        await turn(pair, STEP_S)
        assert await status(pair[1], user) == 200
        await eventually(slid)
        expires_ms = (await now(tenant, session)).expires_ms
    assert await status(pair[0], user) == 200


async def test_requests_note_the_last_access_once_a_minute_on_all_nodes_together(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    user = await tenant.user()
    session, key = await tenant.session(user.id, ahead_ms=-61_000, lifetime_s=(HOUR_S, 0))
    account, began = Account(user.id, key), now_ms()
    for _ in range(10):
        assert [await status(node, account) for node in pair] == [200, 200]

    async def noted() -> bool:
        return (await now(tenant, session)).version > 1

    await eventually(noted)
    used = await now(tenant, session)
    assert began <= used.last_access_ms <= now_ms()
    assert used.expires_ms == used.last_access_ms + HOUR_S * SECOND
    written = sum([(await node.metrics())["session_uses_written_total"] for node in pair])
    # The nodes note again, and the store sees that it is too early.
    await turn(pair, STEP_S)
    assert SECOND * STEP_S < NOTE_INTERVAL_MS
    assert [await status(node, account) for node in pair] == [200, 200]

    async def asked_again() -> bool:
        return sum([(await node.metrics())["session_uses_written_total"] for node in pair]) > written

    await eventually(asked_again)
    assert await now(tenant, session) == used


async def test_node_session_lives_and_ends_with_its_device_s_socket(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess]
) -> None:
    device = await tenant.device(await tenant.home(await tenant.user()))
    _, key = await tenant.node_session(device.id, lifetime_s=(SLIDES_S, 2 * SLIDES_S))
    async with (
        await listen(pair[0].url, f"/devices/{device.id}/command", key) as of_session,
        await listen(pair[1].url, f"/devices/{device.id}/command", device.key) as of_device,
    ):
        for _ in range(NOTES + 1):
            await turn_to_check(pair)
        assert await of_session.is_alive()
        await turn(pair, SLIDES_S)
        assert await close_code(of_session) == KEY_ENDED
        assert await of_device.is_alive()


async def test_during_outage_expired_sessions_end_and_unknown_ones_retry(
    tenant: Tenant, pair: tuple[NodeProcess, NodeProcess], server: BusServer
) -> None:
    _, known = await opened(tenant, HOUR_S, absolute_s=SLIDES_S)
    _, unknown = await opened(tenant, SLIDES_S)
    _, far = await opened(tenant, HOUR_S)
    async with AsyncExitStack() as stack:

        async def listening(node: NodeProcess, user: Account) -> Socket:
            return await stack.enter_async_context(await listen(node.url, EVENTS, user.key))

        over = [await listening(node, known) for node in pair]
        in_doubt = [await listening(node, unknown) for node in pair]
        unconcerned = await listening(pair[0], far)
        server.hang()
        try:
            await turn(pair, SLIDES_S)
            assert await asyncio.gather(*map(close_code, over)) == [KEY_ENDED] * 2
            assert await asyncio.gather(*map(close_code, in_doubt)) == [TRY_AGAIN] * 2
            assert await unconcerned.is_alive()
        finally:
            server.go_on()
        assert await unconcerned.is_alive()

    async def refused() -> bool:
        return [await status(node, known) for node in pair] == [401, 401]

    await eventually(refused)
