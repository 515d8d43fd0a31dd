"""Permissions and groups through the REST service, and what they let users write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest_asyncio

from kit.node import NodeProcess, eventually
from kit.tenant import Account, Reply, Tenant, tenant_of

COMMAND = {"action": "open"}
VALUE = {"value": 1}

MAX_GROUP_MEMBERS, MAX_GROUP_PERMISSIONS, MAX_USER_GROUPS = 300, 180, 20


@dataclass
class Office:
    """A project with access by permission, and a key of its server that may do everything."""

    tenant: Tenant
    admin: str
    member: Account
    guest: Account
    home: int
    device: Account

    async def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> Reply:
        base = f"/projects/{self.tenant.project}"
        return await self.tenant.ask(method, base + path, key or self.admin, body)

    async def grant(self, permission: str, **whose: int) -> Reply:
        return await self.ask("POST", "/permissions", {**whose, "permission": permission})

    async def of(self, query: str) -> list[dict[str, Any]]:
        reply = await self.ask("GET", f"/permissions?{query}")
        assert reply.status == 200
        return list(reply.body)


@pytest_asyncio.fixture
async def office(node: NodeProcess) -> AsyncIterator[Office]:
    async with tenant_of(node, access_control="permission") as tenant:
        admin = await tenant.project_key("admin")
        member, guest = await tenant.user(), await tenant.user()
        home = await tenant.home(member)
        yield Office(tenant, admin, member, guest, home, await tenant.device(home))


async def test_granted_permission_is_listed_until_revoked(office: Office) -> None:
    user, permission = office.guest.id, f"read:home-events:{office.home}"
    assert (await office.grant(permission, userId=user)).status == 204
    assert (await office.grant(permission, userId=user)).status == 204
    assert await office.of(f"userId={user}") == [{"permission": permission, "granted": True}]
    gone = f"/permissions?userId={user}&permission={permission}"
    assert (await office.ask("DELETE", gone)).status == 204
    assert await office.of(f"userId={user}") == []
    assert (await office.ask("DELETE", gone)).status == 404


async def test_group_has_a_name_members_and_permissions(office: Office) -> None:
    made = await office.ask("POST", "/groups", {"name": "night watch"})
    assert (made.status, made.body["name"], made.body["projectId"]) == (
        201, "night watch", office.tenant.project,
    )  # fmt: skip
    group, user = made.body["id"], office.guest.id
    permission = f"read:device:{office.device.id}"
    assert (await office.ask("PUT", f"/groups/{group}/members/{user}")).status == 204
    assert (await office.grant(permission, groupId=group)).status == 204
    assert (await office.grant(permission, userId=user)).status == 204
    assert (await office.ask("GET", f"/groups/{group}")).body == made.body
    members = await office.ask("GET", f"/groups/{group}/members")
    assert (members.body, members.range) == ([{"userId": user}], "0-0/1")
    assert await office.of(f"groupId={group}") == [{"permission": permission}]
    assert await office.of(f"userId={user}") == [
        {"permission": permission, "granted": True, "groupIds": [group]}
    ]
    assert (await office.ask("DELETE", f"/groups/{group}")).status == 204
    assert await office.of(f"userId={user}") == [{"permission": permission, "granted": True}]
    assert (await office.ask("GET", "/groups")).body == []
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/members"), ("PUT", f"/members/{user}")):
        assert (await office.ask(method, f"/groups/{group}{path}")).status == 404


UNKNOWN = 999_999_999


async def test_invalid_grant_is_refused_by_field(office: Office) -> None:
    user, permission = office.guest.id, f"read:home-events:{office.home}"
    elsewhere = f"read:home-events:{UNKNOWN}"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"userId": UNKNOWN, "permission": permission}, "userId"),
        ({"groupId": UNKNOWN, "permission": permission}, "groupId"),
        ({"permission": permission}, "userId"),
        ({"userId": user, "groupId": 1, "permission": permission}, "groupId"),
        ({"userId": user}, "permission"),
        ({"userId": user, "permission": elsewhere}, "permission"),
        ({"userId": user, "permission": f"write:device:{UNKNOWN}"}, "permission"),
        *(
            ({"userId": user, "permission": text}, "permission")
            for text in (
                *("", "read", "read:", "read:device:", f"write:entity-events:{office.home}", "read:device:x"),
                *(f"read:home-events:0{office.home}", f"read:home-events: {office.home}"),
                *("read:home-events:" + "9" * 5000, "read:device:-1", "read:device:\N{SUPERSCRIPT TWO}"),
                *("read:entity-events:", "read:entity-events:" + "x" * 257, "READ:device:1"),
            )
        ),
    ]
    for body, field in wrong:
        reply = await office.ask("POST", "/permissions", body)
        assert (reply.status, reply.body["data"].get("field")) == (403, field), body
    assert await office.of(f"userId={user}") == []
    for query, field in ((f"userId={UNKNOWN}", "userId"), (f"groupId={UNKNOWN}", "groupId"), ("", "userId")):
        reply = await office.ask("GET", f"/permissions?{query}")
        assert (reply.status, reply.body["data"]["field"]) == (403, field)


async def test_nothing_crosses_projects(office: Office, tenant: Tenant) -> None:
    stranger = await tenant.user()
    foreign = await tenant.home(stranger)
    reply = await office.grant(f"read:home-events:{office.home}", userId=stranger.id)
    assert reply.body["data"]["field"] == "userId"
    reply = await office.grant(f"read:home-events:{foreign}", userId=office.guest.id)
    assert reply.body["data"]["field"] == "permission"
    group = (await tenant.store.groups.create(tenant.project, "theirs")).id
    for method, path in (("GET", ""), ("DELETE", ""), ("PUT", f"/members/{office.guest.id}")):
        assert (await office.ask(method, f"/groups/{group}{path}")).status == 404
    other = f"/projects/{tenant.project}/groups"
    assert (await tenant.ask("GET", other, office.admin)).status == 404


async def test_there_are_bounds(office: Office) -> None:
    groups = office.tenant.store.groups
    project, user = office.tenant.project, office.guest.id
    group = (await groups.create(project, "group")).id
    await groups.enter(project, group, user)
    for number in range(MAX_GROUP_PERMISSIONS):
        await office.tenant.grant_group(group, f"read:entity-events:entity {number}")
    reply = await office.grant("read:entity-events:one more", groupId=group)
    assert (reply.status, reply.reason) == (403, "TOO_MANY_PERMISSIONS")
    for number in range(400):
        await office.tenant.grant(user, f"read:entity-events:own {number}")
    reply = await office.grant("read:entity-events:one more", userId=user)
    assert (reply.status, reply.reason) == (403, "TOO_MANY_PERMISSIONS")
    assert len(await office.of(f"userId={user}")) == 400 + MAX_GROUP_PERMISSIONS
    for _ in range(MAX_USER_GROUPS - 1):
        await groups.enter(project, (await groups.create(project, "group")).id, user)
    last = (await groups.create(project, "group")).id
    reply = await office.ask("PUT", f"/groups/{last}/members/{user}")
    assert (reply.status, reply.reason) == (403, "TOO_MANY_GROUPS")
    # What is full can be left, and all that it gave is gone in one step.
    assert (await office.ask("DELETE", f"/groups/{group}/members/{user}")).status == 204
    assert len(await office.of(f"userId={user}")) == 400


async def test_full_group_refuses_members_and_changes_permissions_of_all(office: Office) -> None:
    tenant, project = office.tenant, office.tenant.project
    slot, group = tenant.slot, (await tenant.store.groups.create(project, "group")).id
    # Nobody is behind these ids: making so many users takes long.
    many = range(UNKNOWN, UNKNOWN + MAX_GROUP_MEMBERS)
    await tenant.redis.zadd(slot.group_members(group), {str(each): each for each in many})
    reply = await office.ask("PUT", f"/groups/{group}/members/{office.guest.id}")
    assert (reply.status, reply.reason) == (403, "TOO_MANY_MEMBERS")
    permission = f"read:home-events:{office.home}"
    assert (await office.grant(permission, groupId=group)).status == 204
    held = tenant.store.permissions.held
    assert [await held(project, each, [permission]) for each in (many[0], many[-1])] == [
        {permission},
        {permission},
    ]
    assert (await office.ask("DELETE", f"/permissions?groupId={group}&permission={permission}")).status == 204
    assert await tenant.redis.exists(*(slot.user_permissions(each) for each in many)) == 0
    assert (await office.ask("DELETE", f"/groups/{group}")).status == 204
    assert await tenant.redis.exists(slot.group_members(group), slot.deleted_groups) == 0


async def test_write_permission_of_device_is_for_commands_and_values(office: Office) -> None:
    tenant, device = office.tenant, office.device.id
    writes = [
        ("PUT", f"/devices/{device}/command", COMMAND),
        ("PUT", f"/devices/{device}/kv/lamp", VALUE),
        ("DELETE", f"/devices/{device}/kv/lamp", None),
    ]

    async def tried(account: Account) -> list[int]:
        return [(await tenant.ask(method, path, account.key, body)).status for method, path, body in writes]

    async def is_over() -> bool:
        """The node has read of it."""
        return await tried(office.guest) == [404, 404, 404]

    permission = f"write:device:{device}"
    await office.grant(f"read:device:{device}", userId=office.guest.id)
    await office.grant(f"write:home:{office.home}", userId=office.guest.id)
    assert await tried(office.guest) == [404, 404, 404]
    assert await tried(office.member) == [403, 403, 403]
    reply = await tenant.ask("PUT", f"/devices/{device}/command", office.member.key, COMMAND)
    assert permission in reply.body["data"]["needs"]
    await office.grant(permission, userId=office.guest.id)
    assert await tried(office.guest) == [204, 204, 204]
    # What else there is of a device is for members.
    assert (await tenant.ask("GET", f"/devices/{device}", office.guest.key)).status == 404
    assert (await tenant.ask("GET", f"/devices/{device}", office.member.key)).status == 200
    await office.ask("DELETE", f"/permissions?userId={office.guest.id}&permission={permission}")
    await eventually(is_over)
    await office.grant(permission, userId=office.guest.id)
    await tenant.store.devices.move(tenant.project, device, None)
    await eventually(is_over)


async def test_write_permission_of_home_is_for_its_values(office: Office) -> None:
    tenant, path = office.tenant, f"/homes/{office.home}/kv/heating"
    assert (await tenant.ask("PUT", path, office.guest.key, VALUE)).status == 404
    assert (await tenant.ask("PUT", path, office.member.key, VALUE)).status == 403
    await office.grant(f"write:home:{office.home}", userId=office.guest.id)
    assert (await tenant.ask("PUT", path, office.guest.key, VALUE)).status == 204
    assert (await tenant.ask("GET", path, office.guest.key)).status == 404
    assert (await tenant.ask("GET", path, office.member.key)).body["value"] == 1
    assert (await tenant.ask("DELETE", path, office.guest.key)).status == 204
    await tenant.store.homes.delete(tenant.project, office.home)

    async def is_over() -> bool:
        return (await tenant.ask("PUT", path, office.guest.key, VALUE)).status == 404

    await eventually(is_over)
