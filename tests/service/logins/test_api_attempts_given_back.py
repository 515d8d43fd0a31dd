"""An attempt counts if it was wrong, and for nothing else: each place where something is guessed."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kit.accounts import EMAIL, PASSWORD, PHONE, TenantWithApp, tenant_with_app
from kit.browser import HOSTS, browser_of
from kit.node import NodeProcess, eventually, running_node
from kit.redis_link import SCRIPTS, RedisLink, redis_link
from kit.redis_server import running_server
from kit.tenant import Reply

MOST = 2
"""Wrong guesses that a node bears here."""
MINUTE_MS = 60_000
NEW = "staple battery"


@pytest.fixture(scope="module")
def way() -> Iterator[tuple[NodeProcess, RedisLink]]:
    """A node that bears few guesses, and its way to Redis."""
    limits: dict[str, Any] = {"account_attempts": MOST, "address_attempts": MOST}
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        way = stack.enter_context(redis_link(server.url))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hw-")))
        node = stack.enter_context(
            running_node(directory / "data", redis_url=way.url, project_hosts=HOSTS, **limits)
        )
        # What the tests store goes another way.
        yield replace(node, redis_url=server.url), way


_numbers = itertools.count()
Attempt = Callable[[TenantWithApp], Coroutine[Any, Any, Reply]]


async def by_password(people: TenantWithApp) -> Reply:
    if await people.store.users.by_email(people.project, EMAIL) is None:
        await people.member()
    return await people.sign_in(email=EMAIL, password=PASSWORD)


async def by_code(people: TenantWithApp) -> Reply:
    store = people.store
    user = await store.users.by_phone(people.project, PHONE)
    if user is None:
        user = await store.users.create(people.project, "Ada", phone=PHONE)
    code = await store.verifications.issue_code(people.project, user.id, MINUTE_MS)
    return await people.sign_in(phoneNumber=PHONE, code=code)


async def by_reset(people: TenantWithApp) -> Reply:
    store = people.store
    user = await store.users.by_email(people.project, EMAIL)
    user_id = await people.member() if user is None else user.id
    token = await people.reset_token(user_id)
    return await people.post("/auth/user/passwordReset", token=token, newPassword=NEW)


async def by_verification(people: TenantWithApp) -> Reply:
    store = people.store
    user = await store.users.create(people.project, "Ada", email=f"{next(_numbers)}@example.com")
    token = await people.verification_token(user.id)
    return await people.post("/auth/user/emailVerification", token=token)


async def at_the_controller(people: TenantWithApp) -> Reply:
    if await people.store.users.by_email(people.project, EMAIL) is None:
        await people.member()
    async with browser_of(people) as browser:
        return await browser.ask("POST", "/session/login", {"login": EMAIL, "password": PASSWORD})


async def by_login_token(people: TenantWithApp) -> Reply:
    store = people.store
    user = await store.users.by_email(people.project, EMAIL)
    user_id = await people.member() if user is None else user.id
    token, _ = await store.login_tokens.create(people.project, user_id, MINUTE_MS)
    async with browser_of(people) as browser:
        return await browser.ask("POST", "/session/login-with-token", {"token": token})


async def as_a_device(people: TenantWithApp) -> Reply:
    device = await people.device(None)
    async with browser_of(people) as browser:
        body = {"login": device.id, "password": device.key}
        return await browser.ask("POST", "/session/node/login", body)


PLACES = {
    # What is asked of Redis between the attempt and its verdict, and by nothing else.
    "password": ("email", by_password, b":emails\r\n"),
    "code": ("phone", by_code, SCRIPTS["redeem_code"]),
    "verification": ("email", by_verification, SCRIPTS["verify_email"]),
    "reset": ("email", by_reset, SCRIPTS["redeem_token"]),
    "controller": ("email", at_the_controller, b":emails\r\n"),
    "login token": ("email", by_login_token, SCRIPTS["redeem_login_token"]),
    "device": ("email", as_a_device, b":key:"),
}


@pytest_asyncio.fixture(params=PLACES)
async def place(
    request: pytest.FixtureRequest, way: tuple[NodeProcess, RedisLink]
) -> AsyncIterator[tuple[TenantWithApp, Attempt, RedisLink, bytes]]:
    """A project, and how something is guessed right in it, again and again."""
    accounts, attempt, between = PLACES[request.param]
    async with tenant_with_app(way[0], accounts) as people:
        yield people, attempt, way[1], between
        way[1].cuts = way[1].holds = b""


async def test_right_attempts_do_not_count(place: tuple[TenantWithApp, Attempt, RedisLink, bytes]) -> None:
    people, attempt, _, _ = place
    for _ in range(MOST + 1):
        assert (await attempt(people)).status in (200, 201)


async def test_attempts_without_verdict_do_not_count(
    place: tuple[TenantWithApp, Attempt, RedisLink, bytes],
) -> None:
    people, attempt, way, between = place
    # The scripts are loaded, and the accounts made.
    assert (await attempt(people)).status in (200, 201)
    for _ in range(MOST + 1):
        way.cuts = between
        assert (await attempt(people)).status == 503
        way.cuts = b""
    assert (await attempt(people)).status in (200, 201)


async def test_attempts_of_disconnected_client_do_not_count(
    place: tuple[TenantWithApp, Attempt, RedisLink, bytes],
) -> None:
    people, attempt, way, between = place
    assert (await attempt(people)).status in (200, 201)
    for _ in range(MOST + 1):
        way.held.clear()
        way.goes_on.clear()
        way.holds = between
        asking = asyncio.create_task(attempt(people))
        assert await asyncio.to_thread(way.held.wait, 30)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        way.holds = b""
        way.goes_on.set()
        # Its answer has nobody who reads it; the places are free when it is done.
        await settled(people)
    assert (await attempt(people)).status in (200, 201)


async def settled(people: TenantWithApp) -> None:
    """No attempt is without a verdict."""
    leases = f"*{{p{people.project}}}:attempts:*:leases"

    async def none_left() -> bool:
        return not [name async for name in people.redis.scan_iter(leases)]

    await eventually(none_left, 25.0)
