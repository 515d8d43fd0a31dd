"""Homes through the REST service: who sees, makes, changes and deletes them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from homewire.homes.models import Role
from homewire.projects.models import KeyScope
from homewire.store.keys import ProjectSlot
from kit.client import listen
from kit.home_with_members import House, house_of
from kit.node import NodeProcess, private_node
from kit.tenant import Tenant, tenant_of

ABSENT = 987_654_321


@pytest_asyncio.fixture
async def house(tenant: Tenant) -> House:
    return await house_of(tenant)


async def test_a_home_reads_back_as_it_was_made(house: House) -> None:
    wanted = {"name": "Hütte", "timezone": "Europe/Berlin", "color": "red", "deactivated": True}
    made = await house.ask("POST", "/homes", house.owner.key, wanted)
    assert made.status == 201
    assert {name: made.body[name] for name in ("name", "timezone", "projectId")} == {
        "name": "Hütte",
        "timezone": "Europe/Berlin",
        "projectId": house.tenant.project,
    }
    assert made.body.keys() == {"id", "projectId", "creationTime", "name", "timezone"}
    for key in (house.owner.key, house.reader, house.admin):
        assert (await house.ask("GET", f"/homes/{made.body['id']}", key)).body == made.body
    members = await house.ask("GET", f"/homes/{made.body['id']}/members", house.owner.key)
    assert [(each["userId"], each["role"]) for each in members.body] == [(house.owner.id, "owner")]


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
async def test_a_home_that_cannot_be_made(house: House, body: Any, field: str) -> None:
    refused = await house.ask("POST", "/homes", house.owner.key, body)
    assert (refused.status, refused.reason, refused.body["data"]["field"]) == (
        403,
        "INVALID_PARAMETER",
        field,
    )


async def test_only_users_make_homes(house: House) -> None:
    for key, status in ((house.admin, 403), (None, 401), ("garbage", 401)):
        assert (await house.ask("POST", "/homes", key, {"name": "h"})).status == status


async def test_a_home_is_hidden_from_who_is_not_in_it(house: House) -> None:
    hidden = await house.ask("GET", house.path, house.stranger.key)
    unknown = await house.ask("GET", f"/homes/{ABSENT}", house.stranger.key)
    assert (hidden.status, hidden.body) == (404, unknown.body)
    assert (await house.ask("GET", "/homes/none", house.owner.key)).status == 404
    for method, body in (("PATCH", {"name": "mine"}), ("DELETE", None)):
        assert (await house.ask(method, house.path, house.stranger.key, body)).status == 404
    other = await house.tenant.store.projects.create("other", (await _project(house)).accounts)
    foreign = (await house.tenant.store.project_keys.create(other.id, "k", [KeyScope.ADMIN]))[1]
    assert (await house.ask("DELETE", house.path, foreign)).status == 404
    assert (await house.ask("GET", house.path, house.owner.key)).body["name"] == "home"


async def _project(house: House) -> Any:
    return await house.tenant.store.projects.get(house.tenant.project)


async def test_owners_change_name_and_timezone(house: House) -> None:
    for key in (house.owner.key, house.admin):
        shown = (await house.ask("GET", house.path, key)).body
        changed = {**shown, "name": "villa", "timezone": "Asia/Tokyo", "unknown": 1}
        answer = await house.ask("PATCH", house.path, key, changed)
        assert (answer.status, answer.body) == (204, None)
        assert (await house.ask("GET", house.path, key)).body == {
            **shown,
            "name": "villa",
            "timezone": "Asia/Tokyo",
        }
        for nothing in (None, ""):
            assert (await house.ask("PATCH", house.path, key, {"timezone": nothing})).status == 204
            assert "timezone" not in (await house.ask("GET", house.path, key)).body
        assert (await house.ask("PATCH", house.path, key, {"name": "home"})).status == 204


async def test_members_change_nothing(house: House) -> None:
    for method, body in (("PATCH", {"name": "mine"}), ("DELETE", None)):
        refused = await house.ask(method, house.path, house.member.key, body)
        assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
        assert (await house.ask(method, house.path, house.reader, body)).status == 403
    assert (await house.ask("GET", house.path, house.member.key)).body["name"] == "home"


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
async def test_what_a_change_may_not_say(house: House, field: str, value: Any) -> None:
    for key in (house.owner.key, house.admin):
        refused = await house.ask("PATCH", house.path, key, {"name": "new", field: value})
        assert (refused.status, refused.body["data"]["field"]) == (403, field)
    assert (await house.ask("GET", house.path, house.owner.key)).body["name"] == "home"


async def test_the_project_deactivates_a_home_and_nobody_in_it(house: House) -> None:
    refused = await house.ask("PATCH", house.path, house.owner.key, {"name": "x", "deactivated": True})
    assert (refused.status, refused.body["data"]["field"]) == (403, "deactivated")
    assert (await house.ask("PATCH", house.path, house.reader, {"deactivated": True})).status == 403
    changed = {"name": "Hütte", "deactivated": True}
    for _ in range(2):
        assert (await house.ask("PATCH", house.path, house.admin, changed)).status == 204
    shown = (await house.ask("GET", house.path, house.owner.key)).body
    assert (shown["name"], shown["deactivated"]) == ("Hütte", True)
    assert (await house.ask("GET", house.members, house.member.key)).status == 200
    # It may stand as it is in what an owner sends back.
    assert (await house.ask("PATCH", house.path, house.owner.key, shown)).status == 204
    refused = await house.ask("PATCH", house.path, house.owner.key, {"deactivated": False})
    assert (refused.status, refused.body["data"]["field"]) == (403, "deactivated")
    assert (await house.ask("PATCH", house.path, house.admin, {"deactivated": False})).status == 204
    assert "deactivated" not in (await house.ask("GET", house.path, house.owner.key)).body


async def test_a_deleted_home_is_gone_with_what_hung_on_it(house: House) -> None:
    tenant = house.tenant
    device = await tenant.device(house.home)
    async with await listen(tenant.url, "/userSession/websocket", house.member.key) as socket:
        deleted = await house.ask("DELETE", house.path, house.owner.key)
        assert (deleted.status, deleted.body) == (204, None)
        # It was the only home that the socket heard, but it would hear of others.
        await tenant.store.homes.add_member(tenant.project, house.elsewhere, house.member.id)
        await tenant.send({"homeId": house.elsewhere, "eventType": "later"})
        assert await socket.receive_type() == "later"
    assert (await house.ask("GET", house.path, house.reader)).status == 404
    assert (await house.ask("DELETE", house.path, house.admin)).status == 404
    homes = await house.ask("GET", f"/homes?userId={house.member.id}", house.member.key)
    assert [home["id"] for home in homes.body] == [house.elsewhere]
    released = await tenant.store.devices.get(tenant.project, device.id)
    assert released is not None
    assert released.home_id is None
    slot = ProjectSlot(tenant.project)
    names = (slot.home(house.home), slot.home_members(house.home), slot.home_devices(house.home))
    assert await tenant.redis.exists(*names, slot.deleted_homes) == 0


async def test_users_list_their_own_homes(house: House) -> None:
    more = [await house.tenant.home(house.owner) for _ in range(4)]
    ids = [house.home, *more]
    path = f"/homes?userId={house.owner.id}"
    for key in (house.owner.key, house.reader, house.admin):
        whole = await house.ask("GET", path, key)
        assert (whole.status, [home["id"] for home in whole.body], whole.range) == (200, ids, "0-4/5")
        some = await house.ask("GET", f"{path}&skip=1&limit=2", key)
        assert ([home["id"] for home in some.body], some.range) == (ids[1:3], "1-2/5")
        none = await house.ask("GET", f"{path}&skip=5", key)
        assert (none.body, none.range) == ([], "*/5")
    assert whole.body[0] == (await house.ask("GET", house.path, house.owner.key)).body
    newcomer = await house.tenant.user()
    nothing = await house.ask("GET", f"/homes?userId={newcomer.id}", newcomer.key)
    assert (nothing.body, nothing.range) == ([], "*/0")


async def test_project_keys_list_all_homes(house: House) -> None:
    path = f"/homes?projectId={house.tenant.project}"
    whole = await house.ask("GET", path, house.reader)
    assert ([home["id"] for home in whole.body], whole.range) == ([house.home, house.elsewhere], "0-1/2")
    last = await house.ask("GET", f"{path}&skip=1&limit=10", house.reader)
    assert ([home["id"] for home in last.body], last.range) == ([house.elsewhere], "1-1/2")
    both = await house.ask("GET", f"{path}&userId={house.stranger.id}", house.reader)
    assert [home["id"] for home in both.body] == [house.elsewhere]


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
async def test_lists_that_nobody_gets(house: House, caller: str, query: str) -> None:
    keys = {"owner": house.owner.key, "reader": house.reader, "events": house.tenant.key}
    given = query.format(
        project=house.tenant.project, stranger=house.stranger.id, owner=house.owner.id, absent=ABSENT
    )
    assert (await house.ask("GET", f"/homes{given}", keys[caller])).status == 403


async def test_a_user_is_in_so_many_homes_at_most(node: NodeProcess) -> None:
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


async def test_a_home_of_very_many_members_is_deleted_within_bounds(house: House) -> None:
    slowest = [await slowest_of_deletion(house) for _ in range(3)]
    # What else runs here disturbs one of them.
    assert min(slowest) <= 50_000, slowest


async def slowest_of_deletion(house: House) -> int:
    """The longest that a script kept Redis busy when a home with 3,000 members was deleted, in µs."""
    tenant, slot, count = house.tenant, ProjectSlot(house.tenant.project), 3_000
    home = await tenant.home(house.owner)
    async with tenant.redis.pipeline(transaction=False) as pipeline:
        for user in range(10**9, 10**9 + count):
            pipeline.hset(slot.home_members(home), str(user), f"{Role.MEMBER} 1")
            pipeline.zadd(slot.user_homes(user), {str(home): home})
        await pipeline.execute()
    await tenant.redis.config_set("slowlog-log-slower-than", 10_000)
    await tenant.redis.slowlog_reset()
    assert (await house.ask("DELETE", f"/homes/{home}", house.owner.key)).status == 204
    scripts = [each for each in await tenant.redis.slowlog_get(128) if b"EVAL" in each["command"]]
    assert await tenant.redis.exists(slot.home_members(home), slot.deleted_homes) == 0
    left = [tenant.redis.exists(slot.user_homes(user)) for user in range(10**9, 10**9 + count, 500)]
    assert sum(await asyncio.gather(*left)) == 0
    return max((int(each["duration"]) for each in scripts), default=0)


async def test_who_was_removed_sees_the_home_no_more(house: House) -> None:
    assert (await house.ask("GET", house.path, house.member.key)).status == 200
    gone = await house.ask("DELETE", f"{house.path}/members/{house.member.id}", house.owner.key)
    assert gone.status == 204
    assert (await house.ask("GET", house.path, house.member.key)).status == 404
