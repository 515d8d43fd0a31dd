"""Sessions in the store: how long they live, the index of a project's, those of devices."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.auth.tokens import parse
from homewire.errors import Conflict, UnknownRecord
from homewire.projects.models import AccountSystem, Project
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo, Lifetime, Session
from homewire.sessions.store import MAX_NODE_SESSIONS, PAGE
from homewire.store.keys import ProjectSlot
from homewire.users.models import User
from kit.manual_clock import ManualClock

DAY_MS = 86_400_000


@pytest.fixture
async def project(store: Store) -> Project:
    return await store.projects.create("sessions", AccountSystem.PHONE)


@pytest.fixture
async def user(store: Store, project: Project) -> User:
    return await store.users.create(project.id, "Ada", phone="+14155550123")


def standing_still(redis: Redis, clock: ManualClock) -> Store:
    """A store with a clock of its own."""
    return Store(redis, Relay(redis, 64), clock=clock)


async def listed(store: Store, project: Project) -> list[str]:
    return [session.id async for page in store.sessions.pages(project.id) for session in page]


async def test_session_records_where_it_comes_from(store: Store, project: Project, user: User) -> None:
    login = ClientInfo("192.0.2.7", "home.example:8443", "agent/1", "e3a1")
    opened, _ = await store.sessions.open(
        project.id, user.id, "rocket.chat", login, authentication_type="Cookie", roles=("user", "admin")
    )
    session = await store.sessions.get(project.id, opened.id)
    assert session == opened
    assert (session.address, session.host, session.user_agent, session.node) == (
        "192.0.2.7", "home.example:8443", "agent/1", "e3a1",
    )  # fmt: skip
    assert (session.roles, session.authentication_type, session.device_id) == (("user", "admin"), "Cookie", 0)
    long, _ = await store.sessions.open(project.id, user.id, "", ClientInfo(host="h" * 10_000))
    assert len(long.host) < 300


@pytest.mark.parametrize(
    ("slides", "absolute", "expires", "ends"),
    [(60_000, 0, 60_000, 0), (60_000, 300_000, 60_000, 300_000), (300_000, 60_000, 60_000, 60_000)],
)
async def test_session_ends_by_idle_and_absolute_time(
    store: Store, project: Project, user: User, slides: int, absolute: int, expires: int, ends: int
) -> None:
    session, token = await store.sessions.open(
        project.id, user.id, "app", ClientInfo(), lifetime=Lifetime(slides, absolute)
    )
    assert session.expires_ms - session.started_ms == expires
    assert session.ends_ms - (session.started_ms if ends else 0) == ends
    assert session.slides_ms == slides
    principal = await store.principals.lookup(token)
    assert principal is not None
    assert (principal.expires_ms, principal.session_id) == (session.expires_ms, session.id)


async def test_usual_lifetime_is_the_store_s(redis_client: Redis, project: Project, user: User) -> None:
    store = Store(redis_client, Relay(redis_client, 64), lifetime=Lifetime.of_seconds(60.0, 0.0))
    session, _ = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    assert (session.slides_ms, session.ends_ms) == (60_000, 0)


async def test_expired_session_cannot_be_ended(redis_client: Redis, project: Project, user: User) -> None:
    clock = ManualClock()
    store = standing_still(redis_client, clock)
    session, _ = await store.sessions.open(
        project.id, user.id, "app", ClientInfo(), lifetime=Lifetime(60_000)
    )
    clock.turn_ms(60_000)
    with pytest.raises(UnknownRecord):
        await store.sessions.end(project.id, session.id)
    with pytest.raises(UnknownRecord):
        async with store.sessions.lease(project.id, session.id):
            pass


async def test_pages_have_each_live_session_once(redis_client: Redis, store: Store, project: Project) -> None:
    """However many start in one millisecond, end or begin while somebody reads."""
    clock = ManualClock()
    still = standing_still(redis_client, clock)
    people = [
        (await store.users.create(project.id, "U", phone=f"+1415555{number:04}")).id for number in range(6)
    ]
    opened: list[Session] = []
    # More than a page of the first millisecond, then some of each.
    for count in (PAGE + 50, 3, 1, PAGE // 2, 40):
        made = await asyncio.gather(
            *(
                still.sessions.open(project.id, account, "app", ClientInfo())
                for account in itertools.islice(itertools.cycle(people), count)
            )
        )
        opened += [session for session, _ in made]
        clock.turn_ms(1)
    seen: list[str] = []
    gone: set[str] = set()
    sizes = []
    async for page in still.sessions.pages(project.id):
        sizes.append(len(page))
        assert [session.started_ms for session in page] == sorted(session.started_ms for session in page)
        seen += [session.id for session in page]
        rest = sorted({session.id for session in opened} - set(seen) - gone)
        # Of what was seen and of what was not.
        for session_id in (page[0].id, page[-1].id, *rest[:3]):
            await store.sessions.end(project.id, session_id)
            gone.add(session_id)
        await still.sessions.open(project.id, people[0], "app", ClientInfo())
    assert max(sizes) <= PAGE
    assert len(seen) == len(set(seen))
    assert {session.id for session in opened} - gone <= set(seen)
    assert set(await listed(still, project)).isdisjoint(gone)


async def test_expired_sessions_leave_index(redis_client: Redis, project: Project, user: User) -> None:
    clock = ManualClock()
    store, index = standing_still(redis_client, clock), ProjectSlot(project.id).sessions
    short, _ = await store.sessions.open(project.id, user.id, "app", ClientInfo(), lifetime=Lifetime(60_000))
    clock.turn_ms(1)
    long, _ = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    assert await listed(store, project) == [short.id, long.id]
    clock.turn_ms(60_000)
    # A clock that is slower may still show it.
    assert await listed(store, project) == [long.id]
    assert await redis_client.zcard(index) == 2
    clock.turn_ms(60_001)
    assert await listed(store, project) == [long.id]
    assert await redis_client.zcard(index) == 1
    # A record that Redis lost is no session, and stands in nobody's way.
    await redis_client.zadd(index, {"f" * 24: 1})
    assert await listed(store, project) == [long.id]
    assert await redis_client.zcard(index) == 1


async def test_login_removes_expired_sessions_from_index(
    redis_client: Redis, project: Project, user: User
) -> None:
    clock = ManualClock()
    store, index = standing_still(redis_client, clock), ProjectSlot(project.id).sessions
    await store.sessions.open(project.id, user.id, "app", ClientInfo(), lifetime=Lifetime(60_000))
    clock.turn_ms(60_001)
    new, _ = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    assert await redis_client.zrange(index, 0, -1) == [new.id.encode()]


async def test_nothing_of_a_deleted_user_is_in_the_index(
    redis_client: Redis, store: Store, project: Project, user: User
) -> None:
    for _ in range(5):
        await store.sessions.open(project.id, user.id, "app", ClientInfo())
    await store.users.delete(project.id, user.id)
    assert not await redis_client.exists(ProjectSlot(project.id).sessions)


async def test_device_has_sessions_of_its_own(store: Store, project: Project) -> None:
    device, _, _ = await store.devices.create(project.id, "lamp")
    session, token = await store.sessions.open_node(project.id, device.id, ClientInfo(user_agent="lamp/1"))
    assert (session.user_id, session.device_id, session.roles) == (0, device.id, ("node",))
    assert await store.sessions.of_token(token) == session
    assert await store.sessions.of_device(project.id, device.id) == [session]
    assert await listed(store, project) == [session.id]
    principal = await store.principals.lookup(token)
    assert principal is not None
    assert (principal.kind.value, principal.id, principal.name) == ("device", device.id, "lamp")
    assert principal.session_id == session.id
    await store.sessions.end(project.id, session.id)
    ended = await store.sessions.get(project.id, session.id)
    assert ended is not None
    assert ended.closed_ms
    assert await store.principals.lookup(token) is None
    assert await store.sessions.of_device(project.id, device.id) == []
    with pytest.raises(UnknownRecord):
        await store.sessions.open_node(project.id, 10**9, ClientInfo())


async def test_too_many_sessions_of_a_device_end_the_oldest(
    redis_client: Redis, store: Store, project: Project
) -> None:
    clock = ManualClock()
    still = standing_still(redis_client, clock)
    device, _, _ = await store.devices.create(project.id, "lamp")
    opened = []
    for _ in range(MAX_NODE_SESSIONS + 1):
        clock.turn_ms(1)
        opened.append((await still.sessions.open_node(project.id, device.id, ClientInfo()))[0])
    assert await listed(still, project) == [session.id for session in opened[1:]]


async def test_sessions_of_a_device_end_with_it_and_with_its_key(
    redis_client: Redis, store: Store, project: Project
) -> None:
    device, key, _ = await store.devices.create(project.id, "lamp")
    reference = parse(key)
    assert reference is not None
    first = await store.sessions.open_node(project.id, device.id, ClientInfo(), key_hash=reference.hash)
    second_key = await store.devices.rotate_key(project.id, device.id)
    assert await store.principals.lookup(first[1]) is None
    # A login that the rotation outran.
    with pytest.raises(Conflict):
        await store.sessions.open_node(project.id, device.id, ClientInfo(), key_hash=reference.hash)
    opened = [await store.sessions.open_node(project.id, device.id, ClientInfo()) for _ in range(3)]
    await store.devices.delete(project.id, device.id)
    for token in (second_key, *(token for _, token in opened)):
        assert await store.principals.lookup(token) is None
    slot = ProjectSlot(project.id)
    assert not await redis_client.exists(slot.sessions, slot.device_sessions(device.id))
    with pytest.raises(UnknownRecord):
        await store.sessions.open_node(project.id, device.id, ClientInfo())


async def test_logins_of_a_device_that_is_deleted_meanwhile_leave_no_key(
    store: Store, project: Project
) -> None:
    device, _, _ = await store.devices.create(project.id, "lamp")

    async def log_in() -> str:
        try:
            return (await store.sessions.open_node(project.id, device.id, ClientInfo()))[1]
        except UnknownRecord:
            return ""

    *tokens, _ = await asyncio.gather(
        *(log_in() for _ in range(8)), store.devices.delete(project.id, device.id)
    )
    assert [token for token in tokens if token and await store.principals.lookup(token)] == []
    assert await listed(store, project) == []


async def test_signed_in_device_is_deleted_with_its_home(store: Store, user: User) -> None:
    project = await store.projects.create("demand", AccountSystem.PHONE, on_demand_provisioning=True)
    owner = await store.users.create(project.id, "Ada", phone="+14155550123")
    home = await store.homes.create(project.id, "home", owner.id)
    devices = [(await store.devices.create(project.id, "lamp", home_id=home.id))[0] for _ in range(3)]
    token = (await store.sessions.open_node(project.id, devices[1].id, ClientInfo()))[1]
    await store.homes.delete(project.id, home.id)
    assert await store.principals.lookup(token) is None
    assert [await store.devices.get(project.id, device.id) for device in devices] == [None] * 3
    assert await listed(store, project) == []


async def test_password_that_is_reset_ends_a_leased_session_too(
    store: Store, project: Project, user: User
) -> None:
    session, token = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    async with store.sessions.lease(project.id, session.id):
        with pytest.raises(Conflict, match="in progress"):
            await store.sessions.end(project.id, session.id)
        await store.sessions.end_all(project.id, user.id)
    assert await store.principals.lookup(token) is None
