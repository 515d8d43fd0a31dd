"""Members through the REST service: who sees, adds and removes them, and who is an owner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from homewire.homes.models import Role
from kit.client import listen
from kit.home_with_members import House, house_of
from kit.tenant import Tenant

ABSENT = 987_654_321


@pytest_asyncio.fixture
async def house(tenant: Tenant) -> House:
    return await house_of(tenant)


async def test_members_are_people(house: House) -> None:
    for key in (house.owner.key, house.member.key, house.reader, house.admin):
        answer = await house.ask("GET", house.members, key)
        assert (answer.status, answer.range) == (200, "0-1/2")
        owner, member = answer.body
        assert owner == {
            "userId": house.owner.id,
            "creationTime": owner["creationTime"],
            "verified": False,
            "role": "owner",
            "name": "user 0",
            "email": "0@example.com",
        }
        assert (member["userId"], member["role"]) == (house.member.id, "member")
        one = await house.ask("GET", f"{house.members}/{house.member.id}", key)
        assert one.body == member


async def test_members_in_parts(house: House) -> None:
    tenant = house.tenant
    more = [(await tenant.user()).id for _ in range(5)]
    for user in more:
        await tenant.store.homes.add_member(tenant.project, house.home, user)
    ids = [house.owner.id, house.member.id, *more]
    for query, expected, header in (
        ("", ids, "0-6/7"),
        ("?skip=2&limit=3", ids[2:5], "2-4/7"),
        ("?skip=5", ids[5:], "5-6/7"),
        ("?limit=0", [], "*/7"),
        ("?skip=7", [], "*/7"),
    ):
        answer = await house.ask("GET", house.members + query, house.owner.key)
        assert ([each["userId"] for each in answer.body], answer.range) == (expected, header)
    assert (await house.ask("GET", f"{house.members}?skip=-1", house.owner.key)).status == 403


async def test_who_was_deleted_is_no_member_any_more(house: House) -> None:
    await house.tenant.store.users.delete(house.tenant.project, house.member.id)
    assert await house.roles() == {house.owner.id: "owner"}
    gone = await house.ask("GET", f"{house.members}/{house.member.id}", house.owner.key)
    assert gone.status == 404


async def test_members_are_hidden_from_who_is_not_in_the_home(house: House) -> None:
    for path in (house.members, f"/homes/{ABSENT}/members", "/homes/none/members"):
        answers = [
            await house.ask(method, path, house.stranger.key, body)
            for method, body in (("GET", None), ("POST", {"email": "x@example.com"}))
        ]
        assert [answer.status for answer in answers] == [403, 403]
    for user in (house.owner.id, ABSENT, "me"):
        for method in ("GET", "PATCH", "DELETE"):
            path = f"{house.members}/{user}"
            assert (await house.ask(method, path, house.stranger.key, {"role": "owner"})).status == 404
    unknown = await house.ask("GET", f"{house.members}/{house.stranger.id}", house.owner.key)
    assert (unknown.status, unknown.reason) == (404, "NOT_FOUND")
    assert await house.roles() == {house.owner.id: "owner", house.member.id: "member"}


async def test_who_removes_whom(house: House) -> None:
    tenant = house.tenant
    guest = await tenant.user()
    await tenant.store.homes.add_member(tenant.project, house.home, guest.id)
    # A member removes nobody else, not even another member.
    for other in (house.owner.id, guest.id, ABSENT):
        refused = await house.ask("DELETE", f"{house.members}/{other}", house.member.key)
        assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    assert (await house.ask("DELETE", f"{house.members}/{guest.id}", house.reader)).status == 403
    left = await house.ask("DELETE", f"{house.members}/{guest.id}", guest.key)
    assert (left.status, left.body) == (204, None)
    assert (await house.ask("DELETE", f"{house.members}/{guest.id}", house.owner.key)).status == 404
    removed = await house.ask("DELETE", f"{house.members}/{house.member.id}", house.owner.key)
    assert removed.status == 204
    assert await house.roles() == {house.owner.id: "owner"}


async def test_a_removed_member_hears_the_home_no_more(house: House) -> None:
    tenant = house.tenant
    await tenant.store.homes.add_member(tenant.project, house.elsewhere, house.member.id)
    async with await listen(tenant.url, "/userSession/websocket", house.member.key) as socket:
        await tenant.send({"homeId": house.home, "eventType": "before"})
        assert await socket.receive_type() == "before"
        path = f"{house.members}/{house.member.id}"
        assert (await house.ask("DELETE", path, house.owner.key)).status == 204
        await tenant.send({"homeId": house.home, "eventType": "after"})
        await tenant.send({"homeId": house.elsewhere, "eventType": "elsewhere"})
        assert await socket.receive_type() == "elsewhere"


async def test_the_last_owner_stays_while_others_are_there(house: House) -> None:
    me = f"{house.members}/{house.owner.id}"
    for key in (house.owner.key, house.admin):
        for method, body in (("DELETE", None), ("PATCH", {"role": "member"})):
            refused = await house.ask(method, me, key, body)
            assert (refused.status, refused.reason) == (403, "LAST_OWNER")
    assert await house.roles() == {house.owner.id: "owner", house.member.id: "member"}
    promoted = await house.ask(
        "PATCH", f"{house.members}/{house.member.id}", house.owner.key, {"role": "owner"}
    )
    assert promoted.status == 204
    assert (await house.ask("DELETE", me, house.owner.key)).status == 204
    assert await house.roles() == {house.member.id: "owner"}


async def test_who_is_alone_takes_the_home_along(house: House) -> None:
    path = f"/homes/{house.elsewhere}"
    left = await house.ask("DELETE", f"{path}/members/{house.stranger.id}", house.stranger.key)
    assert left.status == 204
    assert (await house.ask("GET", path, house.reader)).status == 404
    homes = await house.ask("GET", f"/homes?userId={house.stranger.id}", house.stranger.key)
    assert homes.body == []
    everywhere = await house.ask("GET", f"/homes?projectId={house.tenant.project}", house.reader)
    assert [home["id"] for home in everywhere.body] == [house.home]


async def test_owners_say_who_is_an_owner(house: House) -> None:
    path = f"{house.members}/{house.member.id}"
    shown = (await house.ask("GET", path, house.owner.key)).body
    # Clients send the whole object back.
    answer = await house.ask("PATCH", path, house.owner.key, {**shown, "role": "owner"})
    assert (answer.status, answer.body) == (204, None)
    assert (await house.ask("GET", path, house.owner.key)).body == {**shown, "role": "owner"}
    # Who is one now may do what owners may, to the other, too.
    demoted = await house.ask(
        "PATCH", f"{house.members}/{house.owner.id}", house.member.key, {"role": "member"}
    )
    assert demoted.status == 204
    assert await house.roles() == {house.owner.id: "member", house.member.id: "owner"}
    # Without a role nothing changes, and it is asked for the same right.
    assert (await house.ask("PATCH", path, house.member.key, {})).status == 204
    assert (await house.ask("PATCH", path, house.owner.key, {})).status == 403
    assert await house.roles() == {house.owner.id: "member", house.member.id: "owner"}
    refused = await house.ask("PATCH", path, house.owner.key, {"role": "member"})
    assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    assert (await house.ask("PATCH", house.path, house.owner.key, {"name": "x"})).status == 403
    by_key = await house.set_role(house.admin, house.owner.id, "owner")
    assert by_key.status == 204
    assert (
        await house.ask("PATCH", f"{house.members}/{ABSENT}", house.owner.key, {"role": "owner"})
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
async def test_what_a_change_of_a_member_may_not_say(house: House, body: Any, field: str) -> None:
    refused = await house.ask("PATCH", f"{house.members}/{house.member.id}", house.owner.key, body)
    assert (refused.status, refused.body["data"]["field"]) == (403, field)
    assert await house.roles() == {house.owner.id: "owner", house.member.id: "member"}


async def test_of_two_last_owners_who_leave_at_once_one_stays(house: House) -> None:
    tenant = house.tenant
    await tenant.store.homes.set_role(tenant.project, house.home, house.member.id, Role.OWNER)
    guest = await tenant.user()
    for _ in range(10):
        await tenant.store.homes.add_member(tenant.project, house.home, guest.id)
        both = (house.owner, house.member)
        answers = await asyncio.gather(
            *(house.ask("DELETE", f"{house.members}/{each.id}", each.key) for each in both)
        )
        assert sorted(answer.status for answer in answers) == [204, 403]
        [refused] = [answer for answer in answers if answer.status == 403]
        assert refused.reason == "LAST_OWNER"
        assert sorted((await house.roles()).values()) == ["member", "owner"]
        left, _ = sorted(both, key=lambda each: answers[both.index(each)].status)
        # By the project: who left is not added again by members.
        again = await house.add(house.admin, email=await _email(house, left.id), role="owner")
        assert again.status == 201
        await tenant.store.homes.remove_member(tenant.project, house.home, guest.id)


async def _email(house: House, user: int) -> str | None:
    found = await house.tenant.store.users.get(house.tenant.project, user)
    assert found is not None
    return found.email


async def test_of_two_owners_who_demote_each_other_at_once_one_stays(house: House) -> None:
    tenant = house.tenant
    for _ in range(10):
        for each in (house.owner, house.member):
            await tenant.store.homes.set_role(tenant.project, house.home, each.id, Role.OWNER)
        answers = await asyncio.gather(
            house.set_role(house.owner.key, house.member.id, "member"),
            house.set_role(house.member.key, house.owner.id, "member"),
        )
        # The one who came second was no owner any more.
        assert sorted(answer.status for answer in answers) == [204, 403]
        assert sorted((await house.roles()).values()) == ["member", "owner"]
