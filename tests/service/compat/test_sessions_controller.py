"""The Sessions Controller (spec 002), as browsers use it: the examples of the document and what they mean."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from kit.accounts import EMAIL, PASSWORD, PHONE, TenantWithApp, tenant_with_app
from kit.browser import HOSTS, Browser, browser_of, cookie_of, refused
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import ACCOUNT_SYSTEMS

INFO = {"lastSuccessfulLogin", "lastFailedLogin", "uiTimeZone"}
LOGIN = {"login": EMAIL, "password": PASSWORD}
LIFETIME_MS = 60_000


@pytest.fixture(scope="module")
def hosting() -> Iterator[NodeProcess]:
    """A node whose projects have hosts."""
    with private_node(project_hosts=HOSTS) as node:
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


def is_info(body: dict[str, Any], *more: str) -> None:
    """It has the members of the document's example, of their types, and nothing else."""
    assert body.keys() == INFO | {*more}
    for name in ("lastSuccessfulLogin", "lastFailedLogin"):
        assert type(body[name]) is int
        assert body[name] >= 0
    assert isinstance(body["uiTimeZone"], str)


@pytest.mark.parametrize("prefix", ["/session", "/api/session"])
async def test_examples_of_the_document(people: TenantWithApp, browser: Browser, prefix: str) -> None:
    user = await people.member()
    device = await people.device(None)
    status = await browser.ask("GET", prefix)
    assert (status.status, status.body, status.headers.get("Content-Type")) == (204, None, None)
    for path, named in (("login", "login"), ("login-with-token", "token"), ("node/login", "login")):
        assert refused(await browser.ask("POST", f"{prefix}/{path}", {}), 400)["field"] == named
        assert refused(await browser.ask("POST", f"{prefix}/{path}"), 400)["field"] == "body"
    token, _ = await people.store.login_tokens.create(people.project, user, LIFETIME_MS)
    for path, body in (
        ("login", LOGIN),
        ("login-with-token", {"token": token}),
        ("node/login", {"login": str(device.id), "password": device.key}),
    ):
        logged_in = await browser.ask("POST", f"{prefix}/{path}", body)
        assert (logged_in.status, logged_in.headers["Content-Type"]) == (201, "application/json")
        is_info(logged_in.body)
        about = await browser.ask("GET", f"{prefix}/user")
        assert (about.status, about.body) == (200, logged_in.body)
        if path != "node/login":
            details = await browser.ask("GET", f"{prefix}/user/details")
            assert details.status == 200
            is_info(details.body, "guid")
            assert str(UUID(details.body["guid"])) == details.body["guid"]
            assert details.body == {**about.body, "guid": details.body["guid"]}
        logged_out = await browser.ask("POST", f"{prefix}/logout")
        assert (logged_out.status, logged_out.body) == (201, None)
        assert browser.cookie == ""
        refused(await browser.ask("GET", f"{prefix}/user"), 401)


async def test_request_without_session_is_not_logged_in(people: TenantWithApp, browser: Browser) -> None:
    device = await people.device(None)
    keys: list[str | None] = [None, "nonsense", device.key, await people.project_key()]
    for key in keys:
        headers = {} if key is None else {"Authorization": key}
        for method, path in (("POST", "logout"), ("GET", "user"), ("GET", "user/details")):
            refused(await browser.ask(method, f"/session/{path}", **headers), 401, "AUTHORIZATION_REQUIRED")
    # And every caller can ask whether the service is there.
    browser.cookie = "nonsense"
    assert (await browser.ask("GET", "/session", Authorization="nonsense")).status == 204


