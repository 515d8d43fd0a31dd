"""Redis at its memory limit: nothing is half-written, clients come back later, and deleting makes room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.node import NodeProcess, memory_bytes, private_node
from kit.tenant import Tenant, tenant_of

EVENT = {"eventType": "t", "eventData": {}}
COMMAND = {"action": "on", "parameters": {}}
OUT_OF_MEMORY = 503


@pytest.fixture(scope="module")
def own_node() -> Iterator[NodeProcess]:
    with private_node() as running:
        yield running


@pytest.fixture
async def redis(own_node: NodeProcess) -> AsyncIterator[Any]:
    client = own_node.redis()
    yield client
    await client.aclose()


@asynccontextmanager
async def at_the_limit(redis: Any) -> AsyncIterator[None]:
    usual = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await redis.config_set("maxmemory", usual)


async def everything(redis: Any, tenant: Tenant) -> dict[bytes, bytes]:
    """All that the project has, but for the counters of its rates, which come and go by themselves."""
    names = [name async for name in redis.scan_iter(tenant.slot.prefix + "*")]
    return {name: await redis.dump(name) for name in names if b":rate:" not in name}


async def test_embedded_redis_takes_half_of_the_memory_at_most(redis: Any) -> None:
    limit = await redis.config_get("maxmemory")
    assert int(limit["maxmemory"]) == memory_bytes() // 2


async def test_setting_bounds_the_embedded_redis() -> None:
    with private_node(redis_memory_bytes=300_000_000) as node:
        client = node.redis()
        assert (await client.config_get("maxmemory"))["maxmemory"] == "300000000"
        await client.aclose()


async def test_writes_are_refused_whole_and_deletions_make_room(own_node: NodeProcess, redis: Any) -> None:
    async with tenant_of(own_node) as tenant:
        user = await tenant.user()
        home = await tenant.home(user)
        device = await tenant.device(home)
        path = f"/homes/{home}/kv/key"
        assert (await tenant.ask("PUT", path, user.key, {"value": "x" * 1000})).status == 204
        before, stored = await everything(redis, tenant), await tenant.stored()
        async with at_the_limit(redis):
            for method, where, key, body in (
                ("PUT", f"/homes/{home}/kv/other", user.key, {"value": 1}),
                ("PUT", path, user.key, {"value": "y" * 2000}),
                ("POST", "/homes", user.key, {"name": "second", "timezone": None}),
                ("PUT", f"/devices/{device.id}/event", device.key, EVENT),
                ("PUT", f"/devices/{device.id}/command?queue=60", user.key, COMMAND),
            ):
                answer = await tenant.ask(method, where, key, body)
                assert answer.status == OUT_OF_MEMORY, (method, where, answer)
                assert answer.headers["Retry-After"] == "1"
            assert await everything(redis, tenant) == before
            assert await tenant.stored() == stored
            assert (await tenant.ask("GET", path, user.key)).status == 200
            assert (await tenant.ask("DELETE", path, user.key)).status == 204
            assert (await tenant.ask("DELETE", f"/homes/{home}", user.key)).status == 204
        assert not await redis.exists(tenant.slot.values("home", home))
        assert (await tenant.ask("POST", "/homes", user.key, {"name": "second"})).status == 201
