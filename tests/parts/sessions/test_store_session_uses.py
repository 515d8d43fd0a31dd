"""The use of sessions in the store: what is noted, what slides, and what no use prolongs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.auth.tokens import TokenReference, parse
from homewire.clock import MACHINE_CLOCK
from homewire.projects.models import AccountSystem, Project
from homewire.repositories import Store
from homewire.sessions.activity import (
    MAX_TOUCHED,
    NOTE_INTERVAL_MS,
    KeyReference,
    SessionDeadline,
    SessionUse,
    note_interval_ms,
)
from homewire.sessions.models import ClientInfo, Lifetime, Session
from homewire.store.keys import ENDED_SESSION_TTL_MS, ProjectSlot
from homewire.users.models import User
from kit.manual_clock import ManualClock

HOUR = 3_600_000


@pytest.fixture
async def project(store: Store) -> Project:
    return await store.projects.create("test", AccountSystem.EMAIL)


@pytest.fixture
async def user(store: Store, project: Project) -> User:
    return await store.users.create(project.id, "Ann", email="ann@example.com")


def reference(token: str) -> TokenReference:
    parsed = parse(token)
    assert parsed is not None
    return parsed


def use(session: Session, token: str, used_ms: int) -> SessionUse:
    return SessionUse(session.id, session.user_id, session.device_id, reference(token).hash, used_ms)


async def opened(store: Store, user: User, slides_ms: int, absolute_ms: int = 0) -> tuple[Session, str]:
    lifetime = Lifetime(slides_ms, absolute_ms)
    return await store.sessions.open(user.project_id, user.id, "app", ClientInfo(), lifetime=lifetime)


async def ends(redis: Redis, session: Session, token: str) -> list[int]:
    """When the record, the key and their places in Redis end: what they say, and what Redis does."""
    slot = ProjectSlot(session.project_id)
    index = (
        slot.device_sessions(session.device_id) if session.device_id else slot.user_sessions(session.user_id)
    )
    record, key = slot.session(session.id), slot.key(reference(token).hash)
    said = [await redis.hget(name, "expires") for name in (record, key)]
    score = await redis.zscore(index, session.id)
    kept, key_kept = await redis.pexpiretime(record), await redis.pexpiretime(key)
    assert score is not None
    return [*(int(each or 0) for each in said), round(score), kept - ENDED_SESSION_TTL_MS, key_kept]


async def test_use_extends_every_expiry_of_the_session(store: Store, redis_client: Redis, user: User) -> None:
    session, token = await opened(store, user, HOUR)
    used = session.started_ms + NOTE_INTERVAL_MS
    assert await store.session_uses.touch(user.project_id, [use(session, token, used)]) == [
        SessionDeadline(used + HOUR, 0)
    ]
    assert await ends(redis_client, session, token) == [used + HOUR] * 5
    now = await store.sessions.get(user.project_id, session.id)
    assert now is not None
    assert (now.last_access_ms, now.expires_ms, now.version) == (used, used + HOUR, 2)
    principal = await store.principals.lookup(token)
    assert principal is not None
    assert principal.expires_ms == used + HOUR


async def test_session_use_is_written_once_a_minute(store: Store, user: User) -> None:
    session, token = await opened(store, user, HOUR)
    early = [use(session, token, session.started_ms + NOTE_INTERVAL_MS - 1)] * 2
    deadline = SessionDeadline(session.expires_ms, 0)
    assert await store.session_uses.touch(user.project_id, early) == [deadline] * 2
    assert await store.sessions.get(user.project_id, session.id) == session
    late = use(session, token, session.started_ms + NOTE_INTERVAL_MS)
    both = await asyncio.gather(*(store.session_uses.touch(user.project_id, [late]) for _ in range(2)))
    assert both[0] == both[1]
    now = await store.sessions.get(user.project_id, session.id)
    assert now is not None
    assert now.version == 2


async def test_session_of_seconds_is_noted_four_times_before_it_would_end(store: Store, user: User) -> None:
    session, token = await opened(store, user, 4_000)
    for step in range(1, 9):
        used = session.started_ms + 500 * step
        await store.session_uses.touch(user.project_id, [use(session, token, used)])
    now = await store.sessions.get(user.project_id, session.id)
    assert now is not None
    assert (now.last_access_ms, now.version) == (session.started_ms + 4_000, 5)


async def test_no_use_goes_beyond_the_absolute_end(store: Store, redis_client: Redis, user: User) -> None:
    session, token = await opened(store, user, HOUR, absolute_ms=HOUR + 90_000)
    end = session.started_ms + HOUR + 90_000
    for minute in range(1, 4):
        used = session.started_ms + minute * NOTE_INTERVAL_MS
        [deadline] = await store.session_uses.touch(user.project_id, [use(session, token, used)])
        assert deadline == SessionDeadline(min(used + HOUR, end), end)
    assert await ends(redis_client, session, token) == [end] * 5
    now = await store.sessions.get(user.project_id, session.id)
    assert now is not None
    assert (now.last_access_ms, now.expires_ms) == (session.started_ms + 3 * NOTE_INTERVAL_MS, end)


async def test_session_of_a_device_slides_too(store: Store, redis_client: Redis, project: Project) -> None:
    device, _, _ = await store.devices.create(project.id, "lamp")
    session, token = await store.sessions.open_node(
        project.id, device.id, ClientInfo(), lifetime=Lifetime(HOUR, 0)
    )
    used = session.started_ms + NOTE_INTERVAL_MS
    await store.session_uses.touch(project.id, [use(session, token, used)])
    assert await ends(redis_client, session, token) == [used + HOUR] * 5


async def over_by_end(store: Store, session: Session) -> None:
    await store.sessions.end(session.project_id, session.id)


async def over_by_time(store: Store, session: Session) -> None:
    # Redis and the script judge by the time of this machine, which nobody turns.
    await asyncio.sleep(max(0, session.expires_ms - MACHINE_CLOCK.now_ms()) / 1000 + 0.01)


async def over_with_user(store: Store, session: Session) -> None:
    await store.users.delete(session.project_id, session.user_id)


@pytest.mark.parametrize(
    ("over", "slides_ms"), [(over_by_end, HOUR), (over_by_time, 200), (over_with_user, HOUR)]
)
async def test_ended_session_stays_ended(
    store: Store, user: User, over: Callable[[Store, Session], Awaitable[None]], slides_ms: int
) -> None:
    session, token = await opened(store, user, slides_ms)
    await over(store, session)
    before = await store.sessions.get(user.project_id, session.id)
    late = use(session, token, session.started_ms + note_interval_ms(slides_ms))
    assert await store.session_uses.touch(user.project_id, [late]) == [None]
    assert await store.principals.lookup(token) is None
    assert await store.sessions.get(user.project_id, session.id) == before
    assert (
        await store.session_uses.of_keys(
            user.project_id, {KeyReference(user.id, 0, reference(token).key_tag)}
        )
        == {}
    )


async def test_session_with_another_key_than_the_one_used_is_not_touched(store: Store, user: User) -> None:
    session, _ = await opened(store, user, HOUR)
    _, token = await opened(store, user, HOUR)
    late = session.started_ms + NOTE_INTERVAL_MS
    assert await store.session_uses.touch(user.project_id, [use(session, token, late)]) == [None]
    assert await store.sessions.get(user.project_id, session.id) == session


async def test_many_are_touched_at_once_and_found_by_the_tags_of_their_keys(
    redis_client: Redis, store: Store, project: Project
) -> None:
    users = [
        await store.users.create(project.id, "user", email=f"{number}@example.com")
        for number in range(MAX_TOUCHED)
    ]
    made = [await opened(store, user, HOUR) for user in users]
    keys = {KeyReference(session.user_id, 0, reference(token).key_tag) for session, token in made}
    later = Store(
        redis_client, Relay(redis_client, 64), ManualClock(MACHINE_CLOCK.now_ms() + NOTE_INTERVAL_MS)
    )
    found = await later.session_uses.of_keys(
        project.id, keys | {KeyReference(users[0].id, 0, 1), KeyReference(0, 7, 7)}
    )
    assert {(session.user_id, session.id) for session, _ in made} == {
        (key.user_id, each.session_id) for key, each in found.items()
    }
    assert all(each.is_due(each.last_access_ms + NOTE_INTERVAL_MS) for each in found.values())
    used = made[-1][0].started_ms + NOTE_INTERVAL_MS
    uses = [use(session, token, used) for session, token in made]
    assert await store.session_uses.touch(project.id, uses) == [SessionDeadline(used + HOUR, 0)] * MAX_TOUCHED
    assert {
        each.last_access_ms for each in (await store.session_uses.of_keys(project.id, keys)).values()
    } == {used}


async def test_of_a_deleted_project_nothing_lives(store: Store, user: User) -> None:
    session, token = await opened(store, user, HOUR)
    await store.projects.delete(user.project_id)
    late = use(session, token, session.started_ms + NOTE_INTERVAL_MS)
    assert await store.session_uses.touch(user.project_id, [late]) == [None]
