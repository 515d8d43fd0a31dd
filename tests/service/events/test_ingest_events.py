"""Events and commands that are taken: 204, and they arrive value for value."""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest

from kit.client import Socket, listen
from kit.tenant import Account, Tenant

SPEC_EVENT = """{
    "eventType": "sprinkler-status",
    "eventData": {
        "zones": [0,0,0,0,0,0,0,1],
        "serial": 12,
        "timestamp": 1402313424,
        "appSerial": 14,
        "appTimestamp": 14243423423
    }
}"""
SPEC_COMMAND = """{
    "action": "sprinkler-on",
    "parameters": {
        "zone": 2,
        "duration": 120
    }
}"""
DELICATE = (
    '{"big":12345678901234567890123,"two to the 53 and 1":9007199254740993,"price":1.10,"e":1E+400,'
    '"-0":-0.0,"text":"\\u00e9 \\ud83d\\ude00 \\/ é 日本","z":null,"a":[],"deep":{"o":{}},"  ":1}'
)
"""Numbers and escapes that most JSON libraries would change on their way through."""


async def home_with_sensor(tenant: Tenant) -> tuple[Account, int, Account]:
    """A user, their home, and a device in it."""
    user = await tenant.user()
    home = await tenant.home(user)
    return user, home, await tenant.device(home)


async def receive(tenant: Tenant, user: Account) -> Socket:
    return await listen(tenant.url, "/userSession/websocket", user.key)


async def test_example_of_send_device_event(tenant: Tenant) -> None:
    user, home, device = await home_with_sensor(tenant)
    async with await receive(tenant, user) as socket:
        path, before = f"/devices/{device.id}/event", datetime.now(UTC)
        assert await tenant.put(path, f"ModeCloud {device.key}", SPEC_EVENT.encode()) == (204, None)
        event = await socket.receive_json()
    stamped = datetime.strptime(event.pop("timestamp"), "%Y-%m-%dT%H:%M:%S.%f%z")
    assert before - timedelta(milliseconds=1) < stamped <= datetime.now(UTC)
    assert event == {
        **json.loads(SPEC_EVENT),
        "homeId": home,
        "originDeviceId": device.id,
        "originDeviceClass": "sensor",
        "originDeviceIp": "127.0.0.1",
    }


async def test_example_of_send_event_to_home(tenant: Tenant) -> None:
    user, home, _ = await home_with_sensor(tenant)
    async with await receive(tenant, user) as socket:
        assert await tenant.put(f"/homes/{home}/event", tenant.key, SPEC_EVENT.encode()) == (204, None)
        event = await socket.receive_json()
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        **json.loads(SPEC_EVENT),
        "homeId": home,
        "originProjectKeyId": str(tenant.key_id),
        "originProjectKeyName": "server",
    }


@pytest.mark.parametrize("sender", ["user", "project"])
async def test_example_of_send_command(tenant: Tenant, sender: str) -> None:
    user, _, device = await home_with_sensor(tenant)
    path = f"/devices/{device.id}/command"
    async with await listen(tenant.url, path, device.key) as socket:
        key = user.key if sender == "user" else tenant.key
        assert await tenant.put(path, key, SPEC_COMMAND.encode()) == (204, None)
        # Nothing is added, and the parameters are the very bytes.
        text = await socket.receive_text()
    assert json.loads(text) == json.loads(SPEC_COMMAND)
    assert SPEC_COMMAND[SPEC_COMMAND.index("{", 1) : -1].strip() in text


async def test_values_arrive_untouched(tenant: Tenant) -> None:
    user, home, device = await home_with_sensor(tenant)
    body = f'{{"eventData": {DELICATE}, "eventType": "t"}}'.encode()
    async with await receive(tenant, user) as socket:
        assert (await tenant.put(f"/devices/{device.id}/event", device.key, body))[0] == 204
        assert (await tenant.put(f"/homes/{home}/event", tenant.key, body))[0] == 204
        for _ in range(2):
            assert f'"eventData":{DELICATE},' in await socket.receive_text()
    path = f"/devices/{device.id}/command"
    async with await listen(tenant.url, path, device.key) as socket:
        assert (await tenant.put(path, user.key, f'{{"action":"a","parameters":{DELICATE}}}'.encode()))[
            0
        ] == 204
        assert await socket.receive_text() == f'{{"action":"a","parameters":{DELICATE}}}'


@pytest.mark.parametrize("data", ['"eventType":"t"', '"eventType":"t","eventData":null'])
async def test_event_data_may_be_absent_or_null(tenant: Tenant, data: str) -> None:
    user, home, device = await home_with_sensor(tenant)
    async with await receive(tenant, user) as socket:
        for path, key in ((f"/devices/{device.id}/event", device.key), (f"/homes/{home}/event", tenant.key)):
            assert (await tenant.put(path, key, f"{{{data}}}".encode()))[0] == 204
            assert "eventData" not in await socket.receive_json()


