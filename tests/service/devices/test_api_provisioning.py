"""How devices get into homes over HTTP: claims, provisioning tokens, and the other form refused."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kit.client import listen
from kit.homes import HomeWithDevice, home_with_device
from kit.node import NodeProcess, eventually
from kit.tenant import Account, Tenant, tenant_of

WHOLE_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
LISTEN = "/userSession/websocket"


def urlencoded(fields: dict[str, Any]) -> dict[str, Any]:
    return {"data": {name: str(value) for name, value in fields.items()}}


def multipart(fields: dict[str, Any]) -> dict[str, Any]:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, str(value))
    return {"data": form}


def as_json(fields: dict[str, Any]) -> dict[str, Any]:
    return {"json": fields}


STYLES = pytest.mark.parametrize("style", [urlencoded, multipart, as_json])


@pytest_asyncio.fixture
async def at_home(tenant: Tenant) -> HomeWithDevice:
    """In a project with pre-provisioned devices."""
    return await home_with_device(tenant)


@pytest_asyncio.fixture
async def on_demand(node: NodeProcess) -> AsyncIterator[HomeWithDevice]:
    async with tenant_of(node, on_demand=True) as tenant:
        yield await home_with_device(tenant)


async def unclaimed(at_home: HomeWithDevice, seconds: int | None = 60) -> tuple[Account, str]:
    """A device that lets itself be claimed for so long (None: not at all), and its code."""
    device, key, code = await at_home.tenant.store.devices.create(at_home.tenant.project, "lamp")
    if seconds is not None:
        body = {"deviceId": device.id, "claimable": True, "duration": seconds}
        assert (await at_home.call("POST", "/deviceRegistration", key, json=body))[0] == 200
    return Account(device.id, key), code


def is_later(timestamp: str, before: datetime, seconds: int) -> bool:
    """Whether a time, in whole seconds, is `seconds` after a moment between `before` and now."""
    since = datetime.fromisoformat(timestamp) - timedelta(seconds=seconds)
    return before - timedelta(seconds=1) < since <= datetime.now(UTC)


@STYLES
async def test_claimed_device_is_in_the_home(at_home: HomeWithDevice, style: Any) -> None:
    device, code = await unclaimed(at_home)
    before = (await at_home.get(f"/devices/{device.id}", device.key))[1]
    assert WHOLE_SECONDS.fullmatch(before["claimExpirationTime"])
    body = style({"homeId": at_home.home, "claimCode": code.lower()})
    status, claimed = await at_home.call("POST", "/devices", at_home.owner.key, **body)
    assert status == 201
    assert WHOLE_SECONDS.fullmatch(claimed["claimTime"])
    assert (claimed["id"], claimed["homeId"], claimed["deviceClass"]) == (device.id, at_home.home, "lamp")
    assert claimed.keys().isdisjoint({"apiKey", "claimCode", "claimExpirationTime"})
    assert await at_home.get(f"/devices/{device.id}", at_home.owner.key) == (200, claimed)
    assert (await at_home.get(f"/devices?homeId={at_home.home}", at_home.owner.key))[1][-1] == claimed
    patched = await at_home.call("PATCH", f"/devices/{device.id}", at_home.owner.key, json=claimed)
    assert patched == (204, None)


async def test_events_of_claimed_device_are_received_in_its_home(at_home: HomeWithDevice) -> None:
    device, code = await unclaimed(at_home)
    event, path = {"eventType": "lit"}, f"/devices/{device.id}/event"
    async with await listen(at_home.tenant.url, f"{LISTEN}?homeId={at_home.home}", at_home.owner.key) as ear:
        # In no home it has nobody to tell; this node remembers that now.
        assert (await at_home.call("PUT", path, device.key, json=event))[0] == 403
        body = {"homeId": at_home.home, "claimCode": code}
        assert (await at_home.call("POST", "/devices", at_home.owner.key, json=body))[0] == 201
        # Whatever this node remembers: who claimed it is not refused.
        patch = {"json": {"name": "mine"}}
        assert (await at_home.call("PATCH", f"/devices/{device.id}", at_home.owner.key, **patch))[0] == 204

        async def accepted() -> bool:
            return (await at_home.call("PUT", path, device.key, json=event))[0] == 204

        await eventually(accepted)
        received = await ear.receive_json()
        assert (received["eventType"], received["originDeviceId"], received["homeId"]) == (
            "lit",
            device.id,
            at_home.home,
        )
        # And when it has left, nobody there receives it.
        assert (await at_home.call("DELETE", f"/devices/{device.id}", at_home.owner.key))[0] == 204

        async def refused() -> bool:
            return (await at_home.call("PUT", path, device.key, json=event))[0] == 403

        await eventually(refused)


async def test_failed_claims_reveal_no_device(at_home: HomeWithDevice) -> None:
    silent = (await unclaimed(at_home, None))[1]
    (over, expired) = await unclaimed(at_home, 1)
    ended, code_of_ended = await unclaimed(at_home)
    body = {"deviceId": ended.id, "claimable": False}
    assert (await at_home.call("POST", "/deviceRegistration", ended.key, json=body))[0] == 200

    async def is_over() -> bool:
        return "claimExpirationTime" not in (await at_home.get(f"/devices/{over.id}", over.key))[1]

    await eventually(is_over)

    async def claim(code: str, home: int, key: str) -> tuple[int, Any]:
        return await at_home.call("POST", "/devices", key, data={"homeId": str(home), "claimCode": code})

    refused = await claim("ABCDEFGHJKLM", at_home.home, at_home.owner.key)
    assert (refused[0], refused[1]["reason"]) == (403, "DEVICE_NOT_CLAIMABLE")
    for code in (silent, expired, code_of_ended, "x" * 200, "ä"):
        assert await claim(code, at_home.home, at_home.owner.key) == refused
    # Who is no member of the home learns nothing of the code.
    good = (await unclaimed(at_home))[1]
    for code in (good, silent):
        for home in (at_home.home, 987_654_321):
            status, answer = await claim(code, home, at_home.stranger.key)
            assert (status, answer["data"]["field"]) == (403, "homeId")
    assert (await claim(good, at_home.home, at_home.owner.key))[0] == 201
    neighbours = await at_home.tenant.home(at_home.stranger)
    for home, key in ((at_home.home, at_home.owner.key), (neighbours, at_home.stranger.key)):
        status, answer = await claim(good, home, key)
        assert (status, answer["reason"]) == (403, "DEVICE_ALREADY_IN_HOME")


async def test_of_many_claims_at_once_one_wins(at_home: HomeWithDevice) -> None:
    device, code = await unclaimed(at_home)
    rivals = [await at_home.tenant.user() for _ in range(12)]
    homes = [await at_home.tenant.home(rival) for rival in rivals]
    answers = await asyncio.gather(
        *(
            at_home.call("POST", "/devices", rival.key, json={"homeId": home, "claimCode": code})
            for rival, home in zip(rivals, homes, strict=True)
        )
    )
    assert Counter(status for status, _ in answers) == {201: 1, 403: 11}
    [winner] = [answer["homeId"] for status, answer in answers if status == 201]
    assert {answer["reason"] for status, answer in answers if status == 403} == {"DEVICE_ALREADY_IN_HOME"}
    assert (await at_home.get(f"/devices/{device.id}", device.key))[1]["homeId"] == winner
    for rival, home in zip(rivals, homes, strict=True):
        listed = (await at_home.get(f"/devices?homeId={home}", rival.key))[1]
        assert [each["id"] for each in listed] == ([device.id] if home == winner else [])


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"claimable": "1"}, 3_600),
        ({"claimable": "true", "duration": "1"}, 1),
        ({"claimable": "TRUE", "duration": "86400"}, 86_400),
        ({"claimable": "0", "duration": "60"}, 0),
        ({"claimable": "false"}, 0),
    ],
)
@STYLES
async def test_how_long_a_device_can_be_claimed(
    at_home: HomeWithDevice, style: Any, fields: dict[str, str], seconds: int
) -> None:
    device, _ = await unclaimed(at_home)
    body, before = style({"deviceId": device.id, **fields}), datetime.now(UTC)
    status, answer = await at_home.call("POST", "/deviceRegistration", device.key, **body)
    assert status == 200
    assert WHOLE_SECONDS.fullmatch(answer.pop("claimExpirationTime"))
    assert answer == {}
    shown = (await at_home.get(f"/devices/{device.id}", device.key))[1].get("claimExpirationTime")
    if seconds == 0:
        assert shown is None
    elif seconds > 1:
        assert is_later(shown, before, seconds)


async def test_registrations_in_json_take_real_values_and_answer_when_it_ended(
    at_home: HomeWithDevice,
) -> None:
    device, _ = await unclaimed(at_home)
    for claimable, seconds in ((True, 3_600), (1, 3_600), (False, 0), (0, 0)):
        body, before = {"deviceId": device.id, "claimable": claimable, "duration": None}, datetime.now(UTC)
        status, answer = await at_home.call("POST", "/deviceRegistration", device.key, json=body)
        assert status == 200
        assert is_later(answer["claimExpirationTime"], before, seconds)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        *(
            ({"duration": "0"}, "duration"),
            ({"duration": "86401"}, "duration"),
            ({"duration": "x"}, "duration"),
        ),
        *(({"claimable": "maybe"}, "claimable"), ({"claimable": ""}, "claimable")),
        *(({"deviceId": "1"}, "deviceId"), ({"deviceId": "x"}, "deviceId")),
    ],
)
async def test_registrations_that_are_refused(
    at_home: HomeWithDevice, fields: dict[str, str], field: str
) -> None:
    device, _ = await unclaimed(at_home, None)
    body = {"deviceId": str(device.id), "claimable": "1", **fields}
    status, answer = await at_home.call("POST", "/deviceRegistration", device.key, data=body)
    assert (status, answer["data"]["field"]) == (403, field)
    assert "claimExpirationTime" not in (await at_home.get(f"/devices/{device.id}", device.key))[1]


async def token_of(at_home: HomeWithDevice, **fields: str) -> str:
    path, body = f"/homes/{at_home.home}/deviceProvisioning", {"deviceClass": "lamp", **fields}
    before = datetime.now(UTC)
    status, answer = await at_home.call("POST", path, at_home.owner.key, data=body)
    assert (status, answer.keys()) == (200, {"token", "expirationTime"})
    assert is_later(answer["expirationTime"], before, 3_600)
    return str(answer["token"])


@STYLES
async def test_device_makes_itself_known_by_its_token(on_demand: HomeWithDevice, style: Any) -> None:
    token = await token_of(on_demand, deviceTag="kitchen")
    status, made = await on_demand.call("POST", "/devices", None, **style({"token": token}))
    assert status == 201
    key = made.pop("apiKey")
    assert made.keys().isdisjoint({"claimCode", "claimTime"})
    assert (made["deviceClass"], made["tag"], made["homeId"]) == ("lamp", "kitchen", on_demand.home)
    for caller in (key, on_demand.owner.key):
        assert await on_demand.get(f"/devices/{made['id']}", caller) == (200, made)
    async with await listen(on_demand.tenant.url, LISTEN, on_demand.owner.key) as ear:
        event = await on_demand.call("PUT", f"/devices/{made['id']}/event", key, json={"eventType": "lit"})
        assert event[0] == 204
        assert (await ear.receive_json())["originDeviceId"] == made["id"]
    status, answer = await on_demand.call("POST", "/devices", None, **style({"token": token}))
    assert (status, answer["reason"]) == (403, "INVALID_TOKEN")


async def test_app_brings_the_token_for_its_device(on_demand: HomeWithDevice) -> None:
    token, home = await token_of(on_demand), on_demand.home
    right = {"homeId": home, "deviceClass": "lamp", "token": token}
    for wrong, field in (
        ({**right, "homeId": await on_demand.tenant.home(on_demand.owner)}, "homeId"),
        ({**right, "deviceClass": "oven"}, "deviceClass"),
    ):
        for key in (on_demand.owner.key, None):
            status, answer = await on_demand.call("POST", "/devices", key, json=wrong)
            assert (status, answer["data"]["field"]) == (403, field)
    status, answer = await on_demand.call("POST", "/devices", on_demand.stranger.key, json=right)
    assert (status, answer["data"]["field"]) == (403, "homeId")
    # None of these used it up.
    status, made = await on_demand.call("POST", "/devices", on_demand.owner.key, json=right)
    assert (status, made["homeId"], "apiKey" in made) == (201, home, True)


async def test_tokens_that_are_no_good(on_demand: HomeWithDevice, node: NodeProcess) -> None:
    store, project, home = on_demand.tenant.store, on_demand.tenant.project, on_demand.home
    begin = store.provisioning.begin
    expired, _ = await begin(project, home, on_demand.owner.id, "lamp", lifetime_ms=1)
    guest = await on_demand.tenant.user()
    await store.homes.add_member(project, home, guest.id)
    of_a_guest, _ = await begin(project, home, guest.id, "lamp")
    await store.homes.remove_member(project, home, guest.id)
    gone = await on_demand.tenant.home(on_demand.owner)
    of_no_home, _ = await begin(project, gone, on_demand.owner.id, "lamp")
    await store.homes.delete(project, gone)
    bad = (expired, of_a_guest, of_no_home, f"v1.{project}.{'x' * 43}", "x", on_demand.device.key)
    for token in bad:
        for key in (None, on_demand.owner.key):
            status, answer = await on_demand.call("POST", "/devices", key, data={"token": token})
            assert (status, answer["reason"]) == (403, "INVALID_TOKEN")
            assert token not in str(answer)
    token = await token_of(on_demand)
    for key in ("dead", on_demand.device.key[:-1] + "x"):
        assert (await on_demand.call("POST", "/devices", key, data={"token": token}))[0] == 401
    async with tenant_of(node, on_demand=True) as elsewhere:
        stranger = await elsewhere.user()
        status, answer = await on_demand.call("POST", "/devices", stranger.key, data={"token": token})
        assert (status, answer["reason"]) == (403, "INVALID_TOKEN")
    assert (await on_demand.get(f"/devices?homeId={home}", on_demand.owner.key))[1][1:] == []


async def test_of_many_uses_of_a_token_at_once_one_wins(on_demand: HomeWithDevice) -> None:
    token = await token_of(on_demand)
    keys = [None, on_demand.owner.key] * 6
    answers = await asyncio.gather(
        *(on_demand.call("POST", "/devices", key, data={"token": token}) for key in keys)
    )
    assert Counter(status for status, _ in answers) == {201: 1, 403: 11}
    assert {answer.get("reason") for _, answer in answers} == {None, "INVALID_TOKEN"}
    listed = (await on_demand.get(f"/devices?homeId={on_demand.home}", on_demand.owner.key))[1]
    assert len(listed) == 2


async def test_form_of_the_other_kind_of_project(at_home: HomeWithDevice, on_demand: HomeWithDevice) -> None:
    claim = {"homeId": str(on_demand.home), "claimCode": "ABCDEFGHJKLM"}
    for where, key, body, field in (
        (at_home, at_home.owner.key, {"token": "x"}, "token"),
        (at_home, at_home.owner.key, {"homeId": str(at_home.home), "claimCode": "X", "token": "x"}, "token"),
        (at_home, at_home.owner.key, {"homeId": str(at_home.home)}, "claimCode"),
        (at_home, at_home.owner.key, {"claimCode": "X"}, "homeId"),
        (at_home, at_home.owner.key, {"homeId": "kitchen", "claimCode": "X"}, "homeId"),
        (on_demand, on_demand.owner.key, claim, "claimCode"),
        (on_demand, on_demand.owner.key, {"homeId": str(on_demand.home)}, "token"),
    ):
        status, answer = await where.call("POST", "/devices", key, data=body)
        assert (status, answer["data"]["field"]) == (403, field), body
    assert (await at_home.call("POST", "/devices", None, data=claim))[0] == 401
    path, body = f"/homes/{at_home.home}/deviceProvisioning", {"deviceClass": "lamp"}
    assert (await at_home.call("POST", path, at_home.owner.key, data=body))[0] == 403
    path = f"/homes/{on_demand.home}/deviceProvisioning"
    for body, field in (({}, "deviceClass"), ({"deviceClass": " "}, "deviceClass")):
        status, answer = await on_demand.call("POST", path, on_demand.owner.key, data=body)
        assert (status, answer["data"]["field"]) == (403, field)
    body = {"deviceId": str(on_demand.device.id), "claimable": "1"}
    assert (await on_demand.call("POST", "/deviceRegistration", on_demand.device.key, data=body))[0] == 403
