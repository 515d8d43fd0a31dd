"""Adding members through the REST service, by what people of the account system are known by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kit.homes import HomeWithMembers, home_with_members
from kit.node import NodeProcess
from kit.tenant import Account, Reply, Tenant, tenant_of

ABSENT = 987_654_321
ANN = "Ann@Example.com"


@pytest_asyncio.fixture
async def at_home(tenant: Tenant) -> HomeWithMembers:
    return await home_with_members(tenant)


@pytest_asyncio.fixture
async def phones(node: NodeProcess) -> AsyncIterator[tuple[Tenant, Account, int]]:
    """A project with phone accounts, a user of it, and the user's home."""
    async with tenant_of(node, "phone") as tenant:
        yield tenant, *await _owner(tenant, "+14155550100")


@pytest_asyncio.fixture
async def byou(node: NodeProcess) -> AsyncIterator[tuple[Tenant, Account, int]]:
    async with tenant_of(node, "byou") as tenant:
        yield tenant, *await _owner(tenant)


async def _owner(tenant: Tenant, phone: str | None = None) -> tuple[Account, int]:
    user = await tenant.store.users.create(tenant.project, "Owner", phone=phone)
    _, key = await tenant.session(user.id, "controller_app")
    owner = Account(user.id, key)
    return owner, await tenant.home(owner)


async def keys_of(tenant: Tenant) -> set[str]:
    pattern = tenant.slot.prefix + "*"
    return {name.decode() async for name in tenant.redis.scan_iter(pattern, count=1000)}


async def test_existing_user_is_added_and_notified(at_home: HomeWithMembers, node: NodeProcess) -> None:
    added = await at_home.ask("POST", at_home.members, at_home.member.key, {"email": "2@EXAMPLE.com"})
    assert added.status == 201
    # Nothing beyond what was typed: see test_consent.py.
    assert added.body == {
        "userId": at_home.stranger.id,
        "creationTime": added.body["creationTime"],
        "verified": False,
        "role": "member",
        "email": "2@example.com",
        "accepted": False,
    }
    assert (await at_home.roles())[at_home.stranger.id] == "member"
    again = await at_home.ask("POST", at_home.members, at_home.member.key, {"email": "2@example.com"})
    assert (again.status, again.reason) == (403, "MEMBER_EXISTS")
    # Told once.
    told = await node.outbox("--project", at_home.tenant.project)
    assert [(each["to"], each["kind"]) for each in told] == [("2@example.com", "invitation")]


async def test_invited_address_becomes_user_by_registering(
    at_home: HomeWithMembers, node: NodeProcess
) -> None:
    tenant = at_home.tenant
    added = await at_home.ask("POST", at_home.members, at_home.owner.key, {"email": ANN, "role": "owner"})
    assert (added.status, added.body["verified"], added.body["email"]) == (201, False, "Ann@example.com")
    assert "name" not in added.body
    ann = added.body["userId"]
    # In this project: the node and what it kept are those of other tests, too.
    told = await node.outbox("--project", tenant.project)
    assert [(each["to"], each["kind"]) for each in told] == [("Ann@example.com", "invitation")]
    # To nobody but the members.
    assert await tenant.store.users.get(tenant.project, ann) is None
    assert await tenant.store.users.by_email(tenant.project, ANN) is None
    listed = await at_home.ask("GET", f"/homes?userId={ann}", at_home.reader)
    assert [home["id"] for home in listed.body] == [at_home.home]
    elsewhere = f"/homes/{at_home.elsewhere}/members"
    second = await at_home.ask("POST", elsewhere, at_home.stranger.key, {"email": "ann@EXAMPLE.com"})
    assert (second.status, second.body["userId"]) == (201, ann)
    user = await tenant.store.users.create(tenant.project, "Ann", email="ann@example.com")
    assert user.id == ann
    assert await tenant.store.homes.of_user(tenant.project, ann) == [at_home.home, at_home.elsewhere]
    shown = (await at_home.ask("GET", f"{at_home.members}/{ann}", at_home.reader)).body
    assert (shown["name"], shown["role"]) == ("Ann", "owner")


