"""What the logins of the Sessions Controller bear: guessing, many at once, changes in their midst; and that
the session which they make ends everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from kit.accounts import EMAIL, PASSWORD, TenantWithApp, tenant_with_app
from kit.browser import HOSTS, Browser, browser_of, client_of, refused
from kit.client import CLOSE, listen
from kit.node import NodeProcess, private_node

LOGIN = {"login": EMAIL, "password": PASSWORD}
ATTEMPTS, OF_ACCOUNT, LIFETIME_MS = 6, 3, 60_000
KEY_ENDED = 4502


@pytest.fixture(scope="module")
def hosting() -> Iterator[NodeProcess]:
    """A node that bears few attempts, makes tokens that are too old at once, and knows projects by hosts."""
    limits = {"address_attempts": ATTEMPTS, "account_attempts": OF_ACCOUNT}
    with private_node(project_hosts=HOSTS, login_token_lifetime_s=0.001, **limits) as node:
        yield node


@pytest_asyncio.fixture
async def people(hosting: NodeProcess) -> AsyncIterator[TenantWithApp]:
    """An e-mail project of this test's own."""
    async with tenant_with_app(hosting, "email") as made:
        yield made


@pytest_asyncio.fixture
async def browser(people: TenantWithApp) -> AsyncIterator[Browser]:
    """Somebody's, who is not logged in."""
    async with browser_of(people) as made:
        yield made


async def test_attempts_at_account_are_limited(people: TenantWithApp, browser: Browser) -> None:
    await people.member()
    for _ in range(OF_ACCOUNT):
        refused(await browser.ask("POST", "/session/login", {**LOGIN, "password": "wrong"}), 401)
    late = await browser.ask("POST", "/api/session/login", LOGIN)
    assert refused(late, 429)["limit"] == "account_attempts"
    assert int(late.headers["Retry-After"]) > 0


async def test_attempts_at_tokens_are_limited(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    token, _ = await people.store.login_tokens.create(people.project, user, LIFETIME_MS)
    for wrong in (f"v1.{people.project}.{user}.{'A' * 43}", f"v1.{people.project}.{'A' * 43}") * (
        ATTEMPTS // 2
    ):
        refused(await browser.ask("POST", "/session/login-with-token", {"token": wrong}), 401)
    late = await browser.ask("POST", "/session/login-with-token", {"token": token})
    assert refused(late, 429)["limit"] == "address_attempts"


async def test_right_ones_are_not_counted(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    for _ in range(ATTEMPTS + 1):
        token, _ = await people.store.login_tokens.create(people.project, user, LIFETIME_MS)
        assert (await browser.ask("POST", "/session/login-with-token", {"token": token})).status == 201


async def test_attempts_at_device_key_are_limited(people: TenantWithApp, browser: Browser) -> None:
    device = await people.device(None)
    wrong = {"login": device.id, "password": f"v1.{people.project}.{'A' * 43}"}
    for _ in range(OF_ACCOUNT):
        refused(await browser.ask("POST", "/session/node/login", wrong), 401)
    right = {"login": str(device.id), "password": device.key}
    assert (
        refused(await browser.ask("POST", "/session/node/login", right), 429)["limit"] == "account_attempts"
    )


async def test_login_token_used_by_many_clients_admits_one(people: TenantWithApp) -> None:
    user = await people.member()
    token, _ = await people.store.login_tokens.create(people.project, user, LIFETIME_MS)
    async with client_of(people.node) as http:
        browsers = [Browser(http, people.project) for _ in range(ATTEMPTS)]
        body = {"token": token}
        replies = await asyncio.gather(
            *(each.ask("POST", "/session/login-with-token", body) for each in browsers)
        )
    assert sorted(reply.status for reply in replies) == [201] + [401] * (ATTEMPTS - 1)
    assert len(await people.store.sessions.of_user(people.project, user)) == 1
    assert len([each for each in browsers if each.cookie]) == 1


async def test_no_session_outlives_the_password_that_it_was_opened_under(people: TenantWithApp) -> None:
    """Somebody with a stolen key opens session after session while its owner resets the password."""
    user, store = await people.member(), people.store
    key = await people.key_of(user)
    token = await people.reset_token(user)
    reset: asyncio.Event = asyncio.Event()

    async def steal(thief: Browser) -> None:
        while not reset.is_set():
            stolen = await thief.ask("POST", "/session/login-with-token", {"token": thief.cookie or key})
            if stolen.status != 201:
                return

    async with client_of(people.node) as http:
        thieves = [asyncio.create_task(steal(Browser(http, people.project))) for _ in range(4)]
        done = await people.post("/auth/user/passwordReset", token=token, newPassword="staple battery")
        assert done.status == 200, done
        assert await store.sessions.of_user(people.project, user) == []
        reset.set()
        await asyncio.gather(*thieves)
    assert await store.sessions.of_user(people.project, user) == []


async def test_token_that_a_project_got_grows_old(people: TenantWithApp, browser: Browser) -> None:
    user, key = await people.member(), await people.project_key("admin")
    made = await people.ask("POST", f"/users/{user}/loginToken", key)
    assert made.status == 201
    late = await browser.ask("POST", "/session/login-with-token", {"token": made.body["token"]})
    refused(late, 401, "INVALID_TOKEN")


async def test_unverified_user_cannot_log_in_by_password(people: TenantWithApp, browser: Browser) -> None:
    user = await people.store.users.create(people.project, "Ada", email=EMAIL, password=PASSWORD)
    refused(await browser.ask("POST", "/session/login", LOGIN), 401, "USER_UNVERIFIED")
    assert browser.cookie == ""
    token, _ = await people.store.login_tokens.create(people.project, user.id, LIFETIME_MS)
    entered = await browser.ask("POST", "/session/login-with-token", {"token": token})
    assert (entered.status, entered.body["lastFailedLogin"] > 0) == (201, True)


async def test_logout_closes_sockets_opened_with_its_cookie(people: TenantWithApp, browser: Browser) -> None:
    await people.member()
    await browser.ask("POST", "/session/login", LOGIN)
    headers = {
        "Cookie": f"homewire_session={browser.cookie}",
        "Host": browser.host,
        "Origin": f"http://{browser.host}",
    }
    async with await listen(people.node.url, "/userSession/websocket", None, **headers) as socket:
        assert await socket.is_alive()
        assert (await browser.ask("POST", "/session/logout")).status == 201
        frame = await socket.receive(5.0)
        assert (frame.opcode, frame.close_code) == (CLOSE, KEY_ENDED)


async def test_session_of_a_cookie_can_be_ended_elsewhere(people: TenantWithApp, browser: Browser) -> None:
    await people.member()
    await browser.ask("POST", "/session/login", LOGIN)
    ended = await people.ask("DELETE", "/userSession", browser.cookie)
    assert ended.status == 204
    refused(await browser.ask("GET", "/session/user"), 401)
    refused(await browser.ask("POST", "/session/logout"), 401)
