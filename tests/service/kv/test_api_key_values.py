"""The key-value store: values come back as they were put, and listeners learn of each change once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.client import listen, raw_request
from kit.node import NodeProcess, private_node
from kit.redis_server import MAX_SCRIPT_WORDS, watched_scripts
from kit.tenant import Account, Tenant, tenant_of

RANGE = "vnd.tinkermode.range"
SOCKET = "/userSession/websocket"


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Any

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


async def ask(tenant: Tenant, method: str, path: str, key: str, body: Any = None) -> Reply:
    data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
    headers = {"Authorization": key}
    async with tenant.http.request(method, path, data=data, headers=headers) as answer:
        return Reply(answer.status, await answer.read(), answer.headers)


async def put(tenant: Tenant, path: str, key: str, value: Any) -> None:
    assert (await ask(tenant, "PUT", path, key, {"value": value})).status == 204


async def key_with(tenant: Tenant, *permissions: str) -> str:
    return await tenant.project_key(*permissions)


@dataclass
class ValueOwners:
    """A user's home with a device."""

    user: Account
    home: int
    device: Account

    @property
    def path(self) -> str:
        return f"/homes/{self.home}/kv"

    @property
    def device_path(self) -> str:
        return f"/devices/{self.device.id}/kv"


@pytest.fixture
async def owners(tenant: Tenant) -> ValueOwners:
    user = await tenant.user()
    home = await tenant.home(user)
    return ValueOwners(user, home, await tenant.device(home))


@pytest.mark.parametrize(
    "value",
    [
        "9007199254740993",
        "1.10",
        "-0.0",
        "1e400",
        "12345678901234567890123456789",
        '"\\u00e9 \\ud83d\\ude00 \\/"',
        '"é"',
        '{"half of a pair, as in events":"\\ud800"}',
        "false",
        "0",
        '""',
        "[]",
        '{"b": 1, "a" :[ null, {"a":1,"a":2} ]}',
        "[" * 64 + "]" * 64,
        '"' + "x" * 65_534 + '"',
    ],
)
async def test_value_comes_back_byte_for_byte(tenant: Tenant, owners: ValueOwners, value: str) -> None:
    for path in (owners.path, owners.device_path):
        body = f'{{"value": {value} , "more": [1]}}'.encode()
        answer = await ask(tenant, "PUT", f"{path}/a-1", owners.user.key, body)
        assert (answer.status, answer.body) == (204, b"")
        got = await ask(tenant, "GET", f"{path}/a-1", owners.user.key)
        assert got.body.startswith(f'{{"key":"a-1","value":{value},"modificationTime":"20'.encode())
        listed = await ask(tenant, "GET", path, owners.user.key)
        assert listed.body == b"[" + got.body + b"]"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "value"),
        (b'{"value": null}', "value"),
        (b'{"value": 1, "key": "other"}', "key"),
        (b'{"value": 1, "key": 7}', "key"),
        (b'{"value": ' + b"[" * 65 + b"]" * 65 + b"}", "value"),
        (b'{"value": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "body"),
        (b'{"value": "' + b"x" * 65_535 + b'"}', "value"),
        (b'{"value": "' + b"x" * 90_000 + b'"}', "body"),
        (b'{"value": "\xff"}', "body"),
        (b'{"value": 01}', "body"),
        (b'{"value": NaN}', "body"),
        (b'{"value": [1,]}', "body"),
        (b'{"value": 1', "body"),
        (b"[]", "body"),
        (b"", "body"),
    ],
)
async def test_invalid_value_is_refused_by_field(
    tenant: Tenant, owners: ValueOwners, body: bytes, field: str
) -> None:
    for path in (owners.path, owners.device_path):
        answer = await ask(tenant, "PUT", f"{path}/k", owners.user.key, body)
        assert (answer.status, answer.json["reason"]) == (403, "INVALID_PARAMETER")
        assert answer.json["data"]["field"] == field
        assert (await ask(tenant, "GET", f"{path}/k", owners.user.key)).status == 404


@pytest.mark.parametrize("key", ["_a", "a_", "a.b", "a b", "é", "x" * 257, "_bytes", "a%2Fb"])
async def test_invalid_key_is_refused(tenant: Tenant, owners: ValueOwners, key: str) -> None:
    path = f"{owners.path}/{key}"
    answer = await ask(tenant, "PUT", path, owners.user.key, {"value": 1})
    assert (answer.status, answer.json["data"]["field"]) == (403, "key")
    await put(tenant, f"{owners.path}/a", owners.user.key, 1)
    for method in ("GET", "DELETE"):
        assert (await ask(tenant, method, path, owners.user.key)).status == 404


