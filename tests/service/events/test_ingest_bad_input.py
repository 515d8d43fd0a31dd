"""Bad input of every kind: 403 naming the field (404 for an unknown path id), never a 500, nothing stored."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from kit.client import Answer, RawConnection, listen, raw_request
from kit.node import NodeProcess, private_node
from kit.tenant import Account, Tenant, tenant_of

DEEP = '{"a":' * 100 + "1" + "}" * 100


@dataclass
class Targets:
    tenant: Tenant
    user: Account
    home: int
    device: Account

    def target(self, name: str) -> tuple[str, str]:
        """Path and key of a request that would be taken."""
        return {
            "device event": (f"/devices/{self.device.id}/event", self.device.key),
            "home event": (f"/homes/{self.home}/event", self.tenant.key),
            "command": (f"/devices/{self.device.id}/command", self.user.key),
        }[name]


@pytest_asyncio.fixture
async def targets(tenant: Tenant) -> AsyncIterator[Targets]:
    """Whatever the test does, nothing is stored."""
    user = await tenant.user()
    home = await tenant.home(user)
    made = Targets(tenant, user, home, await tenant.device(home))
    before = await tenant.stored()
    yield made
    assert await tenant.stored() == before


def named(status: int, answer: Any) -> str:
    """The field that a refusal names; its form is checked."""
    assert status == 403
    assert set(answer) == {"reason", "data"}
    assert answer["reason"] == "INVALID_PARAMETER"
    return str(answer["data"]["field"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"not json", "body"),
        (b'{"NAME":"t"', "body"),
        (b'{"NAME":"t"} x', "body"),
        (b'{"NAME":"t",}', "body"),
        (b"[]", "body"),
        (b'"text"', "body"),
        (b"null", "body"),
        (b"1", "body"),
        (b'{"NAME":"\xff"}', "body"),
        (b'{"NAME":"t","DATA":{"a":"\xc3\x28"}}', "body"),
        (b"\xff\xfe{\x00}\x00", "body"),
        (b'{"NAME":NaN}', "body"),
        (b'{"NAME":"t","DATA":{"a":NaN}}', "body"),
        (b"{}", "NAME"),
        (b'{"NAME":""}', "NAME"),
        (b'{"NAME":null}', "NAME"),
        (b'{"NAME":1}', "NAME"),
        (b'{"NAME":["t"]}', "NAME"),
        (b'{"NAME":"t","NAME":"t"}', "NAME"),
        (b'{"NAME":"\\ud800"}', "NAME"),
        (b'{"NAME":"' + b"x" * 257 + b'"}', "NAME"),
        (b'{"NAME":"t","DATA":[]}', "DATA"),
        (b'{"NAME":"t","DATA":"text"}', "DATA"),
        (b'{"NAME":"t","DATA":1}', "DATA"),
        (b'{"NAME":"t","DATA":false}', "DATA"),
        (b'{"NAME":"t","DATA":' + DEEP.encode() + b"}", "DATA"),
        (b'{"NAME":"t","DATA":{"a":"' + b"x" * 65_536 + b'"}}', "DATA"),
        (b'{"NAME":"t","DATA":' + b"[" * 70_000 + b"]" * 10 + b"}", "body"),
        (b'{"NAME":"t","x":"' + b"x" * 90_000 + b'"}', "body"),
    ],
)
async def test_bad_bodies(targets: Targets, body: bytes, field: str) -> None:
    for target in ("device event", "home event", "command"):
        path, key = targets.target(target)
        name, data = ("action", "parameters") if target == "command" else ("eventType", "eventData")
        sent = body.replace(b"NAME", name.encode()).replace(b"DATA", data.encode())
        status, answer = await targets.tenant.put(path, key, sent)
        expected = {"NAME": name, "DATA": data}.get(field, field)
        assert named(status, answer) == expected, (target, answer)


@pytest.mark.parametrize("entity", [b"1", b'""', b"[]", b'"' + b"x" * 257 + b'"'])
async def test_bad_entities(targets: Targets, entity: bytes) -> None:
    for target in ("device event", "home event"):
        path, key = targets.target(target)
        body = b'{"eventType":"t","entityId":' + entity + b"}"
        assert named(*await targets.tenant.put(path, key, body)) == "entityId"


@pytest.mark.parametrize(
    "identifier",
    [
        "999999999",
        "0",
        "-1",
        "x",
        "1.5",
        "1e3",
        "%31x",
        "9223372036854775808",
        "99999999999999999999999",
        "é",
        "%00",
    ],
)
async def test_unknown_path_ids(targets: Targets, identifier: str) -> None:
    event, command = {"eventType": "t"}, {"action": "t"}
    for path, key, body in (
        (f"/devices/{identifier}/event", targets.device.key, event),
        (f"/homes/{identifier}/event", targets.tenant.key, event),
        (f"/devices/{identifier}/command", targets.tenant.key, command),
        (f"/devices/{identifier}/command", targets.user.key, command),
    ):
        status, answer = await targets.tenant.put(path, key, body)
        assert (status, answer) == (404, {"reason": "NOT_FOUND", "data": {}})


async def test_target_of_another_project_is_unknown(targets: Targets, node: NodeProcess) -> None:
    tenant = targets.tenant
    stranger = await tenant.user()
    neighbour = await tenant.device(targets.home)
    adrift = await tenant.device(None)
    event, command = {"eventType": "t"}, {"action": "t"}
    unknown = (404, {"reason": "NOT_FOUND", "data": {}})
    assert await tenant.put(f"/devices/{neighbour.id}/event", targets.device.key, event) == unknown
    assert await tenant.put(f"/devices/{targets.device.id}/command", stranger.key, command) == unknown
    assert await tenant.put(f"/devices/{adrift.id}/command", targets.user.key, command) == unknown
    async with tenant_of(node) as other:
        their_home = await other.home(await other.user())
        their_device = await other.device(their_home)
        assert await tenant.put(f"/homes/{their_home}/event", tenant.key, event) == unknown
        for key in (tenant.key, targets.user.key):
            assert await tenant.put(f"/devices/{their_device.id}/command", key, command) == unknown
        assert await tenant.put(f"/devices/{their_device.id}/event", targets.device.key, event) == unknown
        for item in ({"homeId": their_home}, {"deviceId": their_device.id}):
            items = [{**item, "eventType": "t"}]
            async with tenant.http.post(
                "/events", json=items, headers={"Authorization": tenant.key}
            ) as answer:
                assert (await answer.json())["results"][0]["status"] == 404


async def test_keys_of_the_wrong_kind(targets: Targets) -> None:
    tenant = targets.tenant
    weak = await tenant.project_key("read")
    event, command = {"eventType": "t"}, {"action": "t"}
    cases: list[tuple[str, object, list[str]]] = [
        (f"/devices/{targets.device.id}/event", event, [targets.user.key, tenant.key]),
        (f"/homes/{targets.home}/event", event, [targets.user.key, targets.device.key, weak]),
        (f"/devices/{targets.device.id}/command", command, [targets.device.key, weak]),
    ]
    for path, body, keys in cases:
        for key in keys:
            # The key is judged before the id and the body, which would only tell a stranger more.
            for sent in (body, b"not json"):
                status, answer = await tenant.put(path, key, sent)
                assert (status, answer["reason"]) == (403, "PERMISSION_DENIED")
        for key in ("garbage", "v1.1.x", f"v1.{tenant.project}.{'A' * 43}", ""):
            status, answer = await tenant.put(path, key, body)
            assert (status, answer) == (401, {"reason": "AUTHORIZATION_REQUIRED", "data": {}})
    for key in (targets.user.key, targets.device.key, weak):
        async with tenant.http.post("/events", json=[event], headers={"Authorization": key}) as answer:
            assert answer.status == 403


async def test_event_of_a_device_without_a_home_has_a_reason(targets: Targets) -> None:
    adrift = await targets.tenant.device(None)
    status, answer = await targets.tenant.put(f"/devices/{adrift.id}/event", adrift.key, {"eventType": "t"})
    assert (status, answer["reason"], answer["data"]["field"]) == (403, "DEVICE_NOT_IN_HOME", "deviceId")


@pytest.mark.parametrize("value", ["", " ", "x" * 256, "é", "two words"])
async def test_bad_idempotency_keys(targets: Targets, value: str) -> None:
    path, key = targets.target("home event")
    answer = await targets.tenant.put(path, key, {"eventType": "t"}, Idempotency_Key=value)
    assert named(*answer) == "Idempotency-Key"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n \r\n",
        b"[]",
        b"[{",
        b'[{"homeId":1,"eventType":"t"}',
        b'[{"homeId":1,"eventType":"\xff"}]',
        b"[1,]",
        b"\n".join([b'{"homeId":1,"eventType":"t"}'] * 1001),
        b"[" + b",".join([b'{"homeId":1,"eventType":"t"}'] * 1001) + b"]",
        b'[{"homeId":1,"eventType":"t","x":"' + b"x" * (4 << 20) + b'"}]',
    ],
    ids=lambda body: f"{len(body)} bytes {body[:12]!r}",
)
async def test_bulk_bodies_that_are_refused_as_a_whole(targets: Targets, body: bytes) -> None:
    headers = {"Authorization": targets.tenant.key}
    async with targets.tenant.http.post("/events", data=io.BytesIO(body), headers=headers) as answer:
        assert named(answer.status, await answer.json()) == "body"


async def send_raw(targets: Targets, head: str, body: bytes) -> Answer:
    path, key = targets.target("device event")
    request = f"PUT {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {key}\r\n{head}\r\n\r\n".encode() + body
    return await raw_request(targets.tenant.url, request)


async def test_body_counted_in_characters_is_answered(targets: Targets) -> None:
    """Content-Length says more than ever comes, or nothing comes; the client waits for its answer."""
    text = json.dumps({"eventType": "t", "eventData": {"a": "é" * 20}}, ensure_ascii=False)
    head = f"Content-Length: {len(text.encode())}"
    # It is not waited for longer than `read_answer` does: that is less than a body may take as a whole.
    answers = await asyncio.gather(*(send_raw(targets, head, sent) for sent in (text.encode("latin-1"), b"")))
    for answer in answers:
        assert named(answer.status, answer.json()) == "body"


async def test_body_cut_short_by_its_length_is_refused(targets: Targets) -> None:
    """The usual form: the length in characters is less than the bytes, and the rest is no request."""
    text = json.dumps({"eventType": "t", "eventData": {"a": "é" * 20}}, ensure_ascii=False)
    answer = await send_raw(targets, f"Content-Length: {len(text)}", text.encode())
    assert named(answer.status, answer.json()) in ("body", "request")
    assert "Content-Length" in answer.json()["data"]["problem"]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: x", b"{}"),
        ("Content-Length: -1", b"{}"),
        ("Content-Length: 2\r\nContent-Length: 3", b"{}"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", b"{}"),
        ("Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
        ("Content-Length: 2\r\nContent-Encoding: gzip", b"{}"),
        ("Content-Length: 99999999999999999999", b"{}"),
        ("Content-Length: 200000", b"{}"),
        ("X-Bad\x01: y", b""),
        ("no colon", b""),
    ],
)
async def test_framing_that_is_no_http(targets: Targets, head: str, body: bytes) -> None:
    answer = await send_raw(targets, head, body)
    assert answer.status == 403
    assert set(answer.json()) == {"reason", "data"}
    assert answer.json()["reason"] == "INVALID_PARAMETER"


async def test_client_that_leaves_within_body_disturbs_no_other(targets: Targets, node: NodeProcess) -> None:
    path, key = targets.target("device event")
    head = f"PUT {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {key}\r\nContent-Length: 100\r\n\r\n".encode()
    for _ in range(20):
        connection = await RawConnection.open(node.url)
        connection.writer.write(head + b'{"eventType"')
        await connection.writer.drain()
        await connection.reset()
    assert "Traceback" not in node.logged()


@pytest.mark.parametrize("length", [9_000, 200_000])
@pytest.mark.parametrize("path", ["/userSession/websocket", "/devices/1/command", "/healthz"])
async def test_long_query_is_answered_in_our_shape(targets: Targets, path: str, length: int) -> None:
    request = f"GET {path}?authToken={targets.user.key}&x={'x' * length} HTTP/1.1\r\nHost: h\r\n\r\n"
    answer = await raw_request(targets.tenant.url, request.encode())
    if path != "/healthz" or length > 100_000:
        assert answer.status == 403
        assert set(answer.json()) == {"reason", "data"}
    assert answer.status in (200, 403)


async def test_key_in_a_url_is_in_no_log(targets: Targets, node: NodeProcess) -> None:
    """Whatever is wrong with the request: refused by the parser, by the router, by us, or broken off."""
    url, secret = targets.tenant.url, targets.user.key
    queries = [
        f"authToken={secret}",
        f"authToken={secret}&homeId=x",
        f"authToken={secret}&x=" + "x" * 200_000,
        f"authToken={secret}&x=\x01",
        f"authToken={secret}&x=\xff\xfe",
        f"authToken={secret} HTTP/9.9 x",
        f"authToken={secret}\x00",
    ]
    for path in (
        "/userSession/websocket",
        "/devices/1/command",
        "/nowhere",
        f"/{secret}",
        f"/homes/{secret}/event",
    ):
        for method in ("GET", "PUT", "G\x00T", "get"):
            for query in queries:
                request = f"{method} {path}?{query} HTTP/1.1\r\nHost: h\r\n\r\n".encode("latin-1")
                answer = await raw_request(url, request)
                assert answer.status in (401, 403, 404, 405, 501), (method, path, query[:80], answer)
                assert set(answer.json()) == {"reason", "data"}
                assert secret not in answer.body.decode()
    for header in ("Authorization", "Sec-WebSocket-Protocol", "X-\x00"):
        head = f"GET /userSession/websocket HTTP/1.1\r\nHost: h\r\n{header}: {secret}\x01\r\n\r\n"
        assert (await raw_request(url, head.encode())).status in (401, 403)
    connection = await RawConnection.open(url)
    connection.writer.write(f"GET /userSession/websocket?authToken={secret}".encode())
    await connection.writer.drain()
    await connection.reset()
    log = node.logged()
    assert secret not in log
    assert secret.rpartition(".")[2] not in log
    assert "Traceback" not in log


async def test_unknown_method_is_405_and_an_unknown_path_404(targets: Targets) -> None:
    for path, allowed in (("/events", "POST"), ("/homes/1/event", "PUT")):
        async with targets.tenant.http.delete(path, headers={"Authorization": targets.tenant.key}) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)
            assert (await answer.json())["reason"] == "METHOD_NOT_ALLOWED"
    async with targets.tenant.http.get("/nowhere") as answer:
        assert (answer.status, (await answer.json())["reason"]) == (404, "NOT_FOUND")


async def test_unknown_expectation_is_refused_by_name(targets: Targets) -> None:
    for path in ("/events", "/homes"):
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\nExpect: tea\r\nContent-Length: 2\r\n\r\n{{}}"
        answer = await raw_request(targets.tenant.url, head.encode())
        assert (answer.status, answer.json()["data"]["field"]) == (403, "Expect")


@pytest.mark.parametrize("name", ["_deviceDisconnected_", "_keyValueSaved_", "_mine_", "__"])
async def test_event_types_of_the_platform_are_not_for_clients(targets: Targets, name: str) -> None:
    """A listener can trust them: neither a device nor a server can say that another device is gone."""
    event = {"eventType": name, "eventData": {}}
    for target in ("device event", "home event"):
        path, key = targets.target(target)
        assert named(*await targets.tenant.put(path, key, event)) == "eventType"
    items = [{**event, "homeId": targets.home}, {**event, "deviceId": targets.device.id}]
    headers = {"Authorization": targets.tenant.key}
    async with targets.tenant.http.post("/events", json=items, headers=headers) as answer:
        results = (await answer.json())["results"]
    for result in results:
        assert named(result["status"], {name: result[name] for name in ("reason", "data")}) == "eventType"


async def test_event_types_of_the_platform_can_be_allowed() -> None:
    with private_node(platform_event_types="true") as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            device = await tenant.device(home)
            async with await listen(node.url, "/userSession/websocket", user.key) as socket:
                event = {"eventType": "_mine_"}
                assert (await tenant.put(f"/devices/{device.id}/event", device.key, event))[0] == 204
                assert (await tenant.put(f"/homes/{home}/event", tenant.key, event))[0] == 204
                await tenant.send({**event, "homeId": home})
                assert [await socket.receive_type() for _ in range(3)] == ["_mine_"] * 3
