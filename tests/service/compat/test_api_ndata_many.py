"""Long lists of sessions (spec 003): in pages from Redis, sorted by runs, streamed, and never half a list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import psutil
import pytest
import pytest_asyncio

from kit.client import RawConnection
from kit.many_sessions import ManySessions, many_sessions_of
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import tenant_of

MANY: Final = 5_000
"""With their padding several runs of a sorting, and more than the kernel takes for who doesn't read."""
PADDING: Final = 1_500
USERS: Final = 100
PAGE: Final = 500
"""Of sessions, from Redis."""
GROWTH: Final = 24 * 1024 * 1024
"""What a node may grow by while it sends, sorted, 100,000 sessions: 28 MB of JSON, 60 MB as objects."""
SLOW_MICROSECONDS: Final = 30_000
"""On a busy machine any command takes 10 ms now and then; one that reads the whole index always does more."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def many(node: NodeProcess) -> AsyncIterator[ManySessions]:
    async with tenant_of(node) as tenant:
        key = await tenant.project_key("read")
        yield await many_sessions_of(tenant, key, MANY, USERS, PADDING)


async def listed(many: ManySessions, query: str) -> Any:
    reply = await many.tenant.ask("GET", f"/sessions{query}", many.key)
    assert reply.status == 200
    return reply.body


async def calls(many: ManySessions) -> dict[str, int]:
    """How often Redis was asked what."""
    stats: Any = await many.tenant.redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


async def test_all_are_listed_in_the_order_of_their_start(many: ManySessions) -> None:
    body = await listed(many, "")
    assert body == {"items": many.shown, "count": MANY, "totalCount": MANY}


async def test_all_are_sorted(many: ManySessions) -> None:
    before = await calls(many)
    body = await listed(many, "?$sort=-identity.userName,_v")
    after = await calls(many)
    by_version = sorted(many.shown, key=lambda each: each["_v"])
    expected = sorted(by_version, key=lambda each: each["identity"]["userName"], reverse=True)
    assert body == {"items": expected, "count": MANY, "totalCount": MANY}
    assert after["zrangebyscore"] - before["zrangebyscore"] >= MANY // PAGE, "a page at a time"


async def test_parts_fit_together(many: ManySessions) -> None:
    expected = sorted(many.shown, key=lambda each: each["identity"]["deviceName"])
    found: list[Any] = []
    for skip, take in ((0, 700), (700, 1_300), (2_000, 9_000)):
        body = await listed(many, f"?$sort=identity.deviceName&$skip={skip}&$take={take}")
        assert body["totalCount"] == MANY
        found += body["items"]
    assert found == expected


async def test_few_of_many(many: ManySessions) -> None:
    body = await listed(many, "?identity.userName=endswith:7@example.com&$sort=_v&$take=4&$skip=1")
    those = [each for each in many.shown if each["identity"]["userName"].endswith("7@example.com")]
    assert body == {
        "items": sorted(those, key=lambda each: each["_v"])[1:5], "count": 4, "totalCount": len(those)
    }  # fmt: skip
    assert await listed(many, "?$count=true&_v=lt:3") == {
        "count": sum(each["_v"] < 3 for each in many.shown),
        "totalCount": sum(each["_v"] < 3 for each in many.shown),
    }


async def begun(node: NodeProcess, many: ManySessions, query: str) -> RawConnection:
    """A list whose answer has begun, and whose client has read no more than its beginning."""
    connection = await RawConnection.open(node.url, receive_buffer=4096)
    request = f"GET /sessions{query} HTTP/1.1\r\nHost: homewire\r\nAuthorization: {many.key}\r\n\r\n"
    connection.writer.write(request.encode())
    head = await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), 20)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"chunked" in head
    return connection


async def collect(many: ManySessions, path: str, chunks: list[bytes]) -> None:
    """The body of an answer, as far as it comes."""
    async with many.tenant.http.get(path, headers={"Authorization": many.key}) as answer:
        assert answer.status == 200
        async for chunk in answer.content.iter_any():
            chunks.append(chunk)


async def test_list_that_cannot_go_on_breaks_off(many: ManySessions) -> None:
    """The connection ends without the last chunk: no client takes it for the whole."""
    tenant = many.tenant
    last = tenant.slot.session(many.shown[-1]["sessionId"])
    await tenant.redis.rename(last, last + ":away")
    await tenant.redis.set(last, "no session")
    chunks: list[bytes] = []
    try:
        with pytest.raises(aiohttp.ClientError):
            await collect(many, "/sessions", chunks)
    finally:
        await tenant.redis.rename(last + ":away", last)
    content = b"".join(chunks)
    assert b'"sessionId"' in content
    assert b"totalCount" not in content
    assert (await listed(many, "?$count=true"))["count"] == MANY, "the next one is whole"


async def test_client_that_disconnects_midway_leaves_nothing_open(
    node: NodeProcess, many: ManySessions
) -> None:
    before = node.descriptors
    connection = await begun(node, many, "?$sort=_v")
    assert node.descriptors >= before + 2, "its socket, and what is sorted"
    await connection.drop()

    async def gone() -> bool:
        return node.descriptors <= before

    await eventually(gone)


async def test_project_sorts_two_long_lists_at_once_and_others_go_on(
    node: NodeProcess, many: ManySessions
) -> None:
    """Their clients read no more than the beginning."""
    query = "?$sort=_v"
    async with tenant_of(node) as other:
        key = await other.project_key("read")
        async with await begun(node, many, query), await begun(node, many, query):
            assert (await node.metrics())["sorted_lists"] == 2
            refused = await many.tenant.ask("GET", f"/sessions{query}", many.key)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            assert refused.body["data"]["limit"] == "sorted_lists_per_project"
            assert (await other.ask("GET", f"/sessions{query}", key)).status == 200
            assert (await many.tenant.ask("GET", f"/sessions{query}&$take=9", many.key)).status == 200
    await node.until("sorted_lists", 0)
    assert (await listed(many, query))["count"] == MANY


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_100_000_sessions_are_sorted_without_a_large_command_and_in_little_memory() -> None:
    count = 100_000
    with private_node() as node:
        async with tenant_of(node) as tenant:
            key = await tenant.project_key("read")
            many = await many_sessions_of(tenant, key, count, 1_000)
            assert (await listed(many, "?$take=1"))["totalCount"] == count
            await tenant.redis.config_set("slowlog-log-slower-than", SLOW_MICROSECONDS)
            await tenant.redis.slowlog_reset()
            for query, order in (("", None), ("?$sort=-identity.userName,_v", True)):
                before = node.resident_bytes
                asked = await calls(many)
                items, peak = await streamed(node, many, query)
                more = (await calls(many))["zrangebyscore"] - asked["zrangebyscore"]
                assert more >= count // PAGE
                print(f"{query or 'unsorted'}: {(peak - before) / 2**20:.1f} MiB more at most")
                assert peak - before < GROWTH
                expected = many.shown
                if order:
                    expected = sorted(expected, key=lambda each: each["_v"])
                    expected.sort(key=lambda each: each["identity"]["userName"], reverse=True)
                assert items == expected
            slow: Any = await tenant.redis.slowlog_get(10)
            assert slow == []


async def streamed(node: NodeProcess, many: ManySessions, query: str) -> tuple[list[Any], int]:
    """The items of a list, and how much memory the node had at most until it was read."""
    process, peak = psutil.Process(node.pid), 0
    chunks: list[bytes] = []

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        await collect(many, f"/sessions{query}", chunks)
    finally:
        watching.cancel()
    return json.loads(b"".join(chunks))["items"], peak
