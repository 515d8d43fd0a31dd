"""Keys: who they speak for, that they die at once, and that nothing crosses projects."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.auth.models import Principal, PrincipalKind
from homewire.clock import MACHINE_CLOCK
from homewire.errors import Conflict, UnknownRecord
from homewire.projects.models import AccountSystem, KeyScope, Project
from homewire.redis.connection import Command
from homewire.redis.pipeline import AutoPipeline
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo, Lifetime
from homewire.sessions.store import MAX_SESSIONS
from homewire.users.models import User
from kit.manual_clock import ManualClock


@pytest.fixture
async def project(store: Store) -> Project:
    return await store.projects.create("keys", AccountSystem.PHONE)


@pytest.fixture
async def user(store: Store, project: Project) -> User:
    return await store.users.create(project.id, "Ada", phone="+14155550123")


async def everything(client: Redis) -> bytes:
    """All that Redis holds, as one text."""
    names = [name async for name in client.scan_iter(count=1000)]
    async with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.dump(name)
            pipeline.type(name)
        told = await pipeline.execute()
    hashes = [name for name, kind in zip(names, told[1::2], strict=True) if kind == b"hash"]
    async with client.pipeline(transaction=False) as pipeline:
        for name in hashes:
            pipeline.hgetall(name)
        fields = await pipeline.execute()
    pieces = (piece for each in fields for pair in each.items() for piece in pair)
    return b"\n".join([*names, *filter(None, told[::2]), *pieces])


async def test_project_key_speaks_for_its_project(store: Store, project: Project) -> None:
    granted = {KeyScope.SEND_EVENT, KeyScope.READ}
    key, token = await store.project_keys.create(project.id, "feed", granted)
    tag = int.from_bytes(hashlib.sha256(token.encode()).digest()[:8], "big")
    assert await store.principals.lookup(token) == Principal(
        PrincipalKind.PROJECT_KEY, project.id, key.id, tag, "feed", frozenset(granted), 0
    )
    assert await store.project_keys.list(project.id) == [key]


async def test_user_key_is_a_session(store: Store, project: Project, user: User) -> None:
    before = MACHINE_CLOCK.now_ms()
    session, token = await store.sessions.open(
        project.id,
        user.id,
        "controller_app",
        ClientInfo("192.0.2.7", "home.example", "agent/1 \udcff", "node"),
        authentication_type="Cookie",
    )
    assert before <= session.started_ms <= MACHINE_CLOCK.now_ms()
    assert session.last_access_ms == session.started_ms
    assert session.expires_ms == session.started_ms + 30 * 24 * 3600 * 1000
    assert (session.project_id, session.user_id, session.app_id) == (project.id, user.id, "controller_app")
    assert (session.address, session.user_agent, session.authentication_type) == (
        "192.0.2.7",
        "agent/1 ?",
        "Cookie",
    )
    assert session.version == 1
    principal = await store.principals.lookup(token)
    assert principal is not None
    assert (principal.kind, principal.id, principal.name) == (PrincipalKind.USER, user.id, "controller_app")
    assert principal.expires_ms == session.expires_ms
    assert await store.sessions.get(project.id, session.id) == session
    assert await store.sessions.of_token(token) == session
    assert await store.sessions.of_user(project.id, user.id) == [session]


async def test_end_of_a_session_is_the_end_of_its_key(store: Store, project: Project, user: User) -> None:
    kept, other = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    session, token = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    await store.sessions.end(project.id, session.id)
    assert await store.principals.lookup(token) is None
    assert await store.sessions.of_token(token) is None
    ended = await store.sessions.get(project.id, session.id)
    assert ended is not None  # It can be read for a while.
    assert ended.closed_ms > 0
    assert ended.version == 2
    assert await store.sessions.of_user(project.id, user.id) == [kept]
    assert await store.principals.lookup(other) is not None
    with pytest.raises(UnknownRecord):
        await store.sessions.end(project.id, session.id)


async def test_expired_key_is_dead(redis_client: Redis, project: Project, user: User) -> None:
    clock = ManualClock()
    store = Store(redis_client, Relay(redis_client, 64), clock=clock)
    session, token = await store.sessions.open(
        project.id, user.id, "app", ClientInfo(), lifetime=Lifetime(60_000)
    )
    clock.turn_ms(59_999)
    assert await store.principals.lookup(token) is not None
    clock.turn_ms(1)
    assert await store.principals.lookup(token) is None
    assert await store.sessions.of_token(token) is None
    assert await store.sessions.of_user(project.id, user.id) == []
    assert await store.sessions.get(project.id, session.id) == session


async def test_redis_forgets_an_expired_key_itself(redis_client: Redis, project: Project, user: User) -> None:
    past = MACHINE_CLOCK.now_ms() - 120_000
    # A clock that is behind must not keep a key alive.
    store = Store(redis_client, Relay(redis_client, 64), clock=ManualClock(past))
    _, token = await store.sessions.open(project.id, user.id, "app", ClientInfo(), lifetime=Lifetime(60_000))
    assert await store.principals.lookup(token) is None


async def test_too_many_sessions_end_the_oldest(redis_client: Redis, project: Project, user: User) -> None:
    clock = ManualClock()
    store = Store(redis_client, Relay(redis_client, 64), clock=clock)
    tokens = []
    for _ in range(MAX_SESSIONS + 1):
        clock.turn_ms(1)
        tokens.append((await store.sessions.open(project.id, user.id, "app", ClientInfo()))[1])
    alive = [await store.principals.lookup(token) is not None for token in tokens]
    assert alive == [False] + [True] * MAX_SESSIONS


async def test_device_key_is_dead_after_rotation(store: Store, project: Project) -> None:
    device, first, _ = await store.devices.create(project.id, "thermometer")
    second = await store.devices.rotate_key(project.id, device.id)
    assert await store.principals.lookup(first) is None
    principal = await store.principals.lookup(second)
    assert principal is not None
    assert (principal.kind, principal.id, principal.name) == (PrincipalKind.DEVICE, device.id, "thermometer")


async def test_concurrent_rotations_leave_no_second_key(store: Store, project: Project) -> None:
    device, first, _ = await store.devices.create(project.id, "thermometer")
    tokens = await asyncio.gather(*(store.devices.rotate_key(project.id, device.id) for _ in range(4)))
    last = await store.devices.rotate_key(project.id, device.id)
    alive = [token for token in (first, *tokens, last) if await store.principals.lookup(token) is not None]
    assert alive == [last]


async def test_project_key_rotates_and_is_revoked(store: Store, project: Project) -> None:
    key, first = await store.project_keys.create(project.id, "feed", {KeyScope.ADMIN})
    second = await store.project_keys.rotate(project.id, key.id)
    assert await store.principals.lookup(first) is None
    principal = await store.principals.lookup(second)
    assert principal is not None
    assert (principal.id, principal.scopes) == (key.id, frozenset({KeyScope.ADMIN}))
    await store.project_keys.revoke(project.id, key.id)
    assert await store.principals.lookup(second) is None
    assert await store.project_keys.list(project.id) == []
    with pytest.raises(UnknownRecord):
        await store.project_keys.revoke(project.id, key.id)
    with pytest.raises(UnknownRecord):
        await store.project_keys.rotate(project.id, key.id)


async def test_keys_go_with_their_device_and_user(store: Store, project: Project, user: User) -> None:
    device, device_key, _ = await store.devices.create(project.id, "thermometer")
    opened = [await store.sessions.open(project.id, user.id, "app", ClientInfo()) for _ in range(3)]
    await store.devices.delete(project.id, device.id)
    await store.users.delete(project.id, user.id)
    assert await store.principals.lookup(device_key) is None
    for session, token in opened:
        assert await store.principals.lookup(token) is None
        assert await store.sessions.get(project.id, session.id) is None
    with pytest.raises(UnknownRecord):
        await store.sessions.open(project.id, user.id, "app", ClientInfo())


async def test_revoking_works_when_redis_is_full(redis_client: Redis, store: Store, project: Project) -> None:
    key, token = await store.project_keys.create(project.id, "feed", set())
    await redis_client.config_set("maxmemory", "1")
    try:
        await store.project_keys.revoke(project.id, key.id)
        assert await store.principals.lookup(token) is None
    finally:
        await redis_client.config_set("maxmemory", "0")


async def test_key_of_another_project_authenticates_no_principal(store: Store, project: Project) -> None:
    other = await store.projects.create("other", AccountSystem.PHONE)
    _, token = await store.project_keys.create(project.id, "feed", {KeyScope.ADMIN})
    moved = token.replace(f"v1.{project.id}.", f"v1.{other.id}.")
    assert moved != token
    assert await store.principals.lookup(moved) is None


async def test_no_secret_is_stored(redis_client: Redis, store: Store, project: Project, user: User) -> None:
    tokens = [
        (await store.project_keys.create(project.id, "feed", set()))[1],
        (await store.devices.create(project.id, "thermometer"))[1],
        (await store.sessions.open(project.id, user.id, "app", ClientInfo()))[1],
    ]
    session = (await store.sessions.of_user(project.id, user.id))[0]
    stored = await everything(redis_client)
    for token in tokens:
        secret = token.rsplit(".", 1)[1].encode()
        token_hash = hashlib.sha256(token.encode()).hexdigest()
        assert token_hash.encode() in stored
        assert secret not in stored
        assert session.id not in token_hash


async def test_lookup_is_one_round_trip(
    store: Store, project: Project, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    await store.principals.lookup(token)  # The script is loaded now.
    sent: list[str] = []
    ask_each = AutoPipeline.ask_each

    async def counted(self: AutoPipeline, *commands: Command) -> list[Any]:
        sent.extend(str(command[0]) for command in commands)
        return await ask_each(self, *commands)

    monkeypatch.setattr(AutoPipeline, "ask_each", counted)
    assert await store.principals.lookup(token) is not None
    assert sent == ["EVALSHA"]
    assert await store.principals.lookup("v1.1.short") is None
    assert sent == ["EVALSHA"]


async def test_lookup_after_script_flush_works(redis_client: Redis, store: Store, project: Project) -> None:
    _, token = await store.project_keys.create(project.id, "feed", set())
    await redis_client.script_flush()
    assert await store.principals.lookup(token) is not None


async def test_apps_are_unique(store: Store, project: Project) -> None:
    await store.apps.create(project.id, "controller_app")
    assert await store.apps.exists(project.id, "controller_app")
    assert not await store.apps.exists(project.id, "other")
    with pytest.raises(Conflict):
        await store.apps.create(project.id, "controller_app")