async def test_key_is_in_the_cookie_and_nowhere_else(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    logged_in = await browser.ask("POST", "/session/login", LOGIN)
    cookie = cookie_of(logged_in)
    assert cookie is not None
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert not cookie["secure"]
    key = browser.cookie
    for body in (
        logged_in.body,
        (await browser.ask("GET", "/session/user")).body,
        (await browser.ask("GET", "/session/user/details")).body,
    ):
        assert key.rpartition(".")[2] not in str(body)
    # It is a key like any other: the same session, however it is sent.
    for headers in ({"Authorization": f"ModeCloud {key}"}, {"Authorization": f"Bearer {key}"}):
        found = await people.http.get("/auth", headers=headers)
        assert (await found.json())["userId"] == user
    [session] = await people.store.sessions.of_user(people.project, user)
    assert (session.app_id, session.authentication_type) == ("sessions-controller", "Cookie")
    assert (session.host, session.address) == (browser.host, "127.0.0.1")
    logged_out = await browser.ask("POST", "/session/logout")
    expired = cookie_of(logged_out)
    assert expired is not None
    assert (expired.value, expired["max-age"], expired["path"]) == ("", "0", "/")
    assert (await people.ask("GET", f"/users/{user}", key)).status == 401
    assert await people.store.sessions.of_user(people.project, user) == []


async def test_logging_out_with_a_key_needs_no_cookie(people: TenantWithApp, browser: Browser) -> None:
    key = await people.key_of(await people.member())
    # A page of another origin may hold a key, and act with it.
    bearer = {"Authorization": f"Bearer {key}", "Origin": "https://elsewhere.example.com"}
    assert (await browser.ask("GET", "/session/user", **bearer)).status == 200
    assert (await browser.ask("POST", "/session/logout", **bearer)).status == 201
    refused(await browser.ask("POST", "/session/logout", **bearer), 401)


async def test_pages_of_other_origins_neither_log_in_nor_out(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    foreign = {"Origin": "https://elsewhere.example.com"}
    refused(await browser.ask("POST", "/session/login", LOGIN, **foreign), 403, "CROSS_SITE")
    assert browser.cookie == ""
    own = {"Origin": f"http://{browser.host}"}
    assert (await browser.ask("POST", "/session/login", LOGIN, **own)).status == 201
    refused(await browser.ask("POST", "/session/logout", **foreign), 403, "CROSS_SITE")
    assert len(await people.store.sessions.of_user(people.project, user)) == 1
    assert (await browser.ask("POST", "/session/logout", **own)).status == 201


async def test_login_ignores_planted_key(people: TenantWithApp, browser: Browser) -> None:
    await people.member()
    planted = await people.key_of(await people.member("eve@example.com"))
    browser.cookie = planted
    assert (await browser.ask("POST", "/session/login", LOGIN)).status == 201
    assert browser.cookie != planted
    first = browser.cookie
    assert (await browser.ask("POST", "/session/login", LOGIN)).status == 201
    assert browser.cookie not in (first, planted)


async def test_times_of_logins_are_true(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    began = time.time_ns() // 1_000_000
    first = (await browser.ask("POST", "/session/login", LOGIN)).body
    assert first["lastFailedLogin"] == 0
    assert began <= first["lastSuccessfulLogin"] <= time.time_ns() // 1_000_000
    failing = time.time_ns() // 1_000_000
    wrong = {**LOGIN, "password": "wrong"}
    assert refused(await browser.ask("POST", "/session/login", wrong), 401, "INCORRECT_PASSWORD")
    about = (await browser.ask("GET", "/session/user")).body
    assert about["lastSuccessfulLogin"] == first["lastSuccessfulLogin"]
    assert failing <= about["lastFailedLogin"] <= time.time_ns() // 1_000_000
    token = f"v1.{people.project}.{user}.{'A' * 43}"
    refused(await browser.ask("POST", "/session/login-with-token", {"token": token}), 401)
    assert (await browser.ask("GET", "/session/user")).body["lastFailedLogin"] > about["lastFailedLogin"]
    # Logins of other ways in count as well, and are seen here at once.
    assert (await people.sign_in(email=EMAIL, password=PASSWORD)).status == 200
    assert (await people.sign_in(email=EMAIL, password="wrong")).status == 403
    later = (await browser.ask("GET", "/session/user/details")).body
    assert later["lastSuccessfulLogin"] > about["lastSuccessfulLogin"]
    assert later["lastFailedLogin"] > about["lastFailedLogin"]
    assert (await people.store.users.get(people.project, user)) is not None


async def test_time_zone_is_the_users(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    assert (await browser.ask("POST", "/session/login", LOGIN)).body["uiTimeZone"] == "UTC"
    changed = {"uiTimeZone": "Asia/Tokyo"}
    assert (await people.ask("PATCH", f"/users/{user}", browser.cookie, changed)).status == 204
    for path in ("user", "user/details"):
        assert (await browser.ask("GET", f"/session/{path}")).body["uiTimeZone"] == "Asia/Tokyo"
    assert (await browser.ask("POST", "/session/login", LOGIN)).body["uiTimeZone"] == "Asia/Tokyo"


async def test_guid_is_the_users_and_stays(people: TenantWithApp, browser: Browser) -> None:
    ada, bob = await people.member(), await people.member("bob@example.com")
    guids = []
    for user in (ada, ada, bob):
        key = await people.key_of(user)
        guids.append((await browser.ask("GET", "/session/user/details", Authorization=key)).body["guid"])
    assert guids[0] == guids[1] != guids[2]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", guids[0])


@pytest.mark.parametrize("accounts", ACCOUNT_SYSTEMS)
async def test_login_token_lets_its_user_in_once(hosting: NodeProcess, accounts: str) -> None:
    async with tenant_with_app(hosting, accounts) as people, browser_of(people) as browser:
        store = people.store
        email = EMAIL if accounts == "email" else None
        phone = PHONE if accounts == "phone" else None
        user = (await store.users.create(people.project, "Ada", email=email, phone=phone)).id
        token, _ = await store.login_tokens.create(people.project, user, LIFETIME_MS)
        assert (await browser.ask("POST", "/session/login-with-token", {"token": token})).status == 201
        [session] = await store.sessions.of_user(people.project, user)
        assert session.app_id == "sessions-controller"
        assert (await browser.ask("GET", "/session/user/details")).status == 200
        again = await browser.ask("POST", "/session/login-with-token", {"token": token})
        assert refused(again, 401, "INVALID_TOKEN")["field"] == "token"
        if accounts != "email":
            refused(await browser.ask("POST", "/session/login", LOGIN), 401, "NO_PASSWORDS")


async def test_users_key_opens_another_session_of_the_user(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    key = await people.key_of(user)
    assert (await browser.ask("POST", "/session/login-with-token", {"token": key})).status == 201
    assert browser.cookie != key
    assert len(await people.store.sessions.of_user(people.project, user)) == 2
    assert (await browser.ask("POST", "/session/logout")).status == 201
    # The one that it was opened with goes on.
    assert (await people.ask("GET", f"/users/{user}", key)).status == 200
    ended = await people.store.sessions.of_token(key)
    assert ended is not None
    await people.store.sessions.end(people.project, ended.id)
    refused(await browser.ask("POST", "/session/login-with-token", {"token": key}), 401, "INVALID_TOKEN")


async def test_no_other_key_is_a_login_token(people: TenantWithApp, browser: Browser) -> None:
    device = await people.device(None)
    node, node_key = await people.node_session(device.id)
    assert node.device_id == device.id
    for token in (device.key, node_key, await people.project_key(), f"v1.{people.project}.{'A' * 43}"):
        wrong = await browser.ask("POST", "/session/login-with-token", {"token": token})
        refused(wrong, 401, "INVALID_TOKEN")


async def test_token_of_another_project_is_refused(people: TenantWithApp, hosting: NodeProcess) -> None:
    user = await people.member()
    token, _ = await people.store.login_tokens.create(people.project, user, LIFETIME_MS)
    key, device = await people.key_of(user), await people.device(None)
    async with tenant_with_app(hosting, "email") as other, browser_of(other) as browser:
        for given in (token, key):
            wrong = await browser.ask("POST", "/session/login-with-token", {"token": given})
            refused(wrong, 401, "INVALID_TOKEN")
        node = {"login": device.id, "password": device.key}
        refused(await browser.ask("POST", "/session/node/login", node), 401, "INCORRECT_PASSWORD")
        refused(await browser.ask("POST", "/session/login", LOGIN), 401, "INCORRECT_PASSWORD")
    # It was not spent by that.
    async with browser_of(people) as browser:
        assert (await browser.ask("POST", "/session/login-with-token", {"token": token})).status == 201


async def test_host_that_names_no_project(people: TenantWithApp) -> None:
    user = await people.member()
    device = await people.device(None)
    token, _ = await people.store.login_tokens.create(people.project, user, LIFETIME_MS)
    async with tenant_with_app(people.node, "email"), browser_of(people, 0) as browser:
        wrong = await browser.ask("POST", "/session/login", LOGIN)
        assert refused(wrong, 400, "AMBIGUOUS_PROJECT")["field"] == "Host"
        # Tokens and keys name their project themselves.
        assert (await browser.ask("POST", "/session/login-with-token", {"token": token})).status == 201
        node = {"login": device.id, "password": device.key}
        assert (await browser.ask("POST", "/session/node/login", node)).status == 201
        elsewhere = {"token": f"v1.987654321.1.{'A' * 43}"}
        refused(await browser.ask("POST", "/session/login-with-token", elsewhere), 401, "INVALID_TOKEN")


async def test_login_to_disabled_project_is_refused(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    token, _ = await people.store.login_tokens.create(people.project, user, LIFETIME_MS)
    await people.store.projects.disable(people.project)
    for path, body in (("login", LOGIN), ("login-with-token", {"token": token})):
        refused(await browser.ask("POST", f"/session/{path}", body), 400, "UNKNOWN_PROJECT")


async def test_device_logs_in(people: TenantWithApp, browser: Browser) -> None:
    device, other = await people.device(None), await people.device(None)
    began = time.time_ns() // 1_000_000
    wrong = {"login": device.id, "password": other.key}
    refused(await browser.ask("POST", "/session/node/login", wrong), 401, "INCORRECT_PASSWORD")
    failed = time.time_ns() // 1_000_000
    logged_in = await browser.ask("POST", "/session/node/login", {"login": device.id, "password": device.key})
    assert began <= logged_in.body["lastFailedLogin"] <= failed <= logged_in.body["lastSuccessfulLogin"]
    assert logged_in.body["uiTimeZone"] == "UTC"
    assert (await browser.ask("GET", "/session/user")).body == logged_in.body
    refused(await browser.ask("GET", "/session/user/details"), 404)
    found = await people.store.principals.lookup(browser.cookie)
    assert found is not None
    assert (found.kind, found.id) == ("device", device.id)
    refused(await browser.ask("GET", "/userSession"), 403)
    # The key of such a session logs nobody in again, and dies with the device's own.
    again = {"login": device.id, "password": browser.cookie}
    refused(await browser.ask("POST", "/session/node/login", again), 401)
    noted = (await browser.ask("GET", "/session/user")).body
    assert noted["lastFailedLogin"] > logged_in.body["lastFailedLogin"]
    assert noted["lastSuccessfulLogin"] == logged_in.body["lastSuccessfulLogin"]
    await people.store.devices.rotate_key(people.project, device.id)

    async def is_dead() -> bool:
        # It was not this node that rotated the key: it learns of it.
        return (await browser.ask("GET", "/session/user")).status == 401

    await eventually(is_dead)


async def test_session_that_is_in_use_is_not_ended(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    await browser.ask("POST", "/session/login", LOGIN)
    [session] = await people.store.sessions.of_user(people.project, user)
    async with people.store.sessions.lease(people.project, session.id):
        refused(await browser.ask("POST", "/session/logout"), 409, "SESSION_IN_USE")
        assert (await browser.ask("GET", "/session/user")).status == 200
    assert (await browser.ask("POST", "/session/logout")).status == 201


async def test_session_that_others_ended_is_none(people: TenantWithApp, browser: Browser) -> None:
    user = await people.member()
    await browser.ask("POST", "/session/login", LOGIN)
    [session] = await people.store.sessions.of_user(people.project, user)
    await people.store.sessions.end(people.project, session.id)
    for method, path in (("GET", "user"), ("GET", "user/details"), ("POST", "logout")):
        refused(await browser.ask(method, f"/session/{path}"), 401)


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("login", {"login": EMAIL}, "password"),
        ("login", {"login": None, "password": PASSWORD}, "login"),
        ("login", {"login": 7, "password": PASSWORD}, "login"),
        ("login", {"login": EMAIL, "password": ["x"]}, "password"),
        ("login", [], "body"),
        ("login", b"{", "body"),
        ("login", b"\xff", "body"),
        ("login", b"[" * 50_000, "body"),
        ("login", b"login=x", "body"),
        ("login-with-token", {"token": 7}, "token"),
        ("login-with-token", {"token": None}, "token"),
        ("node/login", {"login": True, "password": "x"}, "login"),
        ("node/login", {"login": 1.5, "password": "x"}, "login"),
        ("node/login", {"login": 1}, "password"),
    ],
)
async def test_bad_bodies_name_their_field(browser: Browser, path: str, body: Any, named: str) -> None:
    assert refused(await browser.ask("POST", f"/session/{path}", body), 400)["field"] == named


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("login", {"login": "x" * 10_000, "password": "x" * 10_000}),
        ("login", {"login": "", "password": ""}),
        ("login", {"login": "no address", "password": PASSWORD}),
        ("login", {"login": "nobody@example.com", "password": PASSWORD}),
        ("login", {"login": "a\0b@example.com", "password": "\0"}),
        ("login", b'{"login": "\\ud800@example.com", "password": "\\ud800"}'),
        ("login-with-token", {"token": ""}),
        ("login-with-token", {"token": "x" * 10_000}),
        ("login-with-token", b'{"token": "\\ud800"}'),
        ("node/login", {"login": "device", "password": "x"}),
        ("node/login", {"login": -1, "password": f"v1.1.{'A' * 43}"}),
        ("node/login", {"login": "٣", "password": f"v1.1.{'A' * 43}"}),
        ("node/login", {"login": 2**63, "password": f"v1.1.{'A' * 43}"}),
        ("node/login", b'{"login": ' + b"9" * 5000 + b', "password": "x"}'),
        ("node/login", b'{"login": "\\ud800", "password": "\\ud800"}'),
    ],
)
async def test_wrong_credentials_are_refused(
    people: TenantWithApp, browser: Browser, path: str, body: Any
) -> None:
    await people.member()
    wrong = await browser.ask("POST", f"/session/{path}", body)
    assert wrong.status in (400, 401), wrong
    refused(wrong, wrong.status)
    assert browser.cookie == ""


async def test_unknown_members_are_ignored_and_other_methods_refused(
    people: TenantWithApp, browser: Browser
) -> None:
    await people.member()
    assert (await browser.ask("POST", "/session/login", {**LOGIN, "projectId": 1, "x": []})).status == 201
    for method, path in (("GET", "/session/login"), ("POST", "/session"), ("DELETE", "/session/user")):
        refused(await browser.ask(method, path), 405)
    refused(await browser.ask("GET", "/session/nothing"), 404)
