"""Limits as a client meets them: one node and two, 429 with Retry-After, and who goes on undisturbed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest

from kit.client import Refused, Socket, listen, refusal
from kit.node import NodeProcess, eventually, private_node, running_node
from kit.tenant import Account, Tenant, tenant_of

EVENTS = "/userSession/websocket"
EVENT = {"eventType": "t", "eventData": {}}
COMMAND = {"action": "on", "parameters": {}}


async def ask(tenant: Tenant, method: str, path: str, key: str, body: Any) -> tuple[int, str | None, Any]:
    """Status, Retry-After and the answer's JSON."""
    headers = {"Authorization": key}
    async with tenant.http.request(method, path, data=orjson.dumps(body), headers=headers) as answer:
        content = await answer.read()
        retry_after = answer.headers.get("Retry-After")
        return answer.status, retry_after, orjson.loads(content) if content else None


async def until_refused(tenant: Tenant, path: str, key: str, body: Any) -> tuple[int, str | None, Any]:
    """The first answer that is not 204. Several are sent at once: a slow machine sends few in turn."""
    async with asyncio.timeout(20):
        while True:
            for answer in await asyncio.gather(*(ask(tenant, "PUT", path, key, body) for _ in range(8))):
                if answer[0] != 204:
                    return answer


async def test_device_over_its_rate_is_refused_and_the_others_go_on() -> None:
    with private_node(device_events_per_s=3) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            loud, quiet = await tenant.device(home), await tenant.device(home)
            refused = await until_refused(tenant, f"/devices/{loud.id}/event", loud.key, EVENT)
            data = {"limit": "device_events_per_s", "most": 3}
            assert refused == (429, "1", {"reason": "TOO_MANY_REQUESTS", "data": data})
            path = f"/devices/{quiet.id}/event"
            assert (await ask(tenant, "PUT", path, quiet.key, EVENT))[0] == 204
            assert (await ask(tenant, "PUT", f"/homes/{home}/event", tenant.key, EVENT))[0] == 204

            async def accepted() -> bool:
                return (await ask(tenant, "PUT", f"/devices/{loud.id}/event", loud.key, EVENT))[0] == 204

            await eventually(accepted)
            assert (await node.metrics())['refused_total{limit="device_events_per_s"}'] >= 1


@pytest.mark.parametrize("limit", ["user_events_per_s", "project_key_events_per_s", "project_events_per_s"])
async def test_commands_count_too(limit: str) -> None:
    with private_node(**{limit: 3}) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            device = await tenant.device(await tenant.home(user))
            key = tenant.key if "key" in limit else user.key
            refused = await until_refused(tenant, f"/devices/{device.id}/command", key, COMMAND)
            assert refused[:2] == (429, "1")
            assert refused[2]["data"]["limit"] == limit


async def test_bulk_body_over_the_limit_stores_nothing() -> None:
    with private_node(project_key_events_per_s=50) as node:
        async with tenant_of(node) as tenant:
            home = await tenant.home(await tenant.user())
            # The home's own announcement lies in the shards as well.
            before = await tenant.stored()
            items = [{"homeId": home, **EVENT} for _ in range(51)]
            status, retry_after, answer = await ask(tenant, "POST", "/events", tenant.key, items)
            assert (status, retry_after) == (429, "1")
            assert answer["data"] == {"limit": "project_key_events_per_s", "most": 50}
            assert await tenant.stored() == before
            status, _, answer = await ask(tenant, "POST", "/events", tenant.key, items[:50])
            assert status == 200
            assert [result["status"] for result in answer["results"]] == [204] * 50
            assert await tenant.stored() == before + 50


