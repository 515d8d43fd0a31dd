"""Devices of a home over HTTP: who sees what, lists in pages, whole objects back, and how devices leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from homewire.store.keys import ProjectSlot
from kit.client import listen
from kit.home_with_devices import House, house_of
from kit.node import NodeProcess, eventually
from kit.tenant import Tenant, tenant_of

RANGE = "vnd.tinkermode.range"
LISTEN = "/userSession/websocket"
ABSENT = 987_654_321


@pytest_asyncio.fixture
async def house(tenant: Tenant) -> House:
    return await house_of(tenant)


@pytest_asyncio.fixture
async def on_demand(node: NodeProcess) -> AsyncIterator[House]:
    async with tenant_of(node, on_demand=True) as tenant:
        yield await house_of(tenant)


async def test_a_device_as_its_user_the_project_and_itself_see_it(house: House) -> None:
    path = f"/devices/{house.device.id}"
    status, seen = await house.get(path, house.owner.key)
    assert status == 200
    assert seen == {
        "id": house.device.id,
        "projectId": house.tenant.project,
        "creationTime": seen["creationTime"],
        "name": "",
        "tag": "",
        "deviceClass": "sensor",
        "homeId": house.home,
        "isConnected": False,
    }
    stored = await house.tenant.store.devices.get(house.tenant.project, house.device.id)
    assert stored is not None
    for key in (house.device.key, house.reader):
        assert await house.get(path, key) == (200, {**seen, "claimCode": stored.claim_code})


async def test_what_somebody_cannot_see_is_what_does_not_exist(house: House) -> None:
    other, free = await house.tenant.device(house.home), await house.tenant.device(None)
    unknown = await house.get(f"/devices/{ABSENT}", house.owner.key)
    assert unknown[0] == 404
    for key, device in (
        (house.stranger.key, house.device),
        (house.owner.key, free),
        (house.device.key, other),
    ):
        for method in ("GET",) if key == house.device.key else ("GET", "PATCH", "DELETE"):
            body = {"json": {"name": "mine"}} if method == "PATCH" else {}
            assert await house.call(method, f"/devices/{device.id}", key, **body) == unknown
    assert await house.get("/devices/lamp", house.owner.key) == unknown


async def test_keys_that_may_not(house: House) -> None:
    path, sender = f"/devices/{house.device.id}", house.tenant.key
    for method, key, status in (
        ("GET", None, 401),
        ("GET", "garbage", 401),
        ("GET", sender, 403),
        ("PATCH", house.device.key, 403),
        ("PATCH", house.reader, 403),
        ("DELETE", house.device.key, 403),
        ("DELETE", None, 401),
    ):
        assert (await house.call(method, path, key, json={}))[0] == status, (method, key)
    for key, status in ((None, 401), (sender, 403), (house.device.key, 403)):
        assert (await house.get(f"/devices?homeId={house.home}", key))[0] == status


async def test_the_devices_of_a_home(house: House) -> None:
    second, elsewhere = await house.tenant.device(house.home), await house.tenant.device(None)
    path = f"/devices?homeId={house.home}"
    status, listed = await house.get(path, house.owner.key)
    assert (status, [each["id"] for each in listed]) == (200, [house.device.id, second.id])
    assert listed[0] == (await house.get(f"/devices/{house.device.id}", house.owner.key))[1]
    status, listed = await house.get(path, house.reader)
    assert [each["id"] for each in listed] == [house.device.id, second.id]
    assert all(each["claimCode"] for each in listed)
    status, listed = await house.get(f"/devices?projectId={house.tenant.project}", house.reader)
    assert [each["id"] for each in listed] == [house.device.id, second.id, elsewhere.id]


async def test_lists_that_are_refused(house: House) -> None:
    refused = await house.get(f"/devices?homeId={house.home}", house.stranger.key)
    assert refused[0] == 403
    assert refused[1]["data"]["field"] == "homeId"
    assert await house.get(f"/devices?homeId={ABSENT}", house.owner.key) == refused
    for query, key, field in (
        ("", house.owner.key, "homeId"),
        ("", house.reader, "homeId"),
        (f"projectId={house.tenant.project}", house.owner.key, "homeId"),
        (f"projectId={ABSENT}", house.reader, "projectId"),
        ("homeId=lamp", house.owner.key, "homeId"),
        (f"homeId={house.home}&skip=-1", house.owner.key, "skip"),
    ):
        status, answer = await house.get(f"/devices?{query}", key)
        assert (status, answer["data"]["field"]) == (403, field), query


async def test_a_long_list_in_pages_and_whole(house: House) -> None:
    gate = asyncio.Semaphore(24)

    async def add() -> int:
        async with gate:
            return (await house.tenant.device(house.home)).id

    ids = sorted([house.device.id, *await asyncio.gather(*(add() for _ in range(2_499)))])
    path, headers = f"/devices?homeId={house.home}", {"Authorization": house.owner.key}
    for query, expected, described in (
        ("", ids, "0-2499/2500"),
        ("&skip=0&limit=10", ids[:10], "0-9/2500"),
        ("&skip=1990&limit=20", ids[1990:2010], "1990-2009/2500"),
        ("&skip=2495&limit=100", ids[2495:], "2495-2499/2500"),
        ("&limit=3", ids[:3], "0-2/2500"),
        ("&skip=2400", ids[2400:], "2400-2499/2500"),
        ("&skip=2500&limit=10", [], "*/2500"),
        ("&limit=0", [], "*/2500"),
    ):
        async with house.tenant.http.get(path + query, headers=headers) as answer:
            assert answer.status == 200
            assert [each["id"] for each in await answer.json()] == expected, query
            assert answer.headers[RANGE] == described


async def test_a_whole_device_is_patched_back(house: House) -> None:
    path = f"/devices/{house.device.id}"
    _, device = await house.get(path, house.owner.key)
    changed = {**device, "name": "Lämp", "tag": "kitchen", "isConnected": True, "unknown": 1}
    changed["creationTime"] = device["creationTime"].replace("Z", "+00:00")
    assert await house.call("PATCH", path, house.owner.key, json=changed) == (204, None)
    assert (await house.get(path, house.owner.key))[1] == {**device, "name": "Lämp", "tag": "kitchen"}
    assert await house.call("PATCH", path, house.owner.key, json={"tag": ""}) == (204, None)
    assert (await house.get(path, house.owner.key))[1] == {**device, "name": "Lämp", "tag": ""}
    itself = (await house.get(path, house.device.key))[1]
    for body in ({}, {"apiKey": house.device.key}, itself, {"claimTime": None}):
        assert await house.call("PATCH", path, house.owner.key, json=body) == (204, None), body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("id", 1), ("projectId", 1), ("homeId", 1), ("homeId", None), ("deviceClass", "lamp")),
        *(("creationTime", "2001-01-01T00:00:00.000Z"), ("claimTime", "2001-01-01T00:00:00Z")),
        *(("claimCode", "ABCDEFGHJKLM"), ("apiKey", "v1.1.x"), ("name", 7), ("name", None)),
        *(("tag", "x" * 257), ("name", "x" * 257)),
    ],
)
async def test_other_changes_are_refused_by_name(house: House, field: str, value: Any) -> None:
    path = f"/devices/{house.device.id}"
    before = await house.get(path, house.owner.key)
    body = {"tag": "not this either", field: value}
    status, answer = await house.call("PATCH", path, house.owner.key, json=body)
    assert (status, answer["data"]["field"]) == (403, field)
    assert await house.get(path, house.owner.key) == before


async def fill(house: House, device: int) -> ProjectSlot:
    """Give the device something that it has only in this home."""
    slot = ProjectSlot(house.tenant.project)
    await house.tenant.redis.hset(slot.values("device", device), "k", "{}")
    await house.tenant.redis.zadd(slot.value_keys("device", device), {"k": 0})
    await house.tenant.store.devices._database.write("HSET", slot.device(device), "name", "mine", "tag", "t")
    return slot


async def test_a_pre_provisioned_device_comes_back_unclaimed(house: House) -> None:
    device, path = house.device, f"/devices/{house.device.id}"
    slot = await fill(house, device.id)
    async with (
        await listen(house.tenant.url, f"{path}/command", device.key) as commands,
        await listen(
            house.tenant.url, f"/userSession/websocket?deviceId={device.id}", house.owner.key
        ) as ear,
    ):
        assert await house.call("DELETE", path, house.owner.key, json={}) == (204, None)
        assert (await ear.receive()).close_code == 4004
        assert await commands.is_alive()
    assert (await house.get(path, house.owner.key))[0] == 404
    assert (await house.get(f"/devices?homeId={house.home}", house.owner.key)) == (200, [])
    status, itself = await house.get(path, device.key)
    assert status == 200
    assert itself.keys().isdisjoint({"homeId", "claimTime", "claimExpirationTime"})
    assert (itself["name"], itself["tag"], len(itself["claimCode"])) == ("", "t", 12)
    assert await house.tenant.redis.exists(*slot.device_belongings(device.id)) == 0
    assert (await house.call("DELETE", path, house.owner.key))[0] == 404


async def test_a_device_on_demand_is_deleted_wholly(on_demand: House) -> None:
    house, device, path = on_demand, on_demand.device, f"/devices/{on_demand.device.id}"
    slot = await fill(house, device.id)
    async with await listen(house.tenant.url, f"{path}/command", device.key) as commands:
        assert await house.call("DELETE", path, house.owner.key) == (204, None)
        assert (await commands.receive()).close_code == 4501

    async def dead() -> bool:
        return (await house.get(path, device.key))[0] == 401

    await eventually(dead)
    assert (await house.get(path, house.reader))[0] == 404
    assert (await house.get(f"/devices?homeId={house.home}", house.owner.key)) == (200, [])
    assert [name async for name in house.tenant.redis.scan_iter(slot.device(device.id) + "*")] == []
    assert [name async for name in house.tenant.redis.scan_iter(slot.key("*"))] != []
    left: Any = await house.tenant.redis.hgetall(slot.device_places)
    assert b"%d" % device.id not in left
    assert await house.tenant.redis.hlen(slot.claim_codes) == 0


async def test_of_a_deleted_home_pre_provisioned_devices_can_be_claimed_again(house: House) -> None:
    store, project = house.tenant.store, house.tenant.project
    slot = await fill(house, house.device.id)
    await store.homes.delete(project, house.home)
    itself = (await house.get(f"/devices/{house.device.id}", house.device.key))[1]
    assert (itself["name"], itself.get("homeId")) == ("", None)
    assert await house.tenant.redis.exists(*slot.device_belongings(house.device.id)) == 0
    await store.devices.set_claimable(project, house.device.id, store.now_ms() + 60_000)
    home = await house.tenant.home(house.stranger)
    claimed = await store.devices.claim(project, itself["claimCode"], home, house.stranger.id)
    assert claimed == house.device.id


async def test_of_a_deleted_home_devices_on_demand_are_dead_with_their_keys(on_demand: House) -> None:
    house, store, project = on_demand, on_demand.tenant.store, on_demand.tenant.project
    devices = [house.device, *[await house.tenant.device(house.home) for _ in range(170)]]
    moved, kept = devices[3], await house.tenant.device(await house.tenant.home(house.owner))
    other = await house.tenant.home(house.owner)
    await store.devices.move(project, moved.id, other)
    assert {(await house.get(f"/devices/{each.id}", each.key))[0] for each in devices[:5]} == {200}
    await store.homes.delete(project, house.home)
    for each in devices:
        alive = await store.principals.lookup(each.key) is not None
        assert alive == (each is moved)
    # Also on a node that remembered them.

    async def refused() -> bool:
        statuses = {(await house.get(f"/devices/{each.id}", each.key))[0] for each in devices[:3]}
        return statuses == {401}

    await eventually(refused)
    assert (await house.get(f"/devices/{kept.id}", kept.key))[0] == 200
    listed = (await house.get(f"/devices?projectId={project}", house.reader))[1]
    assert [each["id"] for each in listed] == [moved.id, kept.id]


async def test_what_an_operator_moves_leaves_its_name_and_values_behind(house: House) -> None:
    slot, store = await fill(house, house.device.id), house.tenant.store
    other = await house.tenant.home(house.stranger)
    await store.devices.move(house.tenant.project, house.device.id, other)
    seen = (await house.get(f"/devices/{house.device.id}", house.stranger.key))[1]
    assert (seen["name"], seen["tag"], seen["homeId"]) == ("", "t", other)
    assert await house.tenant.redis.exists(*slot.device_belongings(house.device.id)) == 0
