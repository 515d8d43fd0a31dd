"""Answers that nobody reads: what they hold is bounded, their connections are cut, and others are served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from kit.client import RawConnection
from kit.node import NodeProcess, eventually, private_node, running_node
from kit.tenant import Account, Tenant, tenant_of

VALUES: Final = 400
VALUE_BYTES: Final = 40_000
"""16 MB in all, more than the kernel takes for a client that does not read."""
MANY: Final = 10
STALL_S: Final = 5.0
MIB: Final = 1024 * 1024
MAX_BYTES_READ: Final = 128 * 1024
PIECE: Final = 64 * 1024
PAGE: Final = MAX_BYTES_READ + VALUE_BYTES + VALUES * 100
"""The most that one of these lists holds: a page of it."""


@pytest.fixture(scope="module")
def strict() -> Iterator[NodeProcess]:
    options = {"response_bytes_per_principal": MANY * 2 * MIB, "response_min_bytes_per_s": 10**6}
    with private_node(response_stall_s=STALL_S, **options) as node:
        yield node


async def full_home(tenant: Tenant, owner: Account) -> int:
    """A home with all these values, written straight into its hash."""
    home = await tenant.home(owner)
    slot = tenant.slot
    values: dict[Any, Any] = dict.fromkeys(keys(), f'7 "{"x" * VALUE_BYTES}"')
    for start in range(0, VALUES, 100):
        some = dict(list(values.items())[start : start + 100])
        await tenant.redis.hset(slot.values("home", home), mapping=some)
    await tenant.redis.zadd(slot.value_keys("home", home), dict.fromkeys(values, 0))
    return home


def keys() -> list[str]:
    return [f"k{number:03}" for number in range(VALUES)]


def request(path: str, key: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {key}\r\n\r\n".encode()


async def head_of(connection: RawConnection) -> str:
    """Of the answer, whose body stays unread."""
    return (await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), 30)).decode()


async def asked(stack: AsyncExitStack, node: NodeProcess, what: bytes) -> RawConnection:
    """A request whose answer is not read."""
    connection = await stack.enter_async_context(await RawConnection.open(node.url, receive_buffer=4096))
    connection.writer.write(what)
    return connection


async def test_unread_lists_are_bounded_and_cut(strict: NodeProcess) -> None:
    async with tenant_of(strict) as tenant, AsyncExitStack() as stack:
        hostile, honest = await tenant.user(), await tenant.user()
        target, own = await full_home(tenant, hostile), await full_home(tenant, honest)
        before = strict.resident_bytes
        for _ in range(MANY):
            connection = await asked(stack, strict, request(f"/homes/{target}/kv", hostile.key))
            assert (await head_of(connection)).startswith("HTTP/1.1 200 ")
        assert (await strict.metrics())["response_bytes"] <= MANY * (PAGE + PIECE)

        reply = await tenant.ask("GET", f"/homes/{own}/kv", honest.key)
        assert reply.status == 200
        assert [each["key"] for each in reply.body] == keys()
        assert reply.range == f"0-{VALUES - 1}/{VALUES}"
        assert strict.resident_bytes - before < 100 * MIB, "whole they would be 160 MB, twice"

        await strict.until("responses_aborted_total", MANY, within=50)
        await strict.until("response_bytes", 0)
        assert (await tenant.ask("GET", f"/homes/{target}/kv?limit=1", hostile.key)).status == 200


async def test_client_with_too_many_unread_answers_is_refused(short_directory: Path) -> None:
    """The first answers go on as long as their client does not read; others of that user are refused."""
    directory = short_directory / "data"
    with running_node(directory, response_bytes_per_principal=MIB, response_stall_s=600) as node:
        async with tenant_of(node) as tenant, AsyncExitStack() as stack:
            hostile, honest = await tenant.user(), await tenant.user()
            target, own = await full_home(tenant, hostile), await full_home(tenant, honest)
            path = f"/homes/{target}/kv"
            unread, status = [], "200"
            while status == "200":
                unread.append(await asked(stack, node, request(path, hostile.key)))
                status = (await head_of(unread[-1])).split()[1]
            assert (status, len(unread) > 1) == ("503", True)
            refused = await tenant.ask("GET", path, hostile.key)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            assert refused.body["data"] == {"limit": "response_bytes_per_principal"}
            assert (await node.metrics())["responses_refused_total"] == 2
            assert len((await tenant.ask("GET", f"/homes/{own}/kv", honest.key)).body) == VALUES
            for connection in unread:
                await connection.drop()
            await node.until("response_bytes", 0)
            assert len((await tenant.ask("GET", path, hostile.key)).body) == VALUES


async def test_client_that_asks_on_without_reading_is_cut(strict: NodeProcess) -> None:
    """With answers that are small, each by itself."""
    async with tenant_of(strict) as tenant, AsyncExitStack() as stack:
        user = await tenant.user()
        home = await full_home(tenant, user)
        before, metrics = strict.resident_bytes, await strict.metrics()
        one = request(f"/homes/{home}/kv/k001", user.key)
        await asked(stack, strict, 1_000 * one)

        async def is_cut() -> bool:
            assert strict.resident_bytes - before < 30 * MIB, "answered whole it would be 40 MB"
            return (await strict.metrics())["responses_aborted_total"] > metrics["responses_aborted_total"]

        await eventually(is_cut, 50)
        assert (await tenant.ask("GET", f"/homes/{home}/kv/k001", user.key)).status == 200


async def test_part_of_a_long_list_says_which_it_is(strict: NodeProcess) -> None:
    async with tenant_of(strict) as tenant:
        user = await tenant.user()
        home = await full_home(tenant, user)
        for query, first, last in (("?skip=10&limit=300", 10, 310), ("?skip=390", 390, 400)):
            reply = await tenant.ask("GET", f"/homes/{home}/kv{query}", user.key)
            assert [each["key"] for each in reply.body] == keys()[first:last]
            assert reply.range == f"{first}-{last - 1}/{VALUES}"
