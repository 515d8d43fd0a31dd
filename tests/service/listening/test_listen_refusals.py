"""Who may open which WebSocket, and how a key may be given."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from kit.client import PING, PONG, Frame, Socket, frame, listen, raw_request, refusal, upgrade_request
from kit.node import NodeProcess
from kit.tenant import Tenant, tenant_of

EVENTS = "/userSession/websocket"
DEAD = "v1.1." + "A" * 43


@pytest.mark.parametrize(
    "key", [None, "", "garbage", "ModeCloud", "ModeCloud garbage", "v1.1.x", DEAD, "Basic YTpi"]
)
@pytest.mark.parametrize("path", [EVENTS, "/devices/1/command"])
async def test_without_a_living_key_it_is_401(node: NodeProcess, path: str, key: str | None) -> None:
    answer = await refusal(node.url, path, key)
    assert (answer.status, answer.json()) == (401, {"reason": "AUTHORIZATION_REQUIRED", "data": {}})


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe\xfd", b"ModeCloud \xe9", b"v1.1.\x80\x80", "v1.\u0661.é".encode()]
)
async def test_key_of_strange_bytes_is_401(node: NodeProcess, raw: bytes) -> None:
    for path in (EVENTS, "/devices/1/command"):
        answer = await refusal(node.url, path, raw.decode("utf-8", "surrogateescape"))
        assert answer.status == 401
    query = quote(raw)
    assert (await refusal(node.url, f"{EVENTS}?authToken={query}", None)).status == 401


async def test_events_are_for_users_only(tenant: Tenant) -> None:
    home = await tenant.home(await tenant.user())
    for key in (tenant.key, (await tenant.device(home)).key):
        for path in (EVENTS, f"{EVENTS}?homeId={home}", f"{EVENTS}?homeId=x"):
            answer = await refusal(tenant.url, path, key)
            assert (answer.status, answer.json()["reason"]) == (403, "PERMISSION_DENIED")


async def test_commands_are_for_the_device_itself_only(tenant: Tenant) -> None:
    user = await tenant.user()
    home = await tenant.home(user)
    device, other = await tenant.device(home), await tenant.device(home)
    paths = (f"/devices/{device.id}/command", "/devices/999999999/command", "/devices/x/command")
    for keys, status in (((user.key, tenant.key), 403), ((other.key,), 404)):
        answers = [await refusal(tenant.url, path, key) for key in keys for path in paths]
        assert {answer.status for answer in answers} == {status}
        assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("homeid", "homeId"),
        ("home", "homeId"),
        ("HomeID", "homeId"),
        ("home_id", "homeId"),
        ("homeIds", "homeId"),
        ("deviceid", "deviceId"),
        ("device", "deviceId"),
        ("entity", "entityId"),
        ("entityID", "entityId"),
        ("authtoken", "authToken"),
        ("auth_token", "authToken"),
    ],
)
async def test_misspelt_parameter_is_refused_and_named(tenant: Tenant, name: str, right: str) -> None:
    """Ignored, it would widen what is received, or leave the caller without a key."""
    user = await tenant.user()
    home = await tenant.home(user)
    answer = await refusal(tenant.url, f"{EVENTS}?homeId={home}&{name}={home}", user.key)
    assert (answer.status, answer.json()["data"]["field"]) == (403, right)
    async with await listen(tenant.url, f"{EVENTS}?homeId={home}&client=web&id=7", user.key) as socket:
        assert await socket.is_alive(), "others are ignored"


async def test_misspelt_token_is_not_taken_for_a_missing_key(tenant: Tenant) -> None:
    user = await tenant.user()
    device = await tenant.device(await tenant.home(user))
    for path, key in ((EVENTS, user.key), (f"/devices/{device.id}/command", device.key)):
        answer = await refusal(tenant.url, f"{path}?authtoken={key}", None)
        assert (answer.status, answer.json()["data"]["field"]) == (403, "authToken")
        assert key not in answer.body.decode()


@pytest.mark.parametrize("spelled", ["k%FCche", "%ff", "a%C3", "%ED%A0%80", "ok&entityId=k%FCche"])
async def test_entity_that_is_not_utf_8_is_refused(tenant: Tenant, spelled: str) -> None:
    """Else it would be the name with the escape in it, which no event has."""
    user = await tenant.user()
    answer = await refusal(tenant.url, f"{EVENTS}?entityId={spelled}", user.key)
    assert (answer.status, answer.json()["data"]["field"]) == (403, "entityId")
    async with await listen(tenant.url, f"{EVENTS}?entityId=k%25FCche", user.key) as socket:
        assert await socket.is_alive(), "a name with a percent sign is one"


async def test_device_without_a_home_may_wait_for_commands(tenant: Tenant) -> None:
    device = await tenant.device(None)
    path = f"/devices/{device.id}/command"
    async with await listen(tenant.url, path, device.key) as socket:
        assert await tenant.put(path, tenant.key, {"action": "blink"}) == (204, None)
        assert await socket.receive_text() == '{"action":"blink"}'


async def test_device_receives_its_commands_and_no_event(tenant: Tenant) -> None:
    user = await tenant.user()
    home = await tenant.home(user)
    device, other = await tenant.device(home), await tenant.device(home)
    async with (
        await listen(tenant.url, f"/devices/{device.id}/command", device.key) as socket,
        await listen(tenant.url, f"{EVENTS}?deviceId={device.id}", user.key) as listener,
    ):
        for _ in range(2):  # Two rounds: one read of the tail may turn two shards round.
            await tenant.put(f"/devices/{other.id}/command", user.key, {"action": "not yours"})
            await tenant.send({"deviceId": device.id, "eventType": "event"})
            await tenant.put(f"/devices/{device.id}/command", user.key, {"action": "yours"})
            assert await socket.receive_text() == '{"action":"yours"}'
            assert await listener.receive_type() == "event"
        assert await socket.is_alive()
        assert await listener.is_alive()


@pytest.mark.parametrize("path", [EVENTS, "/devices/{device}/command"])
async def test_plain_http_is_403_with_upgrade_header(tenant: Tenant, path: str) -> None:
    user = await tenant.user()
    device = await tenant.device(await tenant.home(user))
    key = user.key if path == EVENTS else device.key
    async with tenant.http.get(path.format(device=device.id), headers={"Authorization": key}) as answer:
        assert (answer.status, answer.headers["Upgrade"]) == (403, "websocket")
        assert "upgrade" in answer.headers["Connection"].lower()
        assert (await answer.json())["reason"] == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Sec_WebSocket_Version", "8"),
        ("Sec_WebSocket_Key", "short"),
        ("Sec_WebSocket_Key", "é" * 24),
        ("Sec_WebSocket_Key", "\udcff" * 24),
        ("Sec_WebSocket_Key", "?" * 24),
    ],
)
async def test_upgrade_that_rfc_6455_forbids(tenant: Tenant, header: str, value: str) -> None:
    user = await tenant.user()
    answer = await refusal(tenant.url, EVENTS, user.key, **{header: value})
    assert answer.status == 403
    assert answer.json()["data"]["field"] == header.replace("_", "-")


async def test_upgrade_of_http_1_0_is_refused(tenant: Tenant) -> None:
    """RFC 6455, section 4.2.1; a 101 would be no answer to it."""
    request, _ = upgrade_request(EVENTS, (await tenant.user()).key)
    answer = await raw_request(tenant.url, request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer.status == 403
    assert answer.headers["upgrade"] == "websocket"


async def test_connection_header_may_have_more_tokens_and_repeat(tenant: Tenant) -> None:
    user = await tenant.user()
    for connection in ("keep-alive, Upgrade", "upgrade", "keep-alive\r\nConnection: Upgrade"):
        async with await listen(tenant.url, EVENTS, user.key, Connection=connection) as socket:
            assert await socket.is_alive()


async def test_refused_upgrade_leaves_the_connection_usable(tenant: Tenant) -> None:
    user = await tenant.user()
    async with await Socket.open(tenant.url) as connection:
        await connection.ask(f"{EVENTS}?homeId=999999999", user.key)
        assert (await connection.read_answer()).status == 404
        await connection.ask(EVENTS, user.key, early=frame(PING, b"early"))
        await connection.accepted()
        assert await connection.receive() == Frame(PONG, b"early")


async def test_users_of_byou_projects_do_not_listen(node: NodeProcess) -> None:
    async with tenant_of(node, "byou") as tenant:
        user = await tenant.store.users.create(tenant.project, "u", external_key="u1")
        _, key = await tenant.session(user.id, "app")
        home = (await tenant.store.homes.create(tenant.project, "h", user.id)).id
        for path in (EVENTS, f"{EVENTS}?homeId={home}", f"{EVENTS}?entityId=e"):
            assert (await refusal(node.url, path, key)).status == 403


async def test_permission_based_access_is_closed(node: NodeProcess) -> None:
    async with tenant_of(node, access_control="permission") as tenant:
        user = await tenant.user()
        home = await tenant.home(user)
        device = await tenant.device(home)
        answer = await refusal(node.url, EVENTS, user.key)
        assert (answer.status, answer.json()["reason"]) == (403, "PERMISSION_DENIED")
        for query in (f"?homeId={home}", f"?deviceId={device.id}", "?entityId=e"):
            answer = await refusal(node.url, EVENTS + query, user.key)
            assert (answer.status, answer.json()["reason"]) == (404, "NOT_FOUND")
        async with await listen(node.url, f"/devices/{device.id}/command", device.key) as socket:
            assert await socket.is_alive()


@pytest.mark.parametrize("scheme", ["ModeCloud {}", "modecloud {}", "Bearer {}", "bearer  {}", "{}", " {} "])
async def test_schemes_of_the_authorization_header(tenant: Tenant, scheme: str) -> None:
    user = await tenant.user()
    async with await listen(tenant.url, EVENTS, scheme.format(user.key)) as socket:
        assert await socket.is_alive()


async def test_key_may_be_an_auth_token(tenant: Tenant) -> None:
    user = await tenant.user()
    device = await tenant.device(await tenant.home(user))
    for path, key in ((EVENTS, user.key), (f"/devices/{device.id}/command", device.key)):
        every_byte = "".join(f"%{ord(character):02x}" for character in key)
        for token in (key, every_byte, quote(f"ModeCloud {key}"), f"Bearer+{key}"):
            async with await listen(tenant.url, f"{path}?authToken={token}", None) as socket:
                assert await socket.is_alive()


async def test_authorization_wins_over_auth_token(tenant: Tenant) -> None:
    user, other = await tenant.user(), await tenant.user()
    home = await tenant.home(user)
    path = f"{EVENTS}?homeId={home}&authToken="
    async with await listen(tenant.url, path + other.key, user.key) as socket:
        assert await socket.is_alive()
    assert (await refusal(tenant.url, path + user.key, other.key)).status == 404
    assert (await refusal(tenant.url, path + user.key, DEAD)).status == 401


async def test_auth_token_is_for_websockets_only(tenant: Tenant) -> None:
    device = await tenant.device(await tenant.home(await tenant.user()))
    path = f"/devices/{device.id}/event?authToken={device.key}"
    async with tenant.http.put(path, json={"eventType": "t"}) as answer:
        assert answer.status == 401


async def test_ended_session_and_a_rotated_key_are_401(tenant: Tenant) -> None:
    """Within the second that a node remembers a key; these keys were never used before."""
    user = await tenant.store.users.create(tenant.project, "u", email="ended@example.com")
    session, key = await tenant.session(user.id, "app")
    await tenant.store.sessions.end(tenant.project, session.id)
    assert (await refusal(tenant.url, EVENTS, key)).status == 401
    device = await tenant.device(await tenant.home(await tenant.user()))
    fresh = await tenant.store.devices.rotate_key(tenant.project, device.id)
    path = f"/devices/{device.id}/command"
    assert (await refusal(tenant.url, path, device.key)).status == 401
    async with await listen(tenant.url, path, fresh) as socket:
        assert await socket.is_alive()
