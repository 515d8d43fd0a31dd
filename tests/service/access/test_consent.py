"""Adding strangers to homes: what the inviter is told of them, what they receive, and how they accept."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from kit.client import listen
from kit.homes import HomeWithMembers, home_with_members
from kit.node import NodeProcess
from kit.tenant import Account, Conflict, Tenant, tenant_of

EVENTS = "/userSession/websocket"
DAY_MS = 86_400_000


@pytest_asyncio.fixture
async def at_home(tenant: Tenant) -> HomeWithMembers:
    return await home_with_members(tenant)


async def known(at_home: HomeWithMembers) -> tuple[int, str]:
    """A verified user with a name: id and address."""
    tenant = at_home.tenant
    user = await tenant.store.users.create(tenant.project, "Carl", email="Carl@example.com", verified=True)
    return user.id, "CARL@example.com"


def told(member: dict[str, Any]) -> dict[str, Any]:
    """What differs from member to member, left out."""
    return {name: value for name, value in member.items() if name not in ("userId", "creationTime", "email")}


async def member(at_home: HomeWithMembers, key: str, user: int) -> dict[str, Any]:
    answer = await at_home.ask("GET", f"{at_home.members}/{user}", key)
    assert answer.status == 200
    found: dict[str, Any] = answer.body
    [listed] = [
        each for each in (await at_home.ask("GET", at_home.members, key)).body if each["userId"] == user
    ]
    assert listed == found
    return found


async def test_inviter_gets_same_answer_for_known_and_unknown_addresses(at_home: HomeWithMembers) -> None:
    user, address = await known(at_home)
    added = [await at_home.add(at_home.owner.key, email=each) for each in (address, "NOBODY@example.com")]
    assert [each.status for each in added] == [201, 201]
    assert [each.body["email"] for each in added] == ["CARL@example.com", "NOBODY@example.com"]
    expected = {"verified": False, "role": "member", "accepted": False}
    assert [told(each.body) for each in added] == [expected, expected]
    assert added[0].body["userId"] == user
    for key in (at_home.owner.key, at_home.member.key):
        for each in added:
            assert await member(at_home, key, each.body["userId"]) == each.body
    # The project is told.
    shown = await member(at_home, at_home.reader, user)
    assert (shown["name"], shown["verified"], shown["email"], shown["accepted"]) == (
        "Carl", True, "Carl@example.com", False,
    )  # fmt: skip
    again = [await at_home.add(at_home.owner.key, email=each) for each in (address, "nobody@example.com")]
    assert [(each.status, each.reason) for each in again] == [(403, "MEMBER_EXISTS")] * 2


async def test_change_of_role_accepts_no_invitation(at_home: HomeWithMembers) -> None:
    user, address = await known(at_home)
    await at_home.add(at_home.owner.key, email=address)
    assert (await at_home.set_role(at_home.owner.key, user, "owner")).status == 204
    assert told(await member(at_home, at_home.owner.key, user)) == {
        "verified": False, "role": "owner", "accepted": False,
    }  # fmt: skip
    refused = await at_home.ask("PATCH", f"{at_home.members}/{user}", at_home.owner.key, {"accepted": True})
    assert (refused.status, refused.body["data"]["field"]) == (403, "accepted")
    assert "name" not in await member(at_home, at_home.owner.key, user)


async def accept_by_looking(at_home: HomeWithMembers) -> int:
    return (await at_home.ask("GET", at_home.path, at_home.stranger.key)).status


async def accept_explicitly(at_home: HomeWithMembers) -> int:
    path = f"{at_home.members}/{at_home.stranger.id}"
    whole = (await at_home.ask("GET", path, at_home.stranger.key)).body
    assert whole["accepted"] is False
    return (await at_home.ask("PATCH", path, at_home.stranger.key, {**whole, "accepted": True})).status


@pytest.mark.parametrize("accept", [accept_by_looking, accept_explicitly])
async def test_stranger_s_home_is_received_and_the_stranger_shown_once_accepted(
    at_home: HomeWithMembers, accept: Any
) -> None:
    tenant, stranger = at_home.tenant, at_home.stranger
    async with await listen(tenant.url, EVENTS, stranger.key) as before:
        assert (await at_home.add(at_home.owner.key, email="2@example.com")).status == 201
        # A member at once: the home is in the list, and can be asked for.
        homes = (await at_home.ask("GET", f"/homes?userId={stranger.id}", stranger.key)).body
        assert {each["id"] for each in homes} == {at_home.home, at_home.elsewhere}
        async with (
            await listen(tenant.url, EVENTS, stranger.key) as after,
            await listen(tenant.url, f"{EVENTS}?homeId={at_home.home}", stranger.key) as asking,
        ):
            await tenant.send({"homeId": at_home.home, "eventType": "unasked"})
            await tenant.send({"homeId": at_home.elsewhere, "eventType": "own"})
            assert await asking.receive_type() == "unasked"
            assert [await each.receive_type() for each in (before, after)] == ["own", "own"]
            assert await accept(at_home) in (200, 204)
            shown = await member(at_home, at_home.owner.key, stranger.id)
            assert (shown["name"], "accepted" in shown) == ("user 2", False)
            # Of one shard: what came before would come before.
            await tenant.send({"homeId": at_home.home, "eventType": "accepted"})
            assert [await each.receive_type() for each in (before, after)] == ["accepted", "accepted"]
    async with await listen(tenant.url, EVENTS, stranger.key) as later:
        await tenant.send({"homeId": at_home.home, "eventType": "later"})
        assert await later.receive_type() == "later"


async def test_activation_of_home_accepts_no_invitation(at_home: HomeWithMembers) -> None:
    tenant, stranger, project = at_home.tenant, at_home.stranger, at_home.tenant.project
    async with await listen(tenant.url, EVENTS, stranger.key) as socket:
        await tenant.store.homes.set_deactivated(project, at_home.home, True)
        assert (await at_home.add(at_home.owner.key, email="2@example.com")).status == 201
        await tenant.store.homes.set_deactivated(project, at_home.home, False)
        await tenant.send({"homeId": at_home.home, "eventType": "unasked"})
        await tenant.send({"homeId": at_home.elsewhere, "eventType": "own"})
        assert await socket.receive_type() == "own"


async def test_member_of_shared_home_is_added_at_once(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    await tenant.home(at_home.owner, members=[at_home.stranger])
    async with await listen(tenant.url, EVENTS, at_home.stranger.key) as socket:
        added = await at_home.add(at_home.owner.key, email="2@example.com")
        assert (added.body["name"], "accepted" in added.body) == ("user 2", False)
        await tenant.send({"homeId": at_home.home, "eventType": "shared"})
        assert await socket.receive_type() == "shared"


async def test_adding_stranger_twice_accepts_nothing(at_home: HomeWithMembers) -> None:
    _, address = await known(at_home)
    await at_home.add(at_home.owner.key, email=address)
    for owner in (at_home.owner, at_home.stranger):
        home = await at_home.tenant.home(owner)
        added = await at_home.ask("POST", f"/homes/{home}/members", owner.key, {"email": address})
        assert told(added.body) == {"verified": False, "role": "member", "accepted": False}


async def test_project_may_have_it_as_it_was(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    await tenant.add_members_at_once()
    async with await listen(tenant.url, EVENTS, at_home.stranger.key) as socket:
        added = await at_home.add(at_home.owner.key, email="2@example.com")
        assert (added.body["name"], "accepted" in added.body) == ("user 2", False)
        await tenant.send({"homeId": at_home.home, "eventType": "unasked"})
        assert await socket.receive_type() == "unasked"


async def test_project_key_adds_members_without_consent(at_home: HomeWithMembers) -> None:
    added = await at_home.add(at_home.admin, email="2@example.com")
    assert (added.body["name"], "accepted" in added.body) == ("user 2", False)
    assert (await member(at_home, at_home.owner.key, at_home.stranger.id))["name"] == "user 2"


async def test_user_that_left_is_not_added_again_by_members(at_home: HomeWithMembers) -> None:
    tenant, me = at_home.tenant, f"{at_home.members}/{at_home.stranger.id}"
    await at_home.add(at_home.owner.key, email="2@example.com")
    assert (await at_home.ask("DELETE", me, at_home.stranger.key)).status == 204
    for key in (at_home.owner.key, at_home.member.key):
        refused = await at_home.add(key, email="2@example.com")
        assert (refused.status, refused.reason) == (403, "MEMBER_LEFT")
    later = tenant.store_at(31 * DAY_MS)
    await tenant.invite(at_home.home, "2@example.com", at_home.owner, later)
    assert (await at_home.ask("DELETE", me, at_home.owner.key)).status == 204
    # Who was removed by an owner has not left; but did before.
    assert (await at_home.add(at_home.owner.key, email="2@example.com")).reason == "MEMBER_LEFT"
    assert (await at_home.add(at_home.admin, email="2@example.com")).status == 201
    assert (
        await at_home.ask("DELETE", f"{at_home.members}/{at_home.member.id}", at_home.owner.key)
    ).status == 204
    assert (await at_home.add(at_home.owner.key, email="1@example.com")).status == 201


async def test_user_adds_so_many_a_day(at_home: HomeWithMembers) -> None:
    for number in range(20):
        assert (await at_home.add(at_home.owner.key, email=f"new{number}@example.com")).status == 201
    late = await at_home.add(at_home.owner.key, email="late@example.com")
    assert (late.status, late.body["data"]["limit"]) == (429, "user_invitations")
    assert int(late.headers["Retry-After"]) > 3_600
    # Refused, and nobody else's.
    assert (await at_home.add(at_home.member.key, email="no address")).status == 403
    for key in (at_home.member.key, at_home.admin):
        assert (await at_home.add(key, email=f"{key[-6:]}@example.com")).status == 201


async def test_invitations_of_strangers_are_limited_per_user(
    at_home: HomeWithMembers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the same for those who are registered and those who are not."""
    monkeypatch.setattr("homewire.homes.store.MAX_INVITATIONS", 2)
    tenant, (user, address) = at_home.tenant, await known(at_home)
    homes = [await tenant.home(at_home.owner) for _ in range(3)]

    async def invite(home: int, email: str) -> None:
        await tenant.invite(home, email, at_home.owner)

    for email in (address, "nobody@example.com"):
        await invite(homes[0], email)
        await invite(homes[1], email)
        with pytest.raises(Conflict) as refused:
            await invite(homes[2], email)
        assert refused.value.reason == "TOO_MANY_INVITATIONS"
    await tenant.store.homes.accept(tenant.project, homes[0], user)
    # They have met now.
    await invite(homes[2], address)
    assert (await tenant.store.homes.member(tenant.project, homes[2], user)).invited_as is None  # type: ignore[union-attr]