@pytest.mark.parametrize("limit", ["user_events_per_s", "project_key_events_per_s", "project_events_per_s"])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_changes_of_values_count_as_events(limit: str, method: str) -> None:
    """Each of them sends one."""
    with private_node(**{limit: 3}) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            device = await tenant.device(await tenant.home(user))
            permissions = ["write-kv"]
            server = await tenant.project_key(*permissions)
            key = server if "key" in limit else user.key
            path = f"/devices/{device.id}/kv/key"
            refused: list[tuple[int, str | None, Any]] = []
            async with asyncio.timeout(20):
                while not refused:
                    changes = (ask(tenant, method, path, key, {"value": 1}) for _ in range(8))
                    refused = [each for each in await asyncio.gather(*changes) if each[0] not in (204, 404)]
            answer = refused[0]
            assert answer[:2] == (429, "1")
            assert answer[2]["data"]["limit"] == limit
            # Reading does not.
            assert (await ask(tenant, "GET", f"/devices/{device.id}", user.key, None))[0] == 200


async def test_bytes_count_too() -> None:
    body = {"eventType": "t", "eventData": {"text": "x" * 1000}}
    with private_node(device_event_bytes_per_s=3_000, user_event_bytes_per_s=2_000) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            home = await tenant.home(user)
            device = await tenant.device(home)
            refused = await until_refused(tenant, f"/devices/{device.id}/event", device.key, body)
            data = {"limit": "device_event_bytes_per_s", "most": 3000}
            assert refused == (429, "1", {"reason": "TOO_MANY_REQUESTS", "data": data})
            value = {"value": "x" * 1000}
            refused = await until_refused(tenant, f"/homes/{home}/kv/key", user.key, value)
            assert refused[2]["data"]["limit"] == "user_event_bytes_per_s"
            metrics = await node.metrics()
            assert metrics['refused_total{limit="device_event_bytes_per_s"}'] >= 1


@asynccontextmanager
async def two_nodes(**settings: Any) -> AsyncIterator[tuple[NodeProcess, Tenant, NodeProcess, Tenant]]:
    """Two nodes on the first one's Redis, and the same tenant at each."""
    with (
        private_node(**settings) as one,
        running_node(one.data_dir, redis_url=one.redis_url, **settings) as two,
    ):
        async with tenant_of(one) as at_one, tenant_of(two) as at_two:
            yield one, at_one, two, at_two


async def test_rate_used_at_one_node_is_refused_by_other() -> None:
    """Alone, the second node would take 3,000 in a second: far more than it gets here."""
    async with two_nodes(project_key_events_per_s=3_000) as (_, one, _, two):
        home = await one.home(await one.user())
        items = [{"homeId": home, **EVENT} for _ in range(1_000)]

        async def refused() -> bool:
            # The second may end at any point: then once more.
            for _ in range(3):
                await ask(one, "POST", "/events", one.key, items)
            status, _, answer = await ask(two, "POST", "/events", one.key, items[:200])
            for _ in range(100):
                if status == 429:
                    return bool(answer["data"]["limit"] == "project_key_events_per_s")
                status, _, answer = await ask(two, "PUT", f"/homes/{home}/event", one.key, EVENT)
            return False

        await eventually(refused, within=30)


@pytest.mark.parametrize("limit", ["project_events_per_s", "project_event_bytes_per_s"])
async def test_project_rate_used_at_one_node_is_refused_by_other(limit: str) -> None:
    """Its senders differ, so nobody reaches a limit of their own. Alone, the second would take all of it.

    The limit is so low that what reaches it fits into a second on a slow machine, too.
    """
    event = EVENT if limit == "project_events_per_s" else {"eventType": "t", "eventData": {"x": "x" * 1000}}
    most = 60 if limit == "project_events_per_s" else 60_000
    async with two_nodes(**{limit: most}) as (_, one, _, two):
        home = await one.home(await one.user())
        device = await one.device(home)
        items: list[Any] = [{"homeId": home, **event} for _ in range(18)]

        async def refused() -> bool:
            # The second may end at any point: then once more. Nine tenths are sent here, twice a tenth there.
            for _ in range(3):
                await ask(one, "POST", "/events", one.key, items)
            for _ in range(12):
                status, _, answer = await ask(two, "PUT", f"/devices/{device.id}/event", device.key, event)
                if status == 429:
                    return bool(answer["data"]["limit"] == limit)
            return False

        await eventually(refused, within=60)


