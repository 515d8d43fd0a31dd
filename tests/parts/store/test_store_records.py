"""Projects, users, homes and devices: uniqueness, both sides of membership, pages, ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from homewire.devices.models import DeviceLocation
from homewire.entities.store import Entity
from homewire.errors import Conflict, InvalidInput, NotConfirmed, UnknownRecord
from homewire.homes.models import Role
from homewire.projects.models import AccessControl, AccountSystem, KeyScope, Project
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo
from homewire.store.database import PAGE
from homewire.store.keys import ProjectSlot
from homewire.users.models import User

ABSENT = 987_654_321


@pytest.fixture
async def project(store: Store) -> Project:
    return await store.projects.create("records", AccountSystem.EMAIL)


@pytest.fixture
async def user(store: Store, project: Project) -> User:
    return await store.users.create(project.id, "Ada", email="ada@example.com")


async def add_homes(store: Store, project: Project, user: User, count: int) -> list[int]:
    return [(await store.homes.create(project.id, "home", user.id)).id for _ in range(count)]


async def test_project_reads_back_as_it_was_made(store: Store) -> None:
    made = await store.projects.create("Ünïted", AccountSystem.BYOU, AccessControl.PERMISSION, True)
    assert await store.projects.get(made.id) == made
    assert made in await store.projects.list()
    assert await store.projects.get(ABSENT) is None


async def test_ids_are_unique_in_the_deployment(store: Store, project: Project, user: User) -> None:
    homes = await add_homes(store, project, user, 2)
    device, _, _ = await store.devices.create(project.id, "lamp")
    key, _ = await store.project_keys.create(project.id, "k", {KeyScope.READ})
    assert len({project.id, user.id, *homes, device.id, key.id}) == 6


async def test_users_read_back_as_they_were_made(store: Store, project: Project) -> None:
    made = await store.users.create(project.id, "Grace", email="Grace@EXAMPLE.com", password="correct horse")
    assert made.email == "Grace@example.com"
    assert await store.users.get(project.id, made.id) == made
    assert await store.users.by_email(project.id, "gRACE@example.COM") == made
    assert await store.users.by_email(project.id, "nobody@example.com") is None
    assert await store.users.by_email(project.id, "no address") is None
    recognised = await store.users.authenticate(project.id, "Grace@example.com", "correct horse")
    assert recognised is not None
    assert recognised.user.id == made.id
    assert await store.users.authenticate(project.id, "Grace@example.com", "wrong horse") is None


async def test_email_is_taken_once_however_many_try(store: Store, project: Project) -> None:
    spellings = ["eve@example.com", "EVE@example.com", "Eve@Example.Com"] * 5
    results = await asyncio.gather(
        *(store.users.create(project.id, "Eve", email=spelling) for spelling in spellings),
        return_exceptions=True,
    )
    made = [result for result in results if isinstance(result, User)]
    refused = [result for result in results if isinstance(result, Conflict)]
    assert (len(made), len(refused)) == (1, len(spellings) - 1)
    assert {error.reason for error in refused} == {"EMAIL_IN_USE"}
    assert await store.users.by_email(project.id, "eve@example.com") == made[0]


async def test_phone_number_is_taken_once(store: Store) -> None:
    project = await store.projects.create("phones", AccountSystem.PHONE)
    made = await store.users.create(project.id, "Ada", phone="+1 (415) 555-0123")
    assert made.phone == "+14155550123"
    with pytest.raises(Conflict):
        await store.users.create(project.id, "Eve", phone="+14155550123")
    assert await store.users.by_phone(project.id, "+1 415 555 0123") == made


async def test_email_is_free_again_after_its_user_is_gone(store: Store, project: Project, user: User) -> None:
    await store.users.delete(project.id, user.id)
    assert await store.users.get(project.id, user.id) is None
    again = await store.users.create(project.id, "Ada", email="ada@example.com")
    assert again.id != user.id
    with pytest.raises(UnknownRecord):
        await store.users.delete(project.id, user.id)


@pytest.mark.parametrize(
    ("accounts", "fields", "field"),
    [
        (AccountSystem.EMAIL, {}, "email"),
        (AccountSystem.EMAIL, {"email": "no address"}, "email"),
        (AccountSystem.EMAIL, {"email": "a@b.example.com", "phone": "+14155550123"}, "phoneNumber"),
        (AccountSystem.EMAIL, {"email": "a@b.example.com", "password": "short"}, "password"),
        (AccountSystem.PHONE, {}, "phoneNumber"),
        (AccountSystem.PHONE, {"phone": "415 555"}, "phoneNumber"),
        (AccountSystem.PHONE, {"phone": "+14155550123", "password": "long enough"}, "password"),
        (AccountSystem.BYOU, {"email": "a@b.example.com"}, "email"),
        (AccountSystem.BYOU, {"external_key": ""}, "externalKey"),
    ],
)
async def test_users_that_do_not_fit_the_account_system_are_refused(
    store: Store, accounts: AccountSystem, fields: dict[str, Any], field: str
) -> None:
    project = await store.projects.create("accounts", accounts)
    with pytest.raises(InvalidInput) as refused:
        await store.users.create(project.id, "Ada", **fields)
    assert refused.value.data["field"] == field


@pytest.mark.parametrize("name", ["", "  ", "x" * 257, "half a pair \ud800"])
async def test_bad_names_are_refused(store: Store, project: Project, user: User, name: str) -> None:
    for attempt in (
        store.projects.create(name, AccountSystem.EMAIL),
        store.users.create(project.id, name, email="b@example.com"),
        store.homes.create(project.id, name, user.id),
        store.devices.create(project.id, name),
        store.project_keys.create(project.id, name, set()),
    ):
        with pytest.raises(InvalidInput):
            await attempt


async def test_membership_stands_on_both_sides(store: Store, project: Project, user: User) -> None:
    guest = await store.users.create(project.id, "Guest", email="guest@example.com")
    home = await store.homes.create(project.id, "home", user.id)
    added = await store.homes.add_member(project.id, home.id, guest.id)
    members = await store.homes.members(project.id, home.id)
    assert [(member.user_id, member.role) for member in members] == [
        (user.id, Role.OWNER),
        (guest.id, Role.MEMBER),
    ]
    assert members[1] == added
    assert await store.homes.of_user(project.id, guest.id) == [home.id]
    with pytest.raises(Conflict) as taken:
        await store.homes.add_member(project.id, home.id, guest.id)
    assert taken.value.reason == "MEMBER_EXISTS"
    await store.homes.remove_member(project.id, home.id, guest.id)
    assert [member.user_id for member in await store.homes.members(project.id, home.id)] == [user.id]
    assert await store.homes.of_user(project.id, guest.id) == []
    with pytest.raises(UnknownRecord):
        await store.homes.remove_member(project.id, home.id, guest.id)


async def test_last_owner_stays(store: Store, project: Project, user: User) -> None:
    guest = await store.users.create(project.id, "Guest", email="guest@example.com")
    home = await store.homes.create(project.id, "home", user.id)
    await store.homes.add_member(project.id, home.id, guest.id)
    with pytest.raises(Conflict) as refused:
        await store.homes.remove_member(project.id, home.id, user.id)
    assert refused.value.reason == "LAST_OWNER"
    other = await store.users.create(project.id, "Other", email="other@example.com")
    await store.homes.add_member(project.id, home.id, other.id, Role.OWNER)
    await store.homes.remove_member(project.id, home.id, user.id)
    with pytest.raises(Conflict):
        await store.homes.remove_member(project.id, home.id, other.id)


async def test_homes_are_told_from_those_of_others(store: Store, project: Project, user: User) -> None:
    other = await store.users.create(project.id, "Other", email="other@example.com")
    [mine], [theirs] = await add_homes(store, project, user, 1), await add_homes(store, project, other, 1)
    assert await store.homes.member_of(project.id, user.id, [mine, theirs, ABSENT]) == {mine}
    assert await store.homes.existing(project.id, [mine, theirs, ABSENT]) == {mine, theirs}
    assert await store.homes.member_of(project.id, user.id, []) == set()


async def test_more_homes_than_a_page(
    redis_client: Redis, store: Store, project: Project, user: User
) -> None:
    index = ProjectSlot(project.id).user_homes(user.id)
    ids = list(range(1, 2 * PAGE + 2))
    for start in range(0, len(ids), PAGE):
        await redis_client.zadd(index, {str(each): each for each in ids[start : start + PAGE]})
    assert await store.homes.of_user(project.id, user.id) == ids
    assert await store.homes.member_of(project.id, user.id, [*ids, ABSENT]) == set(ids)


async def test_pages_are_stable_when_members_vanish_between_them(
    redis_client: Redis, store: Store, project: Project, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ProjectSlot(project.id).user_homes(user.id)
    ids = list(range(1, 2 * PAGE + 1))
    for start in range(0, len(ids), PAGE):
        await redis_client.zadd(index, {str(each): each for each in ids[start : start + PAGE]})
    read = store.homes._database.read

    async def read_and_remove(*command: str | int | bytes) -> object:
        page = await read(*command)
        await redis_client.zrem(index, *range(1, 11))
        return page

    monkeypatch.setattr(store.homes._database, "read", read_and_remove)
    assert await store.homes.of_user(project.id, user.id) == ids


async def test_device_is_found_where_it_is(store: Store, project: Project, user: User) -> None:
    [home] = await add_homes(store, project, user, 1)
    free, _, code = await store.devices.create(project.id, "lamp shade", tag="t", name="n")
    placed, _, other_code = await store.devices.create(project.id, "lamp", home_id=home)
    assert await store.devices.get(project.id, free.id) == free
    assert await store.devices.get(project.id, placed.id) == placed
    assert (free.tag, free.name, placed.tag, placed.name) == ("t", "n", "", "")
    assert code != other_code
    assert await store.devices.locate(project.id, [free.id, placed.id, ABSENT]) == {
        free.id: DeviceLocation(None, "lamp shade"),
        placed.id: DeviceLocation(home, "lamp"),
    }
    assert await store.devices.of_home(project.id, home) == [placed.id]
    await store.devices.delete(project.id, placed.id)
    assert await store.devices.of_home(project.id, home) == []
    assert await store.devices.locate(project.id, [placed.id]) == {}
    assert await store.devices.get(project.id, placed.id) is None


async def test_many_devices_are_located_in_pages(store: Store, project: Project) -> None:
    device, _, _ = await store.devices.create(project.id, "lamp")
    assert set(await store.devices.locate(project.id, [*range(10**9, 10**9 + PAGE), device.id])) == {
        device.id
    }


async def test_change_that_names_unknown_records_is_refused_whole(
    redis_client: Redis, store: Store, project: Project, user: User
) -> None:
    [home] = await add_homes(store, project, user, 1)
    before = sorted([name async for name in redis_client.scan_iter(ProjectSlot(project.id).prefix + "*")])
    for attempt in (
        store.homes.create(project.id, "home", ABSENT),
        store.homes.add_member(project.id, home, ABSENT),
        store.homes.add_member(project.id, ABSENT, user.id),
        store.homes.remove_member(project.id, ABSENT, user.id),
        store.devices.create(project.id, "lamp", home_id=ABSENT),
        store.devices.rotate_key(project.id, ABSENT),
        store.devices.delete(project.id, ABSENT),
        store.sessions.open(project.id, ABSENT, "app", ClientInfo()),
        store.users.create(ABSENT, "Ada", email="x@example.com"),
        store.project_keys.create(ABSENT, "k", set()),
        store.apps.create(ABSENT, "app"),
        store.projects.delete(ABSENT),
    ):
        with pytest.raises(UnknownRecord):
            await attempt
    after = sorted([name async for name in redis_client.scan_iter(ProjectSlot(project.id).prefix + "*")])
    assert after == before


async def test_nothing_crosses_projects(store: Store, project: Project, user: User) -> None:
    [home] = await add_homes(store, project, user, 1)
    device, _, _ = await store.devices.create(project.id, "lamp", home_id=home)
    other = await store.projects.create("other", AccountSystem.EMAIL)
    stranger = await store.users.create(
        other.id, "Ada", email="ada@example.com"
    )  # No conflict across projects.
    assert await store.users.get(other.id, user.id) is None
    assert await store.homes.existing(other.id, [home]) == set()
    assert await store.homes.member_of(other.id, user.id, [home]) == set()
    assert await store.devices.locate(other.id, [device.id]) == {}
    for attempt in (
        store.homes.add_member(project.id, home, stranger.id),
        store.homes.add_member(other.id, home, stranger.id),
        store.homes.create(other.id, "home", user.id),
        store.devices.create(other.id, "lamp", home_id=home),
        store.devices.rotate_key(other.id, device.id),
        store.sessions.open(other.id, user.id, "app", ClientInfo()),
    ):
        with pytest.raises(UnknownRecord):
            await attempt


async def test_deleted_project_is_dead_at_once_and_swept_later(
    redis_client: Redis, store: Store, project: Project, user: User
) -> None:
    [home] = await add_homes(store, project, user, 1)
    _, device_key, _ = await store.devices.create(project.id, "lamp", home_id=home)
    _, user_key = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    bystander = await store.projects.create("bystander", AccountSystem.EMAIL)
    await store.projects.delete(project.id)
    for token in (device_key, user_key):
        assert await store.principals.lookup(token) is None
    assert await store.projects.get(project.id) is None
    assert project.id not in [each.id for each in await store.projects.list()]
    with pytest.raises(UnknownRecord):
        await store.homes.create(project.id, "home", user.id)
    await store.projects.delete(project.id)  # Again: no harm.
    assert project.id in await store.projects.deleted()
    assert await store.projects.sweep(project.id) > 0
    assert [name async for name in redis_client.scan_iter(ProjectSlot(project.id).prefix + "*")] == []
    assert project.id not in await store.projects.deleted()
    assert await store.projects.get(bystander.id) == bystander
    with pytest.raises(UnknownRecord):
        await store.projects.sweep(bystander.id)


async def test_sweep_of_more_than_a_page_can_be_resumed(
    redis_client: Redis, store: Store, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = ProjectSlot(project.id)
    for start in range(0, 3 * PAGE, PAGE):
        await redis_client.mset({slot.session(f"{each:024x}"): "" for each in range(start, start + PAGE)})
    await store.projects.delete(project.id)
    write, unlinked = store.projects._database.write, 0

    async def crash_at_the_second(*command: str | int | bytes) -> object:
        nonlocal unlinked
        if command[0] == "UNLINK":
            assert len(command) - 1 <= PAGE
            unlinked += 1
            if unlinked == 2:
                raise NotConfirmed
        return await write(*command)

    with monkeypatch.context() as patched:
        patched.setattr(store.projects._database, "write", crash_at_the_second)
        with pytest.raises(NotConfirmed):
            await store.projects.sweep(project.id)
    assert await redis_client.hget(slot.project, "state") == b"deleted"  # Still refuses changes.
    assert await store.projects.sweep(project.id) > PAGE
    assert [name async for name in redis_client.scan_iter(slot.prefix + "*", count=1000)] == []


async def test_disabled_project_has_no_valid_key(redis_client: Redis, store: Store, project: Project) -> None:
    _, token = await store.project_keys.create(project.id, "k", set())
    await redis_client.hset(ProjectSlot(project.id).project, "state", "disabled")
    assert await store.principals.lookup(token) is None
    disabled = await store.projects.get(project.id)
    assert disabled is not None
    assert disabled.disabled


async def test_long_list_misses_nothing_while_others_go(store: Store, redis_client: Redis) -> None:
    project = (await store.projects.create("lists", AccountSystem.EMAIL)).id
    index = ProjectSlot(project).homes
    ids = range(1, 5_001)
    for start in range(0, len(ids), 1_000):
        await redis_client.zadd(index, {str(each): each for each in ids[start : start + 1_000]})
    reading = asyncio.create_task(store.homes.slice(project))
    gone = 0
    while not reading.done() and gone < 900:
        await redis_client.zpopmin(index)
        gone += 1
    found, total = await reading
    assert gone > 1
    assert found == sorted(set(found))
    assert set(ids[gone:]) <= set(found)
    assert total >= len(found)


async def test_part_of_a_long_list(store: Store, redis_client: Redis) -> None:
    project = (await store.projects.create("lists", AccountSystem.EMAIL)).id
    ids = list(range(10, 35_010, 10))
    for start in range(0, len(ids), 500):
        await redis_client.zadd(
            ProjectSlot(project).homes, {str(each): each for each in ids[start : start + 500]}
        )
    for skip, limit in ((0, None), (0, 0), (5, 0), (0, 1), (0, 1_000), (1, 1_001), (7, 2_000), (7, 2_001)):
        end = None if limit is None else skip + limit
        assert await store.homes.slice(project, skip, limit) == (ids[skip:end], len(ids))
    for skip, limit in ((2_500, 1_000), (2_501, None), (3_499, 5), (3_500, None), (10**15, 10**15)):
        end = None if limit is None else skip + limit
        assert await store.homes.slice(project, skip, limit) == (ids[skip:end], len(ids))


async def test_entity_of_deleted_home_is_gone_before_the_sweep(store: Store, redis_client: Redis) -> None:
    """The tombstone alone stands, as after a crash."""
    project = (await store.projects.create("entities", AccountSystem.EMAIL)).id
    user = await store.users.create(project, "Ada", email="ada@example.com")
    home = (await store.homes.create(project, "home", user.id)).id
    await store.entities.create(Entity("e", project, home, "room"), 10)
    assert await store.entities.bindings(project, ["e", "unbound"]) == {"e": home}
    await redis_client.zadd(ProjectSlot(project).deleted_homes, {str(home): home})
    assert await store.entities.bindings(project, ["e"]) == {}
    assert await store.entities.get(project, "e") is None
    assert await store.entities.find(project) == ([], 0)
