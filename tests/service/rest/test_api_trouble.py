"""What every operation answers while Redis is away or hangs, and when its handler breaks."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from kit.access_project import world_of
from kit.access_reached import ERROR
from kit.access_rows import Ask, successes
from kit.node import NodeProcess, eventually, private_node, running_node
from kit.node_child import SECRET
from kit.openapi import text_of_broken_handler
from kit.redis_server import BusServer, running_server
from kit.tenant import ACCESS_CONTROLS, ACCOUNT_SYSTEMS, DEFAULT_PROJECT

LONGEST_S = 2.0 + 4.0 + 0.5
"""A connection (2 s) and one command (4 s) are all that an operation waits for."""


async def asked(node: NodeProcess) -> list[Ask]:
    """A request for each operation, which would succeed."""
    async with AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(world_of(node, accounts, access_control))
            for access_control in ACCESS_CONTROLS
            for accounts in ACCOUNT_SYSTEMS
        ]
        return await successes(worlds)


async def answer_to(http: aiohttp.ClientSession, ask: Ask) -> tuple[int, str, str | None]:
    """Status, body and Retry-After."""
    async with ask.sent(http) as answer:
        content = "" if answer.status == 101 else await answer.text()
        answer.close()
        return answer.status, content, answer.headers.get("Retry-After")


async def all_unavailable(node: NodeProcess, asks: list[Ask]) -> None:
    """Every operation, at once: 503 in its shape, after `LONGEST_S` of waiting at most."""
    before = await node.loop_seconds()
    async with aiohttp.ClientSession(node.url, connector=aiohttp.TCPConnector(limit=0)) as http:
        answers = await asyncio.gather(*(answer_to(http, ask) for ask in asks))
    waited = await node.loop_seconds() - before
    for ask, (status, content, retry_after) in zip(asks, answers, strict=True):
        assert status == 503, f"{ask.operation}: {status} {content}"
        assert ERROR[ask.endpoint.shape].match(content), f"{ask.operation}: {content}"
        assert retry_after is not None, ask.operation
    assert waited < LONGEST_S


async def knows(node: NodeProcess) -> None:
    """Wait until the node knows that Redis is away: until then it may answer from memory."""

    async def unready() -> bool:
        async with node.client() as http, http.get("/readyz") as answer:
            return answer.status == 503

    await eventually(unready)


@pytest.fixture
async def lonely() -> AsyncIterator[tuple[NodeProcess, BusServer]]:
    """A node on a Redis of its own, which can be hurt."""
    with (
        running_server() as server,
        tempfile.TemporaryDirectory(prefix="hw-") as directory,
        running_node(
            Path(directory) / "data", steps=True, redis_url=server.url, default_project=DEFAULT_PROJECT
        ) as node,
    ):
        yield node, server


async def test_without_redis_every_operation_is_unavailable(lonely: tuple[NodeProcess, BusServer]) -> None:
    node, server = lonely
    asks = await asked(node)
    server.hang()
    await all_unavailable(node, asks)
    server.go_on()
    server.kill()
    await knows(node)
    await all_unavailable(node, asks)


async def test_fault_is_answered_in_shape_and_without_a_trace() -> None:
    with private_node(steps=True, broken=True, default_project=DEFAULT_PROJECT) as node:
        asks = await asked(node)
        async with node.client() as http:
            for ask in asks:
                status, content, _ = await answer_to(http, ask)
                assert (status, content) == (500, text_of_broken_handler(ask.endpoint)), ask.operation
        # Whoever runs it reads what broke, and never a key.
        logged = node.log.read_text()
        assert logged.count(f"RuntimeError: {SECRET}") >= len(asks)
        assert not [ask for ask in asks if ask.headers["Authorization"].split()[1] in logged]
