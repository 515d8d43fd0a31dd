"""Homes through the REST service: who sees, makes, changes and deletes them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from kit.client import listen
from kit.homes import HomeWithMembers, home_with_members
from kit.node import NodeProcess, private_node
from kit.redis_server import MAX_SCRIPT_WORDS, watched_scripts
from kit.tenant import Tenant, new_project, tenant_of

ABSENT = 987_654_321


@pytest_asyncio.fixture
async def at_home(tenant: Tenant) -> HomeWithMembers:
    return await home_with_members(tenant)


async def test_home_reads_back_as_it_was_made(at_home: HomeWithMembers) -> None:
    wanted = {"name": "Hütte", "timezone": "Europe/Berlin", "color": "red", "deactivated": True}
    made = await at_home.ask("POST", "/homes", at_home.owner.key, wanted)
    assert made.status == 201
    assert {name: made.body[name] for name in ("name", "timezone", "projectId")} == {
        "name": "Hütte",
        "timezone": "Europe/Berlin",
        "projectId": at_home.tenant.project,
    }
    assert made.body.keys() == {"id", "projectId", "creationTime", "name", "timezone"}
    for key in (at_home.owner.key, at_home.reader, at_home.admin):
        assert (await at_home.ask("GET", f"/homes/{made.body['id']}", key)).body == made.body
    members = await at_home.ask("GET", f"/homes/{made.body['id']}/members", at_home.owner.key)
    assert [(each["userId"], each["role"]) for each in members.body] == [(at_home.owner.id, "owner")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " "}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 257}, "name"),
        *(
            ({"name": "h", "timezone": zone}, "timezone")
            for zone in ("Mars/Base", "../../etc/passwd", "Europe", "posixrules", "localtime", "x" * 300, 7)
        ),
    ],
)
async def test_home_that_cannot_be_made(at_home: HomeWithMembers, body: Any, field: str) -> None:
    refused = await at_home.ask("POST", "/homes", at_home.owner.key, body)
    assert (refused.status, refused.reason, refused.body["data"]["field"]) == (
        403,
        "INVALID_PARAMETER",
        field,
    )


async def test_only_users_make_homes(at_home: HomeWithMembers) -> None:
    for key, status in ((at_home.admin, 403), (None, 401), ("garbage", 401)):
        assert (await at_home.ask("POST", "/homes", key, {"name": "h"})).status == status


async def test_home_is_hidden_from_other_users(at_home: HomeWithMembers) -> None:
    hidden = await at_home.ask("GET", at_home.path, at_home.stranger.key)
    unknown = await at_home.ask("GET", f"/homes/{ABSENT}", at_home.stranger.key)
    assert (hidden.status, hidden.body) == (404, unknown.body)
    assert (await at_home.ask("GET", "/homes/none", at_home.owner.key)).status == 404
    for method, body in (("PATCH", {"name": "mine"}), ("DELETE", None)):
        assert (await at_home.ask(method, at_home.path, at_home.stranger.key, body)).status == 404
    foreign = await (await new_project(at_home.tenant.redis)).project_key("admin")
    assert (await at_home.ask("DELETE", at_home.path, foreign)).status == 404
    assert (await at_home.ask("GET", at_home.path, at_home.owner.key)).body["name"] == "home"


async def _project(at_home: HomeWithMembers) -> Any:
    return await at_home.tenant.store.projects.get(at_home.tenant.project)


async def test_owners_change_name_and_timezone(at_home: HomeWithMembers) -> None:
    for key in (at_home.owner.key, at_home.admin):
        shown = (await at_home.ask("GET", at_home.path, key)).body
        changed = {**shown, "name": "villa", "timezone": "Asia/Tokyo", "unknown": 1}
        answer = await at_home.ask("PATCH", at_home.path, key, changed)
        assert (answer.status, answer.body) == (204, None)
        assert (await at_home.ask("GET", at_home.path, key)).body == {
            **shown,
            "name": "villa",
            "timezone": "Asia/Tokyo",
        }
        for nothing in (None, ""):
            assert (await at_home.ask("PATCH", at_home.path, key, {"timezone": nothing})).status == 204
            assert "timezone" not in (await at_home.ask("GET", at_home.path, key)).body
        assert (await at_home.ask("PATCH", at_home.path, key, {"name": "home"})).status == 204


async def test_members_change_nothing(at_home: HomeWithMembers) -> None:
    for method, body in (("PATCH", {"name": "mine"}), ("DELETE", None)):
        refused = await at_home.ask(method, at_home.path, at_home.member.key, body)
        assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
        assert (await at_home.ask(method, at_home.path, at_home.reader, body)).status == 403
    assert (await at_home.ask("GET", at_home.path, at_home.member.key)).body["name"] == "home"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 1),
        ("projectId", 1),
        ("creationTime", "2020-01-01T00:00:00.000Z"),
        ("deactivated", None),
        ("name", ""),
        ("name", None),
        ("timezone", "Nowhere/Land"),
    ],
)
async def test_invalid_change_of_home_is_refused_by_field(
    at_home: HomeWithMembers, field: str, value: Any
) -> None:
    for key in (at_home.owner.key, at_home.admin):
        refused = await at_home.ask("PATCH", at_home.path, key, {"name": "new", field: value})
        assert (refused.status, refused.body["data"]["field"]) == (403, field)
    assert (await at_home.ask("GET", at_home.path, at_home.owner.key)).body["name"] == "home"


async def test_only_project_deactivates_home(at_home: HomeWithMembers) -> None:
    refused = await at_home.ask("PATCH", at_home.path, at_home.owner.key, {"name": "x", "deactivated": True})
    assert (refused.status, refused.body["data"]["field"]) == (403, "deactivated")
    assert (await at_home.ask("PATCH", at_home.path, at_home.reader, {"deactivated": True})).status == 403
    changed = {"name": "Hütte", "deactivated": True}
    for _ in range(2):
        assert (await at_home.ask("PATCH", at_home.path, at_home.admin, changed)).status == 204
    shown = (await at_home.ask("GET", at_home.path, at_home.owner.key)).body
    assert (shown["name"], shown["deactivated"]) == ("Hütte", True)
    assert (await at_home.ask("GET", at_home.members, at_home.member.key)).status == 200
    # It may stand as it is in what an owner sends back.
    assert (await at_home.ask("PATCH", at_home.path, at_home.owner.key, shown)).status == 204
    refused = await at_home.ask("PATCH", at_home.path, at_home.owner.key, {"deactivated": False})
    assert (refused.status, refused.body["data"]["field"]) == (403, "deactivated")
    assert (await at_home.ask("PATCH", at_home.path, at_home.admin, {"deactivated": False})).status == 204
    assert "deactivated" not in (await at_home.ask("GET", at_home.path, at_home.owner.key)).body


async def test_deleted_home_is_gone_with_its_contents(at_home: HomeWithMembers) -> None:
    tenant = at_home.tenant
    device = await tenant.device(at_home.home)
    async with await listen(tenant.url, "/userSession/websocket", at_home.member.key) as socket:
        deleted = await at_home.ask("DELETE", at_home.path, at_home.owner.key)
        assert (deleted.status, deleted.body) == (204, None)
        # It was the only home of the socket, but the socket would receive others.
        await tenant.store.homes.add_member(tenant.project, at_home.elsewhere, at_home.member.id)
        await tenant.send({"homeId": at_home.elsewhere, "eventType": "later"})
        assert await socket.receive_type() == "later"
    assert (await at_home.ask("GET", at_home.path, at_home.reader)).status == 404
    assert (await at_home.ask("DELETE", at_home.path, at_home.admin)).status == 404
    homes = await at_home.ask("GET", f"/homes?userId={at_home.member.id}", at_home.member.key)
    assert [home["id"] for home in homes.body] == [at_home.elsewhere]
    released = await tenant.store.devices.get(tenant.project, device.id)
    assert released is not None
    assert released.home_id is None
    slot = tenant.slot
    names = (slot.home(at_home.home), slot.home_members(at_home.home), slot.home_devices(at_home.home))
    assert await tenant.redis.exists(*names, slot.deleted_homes) == 0


async def test_users_list_their_own_homes(at_home: HomeWithMembers) -> None:
    more = [await at_home.tenant.home(at_home.owner) for _ in range(4)]
    ids = [at_home.home, *more]
    path = f"/homes?userId={at_home.owner.id}"
    for key in (at_home.owner.key, at_home.reader, at_home.admin):
        whole = await at_home.ask("GET", path, key)
        assert (whole.status, [home["id"] for home in whole.body], whole.range) == (200, ids, "0-4/5")
        some = await at_home.ask("GET", f"{path}&skip=1&limit=2", key)
        assert ([home["id"] for home in some.body], some.range) == (ids[1:3], "1-2/5")
        none = await at_home.ask("GET", f"{path}&skip=5", key)
        assert (none.body, none.range) == ([], "*/5")
    assert whole.body[0] == (await at_home.ask("GET", at_home.path, at_home.owner.key)).body
    newcomer = await at_home.tenant.user()
    nothing = await at_home.ask("GET", f"/homes?userId={newcomer.id}", newcomer.key)
    assert (nothing.body, nothing.range) == ([], "*/0")


async def test_project_keys_list_all_homes(at_home: HomeWithMembers) -> None:
    path = f"/homes?projectId={at_home.tenant.project}"
    whole = await at_home.ask("GET", path, at_home.reader)
    assert ([home["id"] for home in whole.body], whole.range) == ([at_home.home, at_home.elsewhere], "0-1/2")
    last = await at_home.ask("GET", f"{path}&skip=1&limit=10", at_home.reader)
    assert ([home["id"] for home in last.body], last.range) == ([at_home.elsewhere], "1-1/2")
    both = await at_home.ask("GET", f"{path}&userId={at_home.stranger.id}", at_home.reader)
    assert [home["id"] for home in both.body] == [at_home.elsewhere]


@pytest.mark.parametrize(
    ("caller", "query"),
    [
        ("owner", ""),
        ("owner", "?projectId={project}"),
        ("owner", "?userId={stranger}"),
        ("owner", "?userId={absent}"),
        ("owner", "?userId=me"),
        ("owner", "?userId={owner}&skip=-1"),
        ("reader", ""),
        ("reader", "?projectId={absent}"),
        ("reader", "?userId={absent}"),
        ("reader", "?userId={owner}&projectId={absent}"),
        ("events", "?projectId={project}"),
    ],
)
async def test_lists_of_foreign_homes_are_refused(at_home: HomeWithMembers, caller: str, query: str) -> None:
    keys = {"owner": at_home.owner.key, "reader": at_home.reader, "events": at_home.tenant.key}
    given = query.format(
        project=at_home.tenant.project, stranger=at_home.stranger.id, owner=at_home.owner.id, absent=ABSENT
    )
    assert (await at_home.ask("GET", f"/homes{given}", keys[caller])).status == 403


async def test_user_is_in_so_many_homes_at_most(node: NodeProcess) -> None:
    with private_node(redis_url=node.redis_url, homes_per_user=2) as strict:
        async with tenant_of(strict) as tenant:
            user, other = await tenant.user(), await tenant.user()
            answers = await asyncio.gather(
                *(tenant.ask("POST", "/homes", user.key, {"name": "h"}) for _ in range(6))
            )
            assert sorted(answer.status for answer in answers) == [201, 201, 403, 403, 403, 403]
            assert {answer.reason for answer in answers if answer.status == 403} == {"EXCEEDED_MAX_HOMES"}
            home = await tenant.home(other)
            email = {"email": "0@example.com"}
            # A stranger may ask, and is not told; who is in too many homes cannot accept.
            assert (await tenant.ask("POST", f"/homes/{home}/members", other.key, email)).status == 201
            me, accepted = f"/homes/{home}/members/{user.id}", {"accepted": True}
            refused = await tenant.ask("PATCH", me, user.key, accepted)
            assert (refused.status, refused.reason) == (403, "EXCEEDED_MAX_HOMES")
            assert (await tenant.ask("GET", f"/homes/{home}", user.key)).status == 200
            mine = next(answer.body["id"] for answer in answers if answer.status == 201)
            assert (await tenant.ask("DELETE", f"/homes/{mine}", user.key)).status == 204
            assert (await tenant.ask("PATCH", me, user.key, accepted)).status == 204


async def test_home_of_very_many_members_is_deleted_within_bounds(at_home: HomeWithMembers) -> None:
    tenant, slot, count = at_home.tenant, at_home.tenant.slot, 3_000
    home = await tenant.home(at_home.owner)
    async with tenant.redis.pipeline(transaction=False) as pipeline:
        for user in range(10**9, 10**9 + count):
            pipeline.hset(slot.home_members(home), str(user), "member 1")
            pipeline.zadd(slot.user_homes(user), {str(home): home})
        await pipeline.execute()
    async with watched_scripts(tenant.redis) as sizes:
        assert (await at_home.ask("DELETE", f"/homes/{home}", at_home.owner.key)).status == 204
    assert 0 < max(sizes) < MAX_SCRIPT_WORDS
    assert await tenant.redis.exists(slot.home_members(home), slot.deleted_homes) == 0
    left = [tenant.redis.exists(slot.user_homes(user)) for user in range(10**9, 10**9 + count, 500)]
    assert sum(await asyncio.gather(*left)) == 0


async def test_removed_member_no_longer_sees_home(at_home: HomeWithMembers) -> None:
    assert (await at_home.ask("GET", at_home.path, at_home.member.key)).status == 200
    gone = await at_home.ask("DELETE", f"{at_home.path}/members/{at_home.member.id}", at_home.owner.key)
    assert gone.status == 204
    assert (await at_home.ask("GET", at_home.path, at_home.member.key)).status == 404
