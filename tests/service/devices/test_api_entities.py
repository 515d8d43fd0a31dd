"""Entities: made, found, changed and deleted by servers; and what a binding means for events and filters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import pytest
import pytest_asyncio
from yarl import URL

from kit.client import listen, refusal
from kit.node import NodeProcess, private_node
from kit.tenant import Account, Tenant, tenant_of

RANGE = "vnd.tinkermode.range"
SOCKET = "/userSession/websocket"
FREE_TEXT = ["kitchen", "a/b", "50%", "%2F", "ü {x}", "line\nbreak", "7 0 x", "x" * 256]


@dataclass
class Site:
    """A user with two homes, somebody else with a third, and a server that may do everything."""

    tenant: Tenant
    user: Account
    homes: list[int]
    foreign_home: int
    admin: str

    @property
    def path(self) -> str:
        return f"/projects/{self.tenant.project}/entities"

    async def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> Any:
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Authorization": key or self.admin}
        async with self.tenant.http.request(method, path, data=data, headers=headers) as answer:
            content = await answer.read()
            return Reply(answer.status, content, answer.headers.get(RANGE))

    async def made(self, entity_id: str, home: int | None = None, **more: Any) -> dict[str, Any]:
        body = {"entityId": entity_id, "entityClass": "room", "homeId": home or self.homes[0], **more}
        answer = await self.ask("POST", self.path, body)
        assert answer.status == 201, answer
        made: dict[str, Any] = answer.json
        return made


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    range: str | None

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def field(self) -> str:
        """What a refusal names."""
        assert self.status == 403, self
        return str(self.json["data"]["field"])


async def site_of(tenant: Tenant) -> Site:
    user, other = await tenant.user(), await tenant.user()
    permissions = ("admin", "send-event")
    admin = await tenant.project_key(*permissions)
    return Site(tenant, user, await tenant.homes(user, 2), await tenant.home(other), admin)


@pytest_asyncio.fixture
async def site(tenant: Tenant) -> AsyncIterator[Site]:
    yield await site_of(tenant)


async def test_entity_reads_back_as_it_was_made(site: Site) -> None:
    body = (
        f'{{"entityId": "kitchen", "entityClass": "room", "homeId": {site.homes[0]},'
        ' "timeZone": "Asia/Tokyo", "displaySettings": {"name": "Küche", "description": "cooking"},'
        ' "attributes": {"area": 12.50, "serial": 9007199254740993}}'
    ).encode()
    made = await site.ask("POST", site.path, body)
    assert made.status == 201
    assert b'"attributes":{"area": 12.50, "serial": 9007199254740993}' in made.body
    got = await site.ask("GET", f"{site.path}/kitchen")
    assert got.body == made.body
    shown = got.json
    assert shown.pop("createdAt") == shown.pop("updatedAt")
    assert shown.pop("attributes")["serial"] == 9007199254740993
    assert shown == {
        "entityId": "kitchen",
        "entityClass": "room",
        "homeId": site.homes[0],
        "projectId": site.tenant.project,
        "timeZone": "Asia/Tokyo",
        "displaySettings": {"name": "Küche", "description": "cooking"},
    }
    again = await site.ask("POST", site.path, body)
    assert (again.status, again.json["reason"]) == (403, "ENTITY_EXISTS")


async def test_ids_are_free_text(site: Site) -> None:
    for entity_id in FREE_TEXT:
        await site.made(entity_id)
    listed = await site.ask("GET", site.path)
    assert [each["entityId"] for each in listed.json] == sorted(FREE_TEXT, key=str.encode)
    for entity_id in FREE_TEXT:
        child = await site.made(f"child of {entity_id}"[:256], parentId=entity_id)
        assert child["parentId"] == entity_id
        assert (await site.tenant.store.entities.get(site.tenant.project, child["entityId"])) is not None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"entityId": ""}, "entityId"),
        ({"entityId": "ü" * 129}, "entityId"),
        ({"entityId": None}, "entityId"),
        ({"entityClass": " "}, "entityClass"),
        ({"homeId": 987654321}, "homeId"),
        ({"homeId": "x"}, "homeId"),
        ({"projectId": 1_000_000}, "projectId"),
        ({"parentId": "nobody"}, "parentId"),
        ({"parentId": "new"}, "parentId"),
        ({"parentId": "elsewhere"}, "parentId"),
        ({"timeZone": "Mars/Base"}, "timeZone"),
        ({"displaySettings": {}}, "name"),
        ({"displaySettings": {"name": ""}}, "displaySettings"),
        ({"attributes": [1]}, "attributes"),
        ({"attributes": {"x": "y" * 65_536}}, "attributes"),
    ],
)
async def test_bad_entities_are_refused_by_name(site: Site, changes: dict[str, Any], field: str) -> None:
    await site.made("elsewhere", site.homes[1])
    body = {"entityId": "new", "entityClass": "room", "homeId": site.homes[0], **changes}
    assert (await site.ask("POST", site.path, body)).field == field
    assert [each["entityId"] for each in (await site.ask("GET", site.path)).json] == ["elsewhere"]


async def test_lists_by_home_and_class_in_pages(site: Site) -> None:
    for number in range(6):
        home, kind = site.homes[number % 2], f"class{number % 3}"
        await site.made(f"e{number}", home, entityClass=kind)

    async def ids(query: str) -> tuple[list[str], str | None]:
        answer = await site.ask("GET", site.path + query)
        return [each["entityId"] for each in answer.json], answer.range

    assert await ids("") == (["e0", "e1", "e2", "e3", "e4", "e5"], "0-5/6")
    assert await ids("?skip=1&limit=2") == (["e1", "e2"], "1-2/6")
    assert await ids(f"?homeId={site.homes[0]}") == (["e0", "e2", "e4"], "0-2/3")
    assert await ids("?entityClasses=class0,class1") == (["e0", "e1", "e3", "e4"], "0-3/4")
    assert await ids("?entityClasses=class0&entityClasses=class2&skip=3") == (["e5"], "3-3/4")
    assert await ids(f"?homeId={site.homes[1]}&entityClasses=class1&limit=5") == (["e1"], "0-0/1")
    assert await ids("?homeId=987654321") == ([], "*/0")


async def test_whole_object_may_be_patched_back(site: Site) -> None:
    await site.made("floor")
    made = await site.made("room", parentId="floor", attributes={"a": 1}, timeZone="Asia/Tokyo")
    assert (await site.ask("PATCH", f"{site.path}/room", made)).status == 204
    changes: dict[str, Any] = {"entityClass": "hall", "parentId": None, "attributes": None, "timeZone": None}
    changes["displaySettings"] = {"name": "Hall"}
    assert (await site.ask("PATCH", f"{site.path}/room", changes)).status == 204
    got = (await site.ask("GET", f"{site.path}/room")).json
    assert got["updatedAt"] >= made["updatedAt"]
    assert {name: got[name] for name in ("entityClass", "displaySettings", "createdAt")} == {
        "entityClass": "hall",
        "displaySettings": {"name": "Hall"},
        "createdAt": made["createdAt"],
    }
    assert not got.keys() & {"parentId", "attributes", "timeZone"}
    others = {"homeId": site.homes[1], "entityId": "other", "projectId": 1, "createdAt": "x"}
    for field, value in others.items():
        assert (await site.ask("PATCH", f"{site.path}/room", {field: value})).field == field
    assert (await site.ask("PATCH", f"{site.path}/nobody", {"entityClass": "x"})).status == 404


async def test_parents_make_trees(site: Site) -> None:
    for name, parent in (("a", None), ("b", "a"), ("c", "b")):
        await site.made(name, parentId=parent)
    await site.made("far", site.homes[1])
    for parent in ("a", "b", "c", "far", "nobody"):
        answer = await site.ask("PATCH", f"{site.path}/a", {"parentId": parent})
        assert answer.field == "parentId", parent
    refused = await site.ask("DELETE", f"{site.path}/b")
    assert (refused.status, refused.json["reason"]) == (403, "ENTITY_HAS_CHILDREN")
    assert (await site.ask("PATCH", f"{site.path}/c", {"parentId": "a"})).status == 204
    for name, status in (("b", 204), ("b", 404), ("a", 403), ("c", 204), ("a", 204)):
        assert (await site.ask("DELETE", f"{site.path}/{name}")).status == status


async def test_home_has_a_bound_of_entities() -> None:
    with private_node(entities_per_home=2) as node:
        async with tenant_of(node) as tenant:
            site = await site_of(tenant)
            for name in ("a", "b"):
                await site.made(name)
            body = {"entityId": "c", "entityClass": "room", "homeId": site.homes[0]}
            refused = await site.ask("POST", site.path, body)
            assert (refused.status, refused.json["reason"]) == (403, "TOO_MANY_ENTITIES")
            await site.made("c", site.homes[1])


async def test_deleted_home_takes_its_entities_along(site: Site) -> None:
    tenant, home = site.tenant, site.homes[0]
    store, project, slot = tenant.store, tenant.project, tenant.slot
    for number in range(510):
        await tenant.entity(f"e{number}", home)
    await site.made("stays", site.homes[1])
    await store.homes.delete(project, home)
    assert [each["entityId"] for each in (await site.ask("GET", site.path)).json] == ["stays"]
    assert (
        await tenant.redis.hkeys(slot.entities) == await tenant.redis.hkeys(slot.entity_places) == [b"stays"]
    )
    assert await tenant.redis.zrange(slot.entity_ids, 0, -1) == [b"stays"]
    await site.made("e7", site.homes[1])


async def send(site: Site, home: int, entity: str | None, **headers: str) -> Reply:
    body = {"eventType": f"from {home}", **({"entityId": entity} if entity else {})}
    status, answer = await site.tenant.put(f"/homes/{home}/event", site.admin, body, **headers)
    return Reply(status, orjson.dumps(answer), None)


async def test_event_of_a_bound_entity_comes_from_its_home(site: Site) -> None:
    near, far = site.homes
    devices = {home: await site.tenant.device(home) for home in site.homes}
    assert (await send(site, far, "kitchen")).status == 204, "nobody bound it yet"
    await site.made("kitchen", near)
    assert (await send(site, near, "kitchen")).status == 204
    assert (await send(site, far, "kitchen")).field == "entityId"
    assert (await send(site, far, "unbound")).status == 204
    for home, status in ((near, 204), (far, 403)):
        device = devices[home]
        body = {"eventType": "x", "entityId": "kitchen"}
        assert (await site.tenant.put(f"/devices/{device.id}/event", device.key, body))[0] == status
    assert (await site.ask("DELETE", f"{site.path}/kitchen")).status == 204
    assert (await send(site, far, "kitchen")).status == 204


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("spelled", ["entityId", "entity\\u0049d"])
async def test_bulk_refuses_only_the_misplaced(site: Site, spelled: str, once: bool) -> None:
    near, far = site.homes
    await site.made("kitchen", near)
    device = await site.tenant.device(far)
    items = [
        f'{{"eventType": "0", "homeId": {near}, "entityId": "kitchen"}}',
        f'{{"eventType": "1", "homeId": {far}, "entityId": "kitchen"}}',
        f'{{"eventType": "2", "homeId": {far}, "entityId": "unbound"}}',
        '{"eventType": "3", "homeId": 987654321, "entityId": "kitchen"}',
        f'{{"eventType": "4", "deviceId": {device.id}, "entityId": "kitchen"}}',
        f'{{"eventType": "5", "homeId": {far}}}',
    ]
    body = ("[" + ",".join(items) + "]").replace("entityId", spelled).encode()
    headers = {"Authorization": site.admin, **({"Idempotency-Key": "one"} if once else {})}
    async with await listen(site.tenant.url, SOCKET, site.user.key) as socket:
        for _ in range(2 if once else 1):
            async with site.tenant.http.post("/events", data=body, headers=headers) as answer:
                results = (await answer.json())["results"]
            assert [each["status"] for each in results] == [204, 403, 204, 404, 403, 204]
            assert [results[at]["data"]["field"] for at in (1, 3, 4)] == ["entityId", "homeId", "entityId"]
        assert {await socket.receive_type() for _ in range(3)} == {"0", "2", "5"}
        assert await socket.is_alive()
        only = items[1].replace("entityId", spelled).encode()
        headers = {"Authorization": site.admin}
        async with site.tenant.http.post("/events", data=only, headers=headers) as answer:
            assert [each["status"] for each in (await answer.json())["results"]] == [403]
        assert await socket.is_alive()


async def test_filter_of_bound_entities_is_a_topic_of_their_home(node: NodeProcess, site: Site) -> None:
    many = await site.tenant.homes(site.user, 4)
    await site.made("kitchen", site.homes[1])
    await node.settles()
    await node.until("topics", 0)
    async with await listen(site.tenant.url, f"{SOCKET}?entityId=kitchen", site.user.key) as socket:
        await node.until("topics", 1)
        await send(site, site.homes[1], None)
        await send(site, site.homes[1], "kitchen")
        received = await socket.receive_json()
        assert (received["entityId"], received["homeId"]) == ("kitchen", site.homes[1])
        assert await socket.is_alive()
    # With one that nobody bound, in every home, as before.
    path = f"{SOCKET}?entityId=kitchen&entityId=unbound"
    async with await listen(site.tenant.url, path, site.user.key) as socket:
        await send(site, many[3], "unbound")
        assert (await socket.receive_json())["homeId"] == many[3]
        await send(site, site.homes[1], "kitchen")
        assert (await socket.receive_json())["homeId"] == site.homes[1]


async def test_entity_of_a_home_that_is_not_the_users_is_refused(site: Site) -> None:
    """Like such a home: no event can name it elsewhere. With it, or without it, others do not help."""
    tenant, home = site.tenant, site.foreign_home
    await site.made("vault", home)
    await site.made("kitchen")
    path = f"{SOCKET}?entityId=vault"
    as_home = await refusal(tenant.url, f"{SOCKET}?homeId={home}", site.user.key)
    for query in ("", "&entityId=kitchen", "&entityId=unbound"):
        answer = await refusal(tenant.url, path + query, site.user.key)
        assert (answer.status, answer.json()["data"]["field"]) == (404, "entityId")
        assert answer.body == as_home.body.replace(b"homeId", b"entityId")
    await tenant.store.homes.add_member(tenant.project, home, site.user.id)
    async with await listen(tenant.url, path, site.user.key) as socket:
        assert (await send(site, home, "vault")).status == 204
        assert (await socket.receive_json())["homeId"] == home
        await tenant.store.homes.remove_member(tenant.project, home, site.user.id)
        assert (await send(site, home, "vault")).status == 204
        assert await socket.is_alive()
    assert (await refusal(tenant.url, path, site.user.key)).status == 404


async def test_unregistered_entity_is_received_in_every_home_of_user(site: Site) -> None:
    """Events may name what nobody registered: it can be delivered, so it is not refused."""
    async with await listen(site.tenant.url, f"{SOCKET}?entityId=unbound", site.user.key) as socket:
        for home in (site.foreign_home, *site.homes):
            assert (await send(site, home, "unbound")).status == 204
        assert {(await socket.receive_json())["homeId"] for _ in site.homes} == set(site.homes)
        assert await socket.is_alive()


async def test_entity_of_a_deactivated_home_waits_for_it(site: Site) -> None:
    tenant, home = site.tenant, site.homes[0]
    await site.made("kitchen", home)
    switch = partial(site.ask, "PATCH", f"/homes/{home}")
    assert (await switch({"deactivated": True})).status == 204
    async with await listen(tenant.url, f"{SOCKET}?entityId=kitchen", site.user.key) as socket:
        assert await socket.is_alive()
        assert (await switch({"deactivated": False})).status == 204
        assert (await send(site, home, "kitchen")).status == 204
        assert (await socket.receive_json())["homeId"] == home


async def test_open_socket_receives_nothing_of_foreign_homes(site: Site) -> None:
    """Bound anew elsewhere: the socket is told to come again, and then refused."""
    await site.made("kitchen", site.homes[0])
    path = f"{SOCKET}?entityId=kitchen"
    async with await listen(site.tenant.url, path, site.user.key) as socket:
        assert (await site.ask("DELETE", f"{site.path}/kitchen")).status == 204
        await site.made("kitchen", site.foreign_home)
        assert (await send(site, site.foreign_home, "kitchen")).status == 204
        assert (await socket.receive()).close_code == 4004
    assert (await refusal(site.tenant.url, path, site.user.key)).status == 404
    assert (await send(site, site.homes[0], "kitchen")).field == "entityId"


@pytest.mark.parametrize("key", ["k%FCche", "%ff", "a%C3"])
async def test_path_that_is_not_utf_8_is_refused(site: Site, key: str) -> None:
    """Not taken for the name with the escape in it."""
    home = f"/homes/{site.homes[0]}/kv"
    for method, path, field in (
        ("PUT", f"{home}/{key}", "key"),
        ("GET", f"{home}?keyPrefix={key}", "keyPrefix"),
        ("GET", f"{site.path}/{key}", "entityId"),
    ):
        url = URL(path, encoded=True)
        headers = {"Authorization": site.admin if "entities" in path else site.user.key}
        body = orjson.dumps({"value": 1}) if method == "PUT" else None
        async with site.tenant.http.request(method, url, data=body, headers=headers) as answer:
            assert (answer.status, (await answer.json())["data"]["field"]) == (403, field)
    async with site.tenant.http.get(home, headers={"Authorization": site.user.key}) as answer:
        assert await answer.json() == []
