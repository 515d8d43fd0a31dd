"""Receivers that fail: what is tried again and when, what is given up, and where nobody goes at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from kit.clock import now_ms
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import Tenant, tenant_of
from kit.webhook_receiver import Received, Receiver, receiving, register, send

AGE_S = 3600
QUICK = {
    # Longer than anything takes here, so that a busy machine is no failure.
    "webhook_timeout_s": 60,
    "webhook_backoff_s": 0.05,
    "webhook_backoff_max_s": 0.2,
    "webhook_dead_letters": 5,
    "webhook_waiting_bytes": "128KiB",
}


@pytest.fixture(scope="module")
def patient() -> Iterator[NodeProcess]:
    """A node that tries four times, and whose breakers never open."""
    with private_node(
        webhook_private_addresses="true",
        webhook_tries=4,
        webhook_age_s=AGE_S,
        webhook_breaker_failures=1000,
        **QUICK,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def breaking() -> Iterator[NodeProcess]:
    """A node whose breakers open after three failures, for half a second."""
    with private_node(
        webhook_private_addresses="true",
        webhook_tries=1000,
        webhook_breaker_failures=3,
        webhook_breaker_s=0.5,
        webhook_module_requests=1,
        **QUICK,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def careful() -> Iterator[NodeProcess]:
    """A node as it is without settings: webhooks on public addresses only."""
    with private_node(webhook_tries=2, **QUICK) as running:
        yield running


@pytest_asyncio.fixture
async def tenant(patient: NodeProcess) -> AsyncIterator[Tenant]:
    async with tenant_of(patient) as made:
        yield made


async def test_failure_is_tried_again_after_growing_pauses(
    tenant: Tenant, patient: NodeProcess, receiver: Receiver
) -> None:
    at: list[float] = []

    async def third_time(_: Received) -> int:
        at.append(time.monotonic())
        return 200 if len(at) == 3 else 503

    receiver.answer = third_time
    key = await register(tenant, patient, receiver.url)
    await send(tenant, await tenant.home(await tenant.user()), 1)
    tries = [await receiver.next() for _ in range(3)]
    assert {each.event_id for each in tries} == {tries[0].event_id}
    assert {each.body for each in tries} == {tries[0].body}
    assert all(each.is_signed(key, receiver.url) for each in tries)
    assert at[1] - at[0] >= 0.025
    assert at[2] - at[1] >= 0.05
    await eventually(lambda: done(tenant))
    assert await all_dead_letters(tenant) == []


@pytest.mark.parametrize("status", [201, 202, 204, 301, 302, 400, 404, 410, 429, 500])
async def test_only_200_is_taken(
    tenant: Tenant, patient: NodeProcess, receiver: Receiver, status: int
) -> None:
    async def answer(_: Received) -> int:
        return 200 if len(receiver.all) == 2 else status

    receiver.answer = answer
    await register(tenant, patient, receiver.url)
    await send(tenant, await tenant.home(await tenant.user()), 1)
    assert await receiver.numbers(2) == [1, 1]
    await eventually(lambda: done(tenant))


async def test_refused_delivery_becomes_dead_letter_and_can_be_retried(
    tenant: Tenant, patient: NodeProcess, receiver: Receiver
) -> None:
    async def refuse(_: Received) -> int:
        return 418

    receiver.answer = refuse
    await register(tenant, patient, receiver.url)
    await send(tenant, await tenant.home(await tenant.user()), 1)
    first = await receiver.next()
    await eventually(lambda: has_dead_letters(tenant, 1))
    assert len(receiver.all) == 4
    [dead_letter] = await all_dead_letters(tenant)
    assert (dead_letter.reason, dead_letter.tries, dead_letter.event_id) == ("status 418", 4, first.event_id)
    await receiver.numbers(3)
    receiver.answer = ok
    assert await tenant.store.module_deliveries.retry(tenant.project, "hook", [dead_letter.id]) == 1
    again = await receiver.next()
    assert (again.event_id, again.body) == (first.event_id, first.body)
    await eventually(lambda: done(tenant))
    assert await all_dead_letters(tenant) == []


async def test_dead_letters_are_bounded_and_can_be_dropped(
    tenant: Tenant, patient: NodeProcess, receiver: Receiver
) -> None:
    async def refuse(_: Received) -> int:
        return 500

    receiver.answer = refuse
    await register(tenant, patient, receiver.url)
    await send(tenant, await tenant.home(await tenant.user()), *range(8))
    await eventually(lambda: done(tenant))
    found = await all_dead_letters(tenant)
    assert len(found) == 5
    drop = [dead_letter.id for dead_letter in found[:2]]
    assert await tenant.store.module_deliveries.drop(tenant.project, "hook", drop) == 2
    assert await all_dead_letters(tenant) == found[2:]


async def test_delivery_beyond_bound_becomes_dead_letter(
    tenant: Tenant, patient: NodeProcess, receiver: Receiver
) -> None:
    home = await tenant.home(await tenant.user())
    await register(tenant, patient, receiver.url)
    await tenant.store.smart_modules.suspend(tenant.project, "hook")
    large = [
        {"homeId": home, "eventType": "e", "eventData": {"n": n, "fill": "x" * 50_000}} for n in range(4)
    ]
    await tenant.send(*large)
    await eventually(lambda: has_dead_letters(tenant, 2))
    assert {dead_letter.reason for dead_letter in await all_dead_letters(tenant)} == {"too much waits"}
    await tenant.store.smart_modules.resume(tenant.project, "hook")
    assert sorted(await receiver.numbers(2)) == [0, 1]
    await eventually(lambda: done(tenant))
    # What was taken made room again.
    await tenant.send(*large[:2])
    assert sorted(await receiver.numbers(2)) == [0, 1]


async def test_old_delivery_becomes_dead_letter(
    tenant: Tenant, patient: NodeProcess, receiver: Receiver
) -> None:
    await register(tenant, patient, receiver.url)
    await tenant.store.smart_modules.suspend(tenant.project, "hook")
    await send(tenant, await tenant.home(await tenant.user()), 1, 2)
    await eventually(lambda: are_waiting(tenant, 2))
    # Their places in the stream say since when: the first for a minute too long, the other not yet.
    stream = tenant.slot.module_deliveries("hook")
    entries: Any = await tenant.redis.xrange(stream)
    await tenant.redis.delete(stream)
    oldest_ms = now_ms() - AGE_S * 1000
    for (_, fields), since_ms in zip(entries, (oldest_ms - 60_000, oldest_ms + 60_000), strict=True):
        await tenant.redis.xadd(stream, fields, id=f"{since_ms}-0")
    await tenant.store.smart_modules.resume(tenant.project, "hook")
    await eventually(lambda: done(tenant))
    assert [dead_letter.reason for dead_letter in await all_dead_letters(tenant)] == ["too old"]
    assert [each.number for each in receiver.all] == [2]


async def test_receiver_that_does_not_answer_is_given_up_in_time(receiver: Receiver) -> None:
    async def never(_: Received) -> int:
        await asyncio.Event().wait()
        return 200

    receiver.answer = never
    hasty = {**QUICK, "webhook_timeout_s": 0.5, "webhook_tries": 4}
    with private_node(webhook_private_addresses="true", **hasty) as node:
        async with tenant_of(node) as tenant:
            await register(tenant, node, receiver.url)
            await send(tenant, await tenant.home(await tenant.user()), 1)
            await receiver.next()
            await eventually(lambda: has_dead_letters(tenant, 1), 20.0)
            assert (await all_dead_letters(tenant))[0].reason == "timed out"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/", "can't connect"),
        ("http://no-such-host.invalid/", "the name can't be resolved"),
    ],
)
async def test_receiver_that_is_not_there(
    tenant: Tenant, patient: NodeProcess, url: str, reason: str
) -> None:
    await register(tenant, patient, url)
    await send(tenant, await tenant.home(await tenant.user()), 1)
    # Who knows no names may take some seconds to say so, each time.
    await eventually(lambda: has_dead_letters(tenant, 1), 40.0)
    assert (await all_dead_letters(tenant))[0].reason == reason


async def test_redirect_is_not_followed(tenant: Tenant, patient: NodeProcess, receiver: Receiver) -> None:
    async def elsewhere(_: Received) -> web.Response:
        return web.Response(status=307, headers={"Location": receiver.origin + "/elsewhere"})

    receiver.answer = elsewhere
    await register(tenant, patient, receiver.url)
    await send(tenant, await tenant.home(await tenant.user()), 1)
    await eventually(lambda: has_dead_letters(tenant, 1))
    assert {each.path for each in receiver.all} == {receiver.url.removeprefix(receiver.origin)}
    assert (await all_dead_letters(tenant))[0].reason == "status 307"


async def test_failing_delivery_is_overtaken(
    tenant: Tenant, patient: NodeProcess, receiver: Receiver
) -> None:
    async def refuse_the_first(received: Received) -> int:
        if received.number != 0:
            return 200
        is_first = sum(each.number == 0 for each in receiver.all) == 1
        return 500 if is_first or len(receiver.all) < 20 else 200

    receiver.answer = refuse_the_first
    await register(tenant, patient, receiver.url)
    await send(tenant, await tenant.home(await tenant.user()), *range(30))
    await eventually(lambda: done(tenant))
    assert {each.number for each in receiver.all} == set(range(30))
    assert sum(each.number == 0 for each in receiver.all) > 1


async def test_breaker_opens_probes_and_closes(breaking: NodeProcess, receiver: Receiver) -> None:
    at: list[float] = []
    was_open: list[bool] = []
    works = False

    async with tenant_of(breaking) as tenant:

        async def answer(_: Received) -> int:
            status = 200 if works else 500
            at.append(time.monotonic())
            was_open.append(await is_open(tenant))
            return status

        receiver.answer = answer
        await register(tenant, breaking, receiver.url)
        await send(tenant, await tenant.home(await tenant.user()), *range(20))
        await receiver.numbers(3)
        await eventually(lambda: is_open(tenant))
        await receiver.next()
        assert was_open[:3] == [False] * 3
        assert at[3] - at[2] >= 0.45, "a probe after half a second"
        await receiver.next()
        assert at[4] - at[3] >= 0.95, "the next after twice that"
        works = True
        await eventually(lambda: done(tenant), 20.0)
        assert {each.number for each in receiver.all[5:]} == set(range(20))
        assert not await is_open(tenant)
        assert not (await module(tenant)).suspended, "only an operator suspends"


async def test_resuming_closes_the_breaker(receiver: Receiver) -> None:
    async def refuse(_: Received) -> int:
        return 500

    receiver.answer = refuse
    chosen = {**QUICK, "webhook_module_requests": 1, "webhook_breaker_failures": 3}
    # Opened once, it stays so for longer than anybody waits here.
    with private_node(webhook_private_addresses="true", webhook_breaker_s=600, **chosen) as node:
        async with tenant_of(node) as tenant:
            await register(tenant, node, receiver.url)
            await send(tenant, await tenant.home(await tenant.user()), *range(5))
            await receiver.numbers(3)
            await eventually(lambda: is_open(tenant))
            receiver.answer = ok
            await tenant.store.smart_modules.resume(tenant.project, "hook")
            await receiver.next()
            await eventually(lambda: done(tenant))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0", "127.1", "2130706433"]
)
async def test_loopback_is_refused_by_whatever_name(careful: NodeProcess, host: str) -> None:
    async with tenant_of(careful) as tenant, receiving() as four:
        port = four.origin.rpartition(":")[2]
        url = f"http://{host}:{port}/"
        await register(tenant, careful, url)
        await send(tenant, await tenant.home(await tenant.user()), 1)
        await eventually(lambda: has_dead_letters(tenant, 1))
        reason = (await all_dead_letters(tenant))[0].reason
        if host in ("127.1", "2130706433"):
            assert reason == "the URL can't be used"
        else:
            assert reason == "the address is not public"
        assert not four.all


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "[fe80::1]", "224.0.0.1", "[fd00::1]"])
async def test_private_addresses_are_refused_without_a_packet(careful: NodeProcess, host: str) -> None:
    async with tenant_of(careful) as tenant:
        await register(tenant, careful, f"http://{host}/")
        await send(tenant, await tenant.home(await tenant.user()), 1)
        await eventually(lambda: has_dead_letters(tenant, 1))
        # Said instead of making a socket; an attempt would have been given up for another reason.
        assert (await all_dead_letters(tenant))[0].reason == "the address is not public"


async def test_no_secret_is_logged_or_stored_openly(
    tenant: Tenant, patient: NodeProcess, receiver: Receiver
) -> None:
    async def refuse(_: Received) -> int:
        return 500

    receiver.answer = refuse
    url = receiver.origin + "/token-hunter2"
    key = await register(tenant, patient, url)
    await send(tenant, await tenant.home(await tenant.user()), 1)
    await eventually(lambda: has_dead_letters(tenant, 1))
    record: Any = await tenant.redis.hgetall(tenant.slot.smart_module("hook"))
    for secret in (key, "hunter2"):
        assert secret not in patient.logged()
        assert secret.encode() not in b" ".join(record.values())


async def ok(_: Received) -> int:
    return 200


async def all_dead_letters(tenant: Tenant) -> list[Any]:
    return await tenant.store.module_deliveries.dead_letters(tenant.project, "hook")


async def has_dead_letters(tenant: Tenant, count: int) -> bool:
    return len(await all_dead_letters(tenant)) == count


async def are_waiting(tenant: Tenant, count: int) -> bool:
    waiting, _ = await tenant.store.module_deliveries.counts(tenant.project, "hook")
    return waiting == count


async def done(tenant: Tenant) -> bool:
    """Whether nothing waits, and something came."""
    waiting, _ = await tenant.store.module_deliveries.counts(tenant.project, "hook")
    record: Any = await tenant.redis.hgetall(tenant.slot.smart_module("hook"))
    return waiting == 0 and record.get(b"bytes") == b"0"


async def module(tenant: Tenant) -> Any:
    found = await tenant.store.smart_modules.get(tenant.project, "hook")
    assert found is not None
    return found


async def is_open(tenant: Tenant) -> bool:
    return bool((await module(tenant)).broken_until_ms > 0)


async def test_last_error_of_a_webhook_is_kept(patient: NodeProcess, receiver: Receiver) -> None:
    async with tenant_of(patient) as tenant:
        home = await tenant.home(await tenant.user())

        async def refuse(_: Received) -> int:
            return 503

        receiver.answer = refuse
        await register(tenant, patient, receiver.url)
        await send(tenant, home, 1)

        async def is_noted() -> bool:
            module = await tenant.store.smart_modules.get(tenant.project, "hook")
            return module is not None and module.last_error == "status 503" and module.last_error_ms > 0

        await eventually(is_noted)