async def test_client_that_marshals_its_whole_struct(tenant: Tenant) -> None:
    user, home, device = await home_with_sensor(tenant)
    body = {
        "eventType": "t",
        "eventData": None,
        "homeId": 0,
        "originDeviceId": 0,
        "originDeviceClass": "",
        "originDeviceIp": "",
        "timestamp": "0001-01-01T00:00:00Z",
    }
    async with await receive(tenant, user) as socket:
        assert (await tenant.put(f"/devices/{device.id}/event", device.key, body))[0] == 204
        event = await socket.receive_json()
    assert (event["homeId"], event["originDeviceId"], event["originDeviceClass"]) == (
        home,
        device.id,
        "sensor",
    )
    assert not event["timestamp"].startswith("0001")
    assert "eventData" not in event
    path = f"/devices/{device.id}/command"
    async with await listen(tenant.url, path, device.key) as socket:
        assert (await tenant.put(path, user.key, {"action": "a", "parameters": None}))[0] == 204
        assert await socket.receive_text() == '{"action":"a"}'


async def test_origin_named_in_body_is_ignored(tenant: Tenant) -> None:
    user, home, device = await home_with_sensor(tenant)
    stranger = await tenant.user()
    foreign = await tenant.home(stranger)
    lie = {
        "eventType": "t",
        "homeId": foreign,
        "deviceId": 1,
        "originDeviceId": 1,
        "originDeviceClass": "liar",
        "originProjectKeyId": "1",
        "originProjectKeyName": "liar",
        "timestamp": "2000-01-01T00:00:00.000Z",
    }
    async with await receive(tenant, user) as socket, await receive(tenant, stranger) as other:
        assert (await tenant.put(f"/devices/{device.id}/event", device.key, lie))[0] == 204
        event = await socket.receive_json()
        assert await other.is_alive()
    assert (event["homeId"], event["originDeviceId"], event["originDeviceClass"]) == (
        home,
        device.id,
        "sensor",
    )
    assert "originProjectKeyId" not in event
    assert not event["timestamp"].startswith("2000")


async def test_entity_in_a_device_event_and_in_a_home_event(tenant: Tenant) -> None:
    user, home, device = await home_with_sensor(tenant)
    path = "/userSession/websocket?entityId=lamp"
    async with (
        await listen(tenant.url, path, user.key) as entity,
        await listen(tenant.url, f"/userSession/websocket?deviceId={device.id}", user.key) as by_device,
        await listen(tenant.url, f"/userSession/websocket?homeId={home}", user.key) as by_home,
    ):
        body = {"eventType": "from device", "entityId": "lamp"}
        assert (await tenant.put(f"/devices/{device.id}/event", device.key, body))[0] == 204
        for socket in (entity, by_device, by_home):
            event = await socket.receive_json()
            assert (event["eventType"], event["entityId"]) == ("from device", "lamp")
        body = {"eventType": "from home", "entityId": "lamp"}
        assert (await tenant.put(f"/homes/{home}/event", tenant.key, body))[0] == 204
        for socket in (entity, by_home):
            assert await socket.receive_type() == "from home"
        assert await by_device.is_alive()


async def test_bodies_may_be_large_chunked_or_compressed(tenant: Tenant) -> None:
    user, home, _ = await home_with_sensor(tenant)
    data = {"text": "x" * (65_536 - len('{"text":""}'))}
    body = json.dumps({"eventType": "t", "eventData": data}, separators=(",", ":")).encode()

    async def pieces() -> object:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]
            await asyncio.sleep(0)

    headers = {"Authorization": tenant.key}
    async with await receive(tenant, user) as socket:
        for payload, more in (
            (body, {}),
            (pieces(), {}),
            (gzip.compress(body), {"Content-Encoding": "gzip"}),
        ):
            url = f"/homes/{home}/event"
            async with tenant.http.put(url, data=payload, headers={**headers, **more}) as answer:
                assert answer.status == 204
            assert (await socket.receive_json())["eventData"] == data


async def test_events_of_one_sender_arrive_in_order(tenant: Tenant) -> None:
    user, home, _ = await home_with_sensor(tenant)
    devices = [await tenant.device(home) for _ in range(6)]
    count = 60

    async def report(device: Account) -> None:
        for number in range(count):
            body = {"eventType": "t", "eventData": {"n": number}}
            assert (await tenant.put(f"/devices/{device.id}/event", device.key, body))[0] == 204

    received: dict[int, list[int]] = {device.id: [] for device in devices}
    async with await receive(tenant, user) as socket:
        senders = asyncio.gather(*(report(device) for device in devices))
        for _ in range(count * len(devices)):
            event = await socket.receive_json()
            received[event["originDeviceId"]].append(event["eventData"]["n"])
        await senders
        assert await socket.is_alive()
    assert received == {device.id: list(range(count)) for device in devices}


