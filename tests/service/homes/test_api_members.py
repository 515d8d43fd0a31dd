"""Members through the REST service: who sees, adds and removes them, and who is an owner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from kit.client import listen
from kit.homes import HomeWithMembers, home_with_members
from kit.tenant import Tenant

ABSENT = 987_654_321


@pytest_asyncio.fixture
async def at_home(tenant: Tenant) -> HomeWithMembers:
    return await home_with_members(tenant)


async def test_members_are_people(at_home: HomeWithMembers) -> None:
    for key in (at_home.owner.key, at_home.member.key, at_home.reader, at_home.admin):
        answer = await at_home.ask("GET", at_home.members, key)
        assert (answer.status, answer.range) == (200, "0-1/2")
        owner, member = answer.body
        assert owner == {
            "userId": at_home.owner.id,
            "creationTime": owner["creationTime"],
            "verified": False,
            "role": "owner",
            "name": "user 0",
            "email": "0@example.com",
        }
        assert (member["userId"], member["role"]) == (at_home.member.id, "member")
        one = await at_home.ask("GET", f"{at_home.members}/{at_home.member.id}", key)
        assert one.body == member


async def test_members_in_parts(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    more = [(await tenant.user()).id for _ in range(5)]
    for user in more:
        await tenant.store.homes.add_member(tenant.project, at_home.home, user)
    ids = [at_home.owner.id, at_home.member.id, *more]
    for query, expected, header in (
        ("", ids, "0-6/7"),
        ("?skip=2&limit=3", ids[2:5], "2-4/7"),
        ("?skip=5", ids[5:], "5-6/7"),
        ("?limit=0", [], "*/7"),
        ("?skip=7", [], "*/7"),
    ):
        answer = await at_home.ask("GET", at_home.members + query, at_home.owner.key)
        assert ([each["userId"] for each in answer.body], answer.range) == (expected, header)
    assert (await at_home.ask("GET", f"{at_home.members}?skip=-1", at_home.owner.key)).status == 403


async def test_deleted_user_is_no_member(at_home: HomeWithMembers) -> None:
    await at_home.tenant.store.users.delete(at_home.tenant.project, at_home.member.id)
    assert await at_home.roles() == {at_home.owner.id: "owner"}
    gone = await at_home.ask("GET", f"{at_home.members}/{at_home.member.id}", at_home.owner.key)
    assert gone.status == 404


async def test_members_are_hidden_from_other_users(at_home: HomeWithMembers) -> None:
    for path in (at_home.members, f"/homes/{ABSENT}/members", "/homes/none/members"):
        answers = [
            await at_home.ask(method, path, at_home.stranger.key, body)
            for method, body in (("GET", None), ("POST", {"email": "x@example.com"}))
        ]
        assert [answer.status for answer in answers] == [403, 403]
    for user in (at_home.owner.id, ABSENT, "me"):
        for method in ("GET", "PATCH", "DELETE"):
            path = f"{at_home.members}/{user}"
            assert (await at_home.ask(method, path, at_home.stranger.key, {"role": "owner"})).status == 404
    unknown = await at_home.ask("GET", f"{at_home.members}/{at_home.stranger.id}", at_home.owner.key)
    assert (unknown.status, unknown.reason) == (404, "NOT_FOUND")
    assert await at_home.roles() == {at_home.owner.id: "owner", at_home.member.id: "member"}


async def test_roles_decide_removal_of_members(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    guest = await tenant.user()
    await tenant.store.homes.add_member(tenant.project, at_home.home, guest.id)
    # A member removes nobody else, not even another member.
    for other in (at_home.owner.id, guest.id, ABSENT):
        refused = await at_home.ask("DELETE", f"{at_home.members}/{other}", at_home.member.key)
        assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    assert (await at_home.ask("DELETE", f"{at_home.members}/{guest.id}", at_home.reader)).status == 403
    left = await at_home.ask("DELETE", f"{at_home.members}/{guest.id}", guest.key)
    assert (left.status, left.body) == (204, None)
    assert (await at_home.ask("DELETE", f"{at_home.members}/{guest.id}", at_home.owner.key)).status == 404
    removed = await at_home.ask("DELETE", f"{at_home.members}/{at_home.member.id}", at_home.owner.key)
    assert removed.status == 204
    assert await at_home.roles() == {at_home.owner.id: "owner"}


async def test_removed_member_receives_nothing_more(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    await tenant.store.homes.add_member(tenant.project, at_home.elsewhere, at_home.member.id)
    async with await listen(tenant.url, "/userSession/websocket", at_home.member.key) as socket:
        await tenant.send({"homeId": at_home.home, "eventType": "before"})
        assert await socket.receive_type() == "before"
        path = f"{at_home.members}/{at_home.member.id}"
        assert (await at_home.ask("DELETE", path, at_home.owner.key)).status == 204
        await tenant.send({"homeId": at_home.home, "eventType": "after"})
        await tenant.send({"homeId": at_home.elsewhere, "eventType": "elsewhere"})
        assert await socket.receive_type() == "elsewhere"


async def test_last_owner_stays_while_others_are_there(at_home: HomeWithMembers) -> None:
    me = f"{at_home.members}/{at_home.owner.id}"
    for key in (at_home.owner.key, at_home.admin):
        for method, body in (("DELETE", None), ("PATCH", {"role": "member"})):
            refused = await at_home.ask(method, me, key, body)
            assert (refused.status, refused.reason) == (403, "LAST_OWNER")
    assert await at_home.roles() == {at_home.owner.id: "owner", at_home.member.id: "member"}
    promoted = await at_home.ask(
        "PATCH", f"{at_home.members}/{at_home.member.id}", at_home.owner.key, {"role": "owner"}
    )
    assert promoted.status == 204
    assert (await at_home.ask("DELETE", me, at_home.owner.key)).status == 204
    assert await at_home.roles() == {at_home.member.id: "owner"}


async def test_last_member_that_leaves_deletes_home(at_home: HomeWithMembers) -> None:
    path = f"/homes/{at_home.elsewhere}"
    left = await at_home.ask("DELETE", f"{path}/members/{at_home.stranger.id}", at_home.stranger.key)
    assert left.status == 204
    assert (await at_home.ask("GET", path, at_home.reader)).status == 404
    homes = await at_home.ask("GET", f"/homes?userId={at_home.stranger.id}", at_home.stranger.key)
    assert homes.body == []
    everywhere = await at_home.ask("GET", f"/homes?projectId={at_home.tenant.project}", at_home.reader)
    assert [home["id"] for home in everywhere.body] == [at_home.home]


async def test_only_owners_change_roles(at_home: HomeWithMembers) -> None:
    path = f"{at_home.members}/{at_home.member.id}"
    shown = (await at_home.ask("GET", path, at_home.owner.key)).body
    # Clients send the whole object back.
    answer = await at_home.ask("PATCH", path, at_home.owner.key, {**shown, "role": "owner"})
    assert (answer.status, answer.body) == (204, None)
    assert (await at_home.ask("GET", path, at_home.owner.key)).body == {**shown, "role": "owner"}
    # Who is one now may do what owners may, to the other, too.
    demoted = await at_home.ask(
        "PATCH", f"{at_home.members}/{at_home.owner.id}", at_home.member.key, {"role": "member"}
    )
    assert demoted.status == 204
    assert await at_home.roles() == {at_home.owner.id: "member", at_home.member.id: "owner"}
    # Without a role nothing changes, and it is asked for the same permission.
    assert (await at_home.ask("PATCH", path, at_home.member.key, {})).status == 204
    assert (await at_home.ask("PATCH", path, at_home.owner.key, {})).status == 403
    assert await at_home.roles() == {at_home.owner.id: "member", at_home.member.id: "owner"}
    refused = await at_home.ask("PATCH", path, at_home.owner.key, {"role": "member"})
    assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    assert (await at_home.ask("PATCH", at_home.path, at_home.owner.key, {"name": "x"})).status == 403
    by_key = await at_home.set_role(at_home.admin, at_home.owner.id, "owner")
    assert by_key.status == 204
    assert (
        await at_home.ask("PATCH", f"{at_home.members}/{ABSENT}", at_home.owner.key, {"role": "owner"})
    ).status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "king"}, "role"),
        ({"userId": 1, "role": "owner"}, "userId"),
        ({"verified": True}, "verified"),
        ({"name": "Somebody Else"}, "name"),
        ({"email": "else@example.com"}, "email"),
        ({"phoneNumber": "+14155550123"}, "phoneNumber"),
        ({"creationTime": "2020-01-01T00:00:00.000Z"}, "creationTime"),
    ],
)
async def test_invalid_change_of_member_is_refused_by_field(
    at_home: HomeWithMembers, body: Any, field: str
) -> None:
    refused = await at_home.ask("PATCH", f"{at_home.members}/{at_home.member.id}", at_home.owner.key, body)
    assert (refused.status, refused.body["data"]["field"]) == (403, field)
    assert await at_home.roles() == {at_home.owner.id: "owner", at_home.member.id: "member"}


async def test_one_of_two_owners_leaving_at_once_stays(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    await tenant.make_owner(at_home.home, at_home.member.id)
    guest = await tenant.user()
    for _ in range(10):
        await tenant.store.homes.add_member(tenant.project, at_home.home, guest.id)
        both = (at_home.owner, at_home.member)
        answers = await asyncio.gather(
            *(at_home.ask("DELETE", f"{at_home.members}/{each.id}", each.key) for each in both)
        )
        assert sorted(answer.status for answer in answers) == [204, 403]
        [refused] = [answer for answer in answers if answer.status == 403]
        assert refused.reason == "LAST_OWNER"
        assert sorted((await at_home.roles()).values()) == ["member", "owner"]
        left, _ = sorted(both, key=lambda each: answers[both.index(each)].status)
        # By the project: who left is not added again by members.
        again = await at_home.add(at_home.admin, email=await _email(at_home, left.id), role="owner")
        assert again.status == 201
        await tenant.store.homes.remove_member(tenant.project, at_home.home, guest.id)


async def _email(at_home: HomeWithMembers, user: int) -> str | None:
    found = await at_home.tenant.store.users.get(at_home.tenant.project, user)
    assert found is not None
    return found.email


async def test_one_of_two_owners_demoting_each_other_stays_owner(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    for _ in range(10):
        for each in (at_home.owner, at_home.member):
            await tenant.make_owner(at_home.home, each.id)
        answers = await asyncio.gather(
            at_home.set_role(at_home.owner.key, at_home.member.id, "member"),
            at_home.set_role(at_home.member.key, at_home.owner.id, "member"),
        )
        # The one who came second was no owner any more.
        assert sorted(answer.status for answer in answers) == [204, 403]
        assert sorted((await at_home.roles()).values()) == ["member", "owner"]