async def test_whole_object_may_be_put_back(tenant: Tenant, owners: ValueOwners) -> None:
    await put(tenant, f"{owners.path}/k", owners.user.key, {"on": True})
    got = await ask(tenant, "GET", f"{owners.path}/k", owners.user.key)
    assert (await ask(tenant, "PUT", f"{owners.path}/k", owners.user.key, got.body)).status == 204


async def test_callers_read_and_write_by_access(tenant: Tenant, owners: ValueOwners) -> None:
    stranger, other = await tenant.user(), await tenant.device(owners.home)
    reader = await key_with(tenant, "read")
    writer = await key_with(tenant, "write-kv")
    admin = await key_with(tenant, "admin")
    member, device = owners.user.key, owners.device.key
    # Of a home its devices are no members.
    for path, readers, writers in (
        (owners.path, {member, reader, admin}, {member, writer, admin}),
        (owners.device_path, {member, device, reader, admin}, {member, device, writer, admin}),
    ):
        for caller in (member, device, other.key, stranger.key, reader, writer, admin, "garbage"):
            refused = {401} if caller == "garbage" else {403, 404}
            expected = {204} if caller in writers else refused
            answer = await ask(tenant, "PUT", f"{path}/k", caller, {"value": 1})
            assert answer.status in expected, (path, caller)
            for at in (path, f"{path}/k"):
                expected = {200} if caller in readers else refused
                assert (await ask(tenant, "GET", at, caller)).status in expected, (at, caller)
            await put(tenant, f"{path}/k", member, 1)
            expected = {204} if caller in writers else refused
            assert (await ask(tenant, "DELETE", f"{path}/k", caller)).status in expected


async def test_invisible_values_are_answered_as_unknown(tenant: Tenant, owners: ValueOwners) -> None:
    stranger = await tenant.user()
    await put(tenant, f"{owners.path}/k", owners.user.key, 1)
    for method, end, status in (
        ("GET", "", 403),
        ("GET", "/k", 404),
        ("PUT", "/k", 404),
        ("DELETE", "/k", 404),
    ):
        body = {"value": 1} if method == "PUT" else None
        unseen = await ask(tenant, method, owners.path + end, stranger.key, body)
        unknown = await ask(tenant, method, f"/homes/987654321/kv{end}", stranger.key, body)
        assert (unseen.status, unseen.body) == (unknown.status, unknown.body)
        assert unseen.status == status


async def test_listeners_receive_each_change_once(tenant: Tenant, owners: ValueOwners) -> None:
    user, device = owners.user, owners.device
    everything = await listen(tenant.url, SOCKET, user.key)
    of_device = await listen(tenant.url, f"{SOCKET}?deviceId={device.id}", user.key)
    writer = await key_with(tenant, "write-kv")
    async with everything, of_device:
        await put(tenant, f"{owners.path}/k", user.key, 9007199254740993)
        await put(tenant, f"{owners.device_path}/d", device.key, {"n": [1]})
        assert (await ask(tenant, "DELETE", f"{owners.path}/k", writer)).status == 204
        assert (await ask(tenant, "DELETE", f"{owners.path}/k", writer)).status == 404
        assert (await ask(tenant, "DELETE", f"{owners.device_path}/d", user.key)).status == 204
        received = [await everything.receive_json() for _ in range(4)]
        assert await everything.is_alive()
        assert [(each["eventType"], each["eventData"]) for each in received] == [
            ("_keyValueSaved_", {"key": "k", "value": 9007199254740993}),
            ("_keyValueSaved_", {"key": "d", "value": {"n": [1]}}),
            ("_keyValueDeleted_", {"key": "k"}),
            ("_keyValueDeleted_", {"key": "d"}),
        ]
        assert {each["homeId"] for each in received} == {owners.home}
        assert [each.get("originDeviceId") for each in received] == [None, device.id, None, device.id]
        assert received[1]["originDeviceClass"] == "sensor"
        assert "originProjectKeyId" not in received[0]
        assert received[2]["originProjectKeyName"] == "key"
        assert [await of_device.receive_json() for _ in range(2)] == [received[1], received[3]]
        assert await of_device.is_alive()


async def test_long_value_is_saved_and_announced_without_itself(tenant: Tenant, owners: ValueOwners) -> None:
    async with await listen(tenant.url, SOCKET, owners.user.key) as socket:
        await put(tenant, f"{owners.path}/long", owners.user.key, "x" * 65_534)
        await put(tenant, f"{owners.path}/fits", owners.user.key, "x" * 65_000)
        assert (await socket.receive_json())["eventData"] == {"key": "long"}
        assert (await socket.receive_json())["eventData"] == {"key": "fits", "value": "x" * 65_000}


