"""The ingest handlers over HTTP, with the real bus and a real server; who is who is the test's own table."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import BaseTestServer, TestServer
from redis.asyncio import Redis

from homewire._core import shard_of
from homewire.auth.access import Authorisation
from homewire.auth.models import DeviceContext, Principal, PrincipalKind
from homewire.bus.append import Bus
from homewire.devices.models import DeviceLocation
from homewire.errors import RequestError, Unauthenticated
from homewire.events.api import routes
from homewire.events.context import EventContext
from homewire.limits.rates import Rates
from homewire.projects.models import KeyScope, Project
from homewire.server.requests import BodyReader
from homewire.settings import Settings
from kit.manual_clock import ManualClock
from kit.redis_server import TIMEOUT_S, BusServer, envelopes_of, eventually, running_bus, running_server

NOW_MS = 1_700_000_000_123
SENDER = Principal(PrincipalKind.PROJECT_KEY, 1, 70, 0, "server", frozenset(KeyScope))
KEYS = {
    "device": Principal(PrincipalKind.DEVICE, 1, 11, 0, "sprinkler"),
    "homeless": Principal(PrincipalKind.DEVICE, 1, 12, 0, "sprinkler"),
    "user": Principal(PrincipalKind.USER, 1, 5, 0, "app"),
    "stranger": Principal(PrincipalKind.USER, 1, 6, 0, "app"),
    "sender": SENDER,
    "reader": Principal(PrincipalKind.PROJECT_KEY, 1, 71, 0, "reader", frozenset({KeyScope.READ})),
    "elsewhere": Principal(PrincipalKind.PROJECT_KEY, 2, 72, 0, "other", frozenset(KeyScope)),
}
HOMES = {1: {100, 101}, 2: {200}}
DEVICES = {
    (1, 11): DeviceLocation(100, "sprinkler"),
    (1, 12): DeviceLocation(None, "sprinkler"),
    (2, 21): DeviceLocation(200, "lamp"),
}
MEMBERS = {(1, 5): {100}}
BOUND = "kitchen"
"""An entity that is bound to home 101."""


class Places:
    """The directory as a table."""

    async def locate(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        return {one: DEVICES[project_id, one] for one in device_ids if (project_id, one) in DEVICES}

    locate_now = locate

    async def device_context(self, project_id: int, device_id: int) -> DeviceContext | None:
        location = DEVICES.get((project_id, device_id))
        if location is None or location.home_id is None:
            return None
        return DeviceContext(device_id, location.home_id, location.device_class)

    async def user_exists(self, project_id: int, user_id: int) -> bool:
        raise AssertionError("neither events nor commands name a user")

    async def existing_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        return HOMES[project_id].intersection(home_ids)

    async def active_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        return await self.existing_homes(project_id, home_ids)

    async def member_of(self, project_id: int, user_id: int, home_ids: Collection[int]) -> set[int]:
        return MEMBERS.get((project_id, user_id), set()).intersection(home_ids)

    async def entity_homes(self, project_id: int, entity_ids: Collection[str]) -> dict[str, int]:
        return {each: 101 for each in entity_ids if each == BOUND}

    async def project(self, project_id: int) -> Project | None:
        return None

    async def permissions_of(self, project_id: int, user_id: int, wanted: Collection[str]) -> set[str]:
        raise AssertionError("memberships say who may")


async def authenticate(request: web.Request) -> Principal:
    try:
        return KEYS[request.headers["Authorization"]]
    except KeyError as error:
        raise Unauthenticated from error


@web.middleware
async def render(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        body = {"reason": error.reason, "data": error.data}
        return web.json_response(body, status=error.status, headers=error.headers)


@dataclass
class Client:
    """Sends requests with one of `KEYS`, and reads what came out of the bus."""

    session: ClientSession
    server: BaseTestServer
    redis: Redis
    bus: Bus
    redis_server: BusServer

    async def send(
        self, method: str, path: str, key: str | None, body: Any = b"", **headers: str
    ) -> tuple[int, Any]:
        if key is not None:
            headers["Authorization"] = key
        data = io.BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, self.server.make_url(path), data=data, headers=named
        ) as answer:
            text = await answer.read()
            if answer.status == 503:
                assert "Retry-After" in answer.headers
            return answer.status, orjson.loads(text) if text else None

    async def refused(
        self, status: int, field: str, method: str, path: str, key: str, body: Any, **headers: str
    ) -> Any:
        got, answer = await self.send(method, path, key, body, **headers)
        assert (got, answer["data"].get("field")) == (status, field), answer
        return answer

    async def stored(self) -> list[tuple[list[Any], bytes]]:
        """Header and body of everything in the bus, shard by shard."""
        found = []
        for shard in range(64):
            for envelope in await envelopes_of(self.redis, shard):
                assert envelope[:1] == b"\x01"
                unpacker = msgpack.Unpacker()
                unpacker.feed(envelope[1:])
                header = unpacker.unpack()
                found.append((header, envelope[1 + unpacker.tell() :]))
                assert shard == shard_of(header[2], 64)
        return found


@pytest.fixture
def redis_server() -> Iterator[BusServer]:
    with running_server() as running:
        yield running


@dataclass(frozen=True)
class Bounds:
    """How long the service waits, in seconds: for nothing, unless a test says so. And bytes of a device."""

    answer: float = 2 * TIMEOUT_S
    silence: float = 2 * TIMEOUT_S
    body: float = 3 * TIMEOUT_S
    device_event_bytes_per_s: int = 0


@pytest.fixture
def bounds() -> Bounds:
    return Bounds()


@pytest.fixture
async def client(
    redis_server: BusServer, bounds: Bounds, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Client]:
    async with running_bus(redis_server, answer_timeout=bounds.answer, outage_grace=0.2) as bus:
        reader = BodyReader(silence=bounds.silence, timeout=bounds.body)
        clock = ManualClock(NOW_MS)
        settings = Settings(device_event_bytes_per_s=bounds.device_event_bytes_per_s)
        context = EventContext(
            bus,
            authenticate,
            Authorisation(cast(Any, Places())),
            # The second of the limits does not end while a test runs.
            Rates(settings, clock.now_s),
            clock=clock,
            reader=reader,
        )
        app = web.Application(middlewares=[render])
        app.add_routes(routes(context))
        async with TestServer(app) as server, ClientSession() as session, redis_server.client() as redis:
            yield Client(session, server, redis, bus, redis_server)
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert not [record for record in records if record.levelno >= logging.ERROR]


EVENT = {"eventType": "sprinkler-status", "eventData": {"zones": [0, 1], "serial": 12}}
DEVICE_PATH, HOME_PATH, COMMAND_PATH = "/devices/11/event", "/homes/100/event", "/devices/11/command"


@pytest.mark.parametrize("bounds", [Bounds(device_event_bytes_per_s=100)])
async def test_bytes_of_single_events_count_against_the_limit_of_the_device(client: Client) -> None:
    body = {"eventType": "t", "eventData": {"text": "x" * 100}}
    assert (await client.send("PUT", DEVICE_PATH, "device", body))[0] == 204
    status, answer = await client.send("PUT", DEVICE_PATH, "device", body)
    assert (status, answer["data"]["limit"]) == (429, "device_event_bytes_per_s")


@pytest.mark.parametrize(("path", "key"), [(DEVICE_PATH, "device"), (HOME_PATH, "sender")])
async def test_single_event_about_an_entity_of_another_home_is_refused(
    client: Client, path: str, key: str
) -> None:
    await client.refused(403, "entityId", "PUT", path, key, {"eventType": "t", "entityId": BOUND})
    assert (await client.send("PUT", path, key, {"eventType": "t", "entityId": "elsewhere"}))[0] == 204
    assert [header[4] for header, _ in await client.stored()] == ["elsewhere"]


@pytest.mark.parametrize(("path", "key"), [(DEVICE_PATH, "device"), (HOME_PATH, "sender")])
async def test_single_event_of_a_type_of_the_platform_is_refused(client: Client, path: str, key: str) -> None:
    await client.refused(403, "eventType", "PUT", path, key, {"eventType": "_deviceConnected_"})
    assert await client.stored() == []


async def test_device_event_is_stamped_and_kept_byte_for_byte(client: Client) -> None:
    body = b'{"eventType":"t","eventData":{"big":12345678901234567890123,"f":1.10},"homeId":9}'
    assert await client.send("PUT", DEVICE_PATH, "device", body) == (204, None)
    ((header, data),) = await client.stored()
    assert header == [1, 1, 100, 11, None, NOW_MS, "t", "sprinkler", "127.0.0.1", 0, None]
    assert data == b'{"big":12345678901234567890123,"f":1.10}'


async def test_home_event_names_its_project_key_and_entity(client: Client) -> None:
    assert (await client.send("PUT", HOME_PATH, "sender", {**EVENT, "entityId": "lamp-1"}))[0] == 204
    ((header, _),) = await client.stored()
    assert header == [1, 1, 100, 0, "lamp-1", NOW_MS, "sprinkler-status", None, None, 70, "server"]


async def test_command_goes_to_the_shard_of_its_device(client: Client) -> None:
    body = b'{"action":"on","parameters":{"zone":2.0}}'
    for key in ("user", "sender"):
        assert await client.send("PUT", COMMAND_PATH, key, body) == (204, None)
    assert await client.send("PUT", "/devices/12/command", "sender", body) == (204, None)
    stored = await client.stored()
    assert sorted(header[2] for header, _ in stored) == [11, 11, 12]
    assert stored[0] == ([2, 1, stored[0][0][2], NOW_MS, "on"], b'{"zone":2.0}')


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (DEVICE_PATH, None, 401),
        (DEVICE_PATH, "dead", 401),
        (DEVICE_PATH, "user", 403),
        (DEVICE_PATH, "sender", 403),
        ("/devices/12/event", "device", 404),
        ("/devices/99/event", "device", 404),
        ("/devices/eleven/event", "device", 404),
        ("/devices/11.0/event", "device", 404),
        ("/devices/-11/event", "device", 404),
        ("/devices/0/event", "device", 404),
        ("/devices/99999999999999999999999/event", "device", 404),
        ("/devices/%D9%A1%D9%A1/event", "device", 404),
        ("/devices/twelve/event", "user", 403),
        ("/devices/12/event", "homeless", 403),
        (HOME_PATH, None, 401),
        (HOME_PATH, "device", 403),
        (HOME_PATH, "user", 403),
        (HOME_PATH, "reader", 403),
        (HOME_PATH, "elsewhere", 404),
        ("/homes/999/event", "sender", 404),
        ("/homes/x/event", "sender", 404),
        (COMMAND_PATH, None, 401),
        (COMMAND_PATH, "device", 403),
        (COMMAND_PATH, "reader", 403),
        (COMMAND_PATH, "stranger", 404),
        (COMMAND_PATH, "elsewhere", 404),
        ("/devices/12/command", "user", 404),
        ("/devices/99/command", "user", 404),
        ("/devices/99/command", "sender", 404),
        ("/devices/21/command", "sender", 404),
    ],
)
async def test_callers_without_scope_are_refused(
    client: Client, path: str, key: str | None, status: int
) -> None:
    body = {**EVENT, "action": "on"}
    got, answer = await client.send("PUT", path, key, body)
    assert got == status
    assert set(answer) == {"reason", "data"}
    if status == 404:
        assert answer == {"reason": "NOT_FOUND", "data": {}}
    assert await client.send("PUT", path, key, b"not json") == (got, answer), "the body must not matter"
    assert await client.stored() == []


async def test_event_of_device_without_home_is_explained(client: Client) -> None:
    answer = await client.refused(403, "deviceId", "PUT", "/devices/12/event", "homeless", EVENT)
    assert answer["reason"] == "DEVICE_NOT_IN_HOME"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"not json", "body"),
        (b"[]", "body"),
        (b'{"eventType":""}', "eventType"),
        (b"{}", "eventType"),
        (b'{"eventType":"t","eventData":[1]}', "eventData"),
        (b'{"eventType":"t","eventData":' + b'{"a":' * 100 + b"1" + b"}" * 101, "eventData"),
        (b'{"eventType":"t","eventData":{"a":"' + b"x" * 66_000 + b'"}}', "eventData"),
        (b'{"eventType":"' + b"x" * 90_000 + b'"}', "body"),
    ],
)
@pytest.mark.parametrize(("path", "key"), [(DEVICE_PATH, "device"), (HOME_PATH, "sender")])
async def test_bad_bodies(client: Client, path: str, key: str, body: bytes, field: str) -> None:
    await client.refused(403, field, "PUT", path, key, body)
    assert await client.stored() == []


HEAD = f"PUT {DEVICE_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: device\r\n".encode()


async def raw(client: Client, framing: bytes, body: bytes) -> bytes:
    """What the server answers to bytes that no HTTP library would send; until it closes."""
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(HEAD + framing + b"\r\n\r\n" + body)
    async with asyncio.timeout(TIMEOUT_S):
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        answer += await reader.readexactly(length)
    writer.close()
    return answer


@pytest.mark.parametrize("bounds", [Bounds(silence=0.3)])
async def test_short_body_is_answered_not_waited_for(client: Client) -> None:
    answer = await raw(client, b"Content-Length: 40", b'{"eventType":"t"}')
    assert b" 403 " in answer
    assert b'"field": "body"' in answer
    assert b"connection: close" in answer.lower()
    assert await client.stored() == []


@pytest.mark.parametrize("bounds", [Bounds(body=0.6)])
async def test_dripping_body_ends_at_the_total_timeout(client: Client) -> None:
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b'5\r\n{"eve\r\n')
    answering = asyncio.create_task(reader.readuntil(b"\r\n"))
    async with asyncio.timeout(TIMEOUT_S):
        while not answering.done():
            writer.write(b"1\r\nx\r\n")
            await asyncio.wait([answering], timeout=0.1)
    assert b" 403 " in answering.result()
    writer.close()


async def test_announced_giant_is_refused_before_it_comes(client: Client) -> None:
    # It waits less than the service does for a body.
    answer = await raw(client, b"Content-Length: 1000000000", b"")
    assert b" 403 " in answer
    assert b"larger than" in answer


async def test_endless_chunked_body_is_cut_off(client: Client) -> None:
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    answer = await raw(client, b"Transfer-Encoding: chunked", chunk * 8)
    assert b" 403 " in answer
    assert b"larger than" in answer


# aiohttp's parser does not tell the body's reader: that receives nothing more.
@pytest.mark.parametrize("bounds", [Bounds(silence=1.0)])
async def test_chunk_that_breaks_later_is_refused(client: Client) -> None:
    reader, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
    # Broken in the segment with the head, it is the parser's to answer.
    assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"1\r\n{\r\nzz\r\n")
    assert b" 403 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def test_client_that_leaves_in_the_middle_is_no_error(client: Client) -> None:
    _, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(HEAD + b"Content-Length: 40\r\n\r\n{")
    # The server reads the head, and then the end. Neither has an event.
    await asyncio.sleep(0.05)
    writer.transport.abort()
    # Likewise.
    await asyncio.sleep(0.05)
    assert (await client.send("PUT", DEVICE_PATH, "device", EVENT))[0] == 204


async def test_gzip_good_damaged_and_bomb(client: Client) -> None:
    good = gzip.compress(orjson.dumps(EVENT))
    encoded = {"Content_Encoding": "gzip"}
    assert (await client.send("PUT", DEVICE_PATH, "device", good, **encoded))[0] == 204
    damaged = good[:12] + bytes(byte ^ 0x55 for byte in good[12:])
    await client.refused(403, "body", "PUT", DEVICE_PATH, "device", damaged, **encoded)
    await client.refused(403, "body", "PUT", DEVICE_PATH, "device", b"no gzip at all", **encoded)
    await client.refused(403, "body", "PUT", DEVICE_PATH, "device", good[:-12], **encoded)
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 80_000
    await client.refused(403, "body", "PUT", DEVICE_PATH, "device", bomb, **encoded)
    assert (await client.send("PUT", DEVICE_PATH, "device", EVENT))[0] == 204
    assert len(await client.stored()) == 2


@pytest.mark.parametrize("bounds", [Bounds(answer=2.0)])
async def test_redis_gone_and_hung_are_503_and_then_it_goes_on(client: Client) -> None:
    client.redis_server.hang()
    status, answer = await client.send("PUT", DEVICE_PATH, "device", EVENT)
    assert (status, answer["reason"]) == (503, "NOT_CONFIRMED")
    client.redis_server.go_on()
    client.redis_server.kill()
    await eventually(lambda: not client.bus.connected)
    for method, path, key, body in [
        ("PUT", DEVICE_PATH, "device", EVENT),
        ("PUT", COMMAND_PATH, "user", {"action": "on"}),
        ("POST", "/events", "sender", [{**EVENT, "homeId": 100}]),
    ]:
        assert (await client.send(method, path, key, body))[0] == 503
    assert (await client.send("POST", "/events", "sender", [{**EVENT, "homeId": 999}]))[0] == 200
    await asyncio.to_thread(client.redis_server.start)
    await eventually(lambda: client.bus.connected)
    assert (await client.send("PUT", DEVICE_PATH, "device", EVENT))[0] == 204


BULK = [
    {**EVENT, "homeId": 100},
    {**EVENT, "homeId": 999},
    {**EVENT, "deviceId": 11, "entityId": "e"},
    {**EVENT, "deviceId": 12},
    {"homeId": 100},
    {**EVENT, "homeId": 101},
]


@pytest.mark.parametrize("form", ["array", "ndjson"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "k"}])
async def test_bulk_answers_each_item_in_order(client: Client, form: str, headers: dict[str, str]) -> None:
    body = orjson.dumps(BULK) if form == "array" else b"\n".join(orjson.dumps(item) for item in BULK)
    status, answer = await client.send("POST", "/events", "sender", body, **headers)
    assert status == 200
    results = answer["results"]
    assert [result["status"] for result in results] == [204, 404, 204, 403, 403, 204]
    assert results[3]["reason"] == "DEVICE_NOT_IN_HOME"
    assert results[4]["data"]["field"] == "eventType"
    for index, home in ((0, 100), (2, 100), (5, 101)):
        shard, _, stream_id = results[index]["id"].partition(".")
        assert int(shard) == shard_of(home, 64)
        assert await client.redis.xrange(f"hw:{{e{shard}}}:events", stream_id, stream_id)
    assert len(await client.stored()) == 3


async def test_bulk_is_refused_whole_only_for_faults_of_the_body(client: Client) -> None:
    await client.refused(403, "body", "POST", "/events", "sender", [{**EVENT, "homeId": 100}] * 1001)
    await client.refused(403, "body", "POST", "/events", "sender", b" " * (4096 * 1024 + 1))
    assert (await client.send("POST", "/events", "device", BULK))[0] == 403
    assert (await client.send("POST", "/events", "reader", BULK))[0] == 403
    assert (await client.send("POST", "/events", None, BULK))[0] == 401
    assert await client.stored() == []


@pytest.mark.parametrize(
    ("path", "key"), [(DEVICE_PATH, "device"), (HOME_PATH, "sender"), (COMMAND_PATH, "user")]
)
async def test_idempotency_key_makes_one_event_of_many_requests(client: Client, path: str, key: str) -> None:
    body = {**EVENT, "action": "on"}
    requests = [client.send("PUT", path, key, body, Idempotency_Key="k1") for _ in range(5)]
    assert await asyncio.gather(*requests) == [(204, None)] * 5
    assert len(await client.stored()) == 1
    answer = await client.refused(
        403, "Idempotency-Key", "PUT", path, key, {**body, "more": 1}, Idempotency_Key="k1"
    )
    assert answer["reason"] == "IDEMPOTENCY_KEY_REUSED"
    assert await client.send("PUT", path, key, body, Idempotency_Key="k2") == (204, None)
    assert len(await client.stored()) == 2


async def test_idempotency_key_is_its_sender_s_own(client: Client) -> None:
    body = {**EVENT, "action": "on"}
    for path, key in [(COMMAND_PATH, "user"), (COMMAND_PATH, "sender"), ("/devices/12/command", "sender")]:
        assert await client.send("PUT", path, key, body, Idempotency_Key="same") == (204, None)
    assert len(await client.stored()) == 3


@pytest.mark.parametrize("value", ["", "x" * 256, "two words", "ümlaut"])
async def test_impossible_idempotency_key_is_named(client: Client, value: str) -> None:
    await client.refused(
        403, "Idempotency-Key", "PUT", DEVICE_PATH, "device", EVENT, Idempotency_Key=value
    )  # fmt: skip
    assert await client.stored() == []


async def test_retried_bulk_appends_missing_events_only(client: Client) -> None:
    body = [{**EVENT, "homeId": home} for home in (100, 101, 100, 101)]
    blocked = f"hw:{{e{shard_of(101, 64)}}}:events"
    assert shard_of(100, 64) != shard_of(101, 64)
    await client.redis.set(blocked, "no stream")
    _, first = await client.send("POST", "/events", "sender", body, Idempotency_Key="k")
    assert [result["status"] for result in first["results"]] == [204, 503, 204, 503]
    await client.redis.delete(blocked)
    _, second = await client.send("POST", "/events", "sender", body, Idempotency_Key="k")
    assert [result["status"] for result in second["results"]] == [204] * 4
    assert (second["results"][0], second["results"][2]) == (first["results"][0], first["results"][2])
    assert await client.send("POST", "/events", "sender", body, Idempotency_Key="k") == (200, second)
    assert len(await client.stored()) == 4


async def test_bulk_with_another_body_is_refused_even_if_it_goes_elsewhere(client: Client) -> None:
    await client.send("POST", "/events", "sender", [{**EVENT, "homeId": 100}], Idempotency_Key="k")
    other = [{**EVENT, "homeId": 101}]
    answer = await client.refused(
        403, "Idempotency-Key", "POST", "/events", "sender", other, Idempotency_Key="k"
    )
    assert answer["reason"] == "IDEMPOTENCY_KEY_REUSED"
    assert len(await client.stored()) == 1