async def test_invitations_of_strangers_do_not_count_as_own_homes(
    at_home: HomeWithMembers,
) -> None:
    tenant = at_home.tenant
    strict = tenant.store_at(0, homes_per_user=2)
    for home in (at_home.home, await tenant.home(at_home.owner)):
        await tenant.invite(home, "2@example.com", at_home.owner, strict)
    await strict.homes.create(tenant.project, "mine", at_home.stranger.id)
    with pytest.raises(Conflict) as refused:
        await strict.homes.accept(tenant.project, at_home.home, at_home.stranger.id)
    assert refused.value.reason == "EXCEEDED_MAX_HOMES"
    await strict.homes.delete(tenant.project, at_home.elsewhere)
    await strict.homes.accept(tenant.project, at_home.home, at_home.stranger.id)


async def test_home_passes_to_member_that_accepted(at_home: HomeWithMembers) -> None:
    tenant, store = at_home.tenant, at_home.tenant.store
    home = await tenant.home(at_home.owner)
    await tenant.invite(home, "2@example.com", at_home.owner)
    later = tenant.store_at(DAY_MS)
    await later.homes.add_member(tenant.project, home, at_home.member.id)
    await store.users.delete(tenant.project, at_home.owner.id)
    roles = {each.user_id: each.role for each in await store.homes.members(tenant.project, home)}
    assert roles == {at_home.member.id: "owner", at_home.stranger.id: "member"}


