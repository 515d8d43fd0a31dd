"""Each change leaves exactly the right copies in the right shards before it is answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.auth.tokens import parse
from homewire.devices.models import DeviceLocation
from homewire.devices.store import RELEASE_DEVICES
from homewire.errors import Conflict, NotConfirmed, Unavailable, UnknownRecord
from homewire.homes.models import Role
from homewire.homes.store import REMOVE_MEMBERS
from homewire.projects.models import AccountSystem, KeyScope, OfflineCommands, Project
from homewire.repositories import Store
from homewire.sessions.activity import NOTE_INTERVAL_MS, SessionUse
from homewire.sessions.models import ClientInfo, Lifetime
from homewire.store.keys import ProjectSlot
from homewire.store.script import Script
from homewire.users.models import User
from kit.control_records import SHARDS, announced_by, copies, dying_store, shards_of
from kit.redis_server import monitored

ABSENT = 987_654_321
EVERYWHERE = set(range(SHARDS))


@pytest.fixture
async def project(store: Store) -> Project:
    return await store.projects.create("announcements", AccountSystem.EMAIL)


@pytest.fixture
async def user(store: Store, project: Project) -> User:
    return await store.users.create(project.id, "Ada", email="ada@example.com")


@pytest.fixture
async def home(store: Store, project: Project, user: User) -> int:
    return (await store.homes.create(project.id, "home", user.id)).id


def tag(token: str) -> int:
    reference = parse(token)
    assert reference is not None
    return reference.key_tag


OTHER = 10**10
"""An owner of every home of `fill`."""


async def fill(redis: Redis, project: Project, user: User, count: int) -> list[int]:
    """Homes with this owner and another, as the store would have made them."""
    slot, first = ProjectSlot(project.id), 10**9
    homes = list(range(first, first + count))
    async with redis.pipeline(transaction=False) as pipeline:
        for each in homes:
            pipeline.hset(slot.home(each), mapping={"created": 1, "name": "h", "owners": 2})
            pipeline.zadd(slot.homes, {str(each): each})
            pipeline.hset(slot.home_members(each), mapping={str(user.id): "owner 1", str(OTHER): "owner 1"})
            pipeline.zadd(slot.user_homes(user.id), {str(each): each})
        await pipeline.execute()
    return homes


async def test_memberships(redis_client: Redis, store: Store, project: Project, user: User) -> None:
    made: list[int] = []

    async def create() -> None:
        made.append((await store.homes.create(project.id, "home", user.id)).id)

    told = await announced_by(redis_client, project.id, create())
    [home] = made
    assert told == [("MEMBER_ADDED", {"user": user.id, "home": home}, shards_of(user.id, home))]
    guest = (await store.users.create(project.id, "Guest", email="guest@example.com")).id
    subjects, shards = {"user": guest, "home": home}, shards_of(guest, home)
    adding = store.homes.add_member(project.id, home, guest)
    assert await announced_by(redis_client, project.id, adding) == [("MEMBER_ADDED", subjects, shards)]
    removing = store.homes.remove_member(project.id, home, guest)
    assert await announced_by(redis_client, project.id, removing) == [("MEMBER_REMOVED", subjects, shards)]


async def test_deactivated_homes(redis_client: Redis, store: Store, project: Project, home: int) -> None:
    subject, shard = {"home": home}, shards_of(home)
    guest = (await store.users.create(project.id, "Guest", email="guest@example.com")).id
    for _ in range(2):
        deactivating = store.homes.set_deactivated(project.id, home, True)
        told = await announced_by(redis_client, project.id, deactivating)
        assert told == [("HOME_DEACTIVATED", subject, shard)]
        # It is so already: there is nothing to announce.
        again = store.homes.set_deactivated(project.id, home, True)
        assert await announced_by(redis_client, project.id, again) == []
        adding = store.homes.add_member(project.id, home, guest)
        told = await announced_by(redis_client, project.id, adding)
        assert told == [("MEMBER_WAITS", {"user": guest, **subject}, shards_of(guest, home))]
        await store.homes.remove_member(project.id, home, guest)
        activating = store.homes.set_deactivated(project.id, home, False)
        told = await announced_by(redis_client, project.id, activating)
        assert told == [("HOME_ACTIVATED", subject, shard)]
    with pytest.raises(UnknownRecord):
        await store.homes.set_deactivated(project.id, ABSENT, True)


async def test_deleted_user_is_announced_in_all_homes(
    redis_client: Redis, store: Store, project: Project, user: User
) -> None:
    homes = [(await store.homes.create(project.id, "home", user.id)).id for _ in range(5)]
    await store.sessions.open(project.id, user.id, "app", ClientInfo())
    told = await announced_by(redis_client, project.id, store.users.delete(project.id, user.id))
    deleted = [("HOME_DELETED", {"home": home}, EVERYWHERE) for home in homes]
    assert told == [("USER_DELETED", {"user": user.id}, shards_of(user.id, *homes)), *deleted]


async def test_ended_session_is_announced_in_all_homes_of_user(
    redis_client: Redis, store: Store, project: Project, user: User
) -> None:
    homes = [(await store.homes.create(project.id, "home", user.id)).id for _ in range(5)]
    session, token = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    told = await announced_by(redis_client, project.id, store.sessions.end(project.id, session.id))
    assert told == [("KEY_ENDED", {"user": user.id, "key_tag": tag(token)}, shards_of(user.id, *homes))]


async def test_session_evicted_by_limit_is_announced(
    redis_client: Redis, store: Store, project: Project, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homewire.sessions.store.MAX_SESSIONS", 2)
    tokens = [
        (await store.sessions.open(project.id, user.id, "app", ClientInfo(), lifetime=Lifetime(lifetime)))[1]
        for lifetime in (60_000, 90_000)
    ]
    told = await announced_by(
        redis_client, project.id, store.sessions.open(project.id, user.id, "app", ClientInfo())
    )
    assert told == [("KEY_ENDED", {"user": user.id, "key_tag": tag(tokens[0])}, shards_of(user.id))]


async def test_keys_of_devices_and_projects(redis_client: Redis, store: Store, project: Project) -> None:
    device, token, _ = await store.devices.create(project.id, "lamp")
    told = await announced_by(redis_client, project.id, store.devices.rotate_key(project.id, device.id))
    assert told == [("KEY_ENDED", {"device": device.id, "key_tag": tag(token)}, shards_of(device.id))]
    key, token = await store.project_keys.create(project.id, "k", {KeyScope.READ})
    second: list[str] = []

    async def rotate() -> None:
        second.append(await store.project_keys.rotate(project.id, key.id))

    told = await announced_by(redis_client, project.id, rotate())
    assert told == [("KEY_ENDED", {"key_tag": tag(token)}, shards_of(key.id))]
    told = await announced_by(redis_client, project.id, store.project_keys.revoke(project.id, key.id))
    assert told == [("KEY_ENDED", {"key_tag": tag(second[0])}, shards_of(key.id))]


async def test_devices_come_and_go(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    other = (await store.homes.create(project.id, "other", user.id)).id
    device = (await store.devices.create(project.id, "lamp"))[0].id
    for old, new in ((0, home), (home, other), (other, 0)):
        moving = store.devices.move(project.id, device, new or None)
        subjects: dict[str, Any] = {"device": device, "body": b"%d" % old}
        shards = shards_of(device, *filter(None, (old, new)))
        assert await announced_by(redis_client, project.id, moving) == [
            ("DEVICE_MOVED", {**subjects, **({"home": new} if new else {})}, shards)
        ]
        assert await store.devices.locate(project.id, [device]) == {
            device: DeviceLocation(new or None, "lamp")
        }
        found = await store.devices.get(project.id, device)
        assert found is not None
        assert found.home_id == (new or None)
        for each in (home, other):
            assert await store.devices.of_home(project.id, each) == ([device] if each == new else [])
    assert await announced_by(redis_client, project.id, store.devices.move(project.id, device, None)) == []
    told = await announced_by(redis_client, project.id, store.devices.delete(project.id, device))
    assert told == [("DEVICE_DELETED", {"device": device}, shards_of(device))]
    placed = (await store.devices.create(project.id, "lamp", home_id=home))[0].id
    told = await announced_by(redis_client, project.id, store.devices.delete(project.id, placed))
    assert told == [("DEVICE_DELETED", {"device": placed, "home": home}, shards_of(placed, home))]


async def test_device_is_not_moved_to_where_it_cannot_be(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    device = (await store.devices.create(project.id, "lamp", home_id=home))[0].id
    gone = (await store.homes.create(project.id, "gone", user.id)).id
    await store.homes.delete(project.id, gone)
    stranger = await store.projects.create("other", AccountSystem.EMAIL)
    for attempt in (
        store.devices.move(project.id, device, ABSENT),
        store.devices.move(project.id, device, gone),
        store.devices.move(project.id, ABSENT, home),
        store.devices.move(stranger.id, device, None),
    ):
        with pytest.raises(UnknownRecord):
            await attempt
    assert await store.devices.of_home(project.id, home) == [device]


async def test_concurrent_moves_leave_the_device_in_one_home(
    store: Store, project: Project, user: User
) -> None:
    homes = [(await store.homes.create(project.id, "home", user.id)).id for _ in range(4)]
    device = (await store.devices.create(project.id, "lamp"))[0].id
    await asyncio.gather(*(store.devices.move(project.id, device, each) for each in homes))
    found = await store.devices.get(project.id, device)
    assert found is not None
    assert [each for each in homes if await store.devices.of_home(project.id, each)] == [found.home_id]


async def test_deleted_home_is_announced_in_all_shards(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    device = (await store.devices.create(project.id, "lamp", home_id=home))[0].id
    told = await announced_by(redis_client, project.id, store.homes.delete(project.id, home))
    assert told == [("HOME_DELETED", {"home": home}, EVERYWHERE)]
    assert await store.homes.get(project.id, home) is None
    assert await store.homes.of_user(project.id, user.id) == []
    assert await store.devices.locate(project.id, [device]) == {device: DeviceLocation(None, "lamp")}
    assert await redis_client.zcard(ProjectSlot(project.id).user_homes(user.id)) == 0
    left = [name async for name in redis_client.scan_iter(ProjectSlot(project.id).home(home) + "*")]
    assert left == []
    with pytest.raises(UnknownRecord):
        await store.homes.delete(project.id, home)


async def test_projects(redis_client: Redis, store: Store, project: Project, user: User) -> None:
    _, token = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    for switch, name, alive in (
        (store.projects.disable, "PROJECT_DISABLED", False),
        (store.projects.enable, "PROJECT_ENABLED", True),
        (store.projects.delete, "PROJECT_DELETED", False),
    ):
        assert await announced_by(redis_client, project.id, switch(project.id)) == [(name, {}, EVERYWHERE)]
        assert (await store.principals.lookup(token) is not None) == alive
        assert await announced_by(redis_client, project.id, _again(switch(project.id))) == []
    for switch in (store.projects.disable, store.projects.enable):
        with pytest.raises(UnknownRecord):
            await switch(project.id)
    await store.projects.sweep(project.id)
    assert [name async for name in redis_client.scan_iter(ProjectSlot(project.id).prefix + "*")] == []


async def _again(switch: Any) -> None:
    """A change that was made already."""
    await switch


async def test_settings_of_a_project_are_read_again(
    redis_client: Redis, store: Store, project: Project
) -> None:
    """The record ends nothing; nodes that remember the project see by it that it changed."""
    change = store.projects.configure(project.id, offline_commands=OfflineCommands.REFUSE)
    assert await announced_by(redis_client, project.id, change) == [("PROJECT_ENABLED", {}, EVERYWHERE)]


async def test_disabled_project_is_listed_as_such(store: Store, project: Project) -> None:
    await store.projects.disable(project.id)
    found = await store.projects.get(project.id)
    assert found is not None
    assert found.disabled
    await store.projects.enable(project.id)
    assert await store.projects.get(project.id) == project


async def test_deleted_project_is_announced_before_its_outbox_goes(
    redis_client: Redis, store: Store, project: Project
) -> None:
    await dying_store(redis_client).projects.delete(project.id)
    assert await copies(redis_client, project.id) == []
    told = await announced_by(redis_client, project.id, store.projects.sweep(project.id))
    assert told == [("PROJECT_DELETED", {}, EVERYWHERE)]


async def test_changes_without_effect_on_access_are_not_announced(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    async def quiet() -> None:
        await store.users.create(project.id, "Eve", email="eve@example.com")
        session, key = await store.sessions.open(project.id, user.id, "app", ClientInfo())
        reference = parse(key)
        assert reference is not None
        used = session.started_ms + NOTE_INTERVAL_MS
        await store.session_uses.touch(project.id, [SessionUse(session.id, user.id, 0, reference.hash, used)])
        await store.devices.create(project.id, "lamp", home_id=home)
        await store.project_keys.create(project.id, "k", set())
        await store.apps.create(project.id, "app")

    assert await announced_by(redis_client, project.id, quiet()) == []


async def test_refused_change_is_not_announced(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    guest = (await store.users.create(project.id, "Guest", email="guest@example.com")).id
    await store.homes.add_member(project.id, home, guest)

    async def refused() -> None:
        for attempt in (
            store.homes.add_member(project.id, home, user.id, Role.MEMBER),
            store.homes.remove_member(project.id, home, user.id, caller_id=guest),
            store.homes.remove_member(project.id, home, user.id),
            store.homes.remove_member(project.id, home, ABSENT),
        ):
            with pytest.raises((Conflict, UnknownRecord)):
                await attempt

    assert await announced_by(redis_client, project.id, refused()) == []


@pytest.mark.parametrize(("count", "everywhere"), [(40, False), (1_500, True)])
async def test_user_of_many_homes(
    redis_client: Redis, store: Store, project: Project, user: User, count: int, everywhere: bool
) -> None:
    homes = await fill(redis_client, project, user, count)
    shards = EVERYWHERE if everywhere else shards_of(user.id, *homes)
    assert (shards == EVERYWHERE) == everywhere
    session, token = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    told = await announced_by(redis_client, project.id, store.sessions.end(project.id, session.id))
    assert told == [("KEY_ENDED", {"user": user.id, "key_tag": tag(token)}, shards)]
    told = await announced_by(redis_client, project.id, store.users.delete(project.id, user.id))
    assert told == [("USER_DELETED", {"user": user.id}, shards)]
    # What nobody waits for.
    await store.users.sweep(project.id)
    slot = ProjectSlot(project.id)
    for each in (homes[0], homes[-1]):
        assert [member.user_id for member in await store.homes.members(project.id, each)] == [OTHER]
        assert await redis_client.hget(slot.home(each), "owners") == b"1"
    assert await redis_client.exists(slot.user_homes(user.id), slot.departing_users) == 0


async def test_homes_of_a_thousand_are_listed_and_no_more(
    redis_client: Redis, project: Project, user: User
) -> None:
    slot, store = ProjectSlot(project.id), dying_store(redis_client)
    for count in (1_000, 1_001):
        await redis_client.zadd(slot.user_homes(user.id), {str(each): each for each in range(1, count + 1)})
        session, _ = await store.sessions.open(project.id, user.id, "app", ClientInfo())
        await store.sessions.end(project.id, session.id)
    entries: Any = await redis_client.xrange(slot.outbox)
    listed = [fields[b"s"] for _, fields in entries]
    assert listed == [",".join(map(str, range(1, 1_001))).encode(), b"*"]


async def test_no_step_of_a_large_deletion_touches_more_than_a_thousand(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    slot = ProjectSlot(project.id)
    guests, lamps = range(10**8, 10**8 + 2_500), range(10**7, 10**7 + 1_200)
    async with redis_client.pipeline(transaction=False) as pipeline:
        for each in guests:
            pipeline.hset(slot.home_members(home), str(each), "member 1")
            pipeline.zadd(slot.user_homes(each), {str(home): home})
        for each in lamps:
            pipeline.hset(slot.device(each), mapping={"home": home, "class": "lamp"})
            pipeline.hset(slot.device_places, str(each), f"{home} lamp")
            pipeline.zadd(slot.home_devices(home), {str(each): each})
        await pipeline.execute()
    await fill(redis_client, project, user, 1_500)
    async with monitored(redis_client) as monitor:
        await store.homes.delete(project.id, home)
        await store.users.delete(project.id, user.id)
        await redis_client.ping()
        seen = []
        async for command in monitor.listen():
            if command["command"] == "PING":
                break
            seen.append(command)
    touched, largest = 0, 0
    for command in seen:
        # The first call of a script has its text in it, which ends with a line.
        words = len(command["command"].rpartition(r"\n")[2].split())
        assert words < 1_010, command["command"][:80]
        largest = max(largest, words)
        # What a script does follows it, marked as Lua's.
        touched = touched + 1 if command["client_type"] == "lua" else 0
        assert touched <= 1_000
    assert largest > 200, "nothing large was seen"
    for each in (guests[0], guests[-1]):
        assert await redis_client.exists(slot.user_homes(each)) == 0
    assert (
        await redis_client.exists(slot.home_members(home), slot.home_devices(home), slot.deleted_homes) == 0
    )
    some = [lamps[0], lamps[-1]]
    assert {place.home_id for place in (await store.devices.locate(project.id, some)).values()} == {None}
    assert await redis_client.hget(slot.device(lamps[-1]), "home") == b"0"


@pytest.mark.parametrize("interrupted", [REMOVE_MEMBERS, RELEASE_DEVICES], ids=["members", "devices"])
@pytest.mark.parametrize("again", [False, True], ids=["sweep", "delete"])
async def test_home_is_gone_from_its_tombstone_on(
    redis_client: Redis,
    store: Store,
    project: Project,
    user: User,
    home: int,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: Script,
    again: bool,
) -> None:
    device = (await store.devices.create(project.id, "lamp", home_id=home))[0].id
    kept = (await store.homes.create(project.id, "kept", user.id)).id
    change = store.homes._database.change

    async def crash(script: Script, *rest: Any) -> list[str]:
        if script is interrupted:
            raise NotConfirmed
        return await change(script, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(store.homes._database, "change", crash)
        with pytest.raises(NotConfirmed):
            await store.homes.delete(project.id, home)
    for swept in (False, True):
        if swept:
            await (store.homes.delete if again else _sweep(store))(project.id, home)
            # Deleted already: nobody is told a second time.
            assert sum(copy.type == 7 for copy in await copies(redis_client, project.id)) == SHARDS
        assert await store.homes.of_user(project.id, user.id) == [kept]
        assert await store.homes.member_of(project.id, user.id, [home, kept]) == {kept}
        assert await store.homes.existing(project.id, [home, kept]) == {kept}
        assert await store.homes.members(project.id, home) == []
        assert await store.devices.of_home(project.id, home) == []
        assert await store.devices.locate(project.id, [device]) == {device: DeviceLocation(None, "lamp")}
        found = await store.devices.get(project.id, device)
        assert found is not None
        assert found.home_id is None
        for attempt in (
            store.homes.remove_member(project.id, home, user.id),
            store.homes.add_member(project.id, home, user.id),
            store.devices.create(project.id, "lamp", home_id=home),
        ):
            with pytest.raises(UnknownRecord):
                await attempt
        assert await redis_client.exists(ProjectSlot(project.id).home(home)) == 0
    slot = ProjectSlot(project.id)
    assert (
        await redis_client.exists(slot.home_members(home), slot.home_devices(home), slot.deleted_homes) == 0
    )


def _sweep(store: Store) -> Any:
    async def sweep(project_id: int, _home_id: int) -> None:
        await store.homes.sweep(project_id)

    return sweep


async def test_very_many_deleted_homes_hide_all_of_them(
    redis_client: Redis, store: Store, project: Project, user: User
) -> None:
    """More than one command reads of them, as after many interrupted deletions."""
    homes = await fill(redis_client, project, user, 1_100)
    slot = ProjectSlot(project.id)
    async with redis_client.pipeline(transaction=False) as pipeline:
        for each in homes[:-1]:
            pipeline.zadd(slot.deleted_homes, {str(each): each})
        await pipeline.execute()
    assert await store.homes.of_user(project.id, user.id) == [homes[-1]]
    assert await store.homes.member_of(project.id, user.id, homes) == {homes[-1]}


async def test_full_outbox_refuses_changes(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    guest = (await store.users.create(project.id, "Guest", email="guest@example.com")).id
    slot = ProjectSlot(project.id)
    for _ in range(100):
        async with redis_client.pipeline(transaction=False) as pipeline:
            for _ in range(100):
                pipeline.xadd(slot.outbox, {"t": "2", "u": str(user.id), "h": str(home)})
            await pipeline.execute()
    with pytest.raises(Unavailable):
        await dying_store(redis_client).homes.add_member(project.id, home, guest)
    assert await store.homes.of_user(project.id, guest) == []
    # A refused change copies a part of the outbox first. One that is not confirmed in time may have happened.
    for _ in range(20):
        try:
            await store.homes.add_member(project.id, home, guest)
            break
        except Unavailable:
            continue
        except Conflict:
            break
    assert await store.homes.of_user(project.id, guest) == [home]


async def test_announcing_works_when_redis_is_full(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    guest = (await store.users.create(project.id, "Guest", email="guest@example.com")).id
    await store.homes.add_member(project.id, home, guest)
    await redis_client.config_set("maxmemory", "1")
    try:
        told = await announced_by(
            redis_client, project.id, store.homes.remove_member(project.id, home, guest)
        )
    finally:
        await redis_client.config_set("maxmemory", "0")
    assert [name for name, _, _ in told] == ["MEMBER_REMOVED"]


async def test_announcing_after_script_flush_works(
    redis_client: Redis, store: Store, project: Project, user: User, home: int
) -> None:
    guest = (await store.users.create(project.id, "Guest", email="guest@example.com")).id
    await redis_client.script_flush()
    told = await announced_by(redis_client, project.id, store.homes.add_member(project.id, home, guest))
    assert told == [("MEMBER_ADDED", {"user": guest, "home": home}, shards_of(guest, home))]


async def test_many_changes_at_once_are_all_announced(
    redis_client: Redis, project: Project, user: User, home: int
) -> None:
    relay = Relay(redis_client, SHARDS)
    store = Store(redis_client, relay)
    guests = [
        (await store.users.create(project.id, "G", email=f"g{number}@example.com")).id for number in range(60)
    ]

    async def all_at_once() -> None:
        await asyncio.gather(*(store.homes.add_member(project.id, home, guest) for guest in guests))

    told = await announced_by(redis_client, project.id, all_at_once())
    assert sorted(subjects["user"] for _, subjects, _ in told) == guests
    assert all(shards == shards_of(subjects["user"], home) for _, subjects, shards in told)
    assert relay.stats.records == 60