async def test_of_invitations_at_one_moment_one_wins(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    await tenant.store.homes.add_member(tenant.project, at_home.elsewhere, at_home.owner.id)
    for number in range(5):
        body = {"email": f"new{number}@example.com"}
        ways = [at_home.members, f"/homes/{at_home.elsewhere}/members"]
        answers = await asyncio.gather(
            *(at_home.ask("POST", path, at_home.owner.key, body) for path in ways for _ in range(4))
        )
        made = [answer for answer in answers if answer.status == 201]
        assert len(made) == 2
        assert {answer.reason for answer in answers if answer.status == 403} == {"MEMBER_EXISTS"}
        assert len({answer.body["userId"] for answer in made}) == 1


async def test_invitation_and_a_registration_at_one_moment_make_one_user(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    for number in range(10):
        email = f"new{number}@example.com"
        invited, user = await asyncio.gather(
            at_home.ask("POST", at_home.members, at_home.owner.key, {"email": email}),
            tenant.store.users.create(tenant.project, "New", email=email),
        )
        assert (invited.status, invited.body["userId"]) == (201, user.id)
        found = await tenant.store.users.by_email(tenant.project, email)
        assert found is not None
        assert found.id == user.id
        assert await tenant.store.homes.of_user(tenant.project, user.id) == [at_home.home]


Ending = Callable[[HomeWithMembers, int], Any]


async def _remove(at_home: HomeWithMembers, user: int) -> Reply:
    return await at_home.ask("DELETE", f"{at_home.members}/{user}", at_home.owner.key)


async def _delete_home(at_home: HomeWithMembers, user: int) -> Reply:
    return await at_home.ask("DELETE", at_home.path, at_home.owner.key)


@pytest.mark.parametrize("end", [_remove, _delete_home])
async def test_invited_user_is_deleted_with_last_membership(at_home: HomeWithMembers, end: Ending) -> None:
    tenant = at_home.tenant
    body = {"email": "guest@example.com"}
    guest = (await at_home.ask("POST", at_home.members, at_home.owner.key, body)).body["userId"]
    elsewhere = f"/homes/{at_home.elsewhere}/members"
    assert (await at_home.ask("POST", elsewhere, at_home.stranger.key, body)).body["userId"] == guest
    assert (await end(at_home, guest)).status == 204
    assert await tenant.store.users.get_any(tenant.project, guest) is not None
    assert (await at_home.ask("DELETE", f"{elsewhere}/{guest}", at_home.stranger.key)).status == 204
    assert await tenant.store.users.get_any(tenant.project, guest) is None
    assert not [name for name in await keys_of(tenant) if str(guest) in name.split(":")]
    fresh = await tenant.store.users.create(tenant.project, "Guest", email="guest@example.com")
    assert fresh.id != guest


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "email"),
        ({"email": ""}, "email"),
        ({"email": "no address"}, "email"),
        ({"email": 7}, "email"),
        ({"phoneNumber": "+14155550123"}, "phoneNumber"),
        ({"email": "x@example.com", "phoneNumber": "+14155550123"}, "phoneNumber"),
        ({"email": "x@example.com", "userId": 7}, "userId"),
        ({"email": "x@example.com", "role": "king"}, "role"),
    ],
)
async def test_invalid_invitee_of_email_project_is_refused(
    at_home: HomeWithMembers, body: Any, field: str
) -> None:
    before = await keys_of(at_home.tenant)
    refused = await at_home.ask("POST", at_home.members, at_home.owner.key, body)
    assert (refused.status, refused.body["data"]["field"]) == (403, field)
    assert await keys_of(at_home.tenant) == before


async def test_only_owners_make_owners(at_home: HomeWithMembers) -> None:
    refused = await at_home.add(at_home.member.key, email="x@example.com", role="owner")
    assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    assert (await at_home.add(at_home.member.key, email="x@example.com", role="member")).status == 201
    for number, key in enumerate((at_home.owner.key, at_home.admin)):
        made = await at_home.add(key, email=f"new{number}@example.com", role="owner")
        assert (made.status, made.body["role"]) == (201, "owner")
    assert (await at_home.add(at_home.reader, email="q@example.com")).status == 403


async def test_forms_of_every_kind(at_home: HomeWithMembers) -> None:
    def form(**fields: str) -> AbstractAsyncContextManager[Any]:
        headers = {"Authorization": at_home.owner.key}
        return at_home.tenant.http.post(at_home.members, data=aiohttp.FormData(fields), headers=headers)

    # A field that is empty says nothing.
    async with form(email="a@example.com", phoneNumber="", role="owner") as answer:
        assert (answer.status, (await answer.json())["role"]) == (201, "owner")
    parts = aiohttp.FormData({"email": "b@example.com"}, default_to_multipart=True)
    headers = {"Authorization": at_home.owner.key}
    async with at_home.tenant.http.post(at_home.members, data=parts, headers=headers) as answer:
        assert answer.status == 201


async def test_phone_projects_add_by_number_and_send_nothing(
    phones: tuple[Tenant, Account, int], node: NodeProcess
) -> None:
    tenant, owner, home = phones
    path = f"/homes/{home}/members"
    user = await tenant.store.users.create(tenant.project, "Bo", phone="+14155550101")
    known = await tenant.ask("POST", path, owner.key, {"phoneNumber": "+1 (415) 555-0101"})
    assert (known.body["userId"], known.body["phoneNumber"]) == (user.id, "+14155550101")
    invited = await tenant.ask("POST", path, owner.key, {"phoneNumber": "+14155550102"})
    assert (invited.status, invited.body["verified"]) == (201, False)
    assert await node.outbox("--project", tenant.project) == []
    registered = await tenant.store.users.create(tenant.project, "Cy", phone="+14155550102")
    assert registered.id == invited.body["userId"]
    for body, field in (
        ({"email": "x@example.com"}, "email"),
        ({"userId": user.id}, "userId"),
        ({"phoneNumber": "555 0103"}, "phoneNumber"),
        ({}, "phoneNumber"),
    ):
        refused = await tenant.ask("POST", path, owner.key, body)
        assert (refused.status, refused.body["data"]["field"]) == (403, field)


async def test_byou_projects_add_users_that_exist(byou: tuple[Tenant, Account, int]) -> None:
    tenant, owner, home = byou
    path = f"/homes/{home}/members"
    user = await tenant.store.users.create(tenant.project, "Bo", external_key="bo")
    added = await tenant.ask("POST", path, owner.key, {"userId": user.id})
    assert (added.status, added.body["userId"], added.body["accepted"]) == (201, user.id, False)
    again = await tenant.ask("POST", path, owner.key, {"userId": user.id})
    assert (again.status, again.reason) == (403, "MEMBER_EXISTS")
    for body, field in (
        ({"userId": ABSENT}, "userId"),
        ({"userId": 0}, "userId"),
        ({"userId": "bo"}, "userId"),
        ({"email": "x@example.com"}, "email"),
        ({"phoneNumber": "+14155550101"}, "phoneNumber"),
        ({}, "userId"),
    ):
        refused = await tenant.ask("POST", path, owner.key, body)
        assert (refused.status, refused.body["data"]["field"]) == (403, field)
    admin = await tenant.project_key("admin")
    other = await tenant.store.users.create(tenant.project, "Cy")
    assert (await tenant.ask("POST", path, admin, {"userId": other.id})).status == 201
