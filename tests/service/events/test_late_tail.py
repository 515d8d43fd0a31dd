"""A node whose stream reader is late: changes through it hold from the answer on.

Also which connections it admits, and what its listeners receive of what it reads all at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.accounts import PASSWORD, tenant_with_app
from kit.client import listen, refusal
from kit.homes import PATH
from kit.in_redis import shard_of
from kit.node import NodeProcess, private_node
from kit.redis_link import RedisLink, redis_link
from kit.tenant import tenant_of

COME_BACK = 4004


@pytest.fixture(scope="module")
def tail(node: NodeProcess) -> Iterator[RedisLink]:
    with redis_link(node.redis_url) as way:
        yield way


@pytest.fixture(scope="module")
def late(tail: RedisLink) -> Iterator[NodeProcess]:
    """A node whose tail can be kept from reading."""
    with private_node(redis_url=tail.url) as node:
        yield node


@pytest.fixture(autouse=True)
def _let_read(tail: RedisLink) -> Iterator[None]:
    yield
    tail.may_read.set()


async def test_session_that_was_ended_is_refused(late: NodeProcess, tail: RedisLink) -> None:
    async with tenant_with_app(late, "email") as people:
        await people.member("ada@example.com")
        key = (await people.sign_in(email="ada@example.com", password=PASSWORD)).body["token"]
        ask = people.ask
        assert (await ask("GET", "/userSession", key)).status == 200
        tail.may_read.clear()
        assert (await ask("DELETE", "/userSession", key)).status == 204
        assert (await ask("GET", "/userSession", key)).status == 401


async def test_removed_member_sees_and_changes_nothing_before_tail_reads(
    late: NodeProcess, tail: RedisLink
) -> None:
    async with tenant_of(late) as tenant:
        owner, member = await tenant.user(), await tenant.user()
        home = await tenant.home(owner, members=[member])
        assert (await tenant.ask("GET", f"/homes/{home}", member.key)).status == 200
        tail.may_read.clear()
        path = f"/homes/{home}/members/{member.id}"
        assert (await tenant.ask("DELETE", path, owner.key)).status == 204
        value = {"value": 2}
        assert (await tenant.ask("PUT", f"/homes/{home}/kv/light", member.key, value)).status == 404
        assert (await tenant.ask("GET", f"/homes/{home}", member.key)).status == 404


async def test_user_without_a_revoked_permission_changes_nothing(late: NodeProcess, tail: RedisLink) -> None:
    """By each permission that is asked for in a request, whether to a user or to a group of theirs."""
    async with tenant_of(late, access_control="permission") as tenant:
        owner, guest = await tenant.user(), await tenant.user()
        home = await tenant.home(owner)
        device = (await tenant.device(home)).id
        admin = await tenant.project_key("admin")
        project = f"/projects/{tenant.project}"
        made = await tenant.ask("POST", f"{project}/groups", admin, {"name": "guests"})
        group = made.body["id"]
        path = f"{project}/groups/{group}/members/{guest.id}"
        assert (await tenant.ask("PUT", path, admin)).status == 204
        for permission, path in (
            (f"write:home:{home}", f"/homes/{home}/kv/light"),
            (f"write:device:{device}", f"/devices/{device}/kv/light"),
        ):
            for whose in ({"userId": guest.id}, {"groupId": group}):
                granted = await tenant.ask(
                    "POST", f"{project}/permissions", admin, {**whose, "permission": permission}
                )
                assert granted.status == 204
                assert (await tenant.ask("PUT", path, guest.key, {"value": 1})).status == 204
                tail.may_read.clear()
                [(name, number)] = whose.items()
                revoked = f"{project}/permissions?{name}={number}&permission={permission}"
                assert (await tenant.ask("DELETE", revoked, admin)).status == 204
                assert (await tenant.ask("PUT", path, guest.key, {"value": 2})).status == 404
                tail.may_read.set()


async def test_listener_of_moved_device_is_admitted_before_tail_reads(
    late: NodeProcess, tail: RedisLink
) -> None:
    """Also where the node remembers it elsewhere, or nowhere."""
    async with tenant_of(late) as tenant:
        user, neighbour = await tenant.user(), await tenant.user()
        home = await tenant.home(user)
        for device in (await tenant.device(None), await tenant.device(await tenant.home(neighbour))):
            path = f"{PATH}?deviceId={device.id}"
            assert (await refusal(late.url, path, user.key)).status == 404
            tail.may_read.clear()
            await tenant.store.devices.move(tenant.project, device.id, home)
            async with await listen(late.url, path, user.key) as socket:
                assert await socket.is_alive()
            tail.may_read.set()


async def test_device_placed_in_home_sends_and_receives_before_tail_reads(
    late: NodeProcess, tail: RedisLink
) -> None:
    """Also through the node that refused it before."""
    event = {"eventType": "here"}
    async with tenant_of(late) as tenant:
        user, neighbour = await tenant.user(), await tenant.user()
        home = await tenant.home(user)
        for device in (await tenant.device(None), await tenant.device(await tenant.home(neighbour))):
            command = (f"/devices/{device.id}/command", user.key, {"action": "go"})
            assert (await tenant.put(*command))[0] == 404
            tail.may_read.clear()
            await tenant.store.devices.move(tenant.project, device.id, home)
            assert (await tenant.put(*command))[0] == 204
            tail.may_read.set()
        device = await tenant.device(None)
        report = (f"/devices/{device.id}/event", device.key, event)
        assert (await tenant.put(*report))[0] == 403
        tail.may_read.clear()
        await tenant.store.devices.move(tenant.project, device.id, home)
        assert (await tenant.put(*report))[0] == 204
        await tenant.send(event | {"deviceId": device.id})


async def test_closed_listener_received_events_acknowledged_before(
    late: NodeProcess, tail: RedisLink
) -> None:
    """Also by a tail that comes back and looks at one shard after the other."""
    async with tenant_of(late) as tenant:
        user = await tenant.user()
        homes = sorted([await tenant.home(user) for _ in range(4)], key=lambda each: shard_of(each))
        moved, stays = await tenant.device(homes[0]), await tenant.device(homes[-1])
        assert shard_of(homes[0]) < shard_of(homes[-1])
        async with await listen(late.url, f"{PATH}?deviceId={moved.id},{stays.id}", user.key) as socket:
            tail.may_read.clear()
            await tenant.send({"deviceId": stays.id, "eventType": "before"})
            await tenant.store.devices.move(tenant.project, moved.id, None)
            tail.cut_readers()
            tail.may_read.set()
            assert await socket.receive_type() == "before"
            assert (await socket.receive()).close_code == COME_BACK