async def test_value_of_device_without_home_sends_no_event(tenant: Tenant, owners: ValueOwners) -> None:
    device = await tenant.device(None)
    path = f"/devices/{device.id}/kv/k"
    async with await listen(tenant.url, SOCKET, owners.user.key) as socket:
        await put(tenant, path, device.key, 1)
        assert (await ask(tenant, "GET", path, device.key)).json["value"] == 1
        assert (await ask(tenant, "GET", path, owners.user.key)).status == 404
        await put(tenant, f"{owners.path}/next", owners.user.key, 1)
        assert (await socket.receive_json())["eventData"]["key"] == "next"


async def test_events_go_where_the_device_is_now(tenant: Tenant, owners: ValueOwners) -> None:
    elsewhere = await tenant.home(owners.user)
    await put(tenant, f"{owners.device_path}/k", owners.device.key, 1)
    await tenant.store.devices.move(tenant.project, owners.device.id, elsewhere)
    async with await listen(tenant.url, f"{SOCKET}?homeId={elsewhere}", owners.user.key) as socket:
        await put(tenant, f"{owners.device_path}/k", owners.device.key, 2)
        assert (await socket.receive_json())["homeId"] == elsewhere


KEYS = st.from_regex(r"[ab1](?:[ab1_-]{0,3}[ab1])?", fullmatch=True)
PREFIXES = st.text("ab1_-", max_size=3) | st.sampled_from(["é", "%", "\x00", "ÿ", "a\uffff", "c" * 300])


