"""One key, in each of the ways that it may come; what comes with it; and whose page may send it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.cookies import Morsel, SimpleCookie
from itertools import permutations
from typing import Final

import pytest
import pytest_asyncio
from multidict import CIMultiDict

from kit.client import listen, raw_request, refusal
from kit.node import NodeProcess, private_node
from kit.tenant import Account, Tenant, tenant_of

EVENTS: Final = "/userSession/websocket"
LISTED: Final = "https://app.example.com"
"""Of `cookie_origins`."""
FOREIGN: Final = {"Origin": "https://evil.example"}
WIRE_HOST: Final = "homewire"
"""The Host of `wire`."""


def authorization(user: Account) -> dict[str, str]:
    return {"Authorization": f"Bearer {user.key}"}


def auth_key(user: Account) -> dict[str, str]:
    return {"X-Auth-Token": user.key, "X-User-Id": str(user.id)}


def cookie(user: Account) -> dict[str, str]:
    return {"Cookie": f"theme=dark; homewire_session={user.key}"}


Way = Callable[[Account], dict[str, str]]
WAYS: Final[tuple[Way, ...]] = (authorization, auth_key, cookie)
HEADERS: Final[tuple[Way, ...]] = (authorization, auth_key)
BESIDES: Final = list(permutations(WAYS, 2))


@dataclass
class Person:
    """A user with a home, and what they ask."""

    tenant: Tenant
    account: Account
    home: int
    forgotten: Mapping[str, Morsel[str]] = field(default_factory=dict)
    """The cookies that the last answer set."""

    async def asks(self, headers: Mapping[str, str], method: str = "GET") -> tuple[int, str]:
        """Read the home, or rename it to what the method is called; status and reason."""
        body = None if method == "GET" else {"name": method}
        async with self.tenant.http.request(
            method, f"/homes/{self.home}", headers=headers, json=body
        ) as answer:
            listed = headers.get("Origin") == LISTED
            assert answer.headers.getall("Access-Control-Allow-Origin") == [LISTED if listed else "*"]
            assert ("Access-Control-Allow-Credentials" in answer.headers) is listed
            self.forgotten = answer.cookies
            refused = answer.status >= 400
            return answer.status, (await answer.json())["reason"] if refused else ""

    async def name(self) -> str:
        found = await self.tenant.store.homes.get(self.tenant.project, self.home)
        assert found is not None
        return found.name

    async def receives(self, headers: Mapping[str, str], path: str = EVENTS) -> bool:
        async with await listen(self.tenant.url, path, None, **under_scores(headers)) as socket:
            return await socket.is_alive()

    async def refused(self, headers: Mapping[str, str], path: str = EVENTS) -> tuple[int, str]:
        answer = await refusal(self.tenant.url, path, None, **under_scores(headers))
        return answer.status, answer.json()["reason"]


def under_scores(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in headers.items()}


async def person_of(tenant: Tenant) -> Person:
    account = await tenant.user()
    return Person(tenant, account, await tenant.home(account))


@pytest_asyncio.fixture
async def ada(tenant: Tenant) -> Person:
    return await person_of(tenant)


@pytest_asyncio.fixture
async def bob(tenant: Tenant) -> Account:
    return await tenant.user()


NOBODY: Final = (401, "AUTHORIZATION_REQUIRED")
CROSS_SITE: Final = (403, "CROSS_SITE")


@pytest.mark.parametrize("way", WAYS)
async def test_key_may_come_in_each_way(ada: Person, way: Way) -> None:
    headers = way(ada.account)
    assert await ada.asks(headers) == (200, "")
    assert await ada.asks(headers, "PATCH") == (204, "")
    assert await ada.receives(headers)


@pytest.mark.parametrize(("way", "beside"), BESIDES)
async def test_key_may_come_twice_and_another_may_not(
    ada: Person, bob: Account, way: Way, beside: Way
) -> None:
    """In a header. A browser adds the cookie by itself: it counts alone or not at all."""
    assert await ada.asks(way(ada.account) | beside(ada.account)) == (200, "")
    if cookie in (way, beside):
        return
    disagreeing = way(ada.account) | beside(bob)
    assert await ada.asks(disagreeing) == NOBODY
    assert await ada.asks(disagreeing, "PATCH") == NOBODY
    assert await ada.refused(disagreeing) == NOBODY


@pytest.mark.parametrize("way", HEADERS)
async def test_header_decides_whatever_cookie_is_beside_it(ada: Person, bob: Account, way: Way) -> None:
    """Also a live one of somebody else, which stays."""
    dead = Account(bob.id, ada.tenant.unknown_key())
    for beside, is_dead in ((bob, False), (dead, True)):
        for method, status in (("GET", 200), ("PATCH", 204)):
            assert await ada.asks(way(ada.account) | cookie(beside), method) == (status, "")
            assert is_expired(ada.forgotten) is is_dead
        assert await ada.receives(way(ada.account) | cookie(beside))
        assert await ada.asks(way(dead) | cookie(ada.account)) == NOBODY
        assert not ada.forgotten


async def test_dead_cookie_is_expired_by_the_answer(ada: Person, tenant: Tenant) -> None:
    """Nothing else can: no script sees it. One that lives stays."""
    dead = Account(0, tenant.unknown_key())
    assert await ada.asks(cookie(dead)) == NOBODY
    assert is_expired(ada.forgotten)
    answer = await refusal(tenant.url, EVENTS, None, **under_scores(cookie(dead)))
    assert answer.status == 401
    assert "Max-Age=0" in answer.headers["set-cookie"]
    device = await tenant.device(ada.home)
    headers = {"Authorization": device.key, **cookie(dead)}
    event = {"eventType": "e"}
    async with tenant.http.put(f"/devices/{device.id}/event", json=event, headers=headers) as put:
        assert put.status == 204
        assert is_expired(put.cookies)
    assert await ada.asks(cookie(ada.account)) == (200, "")
    assert not ada.forgotten


def is_expired(cookies: Mapping[str, Morsel[str]]) -> bool:
    return "homewire_session" in cookies and cookies["homewire_session"]["max-age"] == "0"


async def test_auth_token_decides_and_agrees_with_headers(ada: Person, bob: Account) -> None:
    path = f"{EVENTS}?authToken={ada.account.key}"
    assert await ada.receives(cookie(ada.account), path)
    assert await ada.receives(cookie(bob), path)
    assert await ada.refused(auth_key(bob), path) == NOBODY


async def test_repeated_header_must_agree(ada: Person, bob: Account) -> None:
    """Of two, a balancer that looks at keys may have looked at the other one."""
    own, others = authorization(ada.account).items(), authorization(bob).items()
    token, user = auth_key(ada.account).items()
    planted, another = auth_key(bob).items()
    for right in ([*own, *own], [token, token, user, user]):
        assert await ada.asks(CIMultiDict(right)) == (200, "")
    for wrong in ([*own, *others], [*others, *own], [token, planted, user], [token, user, another]):
        assert await ada.asks(CIMultiDict(wrong)) == NOBODY
        assert await ada.asks(CIMultiDict(wrong), "PATCH") == NOBODY
    twice = f"{EVENTS}?authToken={ada.account.key}&authToken="
    assert await ada.receives({}, twice + ada.account.key)
    assert await ada.refused({}, twice + bob.key) == NOBODY


async def test_planted_cookie_wins_over_no_other(ada: Person, bob: Account) -> None:
    """A page of a neighbouring host can add a cookie of this name, before or behind the right one."""
    both = [f"homewire_session={each.key}" for each in (ada.account, bob)]
    for planted in (both, both[::-1]):
        assert await ada.asks({"Cookie": "; ".join(planted)}) == NOBODY


async def test_user_id_has_to_be_that_of_the_key(ada: Person, bob: Account, tenant: Tenant) -> None:
    right = ada.account.id
    for wrong in (bob.id, "", "x", f"0{right}", f"{right} {right}", "-1", "ada"):
        headers = {"X-Auth-Token": ada.account.key, "X-User-Id": str(wrong)}
        assert await ada.asks(headers) == NOBODY, wrong
        assert await ada.refused(headers) == NOBODY, wrong
    assert await ada.asks({"X-Auth-Token": ada.account.key}) == NOBODY
    # Nor does the header with the scheme make it right.
    assert await ada.asks(authorization(ada.account) | auth_key(ada.account) | {"X-User-Id": "1"}) == NOBODY
    device = await tenant.device(ada.home)
    for key, number in ((device.key, device.id), (tenant.key, tenant.key_id)):
        assert await ada.asks({"X-Auth-Token": key, "X-User-Id": str(number)}) == NOBODY


@pytest.mark.parametrize("way", WAYS)
async def test_session_that_ended_is_over_in_each_way(ada: Person, tenant: Tenant, way: Way) -> None:
    sessions, user = tenant.store.sessions, ada.account
    session, key = await tenant.session(user.id)
    other = Account(user.id, key)
    await sessions.end(tenant.project, session.id)
    assert await ada.asks(way(other)) == NOBODY
    assert await ada.refused(way(other)) == NOBODY
    assert await ada.asks(way(user)) == (200, "")


async def test_dead_cookie_does_not_block_public_operations(
    tenant: Tenant,
) -> None:
    """A browser sends it along, whatever its user does next. Who sends a dead key in a header means it."""
    dead = tenant.unknown_key()
    body = {"projectId": tenant.project, "token": tenant.unknown_key()}
    for headers, status in (
        ({}, 403),
        ({"Cookie": f"homewire_session={dead}"}, 403),
        ({"Authorization": dead}, 401),
        ({"X-Auth-Token": dead, "X-User-Id": "1"}, 401),
    ):
        async with tenant.http.post("/devices", json=body, headers=headers) as answer:
            assert answer.status == status, headers
    async with tenant.http.get("/auth", headers={"Cookie": f"homewire_session={dead}"}) as answer:
        assert await answer.json() == {"type": "nobody"}
        assert is_expired(answer.cookies)


PAGES: Final = (
    FOREIGN,
    {"Origin": "null"},
    {"Referer": "https://evil.example/page"},
    {"Origin": "http://127.0.0.1"},
)


@pytest.mark.parametrize("page", PAGES)
async def test_foreign_page_changes_nothing_with_a_cookie(ada: Person, page: dict[str, str]) -> None:
    headers = cookie(ada.account) | page
    for method in ("PATCH", "DELETE"):
        assert await ada.asks(headers, method) == CROSS_SITE
    assert await ada.name() == "home"
    # What it may ask for it can't read: no answer allows credentials.
    assert await ada.asks(headers) == (200, "")


async def test_nor_does_it_send_commands(ada: Person, tenant: Tenant) -> None:
    """Which the ingest tier takes."""
    device = await tenant.device(ada.home)
    path, body = f"/devices/{device.id}/command", {"action": "open"}
    for headers, status in ((FOREIGN, 403), ({}, 204)):
        async with tenant.http.put(path, json=body, headers=cookie(ada.account) | headers) as answer:
            assert answer.status == status


@pytest.mark.parametrize("way", [authorization, auth_key])
async def test_foreign_page_with_a_key_may(ada: Person, way: Way) -> None:
    assert await ada.asks(way(ada.account) | FOREIGN, "PATCH") == (204, "")
    assert await ada.asks(way(ada.account) | cookie(ada.account) | FOREIGN, "PATCH") == (204, "")
    assert await ada.receives(way(ada.account) | FOREIGN)
    assert await ada.receives(cookie(ada.account) | FOREIGN, f"{EVENTS}?authToken={ada.account.key}")


async def test_our_own_page_may(ada: Person, tenant: Tenant) -> None:
    for page in ({"Origin": tenant.url}, {"Referer": f"{tenant.url}/docs"}, {}):
        assert await ada.asks(cookie(ada.account) | page, "PATCH") == (204, "")
    for page in ({"Origin": f"http://{WIRE_HOST}"}, {"Origin": f"https://{WIRE_HOST}:443"}, {}):
        assert await ada.receives(cookie(ada.account) | page)


@pytest.mark.parametrize("page", PAGES)
async def test_foreign_page_cannot_listen_by_cookie(ada: Person, page: dict[str, str]) -> None:
    headers = cookie(ada.account) | page
    assert await ada.refused(headers) == CROSS_SITE
    assert await ada.refused(headers, f"{EVENTS}?homeId={ada.home}") == CROSS_SITE


async def test_listed_page_may(node_with_origins: NodeProcess) -> None:
    async with tenant_of(node_with_origins) as tenant:
        ada = await person_of(tenant)
        listed = cookie(ada.account) | {"Origin": LISTED}
        assert await ada.asks(listed, "PATCH") == (204, "")
        assert await ada.receives(listed)
        assert await ada.asks(cookie(ada.account) | FOREIGN, "PATCH") == CROSS_SITE
        assert await ada.refused(cookie(ada.account) | FOREIGN) == CROSS_SITE


async def test_no_key_is_logged_in_whatever_way_it_came(node_with_origins: NodeProcess) -> None:
    async with tenant_of(node_with_origins) as tenant:
        ada = await person_of(tenant)
        secret = ada.account.key.rsplit(".")[-1]
        for way in WAYS:
            for asked in (FOREIGN, {"X-User-Id": "1"}, {}):
                await ada.asks(way(ada.account) | asked)
                await ada.asks(way(ada.account) | asked, "PATCH")
        for line in (
            f"Cookie: homewire_session={ada.account.key}\x01",
            f"X-Auth-Token: {ada.account.key}\r\nContent-Length: x",
            f"Cookie: homewire_session={ada.account.key}{'x' * 20_000}",
        ):
            request = f"GET /homes/{ada.home} HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n"
            answer = await raw_request(node_with_origins.url, request.encode())
            assert answer.status in (401, 403)
            assert secret not in answer.body.decode()
    assert secret not in node_with_origins.logged()


@pytest.fixture(scope="module")
def node_with_origins() -> Iterator[NodeProcess]:
    with private_node(cookie_origins=LISTED, log_level="debug") as running:
        yield running


async def test_cookie_cannot_be_planted_where_https_is_used() -> None:
    """Also if the proxy before us says nothing of it. The name that browsers had before is still read."""
    with private_node(public_url="https://home.example.com") as node:
        async with tenant_of(node) as tenant:
            ada, bob = await person_of(tenant), await tenant.user()
            login = await tenant.ask("POST", "/session/login-with-token", None, {"token": ada.account.key})
            assert login.status == 201
            given: SimpleCookie = SimpleCookie(login.headers["Set-Cookie"])
            cookie_set = given["__Host-homewire_session"]
            assert (cookie_set["secure"], cookie_set["path"], cookie_set["domain"]) == (True, "/", "")
            own = f"__Host-homewire_session={cookie_set.value}"
            planted = f"homewire_session={bob.key}"
            for header in (own, f"{planted}; {own}", f"{own}; {planted}"):
                assert await ada.asks({"Cookie": header}) == (200, "")
            assert await ada.asks(cookie(ada.account)) == (200, "")
            dead = f"__Host-homewire_session={tenant.unknown_key()}; homewire_session={ada.account.key}"
            assert await ada.asks({"Cookie": dead}) == NOBODY
            # Only what is known to be dead.
            assert {name: each["max-age"] for name, each in ada.forgotten.items()} == {
                "__Host-homewire_session": "0"
            }