async def test_unregistered_invitee_leaves_nothing_behind(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    added = await at_home.add(at_home.owner.key, email="nobody@example.com")
    user = added.body["userId"]
    assert (await at_home.ask("DELETE", f"{at_home.members}/{user}", at_home.owner.key)).status == 204
    names = [name async for name in tenant.redis.scan_iter(f"*:user:{user}*")]
    assert names == []


async def test_by_numbers_and_ids(node: NodeProcess) -> None:
    async with tenant_of(node, "phone") as tenant:
        owner = await tenant.store.users.create(tenant.project, "Owner", phone="+14155550100")
        await tenant.store.users.create(tenant.project, "Bo", phone="+14155550101", verified=True)
        account = Account(owner.id, (await _key(tenant, owner.id)))
        path = f"/homes/{await tenant.home(account)}/members"
        answers = [
            (await tenant.ask("POST", path, account.key, {"phoneNumber": f"+1415555010{number}"})).body
            for number in (1, 2)
        ]
        assert [each.pop("phoneNumber") for each in answers] == ["+14155550101", "+14155550102"]
        assert [told(each) for each in answers] == [
            {"verified": False, "role": "member", "accepted": False}
        ] * 2
    async with tenant_of(node, "byou") as tenant:
        users = [await tenant.store.users.create(tenant.project, name) for name in ("Owner", "Bo")]
        account = Account(users[0].id, (await _key(tenant, users[0].id)))
        path = f"/homes/{await tenant.home(account)}/members"
        added = await tenant.ask("POST", path, account.key, {"userId": users[1].id})
        assert told(added.body) == {"verified": False, "role": "member", "accepted": False}


async def _key(tenant: Tenant, user: int) -> str:
    return (await tenant.session(user, "app"))[1]
