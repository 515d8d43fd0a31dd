"""What becomes of homes when a user is deleted, and of a deletion that a crash interrupts."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from redis.asyncio import Redis

from homewire.errors import Conflict, NotConfirmed, UnknownRecord
from homewire.homes.models import Role
from homewire.homes.store import DELETE_HOME
from homewire.projects.models import AccountSystem, Project
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo
from homewire.store.keys import UNFINISHED, ProjectSlot
from homewire.store.script import Script
from homewire.users.deletion import DELETE_USER, HAND_OVER_HOME, HOMES_LEFT_AT_ONCE, LEAVE_HOMES
from homewire.users.models import ProofKind, User


@pytest.fixture
async def project(store: Store) -> Project:
    return await store.projects.create("departures", AccountSystem.EMAIL)


async def new_user(store: Store, project: Project, name: str) -> User:
    return await store.users.create(project.id, name, email=f"{name}@example.com")


@pytest.fixture
async def user(store: Store, project: Project) -> User:
    return await new_user(store, project, "ada")


async def invite(redis: Redis, project: Project, user_id: int, home_id: int, since_ms: int) -> None:
    """Somebody added to a home who is no user yet, as the store keeps them."""
    slot, email = ProjectSlot(project.id), f"{user_id}@example.com"
    record: dict[Any, Any] = {
        "created": "1", "name": "", "password": "", "email": email, "unique_email": email, "phone": "",
        "external_key": "", "verified": "0", "invited": "1",
    }  # fmt: skip
    await redis.hset(slot.user(user_id), mapping=record)
    await redis.hset(slot.emails, email, str(user_id))
    await redis.hset(slot.home_members(home_id), str(user_id), f"member {since_ms}")
    await redis.zadd(slot.user_homes(user_id), {str(home_id): home_id})


async def owners(store: Store, project: Project, home: int) -> list[int]:
    return [each.user_id for each in await store.homes.members(project.id, home) if each.role is Role.OWNER]


async def test_home_goes_with_its_only_member(store: Store, project: Project, user: User) -> None:
    homes = [(await store.homes.create(project.id, "home", user.id)).id for _ in range(3)]
    device, _, _ = await store.devices.create(project.id, "lamp", home_id=homes[0])
    await store.users.delete(project.id, user.id)
    assert [await store.homes.get(project.id, home) for home in homes] == [None] * 3
    assert await store.homes.existing(project.id, homes) == set()
    found = await store.devices.locate(project.id, [device.id])
    assert not found or found[device.id].home_id is None
    with pytest.raises(UnknownRecord):
        await store.homes.add_member(project.id, homes[0], user.id)


async def test_longest_standing_member_follows_the_last_owner(
    store: Store, redis_client: Redis, project: Project, user: User
) -> None:
    home = (await store.homes.create(project.id, "home", user.id)).id
    # The later one to register has the higher id, and came to the home first.
    later, early = await new_user(store, project, "later"), await new_user(store, project, "early")
    await store.homes.add_member(project.id, home, early.id)
    # Times of memberships have milliseconds: the two must differ.
    await asyncio.sleep(0.002)
    await store.homes.add_member(project.id, home, later.id)
    await store.users.delete(project.id, user.id)
    assert [each.user_id for each in await store.homes.members(project.id, home)] == [later.id, early.id]
    assert await owners(store, project, home) == [early.id]
    assert await redis_client.hget(ProjectSlot(project.id).home(home), "owners") == b"1"
    assert await store.homes.of_user(project.id, user.id) == []


async def test_home_with_another_owner_stays_theirs(store: Store, project: Project, user: User) -> None:
    home = (await store.homes.create(project.id, "home", user.id)).id
    oldest, owner = await new_user(store, project, "oldest"), await new_user(store, project, "owner")
    await store.homes.add_member(project.id, home, oldest.id)
    await store.homes.add_member(project.id, home, owner.id, Role.OWNER)
    await store.users.delete(project.id, user.id)
    assert await owners(store, project, home) == [owner.id]
    await store.users.delete(project.id, oldest.id)
    assert await owners(store, project, home) == [owner.id]


async def test_invited_user_inherits_home(
    store: Store, redis_client: Redis, project: Project, user: User
) -> None:
    home = (await store.homes.create(project.id, "home", user.id)).id
    invited = 10**9
    await invite(redis_client, project, invited, home, since_ms=7)
    await store.users.delete(project.id, user.id)
    assert await owners(store, project, home) == [invited]
    # Registering takes the record over, with id and membership.
    registered = await new_user(store, project, str(invited))
    assert registered.id == invited
    assert await store.users.get(project.id, invited) == registered
    assert await owners(store, project, home) == [invited]


async def test_invitee_is_no_user(store: Store, redis_client: Redis, project: Project, user: User) -> None:
    home = (await store.homes.create(project.id, "home", user.id)).id
    await invite(redis_client, project, 10**9, home, since_ms=7)
    assert await store.users.get(project.id, 10**9) is None
    assert await store.users.by_email(project.id, "1000000000@example.com") is None
    known = await store.users.get_any(project.id, 10**9)
    assert known is not None
    assert known.invited
    assert [each.id for each in (await store.users.list(project.id))[0]] == [user.id]
    with pytest.raises(UnknownRecord):
        await store.sessions.open(project.id, 10**9, "app", ClientInfo())
    with pytest.raises(UnknownRecord):
        await store.users.update(project.id, 10**9, name="Eve")
    with pytest.raises(UnknownRecord):
        await store.verifications.issue_token(project.id, 10**9, ProofKind.PASSWORD_RESET, 1000)


async def test_invitation_is_accepted_once_however_many_try(
    store: Store, redis_client: Redis, project: Project, user: User
) -> None:
    home = (await store.homes.create(project.id, "home", user.id)).id
    await invite(redis_client, project, 10**9, home, since_ms=7)
    results = await asyncio.gather(
        *(store.users.create(project.id, f"{n}", email="1000000000@example.com") for n in range(10)),
        return_exceptions=True,
    )
    made = [each for each in results if isinstance(each, User)]
    assert [each.id for each in made] == [10**9]
    assert await store.users.get(project.id, 10**9) == made[0]


@pytest.mark.parametrize("again", [False, True], ids=["sweep", "delete"])
@pytest.mark.parametrize("step", ["leave", "decide", "hand over", "delete home", "forget"])
async def test_interrupted_deletion_is_finished_by_the_sweep_or_by_another(
    store: Store, project: Project, user: User, monkeypatch: pytest.MonkeyPatch, again: bool, step: str
) -> None:
    guest = await new_user(store, project, "guest")
    mine, shared = [(await store.homes.create(project.id, "home", user.id)).id for _ in range(2)]
    theirs = (await store.homes.create(project.id, "home", guest.id)).id
    await store.homes.add_member(project.id, shared, guest.id)
    await store.homes.add_member(project.id, theirs, user.id)
    database = store.users._database
    change, write, members = database.change, database.write, store.homes.members
    dying = {"leave": LEAVE_HOMES, "hand over": HAND_OVER_HOME, "delete home": DELETE_HOME}.get(step)

    async def dying_change(script: Script, *rest: Any) -> list[str]:
        if script is dying:
            raise NotConfirmed
        return await change(script, *rest)

    async def dying_write(*command: Any) -> Any:
        if step == "forget" and "departing" in command[1]:
            raise NotConfirmed
        return await write(*command)

    async def dying_members(project_id: int, home_id: int) -> Any:
        if step == "decide":
            raise NotConfirmed
        return await members(project_id, home_id)

    with monkeypatch.context() as patched:
        patched.setattr(database, "change", dying_change)
        patched.setattr(database, "write", dying_write)
        patched.setattr(store.homes, "members", dying_members)
        with pytest.raises(NotConfirmed):
            await store.users.delete(project.id, user.id)
    assert await store.users.get(project.id, user.id) is None
    await (store.users.delete(project.id, user.id) if again else store.users.sweep(project.id))
    assert await store.homes.get(project.id, mine) is None
    assert await owners(store, project, shared) == [guest.id]
    assert [each.user_id for each in await store.homes.members(project.id, theirs)] == [guest.id]
    assert await store.homes.of_user(project.id, user.id) == []


async def test_successor_deleted_meanwhile_is_replaced(
    store: Store, project: Project, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = (await store.homes.create(project.id, "home", user.id)).id
    first, second = await new_user(store, project, "first"), await new_user(store, project, "second")
    await store.homes.add_member(project.id, home, first.id)
    # Times of memberships have milliseconds: the two must differ.
    await asyncio.sleep(0.002)
    await store.homes.add_member(project.id, home, second.id)
    change, outruns = store.users._database.change, itertools.count()

    async def outrun(script: Script, *rest: Any) -> list[str]:
        if script is HAND_OVER_HOME and next(outruns) == 0:
            await store.homes.remove_member(project.id, home, first.id)
        return await change(script, *rest)

    monkeypatch.setattr(store.users._database, "change", outrun)
    await store.users.delete(project.id, user.id)
    assert await owners(store, project, home) == [second.id]


@pytest.mark.parametrize("departing", [False, True], ids=["alone", "with another who departs"])
async def test_member_added_meanwhile_inherits_home(
    store: Store, project: Project, user: User, monkeypatch: pytest.MonkeyPatch, departing: bool
) -> None:
    """However late: until the step that would have deleted it."""
    home = (await store.homes.create(project.id, "home", user.id)).id
    late, other = await new_user(store, project, "late"), await new_user(store, project, "other")
    if departing:
        await store.homes.add_member(project.id, home, other.id)
    change, outruns = store.users._database.change, itertools.count()

    async def outrun(script: Script, *rest: Any) -> list[str]:
        if departing and script is LEAVE_HOMES and rest[2][0] == other.id:
            # Whoever deletes them died here.
            raise NotConfirmed
        if script is DELETE_HOME and next(outruns) == 0:
            await store.homes.add_member(project.id, home, late.id)
        return await change(script, *rest)

    monkeypatch.setattr(store.users._database, "change", outrun)
    if departing:
        with pytest.raises(NotConfirmed):
            await store.users.delete(project.id, other.id)
    await store.users.delete(project.id, user.id)
    assert next(outruns) == 1
    assert await owners(store, project, home) == [late.id]


async def test_home_of_none_but_the_departing_is_deleted(
    store: Store, project: Project, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = (await store.homes.create(project.id, "home", user.id)).id
    other = await new_user(store, project, "other")
    await store.homes.add_member(project.id, home, other.id)
    change = store.users._database.change

    async def dying(script: Script, *rest: Any) -> list[str]:
        if script is LEAVE_HOMES and rest[2][0] == other.id:
            raise NotConfirmed
        return await change(script, *rest)

    monkeypatch.setattr(store.users._database, "change", dying)
    with pytest.raises(NotConfirmed):
        await store.users.delete(project.id, other.id)
    await store.users.delete(project.id, user.id)
    assert await store.homes.get(project.id, home) is None
    monkeypatch.undo()
    await store.users.sweep(project.id)
    assert await store.homes.of_user(project.id, other.id) == []


async def test_nothing_of_a_deleted_user_is_left(
    store: Store, redis_client: Redis, project: Project, user: User
) -> None:
    slot = ProjectSlot(project.id)

    async def names() -> set[bytes]:
        return {name async for name in redis_client.scan_iter(slot.prefix + "*")}

    before = await names()
    gone = await new_user(store, project, "gone")
    home = (await store.homes.create(project.id, "home", gone.id)).id
    await store.sessions.open(project.id, gone.id, "app", ClientInfo())
    for kind in ProofKind:
        await store.verifications.issue_token(project.id, gone.id, kind, 60_000)
    await store.verifications.issue_code(project.id, gone.id, 60_000)
    await store.users.delete(project.id, gone.id)
    assert await store.homes.get(project.id, home) is None
    # An empty outbox stays: its ids go on from its last.
    assert await names() - before <= {slot.outbox.encode()}


async def test_user_with_many_homes_is_deleted_at_once(
    store: Store, redis_client: Redis, project: Project, user: User
) -> None:
    guest = await new_user(store, project, "guest")
    homes = [
        (await store.homes.create(project.id, "home", user.id)).id for _ in range(HOMES_LEFT_AT_ONCE + 1)
    ]
    await store.homes.add_member(project.id, homes[0], guest.id)
    _, key = await store.sessions.open(project.id, user.id, "app", ClientInfo())
    await store.users.delete(project.id, user.id)
    assert await store.users.get(project.id, user.id) is None
    assert await store.principals.lookup(key) is None
    assert [each.user_id for each in await store.homes.members(project.id, homes[0])] == [guest.id]
    # Nobody waited for the homes; any node is told that they are to be swept.
    assert await store.homes.existing(project.id, homes) == set(homes)
    assert await redis_client.zscore(UNFINISHED, str(project.id)) is not None
    await store.users.sweep(project.id)
    assert await store.homes.existing(project.id, homes) == {homes[0]}
    assert await owners(store, project, homes[0]) == [guest.id]
    assert not await redis_client.exists(
        ProjectSlot(project.id).departing_users, ProjectSlot(project.id).user_homes(user.id)
    )


async def test_provisioning_of_deleted_user_makes_no_device(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homewire.users.deletion.HOMES_LEFT_AT_ONCE", 0)
    project = await store.projects.create("demand", AccountSystem.EMAIL, on_demand_provisioning=True)
    user, guest = await new_user(store, project, "gone"), await new_user(store, project, "guest")
    home = (await store.homes.create(project.id, "home", user.id)).id
    await store.homes.add_member(project.id, home, guest.id)
    token, made = await store.provisioning.begin(project.id, home, user.id, "lamp")
    await store.users.delete(project.id, user.id)
    with pytest.raises(Conflict):
        await store.provisioning.redeem(token, made, None)
    token, made = await store.provisioning.begin(project.id, home, guest.id, "lamp")
    assert (await store.provisioning.redeem(token, made, None))[0].home_id == home


async def test_session_and_a_token_made_during_the_deletion_end_with_it(
    store: Store, project: Project, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    change = store.users._database.change

    async def outrun(script: Script, *rest: Any) -> list[str]:
        if script is DELETE_USER and not made:
            token = await store.verifications.issue_token(
                project.id, user.id, ProofKind.PASSWORD_RESET, 60_000
            )
            made.extend([(await store.sessions.open(project.id, user.id, "app", ClientInfo()))[1], token])
        return await change(script, *rest)

    monkeypatch.setattr(store.users._database, "change", outrun)
    await store.users.delete(project.id, user.id)
    assert await store.principals.lookup(made[0]) is None
    assert await store.verifications.holder(made[1], ProofKind.PASSWORD_RESET) is None
