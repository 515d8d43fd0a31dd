"""Hashing passwords takes the machine: a flood of them keeps no other project from logging in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from kit.accounts import EMAIL, PASSWORD, TenantWithApp, tenant_with_app
from kit.node import NodeProcess, private_node
from kit.tenant import Reply

FLOOD = 150
PLACES = 8
LIMITS: dict[str, Any] = {
    "address_messages": 0,
    "account_messages": 0,
    "address_attempts": 0,
    "account_attempts": FLOOD,
    "unknown_network_attempts": 0,
    "recipient_messages": 0,
    "user_passwords": 3,
    "project_passwords": PLACES,
}


@pytest.fixture(scope="module")
def busy_node() -> Iterator[NodeProcess]:
    with private_node(**LIMITS) as node:
        yield node


@pytest_asyncio.fixture
async def desks(busy_node: NodeProcess) -> AsyncIterator[tuple[TenantWithApp, TenantWithApp]]:
    """Two projects on one node: of the one that floods, and of one whose people log in."""
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(tenant_with_app(busy_node, "email")) for _ in range(2)
        ]
        yield first, second


async def log_in_meanwhile(people: TenantWithApp, flood: list[asyncio.Task[Reply]]) -> None:
    """One after the other, as long as the flood goes on, and once more."""
    going_on = True
    while going_on:
        going_on = not all(task.done() for task in flood)
        assert (await people.sign_in(email=EMAIL, password=PASSWORD)).status == 200


def limits_of(replies: list[Reply]) -> set[str]:
    """The limits that the 429 name, each with its value as `most`."""
    refusals = [reply.body["data"] for reply in replies if reply.status == 429]
    assert all(data == {"limit": data["limit"], "most": LIMITS[data["limit"]]} for data in refusals)
    return {data["limit"] for data in refusals}


async def test_one_user_changes_the_password_so_often(desks: tuple[TenantWithApp, TenantWithApp]) -> None:
    hostile, honest = desks
    await honest.member()
    user = await hostile.member()
    key = await hostile.key_of(user)
    flood = [
        asyncio.create_task(
            hostile.ask("PATCH", f"/users/{user}", key, {"password": f"staple battery {number}"})
        )
        for number in range(FLOOD)
    ]
    await log_in_meanwhile(honest, flood)
    replies = await asyncio.gather(*flood)
    # One of several at once may find that another one was first: nothing was changed then.
    assert {reply.status for reply in replies} <= {204, 403, 429}
    assert 0 < sum(reply.status == 204 for reply in replies) <= LIMITS["user_passwords"]
    assert limits_of(replies) == {"user_passwords"}
    assert all(int(reply.headers["Retry-After"]) > 0 for reply in replies if reply.status == 429)
    # Another user of the same project has places of their own, and a name costs none.
    other = await hostile.member("bob@example.com")
    changed = {"password": "another battery"}
    assert (await hostile.ask("PATCH", f"/users/{other}", await hostile.key_of(other), changed)).status == 204
    assert (await hostile.ask("PATCH", f"/users/{user}", key, {"name": "Eve"})).status == 204
    metrics = await honest.node.metrics()
    refused = sum(reply.status == 429 for reply in replies)
    assert metrics['refused_total{limit="user_passwords"}'] == refused


async def test_password_that_is_refused_is_not_counted(desks: tuple[TenantWithApp, TenantWithApp]) -> None:
    people, _ = desks
    user = await people.member()
    path, key = f"/users/{user}", await people.key_of(user)
    for _ in range(LIMITS["user_passwords"] + 1):
        assert (await people.ask("PATCH", path, key, {"password": "short"})).status == 403
    for number in range(LIMITS["user_passwords"]):
        changed = {"password": f"staple battery {number}"}
        assert (await people.ask("PATCH", path, key, changed)).status == 204


async def test_flood_of_registrations_does_not_block_logins(
    desks: tuple[TenantWithApp, TenantWithApp],
) -> None:
    hostile, honest = desks
    await honest.member()
    flood = [
        asyncio.create_task(hostile.register(name="Eve", email=f"eve{number}@example.com", password=PASSWORD))
        for number in range(FLOOD)
    ]
    await log_in_meanwhile(honest, flood)
    replies = await asyncio.gather(*flood)
    assert {reply.status for reply in replies} <= {201, 429}
    assert limits_of(replies) <= {"project_passwords"}


async def test_full_lane_is_no_wrong_password(desks: tuple[TenantWithApp, TenantWithApp]) -> None:
    hostile, honest = desks
    await honest.member()
    await hostile.member()
    for _ in range(2):
        flood = [
            asyncio.create_task(hostile.sign_in(email=EMAIL, password=PASSWORD))
            for _ in range(LIMITS["account_attempts"])
        ]
        await log_in_meanwhile(honest, flood)
        replies = await asyncio.gather(*flood)
        assert {reply.status for reply in replies} <= {200, 429}
        assert limits_of(replies) <= {"project_passwords"}
    assert (await hostile.sign_in(email=EMAIL, password=PASSWORD)).status == 200
