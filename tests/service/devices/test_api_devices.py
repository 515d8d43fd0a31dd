"""Devices of a home over HTTP: who sees what, lists in pages, whole objects back, and how devices leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from kit.client import listen
from kit.homes import HomeWithDevice, home_with_device
from kit.node import NodeProcess, eventually
from kit.tenant import Tenant, tenant_of

RANGE = "vnd.tinkermode.range"
LISTEN = "/userSession/websocket"
ABSENT = 987_654_321


@pytest_asyncio.fixture
async def at_home(tenant: Tenant) -> HomeWithDevice:
    return await home_with_device(tenant)


@pytest_asyncio.fixture
async def on_demand(node: NodeProcess) -> AsyncIterator[HomeWithDevice]:
    async with tenant_of(node, on_demand=True) as tenant:
        yield await home_with_device(tenant)


async def test_device_as_its_user_the_project_and_itself_see_it(at_home: HomeWithDevice) -> None:
    path = f"/devices/{at_home.device.id}"
    status, seen = await at_home.get(path, at_home.owner.key)
    assert status == 200
    assert seen == {
        "id": at_home.device.id,
        "projectId": at_home.tenant.project,
        "creationTime": seen["creationTime"],
        "name": "",
        "tag": "",
        "deviceClass": "sensor",
        "homeId": at_home.home,
        "isConnected": False,
    }
    stored = await at_home.tenant.store.devices.get(at_home.tenant.project, at_home.device.id)
    assert stored is not None
    for key in (at_home.device.key, at_home.reader):
        assert await at_home.get(path, key) == (200, {**seen, "claimCode": stored.claim_code})


async def test_invisible_device_is_answered_as_unknown(at_home: HomeWithDevice) -> None:
    other, free = await at_home.tenant.device(at_home.home), await at_home.tenant.device(None)
    unknown = await at_home.get(f"/devices/{ABSENT}", at_home.owner.key)
    assert unknown[0] == 404
    for key, device in (
        (at_home.stranger.key, at_home.device),
        (at_home.owner.key, free),
        (at_home.device.key, other),
    ):
        for method in ("GET",) if key == at_home.device.key else ("GET", "PATCH", "DELETE"):
            body = {"json": {"name": "mine"}} if method == "PATCH" else {}
            assert await at_home.call(method, f"/devices/{device.id}", key, **body) == unknown
    assert await at_home.get("/devices/lamp", at_home.owner.key) == unknown


async def test_keys_that_may_not(at_home: HomeWithDevice) -> None:
    path, sender = f"/devices/{at_home.device.id}", at_home.tenant.key
    for method, key, status in (
        ("GET", None, 401),
        ("GET", "garbage", 401),
        ("GET", sender, 403),
        ("PATCH", at_home.device.key, 403),
        ("PATCH", at_home.reader, 403),
        ("DELETE", at_home.device.key, 403),
        ("DELETE", None, 401),
    ):
        assert (await at_home.call(method, path, key, json={}))[0] == status, (method, key)
    for key, status in ((None, 401), (sender, 403), (at_home.device.key, 403)):
        assert (await at_home.get(f"/devices?homeId={at_home.home}", key))[0] == status


async def test_devices_of_a_home(at_home: HomeWithDevice) -> None:
    second, elsewhere = await at_home.tenant.device(at_home.home), await at_home.tenant.device(None)
    path = f"/devices?homeId={at_home.home}"
    status, listed = await at_home.get(path, at_home.owner.key)
    assert (status, [each["id"] for each in listed]) == (200, [at_home.device.id, second.id])
    assert listed[0] == (await at_home.get(f"/devices/{at_home.device.id}", at_home.owner.key))[1]
    status, listed = await at_home.get(path, at_home.reader)
    assert [each["id"] for each in listed] == [at_home.device.id, second.id]
    assert all(each["claimCode"] for each in listed)
    status, listed = await at_home.get(f"/devices?projectId={at_home.tenant.project}", at_home.reader)
    assert [each["id"] for each in listed] == [at_home.device.id, second.id, elsewhere.id]


async def test_lists_that_are_refused(at_home: HomeWithDevice) -> None:
    refused = await at_home.get(f"/devices?homeId={at_home.home}", at_home.stranger.key)
    assert refused[0] == 403
    assert refused[1]["data"]["field"] == "homeId"
    assert await at_home.get(f"/devices?homeId={ABSENT}", at_home.owner.key) == refused
    for query, key, field in (
        ("", at_home.owner.key, "homeId"),
        ("", at_home.reader, "homeId"),
        (f"projectId={at_home.tenant.project}", at_home.owner.key, "homeId"),
        (f"projectId={ABSENT}", at_home.reader, "projectId"),
        ("homeId=lamp", at_home.owner.key, "homeId"),
        (f"homeId={at_home.home}&skip=-1", at_home.owner.key, "skip"),
    ):
        status, answer = await at_home.get(f"/devices?{query}", key)
        assert (status, answer["data"]["field"]) == (403, field), query


async def test_long_list_in_pages_and_whole(at_home: HomeWithDevice) -> None:
    gate = asyncio.Semaphore(24)

    async def add() -> int:
        async with gate:
            return (await at_home.tenant.device(at_home.home)).id

    ids = sorted([at_home.device.id, *await asyncio.gather(*(add() for _ in range(2_499)))])
    path, headers = f"/devices?homeId={at_home.home}", {"Authorization": at_home.owner.key}
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
        async with at_home.tenant.http.get(path + query, headers=headers) as answer:
            assert answer.status == 200
            assert [each["id"] for each in await answer.json()] == expected, query
            assert answer.headers[RANGE] == described


async def test_whole_device_is_patched_back(at_home: HomeWithDevice) -> None:
    path = f"/devices/{at_home.device.id}"
    _, device = await at_home.get(path, at_home.owner.key)
    changed = {**device, "name": "Lämp", "tag": "kitchen", "isConnected": True, "unknown": 1}
    changed["creationTime"] = device["creationTime"].replace("Z", "+00:00")
    assert await at_home.call("PATCH", path, at_home.owner.key, json=changed) == (204, None)
    assert (await at_home.get(path, at_home.owner.key))[1] == {**device, "name": "Lämp", "tag": "kitchen"}
    assert await at_home.call("PATCH", path, at_home.owner.key, json={"tag": ""}) == (204, None)
    assert (await at_home.get(path, at_home.owner.key))[1] == {**device, "name": "Lämp", "tag": ""}
    itself = (await at_home.get(path, at_home.device.key))[1]
    for body in ({}, {"apiKey": at_home.device.key}, itself, {"claimTime": None}):
        assert await at_home.call("PATCH", path, at_home.owner.key, json=body) == (204, None), body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("id", 1), ("projectId", 1), ("homeId", 1), ("homeId", None), ("deviceClass", "lamp")),
        *(("creationTime", "2001-01-01T00:00:00.000Z"), ("claimTime", "2001-01-01T00:00:00Z")),
        *(("claimCode", "ABCDEFGHJKLM"), ("apiKey", "v1.1.x"), ("name", 7), ("name", None)),
        *(("tag", "x" * 257), ("name", "x" * 257)),
    ],
)
async def test_other_changes_are_refused_by_name(at_home: HomeWithDevice, field: str, value: Any) -> None:
    path = f"/devices/{at_home.device.id}"
    before = await at_home.get(path, at_home.owner.key)
    body = {"tag": "not this either", field: value}
    status, answer = await at_home.call("PATCH", path, at_home.owner.key, json=body)
    assert (status, answer["data"]["field"]) == (403, field)
    assert await at_home.get(path, at_home.owner.key) == before


async def fill(at_home: HomeWithDevice, device: int) -> Any:
    """Give the device something that it has only in this home."""
    slot = at_home.tenant.slot
    await at_home.tenant.redis.hset(slot.values("device", device), "k", "{}")
    await at_home.tenant.redis.zadd(slot.value_keys("device", device), {"k": 0})
    await at_home.tenant.store.devices._database.write(
        "HSET", slot.device(device), "name", "mine", "tag", "t"
    )
    return slot


async def test_pre_provisioned_device_comes_back_unclaimed(at_home: HomeWithDevice) -> None:
    device, path = at_home.device, f"/devices/{at_home.device.id}"
    slot = await fill(at_home, device.id)
    async with (
        await listen(at_home.tenant.url, f"{path}/command", device.key) as commands,
        await listen(
            at_home.tenant.url, f"/userSession/websocket?deviceId={device.id}", at_home.owner.key
        ) as ear,
    ):
        assert await at_home.call("DELETE", path, at_home.owner.key, json={}) == (204, None)
        assert (await ear.receive()).close_code == 4004
        assert await commands.is_alive()
    assert (await at_home.get(path, at_home.owner.key))[0] == 404
    assert (await at_home.get(f"/devices?homeId={at_home.home}", at_home.owner.key)) == (200, [])
    status, itself = await at_home.get(path, device.key)
    assert status == 200
    assert itself.keys().isdisjoint({"homeId", "claimTime", "claimExpirationTime"})
    assert (itself["name"], itself["tag"], len(itself["claimCode"])) == ("", "t", 12)
    assert await at_home.tenant.redis.exists(*slot.device_belongings(device.id)) == 0
    assert (await at_home.call("DELETE", path, at_home.owner.key))[0] == 404


async def test_device_on_demand_is_deleted_wholly(on_demand: HomeWithDevice) -> None:
    at_home, device, path = on_demand, on_demand.device, f"/devices/{on_demand.device.id}"
    slot = await fill(at_home, device.id)
    async with await listen(at_home.tenant.url, f"{path}/command", device.key) as commands:
        assert await at_home.call("DELETE", path, at_home.owner.key) == (204, None)
        assert (await commands.receive()).close_code == 4501

    async def dead() -> bool:
        return (await at_home.get(path, device.key))[0] == 401

    await eventually(dead)
    assert (await at_home.get(path, at_home.reader))[0] == 404
    assert (await at_home.get(f"/devices?homeId={at_home.home}", at_home.owner.key)) == (200, [])
    assert [name async for name in at_home.tenant.redis.scan_iter(slot.device(device.id) + "*")] == []
    assert [name async for name in at_home.tenant.redis.scan_iter(slot.key("*"))] != []
    left: Any = await at_home.tenant.redis.hgetall(slot.device_places)
    assert b"%d" % device.id not in left
    assert await at_home.tenant.redis.hlen(slot.claim_codes) == 0


async def test_of_a_deleted_home_pre_provisioned_devices_can_be_claimed_again(
    at_home: HomeWithDevice,
) -> None:
    store, project = at_home.tenant.store, at_home.tenant.project
    slot = await fill(at_home, at_home.device.id)
    await store.homes.delete(project, at_home.home)
    itself = (await at_home.get(f"/devices/{at_home.device.id}", at_home.device.key))[1]
    assert (itself["name"], itself.get("homeId")) == ("", None)
    assert await at_home.tenant.redis.exists(*slot.device_belongings(at_home.device.id)) == 0
    await store.devices.set_claimable(project, at_home.device.id, store.now_ms() + 60_000)
    home = await at_home.tenant.home(at_home.stranger)
    claimed = await store.devices.claim(project, itself["claimCode"], home, at_home.stranger.id)
    assert claimed == at_home.device.id


async def test_of_a_deleted_home_devices_on_demand_are_dead_with_their_keys(
    on_demand: HomeWithDevice,
) -> None:
    at_home, store, project = on_demand, on_demand.tenant.store, on_demand.tenant.project
    devices = [at_home.device, *[await at_home.tenant.device(at_home.home) for _ in range(170)]]
    moved, kept = devices[3], await at_home.tenant.device(await at_home.tenant.home(at_home.owner))
    other = await at_home.tenant.home(at_home.owner)
    await store.devices.move(project, moved.id, other)
    assert {(await at_home.get(f"/devices/{each.id}", each.key))[0] for each in devices[:5]} == {200}
    await store.homes.delete(project, at_home.home)
    for each in devices:
        alive = await store.principals.lookup(each.key) is not None
        assert alive == (each is moved)
    # Also on a node that remembered them.

    async def refused() -> bool:
        statuses = {(await at_home.get(f"/devices/{each.id}", each.key))[0] for each in devices[:3]}
        return statuses == {401}

    await eventually(refused)
    assert (await at_home.get(f"/devices/{kept.id}", kept.key))[0] == 200
    listed = (await at_home.get(f"/devices?projectId={project}", at_home.reader))[1]
    assert [each["id"] for each in listed] == [moved.id, kept.id]


async def test_device_moved_by_operator_loses_name_and_values(at_home: HomeWithDevice) -> None:
    slot, store = await fill(at_home, at_home.device.id), at_home.tenant.store
    other = await at_home.tenant.home(at_home.stranger)
    await store.devices.move(at_home.tenant.project, at_home.device.id, other)
    seen = (await at_home.get(f"/devices/{at_home.device.id}", at_home.stranger.key))[1]
    assert (seen["name"], seen["tag"], seen["homeId"]) == ("", "t", other)
    assert await at_home.tenant.redis.exists(*slot.device_belongings(at_home.device.id)) == 0