async def open_sockets(stack: AsyncExitStack, url: str, account: Account, count: int) -> list[Socket]:
    return [await stack.enter_async_context(await listen(url, EVENTS, account.key)) for _ in range(count)]


async def admitted(url: str, path: str, key: str) -> bool:
    """Whether one more is let in; it goes at once."""
    try:
        socket = await listen(url, path, key)
    except Refused as refused:
        if refused.answer.status != 429:
            raise
        return False
    await socket.drop()
    return True


@pytest.mark.parametrize("whose", ["user", "device", "project", "address"])
async def test_connections_are_refused_at_the_limit_until_one_ends(whose: str) -> None:
    with private_node(**{f"{whose}_connections": 3}) as node:
        async with tenant_of(node) as tenant, AsyncExitStack() as stack:
            user = await tenant.user()
            device = await tenant.device(await tenant.home(user))
            path, key = (
                (f"/devices/{device.id}/command", device.key) if whose == "device" else (EVENTS, user.key)
            )
            sockets = [await stack.enter_async_context(await listen(node.url, path, key)) for _ in range(3)]
            answer = await refusal(node.url, path, key)
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) > 0
            data = {"limit": f"{whose}_connections", "most": 3}
            assert answer.json() == {"reason": "TOO_MANY_REQUESTS", "data": data}
            if whose in ("user", "device"):
                other = await tenant.user()
                await stack.enter_async_context(await listen(node.url, EVENTS, other.key))
            assert [await socket.is_alive() for socket in sockets] == [True] * 3
            await sockets[0].drop()
            await eventually(lambda: admitted(node.url, path, key))


async def test_refused_and_broken_handshakes_hold_no_place() -> None:
    with private_node(user_connections=1) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            for number in range(5):
                answer = await refusal(node.url, f"{EVENTS}?homeId={900_000_000 + number}", user.key)
                # 429 while the core has not undone the one before.
                assert answer.status in (404, 429)
            await eventually(lambda: admitted(node.url, EVENTS, user.key))


async def test_burst_of_handshakes_does_not_pass_the_limit() -> None:
    with private_node(user_connections=5) as node:
        async with tenant_of(node) as tenant, AsyncExitStack() as stack:
            user = await tenant.user()
            attempts = (listen(node.url, EVENTS, user.key) for _ in range(40))
            outcomes = await asyncio.gather(*attempts, return_exceptions=True)
            opened = [outcome for outcome in outcomes if isinstance(outcome, Socket)]
            refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
            for socket in opened:
                await stack.enter_async_context(socket)
            assert len(opened) == 5
            assert {refusal.answer.status for refusal in refused} == {429}
            assert len(refused) == 35


@pytest.mark.parametrize("kill", [True, False])
async def test_two_nodes_share_a_limit_until_one_is_gone(kill: bool) -> None:
    # With the longer lease, only what the node says as it stops can free its places in time. The shorter one
    # is longer than a node that is alive may be kept from saying so.
    lease = 5 if kill else 600
    async with (
        two_nodes(user_connections=16, connection_lease_s=lease, close_s=0.5) as (one, at_one, two, _),
        AsyncExitStack() as stack,
    ):
        user = await at_one.user()
        other = await at_one.user()
        await open_sockets(stack, two.url, user, 14)
        await open_sockets(stack, one.url, user, 2)

        async def refused() -> bool:
            return not await admitted(one.url, EVENTS, user.key)

        await eventually(refused)
        await open_sockets(stack, one.url, other, 2)
        if kill:
            two.process.kill()
        else:
            two.process.terminate()
        await eventually(lambda: admitted(one.url, EVENTS, user.key), within=30)