async def test_all_listeners_of_home_receive_same_order(tenant: Tenant) -> None:
    user, home, _ = await home_with_sensor(tenant)
    sockets = [await receive(tenant, user) for _ in range(4)]
    batches = [[{"homeId": home, "eventType": f"{sender} {n}"} for n in range(100)] for sender in range(4)]
    await asyncio.gather(*(tenant.send(*batch) for batch in batches))
    received = [[await socket.receive_type() for _ in range(400)] for socket in sockets]
    assert received[0] == received[1] == received[2] == received[3]
    for sender, batch in enumerate(batches):
        mine = [kind for kind in received[0] if kind.startswith(f"{sender} ")]
        assert mine == [event["eventType"] for event in batch]
    for socket in sockets:
        await socket.drop()


async def test_idempotency_key_makes_one_event_of_two_requests(tenant: Tenant) -> None:
    user, home, device = await home_with_sensor(tenant)
    requests = [
        (f"/devices/{device.id}/event", device.key, {"eventType": "once"}, {"eventType": "other"}),
        (f"/homes/{home}/event", tenant.key, {"eventType": "once"}, {"eventType": "other"}),
        (f"/devices/{device.id}/command", user.key, {"action": "once"}, {"action": "other"}),
    ]
    for path, key, body, other in requests:
        before = await tenant.stored()
        answers = await asyncio.gather(
            *(tenant.put(path, key, body, Idempotency_Key="k-1") for _ in range(5))
        )
        assert answers == [(204, None)] * 5
        assert await tenant.stored() == before + 1
        status, problem = await tenant.put(path, key, other, Idempotency_Key="k-1")
        assert (status, problem["reason"]) == (403, "IDEMPOTENCY_KEY_REUSED")
        assert problem["data"]["field"] == "Idempotency-Key"
        assert (await tenant.put(path, key, other, Idempotency_Key="k-2"))[0] == 204
        assert await tenant.stored() == before + 2


async def test_idempotency_key_of_bulk(tenant: Tenant) -> None:
    _, home, device = await home_with_sensor(tenant)
    items = [
        {"homeId": home, "eventType": "a"},
        {"deviceId": device.id, "eventType": "b"},
        {"eventType": "c"},
    ]
    headers = {"Authorization": tenant.key, "Idempotency-Key": "bulk-1"}
    before = await tenant.stored()
    answers = []
    for _ in range(2):
        async with tenant.http.post("/events", json=items, headers=headers) as answer:
            assert answer.status == 200
            answers.append(await answer.json())
    assert answers[0] == answers[1]
    assert [result["status"] for result in answers[0]["results"]] == [204, 204, 403]
    assert await tenant.stored() == before + 2
    async with tenant.http.post("/events", json=items[:1], headers=headers) as answer:
        assert answer.status == 403
    assert await tenant.stored() == before + 2


@pytest.mark.parametrize("form", ["array", "ndjson"])
async def test_bulk_answers_for_each_item(tenant: Tenant, form: str) -> None:
    user, home, device = await home_with_sensor(tenant)
    adrift = await tenant.device(None)
    items: list[tuple[object, int, str | None]] = [
        ({"homeId": home, "eventType": "1", "eventData": {"n": 1}}, 204, None),
        ({"homeId": 999_999_999, "eventType": "x"}, 404, "homeId"),
        ({"deviceId": device.id, "eventType": "2", "entityId": "e"}, 204, None),
        ({"deviceId": 999_999_999, "eventType": "x"}, 404, "deviceId"),
        ({"deviceId": adrift.id, "eventType": "x"}, 403, "deviceId"),
        ({"eventType": "x"}, 403, "homeId"),
        ({"homeId": home, "eventType": ""}, 403, "eventType"),
        ({"homeId": home}, 403, "eventType"),
        ({"homeId": "1", "eventType": "x"}, 403, "homeId"),
        ({"homeId": 1.5, "eventType": "x"}, 403, "homeId"),
        ({"homeId": 2**64, "eventType": "x"}, 403, "homeId"),
        ({"homeId": home, "eventType": "x", "eventData": [1]}, 403, "eventData"),
        ([1], 403, "body"),
        ("text", 403, "body"),
        (None, 403, "body"),
        ({"homeId": home, "deviceId": device.id, "eventType": "3"}, 204, None),
    ]
    lines = [json.dumps(item) for item, _, _ in items]
    body = f"[{','.join(lines)}]" if form == "array" else "\r\n\n".join(lines)
    before = await tenant.stored()
    headers = {"Authorization": tenant.key}
    async with await receive(tenant, user) as socket:
        async with tenant.http.post("/events", data=body, headers=headers) as answer:
            assert answer.status == 200
            results = (await answer.json())["results"]
        assert [await socket.receive_type() for _ in range(3)] == ["1", "2", "3"]
        assert await socket.is_alive()
    for (item, status, name), result in zip(items, results, strict=True):
        assert (result["status"], result.get("data", {}).get("field")) == (status, name), (item, result)
    assert await tenant.stored() == before + 3


async def test_bulk_of_a_thousand(tenant: Tenant) -> None:
    user, home, _ = await home_with_sensor(tenant)
    async with await receive(tenant, user) as socket:
        await tenant.send(*({"homeId": home, "eventType": str(number)} for number in range(1000)))
        assert [await socket.receive_type() for _ in range(1000)] == [str(number) for number in range(1000)]
