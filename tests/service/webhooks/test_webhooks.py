"""Webhooks: who is told of which events, what exactly they get, and what they cost the others."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from kit.client import TIMEOUT_S, listen
from kit.clock import a_later_moment
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import Tenant, tenant_of
from kit.warm import run_homewire
from kit.webhook_receiver import (
    Received,
    Receiver,
    error_of_test_event,
    receiving,
    register,
    rotated_key,
    send,
)


@pytest.fixture(scope="module")
def hooks() -> Iterator[NodeProcess]:
    """A node whose webhooks may be on loopback, and have longer to answer than anything takes here."""
    with private_node(webhook_private_addresses="true", webhook_timeout_s=600) as running:
        yield running


@pytest_asyncio.fixture
async def tenant(hooks: NodeProcess) -> AsyncIterator[Tenant]:
    async with tenant_of(hooks) as made:
        yield made


async def waiting(tenant: Tenant, module: str = "hook") -> int:
    """How many deliveries are not done."""
    return int(await tenant.redis.xlen(tenant.slot.module_deliveries(module)))


async def test_event_arrives_signed_and_as_listeners_get_it(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    user = await tenant.user()
    device = await tenant.device(await tenant.home(user))
    socket = await listen(tenant.url, "/userSession/websocket", user.key)
    key = await register(tenant, hooks, receiver.url, "temperature")
    body = b'{"eventType":"temperature","eventData":{"exact": 9007199254740993.10,"text":"\xc3\xa9"}}'
    status, _ = await tenant.put(f"/devices/{device.id}/event", device.key, body)
    assert status == 204
    received = await receiver.next()
    assert received.body.decode() == await socket.receive_text()
    assert received.event["originDeviceId"] == device.id
    assert received.method == "POST"
    assert received.path == "/hook?a=b%20c&d=%C3%A9"
    assert received.headers["Content-Type"] == "application/json"
    assert received.is_signed(key, receiver.url)
    assert not received.is_signed(key + "x", receiver.url)
    await socket.drop()


def documented() -> Any:
    """The receiver's check of docs/api/webhooks.md, as it stands there."""
    text = (Path(__file__).parents[3] / "docs/api/webhooks.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    return names["is_genuine"]


async def test_receiver_checks_time_id_url_and_body_as_documented(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    is_genuine, url = documented(), receiver.url
    home = await tenant.home(await tenant.user())
    key = await register(tenant, hooks, url)
    before = int(time.time())
    await send(tenant, home, 1)
    got = await receiver.next()
    headers, body = got.headers, got.body
    sent_at = int(headers["X-Homewire-Signature"].split(",")[0].removeprefix("t="))
    assert before <= sent_at <= time.time()
    assert is_genuine(headers, body, [key], url)
    assert not is_genuine(headers, body, [key], url, now=sent_at + 301), "recorded, and posted again"
    assert not is_genuine({**headers, "X-Mode-Event-Id": "0.1-1"}, body, [key], url), "under a fresh id"
    later = headers["X-Homewire-Signature"].replace(f"t={sent_at}", f"t={sent_at + 100}")
    assert not is_genuine({**headers, "X-Homewire-Signature": later}, body, [key], url)
    assert not is_genuine(headers, body + b" ", [key], url)
    assert not is_genuine(headers, body, [key], url + "/")
    assert not is_genuine(headers, body, ["another"], url)
    assert not is_genuine({}, body, [key], url)


async def test_both_keys_sign_while_one_is_being_replaced(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    is_genuine, url = documented(), receiver.url
    home = await tenant.home(await tenant.user())
    old = await register(tenant, hooks, url)
    await send(tenant, home, 1)
    assert is_genuine_only(is_genuine, await receiver.next(), url, [old], [])
    new = await rotated_key(tenant, hooks, 3600)
    await send(tenant, home, 2)
    got = await receiver.next()
    assert is_genuine_only(is_genuine, got, url, [old, new], [])
    assert got.is_signed(old, url), "who knows only the other signature knows only the old key"
    last = await rotated_key(tenant, hooks, 0)
    await send(tenant, home, 3)
    got = await receiver.next()
    assert is_genuine_only(is_genuine, got, url, [last], [old, new])
    assert got.is_signed(last, url)
    newest = await rotated_key(tenant, hooks, 0.001)
    # The overlap of 1 ms has to pass.
    for _ in range(2):
        await a_later_moment(tenant)
    await send(tenant, home, 4)
    assert is_genuine_only(is_genuine, await receiver.next(), url, [newest], [last])


def is_genuine_only(check: Any, got: Received, url: str, right: list[str], wrong: list[str]) -> bool:
    """Whether each of the `right` keys signed, and none of the `wrong` ones."""
    signed = [key for key in (*right, *wrong) if check(got.headers, got.body, [key], url)]
    return signed == right and got.headers["X-Homewire-Signature"].count("v1=") == len(right)


async def test_event_id_is_its_place_in_the_shards(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, hooks, receiver.url)
    event = {"homeId": home, "eventType": "e"}
    async with tenant.http.post("/events", json=[event], headers={"Authorization": tenant.key}) as answer:
        accepted = (await answer.json())["results"][0]["id"]
    assert (await receiver.next()).event_id == accepted


async def test_foreign_entry_blocks_no_delivery(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, hooks, receiver.url)
    stream = tenant.slot.module_deliveries("hook")
    garbage: list[dict[Any, Any]] = [{"x": "y"}, {"i": b"\xff"}, {"e": b"\xff"}, {"i": "id", "e": ""}]
    for fields in garbage:
        await tenant.redis.xadd(stream, fields)
    await send(tenant, home, 1)
    assert await receiver.numbers(1) == [1]
    await eventually(lambda: _is(waiting(tenant), 0))


async def test_module_receives_subscribed_events_since_creation(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await send(tenant, home, 1, event_type="wanted")
    await a_later_moment(tenant)
    await register(tenant, hooks, receiver.url, "wanted", "also")
    await send(tenant, home, 2, event_type="wanted")
    await send(tenant, home, 3, event_type="wanted.not")
    await send(tenant, home, 4, event_type="Wanted")
    await send(tenant, home, 5, event_type="also")
    await send(tenant, home, 6, event_type="wanted")
    assert sorted(await receiver.numbers(3)) == [2, 5, 6]
    await eventually(lambda: _is(waiting(tenant), 0))
    assert len(receiver.all) == 3


async def test_new_module_misses_no_event(tenant: Tenant, hooks: NodeProcess, receiver: Receiver) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, hooks, receiver.url, "old")
    await send(tenant, home, 0, event_type="old")
    assert await receiver.numbers(1) == [0]
    for number in range(1, 6):
        await register(tenant, hooks, receiver.url, f"new{number}", module=f"m{number}")
        await send(tenant, home, number, event_type=f"new{number}")
        assert await receiver.numbers(1) == [number]


async def test_module_of_named_homes_receives_no_other(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    owner = await tenant.user()
    first, second, third = [await tenant.home(owner) for _ in range(3)]
    await register(tenant, hooks, receiver.url, homes=[first, third])
    await send(tenant, second, 2)
    await send(tenant, first, 1)
    await send(tenant, third, 3)
    assert sorted(await receiver.numbers(2)) == [1, 3]
    await eventually(lambda: _is(waiting(tenant), 0))
    assert len(receiver.all) == 2


async def test_nothing_crosses_projects(tenant: Tenant, hooks: NodeProcess, receiver: Receiver) -> None:
    async with tenant_of(hooks) as other, receiving() as others:
        await register(tenant, hooks, receiver.url)
        await register(other, hooks, others.url)
        await send(other, await other.home(await other.user()), 2)
        await send(tenant, await tenant.home(await tenant.user()), 1)
        assert await receiver.numbers(1) == [1]
        assert await others.numbers(1) == [2]
        assert len(receiver.all) == len(others.all) == 1


async def test_several_modules_each_get_it(tenant: Tenant, hooks: NodeProcess, receiver: Receiver) -> None:
    home = await tenant.home(await tenant.user())
    async with receiving() as second:
        await register(tenant, hooks, receiver.url)
        await register(tenant, hooks, second.url, "e", module="second")
        await send(tenant, home, *range(500))
        assert sorted(await receiver.numbers(500)) == list(range(500))
        assert sorted(await second.numbers(500)) == list(range(500))


async def test_slow_receiver_delays_no_other(tenant: Tenant, hooks: NodeProcess, receiver: Receiver) -> None:
    let_go = asyncio.Event()

    async def never(_: Received) -> int:
        await let_go.wait()
        return 200

    receiver.answer = never
    user = await tenant.user()
    home = await tenant.home(user)
    socket = await listen(tenant.url, "/userSession/websocket", user.key)
    async with receiving() as quick:
        await register(tenant, hooks, receiver.url)
        await register(tenant, hooks, quick.url, module="quick")
        await send(tenant, home, 0)
        await receiver.next()
        await quick.next()
        assert (await socket.receive_json())["eventData"] == {"n": 0}
        for number in range(1, 50):
            await send(tenant, home, number)
            assert (await socket.receive_json())["eventData"] == {"n": number}
        assert len(await quick.numbers(49)) == 49
        await eventually(lambda: _is(waiting(tenant), 50))  # The slow one took nothing.
        await receiver.numbers(7)
        # Whoever got an eighth and a first event since then might have got a ninth as well.
        await send(tenant, home, 50)
        assert await quick.numbers(1) == [50]
        assert len(receiver.all) == 8, "no more at once than the setting says"
        let_go.set()
    await socket.drop()


async def test_long_answer_is_not_read(tenant: Tenant, hooks: NodeProcess, receiver: Receiver) -> None:
    written = 0
    broken = asyncio.Event()

    app = web.Application()

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65_536))
                written += 65_536
        except OSError:
            broken.set()
        return response

    app.router.add_post("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    await register(tenant, hooks, f"http://127.0.0.1:{port}/")
    await send(tenant, await tenant.home(await tenant.user()), 1)
    # Long before the answer is given up.
    async with asyncio.timeout(TIMEOUT_S):
        await broken.wait()
    assert written < 16 * 1024 * 1024, "what the kernel's buffers hold"
    await eventually(lambda: _is(waiting(tenant), 0))
    await runner.cleanup()


async def test_suspended_module_gets_everything_later(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, hooks, receiver.url)
    await tenant.store.smart_modules.suspend(tenant.project, "hook")
    await send(tenant, home, 1, 2, 3)
    await eventually(lambda: _is(waiting(tenant), 3))
    assert not receiver.all
    await tenant.store.smart_modules.resume(tenant.project, "hook")
    assert sorted(await receiver.numbers(3)) == [1, 2, 3]


async def test_deleted_module_receives_and_leaves_nothing(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    async def refuse(_: Received) -> int:
        return 500

    receiver.answer = refuse
    home = await tenant.home(await tenant.user())
    before = await names(tenant)
    await register(tenant, hooks, receiver.url)
    await send(tenant, home, 1)
    await receiver.next()
    await tenant.store.smart_modules.delete(tenant.project, "hook")
    assert await names(tenant) == before
    await send(tenant, home, 2)
    await a_later_moment(tenant)
    async with receiving() as after:
        await register(tenant, hooks, after.url)
        await send(tenant, home, 3)
        assert await after.numbers(1) == [3], "of the same id, but another"
    await tenant.store.smart_modules.delete(tenant.project, "hook")
    assert await names(tenant) == before


async def test_queued_deliveries_are_deleted_with_home(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver
) -> None:
    owner = await tenant.user()
    gone, home = await tenant.home(owner), await tenant.home(owner)
    await register(tenant, hooks, receiver.url)
    await tenant.store.smart_modules.suspend(tenant.project, "hook")
    await send(tenant, gone, 1)
    await send(tenant, home, 2)
    await eventually(lambda: _is(waiting(tenant), 2))
    await tenant.store.homes.delete(tenant.project, gone)
    await tenant.store.smart_modules.resume(tenant.project, "hook")
    assert await receiver.numbers(1) == [2]
    await eventually(lambda: _is(waiting(tenant), 0))
    assert len(receiver.all) == 1


async def test_deleted_project_leaves_nothing(tenant: Tenant, hooks: NodeProcess, receiver: Receiver) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, hooks, receiver.url)
    await send(tenant, home, 1)
    await receiver.next()
    await tenant.store.projects.delete(tenant.project)
    await tenant.store.projects.sweep(tenant.project)
    await tenant.http.get("/readyz")
    assert await names(tenant) == set()


async def names(tenant: Tenant) -> set[bytes]:
    """All keys of the project."""
    found = {key async for key in tenant.redis.scan_iter(f"hw:{{p{tenant.project}}}:*", count=1000)}
    return found - {tenant.slot.outbox.encode()}


async def _is(count: Awaitable[int], expected: int) -> bool:
    return await count == expected


async def test_test_event_is_posted_signed_and_its_refusal_is_said(
    tenant: Tenant, hooks: NodeProcess, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEWIRE_WEBHOOK_PRIVATE_ADDRESSES", "true")
    words = ("--project", tenant.project, "--id", "hook", "--data-dir", hooks.data_dir, "--json")
    key = await register(tenant, hooks, receiver.url, "nothing")
    printed = await run_homewire("smart-module", "test", *words)
    assert orjson.loads(printed) == {"moduleId": "hook", "delivered": True}
    received = await receiver.next()
    assert received.event["eventType"] == "_webhookTest_"
    assert received.is_signed(key, receiver.url)

    async def refuse(_: Received) -> int:
        return 503

    receiver.answer = refuse
    assert await error_of_test_event(tenant, hooks) == "status 503"
