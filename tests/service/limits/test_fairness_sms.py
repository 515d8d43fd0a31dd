"""SMS cost money, so a project has a budget of them: strangers that use it up keep no user from a code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from kit.accounts import APP, PHONE, TenantWithApp, tenant_with_app
from kit.node import NodeProcess, private_node
from kit.tenant import Reply

BUDGET = 40
LEFT = BUDGET // 4
"""For users at networks where they logged in lately."""
OF_ONE_NUMBER = 6
LIMITS: dict[str, Any] = {
    "trusted_proxies": "127.0.0.0/8",
    "address_messages": 15,
    "account_messages": 3,
    "recipient_messages": OF_ONE_NUMBER,
    "project_sms_per_day": BUDGET,
}
AT_HOME, AWAY = "192.0.2.7", "198.51.100.9"


@pytest.fixture(scope="module")
def behind_proxy() -> Iterator[NodeProcess]:
    """A node that believes what the tests say about the addresses of their clients."""
    with private_node(**LIMITS) as node:
        yield node


@pytest_asyncio.fixture
async def desks(behind_proxy: NodeProcess) -> AsyncIterator[tuple[TenantWithApp, TenantWithApp]]:
    """Two projects on one node: the one that strangers attack, and another. Each has a user."""
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(tenant_with_app(behind_proxy, "phone")) for _ in range(2)
        ]
        for people in (first, second):
            await people.store.users.create(people.project, "Ada", phone=PHONE, verified=True)
        yield first, second


async def ask(people: TenantWithApp, address: str, path: str, **options: Any) -> Reply:
    headers = {"X-Forwarded-For": address}
    async with people.http.post(path, headers=headers, **options) as answer:
        body = await answer.json() if answer.content_type == "application/json" else None
        return Reply(answer.status, body, answer.headers)


async def ask_for_code(people: TenantWithApp, address: str, phone: str = PHONE) -> Reply:
    form = {"projectId": people.project, "phoneNumber": phone}
    return await ask(people, address, "/auth/user/sms", data=form)


async def register(people: TenantWithApp, address: str, phone: str) -> Reply:
    body = {"projectId": people.project, "name": "Eve", "phoneNumber": phone}
    return await ask(people, address, "/users", json=body)


async def log_in(people: TenantWithApp, address: str) -> None:
    """Ask for a code, and log in with it."""
    assert (await ask_for_code(people, address)).status == 200
    sent = await people.messages(PHONE)
    form = {"projectId": people.project, "appId": APP, "phoneNumber": PHONE, "code": sent[-1].code}
    assert (await ask(people, address, "/auth/user", data=form)).status == 200


def limit(reply: Reply) -> str:
    assert reply.status == 429, reply
    assert int(reply.headers["Retry-After"]) > 0
    return str(reply.body["data"]["limit"])


async def use_up_registrations(people: TenantWithApp) -> int:
    """Register ever new numbers from ever new networks until the project refuses; how many it took."""
    for number in range(2 * BUDGET):
        reply = await register(people, f"203.0.{number}.1", f"+1415555{number:04}")
        if reply.status != 201:
            assert limit(reply) == "project_sms_per_day"
            return number
    raise AssertionError("the project never refuses")


async def test_registrations_by_strangers_leave_a_part_of_the_budget_for_known_users(
    desks: tuple[TenantWithApp, TenantWithApp],
) -> None:
    attacked, other = desks
    await log_in(attacked, AT_HOME)
    # The first code, too, was asked for by somebody who was not known yet.
    assert await use_up_registrations(attacked) == BUDGET - LEFT - 1
    assert limit(await ask_for_code(attacked, AWAY)) == "project_sms_per_day"
    await log_in(attacked, AT_HOME)
    # Another project has a budget of its own, for users who were never seen, too.
    await log_in(other, AWAY)
    assert (await register(other, AWAY, "+14155559999")).status == 201


async def test_one_address_uses_up_its_own_share_only(desks: tuple[TenantWithApp, TenantWithApp]) -> None:
    attacked, other = desks
    numbers = [f"+1415555{number:04}" for number in range(BUDGET)]
    # At once: each refusal is answered a second later.
    replies = await asyncio.gather(*(register(attacked, "203.0.113.1", number) for number in numbers))
    assert sum(reply.status == 201 for reply in replies) == LIMITS["address_messages"]
    assert {limit(reply) for reply in replies if reply.status != 201} == {"address_messages"}
    for people in desks:
        assert (await register(people, AWAY, "+14155559999")).status == 201
    await log_in(attacked, AT_HOME)
    # Nor does the address use up anything of its neighbours in another project.
    assert (await register(other, "203.0.113.1", "+14155558888")).status == 201


async def test_code_requests_of_strangers_do_not_block_user(
    desks: tuple[TenantWithApp, TenantWithApp],
) -> None:
    attacked, other = desks
    await log_in(attacked, AT_HOME)
    strangers = [f"203.0.{number}.1" for number in range(2 * OF_ONE_NUMBER)]
    replies = await asyncio.gather(*(ask_for_code(attacked, each) for each in strangers))
    # The first code of the user was one of those.
    assert sum(reply.status == 200 for reply in replies) == OF_ONE_NUMBER - 1
    assert {limit(reply) for reply in replies if reply.status != 200} == {"recipient_messages"}
    await log_in(attacked, AT_HOME)
    await log_in(other, AT_HOME)


async def test_one_user_gets_no_more_than_a_part_of_the_budget(
    desks: tuple[TenantWithApp, TenantWithApp],
) -> None:
    """From however many networks, at each of which the user logged in."""
    attacked, _ = desks
    for network in range(OF_ONE_NUMBER):
        await log_in(attacked, f"192.0.{network}.7")
    known = [await ask_for_code(attacked, f"192.0.{network}.7") for network in range(OF_ONE_NUMBER)]
    assert {reply.status for reply in known} == {200}
    assert limit(await ask_for_code(attacked, "192.0.0.7")) == "project_sms_per_day"
    # Another user is not kept out by that.
    assert (await register(attacked, AWAY, "+14155559999")).status == 201