@given(
    st.lists(st.tuples(KEYS, st.booleans()), max_size=25),
    st.lists(st.tuples(PREFIXES, st.integers(0, 12), st.none() | st.integers(0, 6)), min_size=4, max_size=12),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_prefixes_and_pages_are_those_of_a_sorted_dict(
    node: NodeProcess, changes: list[tuple[str, bool]], lists: list[tuple[str, int, int | None]]
) -> None:
    async def compare() -> None:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            path = f"/homes/{await tenant.home(user)}/kv"
            model: dict[str, int] = {}
            for number, (key, kept) in enumerate(changes):
                if kept:
                    await put(tenant, f"{path}/{key}", user.key, number)
                    model[key] = number
                else:
                    answer = await ask(tenant, "DELETE", f"{path}/{key}", user.key)
                    assert answer.status == (204 if model.pop(key, None) is not None else 404)
            for prefix, skip, limit in lists:
                matching = sorted(key for key in model if key.startswith(prefix))
                query = f"?keyPrefix={quote(prefix)}&skip={skip}" + (
                    "" if limit is None else f"&limit={limit}"
                )
                answer = await ask(tenant, "GET", path + query, user.key)
                wanted = matching[skip:][:limit]
                assert [(each["key"], each["value"]) for each in answer.json] == [
                    (key, model[key]) for key in wanted
                ]
                part = f"{skip}-{skip + len(wanted) - 1}" if wanted else "*"
                assert answer.headers[RANGE] == f"{part}/{len(matching)}"

    asyncio.run(compare())


def first_difference(found: list[str], expected: list[str]) -> tuple[str | None, str | None] | None:
    """pytest takes minutes to write down how long lists differ."""
    return next((pair for pair in zip_longest(found, expected) if pair[0] != pair[1]), None)


async def test_list_without_bounds_is_whole(tenant: Tenant, owners: ValueOwners) -> None:
    slot, count = tenant.slot, 1_501
    names = [f"k{number:04}" for number in range(count)]
    await tenant.redis.hset(slot.values("home", owners.home), mapping=dict.fromkeys(names, "7 1"))
    await tenant.redis.zadd(slot.value_keys("home", owners.home), dict.fromkeys(names, 0))
    whole = await ask(tenant, "GET", owners.path, owners.user.key)
    assert first_difference([each["key"] for each in whole.json], names) is None
    assert whole.headers[RANGE] == f"0-{count - 1}/{count}"
    part = await ask(tenant, "GET", f"{owners.path}?keyPrefix=k1&skip=100&limit=401", owners.user.key)
    assert first_difference([each["key"] for each in part.json], names[1100:1501]) is None
    assert part.headers[RANGE] == "100-500/501"
    past = await ask(tenant, "GET", f"{owners.path}?skip=2000", owners.user.key)
    assert (past.json, past.headers[RANGE]) == ([], f"*/{count}")


async def test_values_have_a_bound_for_each_home_and_device() -> None:
    with private_node(values_per_owner=2, value_bytes_per_owner=128 * 1024) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            device = await tenant.device(home)
            for path in (f"/homes/{home}/kv", f"/devices/{device.id}/kv"):
                await put(tenant, f"{path}/a", user.key, "x" * 65_000)
                await put(tenant, f"{path}/b", user.key, 1)
                refused = await ask(tenant, "PUT", f"{path}/c", user.key, {"value": 1})
                assert (refused.status, refused.json["reason"]) == (403, "TOO_MANY_VALUES")
                assert "2 values" in refused.json["data"]["problem"]
                await put(tenant, f"{path}/b", user.key, "x" * 65_000)
                assert (await ask(tenant, "DELETE", f"{path}/a", user.key)).status == 204
                await put(tenant, f"{path}/c", user.key, "x" * 65_000)
                await put(tenant, f"{path}/c", user.key, "x" * 65_534)
                refused = await ask(tenant, "PUT", f"{path}/b", user.key, {"value": "x" * 65_534})
                assert (refused.status, refused.json["reason"]) == (403, "TOO_MANY_VALUES")
                assert "131072 bytes" in refused.json["data"]["problem"]


async def test_parallel_changes_of_one_key_leave_value_and_index_agreed(
    tenant: Tenant, owners: ValueOwners
) -> None:
    slot = tenant.slot
    values, keys = slot.values("home", owners.home), slot.value_keys("home", owners.home)
    async with await listen(tenant.url, SOCKET, owners.user.key) as socket:
        for turn in range(6):
            changes = [
                ask(
                    tenant,
                    *(
                        ("PUT", f"{owners.path}/k", owners.user.key, {"value": n})
                        if (n + turn) % 2
                        else ("DELETE", f"{owners.path}/k", owners.user.key)
                    ),
                )
                for n in range(20)
            ]
            answers = await asyncio.gather(*changes)
            done = sum(answer.status == 204 for answer in answers)
            assert {answer.status for answer in answers} <= {204, 404}
            received = [await socket.receive_json() for _ in range(done)]
            assert await socket.is_alive()
            last = received[-1]
            got = await ask(tenant, "GET", f"{owners.path}/k", owners.user.key)
            listed = (await ask(tenant, "GET", owners.path, owners.user.key)).json
            if last["eventType"] == "_keyValueSaved_":
                assert got.json["value"] == last["eventData"]["value"]
                assert [each["value"] for each in listed] == [got.json["value"]]
                stored = await tenant.redis.hstrlen(values, "k")
                assert await tenant.redis.hget(values, "_bytes") == str(stored).encode()
            else:
                assert (got.status, listed) == (404, [])
            # Of deletions at once one finds it, at most, and nothing is left.
            await put(tenant, f"{owners.path}/k", owners.user.key, turn)
            gone = [ask(tenant, "DELETE", f"{owners.path}/k", owners.user.key) for _ in range(4)]
            assert sorted(answer.status for answer in await asyncio.gather(*gone)) == [204, 404, 404, 404]
            assert [await socket.receive_type() for _ in range(2)] == ["_keyValueSaved_", "_keyValueDeleted_"]
            assert await tenant.redis.exists(values, keys) == 0
            assert (await ask(tenant, "GET", owners.path, owners.user.key)).json == []


async def test_home_with_100_000_values_is_deleted_without_a_stall(
    tenant: Tenant, owners: ValueOwners
) -> None:
    user, slot, redis = owners.user, tenant.slot, tenant.redis
    home = await tenant.home(user)
    values, keys, path = slot.values("home", home), slot.value_keys("home", home), f"/homes/{home}/kv/one"
    await put(tenant, path, user.key, 1)
    for start in range(0, 100_000, 5_000):
        names = [f"key-{number}" for number in range(start, start + 5_000)]
        await redis.hset(values, mapping=dict.fromkeys(names, "7 " + "1" * 100))
        await redis.zadd(keys, dict.fromkeys(names, 0))
    async with watched_scripts(redis) as sizes:
        await tenant.store.homes.delete(tenant.project, home)
    assert 0 < max(sizes) < MAX_SCRIPT_WORDS
    assert await redis.exists(values, keys) == 0
    assert (await ask(tenant, "GET", path, user.key)).status == 404


async def test_values_of_a_deleted_device_are_gone(tenant: Tenant, owners: ValueOwners) -> None:
    await put(tenant, f"{owners.device_path}/k", owners.user.key, 1)
    await tenant.store.devices.delete(tenant.project, owners.device.id)
    slot, device = tenant.slot, owners.device.id
    assert not await tenant.redis.exists(slot.values("device", device), slot.value_keys("device", device))
    assert (await ask(tenant, "PUT", f"{owners.device_path}/k", owners.user.key, {"value": 1})).status == 404


async def test_key_is_spelled_by_its_bytes(tenant: Tenant, owners: ValueOwners) -> None:
    head = f"Authorization: {owners.user.key}\r\nHost: h\r\nConnection: close\r\n"
    await put(tenant, f"{owners.path}/k", owners.user.key, 1)
    request = f"GET {owners.path}/%6B HTTP/1.1\r\n{head}\r\n"
    assert (await raw_request(tenant.url, request.encode())).status == 200
